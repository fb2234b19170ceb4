"""Hostile and broken DICOM: each is read, or ends as one InputError, within the memory that its size allows."""

from __future__ import annotations

import logging
import os
import signal
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.charset import python_encoding
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicom_films import dataset, encoded, film, frames_of_one_file
from reportseg.errors import InputError
from reportseg.io import apart, dicom_name, read_image
from reportseg.io.series import films_in, find_series
from reportseg.limits import Limits

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
NAME = "Mustermann^Max"


def refused(data: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(InputError) as caught:
        read_image(data, limits or Limits())
    assert caught.value.fix and "Mustermann" not in str(caught.value)
    return caught.value.code


# ---- these are read


@pytest.mark.parametrize(
    ("start", "looks"), [(b"MZ", 1), (b"\x7fELF", 1), (b"PK\3\4", 1), (b"<!DOCTYPE html><script>", 1), (b"#!/bin/sh\n", 1), (b"II*\0", 0)]
)
def test_a_preamble_that_looks_like_something_else_is_ignored_and_said(start, looks):
    """A DICOM file that is also a program, an archive or a page: only its DICOM part is read. TIFF there is legal, for slide scanners."""
    image = read_image(encoded(dataset(PIXELS), start.ljust(128, b" ")))
    np.testing.assert_allclose(image.pixels_HWC[:, :, 0], PIXELS / 255, atol=1e-6)
    assert ("preamble" in image.warnings) == looks


@pytest.mark.parametrize("charset", sorted(filter(None, python_encoding)))
def test_every_character_set(charset):
    data = dataset(PIXELS, PatientID="x")
    data.SpecificCharacterSet = charset
    data.add_new("PatientName", "PN", b"\xc4neas^\xff\xfe\x1b$B\x1b(J")
    np.testing.assert_allclose(read_image(encoded(data)).pixels_HWC[:, :, 0], PIXELS / 255, atol=1e-6)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "../../etc/passwd", "=cmd|' /C calc'!A0", "%s%n{0}"])
def test_names_of_patients_do_nothing(name):
    image = read_image(film(PIXELS, PatientName=name, PatientID=name, StudyDescription=name))
    assert image.id.startswith("case-") and name not in repr(image)


def test_a_modality_that_is_text_does_not_come_through():
    assert read_image(film(PIXELS, Modality="A/../B^C")).modality == ""


def test_a_private_element_of_a_hundred_megabytes_is_skipped():
    data = dataset(PIXELS)
    data.add_new(0x00090010, "LO", "MAKER")
    data.add_new(0x00091001, "OB", b"")
    body = encoded(data)
    where = body.index(b"\x09\x00\x01\x10OB")
    big = body[: where + 8] + struct.pack("<I", 100 * 2**20) + bytes(100 * 2**20) + body[where + 12 :]
    image = read_image(big)
    np.testing.assert_allclose(image.pixels_HWC[:, :, 0], PIXELS / 255, atol=1e-6)
    assert 0x00091001 not in image.headers[0]


# ---- these are refused


