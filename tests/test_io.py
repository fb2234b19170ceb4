"""Images in, masks and overlays out."""

from __future__ import annotations

import io
import struct

import numpy as np
import PIL.Image
import pytest
from PIL import TiffImagePlugin

from reportseg.errors import InputError
from reportseg.io import image_from_array, image_from_pil, read_image, read_mask
from reportseg.io.png import PREDICTION_RGB, TRUTH_RGB, overlay_rgb, write_mask, write_overlay, write_probability

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (5, 7), np.uint8)
DEEP = RNG.integers(0, 65536, (5, 7), np.uint16)
RGB = RNG.integers(0, 256, (5, 7, 3), np.uint8)


def encoded(image: PIL.Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def refused(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert caught.value.fix
    return caught.value.code


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_gray_of_every_lossless_format_comes_back_exactly(kind):
    image = read_image(encoded(GRAY, kind))
    assert image.format == kind.lower()
    assert image.pixels_HWC.dtype == np.float32
    np.testing.assert_array_equal(image.pixels_HWC[:, :, 0], np.divide(GRAY, 255, dtype=np.float32))
    assert image.geometry.shape == (5, 7) and image.geometry.spacing_mm is None
    assert image.laterality is None and image.warnings == ()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_colour_keeps_three_channels(kind):
    np.testing.assert_array_equal(read_image(encoded(RGB, kind)).pixels_HWC, np.divide(RGB, 255, dtype=np.float32))


def test_jpeg_gray_and_colour():
    flat = np.full((16, 16), 200, np.uint8)
    assert np.abs(read_image(encoded(flat, "JPEG")).pixels_HWC * 255 - 200).max() <= 1
    assert read_image(encoded(np.stack([flat] * 3, 2), "JPEG")).pixels_HWC.shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_divided_by_65535(kind):
    image = read_image(encoded(DEEP, kind))
    np.testing.assert_array_equal(image.pixels_HWC[:, :, 0], np.divide(DEEP, 65535, dtype=np.float32))


def test_sixteen_bits_of_the_other_byte_order():
    big = PIL.Image.frombytes("I;16B", (7, 5), DEEP.astype(">u2").tobytes())
    for data in (encoded(big, "TIFF"), encoded(big)):
        np.testing.assert_array_equal(read_image(data).pixels_HWC[:, :, 0], np.divide(DEEP, 65535, dtype=np.float32))


def test_32_bit_integers_with_values_of_8_bits_are_read_as_those():
    """As 16 bits the film would be black: its white would be 255 of 65535."""
    np.testing.assert_array_equal(
        read_image(encoded(GRAY.astype(np.int32), "TIFF")).pixels_HWC, read_image(encoded(GRAY, "TIFF")).pixels_HWC
    )
    for values in (GRAY > 100, (GRAY > 100) * 255, np.zeros_like(GRAY)):
        assert (read_mask(encoded(values.astype(np.int32), "TIFF")) == (values > 0)).all()


def test_32_bit_integers_are_taken_where_they_fit_16_bits():
    np.testing.assert_array_equal(
        read_image(encoded(DEEP.astype(np.int32), "TIFF")).pixels_HWC[:, :, 0], np.divide(DEEP, 65535, dtype=np.float32)
    )
    for wrong in (-1, 65536):
        assert refused(read_image, encoded(np.full((2, 2), wrong, np.int32), "TIFF")) == "bad_range"


@pytest.mark.parametrize("pixels", [GRAY, DEEP])
def test_a_tiff_with_white_as_zero_is_turned_around(pixels):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 1
    data = bytearray(encoded(pixels, "TIFF", tiffinfo=tags))
    entry = struct.pack("<HHI", 262, 3, 1)
    at = data.index(entry) + len(entry)
    data[at : at + 2] = struct.pack("<H", 0)
    np.testing.assert_allclose(read_image(bytes(data)).pixels_HWC[:, :, 0], 1 - pixels / np.iinfo(pixels.dtype).max, atol=1e-6)


def test_float_tiff_must_lie_in_0_1():
    good = RNG.random((3, 4), np.float32)
    np.testing.assert_array_equal(read_image(encoded(good, "TIFF")).pixels_HWC[:, :, 0], good)
    assert refused(read_image, encoded(good * 255, "TIFF")) == "bad_range"
    good[1, 1] = np.nan
    assert refused(read_image, encoded(good, "TIFF")) == "not_finite"


def test_one_bit():
    bits = GRAY > 127
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read_image(encoded(bits, kind)).pixels_HWC[:, :, 0], bits.astype(np.float32))


def test_a_palette_becomes_its_colours():
    paletted = PIL.Image.fromarray(RGB).quantize(8)
    expected = np.divide(np.asarray(paletted.convert("RGB")), 255, dtype=np.float32)
    for kind in ("PNG", "GIF", "TIFF"):
        image = read_image(encoded(paletted, kind))
        np.testing.assert_array_equal(image.pixels_HWC, expected)
        assert image.warnings == ()


@pytest.mark.parametrize("transparency", [0, bytes(range(8))])
def test_a_palette_with_transparency_keeps_its_colours_and_says_so(transparency):
    paletted = PIL.Image.fromarray(RGB).quantize(8)
    image = read_image(encoded(paletted, transparency=transparency))
    np.testing.assert_array_equal(image.pixels_HWC, np.divide(np.asarray(paletted.convert("RGB")), 255, dtype=np.float32))
    assert image.warnings == ("alpha_dropped",)


def test_alpha_is_left_out_with_a_warning_not_mixed_in():
    clear = np.zeros((5, 7, 1), np.uint8)
    for pixels, mode in ((np.concatenate([RGB, clear], 2), "RGBA"), (np.stack([GRAY, clear[:, :, 0]], 2), "LA")):
        for image in (read_image(encoded(PIL.Image.fromarray(pixels))), read_image(encoded(PIL.Image.fromarray(pixels), "TIFF"))):
            assert image.warnings == ("alpha_dropped",), mode
            np.testing.assert_array_equal(image.pixels_HWC, np.divide(pixels[:, :, :-1], 255, dtype=np.float32))


def test_cmyk_and_ycbcr_become_rgb():
    red = PIL.Image.new("RGB", (16, 16), (255, 0, 0))
    for mode, kind in (("CMYK", "JPEG"), ("YCbCr", "JPEG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF")):
        pixels = read_image(encoded(red.convert(mode), kind)).pixels_HWC
        assert pixels.shape == (16, 16, 3)
        np.testing.assert_allclose(pixels.mean((0, 1)), (1, 0, 0), atol=0.02)


def test_a_colour_space_without_a_path_to_rgb_is_refused():
    assert refused(read_image, encoded(PIL.Image.new("LAB", (4, 4)), "TIFF")) == "unsupported_mode"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 100}), ("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"})]
)
def test_films_stand_upright_as_exif_says(kind, options, orientation):
    upright = np.kron(np.array([[0, 80, 160], [255, 200, 40]], np.uint8), np.ones((8, 8), np.uint8))
    turns = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: upright.T[::-1],
        7: upright.T[::-1, ::-1],
        8: upright.T[:, ::-1],
    }
    exif = PIL.Image.Exif()
    exif[274] = orientation
    image = read_image(encoded(np.ascontiguousarray(turns[orientation]), kind, exif=exif, **options))
    np.testing.assert_allclose(image.pixels_HWC[:, :, 0] * 255, upright, atol=2)
    assert image.geometry.shape == upright.shape


