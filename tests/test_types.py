"""The grid of a film, and how it is turned for those who look at it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reportseg.types import Geometry, Volume

AXES = [("L", "R"), ("P", "A"), ("F", "H")]
ALL = [(a, b) for one, other in itertools.permutations(AXES, 2) for a in one for b in other]


@pytest.mark.parametrize("orientation", ALL)
def test_every_orientation_is_displayed_with_the_left_on_the_right_and_comes_back(orientation):
    names = np.array([[f"{r}{c}" for c in range(3)] for r in range(2)])
    grid = Geometry((2, 3), orientation=orientation)
    shown = grid.displayed(names)
    np.testing.assert_array_equal(grid.stored(shown), names)
    if not grid.has_sides:
        np.testing.assert_array_equal(shown, names)
        return
    # Bottom right is the pixel farthest to the patient's left, and to the feet or the back.
    across, down = orientation
    assert shown[-1, -1] == f"{1 if down in 'LPF' else 0}{2 if across in 'LPF' else 0}"
    assert {"L", "R"} & set(orientation)


def test_a_mirrored_film_is_mirrored_back():
    film = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(Geometry((2, 3), orientation=("R", "F")).displayed(film), film[:, ::-1])
    np.testing.assert_array_equal(Geometry((2, 3), orientation=("L", "F")).displayed(film), film)
    np.testing.assert_array_equal(Geometry((2, 3)).displayed(film), film)


def test_a_film_on_its_side_is_set_upright():
    shown = Geometry((2, 3), orientation=("F", "L")).displayed(np.arange(6).reshape(2, 3))
    assert shown.shape == (3, 2) and shown[2, 0] == 2, "the last column is at the feet"


def test_a_lateral_view_has_no_sides():
    assert not Geometry((2, 3), orientation=("A", "F")).has_sides
    assert not Geometry((2, 3), orientation=("P", "L")).has_sides, "a mammogram from above"
    assert Geometry((2, 3), orientation=("L", "F")).has_sides and Geometry((2, 3)).has_sides


def test_spacing_of_a_volume_is_that_of_its_affine():
    affine = ((0.0, 0.0, 0.5, 0.0), (0.0, 0.7, 0.0, 0.0), (3.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
    assert Volume(np.zeros((2, 3, 4)), affine, "dicom").spacing_mm == pytest.approx((3.0, 0.7, 0.5))
