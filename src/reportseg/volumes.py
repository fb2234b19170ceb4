"""A volume and sentences in, masks on the volume's own voxels out: slices are answered in batches, each in the window of its organ.

Memory holds the volume as read, one byte a voxel for each mask in work, another for its probabilities where they are asked for, and a batch
of slices. Shapes: D,H,W the grid of the file, S its
slices in the order of display.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby

import numpy as np

from .io.slices import WINDOWS, View, Window, brightness, pixels, view_of, window_for
from .segmenter import BATCH, Question, Segmenter, side_of
from .types import Geometry, Image, Side, Volume, VolumePrediction

TOGETHER = 4  # sentences that share one reading of the slices; each holds a mask


def segment_volume(
    segmenter: Segmenter,
    volume: Volume,
    questions: Sequence[Question],
    ids: Sequence[str],
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
    probabilities: bool = False,
) -> Iterator[VolumePrediction]:
    """One answer a question, in their order; slices are read once for neighbours that ask for one window. `progress(slices, all)`.

    Presence is that of the slice that is surest of it. ValueError where questions and ids differ in number.
    """
    view, depth = view_of(volume.affine), 0
    windows = segmenter.bundles[0].config.preprocess.windows or WINDOWS
    parts = list(_parts(list(zip(questions, ids, strict=True)), windows))
    slices = volume.values_DHW.shape[view.order[0]]
    for window, part in parts:

        def tell(done: int, before: int = depth) -> None:
            if progress is not None:
                progress(before + done, slices * len(parts))

        yield from _answers(segmenter, volume, view, window, part, batch, tell, probabilities)
        depth += slices


def _parts(asked: Sequence[tuple[Question, str]], windows: Mapping[str, Window]) -> Iterator[tuple[Window, list[tuple[Question, str]]]]:
    """Neighbours that ask for one window, at most so many as may be answered together; a denied sentence needs no slices."""
    for window, same in groupby(asked, key=lambda one: window_for(one[0].text, windows)):
        rows = list(same)
        for first in range(0, len(rows), TOGETHER):
            yield window, rows[first : first + TOGETHER]


def _answers(
    segmenter: Segmenter,
    volume: Volume,
    view: View,
    window: Window,
    asked: Sequence[tuple[Question, str]],
    batch: int,
    tell: Callable[[int], None],
    probabilities: bool,
) -> Iterator[VolumePrediction]:
    started = time.perf_counter()
    masks = [np.zeros(volume.values_DHW.shape, np.bool_) for _ in asked]
    maps = [np.zeros(volume.values_DHW.shape, np.uint8) if probabilities else None for _ in asked]
    shown = [view.shown(mask) for mask in masks]  # views: what is written there lies in the mask
    shown_maps = [None if one is None else view.shown(one) for one in maps]
    presence: list[list[float]] = [[] for _ in asked]
    films = view.shown(volume.values_DHW)
    low, high = brightness(volume, window)
    sagittal = None if view.has_sides else ("P", "F")  # shown as it is, and never averaged with its mirror
    geometry = Geometry((films.shape[1], films.shape[2]), view.spacing_mm[1:], sagittal)
    open_ = [place for place, (question, _) in enumerate(asked) if not question.denied]
    of_volumes = all(bundle.config.preprocess.windows for bundle in segmenter.bundles)  # importers of volumes name windows
    untrained = () if of_volumes else ("no_volume_training",)
    for first in range(0, len(films), batch) if open_ else ():
        rows = films[first : first + batch]
        gray = [pixels(film, low, high, volume.inverted)[:, :, None] for film in rows]
        encoded = segmenter.encode_images([Image(film, geometry, volume.format, "patient") for film in gray])
        for place in open_:
            question, id = asked[place]
            for row, answer in enumerate(segmenter.answer(encoded, [question] * len(rows), [id] * len(rows))):
                shown[place][first + row] = answer.mask_HW
                if (steps := shown_maps[place]) is not None:
                    steps[first + row] = np.rint(answer.probability_HW * 255)
                presence[place] += [] if answer.presence is None else [answer.presence]
        tell(first + len(rows))
    seconds = (time.perf_counter() - started) / len(asked)
    shown.clear()
    shown_maps.clear()
    for (question, id), sure in zip(asked, presence, strict=True):
        mask = masks.pop(0)  # held no longer than whoever takes the answer does
        yield VolumePrediction(
            id=id,
            mask_DHW=mask,
            volume_ml=volume.millilitres(mask),
            spacing_mm=volume.spacing_mm,
            text=question.text,
            presence=max(sure) if sure else None,
            side=_side(view, mask, question),
            laterality=question.laterality,
            decision=segmenter.rule.model_dump(),
            engine=segmenter.engine,
            bundle_sha256=segmenter.sha256,
            warnings=tuple(dict.fromkeys((*volume.warnings, *question.warnings, *untrained))),
            time_s=seconds,
            polarity=question.polarity,
            finding=question.finding,
            unknown_words=question.unknown_words,
            probability_DHW=maps.pop(0),
        )


def _side(view: View, mask_DHW: np.ndarray, question: Question) -> Side | None:
    """The half of the volume that holds the mask, told as on a film whose columns go from the patient's right to the left."""
    across = 2 if view.has_sides else 0  # a sagittal stack goes from the right to the left itself
    counts = view.shown(mask_DHW).sum(axis=tuple({0, 1, 2} - {across}), dtype=np.int64)
    return side_of(counts[None], question.laterality)
