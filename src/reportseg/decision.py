"""From logits to a mask: a temperature, then a rule; both are fitted on `dev` and stored in the bundle.

probability = sigmoid(logit / temperature), its mean over the film and its mirror where a bundle answers with flips. Two rules turn a
probability map into a mask:

- `fixed`: p >= threshold, one cut for all films. The Dice-optimal cut lies below 0.5 as a rule.
- `expected_dice`: per film the set of its k most probable pixels that maximises the expected Dice. For independent, calibrated pixels
  it is the ratio of expectations, E[Dice] ~ 2 * sum_{i<=k} p_i / (k + sum_j p_j), the usual approximation of the expected ratio (its
  error vanishes with the number of pixels). The optimum is always a cut of the map: at half of the expected Dice that is reached.

Shapes: H rows, W columns. Everything here is numpy and deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import InputError

Rule = Literal["fixed", "expected_dice"]
GRID = tuple(round(0.05 + 0.01 * i, 2) for i in range(91))  # 0.05 .. 0.95, the cuts that are tried on dev
LEVELS = 512  # probability levels of the expected-Dice rule: one level is 0.002, far below what calibration can promise
FLOOR = GRID[0]  # expected_dice never paints a pixel below this: a film without a target would otherwise be painted whole
_REACH, _BINS = 16.0, 2048  # fit() keeps each film as a histogram of its logits over [-16, 16]; 1/64 a bin
_PAIR_BINS = 512  # of each of two logits, for all films together; the temperature asks for no more
_MEAN_GAIN, _POOLED_LOSS = 0.002, 0.001  # expected_dice becomes the rule only for this gain on dev and at most this loss


@dataclass(frozen=True)
class Decision:
    """`threshold` is the cut of `fixed`; under `expected_dice` it records the best fixed cut and decides nothing."""

    rule: Rule = "fixed"
    threshold: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.rule not in ("fixed", "expected_dice"):
            raise InputError(f"there is no decision rule {self.rule!r}", "decision.rule", "Use fixed or expected_dice.", "decision")
        if not 0.0 < self.threshold < 1.0:
            raise InputError(f"{self.threshold} is not between 0 and 1", "decision.threshold", "Give a fraction such as 0.5.", "decision")
        if not (math.isfinite(self.temperature) and self.temperature > 0.0):
            raise InputError(f"{self.temperature} is not positive", "decision.temperature", "1 leaves the logits as they are.", "decision")


def calibrate(logits: ArrayLike, temperature: float = 1.0) -> NDArray[np.float32]:
    """Probabilities in [0, 1], same shape as `logits`: sigmoid(logit / temperature), without overflow."""
    half = np.asarray(logits, dtype=np.float32) * np.float32(0.5 / temperature)
    return np.asarray(0.5 * (1.0 + np.tanh(half)), dtype=np.float32)  # sigmoid(x) = (1 + tanh(x / 2)) / 2


def decide(prob_HW: NDArray[np.floating[Any]], decision: Decision) -> NDArray[np.bool_]:
    """The mask (H, W) of a calibrated probability map, under the rule of `decision`."""
    if decision.rule == "fixed":
        return np.asarray(prob_HW >= decision.threshold)
    if prob_HW.size == 0:
        return np.zeros(prob_HW.shape, dtype=bool)
    level_HW = np.minimum((np.asarray(prob_HW, dtype=np.float32) * LEVELS).astype(np.int32), LEVELS - 1)
    count = np.bincount(level_HW.ravel(), minlength=LEVELS)
    mass = np.bincount(level_HW.ravel(), weights=np.asarray(prob_HW, dtype=np.float64).ravel(), minlength=LEVELS)
    return np.asarray(level_HW >= best_level(count, mass))


def best_level(count: NDArray[Any], mass: NDArray[Any]) -> int:
    """Lowest level that belongs to the mask of highest expected Dice; `len(count)` where that mask is empty.

    `count[i]` pixels lie on level i and their probabilities add up to `mass[i]`; levels rise with the probability. The empty mask wins
    where the chance that no pixel at all is positive, prod(1 - p), is at least the best expected Dice: both empty counts as Dice 1.
    """
    picked, area = np.cumsum(mass[::-1])[::-1], np.cumsum(count[::-1])[::-1]
    total = float(picked[0])
    mean = mass / np.maximum(count, 1)
    expected = np.where((count > 0) & (mean >= FLOOR), 2.0 * picked / (area + total + 1e-12), -1.0)
    best = int(np.argmax(expected))
    if expected[best] < 0.0:
        return len(count)
    log_empty = float((count * np.log1p(-np.minimum(mean, 1.0 - 1e-7))).sum())
    return len(count) if math.exp(log_empty) >= expected[best] else best


def fit(
    logits: Iterable[ArrayLike], masks: Iterable[ArrayLike], mirrored: Iterable[ArrayLike] | None = None
) -> tuple[Decision, dict[str, Any]]:
    """Temperature, cut and rule from dev films, each a logit map (H, W) and its mask on the same grid; also the figures behind the choice.

    One pass, films of any size, 16 KiB a film: a film is kept as two histograms of its logits, inside and outside its mask, so cuts are
    exact to one bin (1/64 of a logit). `mirrored` are the logits of the mirrored films, mirrored back, whose probabilities are averaged
    with those of the films; then all maps are held. Temperature: least pixel NLL over all films. Cut: the highest dice_mean + dice_pooled
    over `GRID`, the one nearest 0.5 among equals. `expected_dice` becomes the rule only if dice_mean rises by 0.002 or more and
    dice_pooled falls by 0.001 or less against that cut.
    """
    centre = _centres(_BINS)
    if mirrored is None:
        inside, outside = _histograms(logits, masks)
        pixels: tuple[Any, ...] = ((centre,), inside.sum(0), outside.sum(0))
        temperature = _temperature(*pixels)
    else:
        pairs, masks = list(zip(logits, mirrored, strict=True)), list(masks)
        pixels = _pair_counts(pairs, masks)
        temperature = _temperature(*pixels)
        inside, outside = _histograms((_mean_logit(one, two, temperature) for one, two in pairs), masks)

    prob = 1.0 / (1.0 + np.exp(-centre / temperature))
    cuts = {c: np.full(len(inside), np.searchsorted(prob, c), dtype=np.int64) for c in GRID}
    scores = {c: _dice(inside, outside, cut) for c, cut in cuts.items()}
    threshold = max(GRID, key=lambda c: (round(sum(scores[c]), 9), -abs(c - 0.5), -c))
    count = inside + outside
    per_film = np.array([best_level(row, row * prob) for row in count.astype(np.float64)], dtype=np.int64)
    adaptive = _dice(inside, outside, per_film)
    fixed = scores[threshold]
    gain = adaptive[0] - fixed[0] >= _MEAN_GAIN and adaptive[1] - fixed[1] >= -_POOLED_LOSS
    decision = Decision("expected_dice" if gain else "fixed", threshold, round(temperature, 6))
    figures = {
        "n_films": len(inside),
        "nll_raw": _nll(1.0, *pixels),
        "nll": _nll(1.0 / temperature, *pixels),
        "at_half": _named(_dice(inside, outside, np.full(len(inside), _BINS // 2, dtype=np.int64))),
        "fixed": _named(fixed),
        "expected_dice": _named(adaptive),
    }
    return decision, figures


def _histograms(logits: Iterable[ArrayLike], masks: Iterable[ArrayLike]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts (films, bins) of logits inside and outside the mask."""
    inside: list[NDArray[np.int32]] = []
    outside: list[NDArray[np.int32]] = []
    for index, (logit, mask) in enumerate(zip(logits, masks, strict=True)):
        bins, y = _binned(index, logit, mask, _BINS)
        inside.append(np.bincount(bins[y], minlength=_BINS).astype(np.int32))
        outside.append(np.bincount(bins[~y], minlength=_BINS).astype(np.int32))
    if not inside:
        raise InputError("dev has no film, so no temperature and no cut can be fitted", "dev", "Give more training rows.", "empty_split")
    return np.stack(inside).astype(np.int64), np.stack(outside).astype(np.int64)


