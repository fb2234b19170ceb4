"""Hostile and broken image files: they succeed where nothing is lost, else they end as one InputError that names file and way out."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import PIL.Image
import pytest
from PIL.PngImagePlugin import PngInfo

from reportseg.errors import InputError
from reportseg.io import read_image, read_mask
from reportseg.io.png import PNG_SIGNATURE
from reportseg.limits import Limits

# Pillow also warns of what it then refuses; PIL.TiffImagePlugin is where it does so for TIFF and EXIF.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL.TiffImagePlugin")

FILM = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)


def encoded(array: np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes, *more: bytes) -> bytes:
    """An 8-bit gray PNG whose header may lie about its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join([PNG_SIGNATURE, chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b"")])


def refused(tmp_path, data: bytes, name: str = "film.png", limits: Limits | None = None) -> str:
    file = tmp_path / name
    file.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_image(file, limits or Limits())
    assert caught.value.where == str(file) and caught.value.fix
    assert str(file) not in caught.value.public()
    return caught.value.code


# ---- these succeed


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("name", ["film.jpg", "film.dcm", "film", "film.png.exe"])
def test_the_extension_does_not_matter(tmp_path, kind, name):
    (tmp_path / name).write_bytes(encoded(FILM, kind))
    assert read_image(tmp_path / name).pixels_HWC.shape[:2] == (20, 30)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_one_pixel_is_an_image(tmp_path, kind):
    (tmp_path / "one").write_bytes(encoded(FILM[:1, :1], kind))
    assert read_image(tmp_path / "one").pixels_HWC.shape[:2] == (1, 1)
    assert read_mask(tmp_path / "one").shape == (1, 1)


@pytest.mark.parametrize(
    "name", ["صورة الصدر.png", "رئة\u200f left.png", "e\u0301tude.png", "胸部.png", "-rf.png", "a b\n.png", "$(x);'\".png"]
)
def test_any_name_will_do(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(encoded(FILM, "PNG"))
    for path in (name, tmp_path / name, f"../{tmp_path.name}/{name}"):
        assert read_image(path).pixels_HWC.shape == (20, 30, 1)


def test_a_link_to_a_film_is_followed(tmp_path):
    (tmp_path / "film.png").write_bytes(encoded(FILM, "PNG"))
    (tmp_path / "link.png").symlink_to(tmp_path / "film.png")
    assert read_image(tmp_path / "link.png").pixels_HWC.shape == (20, 30, 1)


# ---- these are refused


def test_every_prefix_of_a_png_is_truncated(tmp_path):
    whole = encoded(FILM, "PNG")
    for tenth in range(1, 10):
        assert refused(tmp_path, whole[: len(whole) * tenth // 10]) == "truncated"
    for cut in range(1, len(whole)):
        with pytest.raises(InputError) as caught:
            read_image(whole[:cut])
        assert caught.value.code == "truncated", cut


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("BMP", {}), ("GIF", {})],
)
def test_no_prefix_of_another_format_gives_other_pixels(kind, options):
    whole = encoded(FILM, kind, **options)
    expected = read_image(whole).pixels_HWC
    lost = 0
    for cut in range(1, len(whole)):
        try:
            pixels = read_image(whole[:cut]).pixels_HWC
        except InputError:
            lost += 1
        else:  # only what stands behind the pixels was cut
            np.testing.assert_array_equal(pixels, expected, err_msg=f"cut at {cut} of {len(whole)}")
    assert lost > 0.7 * len(whole)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_no_flipped_byte_crashes(kind):
    """Any outcome is legal but an exception of pillow's, a shape over the budget, or a value outside [0, 1]."""
    whole, rng = encoded(FILM, kind), np.random.default_rng(1)
    for _ in range(200):
        broken = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 400), 3):
            broken[at] = rng.integers(0, 256)
        try:
            image = read_image(bytes(broken), Limits(pixels=10**6))
        except InputError:
            continue
        assert image.pixels_HWC.shape[0] * image.pixels_HWC.shape[1] <= 10**6
        assert ((image.pixels_HWC >= 0) & (image.pixels_HWC <= 1)).all()


