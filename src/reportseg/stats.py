"""Intervals and tests that respect patients: films of one patient are not independent, so whole patients are drawn.

In each of `n_boot` draws as many patients as there are come back with replacement. Pooled scores are made anew from the summed TP, FP and
FN of the draw, mean scores from its cases. Intervals run from the 2.5th to the 97.5th percentile. A film without a patient is its own
cluster: where there are such films the interval is a lower bound. Draws depend only on the seed and the patients, so two arms on the same
cases get the same ones. Of a method that was trained with `MIN_SEEDS` seeds or more, seeds are drawn together with the patients.

Shapes: N cases, C clusters (patients), D draws, K sums, S seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .types import CaseScore

Array = NDArray[np.float64]
Runs = Sequence[Sequence[CaseScore]]  # of one method, one for each seed, all on the same cases
N_BOOT = 2000
MIN_SEEDS = 3  # fewer cannot tell how much a method varies from seed to seed
_CELLS = 4_000_000  # weights held at once: 32 MB


def bootstrap(cases: Sequence[CaseScore], n_boot: int = N_BOOT, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The 95 % interval of every score that `metrics.summarise` can tell of these cases; none for fewer than two clusters."""
    every = sorted(set(clusters(cases)))
    if len(every) < 2:
        return {}
    arm = _Arm(cases, clusters(cases), every)
    drawn = _collect(arm.scores(weights) for weights in _draws(len(every), n_boot, seed))
    return {name: _interval(values) for name, values in drawn.items() if not np.isnan(values).all()}