@pytest.mark.parametrize("tenth", range(10))
def test_a_file_cut_at_every_tenth(tenth):
    body = film(PIXELS, PatientName=NAME)
    assert refused(body[: len(body) * tenth // 10]) in {"empty_file", "truncated", "corrupt", "no_pixels", "unsupported_format"}


def nested(depth: int, defined: bool) -> bytes:
    """A private sequence in a sequence in a sequence."""
    body = b""
    for _ in range(depth):
        tag = struct.pack("<HH2sH", 0x0009, 0x1010, b"SQ", 0)
        if defined:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body
            body = tag + struct.pack("<I", len(item)) + item
        else:
            item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + body + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
            body = tag + struct.pack("<I", 0xFFFFFFFF) + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return body


@pytest.mark.parametrize("defined", [False, True])
def test_sequences_nested_a_thousand_deep(defined):
    body = film(PIXELS)
    place = body.index(b"\x20\x00\x0d\x00UI")
    data = body[:place] + nested(1000, defined) + body[place:]
    if defined:  # never opened, since nothing in it is asked for
        np.testing.assert_allclose(read_image(data).pixels_HWC[:, :, 0], PIXELS / 255, atol=1e-6)
    else:
        assert refused(data) == "corrupt"


@pytest.mark.parametrize(
    ("tags", "code"),
    [
        ({"Rows": 0}, "corrupt"),
        ({"Columns": 0}, "corrupt"),
        ({"Rows": 21}, "truncated"),
        ({"Rows": 18}, "corrupt"),  # a row to spare is padding, two are another picture
        ({"Columns": 28}, "corrupt"),
        ({"Rows": 1, "Columns": 1}, "corrupt"),
        ({"Rows": 65535, "Columns": 65535}, "too_large"),
        ({"NumberOfFrames": 2}, "truncated"),
        ({"NumberOfFrames": 0}, "corrupt"),
        ({"NumberOfFrames": -1}, "corrupt"),
        ({"NumberOfFrames": 2**31 - 1}, "too_large"),
        ({"BitsStored": 17}, "corrupt"),
        ({"BitsStored": 0}, "corrupt"),
        ({"BitsAllocated": 16}, "truncated"),
        ({"BitsAllocated": 7}, "corrupt"),
        ({"SamplesPerPixel": 3}, "corrupt"),
        ({"SamplesPerPixel": 65535}, "corrupt"),
        ({"PhotometricInterpretation": "RGB"}, "corrupt"),
        ({"PhotometricInterpretation": NAME.upper()}, "unsupported_mode"),
        ({"PhotometricInterpretation": ""}, "unsupported_mode"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "corrupt"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"}, "no_film"),
        ({"PixelRepresentation": 2}, "corrupt"),
        ({"PixelRepresentation": None}, "corrupt"),
        ({"RescaleSlope": 0, "RescaleIntercept": 7}, "corrupt"),  # all pixels equal
    ],
)
def test_headers_that_lie(tags, code):
    data = dataset(PIXELS)
    for name, value in tags.items():
        setattr(data, name, value)
    assert refused(encoded(data)) == code


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize(
    ("frames", "tags"),
    [
        *(
            (frames, tags)
            for frames in (1, 3)
            for tags in ({"Rows": 18}, {"Columns": 28}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7})
        ),
        *((3, {"NumberOfFrames": less}) for less in (None, 1, 2)),
    ],
)
def test_headers_that_tell_of_less_than_there_is(frames, tags, syntax):
    """Read as they say, they would show another picture, or keep frames to themselves."""
    deep = PIXELS.astype(np.uint16) * 200
    data = dataset(np.stack([deep] * frames) if frames > 1 else deep)
    if syntax == RLELossless:
        data.compress(RLELossless)
    data.file_meta.TransferSyntaxUID = syntax
    assert read_image(encoded(data)).pixels_HWC.shape == (20, 30, 1)
    for name, value in tags.items():
        setattr(data, name, value)
    assert refused(encoded(data)) == "corrupt"


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("frames", [None, 2])
@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_compressed_frames_beyond_those_of_the_header(syntax, frames, table):
    """With a table of their offsets and without: then by the fragments that begin a frame, as one frame may lie in several."""
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg")
    data = dataset(np.stack([np.tile(PIXELS, (4, 3))] * 3))
    data.compress(syntax)
    streams = list(generate_frames(data.PixelData, number_of_frames=3))
    data.PixelData = encapsulate(streams, fragments_per_frame=1 if frames else 2, has_bot=table)
    data.NumberOfFrames = frames
    with pytest.raises(InputError, match=f"describes {frames or 1} frames and has 3"):
        read_image(encoded(data))
    data.PixelData, data.NumberOfFrames = encapsulate(streams[:1], fragments_per_frame=2, has_bot=table), 1
    np.testing.assert_allclose(read_image(encoded(data)).pixels_HWC[:20, :30, 0], PIXELS / 255, atol=1e-6)


@pytest.mark.parametrize("frames", [None, 1, 5, 7])
def test_frames_of_another_number_than_are_described(tmp_path, frames):
    slices = np.zeros((max(6, frames or 6), 4, 5), np.uint16)
    (tmp_path / "file").write_bytes(frames_of_one_file(slices, [(0, 0, 2 * n) for n in range(6)], NumberOfFrames=frames))
    assert refused((tmp_path / "file").read_bytes()) == "corrupt"
    series, failed = find_series(tmp_path)
    assert not series and failed[0][1].what == f"the DICOM file describes 6 frames and has {frames or 1}"


@pytest.mark.parametrize("tags", [{"PlanarConfiguration": None}, {"PlanarConfiguration": 5}, {"PixelRepresentation": 1}])
def test_colours_that_do_not_say_how_they_are_stored(tags):
    data = dataset(np.stack([PIXELS] * 3, -1))
    for name, value in tags.items():
        setattr(data, name, value)
    assert refused(encoded(data)) == "corrupt"


def test_numbers_that_are_none_are_never_quoted(caplog):
    """Neither in the error, nor in a log, nor in a warning."""
    body = film(PIXELS, PatientName=NAME, NumberOfFrames="1234567890", RescaleSlope="1234567890", RescaleIntercept="0")
    with caplog.at_level(logging.DEBUG):
        assert refused(body.replace(b"1234567890", b"Mustermann")) == "corrupt"
    assert "Mustermann" not in caplog.text


def compressed(stream: bytes, syntax, **tags) -> bytes:
    data = dataset(PIXELS, **tags)
    data.PixelData = encapsulate([stream])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = syntax
    return encoded(data)


def test_a_stream_larger_than_its_header_says_is_refused_before_it_is_decoded():
    jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 11, 8, 60000, 60000, 1) + b"\1\x11\0" + bytes(50)
    assert refused(compressed(jpeg, JPEGBaseline8Bit)) == "corrupt"
    j2k = b"\xff\x4f\xff\x51" + struct.pack(">HH8I", 41, 0, 60000, 60000, 0, 0, 60000, 60000, 0, 0) + bytes(50)
    assert refused(compressed(j2k, JPEG2000Lossless)) in {"corrupt", "codec"}
    assert refused(compressed(struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 10**6, RLELossless)) == "corrupt"


@pytest.mark.parametrize("segment", [0, 1])
def test_each_segment_of_rle_is_unpacked_no_further_than_its_pixels(segment):
    rows, columns = 1000, 1000
    honest = b"\x81\0" * (rows * columns // 128 + 1)
    parts = [honest, honest]
    parts[segment] = b"\x81\0" * 2_000_000
    stream = struct.pack("<16I", 2, 64, 64 + len(parts[0]), *[0] * 13) + b"".join(parts)
    data = dataset(np.zeros((rows, columns), np.uint16))
    data.PixelData = encapsulate([stream])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = RLELossless
    tracemalloc.start()
    assert refused(encoded(data)) == "corrupt"
    assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_a_stream_of_other_values_than_its_header_says(syntax):
    """More of them a pixel, or deeper ones than a pixel holds: decoders cut them to fit, or end the process."""
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg")
    gray, colour = np.tile(PIXELS, (4, 3)).astype(np.uint16) * 16, np.stack([np.tile(PIXELS, (4, 3))] * 3, -1)
    for pixels, bits, tags in (
        (gray, 12, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}),
        (colour, 8, {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}),
        (gray >> 4, 8, {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}),
    ):
        data = dataset(pixels, BitsStored=bits)
        data.compress(syntax)
        assert read_image(encoded(data)).pixels_HWC.shape[:2] == (80, 90)
        for name, value in tags.items():
            setattr(data, name, value)
        with pytest.raises(InputError, match="values a pixel") as caught:
            read_image(encoded(data))
        assert caught.value.code == "corrupt"


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_the_stream_that_is_decoded_is_the_one_that_was_looked_at(syntax):
    """An extended table of offsets may lead behind the honest stream, into the same fragment."""
    if syntax == JPEG2000Lossless:
        pytest.importorskip("openjpeg")
    streams = []
    for pixels in (np.tile(PIXELS, (4, 3)), np.zeros((2000, 3000), np.uint8)):
        data = dataset(pixels)
        data.compress(syntax)
        streams += generate_frames(data.PixelData, number_of_frames=1)
    data.Rows, data.Columns = 80, 90
    data.PixelData = encapsulate([b"".join(streams)], has_bot=False)
    for offset, stream in ((0, streams[0]), (len(streams[0]), streams[1])):
        data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = struct.pack("<Q", offset), struct.pack("<Q", len(stream))
        if not offset:
            np.testing.assert_allclose(read_image(encoded(data)).pixels_HWC[:20, :30, 0], PIXELS / 255, atol=1e-6)
            continue
        with pytest.raises(InputError, match="another picture than its header says .3000 x 2000"):
            read_image(encoded(data))


def test_a_jpeg_ls_stream_without_its_end_is_refused_and_one_with_anything_behind_it_is_read():
    data = dataset(np.tile(PIXELS, (4, 3)))
    data.compress(JPEGLSLossless)
    stream = next(generate_frames(data.PixelData, number_of_frames=1)).rstrip(b"\0")
    assert stream.endswith(b"\xff\xd9")
    for behind in (b"", b"\0\0\0\0", b"\xff", b"  ", b"padding."):  # makers pad a fragment with what they like
        data.PixelData = encapsulate([stream + behind])
        np.testing.assert_allclose(read_image(encoded(data)).pixels_HWC[:20, :30, 0], PIXELS / 255, atol=1e-6)
    for cut in (stream[:-1], stream[:-2], stream[: len(stream) // 2]):
        data.PixelData = encapsulate([cut])
        with pytest.raises(InputError, match="without their end") as caught:
            read_image(encoded(data))
        assert caught.value.code == "corrupt"


READS = """
import sys
sys.path[:0] = {paths!r}
from reportseg.io import read_image
from reportseg.errors import InputError
for name in sys.argv[1:]:
    try:
        print(read_image(name).pixels_HWC.shape)
    except InputError as error:
        print(error.code)
"""


def read_by_a_child(*files: Path) -> list[str]:
    """What becomes of each, where an end of the process would be seen."""
    command = [sys.executable, "-c", READS.format(paths=[p for p in sys.path if p]), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_damaged_stream_ends_no_process(tmp_path):
    """GDCM, one of pydicom's decoders, lets the exceptions of its codecs end the process: the films before and behind would be lost."""
    pytest.importorskip("gdcm")
    pytest.importorskip("openjpeg")
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    files, codes = [], []

    def add(source: str, harm, code: str) -> None:
        data = pydicom.dcmread(root / source)
        stream = next(generate_frames(data.PixelData, number_of_frames=1))
        data.PixelData = encapsulate([bytes(harm(bytearray(stream)))])
        data["PixelData"].is_undefined_length = True
        files.append(tmp_path / str(len(files)))
        data.save_as(files[-1])
        codes.append(code)

    def huffman(stream: bytearray) -> bytearray:  # more codes than a table can have
        place = stream.index(b"\xff\xc4")
        stream[place + 12] = 67
        return stream

    def marker(stream: bytearray) -> bytearray:  # the length of the first part of a tile
        place = stream.index(b"\xff\x90")
        stream[place + 6 : place + 10] = b"\0\0\0\x0d"
        return stream

    for _ in range(2):
        add("SC_rgb_jpeg_gdcm.dcm", lambda stream: stream, "(100, 100, 3)")
        add("SC_rgb_jpeg_gdcm.dcm", huffman, "corrupt")
        add("SC_rgb_jpeg_gdcm.dcm", lambda stream: stream[: len(stream) // 2], "corrupt")
    for name in ("MR_small_jp2klossless.dcm", "JPEG2000.dcm"):
        add(name, marker, "corrupt")
        add(name, lambda stream: stream[: len(stream) // 2], "corrupt")
    add("MR_small_jpeg_ls_lossless.dcm", lambda stream: stream[: len(stream) // 2], "corrupt")
    add("SC_rgb_jpeg_dcmtk.dcm", lambda stream: stream[: len(stream) // 2], "corrupt")
    add("SC_rgb_jpeg_gdcm.dcm", lambda stream: stream, "(100, 100, 3)")
    assert read_by_a_child(*files) == codes


@pytest.mark.parametrize(
    "name", ["SC_rgb_jpeg_gdcm", "MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "SC_rgb_jpeg_dcmtk", "MR_small_RLE"]
)
def test_a_compressed_file_cut_at_every_tenth(name):
    pytest.importorskip("gdcm")
    pytest.importorskip("openjpeg")
    body = (Path(pydicom.__file__).parent / "data" / "test_files" / f"{name}.dcm").read_bytes()
    assert {refused(body[: len(body) * tenth // 10]) for tenth in range(1, 10)} <= {"truncated", "corrupt", "no_pixels"}


def test_lossless_jpeg_is_read_by_several_threads_and_by_a_forked_process():
    pytest.importorskip("gdcm")
    film = Path(pydicom.__file__).parent / "data" / "test_files" / "SC_rgb_jpeg_gdcm.dcm"
    wanted = read_image(film).pixels_HWC

    def read(_: int) -> bool:
        return bool((read_image(film).pixels_HWC == wanted).all())

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(read, range(30)))
    if hasattr(os, "fork"):
        pid = os.fork()
        if not pid:
            os._exit(0 if read(0) else 1)
        assert read(0) and os.waitpid(pid, 0)[1] == 0


def test_a_decoder_that_takes_too_long_is_ended_and_the_next_film_is_read(monkeypatch):
    pytest.importorskip("gdcm")
    film = Path(pydicom.__file__).parent / "data" / "test_files" / "SC_rgb_jpeg_gdcm.dcm"
    apart._end()
    with monkeypatch.context() as patch:
        patch.setattr(apart, "SECONDS", 0.01)  # less than the start of Python
        assert refused(film.read_bytes()) == "corrupt"
    assert read_image(film).pixels_HWC.shape == (100, 100, 3)


def test_a_decoder_that_cannot_be_started_is_no_damage_of_the_film(monkeypatch, tmp_path):
    pytest.importorskip("gdcm")
    film = Path(pydicom.__file__).parent / "data" / "test_files" / "SC_rgb_jpeg_gdcm.dcm"
    apart._end()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "none"))
        assert refused(film.read_bytes()) == "codec"
    assert read_image(film).pixels_HWC.shape == (100, 100, 3)


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal")
def test_an_interruption_that_the_program_outlives_loses_no_film():
    """A terminal sends it to the decoder too."""
    pytest.importorskip("gdcm")
    film = Path(pydicom.__file__).parent / "data" / "test_files" / "SC_rgb_jpeg_gdcm.dcm"
    read_image(film)
    child = apart._child
    assert child is not None
    child.send_signal(signal.SIGINT)
    assert read_image(film).pixels_HWC.shape == (100, 100, 3)
    assert apart._child is child


@pytest.mark.parametrize("stream", [b"\xff\xd8", b"\xff\xd8\xff\xff\xff\xff", bytes(100), b"\xff\xd8" + b"\xff\xe0\0\0" * 20])
def test_streams_that_are_none(stream):
    assert refused(compressed(stream, JPEGBaseline8Bit)) in {"corrupt", "truncated"}


def test_a_full_disk_is_no_damage_of_a_deflated_film(monkeypatch, tmp_path):
    data = dataset(PIXELS)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    monkeypatch.setattr("reportseg.io.dicom_header.SMALL", 400)
    assert read_image(encoded(data)).pixels_HWC.shape == (20, 30, 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(InputError, match="cannot be unpacked") as caught:
        read_image(encoded(data))
    assert caught.value.code == "too_large" and "TMPDIR" in caught.value.fix


def test_a_deflate_bomb_is_unpacked_no_further_than_its_budget():
    data = dataset(PIXELS)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    body = encoded(data)
    start = 144 + int.from_bytes(body[140:144], "little")
    packer = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(500)) + packer.flush()
    assert refused(body[:start] + bomb) == "too_large"
    assert refused(body[: len(body) - 40]) in {"truncated", "corrupt"}
    assert refused(body[:start] + b"\xff" * 100) == "corrupt"


def test_a_header_without_end_is_refused():
    """Small elements without number would take twenty times their bytes once parsed."""
    body = film(PIXELS)
    place = body.index(b"\x20\x00\x0d\x00UI")
    element = struct.pack("<HH2sHI", 0x0009, 0x1010, b"OB", 0, 2**17) + bytes(2**17)
    assert refused(body[:place] + element * 300 + body[place:]) == "too_large"


@pytest.mark.parametrize("defined", [True, False])
def test_items_without_number_are_refused_before_they_are_parsed(defined):
    body = film(PIXELS, NumberOfFrames=2)
    place = body.index(b"\xe0\x7f\x10\x00")
    items = b"\xfe\xff\0\xe0\0\0\0\0" * (2**18 + 1)
    head = struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, len(items) if defined else 0xFFFFFFFF)
    end = b"" if defined else b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert refused(body[:place] + head + items + end + body[place:]) == "too_large"


CHILD = """
import sys
sys.path[:0] = {paths!r}
from reportseg.io import read_image
from reportseg.errors import InputError
peak = lambda: int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) // 1024
before = peak()
for name in sys.argv[1:]:
    try:
        print(name, read_image(name).pixels_HWC.shape)
    except InputError as error:
        print(name, error.code)
print("MIB", peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_stays_within_the_limit(tmp_path):
    """A film of 20 megapixels, a header with 100 MB of junk, and one deflated with 700: 3 times what is decoded as float32, and 1 GiB."""
    large = film(np.zeros((5000, 4000), np.uint16), BitsStored=12, WindowCenter=2000, WindowWidth=1000)
    (tmp_path / "large").write_bytes(large)
    place = large.index(b"\x20\x00\x0d\x00UI")
    junk = struct.pack("<HH2sHI", 0x0009, 0x1010, b"UN", 0, 100 * 2**20) + bytes(100 * 2**20)
    (tmp_path / "junk").write_bytes(large[:place] + junk + large[place:])
    small = dataset(PIXELS)
    small.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    body = encoded(small)
    start = 144 + int.from_bytes(body[140:144], "little")
    plain = zlib.decompress(body[start:], -zlib.MAX_WBITS)
    place, megabyte = plain.index(b"\x20\x00\x0d\x00UI"), np.random.default_rng(0).bytes(2**14) + bytes(2**20 - 2**14)
    packer, head = zlib.compressobj(1, wbits=-zlib.MAX_WBITS), struct.pack("<HH2sHI", 0x0009, 0x1010, b"UN", 0, 700 * 2**20)
    packed = [packer.compress(part) for part in (plain[:place], head, *[megabyte] * 700, plain[place:])]
    (tmp_path / "deflated").write_bytes(body[:start] + b"".join(packed) + packer.flush())
    script = CHILD.format(paths=[p for p in sys.path if p])
    command = [sys.executable, "-c", script, *(str(tmp_path / name) for name in ("large", "junk", "deflated"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("(5000, 4000, 1)") == 2 and done.stdout.count("(20, 30, 1)") == 1
    used = int(done.stdout.rsplit("MIB", 1)[1])
    assert used < 3 * 4 * 20_000_000 / 2**20 + 1024
    assert used < 700, "in fact far less: no float64 copy is made"


def test_pydicom_says_nothing_on_its_own(tmp_path):
    """Its warnings and its log quote what is in the file."""
    (tmp_path / "film").write_bytes(film(PIXELS, PatientName=NAME, StudyDate="20200101").replace(b"20200101", b"Musterma"))
    script = f"import sys; sys.path[:0] = {sys.path!r}; from reportseg.io import read_image; read_image(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "film")], capture_output=True, text=True, check=True)
    assert done.stderr == "" and done.stdout == ""


def test_reading_changes_no_filter_for_others():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        read_image(film(PIXELS))
        warnings.warn("mine", stacklevel=1)
    assert [str(w.message) for w in seen] == ["mine"]


@pytest.mark.parametrize("vr", [b"Ui", b"PM", b"US", b"FD", b"DS", b"AT", b"SQ", b"DA", b"OB"])
@pytest.mark.parametrize("number", [0x02, 0x03, 0x10])
@pytest.mark.parametrize("empty", [True, False])
def test_file_meta_of_another_kind_fails_its_file_alone(tmp_path, number, vr, empty):
    """The class, the instance and the transfer syntax, which are asked for before anything else."""
    whole = film(PIXELS, PatientName=NAME)
    place = whole.index(bytes([2, 0, number, 0]) + b"UI")
    harmed = whole[: place + 4] + vr + whole[place + 6 :]
    if empty:
        length, meta = (int.from_bytes(whole[at : at + 2], "little") for at in (place + 6, 140))
        harmed = harmed[: place + 6] + bytes(2) + harmed[place + 8 + length :]
        harmed = harmed[:140] + (meta - length).to_bytes(4, "little") + harmed[144:]
    (tmp_path / "harmed").write_bytes(harmed)
    (tmp_path / "whole").write_bytes(whole)
    paths = [tmp_path / "harmed", tmp_path / "whole"]
    with films_in(paths) as (films, _, stacks):
        assert films == paths and paths[1] not in stacks
    with films_in([tmp_path]) as (films, _, stacks):
        assert paths[1] in films and not stacks
    with suppress(InputError):
        read_image(harmed)
    assert dicom_name(paths[0]).startswith("case-")


def test_a_stream_of_any_bytes_never_crashes():
    """Each byte of a small file changed once, in steps: what comes back is an image or an InputError."""
    body = bytearray(film(PIXELS[:4, :4], WindowCenter=100, WindowWidth=50, PatientOrientation=["L", "F"], PixelSpacing=[1, 1]))
    for place in range(128, len(body), 3):
        changed = bytes(body[:place]) + bytes([body[place] ^ 0x5A]) + bytes(body[place + 1 :])
        with suppress(InputError):
            read_image(changed)