def test_a_png_with_a_flipped_pixel_byte_is_refused(tmp_path):
    whole = bytearray(encoded(FILM, "PNG"))
    whole[len(whole) // 2] ^= 1
    assert refused(tmp_path, bytes(whole)) == "corrupt"


def test_a_png_of_144_megapixels_is_refused_from_its_header(tmp_path):
    side = 12_000
    packer = zlib.compressobj(1)
    row = b"\0" * (side + 1)
    pixels = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    whole = PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    tracemalloc.start()
    assert refused(tmp_path, whole) == "too_large"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22, "refused before decoding"


@pytest.mark.parametrize("size", [(12_000, 12_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)])
def test_a_tiny_png_with_a_huge_header_is_too_large(tmp_path, size):
    assert refused(tmp_path, png(*size, b"\0\0")) == "too_large"


def test_a_png_with_fewer_pixels_than_its_header_says_is_never_filled_with_gray(tmp_path):
    assert refused(tmp_path, png(2000, 2000, b"\0" * 2001 * 5)) in {"truncated", "corrupt"}


def test_one_missing_byte_of_pixels_is_seen_at_every_depth_and_when_interlaced(tmp_path):
    rng = np.random.default_rng(2)
    for depth, colour, interlaced in [(1, 0, 0), (2, 3, 0), (8, 0, 1), (8, 2, 0), (8, 6, 1), (16, 0, 0), (16, 2, 1), (16, 4, 0)]:
        width, height = 13, 9
        steps = (
            [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
            if interlaced
            else [(0, 0, 1, 1)]
        )
        rows = []
        for x, y, dx, dy in steps:
            for _ in range(y, height, dy):
                columns = len(range(x, width, dx))
                bits = columns * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
                rows.append(b"\0" + rng.integers(0, 256, -(-bits // 8), np.uint8).tobytes())
        header = PNG_SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
        palette = chunk(b"PLTE", bytes(range(12))) if colour == 3 else b""
        pixels, end = b"".join(rows), chunk(b"IEND", b"")
        assert read_image(header + palette + chunk(b"IDAT", zlib.compress(pixels)) + end).pixels_HWC.shape[:2] == (9, 13)
        assert refused(tmp_path, header + palette + chunk(b"IDAT", zlib.compress(pixels[:-1])) + end) == "truncated"


def test_a_png_packed_a_thousandfold_or_cut_into_many_pieces_is_whole():
    blank = encoded(np.zeros((3000, 2500), np.uint8), "PNG", compress_level=9)
    assert len(blank) < 20_000 and not read_mask(blank).any()
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in FILM))
    pieces = b"".join(chunk(b"IDAT", packed[i : i + 1]) for i in range(len(packed)))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 20, 8, 0, 0, 0, 0))
    pixels = read_image(PNG_SIGNATURE + header + pieces + chunk(b"IEND", b"")).pixels_HWC[:, :, 0]
    np.testing.assert_array_equal(pixels, np.divide(FILM, 255, dtype=np.float32))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_png_without_pixels_is_refused(tmp_path, size):
    assert refused(tmp_path, png(*size, b"")) == "corrupt"


def test_the_budget_holds_for_every_format(tmp_path):
    for kind in ("PNG", "JPEG", "TIFF", "BMP", "GIF"):
        assert refused(tmp_path, encoded(FILM, kind), limits=Limits(pixels=599)) == "too_large"
        assert read_image(encoded(FILM, kind), Limits(pixels=600)).pixels_HWC.size in {600, 1800}


def test_a_gif_frame_larger_than_its_screen_is_counted(tmp_path):
    whole = bytearray(encoded(FILM, "GIF"))
    at = whole.index(struct.pack("<BHHHH", 0x2C, 0, 0, 30, 20))  # the frame's own size follows its position
    whole[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    assert refused(tmp_path, bytes(whole)) == "too_large"


def test_a_tiff_tile_larger_than_its_image_is_counted(tmp_path):
    tags = [
        (256, 4, 16),
        (257, 4, 16),
        (258, 3, 8),
        (259, 3, 8),
        (262, 3, 1),
        (322, 4, 60_000),
        (323, 4, 60_000),
        (324, 4, 200),
        (325, 4, 20),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    whole = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0" * 4
    assert refused(tmp_path, whole.ljust(200, b"\0") + zlib.compress(b"\0" * 256)) == "too_large"


def test_a_tiff_whose_pages_form_a_circle_ends(tmp_path):
    whole = bytearray(encoded(FILM, "TIFF"))
    start = struct.unpack("<I", whole[4:8])[0]
    count = struct.unpack("<H", whole[start : start + 2])[0]
    whole[start + 2 + 12 * count : start + 6 + 12 * count] = struct.pack("<I", start)
    (tmp_path / "circle.tif").write_bytes(whole)
    assert read_image(tmp_path / "circle.tif").pixels_HWC.shape == (20, 30, 1)


def test_a_text_chunk_that_unpacks_to_much_is_refused(tmp_path):
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 50_000_000, 9))
    assert refused(tmp_path, png(2, 2, b"\0\1\2" * 2, bomb)) in {"corrupt", "too_large"}
    many = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 1_000_000, 9)) * 80
    assert refused(tmp_path, png(2, 2, b"\0\1\2" * 2, many)) in {"corrupt", "too_large"}


