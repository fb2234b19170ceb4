"""DICOM films in: what their pixels mean, how they are windowed, where they lie and what they are called."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_films import dataset, encoded, film
from reportseg.errors import InputError
from reportseg.io import case_ids, read_image

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4096, (5, 7), np.uint16)
SIGNED = RNG.integers(-1000, 2000, (5, 7), np.int16)


def gray(source: bytes) -> np.ndarray:
    return read_image(source).pixels_HWC[:, :, 0]


def window(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1, LINEAR."""
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


# ---- values


def test_eight_bits_are_taken_as_they_are():
    pixels = RNG.integers(0, 256, (5, 7), np.uint8)
    image = read_image(film(pixels))
    assert image.format == "dicom" and image.laterality == "patient" and image.modality == "CR" and image.pixels_HWC.dtype == np.float32
    np.testing.assert_allclose(image.pixels_HWC[:, :, 0], pixels / 255, atol=1e-6)


def test_monochrome1_is_turned_so_that_black_is_zero():
    pixels = RNG.integers(0, 256, (5, 7), np.uint8)
    np.testing.assert_allclose(gray(film(pixels, PhotometricInterpretation="MONOCHROME1")), 1 - pixels / 255, atol=1e-6)


def test_linear_window_after_the_rescale():
    data = film(SIGNED, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=40, WindowWidth=400)
    np.testing.assert_allclose(gray(data), window(SIGNED * 2.0 - 100, 40, 400), atol=1e-6)


def test_a_slope_without_an_intercept_is_a_slope_and_the_other_way_about():
    slope = film(DEEP, BitsStored=12, RescaleSlope=2, WindowCenter=4000, WindowWidth=8000)
    np.testing.assert_allclose(gray(slope), window(DEEP * 2.0, 4000, 8000), atol=1e-6)
    intercept = film(DEEP, BitsStored=12, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=4000)
    np.testing.assert_allclose(gray(intercept), window(DEEP - 1024.0, 40, 4000), atol=1e-6)


