"""The edge of a mask as closed lines, in the coordinates of DICOM's graphics: (0, 0) is the upper left corner of the first pixel.

A line runs through the middle of every pixel edge between inside and outside, so it is nowhere further than half a pixel from that edge,
and the pixels whose centres it encloses are the mask again. Shapes: H, W the grid, N points as (column, row).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray


def contours(mask_HW: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed lines (N, 2), the first point repeated at the end; holes have lines of their own. An empty mask has none."""
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    found = np.pad(mask_HW[top : rows[-1] + 1, left : columns[-1] + 1], 1).astype(np.float64)
    lines = contour_generator(z=found, name="serial").lines(0.5)
    # In the padded array a pixel's index is its centre; its corner is half a pixel before it.
    corner = np.array([left, top]) - 0.5
    return [_bends(np.asarray(line)) + corner for line in lines]


def _bends(line_N2: NDArray[np.float64]) -> NDArray[np.float64]:
    """The line without the points on a straight stretch; the first and last stay."""
    steps = np.diff(line_N2, axis=0)
    turns = steps[:-1, 0] * steps[1:, 1] != steps[:-1, 1] * steps[1:, 0]
    return line_N2[np.concatenate(([True], turns, [True]))]


def enclosed(lines: list[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels (H, W) whose centres lie inside the lines, by the even-odd rule: the inverse of `contours`."""
    inside = np.zeros(shape, bool)
    across = np.arange(shape[1]) + 0.5
    for line in lines:
        for (x0, y0), (x1, y1) in pairwise(line):
            low, high = sorted((y0, y1))
            for row in range(max(0, int(np.ceil(low - 0.5))), min(shape[0], int(np.ceil(high - 0.5)))):
                inside[row] ^= across > x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0)
    return inside
