"""Scores of masks: counts of one case first, then what a set of cases adds up to.

Two conventions are in use and both are always given: *pooled* (the pixels of all cases in one Dice) and *mean* (the mean over cases of the
Dice). Distances run between borders. A border pixel is a pixel of the mask with a neighbour (of four) outside it; beyond the image is
outside. From each border pixel of one mask the Euclidean distance to the nearest border pixel of the other is taken:

- HD95: the larger of the two directed 95th percentiles, each interpolated linearly between ranks.
- NSD (normalised surface Dice): the share of the border pixels of both masks, taken together, at most `TOLERANCE` away.

Shapes: H rows, W columns. Scores are fractions; distances are in mm where the spacing is known, else in pixels.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .schemas.metrics import Counts
from .types import CaseScore

Mask = NDArray[np.bool_]
Floats = NDArray[np.floating]

TOLERANCE = 2.0  # of the NSD, mm or px
BINS = 15  # of the calibration error, equal in width
BORDER_PX = 10  # how far from a true border a pixel still counts for ece_border
EMPTY_POLICY = (
    "Dice, IoU and NSD: both empty 1, one empty 0. HD95: both empty 0, one empty the image diagonal. "
    "A case that could not be read counts as an empty prediction."
)


def score_case(
    id: str,
    patient: str,
    pred_HW: Mask,
    truth_HW: Mask,
    *,
    text_name: str = "",
    spacing_mm: tuple[float, ...] | None = None,
    presence: float | None = None,
    warnings: Sequence[str] = (),
) -> CaseScore:
    """One prediction against the truth on the same grid, a film's or a volume's (S, H, W), where voxels are counted for pixels.

    `spacing_mm` is that of (row, column), or of (slice, row, column); without it distances are in pixels.
    """
    if pred_HW.shape != truth_HW.shape:
        raise ValueError(f"{id}: prediction {pred_HW.shape} and truth {truth_HW.shape} are on different grids")
    tp = int(np.count_nonzero(pred_HW & truth_HW))
    area, true_area = int(np.count_nonzero(pred_HW)), int(np.count_nonzero(truth_HW))
    fp, fn = area - tp, true_area - tp
    dice, iou = overlap(tp, fp, fn)
    hd95, nsd = _border_scores(pred_HW, truth_HW, spacing_mm or (1.0,) * pred_HW.ndim)
    return CaseScore(
        id=id,
        patient=patient,
        text_name=text_name,
        tp=tp,
        fp=fp,
        fn=fn,
        dice=dice,
        iou=iou,
        hd95=hd95,
        nsd=nsd,
        presence=presence,
        present_truth=true_area > 0,
        area_px=area,
        warnings=tuple(warnings),
    )


def overlap(tp: int, fp: int, fn: int) -> tuple[float, float]:
    """(Dice, IoU) of counted pixels, in [0, 1]; 1 where both masks are empty."""
    union = tp + fp + fn
    return (2 * tp / (union + tp), tp / union) if union else (1.0, 1.0)


def _border_scores(pred_HW: Mask, truth_HW: Mask, spacing: tuple[float, ...]) -> tuple[float, float]:
    """(HD95, NSD)."""
    if not pred_HW.any() or not truth_HW.any():
        if pred_HW.any() or truth_HW.any():
            return math.hypot(*(side * step for side, step in zip(pred_HW.shape, spacing, strict=True))), 0.0
        return 0.0, 1.0
    from scipy.spatial import KDTree  # over the few border pixels: faster than a distance transform of the whole grid, and as exact

    pred, truth = (np.argwhere(border(mask)) * np.asarray(spacing) for mask in (pred_HW, truth_HW))
    to_truth, to_pred = KDTree(truth).query(pred)[0], KDTree(pred).query(truth)[0]
    near = np.count_nonzero(to_truth <= TOLERANCE) + np.count_nonzero(to_pred <= TOLERANCE)
    hd95 = max(np.percentile(to_truth, 95), np.percentile(to_pred, 95))
    return float(hd95), float(near / (len(pred) + len(truth)))


def border(mask: Mask) -> Mask:
    """The pixels of the mask that have one of their four neighbours outside it; in a volume the voxels, one of six."""
    padded = np.pad(mask, 1)
    inner = np.ones_like(mask)
    for axis in range(mask.ndim):
        for first in (0, 2):
            inner &= padded[tuple(slice(first, first + side) if a == axis else slice(1, 1 + side) for a, side in enumerate(mask.shape))]
    return mask & ~inner


def summarise(cases: Sequence[CaseScore]) -> dict[str, float | None]:
    """The scores of a set of cases; None for what cannot be told (no case, no absent target, no presence)."""
    if not cases:
        return dict.fromkeys(("dice_pooled", "iou_pooled", "dice_mean", "iou_mean", "hd95", "nsd", "absent_correct", "presence_auroc"))
    tp, fp, fn = (sum(counts) for counts in zip(*((c.tp, c.fp, c.fn) for c in cases), strict=True))
    absent = [c.area_px == 0 for c in cases if not c.present_truth]
    dice_pooled, iou_pooled = overlap(tp, fp, fn)
    return {
        "dice_pooled": dice_pooled,
        "iou_pooled": iou_pooled,
        "dice_mean": float(np.mean([c.dice for c in cases])),
        "iou_mean": float(np.mean([c.iou for c in cases])),
        "hd95": float(np.mean([c.hd95 for c in cases])),
        "nsd": float(np.mean([c.nsd for c in cases])),
        "absent_correct": sum(absent) / len(absent) if absent else None,
        "presence_auroc": _auroc(cases),
    }


def _auroc(cases: Sequence[CaseScore]) -> float | None:
    """The chance that a present target gets the higher presence than an absent one; a tie counts half. None with one kind only."""
    present = np.array([c.presence for c in cases if c.presence is not None and c.present_truth])
    absent = np.sort([c.presence for c in cases if c.presence is not None and not c.present_truth])
    if not len(present) or not len(absent):
        return None
    wins = np.searchsorted(absent, present, "left") + np.searchsorted(absent, present, "right")
    return float(wins.sum() / (2 * len(present) * len(absent)))


def count_policy(cases: Sequence[CaseScore]) -> Counts:
    """How many cases met the policy on empty masks, and how many could not be read (warning `failed`)."""
    return Counts(
        both_empty=sum(c.area_px == 0 and not c.present_truth for c in cases),
        truth_only=sum(c.area_px == 0 and c.present_truth for c in cases),
        pred_only=sum(c.area_px > 0 and not c.present_truth for c in cases),
        failed=sum("failed" in c.warnings for c in cases),
    )


def cases_sha256(items: Iterable[tuple[str, Mask]]) -> str:
    """The hash of (id, true mask) pairs: results with an equal hash were scored on the same cases and may be paired.

    Per case the line `id<TAB>hex`, where hex is the sha256 of the mask's bits in row order, eight to a byte, the first pixel in the highest
    bit, the last byte filled up with zeros (`numpy.packbits(mask)`). The lines are sorted, joined by a newline without a last one, and the
    sha256 of these ASCII bytes is the answer.
    """
    lines = sorted(f"{id}\t{hashlib.sha256(np.packbits(mask_HW).tobytes()).hexdigest()}" for id, mask_HW in items)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# ---------------------------------------------------------------- calibration


def border_band(truth_HW: Mask) -> Mask:
    """The pixels at most BORDER_PX pixels away from a border pixel of the truth, on both sides of it."""
    from scipy.ndimage import distance_transform_edt

    band = np.zeros(truth_HW.shape, dtype=bool)
    if not truth_HW.any():
        return band
    rows, columns = (np.flatnonzero(truth_HW.any(axis)) for axis in (1, 0))
    near = np.s_[
        max(0, rows[0] - BORDER_PX) : rows[-1] + BORDER_PX + 1,
        max(0, columns[0] - BORDER_PX) : columns[-1] + BORDER_PX + 1,
    ]
    band[near] = distance_transform_edt(~border(truth_HW)[near]) <= BORDER_PX
    return band


class Calibration:
    """Expected calibration error over pixels: do the pixels that got a probability of 0.3 turn out positive in 3 of 10?

    Per bin of probability the absolute difference between its mean and the share of positive pixels, weighted by the bin's pixels.
    `add` films one by one, or `merge` what other films gave.
    """

    def __init__(self) -> None:
        self.sums = np.zeros((2, 3, BINS))  # (all pixels, border pixels) x (pixels, sum of probabilities, positive pixels) x bins

    def add(self, prob_HW: Floats, truth_HW: Mask, band_HW: Mask | None = None) -> None:
        """`band_HW` is `border_band(truth_HW)`, for callers who have it already."""
        band = border_band(truth_HW) if band_HW is None else band_HW
        prob, truth = prob_HW.astype(np.float64).ravel(), truth_HW.ravel()
        bins = np.minimum((prob * BINS).astype(np.intp), BINS - 1)
        for row, of in enumerate((np.ones(len(bins), dtype=bool), band.ravel())):
            at = bins[of]
            self.sums[row] += [np.bincount(at, None, BINS), np.bincount(at, prob[of], BINS), np.bincount(bins[of & truth], None, BINS)]

    def merge(self, other: Calibration) -> None:
        """Adds the counts of other films."""
        self.sums += other.sums

    @property
    def ece(self) -> float | None:
        """Over all pixels, in [0, 1]; None without pixels."""
        return self._ece(0)

    @property
    def ece_border(self) -> float | None:
        """Over the pixels within BORDER_PX of a true border; None without such pixels."""
        return self._ece(1)

    @property
    def bins(self) -> list[tuple[float, float, int]]:
        """Per bin with pixels in it: mean probability, share of positive pixels, pixels."""
        return [(float(p / n), float(t / n), int(n)) for n, p, t in self.sums[0].T if n]

    def _ece(self, row: int) -> float | None:
        count, confidence, positive = self.sums[row]
        total = count.sum()
        return float(min(1.0, np.abs(confidence - positive).sum() / total)) if total else None