def test_linear_exact_and_sigmoid():
    exact = film(DEEP, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT")
    np.testing.assert_allclose(gray(exact), np.clip((DEEP - 2000.0) / 1000 + 0.5, 0, 1), atol=1e-6)
    sigmoid = film(DEEP, WindowCenter=2000, WindowWidth=1000, VOILUTFunction="SIGMOID")
    np.testing.assert_allclose(gray(sigmoid), 1 / (1 + np.exp(-4 * (DEEP - 2000.0) / 1000)), atol=1e-6)


def test_of_several_windows_the_first():
    data = film(DEEP, WindowCenter=[2000, 50], WindowWidth=[1000, 350])
    np.testing.assert_allclose(gray(data), window(DEEP, 2000, 1000), atol=1e-6)


@pytest.mark.parametrize(("centre", "width"), [(2000, 0), (2000, -5), (2000, "nan"), ("1e300", "1e300"), ("-1e30", 400), ("", 400)])
def test_a_window_that_is_none_is_passed_over(centre, width):
    data = dataset(DEEP, BitsStored=12)
    data.add_new("WindowCenter", "DS", str(centre))
    data.add_new("WindowWidth", "DS", str(width))
    image = read_image(encoded(data))
    assert "no_window" in image.warnings
    low, high = int(DEEP.min()), int(DEEP.max())
    np.testing.assert_allclose(image.pixels_HWC[:, :, 0], (DEEP - low) / (high - low), atol=1e-6)


def test_without_a_window_padding_is_not_the_least_value():
    pixels = DEEP.astype(np.int16)
    pixels[0, :] = -2000
    image = read_image(film(pixels, PixelPaddingValue=-2000))
    inside = pixels[1:].astype(float)
    np.testing.assert_allclose(image.pixels_HWC[1:, :, 0], (inside - inside.min()) / (inside.max() - inside.min()), atol=1e-6)
    assert (image.pixels_HWC[0] == 0).all()


@pytest.mark.parametrize("limit", [None, 2**16 - 2100])
def test_padding_may_be_a_range_and_is_written_as_unsigned_beside_signed_pixels(limit):
    pixels = DEEP.astype(np.int16)
    pixels[0, :] = -2000
    pixels[1, :3] = -2050 if limit else -2000
    data = dataset(pixels)
    data.add_new("PixelPaddingValue", "US", 2**16 - 2000)
    if limit:
        data.add_new("PixelPaddingRangeLimit", "US", limit)
    image = read_image(encoded(data))
    inside = pixels[2:].astype(float)
    low, high = pixels[pixels >= 0].min(), pixels.max()
    np.testing.assert_allclose(image.pixels_HWC[2:, :, 0], (inside - low) / (high - low), atol=1e-6)


def lut(first: int, depth: int, entries: list[int]) -> pydicom.Sequence:
    item = pydicom.Dataset()
    item.LUTDescriptor = [len(entries), first, depth]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.LUTData = entries
    item["LUTData"].VR = "US"
    return pydicom.Sequence([item])


def test_voi_table_goes_before_a_window():
    """Eight bits in the entries and more than 256 of them, where pydicom 3.0 wraps round."""
    entries = [int(v) for v in np.linspace(0, 255, 3000) ** 2 / 255]
    data = film(DEEP, BitsStored=12, VOILUTSequence=lut(500, 8, entries), WindowCenter=2000, WindowWidth=1)
    expected = np.array(entries)[np.clip(DEEP.astype(int) - 500, 0, 2999)] / 255
    np.testing.assert_allclose(gray(data), expected, atol=1e-6)


@pytest.mark.parametrize("first", [-1200, 2**16 - 1200])
def test_a_voi_table_begins_below_zero_however_its_descriptor_is_written(first):
    entries = [int(v) for v in np.linspace(0, 4095, 5000)]
    data = film(DEEP, BitsStored=12, VOILUTSequence=lut(first, 12, entries), RescaleSlope=1, RescaleIntercept=-1024)
    np.testing.assert_allclose(gray(data), np.array(entries)[DEEP.astype(int) - 1024 + 1200] / 4095, atol=1e-6)


@pytest.mark.parametrize("first", [40000, 40000 - 2**16])
def test_a_voi_table_of_unsigned_pixels_begins_above_zero_however_its_descriptor_is_written(first):
    entries = [int(v) for v in np.linspace(0, 4095, 5000)]
    data = film(DEEP + np.uint16(40000), VOILUTSequence=lut(first, 12, entries))
    np.testing.assert_allclose(gray(data), np.array(entries)[DEEP] / 4095, atol=1e-6)


UPPER = np.array([[40000, 40128, 40255]] * 3)


@pytest.mark.parametrize("written", [0, 2**16])
@pytest.mark.parametrize(
    ("stored", "slope", "intercept"),
    [
        (UPPER.astype(np.uint16), 1, -1),
        ((2**16 - 1 - UPPER).astype(np.uint16), -1, 2**16 - 1),
        ((UPPER - 2**15).astype(np.int16), 1, 2**15),
    ],
)
def test_a_voi_table_of_the_upper_half_stays_there_where_a_rescale_can_reach_it(stored, slope, intercept, written):
    """That some value could mean less than zero does not say that the table begins there."""
    first = 40000 + min(intercept, 0) - written
    table = lut(first, 16, list(range(0, 2**16, 256)))
    data = film(stored, VOILUTSequence=table, RescaleSlope=slope, RescaleIntercept=intercept)
    np.testing.assert_allclose(gray(data)[0], [0, 128 * 256 / 65535, 255 * 256 / 65535], atol=1e-6)


@pytest.mark.parametrize("first", [-1200, 2**16 - 1200])
def test_a_voi_table_of_ct_begins_below_zero_though_all_sixteen_bits_reach_its_other_place(first):
    entries = [int(v) for v in np.linspace(0, 4095, 5000)]
    data = film(DEEP, VOILUTSequence=lut(first, 12, entries), RescaleSlope=1, RescaleIntercept=-1024)
    np.testing.assert_allclose(gray(data), np.array(entries)[DEEP.astype(int) - 1024 + 1200] / 4095, atol=1e-6)


def test_a_modality_table_goes_before_a_rescale():
    entries = [int(v) for v in RNG.permutation(4096)]
    tags = {"ModalityLUTSequence": lut(0, 12, entries), "RescaleSlope": 3, "RescaleIntercept": 5}
    data = film(DEEP, BitsStored=12, WindowCenter=1500, WindowWidth=2000, **tags)
    np.testing.assert_allclose(gray(data), window(np.array(entries)[DEEP], 1500, 2000), atol=1e-6)


@pytest.mark.parametrize("pad", [b"", b"\0"])
def test_a_table_of_eight_bits_may_be_packed_into_bytes(pad):
    table = lut(0, 8, [0])
    table[0].LUTDescriptor = [4095 if pad else 4096, 0, 8]
    table[0].add_new("LUTData", "OW", bytes(n // 16 for n in range(4095 if pad else 4096)) + pad)
    data = film(DEEP, BitsStored=12, VOILUTSequence=table)
    np.testing.assert_allclose(gray(data), np.minimum(DEEP, 4094 if pad else 4095) // 16 / 255, atol=1e-6)


def test_bits_that_do_not_lie_at_the_lower_end_are_refused():
    data = dataset(DEEP << 4, BitsStored=12, WindowCenter=2048, WindowWidth=4096)
    data.HighBit = 15
    with pytest.raises(InputError, match="below bit 16") as caught:
        read_image(encoded(data))
    assert caught.value.code == "corrupt"


def test_modality_table_of_twelve_bits_with_a_negative_first_value():
    entries = [int(v) for v in RNG.permutation(3500) % 4096]
    data = film(SIGNED, ModalityLUTSequence=lut(-1200, 12, entries), WindowCenter=1500, WindowWidth=2000)
    expected = np.array(entries)[np.clip(SIGNED.astype(int) + 1200, 0, 3499)]
    np.testing.assert_allclose(gray(data), window(expected, 1500, 2000), atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [9, 10, 12, 13, 16])
def test_bits_that_are_not_stored_mean_nothing(bits, signed):
    span = 2 ** (bits - 1)
    values = RNG.integers(-span if signed else 0, span if signed else 2 * span, (6, 5))
    raw = (values & (2**bits - 1)) | (RNG.integers(0, 2 ** (16 - bits), values.shape) << bits)  # as old overlays left them
    data = dataset(raw.astype(np.uint16), BitsStored=bits, WindowCenter=10, WindowWidth=span, PixelRepresentation=int(signed))
    np.testing.assert_allclose(gray(encoded(data)), window(values.astype(float), 10, span), atol=1e-6)


def test_thirty_two_bits():
    pixels = RNG.integers(0, 2**31, (5, 7), np.uint32)
    np.testing.assert_allclose(gray(film(pixels)), (pixels - float(pixels.min())) / float(np.ptp(pixels)), atol=1e-6)


# ---- colour


def test_rgb_by_pixel_and_by_plane():
    pixels = RNG.integers(0, 256, (5, 6, 3), np.uint8)
    np.testing.assert_allclose(read_image(film(pixels)).pixels_HWC, pixels / 255, atol=1e-6)
    planes = dataset(pixels, PlanarConfiguration=1)
    planes.PixelData = np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()
    np.testing.assert_allclose(read_image(encoded(planes)).pixels_HWC, pixels / 255, atol=1e-6)


def test_ybr_becomes_rgb():
    pixels = np.full((4, 4, 3), (76, 85, 255), np.uint8)  # red
    shown = read_image(film(pixels, PhotometricInterpretation="YBR_FULL")).pixels_HWC
    assert np.abs(shown - [1, 0, 0]).max() < 0.02


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
def test_colours_in_rle_are_those_of_the_plain_file(photometric):
    pixels = RNG.integers(0, 256, (30, 40, 3), np.uint8)
    plain = read_image(film(pixels, PhotometricInterpretation=photometric.removesuffix("_422"))).pixels_HWC
    data = dataset(pixels)
    data.compress(RLELossless)
    data.PhotometricInterpretation = photometric
    np.testing.assert_array_equal(read_image(encoded(data)).pixels_HWC, plain)


def test_palette_becomes_rgb():
    pixels = RNG.integers(0, 4, (4, 5), np.uint8)
    colours = RNG.integers(0, 65536, (3, 4), np.uint16)
    names = {f"{c}PaletteColorLookupTableDescriptor": [4, 0, 16] for c in ("Red", "Green", "Blue")}
    names |= {f"{c}PaletteColorLookupTableData": row.tobytes() for c, row in zip(("Red", "Green", "Blue"), colours, strict=True)}
    shown = read_image(film(pixels, PhotometricInterpretation="PALETTE COLOR", **names)).pixels_HWC
    np.testing.assert_allclose(shown, colours.T[pixels] / 65535, atol=1e-6)


# ---- encodings


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_every_lossless_encoding_gives_the_same_pixels(syntax):
    data = dataset(np.tile(DEEP, (9, 9)), BitsStored=12, WindowCenter=2000, WindowWidth=1000)
    plain = gray(encoded(data))
    if syntax.is_encapsulated:
        if syntax == JPEG2000Lossless:
            pytest.importorskip("openjpeg")
        data.compress(syntax)
    data.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(gray(encoded(data)), plain)


def test_big_endian():
    data = dataset(DEEP, WindowCenter=2000, WindowWidth=1000)
    plain = gray(encoded(data))
    data.PixelData = DEEP.byteswap().tobytes()
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    np.testing.assert_array_equal(gray(encoded(data)), plain)


def test_without_preamble_and_without_meta_information():
    data = film(DEEP, WindowCenter=2000, WindowWidth=1000)
    plain = gray(data)
    np.testing.assert_array_equal(gray(data[132:]), plain)
    rest = data[data.index(b"\x08\x00\x16\x00UI") :]  # the first element of the data set
    np.testing.assert_array_equal(gray(rest), plain)


def test_without_the_codecs_the_error_names_the_extra(monkeypatch):
    data = dataset(DEEP, BitsStored=12)
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.70"
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(50)])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda self: False))
    with pytest.raises(InputError) as caught:
        read_image(encoded(data))
    assert caught.value.code == "codec" and "reportseg[codecs]" in caught.value.fix


