"""From stored values to what they mean (modality LUT) and to what is looked at (VOI LUT), through a table of all values that occur.

The table is what pydicom's own functions make of each value: exact, and a film of 100 megapixels costs no float64 copies. Look-up tables
are applied here: pydicom 3.0 wraps round where a table has 8-bit entries and more than 256 of them, and refuses entries of 12 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_windowing

from .dicom_header import damaged

TABLE = 2**20  # values; wider ranges (32-bit pixels) are worked out one by one
EXTREMES = np.array([-1e30, 1e30])  # beyond any window: what they become is its black and its white
FAR = 1e15  # beyond any pixel: a window that lies there shows nothing

Table = Callable[[NDArray[Any]], NDArray[Any]]


def meant(array_HW: NDArray[Any], header: Dataset, where: str = "") -> NDArray[np.float32]:
    """What stored values mean, such as Hounsfield units: the modality LUT. InputError corrupt."""
    out: NDArray[np.float32] = _mapped(array_HW, lambda values: _modality(values, header, where)).astype(np.float32)
    return out


def shown(array_HW: NDArray[Any], header: Dataset, where: str = "") -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """A gray frame as float32 in [0, 1], black is 0 (MONOCHROME1 is turned), and what is to be said of it.

    The first VOI LUT, else the first window: the standard calls the others alternatives, and the first is what viewers open with. Without
    either, 8 unsigned bits are taken as they are, and of more bits the least and the largest value become black and white (no_window).
    InputError corrupt.
    """
    warnings: tuple[str, ...] = ()
    tables, window = header.get("VOILUTSequence"), _window(header)
    if tables:
        entries, first, depth = _table(tables[0], header, where, _meant_span(header, where))

        def view(values: NDArray[Any]) -> NDArray[Any]:
            return _looked_up(_modality(values, header, where), entries, first) / (2.0**depth - 1)
    elif window is not None:

        def view(values: NDArray[Any]) -> NDArray[Any]:
            with np.errstate(over="ignore"):
                out = apply_windowing(np.concatenate([_modality(values, header, where).astype(np.float64), EXTREMES]), window)
            scaled: NDArray[np.float64] = (out[:-2] - out[-2]) / (out[-1] - out[-2])
            return scaled
    elif int(header.BitsStored) <= 8 and not int(header.PixelRepresentation) and not _has_modality(header):

        def view(values: NDArray[Any]) -> NDArray[Any]:
            return values / (2.0 ** int(header.BitsStored) - 1)
    else:
        warnings = ("no_window",)
        low, high = _range(array_HW, header, where)

        def view(values: NDArray[Any]) -> NDArray[Any]:
            return (_modality(values, header, where) - low) / ((high - low) or 1.0)

    out = _mapped(array_HW, lambda values: np.clip(view(values), 0, 1).astype(np.float32))
    inverted = str(header.PhotometricInterpretation).strip() == "MONOCHROME1"
    return np.subtract(1, out, dtype=np.float32) if inverted else out, warnings


def coloured(array: NDArray[Any], header: Dataset, where: str = "") -> NDArray[np.float32]:
    """A colour frame, (H, W, 3) as RGB or (H, W) of a palette, as float32 RGB in [0, 1]. InputError corrupt."""
    if array.ndim == 3:
        unit: NDArray[np.float32] = np.divide(array, 2 ** int(header.BitsStored) - 1, dtype=np.float32).clip(0, 1)
        return unit
    try:
        colours = apply_color_lut(array, header)[:, :, :3]
    except Exception as error:  # pydicom trusts the tables
        raise damaged("has a palette that cannot be read", where) from error
    out: NDArray[np.float32] = np.divide(colours, np.iinfo(colours.dtype).max, dtype=np.float32)
    return out


def window_of(header: Dataset) -> tuple[float, float] | None:
    """(centre, width) of the first window; None where there is none that can be used."""
    window = _window(header)
    return None if window is None else (float(window.WindowCenter), float(window.WindowWidth))


def _mapped(array: NDArray[Any], table: Table) -> NDArray[Any]:
    low, high = int(array.min()), int(array.max())
    if high - low >= TABLE:
        return table(array.ravel().astype(np.int64)).reshape(array.shape)
    place = np.subtract(array, low, dtype=np.int32 if array.dtype.itemsize <= 2 else np.int64) if low else array
    out: NDArray[Any] = table(np.arange(low, high + 1, dtype=np.int64))[place]
    return out


def _has_modality(header: Dataset) -> bool:
    return bool(header.get("ModalityLUTSequence")) or any(
        header.get(name) not in (None, "") for name in ("RescaleSlope", "RescaleIntercept")
    )


def _modality(values: NDArray[Any], header: Dataset, where: str) -> NDArray[Any]:
    tables = header.get("ModalityLUTSequence")
    try:
        if tables:
            entries, first, _ = _table(tables[0], header, where, _stored_span(header))
            return _looked_up(values, entries, first)
        if not _has_modality(header):
            return values
        slope, intercept = (header.get(name) for name in ("RescaleSlope", "RescaleIntercept"))  # one without the other is in the wild
        slope, intercept = 1.0 if slope in (None, "") else float(slope), 0.0 if intercept in (None, "") else float(intercept)
        out: NDArray[Any] = values.astype(np.float64) * slope + intercept
    except (TypeError, ValueError) as error:
        raise damaged("has a rescale slope that is no number", where) from error
    if slope == 0 or not np.isfinite(out).all():
        raise damaged("has a rescale slope that is no number, or 0", where)
    return out


def _stored_span(header: Dataset) -> NDArray[np.int64]:
    """The least and the largest value that the bits of a pixel hold."""
    signed, bits = bool(int(header.get("PixelRepresentation") or 0)), int(header.BitsStored)
    return np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], dtype=np.int64)


def _meant_span(header: Dataset, where: str) -> NDArray[Any]:
    """The least and the largest value that these can mean; the entries of a table lie in 16 bits."""
    if header.get("ModalityLUTSequence"):
        return np.array([0, 2**16 - 1])
    return np.sort(_modality(_stored_span(header), header, where))


def _table(item: Dataset, header: Dataset, where: str, span: NDArray[Any]) -> tuple[NDArray[Any], int, int]:
    """(entries, the value that the first one is for, bits of an entry). `span`: the least and the largest value that is looked up.

    Files write the 16 bits of the first value as signed where they are not, and the other way about: they are taken as they are written,
    unless the other reading lays more of the table where values can lie.
    """
    try:
        count, first, depth = (int(value) for value in item.LUTDescriptor)
        data = item.LUTData
        order = "<" if header.original_encoding[1] is not False else ">"
        count = count & 0xFFFF or 2**16
        packed = isinstance(data, bytes) and depth <= 8 and len(data) < 2 * count  # a byte an entry
        kind = "u1" if packed else f"{order}u2"
        entries = np.frombuffer(data, kind) if isinstance(data, bytes) else np.atleast_1d(np.asarray(data, dtype=np.int64))
        entries = entries[:count]
    except Exception as error:  # what the elements hold decides what is raised
        raise damaged("has a look-up table that cannot be read", where) from error
    if not 1 <= depth <= 16 or not entries.size or not -(2**15) <= first < 2**16:
        raise damaged("has a look-up table that cannot be read", where)
    other = first + 2**16 if first < 0 else first - 2**16 if first >= 2**15 else first
    used, used_of_other = (min(start + len(entries) - 1, span[1]) - max(start, span[0]) for start in (first, other))
    return entries.astype(np.int64), other if used_of_other > max(used, -1) else first, depth


def _looked_up(values: NDArray[Any], entries: NDArray[Any], first: int) -> NDArray[Any]:
    out: NDArray[Any] = entries[np.clip(np.rint(values).astype(np.int64) - first, 0, len(entries) - 1)]
    return out


def _window(header: Dataset) -> Dataset | None:
    """What apply_windowing needs, of the first window that has a width; None where there is none."""
    try:
        centre, width = (_first(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
        function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    except Exception:  # a window that is no number is none
        return None
    if centre is None or width is None or not np.isfinite([centre, width]).all() or max(abs(centre), width) > FAR:
        return None
    if width < 1 if function == "LINEAR" else width <= 0:
        return None
    out = Dataset()
    out.WindowCenter, out.WindowWidth, out.VOILUTFunction = centre, width, function
    out.PhotometricInterpretation, out.BitsStored, out.PixelRepresentation = "MONOCHROME2", 8, 0  # of its output, which is scaled anyway
    return out if function in ("LINEAR", "LINEAR_EXACT", "SIGMOID") else None


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value) if isinstance(value, str | int | float) or not hasattr(value, "__getitem__") else float(value[0])


def _range(array: NDArray[Any], header: Dataset, where: str) -> tuple[float, float]:
    """Least and largest meaning among the pixels that are no padding: one value, or all from it to its limit."""
    try:
        one = header.get("PixelPaddingValue")
        other = header.get("PixelPaddingRangeLimit")
        ends = [int(value) for value in (one, one if other in (None, "") else other)]
        if array.dtype.itemsize <= 2:  # written as signed or not, whatever the pixels are
            ends = [(value + 2**15) % 2**16 - 2**15 if array.dtype.kind == "i" else value % 2**16 for value in ends]
        inside = array[(array < min(ends)) | (array > max(ends))]
    except Exception:  # a padding value that is none, or no number, marks nothing
        inside = array
    extremes = np.array([inside.min(), inside.max()] if inside.size else [array.min(), array.max()], dtype=np.int64)
    values = _modality(extremes, header, where)
    return float(values.min()), float(values.max())
