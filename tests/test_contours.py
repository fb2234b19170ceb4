"""Contours: the mask's edge as closed lines, exact when filled again, and never further than half a pixel from the edge."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from reportseg.io.contours import contours, enclosed

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(MASKS)
def test_filled_again_they_are_the_mask(mask):
    lines = contours(mask)
    assert (enclosed(lines, mask.shape) == mask).all()
    assert all((line[0] == line[-1]).all() for line in lines)
    assert all((line >= 0).all() and (line <= mask.shape[::-1]).all() for line in lines)


@given(MASKS)
def test_no_point_is_further_than_half_a_pixel_from_an_edge(mask):
    padded = np.pad(mask, 1)
    # Edges of pixels between inside and outside, as their middle points: horizontal ones, then vertical ones; (column, row).
    rows, columns = np.nonzero(padded[1:] != padded[:-1])
    middles = [np.stack([columns - 0.5, rows], 1)]
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    middles = np.concatenate([*middles, np.stack([columns, rows - 0.5], 1)])
    for line in contours(mask):
        for start, end in zip(line[:-1], line[1:], strict=True):
            for part in np.linspace(0, 1, 5):
                away = np.abs(middles - (start + part * (end - start)))
                along_row = np.where(np.arange(len(middles)) < len(middles) - len(rows), 0.5, 0)
                gap = np.stack([np.maximum(away[:, 0] - along_row, 0), np.maximum(away[:, 1] - (0.5 - along_row), 0)])
                assert np.hypot(*gap).min() <= 0.5


def test_straight_stretches_have_no_points_between():
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    (line,) = contours(mask)
    assert len(line) <= 10  # eight corners, cut, and where it closes
    assert line[:, 0].min() == 20
    assert line[:, 0].max() == 50
    assert line[:, 1].min() == 10
    assert line[:, 1].max() == 30


def test_a_hole_has_its_own_line_and_an_empty_mask_none():
    ring = np.ones((5, 5), bool)
    ring[2, 2] = False
    assert len(contours(ring)) == 2
    assert contours(np.zeros((5, 5), bool)) == []