def test_a_long_plain_text_chunk_does_no_harm(tmp_path):
    info = PngInfo()
    info.add_text("report", "left lung " * 100_000)
    (tmp_path / "t.png").write_bytes(encoded(FILM, "PNG", pnginfo=info))
    np.testing.assert_array_equal(read_image(tmp_path / "t.png").pixels_HWC[:, :, 0] * 255, FILM)


def test_a_chunk_of_impossible_length_is_refused_without_being_read(tmp_path):
    broken = bytearray(png(2, 2, b"\0\1\2" * 2))
    broken[33:37] = struct.pack(">I", 2**32 - 1)
    assert refused(tmp_path, bytes(broken)) == "truncated"


def test_damaged_exif_is_no_reason_to_refuse_a_film(tmp_path):
    whole = encoded(FILM, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    (tmp_path / "film.jpg").write_bytes(whole)
    assert read_image(tmp_path / "film.jpg").pixels_HWC.shape == (20, 30, 1)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"PK\3\4" + b"\0" * 30, "zip"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"%PDF-1.7", "PDF"),
        (b"id,text\n1,left lung\n", "not known"),
        (b"\x80\x04\x95", "not known"),
    ],
)
def test_a_format_that_we_do_not_read_is_named(tmp_path, data, word):
    assert refused(tmp_path, data) == "unsupported_format"
    with pytest.raises(InputError, match=f"{word}.*PNG, JPEG, TIFF, BMP"):
        read_image(data)


def test_what_is_no_file_is_refused(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "a.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "b.png").symlink_to(tmp_path / "a.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    expected = {
        "empty.png": "empty_file",
        "folder.png": "directory",
        "loop.png": "symlink_loop",
        "a.png": "symlink_loop",
        "dangling.png": "missing",
        "gone.png": "missing",
        "pipe.png": "unreadable",
        "a\0b.png": "unreadable",
        "x" * 300: "unreadable",
        "empty.png/film.png": "unreadable",
    }
    for name, code in expected.items():
        for read in (read_image, read_mask):
            with pytest.raises(InputError) as caught:
                read(tmp_path / name)
            assert (name, caught.value.code) == (name, code)
            assert caught.value.where == str(tmp_path / name) and caught.value.fix


def test_no_bytes_are_no_image():
    with pytest.raises(InputError) as caught:
        read_image(b"")
    assert caught.value.code == "empty_file"