def paired_bootstrap(
    a: Sequence[CaseScore], b: Sequence[CaseScore], n_boot: int = N_BOOT, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Score of `a` minus score of `b`: (value, lower, upper), the same draws for both. InputError cases_differ unless their ids agree."""
    return paired_bootstrap_mean([(a, b)], n_boot, seed)


def paired_bootstrap_mean(
    pairs: Sequence[tuple[Sequence[CaseScore], Sequence[CaseScore]]], n_boot: int = N_BOOT, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """The mean of several paired differences, e.g. a model minus each of five shuffled runs: one draw serves all of them.

    The pairs may cover different cases of the same patients. In a draw the mean is over the pairs that have a case in it. Nothing for
    fewer than two clusters: every draw would be the same, and its interval a point.
    """
    aligned = [(a, align(a, b)) for a, b in pairs if a or b]  # an empty pair says nothing
    every = sorted({label for a, _ in aligned for label in clusters(a)})
    if len(every) < 2:
        return {}
    arms = [(_Arm(a, clusters(a), every), _Arm(b, clusters(a), every)) for a, b in aligned]

    def difference(weights_DC: Array) -> dict[str, Array]:
        return _mean([_minus(a.scores(weights_DC), b.scores(weights_DC)) for a, b in arms])

    value = difference(np.ones((1, len(every))))
    drawn = _collect(map(difference, _draws(len(every), n_boot, seed)))
    told = [name for name in value if not (np.isnan(value[name]).all() or np.isnan(drawn[name]).all())]
    return {name: (float(value[name][0]), *_interval(drawn[name])) for name in told}


def bootstrap_runs(runs: Runs, n_boot: int = N_BOOT, seed: int = 0) -> dict[str, tuple[float, float]]:
    """The 95 % interval of the mean over the seeds; none for fewer than two clusters.

    Fewer than `MIN_SEEDS` are not drawn: the interval is then about these very runs.
    """
    if len(set(clusters(runs[0]))) < 2:
        return {}
    drawn = _drawn_runs([runs], n_boot, seed, same_seeds=False)[0]
    return {name: _interval(values) for name, values in drawn.items() if not np.isnan(values).all()}


def paired_bootstrap_runs(
    a: Runs, b: Runs, *, same_seeds: bool, n_boot: int = N_BOOT, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Mean over the seeds of `a` minus that of `b`: (value, lower, upper), the same patients for both in each draw.

    `same_seeds` says that run i of both had the same seed: they are then drawn together, else each method's seeds by themselves.
    Nothing for fewer than two clusters. InputError cases_differ unless all ids agree.
    """
    if len(set(clusters(a[0]))) < 2:
        return {}
    value = _minus(*_drawn_runs([a, b], 0, seed, same_seeds=same_seeds))
    drawn = _minus(*_drawn_runs([a, b], n_boot, seed, same_seeds=same_seeds))
    told = [name for name in value if not (np.isnan(value[name]).all() or np.isnan(drawn[name]).all())]
    return {name: (float(value[name][0]), *_interval(drawn[name])) for name in told}


def bootstrap_rows(
    cases: Sequence[CaseScore], scores: Callable[[Sequence[int]], dict[str, float]], n_boot: int = N_BOOT, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """The 95 % interval of scores that no sums over cases give; none for fewer than two clusters.

    `scores` gets the rows of a draw, a case of a patient who came twice twice.
    """
    labels = clusters(cases)
    every = sorted(set(labels))
    if len(every) < 2:
        return {}
    place = {name: i for i, name in enumerate(every)}
    cluster_N = np.array([place[label] for label in labels], dtype=np.intp)
    weights = (row for weights_DC in _draws(len(every), n_boot, seed) for row in weights_DC[:, cluster_N].astype(np.intp))
    drawn = [scores(np.repeat(np.arange(len(cases)), times).tolist()) for times in weights]
    return {name: _interval(np.array([one[name] for one in drawn if name in one])) for name in scores(range(len(cases)))}


def align(a: Sequence[CaseScore], b: Sequence[CaseScore]) -> list[CaseScore]:
    """`b` in the order of `a`. InputError cases_differ unless both hold the same ids, each once."""
    by_id = {case.id: case for case in b}
    missing, extra = {c.id for c in a} - by_id.keys(), by_id.keys() - {c.id for c in a}
    if missing or extra or len(a) != len(b):
        example = f", e.g. {min(missing | extra)}" if missing or extra else ""
        what = f"the two results are not on the same cases: {len(a)} and {len(b)}, {len(missing | extra)} in one of them only{example}"
        raise InputError(what, fix="Evaluate both on the same split of the same manifest.", code="cases_differ")
    return [by_id[case.id] for case in a]


def clusters(cases: Sequence[CaseScore]) -> list[str]:
    """What is drawn together, per case: the patient, or the film itself where no patient is known."""
    return [f"patient {c.patient}" if c.patient else f"film {c.id}" for c in cases]


def wilcoxon_patients(a: Sequence[CaseScore], b: Sequence[CaseScore], score: str = "dice") -> float:
    """Two-sided p of Wilcoxon's signed-rank test on patient means of `score` (dice, iou, hd95, nsd). 1 where no patient differs."""
    return wilcoxon_runs([a], [b], score)


def wilcoxon_runs(a: Runs, b: Runs, score: str = "dice") -> float:
    """The same on each film's mean over the seeds. It is about patients: what another seed would have given it cannot tell."""
    from scipy.stats import wilcoxon

    labels = np.unique(clusters(a[0]), return_inverse=True)[1]
    difference = film_means(a, a[0], score) - film_means(b, a[0], score)
    means = np.bincount(labels, difference) / np.bincount(labels)
    means = np.round(means, 12)  # the same sum in another order is no difference
    return float(wilcoxon(means).pvalue) if means.any() else 1.0


def film_means(runs: Runs, order: Sequence[CaseScore], score: str = "dice") -> Array:
    """`score` of each film in the order of `order`, mean over the seeds. InputError cases_differ unless all ids agree."""
    values_SN = np.array([[getattr(case, score) for case in align(order, run)] for run in runs], dtype=np.float64)
    return np.asarray(values_SN.mean(axis=0))


def holm(ps: Sequence[float]) -> list[float]:
    """p values adjusted for the family they form (Holm's step-down), in the given order."""
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


# ---------------------------------------------------------------- scores of weighted cases


class _Arm:
    """One result, ready to be scored under any weights of its clusters."""

    def __init__(self, cases: Sequence[CaseScore], labels: Sequence[str], every: Sequence[str]) -> None:
        """`labels` is the cluster of each case, `every` all clusters that are drawn; the order of the weights is theirs."""
        place = {name: i for i, name in enumerate(every)}
        self.cluster_N = np.array([place[label] for label in labels], dtype=np.intp)
        table_NK = np.array(
            [
                (c.tp, c.fp, c.fn, c.dice, c.iou, c.hd95, c.nsd, not c.present_truth and c.area_px == 0, not c.present_truth, 1)
                for c in cases
            ],
            dtype=np.float64,
        )
        self.sums_CK = np.zeros((len(every), table_NK.shape[1]))
        np.add.at(self.sums_CK, self.cluster_N, table_NK)
        self.presence_N = np.array([np.nan if c.presence is None else c.presence for c in cases], dtype=np.float64)
        self.present_N = np.array([c.present_truth for c in cases], dtype=bool)

    def scores(self, weights_DC: Array) -> dict[str, Array]:
        """Each score in each draw, NaN where it cannot be told. The same formulas as `metrics.summarise`, which a test compares."""
        tp, fp, fn, dice, iou, hd95, nsd, absent_right, absent, n = (weights_DC @ self.sums_CK).T
        any_pixel, some = tp + fp + fn > 0, n > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            return {
                "dice_pooled": np.where(some & ~any_pixel, 1.0, 2 * tp / (2 * tp + fp + fn)),
                "iou_pooled": np.where(some & ~any_pixel, 1.0, tp / (tp + fp + fn)),
                "dice_mean": dice / n,
                "iou_mean": iou / n,
                "hd95": hd95 / n,
                "nsd": nsd / n,
                "absent_correct": absent_right / absent,
                "presence_auroc": self._auroc(weights_DC),
            }

    def _auroc(self, weights_DC: Array) -> Array:
        told = ~np.isnan(self.presence_N)
        if not told.any():
            return np.full(len(weights_DC), np.nan)
        order = np.flatnonzero(told)[np.argsort(self.presence_N[told])]
        starts = np.flatnonzero(np.diff(self.presence_N[order], prepend=-np.inf))  # where a new value of presence begins
        weights_DN = weights_DC[:, self.cluster_N[order]]
        present = np.add.reduceat(weights_DN * self.present_N[order], starts, axis=1)
        absent = np.add.reduceat(weights_DN * ~self.present_N[order], starts, axis=1)
        below = np.cumsum(absent, axis=1) - absent
        wins = (present * (below + absent / 2)).sum(1)
        return np.asarray(wins / (present.sum(1) * absent.sum(1)))


def _drawn_runs(methods: Sequence[Runs], n_boot: int, seed: int, *, same_seeds: bool) -> list[dict[str, Array]]:
    """Per method the mean over its seeds in each draw; with `n_boot` 0 in one draw, which is everything as it is."""
    first = methods[0][0]
    labels = clusters(first)
    every = sorted(set(labels))
    arms = [[_Arm(align(first, run), labels, every) for run in runs] for runs in methods]
    rng = np.random.default_rng([seed, MIN_SEEDS])  # not the stream of the patients
    seeds: list[Array] = []
    for runs in methods:
        seeds.append(seeds[0] if seeds and same_seeds else _seed_weights(len(runs), n_boot, rng))
    parts: list[list[dict[str, Array]]] = [[] for _ in methods]
    done = 0
    for weights_DC in _draws(len(every), n_boot, seed) if n_boot else [np.ones((1, len(every)))]:
        rows = slice(done, done + len(weights_DC))
        done = rows.stop
        for part, own, weights_DS in zip(parts, arms, seeds, strict=True):
            scores = [arm.scores(weights_DC) for arm in own]
            part.append({name: np.sum(weights_DS[rows].T * np.stack([s[name] for s in scores]), axis=0) for name in scores[0]})
    return [_collect(part) for part in parts]


def _seed_weights(n_seeds: int, n_boot: int, rng: np.random.Generator) -> Array:
    """The share of each seed in each draw, (D, S)."""
    if not n_boot or n_seeds < MIN_SEEDS:
        return np.full((max(n_boot, 1), n_seeds), 1 / n_seeds)
    picked_DS = rng.integers(n_seeds, size=(n_boot, n_seeds))
    return np.asarray((picked_DS[:, :, None] == np.arange(n_seeds)).mean(axis=1))


def _draws(n_clusters: int, n_boot: int, seed: int) -> Iterator[Array]:
    """How often each cluster comes in each draw, (D, C), in portions that fit the memory."""
    rng = np.random.default_rng(seed)
    step = max(1, _CELLS // n_clusters)
    for first in range(0, n_boot, step):
        rows = min(step, n_boot - first)
        picked = rng.integers(n_clusters, size=(rows, n_clusters)) + n_clusters * np.arange(rows)[:, None]
        yield np.bincount(picked.ravel(), minlength=rows * n_clusters).reshape(rows, n_clusters).astype(np.float64)


def _collect(portions: Iterable[dict[str, Array]]) -> dict[str, Array]:
    parts = list(portions)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _minus(a: dict[str, Array], b: dict[str, Array]) -> dict[str, Array]:
    return {name: a[name] - b[name] for name in a}


def _mean(differences: Sequence[dict[str, Array]]) -> dict[str, Array]:
    """Over the pairs that could be scored; NaN where none could."""
    out = {}
    for name in differences[0]:
        values = np.stack([d[name] for d in differences])
        count = (~np.isnan(values)).sum(0)
        out[name] = np.where(count > 0, np.nansum(values, 0) / np.maximum(count, 1), np.nan)
    return out


def _interval(values: Array) -> tuple[float, float]:
    """A draw that holds nothing to score says nothing and is left out."""
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)