ROW, COLUMN = np.mgrid[:20, :24]
DISC = 900 * ((ROW - 9) ** 2 + (COLUMN - 12) ** 2 < 40)
GRAY = ((7 * ROW * ROW + 60 * COLUMN + DISC) % 4096).astype(np.uint16)
#: What the streams of htj2k.json were made of, the bits stored, and the last part of the transfer syntax.
HTJ2K = {
    "gray": (GRAY, 12, 201),
    "signed": ((GRAY.astype(int) - 1024).astype(np.int16), 13, 202),
    "lossy": (GRAY, 12, 203),
    "rgb": (np.stack([ROW * 12, COLUMN * 10, (ROW + COLUMN) * 5], -1).astype(np.uint8), 8, 201),
}


def htj2k(name: str, share: float = 1) -> tuple[bytes, bytes]:
    """A film uncompressed, and in High-Throughput JPEG 2000, cut behind a share of its stream."""
    pixels, bits, syntax = HTJ2K[name]
    ds = dataset(pixels, BitsStored=bits, **({} if name == "rgb" else {"WindowCenter": 2048, "WindowWidth": 4096}))
    plain = encoded(ds)
    stream = base64.b64decode(json.loads((Path(__file__).parent / "htj2k.json").read_text())[name])
    ds.PhotometricInterpretation = "YBR_RCT" if name == "rgb" else "MONOCHROME2"
    ds.file_meta.TransferSyntaxUID = f"1.2.840.10008.1.2.4.{syntax}"
    ds.PixelData = pydicom.encaps.encapsulate([stream[: int(len(stream) * share)]])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    return plain, encoded(ds)


