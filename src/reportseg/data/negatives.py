"""Absent targets and one side of two, made from reports that name sides.

A report of one lung says that the other is free: asked for the other side, its film has an empty mask. A report of both lungs, asked for
one, keeps the part of the mask that lies there. Both hold only where mask and sentence agree without a remainder. So a film gives such
prompts only if its text names all that is to be seen (`complete`, and no second row of the same image), affirms it, says whose left it
means, has no side word that cannot be swapped, and if no part of its mask crosses the middle of the film or lies on a side not named.

The prompts are in the data's own words: the sentence with its sides exchanged, or the clauses of one side alone ("lower right lung"). A
clause is a unit that the text encoder meets at every step. A sentence that would have to be made up ("unilateral ..." for one lung of two)
is never asked: it would be false. Both wordings occur with a target and without, else the wording would give the answer away.

Shapes: H,W the grid of a mask, native or cached: halves are halves on both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..text import SIDES, can_swap, clauses, is_negated, swap_sides, zones
from ..types import Sample

Mask = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class Prompt:
    """Another question about a film, in the words of its data set, and the mask that answers it."""

    text: str
    mask_HW: Mask


def tells_all(samples: Sequence[Sample]) -> list[bool]:
    """Per row whether its text tells all that its film shows, so that its silence about a side means that nothing is there."""
    rows = Counter(sample.image for sample in samples)
    return [sample.complete and rows[sample.image] == 1 for sample in samples]


def named_sides(sample: Sample) -> frozenset[str]:
    """The sides that the text places its finding on; none where it names no side, denies, or cannot be turned to the other one."""
    if not sample.present or sample.laterality == "none" or not can_swap(sample.text) or is_negated(sample.text):
        return frozenset()
    sides = frozenset(side for side, _ in zones(sample.text))
    return sides if sides <= set(SIDES) else frozenset()


def opposite(sample: Sample, mask_HW: Mask) -> str | None:
    """The sentence for the other side, where the mask of a one-sided report lies wholly on the half that it names; else None."""
    sides = named_sides(sample)
    if len(sides) != 1:
        return None
    (side,) = sides
    area = np.count_nonzero(mask_HW)
    wholly = area > 0 and np.count_nonzero(_half(mask_HW, side, sample)) == area
    return swap_sides(sample.text) if wholly else None


def opposites(samples: Sequence[Sample], read_mask: Callable[[Sample], Mask]) -> list[str | None]:
    """Per row the sentence for the other side, None where there is none. A mask is only read where the text alone does not decide."""
    told = tells_all(samples)
    return [opposite(sample, read_mask(sample)) if told[i] and len(named_sides(sample)) == 1 else None for i, sample in enumerate(samples)]


def prompts(sample: Sample, mask_HW: Mask) -> list[Prompt]:
    """All that this film can be asked beside its own sentence. The caller has asked `tells_all`."""
    sides = named_sides(sample)
    if len(sides) == 1:
        swapped = opposite(sample, mask_HW)
        if swapped is None:
            return []
        (side,) = sides
        nothing = np.zeros_like(mask_HW)
        asked = [(swapped, nothing), (about(swapped, _other(side)), nothing), (about(sample.text, side), mask_HW)]
    elif len(sides) == 2:
        parts = {side: _components_on(mask_HW, side, sample) for side in SIDES}
        if not all(part.any() for part in parts.values()) or (np.logical_or(*parts.values()) != mask_HW).any():
            return []
        asked = [(about(sample.text, side), part) for side, part in parts.items()]
    else:
        return []
    return [Prompt(text, mask) for text, mask in asked if text is not None]


def check_negatives(samples: Sequence[Sample], masks_NHW: NDArray[np.uint8], share: float) -> None:
    """InputError no_negatives where prompts for the other side are asked for and no film allows one. `masks_NHW[i]` is that of row i."""
    told = tells_all(samples)
    if share > 0 and not any(told[i] and opposite(sample, masks_NHW[i].astype(bool)) for i, sample in enumerate(samples)):
        what = "no film can be asked for its other side: none has a text of one side with a mask wholly on that half of the film"
        fix = "Set data.negatives to 0; or look at laterality, which says whose left is meant, with `reportseg data verify`."
        raise InputError(what, "data.negatives", fix, "no_negatives")


def about(text: str, side: str) -> str | None:
    """The shortest run of clauses that says of this side what the whole sentence says of it, and of the other nothing.

    "Two infected areas, upper left lung and lower right lung." gives "lower right lung" for the right. None where no run does.
    """
    wanted = {zone for zone in zones(text) if zone[0] == side}
    spans = clauses(text)
    runs = [(first, last) for i, (first, _) in enumerate(spans) for _, last in spans[i:]]
    for first, last in sorted(runs, key=lambda run: run[1] - run[0]):
        if wanted and zones(text[first:last]) == wanted:
            return text[first:last]
    return None


def _half(map_HW: NDArray[T], side: str, sample: Sample) -> NDArray[T]:
    """The half of the film that the text means by `side`, a view; the middle column of an odd width is in neither."""
    width = map_HW.shape[1]
    left_of_image = (side == "left") == (sample.laterality == "image")
    return map_HW[:, : width // 2] if left_of_image else map_HW[:, width - width // 2 :]


def _components_on(mask_HW: Mask, side: str, sample: Sample) -> Mask:
    """The connected parts of the mask that lie wholly on this half."""
    from scipy.ndimage import label

    parts_HW, n = label(mask_HW)
    inside, all_of_it = (np.bincount(parts.ravel(), minlength=n + 1) for parts in (_half(parts_HW, side, sample), parts_HW))
    wholly = inside == all_of_it
    wholly[0] = False
    kept: Mask = wholly[parts_HW]
    return kept


def _other(side: str) -> str:
    return SIDES[1 - SIDES.index(side)]
