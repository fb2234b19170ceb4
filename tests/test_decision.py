"""Temperature and cut: what the fit promises on dev, and what a rule paints."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportseg.decision import FLOOR, GRID, Decision, calibrate, decide, fit
from reportseg.errors import InputError


def blob_films(n: int, temperature: float, seed: int = 0, size: int = 48):
    """Films whose true pixels are drawn from sigmoid(logit): logits are calibrated, then multiplied by `temperature`."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    for _ in range(n):
        cy, cx, radius = rng.uniform(10, size - 10, 2).tolist() + [rng.uniform(5, 14)]
        logit = (radius - np.hypot(rows - cy, columns - cx)) / 2.0
        mask = rng.random((size, size)) < 1.0 / (1.0 + np.exp(-logit))
        yield (logit * temperature).astype(np.float32), mask


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum()) if a.any() or b.any() else 1.0


def test_calibrate_is_the_sigmoid_and_does_not_overflow():
    logits = np.array([-1e4, -2.0, 0.0, 2.0, 1e4], dtype=np.float32)
    with np.errstate(all="raise"):
        prob = calibrate(logits, 2.0)
    assert prob.dtype == np.float32
    np.testing.assert_allclose(prob, [0.0, 1 / (1 + np.e), 0.5, np.e / (1 + np.e), 1.0], atol=1e-7)


def test_fixed_rule_includes_its_threshold():
    assert decide(np.array([[0.29, 0.3, 0.31]]), Decision("fixed", 0.3)).tolist() == [[False, True, True]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.06, 0.99), min_size=12, max_size=40), st.floats(0.3, 3.0))
def test_expected_dice_reaches_the_brute_force_optimum(values, power):
    prob = np.array(values, dtype=np.float32)[None] ** power
    mask = decide(prob, Decision("expected_dice"))
    total = float(prob.sum())

    def expected(painted: np.ndarray) -> float:
        return 2.0 * float(prob[painted].sum()) / (float(painted.sum()) + total)

    order = np.argsort(-prob.ravel())
    best = (
        max(expected(np.isin(np.arange(prob.size), order[: k + 1])[None]) for k in range(prob.size) if prob.ravel()[order[k]] >= FLOOR)
        if prob.max() >= FLOOR
        else 0.0
    )
    if mask.any():
        assert expected(mask) >= best - 0.005  # one level of 1/512 may hold several pixels
        assert prob[mask].min() >= prob[~mask].max(initial=0.0)  # always a cut of the map
    else:
        assert np.prod(1.0 - prob.astype(np.float64)) >= best - 0.005  # an empty film is the likelier answer


def test_expected_dice_cuts_a_doubtful_film_lower_than_a_sure_one():
    sure, doubtful = np.full((8, 8), 0.02, np.float32), np.full((8, 8), 0.02, np.float32)
    sure[:4], doubtful[:4] = 0.95, 0.40
    sure[4], doubtful[4] = 0.30, 0.30
    rule = Decision("expected_dice")
    assert not decide(sure, rule)[4].any()
    assert decide(doubtful, rule)[:5].all() and not decide(doubtful, rule)[5:].any()


@pytest.mark.parametrize("level", [0.0, 1e-6, 0.001, 0.02])
def test_expected_dice_leaves_an_empty_film_empty(level):
    assert not decide(np.full((64, 64), level, np.float32), Decision("expected_dice")).any()


def test_expected_dice_of_no_pixel_and_of_one():
    rule = Decision("expected_dice")
    assert decide(np.zeros((0, 3), np.float32), rule).shape == (0, 3)
    assert decide(np.array([[0.9]], np.float32), rule).all() and not decide(np.array([[0.1]], np.float32), rule).any()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_fit_finds_the_temperature_that_the_logits_were_made_with(temperature):
    logits, masks = zip(*blob_films(40, temperature), strict=True)
    decision, figures = fit(logits, masks)
    assert decision.temperature == pytest.approx(temperature, rel=0.05)
    assert figures["nll"] <= figures["nll_raw"] and figures["n_films"] == 40
    assert decision.threshold in GRID


def test_fit_figures_are_those_that_the_rules_really_give():
    films = list(blob_films(25, 1.7, seed=3))
    decision, figures = fit((x for x, _ in films), (y for _, y in films))
    for rule, name in (("fixed", "fixed"), ("expected_dice", "expected_dice")):
        rule_decision = Decision(rule, decision.threshold, decision.temperature)
        painted = [decide(calibrate(x, decision.temperature), rule_decision) for x, _ in films]
        mean = np.mean([dice(a, y) for a, (_, y) in zip(painted, films, strict=True)])
        pooled = dice(np.concatenate(painted), np.concatenate([y for _, y in films]))
        assert figures[name]["dice_mean"] == pytest.approx(mean, abs=2e-3)
        assert figures[name]["dice_pooled"] == pytest.approx(pooled, abs=2e-3)
    assert sum(figures["fixed"].values()) >= sum(figures["at_half"].values()) - 1e-9
    assert fit((x for x, _ in films), (y for _, y in films)) == (decision, figures)  # deterministic