@pytest.mark.parametrize("name", HTJ2K)
def test_htj2k_gives_the_pixels_that_went_in(name):
    pytest.importorskip("openjpeg")
    plain, packed = (read_image(data).pixels_HWC for data in htj2k(name))
    assert np.abs(packed - plain).max() <= (2.01 / 4095 if name == "lossy" else 0)
    assert np.ptp(plain) > 0.4


def test_htj2k_cut_at_every_tenth_is_refused():
    pytest.importorskip("openjpeg")
    for tenth in range(1, 10):
        with pytest.raises(InputError) as caught:
            read_image(htj2k("gray", tenth / 10)[1])
        assert caught.value.code in ("corrupt", "truncated")


def test_htj2k_without_the_extra_is_an_error_that_names_it(tmp_path):
    """In a process where the codecs cannot be imported, as where they are not installed."""
    for name in HTJ2K:
        (tmp_path / f"{name}.dcm").write_bytes(htj2k(name)[1])
    script = """
import sys
for name in ("gdcm", "openjpeg", "pylibjpeg", "libjpeg"):
    sys.modules[name] = None
from reportseg.errors import InputError
from reportseg.io import read_image
for path in sys.argv[1:]:
    try:
        read_image(path)
    except InputError as error:
        print(error.code, error.fix)
"""
    command = [sys.executable, "-c", script, *sorted(map(str, tmp_path.iterdir()))]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == ["codec Install it: pip install 'reportseg[codecs]'."] * len(HTJ2K)


