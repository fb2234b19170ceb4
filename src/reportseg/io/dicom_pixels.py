"""The stored values of one frame: budgets from the header, then pydicom's decoders."""

from __future__ import annotations

import io
import struct
from importlib.util import find_spec
from itertools import pairwise
from typing import IO, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import encapsulate, get_frame, parse_basic_offsets, parse_fragments
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from ..errors import InputError
from ..limits import DEFAULT, VARIABLE, Limits, check_pixels
from .apart import PLUGIN as GDCM
from .apart import decode_apart
from .dicom_header import damaged

GRAY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
SAMPLES = dict.fromkeys(GRAY, 1) | dict.fromkeys(COLOUR, 3) | {"PALETTE COLOR": 1}
HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
SIZED = {*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes, *HTJ2K}
BEGINS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP")  # a stream of JPEG and JPEG-LS, of JPEG 2000, and its file
ENDS = b"\xff\xd9"  # a stream of JPEG and JPEG-LS
#: Who decodes: the first of these that is there. GDCM ends its process on many a damaged stream, so it gets one, and what no other reads.
PLUGINS = ("pylibjpeg", "pyjpegls", "pillow", GDCM)
NO_SIZE = (0xC4, 0xC8, 0xCC)  # markers among JPEG's C0..CF that are no frame header
BARE = (0x01, *range(0xD0, 0xD9))  # markers without a length
SPARE = 2**20  # bytes that a file may hold behind its pixels
DECOMPRESS = "Save it without compression (dcmtk's dcmdjpeg, for one)."
EXTRA = "pip install 'reportseg[codecs]'"