def test_the_adaptive_rule_is_chosen_only_when_it_pays():
    sure = [(np.where(y, 9.0, -9.0).astype(np.float32), y) for _, y in blob_films(10, 1.0)]
    assert fit(*zip(*sure, strict=True))[0].rule == "fixed"
    # Films of two kinds: bold ones where a high cut is best, faint ones where all of the target lies at p = 0.3.
    mixed = []
    for index, (_, y) in enumerate(blob_films(30, 1.0, seed=5)):
        rng = np.random.default_rng(index)
        prob = np.where(rng.random(y.shape) < 0.5, 0.3, 0.02) if index % 2 else np.where(rng.random(y.shape) < 0.5, 0.95, 0.3)
        mixed.append((np.log(prob / (1 - prob)).astype(np.float32), rng.random(y.shape) < prob))
    decision, figures = fit(*zip(*mixed, strict=True))
    gain = figures["expected_dice"]["dice_mean"] - figures["fixed"]["dice_mean"]
    loss = figures["fixed"]["dice_pooled"] - figures["expected_dice"]["dice_pooled"]
    assert (decision.rule == "expected_dice") == (gain >= 0.002 and loss <= 0.001)
    assert decision.rule == "expected_dice"


def test_films_without_a_target_keep_the_fit_finite():
    blank = [(np.full((16, 16), -3.0, np.float32), np.zeros((16, 16), bool))] * 3
    decision, figures = fit(*zip(*blank, strict=True))
    assert decision.temperature == 1.0 and figures["fixed"]["dice_mean"] == 1.0


def test_what_cannot_be_fitted_says_why():
    with pytest.raises(InputError, match="no film"):
        fit([], [])
    with pytest.raises(InputError, match="not finite"):
        fit([np.array([[np.nan]])], [np.array([[True]])])
    with pytest.raises(ValueError, match="different grids"):
        fit([np.zeros((4, 4))], [np.zeros((4, 5), bool)])
    for bad in ({"rule": "median"}, {"threshold": 0.0}, {"temperature": 0.0}, {"temperature": float("nan")}):
        with pytest.raises(InputError):
            Decision(**bad)


def test_a_film_and_its_mirror_are_calibrated_by_the_mean_of_their_probabilities():
    films = list(blob_films(25, 1.7, seed=3))
    rng = np.random.default_rng(0)
    one = [x + rng.normal(0, 1, x.shape).astype(np.float32) for x, _ in films]
    two = [x + rng.normal(0, 1, x.shape).astype(np.float32) for x, _ in films]
    masks = [y for _, y in films]
    decision, figures = fit(one, masks, two)

    def nll(temperature: float) -> float:
        prob = [(calibrate(a, temperature).astype(np.float64) + calibrate(b, temperature)) / 2 for a, b in zip(one, two, strict=True)]
        return float(np.mean([-np.log(np.where(y, p, 1 - p)).mean() for p, y in zip(prob, masks, strict=True)]))

    assert figures["nll"] == pytest.approx(nll(decision.temperature), abs=1e-3)
    assert figures["nll_raw"] == pytest.approx(nll(1.0), abs=1e-3)
    assert nll(decision.temperature) <= min(nll(decision.temperature * 0.9), nll(decision.temperature * 1.1)), "the least of all"
    prob = [(calibrate(a, decision.temperature) + calibrate(b, decision.temperature)) / 2 for a, b in zip(one, two, strict=True)]
    painted = [decide(p, Decision("fixed", decision.threshold)) for p in prob]
    assert figures["fixed"]["dice_mean"] == pytest.approx(np.mean([dice(a, y) for a, y in zip(painted, masks, strict=True)]), abs=2e-3)


def test_a_mirror_that_says_the_same_changes_nothing():
    logits, masks = zip(*blob_films(15, 1.4, seed=1), strict=True)
    alone, with_it = fit(logits, masks)[0], fit(logits, masks, logits)[0]
    assert with_it.temperature == pytest.approx(alone.temperature, rel=0.01)
    assert (with_it.threshold, with_it.rule) == (pytest.approx(alone.threshold, abs=0.011), alone.rule)
    with pytest.raises(InputError, match="not finite"):
        fit([np.zeros((1, 1))], [np.array([[True]])], [np.array([[np.nan]])])