def test_of_several_frames_the_first_is_read_and_said():
    frames = RNG.integers(0, 256, (3, 5, 7), np.uint8)
    image = read_image(film(frames))
    assert "multi_frame" in image.warnings
    np.testing.assert_allclose(image.pixels_HWC[:, :, 0], frames[0] / 255, atol=1e-6)


def test_enhanced_files_have_window_and_place_in_their_functional_groups():
    measures, place, way, value, view, frame = (pydicom.Dataset() for _ in range(6))
    measures.PixelSpacing, place.ImagePositionPatient, way.ImageOrientationPatient = [0.5, 0.6], [1, 2, 3], [-1, 0, 0, 0, 1, 0]
    value.RescaleSlope, value.RescaleIntercept, view.WindowCenter, view.WindowWidth = 1, -1024, 40, 400
    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [way]
    frame.PlanePositionSequence, frame.PixelValueTransformationSequence, frame.FrameVOILUTSequence = [place], [value], [view]
    tags = {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": [frame], "NumberOfFrames": 1}
    image = read_image(film(DEEP, BitsStored=12, **tags))
    np.testing.assert_allclose(image.pixels_HWC[:, :, 0], window(DEEP - 1024.0, 40, 400), atol=1e-6)
    assert image.geometry.spacing_mm == (0.5, 0.6) and image.geometry.orientation == ("R", "P")
    assert image.geometry.affine == ((0, 0, -0.6, 1), (0, 0.5, 0, 2), (-1, 0, 0, 3), (0, 0, 0, 1))


# ---- place


@pytest.mark.parametrize(
    ("tags", "expected", "warned"),
    [
        ({"PatientOrientation": ["L", "F"]}, ("L", "F"), False),
        ({"PatientOrientation": ["R", "F"], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, ("R", "F"), False),
        ({"PatientOrientation": ["LH", "FP"]}, ("L", "F"), False),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, ("L", "F"), False),
        ({"ImageOrientationPatient": [-1, 0, 0, 0, 0.8, -0.6]}, ("R", "P"), False),
        ({"ImageOrientationPatient": [0.7071, 0.7071, 0, -0.7071, 0.7071, 0]}, ("L", "P"), False),
        ({"ViewPosition": "AP"}, None, True),
        ({"PatientOrientation": ["L", "R"], "ViewPosition": "PA"}, None, True),
        ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, None, True),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, None, True),
    ],
)
def test_the_way_the_film_lies(tags, expected, warned):
    image = read_image(film(DEEP, **tags))
    assert image.geometry.orientation == expected
    assert ("orientation_assumed" in image.warnings) == warned