def _binned(index: int, logit: ArrayLike, mask: ArrayLike, bins: int) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The bin of each pixel's logit, and the mask."""
    x = np.squeeze(np.asarray(logit, dtype=np.float32))
    y = np.squeeze(np.asarray(mask)).astype(bool)
    if x.shape != y.shape:
        raise ValueError(f"film {index}: logits {x.shape} and mask {y.shape} are on different grids")
    if not np.isfinite(x).all():
        raise InputError(f"film {index} has logits that are not finite", "dev", "The training diverged; lower train.lr.", "not_finite")
    return np.clip((x + _REACH) * (bins / (2.0 * _REACH)), 0, bins - 1).astype(np.int32), y


def _centres(bins: int) -> NDArray[np.float64]:
    return np.asarray(-_REACH + (np.arange(bins) + 0.5) * (2.0 * _REACH / bins), dtype=np.float64)


def _pair_counts(
    pairs: Sequence[tuple[ArrayLike, ArrayLike]], masks: Sequence[ArrayLike]
) -> tuple[tuple[NDArray[Any], NDArray[Any]], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of binned logits that occur, and how many pixels inside and outside the masks have them."""
    counts = np.zeros((2, _PAIR_BINS**2), dtype=np.int64)
    for index, ((one, two), mask) in enumerate(zip(pairs, masks, strict=True)):
        (a, y), (b, _) = _binned(index, one, mask, _PAIR_BINS), _binned(index, two, mask, _PAIR_BINS)
        for row, part in ((0, y), (1, ~y)):
            counts[row] += np.bincount(a[part] * _PAIR_BINS + b[part], minlength=_PAIR_BINS**2)
    there = np.flatnonzero(counts.any(0))
    centre = _centres(_PAIR_BINS)
    return (centre[there // _PAIR_BINS], centre[there % _PAIR_BINS]), counts[0, there], counts[1, there]


def _mean_logit(one: ArrayLike, two: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """The logit whose calibrated probability is the mean of those of both."""
    z = [np.asarray(logit, dtype=np.float64) / temperature for logit in (one, two)]
    return np.asarray(temperature * (_surprise([-x for x in z]) - _surprise(z)), dtype=np.float64)


def _surprise(z: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """-log of the mean over one or two answers of sigmoid(z)."""
    terms = [np.logaddexp(0.0, -x) for x in z]
    return terms[0] if len(terms) == 1 else np.asarray(math.log(2.0) - np.logaddexp(-terms[0], -terms[1]))


def _nll(beta: float, centres: Sequence[NDArray[Any]], n_in: NDArray[Any], n_out: NDArray[Any]) -> float:
    """Mean pixel NLL of sigmoid(beta * logit), over binned logits; of its mean over two logits."""
    z = [beta * centre for centre in centres]
    loss = n_in * _surprise(z) + n_out * _surprise([-x for x in z])
    return float(loss.sum() / max(1, int(n_in.sum() + n_out.sum())))


def _temperature(centres: Sequence[NDArray[Any]], n_in: NDArray[Any], n_out: NDArray[Any], low: float = 0.1, high: float = 10.0) -> float:
    """Golden section over 1/temperature, in which the NLL of one answer is convex. Kept within [0.1, 10]: perfectly separated pixels would
    ask for 0.
    """
    if not n_in.any() or not n_out.any():
        return 1.0  # one class only: no temperature can be told from the other
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    a, b = 1.0 / high, 1.0 / low
    c, d = b - ratio * (b - a), a + ratio * (b - a)
    fc, fd = _nll(c, centres, n_in, n_out), _nll(d, centres, n_in, n_out)
    for _ in range(60):
        if fc <= fd:
            b, d, fd = d, c, fc
            c = b - ratio * (b - a)
            fc = _nll(c, centres, n_in, n_out)
        else:
            a, c, fc = c, d, fd
            d = a + ratio * (b - a)
            fd = _nll(d, centres, n_in, n_out)
    return 2.0 / (a + b)


def _dice(inside: NDArray[Any], outside: NDArray[Any], cut: NDArray[Any]) -> tuple[float, float]:
    """(mean, pooled) Dice when film i paints its bins >= cut[i]. Both empty is 1, one empty 0."""
    rows, columns = np.arange(len(inside))[:, None], np.minimum(cut, _BINS)[:, None]
    tail_in = np.concatenate([np.cumsum(inside[:, ::-1], axis=1)[:, ::-1], np.zeros((len(inside), 1), dtype=inside.dtype)], axis=1)
    tail_out = np.concatenate([np.cumsum(outside[:, ::-1], axis=1)[:, ::-1], np.zeros((len(inside), 1), dtype=inside.dtype)], axis=1)
    tp, fp = tail_in[rows, columns][:, 0], tail_out[rows, columns][:, 0]
    both = tp + fp + inside.sum(1)  # painted + true
    mean = float(np.where(both > 0, 2.0 * tp / np.maximum(both, 1), 1.0).mean())
    return mean, float(2.0 * tp.sum() / both.sum()) if both.sum() else 1.0


def _named(scores: tuple[float, float]) -> dict[str, float]:
    return {"dice_mean": scores[0], "dice_pooled": scores[1]}
