"""Two methods film by film: how often one wins, where they differ most, and these films side by side.

Shapes: N cases in one order, H,W the grid of the true mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .io import read_image
from .metrics import score_case
from .pictures import overlay_png
from .schemas.comparison import FilmDifference
from .scoring import MaskSource, read_truth
from .types import CaseScore, Sample

TIE = 0.01  # films whose Dice differs by no more are a tie
EACH = 3  # films of greatest gain that are listed, and as many of greatest loss
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PairPicture:
    """A film under two methods, each with its mask in orange and the truth in blue. `dice` is that of the run that is shown."""

    id: str
    sentence: str
    reference_png: bytes
    reference_dice: float
    png: bytes
    dice: float


@dataclass(frozen=True)
class Shown:
    """The run whose masks stand for a method: its folder of `<id>.png`, and its scores by id."""

    masks: Path
    cases: Mapping[str, CaseScore]


def win_tie_loss(difference_N: Floats) -> tuple[int, int, int]:
    """Of Dice minus the reference's Dice."""
    win, loss = (int(np.count_nonzero(sign * difference_N > TIE + 1e-9)) for sign in (1, -1))
    return win, len(difference_N) - win - loss, loss


def furthest(ids: Sequence[str], dice_N: Floats, reference_N: Floats, able_N: NDArray[np.bool_]) -> list[FilmDifference]:
    """Up to `EACH` films of greatest gain, then as many of greatest loss, ties left out. Of films that are not `able` none is taken."""
    difference_N = dice_N - reference_N
    rows = sorted(np.flatnonzero(able_N & (np.abs(difference_N) > TIE + 1e-9)).tolist(), key=lambda i: (-abs(difference_N[i]), ids[i]))
    gains, losses = [i for i in rows if difference_N[i] > 0], [i for i in rows if difference_N[i] < 0]
    return [FilmDifference(id=ids[i], dice=float(dice_N[i]), reference=float(reference_N[i])) for i in (*gains[:EACH], *losses[:EACH])]


def draw_pairs(films: Sequence[FilmDifference], samples: Mapping[str, Sample], one: Shown, reference: Shown) -> list[PairPicture]:
    """The films under both methods. InputError no_masks, masks_differ, unknown_case, and those of reading films and masks."""
    pairs = []
    for film in films:
        if film.id not in samples:
            raise InputError(f"the manifest has no case {film.id!r}", "--data", "Name the manifest that was evaluated.", "unknown_case")
        sample = samples[film.id]
        image_HWC, truth_HW = read_image(sample.image).pixels_HWC, read_truth(sample)
        drawn = []
        for shown in (reference, one):
            case, mask_HW = shown.cases[film.id], _mask(shown, sample, truth_HW)
            drawn.append((overlay_png(image_HWC, mask_HW, truth_HW), case.dice))
        pairs.append(PairPicture(film.id, sample.text, *drawn[0], *drawn[1]))
    return pairs


def _mask(shown: Shown, sample: Sample, truth_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The saved mask, which must be the one that was scored."""
    if not shown.masks.is_dir():
        fix = "Evaluate again with --save-masks, or leave out --data."
        raise InputError("this evaluation has no masks to show", shown.masks.parent, fix, "no_masks")
    mask_HW = MaskSource(shown.masks).read(sample, (truth_HW.shape[0], truth_HW.shape[1]))
    case = shown.cases[sample.id]
    again = score_case(sample.id, "", mask_HW, truth_HW)
    if (again.tp, again.fp, again.fn) != (case.tp, case.fp, case.fn):
        file = shown.masks / f"{sample.id}.png"
        raise InputError("this is not the mask that was scored", file, "Evaluate again with --save-masks.", "masks_differ")
    return mask_HW