def test_of_several_frames_the_first_is_read():
    frames = [PIL.Image.fromarray(f) for f in (GRAY, 255 - GRAY, GRAY)]
    for kind in ("GIF", "TIFF", "PNG"):
        image = read_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert image.warnings == ("multi_frame",), kind
        np.testing.assert_array_equal(image.pixels_HWC[:, :, 0], np.divide(GRAY, 255, dtype=np.float32))


def test_arrays_of_every_legal_kind():
    for array, expected in (
        (GRAY, GRAY / 255),
        (DEEP, DEEP / 65535),
        (GRAY > 9, GRAY > 9),
        (GRAY / 255.0, GRAY / 255),
        ((GRAY / 255).astype(np.float16), GRAY / 255),
    ):
        for shaped in (array, array[:, :, None]):
            image = image_from_array(shaped)
            assert image.pixels_HWC.shape == (5, 7, 1) and image.pixels_HWC.dtype == np.float32
            np.testing.assert_allclose(image.pixels_HWC[:, :, 0], expected, atol=1e-3)
    assert image_from_array(RGB).pixels_HWC.shape == (5, 7, 3)
    assert image_from_array(np.dstack([RGB, GRAY])).warnings == ("alpha_dropped",)


def test_an_image_owns_its_pixels():
    array = np.zeros((2, 2), np.float32)
    image = image_from_array(array)
    array[:] = 1
    assert image.pixels_HWC.max() == 0


@pytest.mark.parametrize("shape", [(), (4,), (3, 8, 8), (2, 8, 8, 3), (0, 5), (5, 0, 3), (5, 5, 2)])
def test_arrays_of_another_shape_are_refused(shape):
    assert refused(image_from_array, np.zeros(shape, np.uint8)) == "bad_shape"


