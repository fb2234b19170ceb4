"""How sure an answer is, and what that is worth: figures computed by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from reportseg.types import CaseScore
from reportseg.uncertainty import aurc, curves, disagreement, expected_dice, selective_risk, spread, told


def case(name, dice, *, uncertainty=None, disagreement=None, area=10):
    return CaseScore(name, "", "text", 0, 0, 0, dice, dice, 0.0, 1.0, None, True, area, (), uncertainty, disagreement)


# ---------------------------------------------------------------- of one film


def test_expected_dice_by_hand():
    prob = np.array([[0.9, 0.6, 0.2, 0.0]], np.float32)
    assert expected_dice(prob, np.array([[True, True, False, False]])) == pytest.approx(2 * 1.5 / (2 + 1.7))
    assert expected_dice(prob, np.array([[False, False, False, True]])) == 0.0
    assert expected_dice(np.ones((2, 2), np.float32), np.ones((2, 2), bool)) == 1.0


def test_an_empty_mask_is_right_where_no_pixel_is_positive():
    empty = np.zeros((1, 2), bool)
    assert expected_dice(np.array([[0.5, 0.2]], np.float32), empty) == pytest.approx(0.5 * 0.8)
    assert expected_dice(np.zeros((1, 2), np.float32), empty) == 1.0
    assert expected_dice(np.ones((1, 2), np.float32), empty) == pytest.approx(0.0, abs=1e-6)


def test_expected_dice_is_near_the_mean_over_all_truths():
    rng = np.random.default_rng(0)
    prob = rng.random((40, 40)).astype(np.float32)
    mask = prob > 0.4
    truths = (rng.random(prob.shape) < prob for _ in range(200))
    dice = [2 * (truth & mask).sum() / (truth.sum() + mask.sum()) for truth in truths]
    assert expected_dice(prob, mask) == pytest.approx(np.mean(dice), abs=0.005)


def test_spread_is_nothing_where_all_agree_and_a_half_where_they_are_opposed():
    one, two = np.array([[0.2, 0.0, 0.5]], np.float32), np.array([[0.2, 1.0, 0.7]], np.float32)
    np.testing.assert_allclose(spread([one, two]), [[0.0, 0.5, 0.1]], atol=1e-7)
    assert spread([one, one, one]).dtype == np.float32 and not spread([one, one, one]).any()
    assert spread([two, one])[0, 1] == 0.5


def test_disagreement_by_hand():
    whole, left, none = np.array([[True, True]]), np.array([[True, False]]), np.array([[False, False]])
    assert disagreement([whole, left], whole) == pytest.approx(1 - (1 + 2 / 3) / 2)
    assert disagreement([whole, none], whole) == 0.5
    assert disagreement([none, none], none) == 0.0


# ---------------------------------------------------------------- of a set of cases


def test_the_risk_of_those_that_are_kept_by_hand():
    risk, measure = np.array([0.4, 0.0, 0.2]), np.array([3.0, 1.0, 2.0])
    np.testing.assert_allclose(selective_risk(risk, measure), [0.0, 0.1, 0.2])


def test_equal_values_count_with_the_mean_over_all_their_orders():
    risk, measure = np.array([0.1, 0.9, 0.5, 0.3]), np.array([1.0, 1.0, 1.0, 2.0])
    orders = [selective_risk(risk[[*order, 3]], np.arange(4.0)) for order in itertools.permutations(range(3))]
    np.testing.assert_allclose(selective_risk(risk, measure), np.mean(orders, axis=0))


def test_aurc_by_hand():
    cases = [
        case("a", 1.0, uncertainty=0.1, disagreement=0.3, area=5),
        case("b", 0.8, uncertainty=0.2, disagreement=0.0, area=90),
        case("c", 0.4, uncertainty=0.9, disagreement=None, area=20),
    ]
    found = aurc(cases)
    assert found["uncertainty"] == found["oracle"] == pytest.approx((0 + 0.1 + 0.8 / 3) / 3)
    assert found["disagreement"] == pytest.approx((0.2 + 0.1 + 0.8 / 3) / 3), "what it says nothing of is rejected first"
    assert found["area"] == pytest.approx((0.2 + 0.4 + 0.8 / 3) / 3), "the smallest mask is rejected first"
    assert found["random"] == pytest.approx(0.8 / 3)
    assert {name: curve[-1] for name, curve in curves(cases).items()} == pytest.approx(dict.fromkeys(found, 0.8 / 3))


def test_the_oracle_is_never_worse():
    rng = np.random.default_rng(1)
    cases = [case(str(i), rng.random(), uncertainty=rng.random(), area=int(rng.integers(1, 9))) for i in range(50)]
    found = aurc(cases)
    assert found["oracle"] == min(found.values()) and "disagreement" not in found


def test_cases_that_say_nothing_are_left_out():
    cases = [case("a", 1.0, uncertainty=0.0), case("failed", 0.0), case("b", 0.5, uncertainty=0.4)]
    assert [one.id for one in told(cases)] == ["a", "b"]
