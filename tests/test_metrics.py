"""Scores against hand-computed cases and, where the definitions agree, against MONAI."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportseg.metrics import (
    BINS,
    BORDER_PX,
    TOLERANCE,
    Calibration,
    border,
    border_band,
    cases_sha256,
    count_policy,
    score_case,
    summarise,
)


def box(shape, rows, columns):
    mask = np.zeros(shape, dtype=bool)
    mask[slice(*rows), slice(*columns)] = True
    return mask


def blob(rng, size=48, noise=0.0):
    """An ellipse, with some pixels turned over."""
    y, x = np.mgrid[:size, :size]
    cy, cx, ry, rx = *rng.uniform(8, size - 8, 2), *rng.uniform(4, 14, 2)
    return (((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1) ^ (rng.random((size, size)) < noise)


EMPTY = np.zeros((30, 40), dtype=bool)
SQUARE = box((30, 40), (10, 20), (10, 20))


# ---------------------------------------------------------------- one case


def test_counts_come_first_and_scores_follow():
    case = score_case("a", "p", box((30, 40), (10, 20), (15, 25)), SQUARE, text_name="text", presence=0.7, warnings=["negated"])
    assert (case.tp, case.fp, case.fn, case.area_px) == (50, 50, 50, 100)
    assert case.dice == 0.5
    assert case.iou == pytest.approx(1 / 3)
    assert (case.id, case.patient, case.text_name, case.presence, case.warnings) == ("a", "p", "text", 0.7, ("negated",))
    assert case.present_truth


def test_a_perfect_answer():
    case = score_case("a", "", SQUARE, SQUARE)
    assert (case.dice, case.iou, case.hd95, case.nsd) == (1.0, 1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("pred", "truth", "dice", "hd95", "nsd"),
    [(EMPTY, EMPTY, 1.0, 0.0, 1.0), (EMPTY, SQUARE, 0.0, 50.0, 0.0), (SQUARE, EMPTY, 0.0, 50.0, 0.0)],
)
def test_the_policy_on_empty_masks(pred, truth, dice, hd95, nsd):
    case = score_case("a", "", pred, truth)
    assert (case.dice, case.iou, case.hd95, case.nsd) == (dice, dice, hd95, nsd)  # the diagonal of 30 x 40 is 50


def test_the_diagonal_is_in_millimetres_where_the_spacing_is_known():
    assert score_case("a", "", EMPTY, SQUARE, spacing_mm=(4.0, 4.0)).hd95 == 200.0


def test_shifted_square_by_hand():
    """10 x 10 pixels, shifted by three columns: 36 border pixels each, and by symmetry each sees the other alike."""
    case = score_case("a", "", box((30, 40), (10, 20), (13, 23)), SQUARE)
    assert case.hd95 == 3.0
    outer = 10  # the side that sticks out, corners included, is 3 px away
    inner = 4  # of the 8 pixels inside the other square, rows 13 to 16 are 3 px from any of its sides, the others 1 or 2 from top or bottom
    assert case.nsd == pytest.approx((36 - outer - inner) / 36)


def test_spacing_is_row_then_column():
    truth, down, right = box((40, 40), (10, 20), (10, 20)), box((40, 40), (14, 24), (10, 20)), box((40, 40), (10, 20), (14, 24))
    assert score_case("a", "", down, truth, spacing_mm=(0.5, 3.0)).hd95 == pytest.approx(2.0)
    assert score_case("a", "", right, truth, spacing_mm=(0.5, 3.0)).hd95 > 4.0  # the nearest way is over the rows
    assert score_case("a", "", down, truth, spacing_mm=(0.5, 3.0)).nsd == 1.0  # 4 rows of 0.5 mm are within 2 mm
    assert score_case("a", "", down, truth).nsd < 1.0  # 4 px are not within 2 px


def test_masks_that_touch_the_edge_of_the_image_have_a_border_there():
    full = np.ones((12, 12), dtype=bool)
    assert border(full).sum() == 44
    assert score_case("a", "", full, full).hd95 == 0.0


def test_one_pixel_images():
    one = np.ones((1, 1), dtype=bool)
    assert score_case("a", "", one, one).dice == 1.0
    assert score_case("a", "", ~one, one).hd95 == pytest.approx(math.sqrt(2))


def test_different_grids_are_our_own_mistake():
    with pytest.raises(ValueError, match="different grids"):
        score_case("a", "", EMPTY, EMPTY.T)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_scores_are_symmetric_and_within_bounds(seed):
    rng = np.random.default_rng(seed)
    a, b = blob(rng, 32, 0.05), blob(rng, 32, 0.0)
    one, other = score_case("a", "", a, b), score_case("a", "", b, a)
    assert (one.dice, one.iou, one.hd95, one.nsd) == pytest.approx((other.dice, other.iou, other.hd95, other.nsd))
    assert one.iou == pytest.approx(one.dice / (2 - one.dice))
    assert 0 <= one.nsd <= 1
    assert 0 <= one.hd95 <= 32 * math.sqrt(2)


# ---------------------------------------------------------------- MONAI as an oracle


@pytest.mark.parametrize("spacing", [None, (0.7, 2.5)])
def test_against_monai(spacing):
    """MONAI 1.6.1 (any from 1.5 on): DiceMetric and MeanIoU (ignore_empty=False), compute_hausdorff_distance (percentile=95, euclidean,
    undirected) and compute_surface_dice (threshold 2, use_subvoxels=False), one channel with include_background=True.
    It agrees wherever neither mask is empty, and on Dice and IoU of empty ones."""
    torch, monai = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")

    rng = np.random.default_rng(5)
    for index in range(12):
        pred, truth = blob(rng, noise=0.02 * (index % 3)), blob(rng)
        case = score_case("a", "", pred, truth, spacing_mm=spacing)
        p, t = (torch.from_numpy(m)[None, None].float() for m in (pred, truth))
        assert case.dice == pytest.approx(monai.DiceMetric(include_background=True, ignore_empty=False)(p, t).item(), abs=1e-6)
        assert case.iou == pytest.approx(monai.MeanIoU(include_background=True, ignore_empty=False)(p, t).item(), abs=1e-6)
        hd95 = monai.compute_hausdorff_distance(p, t, include_background=True, percentile=95, spacing=spacing)
        assert case.hd95 == pytest.approx(hd95.item(), rel=1e-5)
        nsd = monai.compute_surface_dice(p, t, [TOLERANCE], include_background=True, spacing=spacing)
        assert case.nsd == pytest.approx(nsd.item(), abs=1e-6)


def test_monai_on_empty_masks():
    torch, monai = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    e, s = (torch.from_numpy(m)[None, None].float() for m in (EMPTY, SQUARE))
    dice = monai.DiceMetric(include_background=True, ignore_empty=False)
    assert [dice(*pair).item() for pair in ((e, e), (e, s), (s, e))] == [1.0, 0.0, 0.0]


def test_distances_against_brute_force():
    rng = np.random.default_rng(3)
    pred, truth = blob(rng, noise=0.01), blob(rng)
    a, b = (np.argwhere(border(m)) * np.array([0.5, 1.5]) for m in (pred, truth))
    distance = np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))
    directed = [np.percentile(distance.min(1), 95), np.percentile(distance.min(0), 95)]
    assert score_case("a", "", pred, truth, spacing_mm=(0.5, 1.5)).hd95 == pytest.approx(max(directed))


# ---------------------------------------------------------------- many cases


def test_pooled_and_mean_are_two_conventions():
    big, small = box((100, 100), (0, 50), (0, 50)), box((100, 100), (90, 94), (90, 94))
    cases = [score_case("a", "", big, big), score_case("b", "", np.zeros_like(small), small)]
    scores = summarise(cases)
    assert scores["dice_mean"] == 0.5
    assert scores["iou_mean"] == 0.5
    assert scores["dice_pooled"] == pytest.approx(5000 / 5016)
    assert scores["iou_pooled"] == pytest.approx(2500 / 2516)
    assert scores["dice_pooled"] == pytest.approx(2 * scores["iou_pooled"] / (1 + scores["iou_pooled"]))
    assert scores["hd95"] == pytest.approx(math.hypot(100, 100) / 2)
    assert scores["absent_correct"] is None


def test_nothing_to_find_and_nothing_found_is_right():
    scores = summarise([score_case("a", "", EMPTY, EMPTY)])
    assert (scores["dice_pooled"], scores["iou_pooled"], scores["dice_mean"], scores["absent_correct"]) == (1.0, 1.0, 1.0, 1.0)


def test_no_cases_no_scores():
    assert set(summarise([]).values()) == {None}
    assert set(summarise([])) == set(summarise([score_case("a", "", EMPTY, EMPTY)]))


def test_absent_targets_and_the_policy_are_counted():
    cases = [
        score_case("a", "", EMPTY, EMPTY),
        score_case("b", "", SQUARE, EMPTY),
        score_case("c", "", EMPTY, SQUARE, warnings=["failed"]),
        score_case("d", "", SQUARE, SQUARE),
    ]
    counts = count_policy(cases)
    assert (counts.both_empty, counts.pred_only, counts.truth_only, counts.failed) == (1, 1, 1, 1)
    assert summarise(cases)["absent_correct"] == 0.5


def with_presence(values):
    return [score_case(str(i), "", EMPTY, SQUARE if truth else EMPTY, presence=p) for i, (p, truth) in enumerate(values)]


def test_presence_auroc_counts_ties_as_half():
    assert summarise(with_presence([(0.9, 1), (0.1, 0)]))["presence_auroc"] == 1.0
    assert summarise(with_presence([(0.5, 1), (0.5, 0)]))["presence_auroc"] == 0.5
    # of the six pairs: 0.8 beats 0.5, 0.5, 0.2; 0.5 ties twice and beats 0.2
    assert summarise(with_presence([(0.8, 1), (0.5, 1), (0.5, 0), (0.5, 0), (0.2, 0)]))["presence_auroc"] == pytest.approx(5 / 6)


@pytest.mark.parametrize("values", [[(0.9, 1)], [(None, 1), (None, 0)], [(0.3, 0), (None, 1)]])
def test_presence_auroc_needs_both_kinds(values):
    assert summarise(with_presence(values))["presence_auroc"] is None


# ---------------------------------------------------------------- the hash of the cases


def test_cases_sha256_by_its_definition():
    mask = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1]], dtype=bool)
    bits = bytes([0b10100011, 0b10000000])
    line = "a\t" + hashlib.sha256(bits).hexdigest()
    other = "b\t" + hashlib.sha256(b"\0").hexdigest()
    expected = hashlib.sha256(f"{line}\n{other}".encode()).hexdigest()
    assert cases_sha256([("a", mask), ("b", np.zeros((2, 4), dtype=bool))]) == expected
    assert cases_sha256(iter([("b", np.zeros((2, 4), dtype=bool)), ("a", mask)])) == expected  # the order is no matter


def test_cases_sha256_tells_masks_and_ids_apart():
    hashes = {cases_sha256([("a", SQUARE)]), cases_sha256([("b", SQUARE)]), cases_sha256([("a", EMPTY)]), cases_sha256([])}
    assert len(hashes) == 4
    assert cases_sha256([("a", SQUARE.T.copy().T)]) == cases_sha256([("a", SQUARE)])  # the layout in memory is no matter


# ---------------------------------------------------------------- calibration


def test_calibration_by_hand():
    prob = np.array([[0.1, 0.1, 0.1, 0.1], [0.9, 0.9, 0.9, 0.9]])
    truth = np.array([[0, 0, 0, 1], [1, 1, 1, 1]], dtype=bool)
    calibration = Calibration()
    calibration.add(prob, truth)
    # bin of 0.1: a quarter is positive, off by 0.15; bin of 0.9: all are, off by 0.1
    assert calibration.ece == pytest.approx((0.15 + 0.1) / 2)
    assert [(round(c, 6), round(f, 6), n) for c, f, n in calibration.bins] == [(0.1, 0.25, 4), (0.9, 1.0, 4)]
    assert calibration.ece_border == calibration.ece  # every pixel of so small a film is near the border


def test_certain_and_right_is_calibrated():
    calibration = Calibration()
    calibration.add(SQUARE.astype(np.float32), SQUARE)
    assert (calibration.ece, calibration.ece_border) == (0.0, 0.0)


def test_nothing_seen_has_no_error():
    assert (Calibration().ece, Calibration().ece_border, Calibration().bins) == (None, None, [])


def test_a_film_without_target_has_no_border():
    calibration = Calibration()
    calibration.add(np.full(EMPTY.shape, 0.2, dtype=np.float32), EMPTY)
    assert calibration.ece == pytest.approx(0.2)
    assert calibration.ece_border is None


def test_the_band_reaches_ten_pixels_to_both_sides():
    truth = box((120, 120), (40, 100), (40, 100))
    band = border_band(truth)
    assert band[70, 40 - BORDER_PX]
    assert not band[70, 40 - BORDER_PX - 1]
    assert band[70, 40 + BORDER_PX]
    assert not band[70, 40 + BORDER_PX + 1]
    assert not band[30, 30]  # 10 rows and 10 columns from the corner: 14 px away
    y, x = np.mgrid[:120, :120]
    edge = np.argwhere(border(truth))
    near = np.min([(y - r) ** 2 + (x - c) ** 2 for r, c in edge], axis=0) <= BORDER_PX**2
    assert (band == near).all()


def test_the_border_band_sees_what_the_whole_film_hides():
    truth = box((200, 200), (90, 110), (90, 110))
    prob = np.where(border_band(truth), 0.5, 0.0) + np.where(truth, 0.4, 0.0)
    calibration = Calibration()
    calibration.add(prob, truth)
    assert calibration.ece_border > 5 * calibration.ece


def test_films_add_up_in_any_order():
    rng = np.random.default_rng(0)
    films = [(rng.random((20, 20)).astype(np.float32), blob(rng, 20)) for _ in range(3)]
    whole, merged = Calibration(), Calibration()
    for prob, truth in films:
        whole.add(prob, truth)
    for prob, truth in reversed(films):
        part = Calibration()
        part.add(prob, truth, border_band(truth))
        merged.merge(part)
    assert merged.ece == pytest.approx(whole.ece)
    assert merged.ece_border == pytest.approx(whole.ece_border)
    assert sum(n for _, _, n in whole.bins) == 1200
    assert len(whole.bins) == BINS


def test_ece_against_a_loop():
    rng = np.random.default_rng(1)
    prob, truth = rng.random((50, 50)), rng.random((50, 50)) < 0.4
    calibration = Calibration()
    calibration.add(prob, truth)
    expected = 0.0
    for i in range(BINS):
        inside = (prob >= i / BINS) & ((prob < (i + 1) / BINS) | (i == BINS - 1))
        expected += abs(prob[inside].mean() - truth[inside].mean()) * inside.mean()
    assert calibration.ece == pytest.approx(expected)