def test_spacing_in_the_patient_on_the_detector_or_nowhere():
    both = read_image(film(DEEP, PixelSpacing=[0.2, 0.3], ImagerPixelSpacing=[0.5, 0.5]))
    assert both.geometry.spacing_mm == (0.2, 0.3) and not {"spacing_unknown", "spacing_at_detector"} & set(both.warnings)
    detector = read_image(film(DEEP, ImagerPixelSpacing=[0.5, 0.5]))
    assert detector.geometry.spacing_mm == (0.5, 0.5) and "spacing_at_detector" in detector.warnings
    for wrong in ([0, 0], [-1, 1], [1e9, 1e9]):
        nowhere = read_image(film(DEEP, PixelSpacing=wrong))
        assert nowhere.geometry.spacing_mm is None and "spacing_unknown" in nowhere.warnings


def test_the_affine_leads_from_pixels_to_the_patient():
    image = read_image(film(DEEP, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], ImagePositionPatient=[5, 6, 7], PixelSpacing=[0.5, 0.25]))
    there = np.array(image.geometry.affine) @ (0, 2, 4, 1)  # row 2, column 4
    np.testing.assert_allclose(there, (5, 6 + 4 * 0.25, 7 - 2 * 0.5, 1))


# ---- names


def test_a_case_is_named_by_its_uid_and_not_by_its_file(tmp_path):
    for name in ("Mustermann^Max", "copy"):
        (tmp_path / f"{name}.dcm").write_bytes(film(DEEP, SOPInstanceUID="1.2.3"))
    (tmp_path / "film.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    own = f"case-{hashlib.sha256(b'1.2.3').hexdigest()[:12]}"
    assert case_ids([tmp_path / "Mustermann^Max.dcm", tmp_path / "copy.dcm", tmp_path / "film.png"]) == [own, f"{own}-2", "film"]
    assert read_image(tmp_path / "copy.dcm").id == own


def test_a_damaged_file_is_not_named_by_its_name_either(tmp_path):
    (tmp_path / "Mustermann.dcm").write_bytes(film(DEEP)[:200])
    assert case_ids([tmp_path / "Mustermann.dcm"])[0].startswith("case-")


def test_what_cannot_be_known_by_its_bytes_is_not_named_by_its_name_either(tmp_path):
    (tmp_path / "DOE_JOHN").mkdir()
    (tmp_path / "DOE^JOHN_19500101.dcm").touch()
    (tmp_path / "DOE^JIM").write_bytes(bytes(128))
    (tmp_path / "DOE.JANE").touch()
    (tmp_path / "DOE_JACK.1").write_bytes(film(DEEP)[:100])
    for name in ("DOE_JILL.export", "DOE_JOAN.png"):
        (tmp_path / name).write_bytes(b"PK\3\4")
    ids = case_ids(sorted(tmp_path.iterdir()))
    assert len(set(ids)) == 7 and all(name.startswith("case-") for name in ids)


def test_headers_come_without_pixels_and_out_of_sight():
    image = read_image(film(DEEP, PatientName="Mustermann^Max"))
    assert "PixelData" not in image.headers[0] and image.headers[0].PatientName == "Mustermann^Max"
    assert "Mustermann" not in repr(image)
