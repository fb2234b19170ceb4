"""Intervals and tests that respect patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from reportseg.errors import InputError
from reportseg.metrics import summarise
from reportseg.stats import (
    _Arm,
    align,
    bootstrap,
    bootstrap_rows,
    bootstrap_runs,
    clusters,
    film_means,
    holm,
    paired_bootstrap,
    paired_bootstrap_mean,
    paired_bootstrap_runs,
    wilcoxon_patients,
    wilcoxon_runs,
)
from reportseg.types import CaseScore


def case(id, patient="", tp=50, fp=10, fn=10, presence=None, present=True):
    union = tp + fp + fn
    dice = 2 * tp / (union + tp) if union else 1.0
    return CaseScore(
        id, patient, "text", tp, fp, fn, dice, tp / union if union else 1.0, float(fp), 1 / (1 + fn), presence, present, area_px=tp + fp
    )


def cohort(n_patients=60, films=3, seed=0, shift=0):
    """Films of one patient resemble one another; `shift` true pixels more are found in every film."""
    rng = np.random.default_rng(seed)
    cases = []
    for p in range(n_patients):
        level = rng.integers(100, 900)
        for f in range(films):
            tp = int(np.clip(level + rng.integers(-30, 30) + shift, 1, 1000))
            cases.append(case(f"{p}-{f}", f"p{p}", tp, int(rng.integers(20, 200)), 1000 - tp))
    return cases


def same(a, b):
    return a.keys() == b.keys() and all(a[name] == pytest.approx(b[name]) for name in a)


# ---------------------------------------------------------------- bootstrap


def test_an_interval_surrounds_its_score():
    cases = cohort()
    scores, intervals = summarise(cases), bootstrap(cases)
    assert set(intervals) == {name for name, value in scores.items() if value is not None}
    for name, (low, high) in intervals.items():
        assert low < scores[name] < high, name


def test_the_same_seed_gives_the_same_interval_in_any_order_of_the_cases():
    cases = cohort()
    assert same(bootstrap(cases, 200, seed=1), bootstrap(cases[::-1], 200, seed=1))
    assert bootstrap(cases, 200, seed=1) != bootstrap(cases, 200, seed=2)


def test_whole_patients_are_drawn():
    """Ten copies of each film tell nothing new when they are of the same patient."""
    one = [case(f"{p}", f"p{p}", tp=100 + p) for p in range(30)]
    ten = [replace(c, id=f"{c.id}-{i}") for c in one for i in range(10)]
    free = [replace(c, patient="") for c in ten]
    width = {name: b - a for name, (a, b) in ((k, bootstrap(v)["dice_mean"]) for k, v in {"1": one, "10": ten, "free": free}.items())}
    assert width["10"] == pytest.approx(width["1"])
    assert width["free"] < width["1"] / 2.5  # the square root of ten is 3.2


def test_the_width_is_that_of_the_mean_of_patients():
    values = np.random.default_rng(0).integers(100, 900, 400)
    low, high = bootstrap([case(str(i), f"p{i}", tp=int(v)) for i, v in enumerate(values)])["dice_mean"]
    dice = 2 * values / (2 * values + 20)
    assert high - low == pytest.approx(2 * 1.96 * dice.std() / 20, rel=0.1)


def test_pooled_scores_are_made_anew_from_summed_counts():
    """Three patients have 27 equally likely draws; the lowest and the highest have a share of 1/27 each, more than 2.5 %."""
    cases = [case("a", "p", 900, 10, 20), case("b", "q", 5, 50, 40), case("c", "r", 0, 300, 10)]
    pooled = []
    for draw in np.ndindex(3, 3, 3):
        tp, fp, fn = (sum(getattr(cases[i], k) for i in draw) for k in ("tp", "fp", "fn"))
        pooled.append(2 * tp / (2 * tp + fp + fn))
    assert bootstrap(cases)["dice_pooled"] == pytest.approx((min(pooled), max(pooled)))


def test_films_without_a_patient_are_their_own_clusters():
    assert clusters([case("a", "p"), case("b", "p"), case("c"), case("p")]) == ["patient p", "patient p", "film c", "film p"]


def test_the_formulas_are_those_of_the_metrics():
    """Under equal weights the scores are those of the whole set."""
    rng = np.random.default_rng(4)
    cases = [
        case(
            str(i),
            "p",
            *(int(v) for v in (rng.integers(0, 90, 3) * (i % 3 > 0))),
            presence=float(rng.integers(0, 5)) / 5,
            present=i % 4 > 0,
        )
        for i in range(40)
    ]
    scores, weighted = summarise(cases), _Arm(cases, clusters(cases), ["patient p"]).scores(np.full((1, 1), 3.0))
    assert set(weighted) == set(scores)
    for name, value in scores.items():
        assert weighted[name] == pytest.approx(value), name


def test_one_patient_has_no_interval():
    """However many films: each draw would be the same, and a point would pass for certainty."""
    cases = [case(str(i), "p", tp=10 * i) for i in range(9)]
    assert bootstrap(cases) == {} == paired_bootstrap(cases, cases)
    assert bootstrap([*cases, case("x", "q")])


def test_only_empty_pairs_have_a_pooled_dice_of_one():
    assert bootstrap([case(name, tp=0, fp=0, fn=0, present=False) for name in "ab"], n_boot=5)["dice_pooled"] == (1.0, 1.0)


def test_draws_that_hold_no_absent_target_are_left_out():
    cases = [case("a", presence=0.9), case("b", presence=0.2, present=False, tp=0, fp=0, fn=0)]
    intervals = bootstrap(cases, n_boot=50)
    assert intervals["absent_correct"] == (1.0, 1.0)
    assert intervals["presence_auroc"] == (1.0, 1.0)


def test_no_cases_no_intervals():
    assert bootstrap([]) == {}


def test_large_sets_are_drawn_in_portions(monkeypatch):
    whole = bootstrap(cohort(), 100)
    monkeypatch.setattr("reportseg.stats._CELLS", 1000)
    assert same(bootstrap(cohort(), 100), whole)


# ---------------------------------------------------------------- scores that no sums give


def mean_of(cases):
    return lambda rows: {"dice_mean": float(np.mean([cases[i].dice for i in rows]))}


def test_rows_are_drawn_as_sums_are():
    """In the same draws, with the films of a patient who came twice twice; in any order of the cases."""
    for cases in (cohort(20), cohort(20)[::-1], cohort(7, films=1), [replace(c, patient="") for c in cohort(7)]):
        drawn = bootstrap_rows(cases, mean_of(cases), 200, seed=3)
        assert drawn.keys() == {"dice_mean"} and drawn["dice_mean"] == pytest.approx(bootstrap(cases, 200, seed=3)["dice_mean"])


def test_rows_are_those_of_whole_patients():
    """Ten copies of each film tell nothing new when they are of the same patient."""
    one = [case(f"{p}", f"p{p}", tp=100 + p) for p in range(30)]
    ten = [replace(c, id=f"{c.id}-{i}") for c in one for i in range(10)]
    free = [replace(c, patient="") for c in ten]
    width = [high - low for low, high in (bootstrap_rows(cases, mean_of(cases), 300)["dice_mean"] for cases in (one, ten, free))]
    assert width[1] == pytest.approx(width[0]) and width[2] < width[0] / 2.5


def test_a_draw_of_rows_that_does_not_tell_a_score_is_left_out_and_one_patient_has_no_interval():
    cases = [case("a", "p"), case("b", "q")]
    assert bootstrap_rows(cases, lambda rows: {"both": 1.0, **({"first": 2.0} if 0 in rows else {})}, 50) == {
        "both": (1.0, 1.0),
        "first": (2.0, 2.0),
    }
    assert bootstrap_rows([replace(c, patient="p") for c in cases], mean_of(cases)) == {}


# ---------------------------------------------------------------- pairs


def test_a_paired_difference_is_sharper_than_two_intervals():
    a, b = cohort(shift=10), cohort()
    value, low, high = paired_bootstrap(a, b)["dice_mean"]
    assert value == pytest.approx(summarise(a)["dice_mean"] - summarise(b)["dice_mean"])
    assert 0 < low < value < high
    alone = bootstrap(a)["dice_mean"]
    assert high - low < (alone[1] - alone[0]) / 5


def test_both_arms_get_the_same_draws():
    """Against itself every draw differs by nothing."""
    assert set(paired_bootstrap(cohort(), cohort()).values()) == {(0.0, 0.0, 0.0)}


def test_pairs_are_matched_by_id_and_turning_them_turns_the_sign():
    a, b = cohort(shift=5), cohort()
    forth, back = paired_bootstrap(a, b[::-1], 300), paired_bootstrap(b, a, 300)
    assert same(forth, paired_bootstrap(a, b, 300))
    for name, (value, low, high) in forth.items():
        assert back[name] == pytest.approx((-value, -high, -low)), name


def test_different_cases_cannot_be_paired():
    a = cohort()
    for b in (a[1:], [*a[1:], replace(a[0], id="x")], []):
        with pytest.raises(InputError, match="not on the same cases") as caught:
            paired_bootstrap(a, b)
        assert caught.value.code == "cases_differ"


def test_a_case_given_twice_cannot_be_paired():
    a = cohort(2)
    with pytest.raises(InputError, match="cases"):
        align(a, [*a[:-1], a[0], a[-1]])


def test_a_score_that_one_arm_lacks_has_no_difference():
    a = [case("a", presence=0.9), case("b", presence=0.1, present=False)]
    b = [replace(c, presence=None) for c in a]
    assert "presence_auroc" not in paired_bootstrap(a, b, 20)


def test_the_mean_of_several_pairs():
    a, b, c = cohort(shift=30), cohort(), cohort(seed=3)
    both = paired_bootstrap_mean([(a, b), (a, c)], 200)
    alone = [paired_bootstrap(a, other, 5)["dice_pooled"][0] for other in (b, c)]
    assert both["dice_pooled"][0] == pytest.approx(sum(alone) / 2)
    assert same(paired_bootstrap_mean([(a, b), (a, b)], 200), paired_bootstrap(a, b, 200))


def test_pairs_may_cover_different_cases():
    a, b = cohort(shift=30), cohort()
    value, low, high = paired_bootstrap_mean([(a[3:], b[3:]), (a[:-3], b[:-3])], 200)["dice_mean"]
    assert 0 < low < value < high
    assert paired_bootstrap_mean([(a, b), ([], [])], 200) == paired_bootstrap(a, b, 200)
    assert paired_bootstrap_mean([]) == {}


# ---------------------------------------------------------------- seeds


def alike(*tps):
    """One run per number: two patients whose films score the same, so that nothing but the seed can vary."""
    return [[case("a", "p", tp=tp), case("b", "q", tp=tp)] for tp in tps]


def dice(tp):
    return 2 * tp / (2 * tp + 20)


def test_one_run_is_a_method_of_one_seed():
    a, b = cohort(shift=10), cohort()
    assert bootstrap_runs([a], 200) == bootstrap(a, 200)
    assert paired_bootstrap_runs([a], [b], same_seeds=True, n_boot=200) == paired_bootstrap(a, b, 200)


def test_one_patient_has_no_interval_whatever_the_seeds():
    a, b = ([[case("a", "p", tp=tp), case("b", "p", tp=5)] for tp in tps] for tps in ((20, 50, 90), (30, 40, 50)))
    assert bootstrap_runs(a) == paired_bootstrap_runs(a, b, same_seeds=True) == {}


def test_from_three_on_seeds_are_drawn_too():
    """Three seeds have 27 equally likely draws; the lowest and the highest have a share of 1/27 each, more than 2.5 %."""
    assert bootstrap_runs(alike(20, 50, 90))["dice_pooled"] == pytest.approx((dice(20), dice(90)))


def test_two_seeds_are_averaged_and_not_drawn():
    mean = (dice(20) + dice(90)) / 2
    assert bootstrap_runs(alike(20, 90))["dice_mean"] == pytest.approx((mean, mean))


def test_seeds_widen_what_patients_alone_give():
    runs = [cohort(seed=0, shift=shift) for shift in (-60, 0, 60)]
    both, patients = bootstrap_runs(runs)["dice_mean"], bootstrap(runs[1])["dice_mean"]
    assert both[1] - both[0] > 1.2 * (patients[1] - patients[0])


def test_the_value_of_a_difference_is_that_of_the_means():
    a, b = alike(20, 50, 90), alike(30)
    value, low, high = paired_bootstrap_runs(a, b, same_seeds=False)["dice_mean"]
    assert value == pytest.approx((dice(20) + dice(50) + dice(90)) / 3 - dice(30))
    assert (low, high) == pytest.approx((dice(20) - dice(30), dice(90) - dice(30)))


def test_equal_seeds_are_drawn_together():
    """Where both methods rise and fall together the difference is sure; by themselves the seeds are not."""
    a, b = alike(20, 50, 90), alike(20, 50, 90)
    assert paired_bootstrap_runs(a, b, same_seeds=True)["dice_mean"] == pytest.approx((0, 0, 0))
    value, low, high = paired_bootstrap_runs(a, b, same_seeds=False)["dice_mean"]
    assert value == pytest.approx(0)
    assert low < -0.1
    assert high > 0.1


def test_runs_are_drawn_in_portions(monkeypatch):
    a, b = [cohort(seed=s, shift=20) for s in range(3)], [cohort(seed=s) for s in range(3)]
    whole = paired_bootstrap_runs(a, b, same_seeds=True, n_boot=100)
    monkeypatch.setattr("reportseg.stats._CELLS", 1000)
    assert same(paired_bootstrap_runs(a, b, same_seeds=True, n_boot=100), whole)


def test_a_film_s_mean_is_over_its_seeds_whatever_their_order():
    a = [[case("a", tp=20), case("b", tp=50)], [case("b", tp=90), case("a", tp=30)]]
    assert film_means(a, a[0]) == pytest.approx([(dice(20) + dice(30)) / 2, (dice(50) + dice(90)) / 2])
    with pytest.raises(InputError, match="not on the same cases"):
        film_means([a[0], a[1][:1]], a[0])


def test_wilcoxon_of_runs_is_made_on_the_means_over_seeds():
    a, b = [cohort(seed=s, shift=10) for s in range(3)], [cohort(seed=s) for s in range(3)]
    assert wilcoxon_runs(a, b) < 1e-6
    assert wilcoxon_runs(a, [a[2], a[0], a[1]]) == 1.0
    assert wilcoxon_runs([a[0]], [b[0]], "nsd") == wilcoxon_patients(a[0], b[0], "nsd")


# ---------------------------------------------------------------- tests


def test_wilcoxon_is_made_on_patient_means():
    a, b = cohort(shift=10), cohort()
    p = wilcoxon_patients(a, b)
    assert p < 1e-6
    # ten copies of each film are no new evidence
    more_a, more_b = ([replace(c, id=f"{c.id}/{i}") for c in arm for i in range(10)] for arm in (a, b))
    assert wilcoxon_patients(more_a, more_b) == pytest.approx(p)
    assert wilcoxon_patients(b, a[::-1]) == pytest.approx(p)
    assert wilcoxon_patients(a, b, "iou") < 1e-6


def test_wilcoxon_against_a_hand_count():
    """Five patients, all better: the exact two-sided p is 2 / 2^5."""
    a = [case(str(i), f"p{i}", tp=60 + i) for i in range(5)]
    b = [case(str(i), f"p{i}", tp=50 - 3 * i) for i in range(5)]
    assert wilcoxon_patients(a, b) == pytest.approx(2 / 32)


def test_no_difference_is_no_evidence():
    assert wilcoxon_patients(cohort(), cohort()) == 1.0


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
