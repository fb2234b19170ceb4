"""PNG: what we write (masks, probabilities, overlays; the same bytes for the same input), and the check of what we read."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ..errors import InputError
from ..limits import DEFAULT, Limits, atomic_path, check_pixels

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Okabe and Ito's colour-blind-safe palette, told apart in gray print too
PREDICTION_RGB = (230, 159, 0)  # orange
TRUTH_RGB = (86, 180, 233)  # sky blue
FILL = 0.28  # opacity of the prediction's area
_STEP = 1 << 20


def write_mask(path: str | Path, mask_HW: NDArray[Any]) -> None:
    """8-bit gray, 0 and 255."""
    _write(path, np.where(_flat(mask_HW), 255, 0).astype(np.uint8))


def write_probability(path: str | Path, prob_HW: NDArray[Any]) -> None:
    """16-bit gray, probability times 65535, rounded. ValueError outside [0, 1]."""
    prob = _flat(prob_HW).astype(np.float64)
    if not ((prob >= 0) & (prob <= 1)).all():
        raise ValueError("probabilities must lie in [0, 1]")
    _write(path, np.rint(prob * 65535).astype(np.uint16))


def write_overlay(path: str | Path, image_HWC: NDArray[Any], mask_HW: NDArray[Any], truth_HW: NDArray[Any] | None = None) -> None:
    """overlay_rgb as a file."""
    _write(path, overlay_rgb(image_HWC, mask_HW, truth_HW))


def overlay_rgb(image_HWC: NDArray[Any], mask_HW: NDArray[Any], truth_HW: NDArray[Any] | None = None) -> NDArray[np.uint8]:
    """The film in gray, the prediction as an orange veil and contour, the truth as a blue contour: uint8 (H, W, 3).

    `image_HWC` is in [0, 1]. The prediction's contour lies inside its edge and the truth's outside, so both show where they agree.
    """
    gray = np.asarray(image_HWC, dtype=np.float32)
    gray = gray.mean(axis=2, keepdims=True) if gray.ndim == 3 else gray[:, :, None]
    rgb = draw_area(np.repeat(np.clip(gray, 0, 1) * 255, 3, axis=2), mask_HW)
    if truth_HW is not None:
        truth = _flat(truth_HW).astype(bool)
        rgb[~truth & _grown(truth, contour_width(truth.shape))] = TRUTH_RGB
    return rgb


def draw_area(rgb_HW3: NDArray[Any], mask_HW: NDArray[Any], colour: tuple[int, int, int] = PREDICTION_RGB) -> NDArray[np.uint8]:
    """The picture, values in [0, 255], with a veil over the mask and a contour inside its edge, as uint8."""
    rgb, mask = np.array(rgb_HW3, np.float32), _flat(mask_HW).astype(bool)
    rgb[mask] = (1 - FILL) * rgb[mask] + FILL * np.array(colour, np.float32)
    rgb[mask & _grown(~mask, contour_width(mask.shape))] = colour
    out: NDArray[np.uint8] = np.rint(rgb).astype(np.uint8)
    return out


def contour_width(shape: tuple[int, ...]) -> int:
    """Pixels, so that a contour looks alike at every size: 1 at 128, 4 at 1024, at most 12."""
    return int(min(12, max(1, round(max(shape) / 280))))


def check_png(file: IO[bytes], where: str, limits: Limits = DEFAULT) -> None:
    """Walks the chunks: budget from the header, checksums of the chunks that make the picture, as many pixels as announced, and the end.

    Pillow takes a file cut behind its pixels for whole, and fills pixels that are missing with black. InputError: truncated, corrupt,
    too_large. Leaves `file` at its start.
    """
    file.seek(len(PNG_SIGNATURE))
    kind, missing, inflater = b"", -1, zlib.decompressobj()
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", _exactly(file, 8, where))
        critical = kind[0] & 0x20 == 0  # an upper-case first letter
        if (missing == -1) != (kind == b"IHDR") or (kind == b"IHDR" and length != 13):
            raise _corrupt("does not begin with one header", where)
        checksum = zlib.crc32(kind)
        while length:
            body = _exactly(file, min(length, _STEP), where)
            length -= len(body)
            if critical:
                checksum = zlib.crc32(body, checksum)
            if kind == b"IHDR":
                width, height = struct.unpack(">II", body[:8])
                check_pixels(width, height, where, limits)
                missing = _stored_bytes(width, height, depth=body[8], colour=body[9], interlaced=body[12] == 1)
            elif kind == b"IDAT":
                missing -= _inflated(inflater, body, missing, where)
        stored = int.from_bytes(_exactly(file, 4, where), "big")
        if critical and checksum != stored:
            raise _corrupt("has a wrong checksum", where)
    if missing > 0:
        raise cut_short(where)
    file.seek(0)


def _exactly(file: IO[bytes], length: int, where: str) -> bytes:
    body = file.read(length)
    if len(body) < length:
        raise cut_short(where)
    return body


def _stored_bytes(width: int, height: int, depth: int, colour: int, interlaced: bool) -> int:
    """Bytes of the unpacked pixel stream: one filter byte a row, rows padded to bytes, Adam7's seven passes where interlaced."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 0)
    passes = (
        [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)] if interlaced else [(0, 0, 1, 1)]
    )
    sizes = ((-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0)


def _inflated(inflater: Any, body: bytes, most: int, where: str) -> int:
    """How many bytes `body` unpacks to, counted in small steps and no further than `most`."""
    count, step = 0, 1
    while step and not inflater.eof:
        step = min(most - count, _STEP)
        try:
            out = inflater.decompress(body, step) if step > 0 else b""
        except zlib.error as e:
            raise _corrupt("cannot be unpacked", where) from e
        count += len(out)
        body = inflater.unconsumed_tail
        if not body and len(out) < step:  # a full step may leave more inside zlib, though all of `body` went in
            break
    return count


def cut_short(where: str) -> InputError:
    """The error truncated, for a file that ends early."""
    return InputError("the file ends before the image does", where, "Copy or download it again.", "truncated")


def _corrupt(what: str, where: str) -> InputError:
    return InputError(f"the PNG {what}", where, "Export or download it again.", "corrupt")


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    array = np.asarray(array)
    if array.ndim != 2:
        raise ValueError(f"expected (H, W), got {array.shape}")
    return array


def _grown(mask_HW: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    """The mask dilated by so many pixels, a cross and a square in turn: nearly a disc. Outside the film nothing grows in."""
    out = mask_HW
    for step in range(pixels):
        grown = out.copy()
        grown[1:] |= out[:-1]
        grown[:-1] |= out[1:]
        source = grown.copy() if step % 2 else out
        grown[:, 1:] |= source[:, :-1]
        grown[:, :-1] |= source[:, 1:]
        out = grown
    return out


def _write(path: str | Path, array: NDArray[Any]) -> None:
    with atomic_path(path) as part, open(part, "wb") as file:
        PIL.Image.fromarray(array).save(file, format="PNG")
