"""Where the pixels of a DICOM file lie in the patient, and which way they are to be looked at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ..types import Affine, Orientation

ENDS = ("LR", "PA", "HF")  # of the axes x, y, z of DICOM's patient coordinates: where they rise to, where from
MOST_MM = 1000.0  # a pixel that is larger is a mistake
FAR_MM = 1e6  # and so is a patient who lies farther away


def orientation(header: Dataset) -> Orientation | None:
    """Where columns and rows count up to: from PatientOrientation, else from ImageOrientationPatient, else None.

    Never from ViewPosition: it names the way of the rays, and says nothing of how the picture was stored.
    """
    stated = [str(part).strip()[:1].upper() for part in _values(header, "PatientOrientation")]
    axes = [next((i for i, ends in enumerate(ENDS) if part and part in ends), None) for part in stated]
    if len(axes) == 2 and None not in axes and axes[0] != axes[1]:
        return stated[0], stated[1]
    cosines = directions(header)
    if cosines is None:
        return None
    across, down = cosines
    first = int(np.abs(across).argmax())
    second = max((i for i in range(3) if i != first), key=lambda i: abs(float(down[i])))
    return ENDS[first][int(across[first] < 0)], ENDS[second][int(down[second] < 0)]


def spacing(header: Dataset) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """(row, column) distance in mm, and what is to be said of it.

    PixelSpacing is that in the patient; ImagerPixelSpacing that on the detector, where everything is larger (warning spacing_at_detector).
    """
    for keyword, warnings in (("PixelSpacing", ()), ("ImagerPixelSpacing", ("spacing_at_detector",))):
        values = _numbers(header, keyword, 2)
        if values is not None and (values > 0).all() and (values <= MOST_MM).all():
            return (float(values[0]), float(values[1])), warnings
    return None, ("spacing_unknown",)


def directions(header: Dataset) -> NDArray[np.float64] | None:
    """Unit vectors along which columns and rows count up, in patient coordinates: (2, 3). None where they are absent or senseless."""
    values = _numbers(header, "ImageOrientationPatient", 6)
    if values is None:
        return None
    cosines = values.reshape(2, 3)
    lengths = np.linalg.norm(cosines, axis=1)
    if (np.abs(lengths - 1) > 0.01).any() or abs(float(cosines[0] @ cosines[1])) > 0.01:
        return None
    unit: NDArray[np.float64] = cosines / lengths[:, None]
    return unit


def position(header: Dataset) -> NDArray[np.float64] | None:
    """Patient coordinates in mm of the centre of the first pixel: (3,)."""
    values = _numbers(header, "ImagePositionPatient", 3)
    return None if values is None or (np.abs(values) > FAR_MM).any() else values


def affine(header: Dataset, step: NDArray[np.float64] | None = None) -> Affine | None:
    """(slice, row, column, 1) -> LPS mm. `step` leads from a slice to the next; a single one gets its normal. None without coordinates."""
    cosines, origin = directions(header), position(header)
    grid, warnings = spacing(header)
    if cosines is None or origin is None or grid is None or warnings:
        return None
    across, down = cosines
    matrix = np.eye(4)
    matrix[:3, 0] = np.cross(across, down) if step is None else step
    matrix[:3, 1], matrix[:3, 2], matrix[:3, 3] = down * grid[0], across * grid[1], origin
    return tuple(tuple(float(value) for value in row) for row in matrix)


def _numbers(header: Dataset, keyword: str, count: int) -> NDArray[np.float64] | None:
    """So many finite numbers, None for anything else."""
    try:
        values = [float(value) for value in _values(header, keyword)]
    except (TypeError, ValueError):
        return None
    return np.array(values) if len(values) == count and all(map(math.isfinite, values)) else None


def _values(header: Dataset, keyword: str) -> list[Any]:
    """The values of an element, [] for one that is absent, empty or cannot be read: a damaged aside is no reason to refuse a film."""
    try:
        value = header.get(keyword)
    except Exception:  # pydicom converts values when they are asked for, and raises what its converters raise
        return []
    if value is None or value == "":
        return []
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