def check_grid(header: Dataset, where: str, limits: Limits = DEFAULT) -> tuple[int, int, int]:
    """(frames, rows, columns) that the header announces. InputError: corrupt, unsupported_mode, too_large."""
    numbers = [_whole(header, name) for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored")]
    rows, columns, samples, allocated, stored = (0 if number is None else number for number in numbers)
    if rows < 1 or columns < 1:
        raise damaged("has no rows or columns of pixels", where)
    photometric = str(header.get("PhotometricInterpretation") or "").strip()
    if photometric not in SAMPLES:
        what = "the kind of its colours is not known" if photometric else "the file does not say what its pixels mean"
        raise InputError(what, where, "Export it as gray or RGB.", "unsupported_mode")
    if samples != SAMPLES[photometric]:
        raise damaged(f"has {samples} values a pixel, and {photometric} means {SAMPLES[photometric]}", where)
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated:
        raise damaged(f"has {stored} bits in {allocated}", where)
    high = _whole(header, "HighBit")
    if high is not None and high != stored - 1:
        raise damaged(f"has its {stored} bits below bit {high + 1}, where nothing reads them any more", where)
    frames = _whole(header, "NumberOfFrames")
    frames = 1 if frames is None else frames
    if frames < 1:
        raise damaged("has no frames", where)
    check_pixels(columns, rows, where, limits)
    size = frames * rows * columns * samples * max(1, allocated // 8)
    if size > limits.volume_bytes:
        raise InputError(
            f"its {frames:,} frames take {size:,} bytes, more than the limit of {limits.volume_bytes:,}",
            where,
            f"Cut it into smaller files, or allow it: {VARIABLE}=volume_bytes={size}.",
            "too_large",
        )
    return frames, rows, columns


def decode(header: FileDataset, file: IO[bytes], where: str = "", limits: Limits = DEFAULT, frame: int = 0) -> NDArray[Any]:
    """The stored values of a frame (from 0): (H, W), or (H, W, 3) as RGB; unused bits are cleared.

    `file` stands at the element of the pixels, as read_header leaves it, and does so again afterwards. InputError: those of check_grid,
    no_pixels, truncated, corrupt, codec (the extra `codecs` is missing, or its decoder cannot be started), unsupported_codec.
    """
    start = file.tell()
    try:
        return _decode(header, file, where, limits, frame)
    finally:
        file.seek(start)


def _decode(header: FileDataset, file: IO[bytes], where: str, limits: Limits, frame: int) -> NDArray[Any]:
    syntax = header.file_meta.TransferSyntaxUID
    order = "<" if header.original_encoding[1] else ">"
    element = file.read(8)
    if len(element) < 8 or struct.unpack(f"{order}HH", element[:4]) != (0x7FE0, 0x0010):
        raise InputError("the DICOM file holds no image", where, "Give the file of the film itself.", "no_pixels")
    frames, rows, columns = check_grid(header, where, limits)
    signed, packing, samples = (_whole(header, name) for name in ("PixelRepresentation", "PlanarConfiguration", "SamplesPerPixel"))
    if signed not in (0, 1) or (signed and samples == 3):
        raise damaged("says its colours are signed" if signed == 1 else "does not say whether its pixels are signed", where)
    if samples == 3 and not syntax.is_encapsulated and packing not in (0, 1):
        raise damaged("does not say how its colours are packed", where)
    vr = element[4:6].decode("latin-1")
    length = element[4:]
    if vr in ("OB", "OW", "UN"):  # explicit, whatever the transfer syntax promises
        length = file.read(4)
    else:
        vr = "OW"
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise InputError("its compression cannot be read", where, DECOMPRESS, "unsupported_codec") from error
    if not decoder.is_available:
        raise InputError(f"its compression ({syntax.name}) needs the extra `codecs`", where, f"Install it: {EXTRA}.", "codec")
    if not syntax.is_encapsulated and _left(file) < _plain_bytes(header, frames * rows * columns):
        raise InputError("the file ends before its pixels do", where, "Copy or download it again.", "truncated")
    if not syntax.is_encapsulated and int.from_bytes(length, "little" if order == "<" else "big") > _most_bytes(
        header, frames, rows, columns
    ):
        raise damaged(f"holds more pixels than its {columns} x {rows} in {frames} frames", where)
    options: dict[str, Any] = {"pixel_keyword": "PixelData", "pixel_vr": vr, "transfer_syntax_uid": syntax}
    if syntax.is_encapsulated:
        stream = _checked_stream(header, file, where, frames, rows, columns, frame)
        if syntax == RLELossless:  # unpacked here, since pydicom would unpack whatever there is; what is left is a frame of plain pixels
            file, frame, decoder = io.BytesIO(_unpacked(stream, header, where)), 0, get_decoder(ExplicitVRLittleEndian)
            options |= {"transfer_syntax_uid": ExplicitVRLittleEndian, "number_of_frames": 1, "planar_configuration": 1}
            if header.PhotometricInterpretation == "YBR_FULL_422":  # RLE leaves no colour out
                options["photometric_interpretation"] = "YBR_FULL"
        else:  # and no other stream than the one that was looked at
            file, frame = io.BytesIO(encapsulate([stream])), 0
            options["number_of_frames"] = 1
    plugin = next((name for name in PLUGINS if name in decoder.available_plugins), "")
    try:
        options = as_pixel_options(header) | options
        options.pop("extended_offsets", None)
        if plugin == GDCM:
            array = decode_apart(stream, options)
        else:
            array = decoder.as_array(cast(BinaryIO, file), index=frame, decoding_plugin=plugin, **options)[0]
    except ChildProcessError as error:  # which says nothing of the film
        what = "lossless JPEG is decoded in a process of its own, which cannot be started"
        raise InputError(what, where, f"Close other programs. Or: {DECOMPRESS}", "codec") from error
    except MemoryError as error:
        raise InputError("the image is too large for this machine", where, "Make it smaller.", "too_large") from error
    except Exception as error:  # each decoder raises what its library does
        if not syntax.is_encapsulated:
            raise InputError("the file ends before its pixels do", where, "Copy or download it again.", "truncated") from error
        if syntax == JPEGExtended12Bit and int(header.BitsStored) > 8:
            raise InputError("lossy JPEG of 12 bits cannot be read", where, DECOMPRESS, "unsupported_codec") from error
        if not _has_codecs():
            fix = f"Install the extra `codecs`, which reads more: {EXTRA}. If it is there, export the file again."
            raise InputError(f"its compression ({syntax.name}) could not be read", where, fix, "codec") from error
        raise damaged("has pixels that cannot be unpacked", where) from error
    if array.shape[:2] != (rows, columns):
        raise damaged("holds another picture than its header says", where)
    return array


def _checked_stream(header: Dataset, file: IO[bytes], where: str, frames: int, rows: int, columns: int, frame: int) -> bytes:
    """The compressed frame. What it announces is what the header says: a decoder would first make whatever that is, or cut it to fit."""
    start, syntax, samples = file.tell(), header.file_meta.TransferSyntaxUID, int(header.SamplesPerPixel)
    plain = rows * columns * samples * max(1, int(header.BitsAllocated) // 8)
    if _left(file) > 2 * frames * plain + SPARE:
        raise damaged("holds more data than its pixels need", where)
    try:
        table = (header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths) if "ExtendedOffsetTable" in header else None
        stream = get_frame(file, frame, number_of_frames=frames, extended_offsets=table)
        held = _frames_held(file, syntax, frame == 0)
    except Exception as error:
        raise InputError("the file ends before its pixels do", where, "Copy or download it again.", "truncated") from error
    file.seek(start)
    if held > frames:
        raise damaged(f"describes {frames} frames and has {held}", where)
    if syntax not in SIZED:
        return stream
    said = _stream_head(stream)
    if said is None:
        raise damaged("has pixels that cannot be unpacked", where)
    if said[:2] != (rows, columns):
        raise damaged("holds another picture than its header says ({} x {}, not {} x {})".format(*said[1::-1], columns, rows), where)
    if said[2] != samples or not 1 < said[3] <= int(header.BitsAllocated):
        what = "holds another picture than its header says ({} values a pixel of {} bits, not {} in {})"
        raise damaged(what.format(*said[2:], samples, header.BitsAllocated), where)
    if syntax in JPEGLSTransferSyntaxes and ENDS not in stream:  # CharLS refuses it, too, but seconds later
        raise damaged("has compressed pixels without their end", where)
    return stream


def _frames_held(file: IO[bytes], syntax: str, count: bool) -> int:
    """How many frames there are by the table of their offsets; where there is none, if told to `count`, by the fragments that begin one."""
    offsets = parse_basic_offsets(file)
    if not count or (offsets and syntax != RLELossless):
        return len(offsets)
    fragments, places = parse_fragments(file)
    if syntax == RLELossless:  # of which each is a frame
        return fragments
    begun = 0
    for place in places:
        file.seek(place + 8)
        begun += file.read(6).startswith(BEGINS)
    return begun


def _unpacked(stream: bytes, header: Dataset, where: str) -> bytes:
    """An RLE frame as plain pixels, plane by plane. Each of its segments holds one byte of every pixel, that of the highest bits first."""
    rows, columns, samples, size = (int(header.Rows), int(header.Columns), int(header.SamplesPerPixel), int(header.BitsAllocated) // 8)
    count, *starts = struct.unpack("<16I", stream[:64].ljust(64, b"\0"))
    if count != samples * size or not count:
        raise damaged("has pixels that cannot be unpacked", where)
    planes = np.empty((samples, rows * columns, size), np.uint8)
    for number, (start, end) in enumerate(pairwise([*starts[:count], len(stream)])):
        run = _runs(stream[start:end], (rows + 1) * columns)
        if len(run) > (rows + 1) * columns:
            raise damaged("holds more data than its pixels need", where)
        if len(run) < rows * columns:
            raise damaged("has pixels that cannot be unpacked", where)
        planes[number // size, :, size - 1 - number % size] = np.frombuffer(run, np.uint8, rows * columns)
    return planes.tobytes()


def _runs(packed: bytes, enough: int) -> bytearray:
    """What a segment of RLE unpacks to, up to a little beyond `enough`."""
    out, place, end = bytearray(), 0, len(packed)
    while place < end and len(out) <= enough:
        run = packed[place]
        if run < 128:  # so many bytes as they are, and one more
            out += packed[place + 1 : place + 2 + run]
            place += run + 2
        else:  # one byte many times; 128 is nothing
            out += packed[place + 1 : place + 2] * (257 - run if run > 128 else 0)
            place += 2 if run > 128 else 1
    return out


def _stream_head(stream: bytes) -> tuple[int, int, int, int] | None:
    """(rows, columns, values a pixel, bits) of a JPEG, JPEG-LS or JPEG 2000 stream, None where no header is found."""
    siz = stream.find(b"\xff\x4f\xff\x51", 0, 4096)  # a whole JP2 file may stand around the stream
    if siz >= 0:
        if len(stream) < siz + 43:
            return None
        width, height, left, top = struct.unpack(">4I", stream[siz + 8 : siz + 24])
        return height - top, width - left, int.from_bytes(stream[siz + 40 : siz + 42], "big"), (stream[siz + 42] & 0x7F) + 1
    place = 2
    while stream[:2] == b"\xff\xd8" and place + 10 <= len(stream):
        if stream[place] != 0xFF:
            return None
        marker = stream[place + 1]
        if marker == 0xFF or marker in BARE:
            place += 1 if marker == 0xFF else 2
            continue
        if (0xC0 <= marker <= 0xCF and marker not in NO_SIZE) or marker == 0xF7:
            bits, height, width, samples = struct.unpack(">BHHB", stream[place + 4 : place + 10])
            return height, width, samples, bits
        place += 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    return None


def _left(file: IO[bytes]) -> int:
    """Bytes up to the end of the file."""
    start = file.tell()
    end = file.seek(0, 2)
    file.seek(start)
    return end - start


def _plain_bytes(header: Dataset, pixels: int) -> int:
    """Bytes of so many pixels without compression; YBR_FULL_422 leaves out every other colour."""
    bits = pixels * int(header.SamplesPerPixel) * int(header.BitsAllocated)
    return (bits * 2 // 3 if str(header.PhotometricInterpretation).strip() == "YBR_FULL_422" else bits) // 8


def _most_bytes(header: Dataset, frames: int, rows: int, columns: int) -> int:
    """The longest element of so many pixels: makers pad it, by a row at most. Of more it is the header that is wrong."""
    return _plain_bytes(header, frames * rows * columns) + max(2, _plain_bytes(header, columns))


def _whole(header: Dataset, keyword: str) -> int | None:
    try:
        value = header.get(keyword)
        return None if value in (None, "") else int(value)
    except Exception:  # pydicom converts values when they are asked for; one that is no number is none
        return -1


def _has_codecs() -> bool:
    return all(find_spec(name) is not None for name in ("gdcm", "openjpeg", "pylibjpeg"))