@pytest.mark.parametrize(
    ("array", "code"),
    [
        (np.array([[0, np.nan]]), "not_finite"),
        (np.array([[0, np.inf]], np.float32), "not_finite"),
        (np.array([[0, -np.inf]], np.float16), "not_finite"),
        (np.array([[0, 1.5]]), "bad_range"),
        (np.array([[0, -0.1]]), "bad_range"),
        (np.array([[0, 1]], np.int64), "bad_dtype"),
        (np.array([[0, 1j]]), "bad_dtype"),
        (np.array([["a"]]), "bad_dtype"),
        (np.array([[None]]), "bad_dtype"),
    ],
)
def test_arrays_that_are_no_image_are_refused(array, code):
    assert refused(image_from_array, array) == code


def test_a_pil_image_is_read_like_its_file():
    np.testing.assert_array_equal(image_from_pil(PIL.Image.fromarray(RGB)).pixels_HWC, image_from_array(RGB).pixels_HWC)
    assert image_from_pil(PIL.Image.new("RGBA", (2, 2))).warnings == ("alpha_dropped",)
    assert refused(image_from_pil, PIL.Image.new("HSV", (2, 2))) == "unsupported_mode"


# ---- masks


def test_masks_of_every_kind_agree(tmp_path):
    mask = GRAY > 127
    full = mask.astype(np.uint8) * 255
    for stored in (
        mask,
        full,
        mask.astype(np.uint8),
        np.dstack([full] * 3),
        np.dstack([full, full * 0, full * 0]),
        mask.astype(np.uint16) * 65535,
    ):
        (tmp_path / "m.png").write_bytes(encoded(stored))
        read = read_mask(tmp_path / "m.png")
        assert read.dtype == np.bool_
        np.testing.assert_array_equal(read, mask)


def test_jpeg_ringing_is_not_mask():
    mask = np.zeros((32, 32), bool)
    mask[8:24, 8:24] = True
    np.testing.assert_array_equal(read_mask(encoded(mask.astype(np.uint8) * 255, "JPEG")), mask)


def test_an_empty_mask_is_empty():
    assert not read_mask(encoded(np.zeros((4, 4), np.uint8))).any()


def test_a_label_map_is_no_mask():
    assert refused(read_mask, encoded(np.array([[0, 1, 2]], np.uint8))) == "mask_values"


def test_a_written_mask_is_8_bit_gray_0_and_255(tmp_path):
    write_mask(tmp_path / "m.png", GRAY > 100)
    stored = PIL.Image.open(tmp_path / "m.png")
    assert stored.mode == "L" and set(np.unique(np.asarray(stored))) == {0, 255}
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), GRAY > 100)


def test_a_written_probability_keeps_16_bits(tmp_path):
    prob = RNG.random((6, 5), np.float32)
    prob[0, :2] = 0, 1
    write_probability(tmp_path / "p.png", prob)
    np.testing.assert_allclose(read_image(tmp_path / "p.png").pixels_HWC[:, :, 0], prob, atol=0.5 / 65535 + 1e-6)
    for wrong in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            write_probability(tmp_path / "p.png", np.full((2, 2), wrong))


def test_the_same_input_writes_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_mask(tmp_path / f"{name}.mask.png", GRAY > 9)
        write_probability(tmp_path / f"{name}.prob.png", GRAY / 255)
        write_overlay(tmp_path / f"{name}.overlay.png", GRAY[:, :, None] / 255, GRAY > 9)
    for kind in ("mask", "prob", "overlay"):
        assert (tmp_path / f"a.{kind}.png").read_bytes() == (tmp_path / f"b.{kind}.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.parametrize("size", [24, 128, 1024])
def test_an_overlay_shows_both_contours_where_they_agree(size):
    mask = np.zeros((size, size), bool)
    mask[size // 4 : size // 2, size // 4 : size // 2] = True
    film = np.full((size, size, 1), 0.5, np.float32)
    shown = overlay_rgb(film, mask, mask)
    orange, blue = (shown == PREDICTION_RGB).all(2), (shown == TRUTH_RGB).all(2)
    assert orange.any() and not (orange & ~mask).any()
    assert blue.any() and not (blue & mask).any()
    assert tuple(shown[0, 0]) == (128, 128, 128)  # the film itself, away from both
    assert shown[size * 3 // 8, size * 3 // 8, 0] > shown[size * 3 // 8, size * 3 // 8, 2]  # the veil


def test_an_overlay_of_nothing_is_the_film_in_gray():
    shown = overlay_rgb(np.divide(RGB, 255, dtype=np.float32), np.zeros((5, 7), bool), np.zeros((5, 7), bool))
    assert (shown[:, :, 0] == shown[:, :, 1]).all() and (shown[:, :, 1] == shown[:, :, 2]).all()


def test_one_pixel_can_be_shown():
    assert overlay_rgb(np.zeros((1, 1, 1)), np.ones((1, 1), bool), np.ones((1, 1), bool)).shape == (1, 1, 3)
