"""The cases that a report shows: best, median and worst, each film with the prediction and the truth on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from .errors import InputError
from .io import read_image
from .io.png import overlay_rgb
from .report_cases import CasePicture
from .scoring import Source, read_truth
from .types import CaseScore, Sample

EACH, SIDE_PX = 4, 320  # cases of each kind; the longer side of a picture
Kind = Literal["best", "median", "worst"]


def draw_cases(source: Source, samples: Sequence[Sample], asked: Mapping[str, str], cases: Sequence[CaseScore]) -> list[CasePicture]:
    """Pictures of the chosen cases, which are answered once more: holding every film would take the memory. `asked`: id to sentence."""
    by_id = {sample.id: sample for sample in samples}
    pictures = []
    for kind, case in choose(cases):
        sample = by_id[case.id]
        try:
            image, truth = read_image(sample.image), read_truth(sample)
            film = source.read(sample, (truth.shape[0], truth.shape[1]))
        except InputError:  # where masks were scored nobody has needed the film so far; one picture less is no reason to fail
            continue
        answer = source.answer([sample], [film], [[asked[case.id]]])[0][0]
        if not isinstance(answer, InputError):
            pictures.append(CasePicture(kind, case.id, asked[case.id], case.dice, overlay_png(image.pixels_HWC, answer.mask_HW, truth)))
    return pictures


def choose(cases: Sequence[CaseScore]) -> list[tuple[Kind, CaseScore]]:
    """Up to four cases of best, median and worst Dice, each case once, none that failed. Equal Dice goes by id."""
    order = sorted((case for case in cases if "failed" not in case.warnings), key=lambda case: (case.dice, case.id))
    each = min(EACH, max(1, len(order) // 3))
    middle = (len(order) - each) // 2
    kinds: dict[Kind, list[CaseScore]] = {"best": order[::-1][:each], "worst": order[:each], "median": order[middle : middle + each]}
    chosen = {case.id: (kind, case) for kind, some in reversed(kinds.items()) for case in some}
    return sorted(chosen.values(), key=lambda one: ("best", "median", "worst").index(one[0]))


def overlay_png(image_HWC: NDArray[np.float32], mask_HW: NDArray[np.bool_], truth_HW: NDArray[np.bool_]) -> bytes:
    """The film with both masks as the bytes of a PNG, whatever the grids of the three."""
    scale = SIDE_PX / max(image_HWC.shape[:2])
    size = (max(1, round(image_HWC.shape[1] * scale)), max(1, round(image_HWC.shape[0] * scale)))

    def fit(values_HW: NDArray[Any]) -> NDArray[Any]:
        gray = PIL.Image.fromarray(np.rint(values_HW * np.float32(255)).astype(np.uint8))
        return np.asarray(gray.resize(size, PIL.Image.Resampling.BILINEAR), dtype=np.float32) / 255

    rgb = overlay_rgb(fit(image_HWC.mean(axis=2)), fit(mask_HW) >= 0.5, fit(truth_HW) >= 0.5)
    out = BytesIO()
    PIL.Image.fromarray(rgb).save(out, "PNG", optimize=True)
    return out.getvalue()
