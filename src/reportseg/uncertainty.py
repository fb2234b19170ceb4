"""How sure an answer is, and what that is worth: figures of one film first, then what they tell about a set of films.

Of one film:

- `expected_dice`: the Dice to expect of a mask if its calibrated probabilities are right. `uncertainty` is 1 minus that; every answer has
  it, but for one that the text alone has settled.
- `spread`: where several answers were averaged (film and mirror, several bundles), the standard deviation of their calibrated
  probabilities at each pixel, in [0, 0.5]: 0 where all say the same, 0.5 where one half says no and the other yes.
- `disagreement`: 1 minus the mean Dice of those answers' own masks with the mask of their average, in [0, 1].

Of a set: cases are answered in the order of a measure, the surest first, and the others rejected. At coverage k/n the *selective risk* is
the mean of 1 - Dice over the k surest; the AURC is its mean over k = 1..n, lower is better. Equal values have no order: their cases count
with the mean of their risks. `random` is the AURC of no order at all, which is the mean risk, `oracle` that of the true risk; `area`
rejects the smallest predicted masks first. Where a measure says nothing of a case, it is rejected first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .types import CaseScore

Mask = NDArray[np.bool_]
Array = NDArray[np.float64]
MEASURES = ("uncertainty", "disagreement", "area")


def expected_dice(prob_HW: NDArray[Any], mask_HW: Mask) -> float:
    """Dice to expect of `mask_HW` where pixels are independent and `prob_HW` calibrated: 2 sum_mask p / (|mask| + sum p).

    Of an empty mask it is the chance that the truth is empty as well, prod(1 - p): both empty counts as Dice 1.
    """
    area = int(np.count_nonzero(mask_HW))
    if not area:
        return math.exp(float(np.log1p(-np.minimum(prob_HW.astype(np.float64), 1.0 - 1e-7)).sum()))
    inside, whole = (float(part.sum(dtype=np.float64)) for part in (prob_HW[mask_HW], prob_HW))
    return min(1.0, 2.0 * inside / (area + whole))


def spread(views: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Standard deviation over probability maps (H, W) of one film, in [0, 0.5]."""
    mean = sum(view.astype(np.float64) for view in views) / len(views)
    square = sum((view - mean) ** 2 for view in views) / len(views)
    return np.sqrt(square).clip(0.0, 0.5).astype(np.float32)


def disagreement(masks: Sequence[Mask], mask_HW: Mask) -> float:
    """1 minus the mean Dice of `masks` with `mask_HW`; two empty ones agree."""
    dice = []
    for one in masks:
        both = int(np.count_nonzero(one)) + int(np.count_nonzero(mask_HW))
        dice.append(2 * int(np.count_nonzero(one & mask_HW)) / both if both else 1.0)
    return max(0.0, 1.0 - sum(dice) / len(dice))


# ---------------------------------------------------------------- of a set of cases


def told(cases: Sequence[CaseScore]) -> list[CaseScore]:
    """The cases whose answer says how sure it is: none that failed, and none whose text denies."""
    return [case for case in cases if case.uncertainty is not None]


def measures(cases: Sequence[CaseScore]) -> dict[str, Array]:
    """Each measure that is known, a value a case, higher is less sure; infinite for a case of which it is not known."""
    found = {"uncertainty": [case.uncertainty for case in cases], "disagreement": [case.disagreement for case in cases]}
    known = {name: values for name, values in found.items() if any(value is not None for value in values)}
    columns = {name: np.array([math.inf if value is None else value for value in values]) for name, values in known.items()}
    return columns | {"area": np.array([-float(case.area_px) for case in cases])}


def selective_risk(risk_N: Array, measure_N: Array) -> Array:
    """Mean risk of the k surest cases, k = 1..N."""
    group_N = np.unique(measure_N, return_inverse=True)[1]  # cases of equal value, the surest first
    count = np.bincount(group_N)
    risk = np.repeat(np.bincount(group_N, risk_N) / count, count)
    return np.asarray(np.cumsum(risk) / np.arange(1, len(risk) + 1))


def curves(cases: Sequence[CaseScore]) -> dict[str, Array]:
    """The selective risk at coverage k/N of every measure, of `random` and of `oracle`."""
    risk = np.array([1.0 - case.dice for case in cases])
    orders = measures(cases) | {"random": np.zeros(len(cases)), "oracle": risk}
    return {name: selective_risk(risk, values) for name, values in orders.items()}


def aurc(cases: Sequence[CaseScore]) -> dict[str, float]:
    """The mean of each of `curves`, in [0, 1]."""
    return {name: float(curve.mean()) for name, curve in curves(cases).items()}
