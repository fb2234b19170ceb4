"""Slices back to volumes, for evaluation: one score a study and organ, in three dimensions, in millimetres and millilitres.

A row of the manifest that has `study` and `slice` is a slice of the volume (study, label); rows of one slice are united. A volume is scored
when its last slice has come, and forgotten: what is held is one bit a voxel. Shapes: S slices in their order, H,W.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .data.manifest import table
from .errors import InputError
from .limits import atomic_write, csv_cell
from .metrics import score_case, summarise
from .schemas.files import CSV_COLUMNS
from .schemas.metrics import VolumeScores
from .stats import bootstrap
from .types import CaseScore, Sample

VOLUMES = "volumes.csv"
ALL = "all"
ROOM = 4  # planes of a volume for each slice that there is, at most
SCORES = ("dice_pooled", "dice_mean", "iou_mean", "hd95", "nsd")

Mask = NDArray[np.bool_]
Key = tuple[str, str]  # study, label


@dataclass(frozen=True)
class VolumeCase:
    """The score of one organ in one study. `case` counts voxels; volumes are None where the spacing is unknown."""

    study: str
    label: str
    slices: int
    case: CaseScore
    volume_ml: float | None
    true_volume_ml: float | None


@dataclass
class _Open:
    """A volume whose slices are coming: number -> bits of truth and answer."""

    shape: tuple[int, int]
    slices: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8]]]


class Volumes:
    """Takes the answers of a split, slice by slice in any order. `scored` are the volumes that are complete, in mm if `spacing`."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.left = Counter(_key(sample) for sample in samples)
        self.spacing = all(sample.spacing_mm and sample.slice_mm for sample in samples)
        self.open: dict[Key, _Open] = {}
        self.scored: list[VolumeCase] = []

    def add(self, sample: Sample, truth_HW: Mask, mask_HW: Mask) -> None:
        """One row. InputError size_mismatch where the slices of a volume differ in size."""
        key, number = _key(sample), sample.slice or 0
        volume = self.open.setdefault(key, _Open((truth_HW.shape[0], truth_HW.shape[1]), {}))
        if volume.shape != truth_HW.shape:
            what = f"the slices of the study {sample.study!r} differ in size"
            raise InputError(what, sample.mask or "", "Give each stack of slices its own study.", "size_mismatch")
        old = volume.slices.get(number, (np.uint8(0), np.uint8(0)))
        volume.slices[number] = (np.packbits(truth_HW) | old[0], np.packbits(mask_HW) | old[1])
        self.left[key] -= 1
        if not self.left[key]:
            self.scored.append(self._score(key, self.open.pop(key), sample))

    def _score(self, key: Key, volume: _Open, sample: Sample) -> VolumeCase:
        numbers = sorted(volume.slices)
        size, depth = math.prod(volume.shape), numbers[-1] - numbers[0]
        step = math.gcd(*(n - numbers[0] for n in numbers)) or 1  # of slices that were thinned evenly
        uneven = depth // step >= len(numbers)
        if depth // step >= ROOM * len(numbers):  # no room for the slices that are missing: as if there were none
            planes, step_mm = list(range(len(numbers))), depth / (len(numbers) - 1)
        else:
            planes, step_mm = [(n - numbers[0]) // step for n in numbers], float(step)
        truth, mask = (np.zeros((planes[-1] + 1, *volume.shape), np.bool_) for _ in range(2))
        for plane, n in zip(planes, numbers, strict=True):
            truth[plane], mask[plane] = (np.unpackbits(bits, count=size).reshape(volume.shape) for bits in volume.slices[n])
        spacing = None
        if self.spacing and sample.spacing_mm and sample.slice_mm:
            spacing = (sample.slice_mm * step_mm, *sample.spacing_mm)
        case = score_case(f"{key[0]}/{key[1]}", sample.patient, mask, truth, spacing_mm=spacing, warnings=("slice_gaps",) if uneven else ())
        voxel_ml = math.prod(spacing) / 1000 if spacing else None
        volumes = (None, None) if voxel_ml is None else (case.area_px * voxel_ml, (case.tp + case.fn) * voxel_ml)
        return VolumeCase(key[0], key[1], len(numbers), case, *volumes)


def are_volumes(samples: Sequence[Sample]) -> bool:
    """Whether every row is a slice of a study."""
    return all(sample.study and sample.slice is not None for sample in samples)


def volume_scores(scored: Sequence[VolumeCase], n_boot: int) -> dict[str, VolumeScores]:
    """The scores of all volumes, and where there are several labels those of each."""
    labels = sorted({one.label for one in scored})
    groups = {ALL: list(scored)} | {label: [one for one in scored if one.label == label] for label in (labels if len(labels) > 1 else ())}
    return {name: _summary(group, n_boot) for name, group in groups.items()}


def write_volumes(path: str | Path, scored: Sequence[VolumeCase]) -> None:
    """volumes.csv: a row a volume; volumes are empty where the spacing is unknown."""
    rows = [
        {
            "study": csv_cell(one.study),
            "patient": csv_cell(one.case.patient),
            "label": csv_cell(one.label),
            "slices": str(one.slices),
            **{name: repr(getattr(one.case, name)) for name in ("tp", "fp", "fn", "dice", "iou", "hd95", "nsd")},
            "volume_ml": "" if one.volume_ml is None else repr(one.volume_ml),
            "true_volume_ml": "" if one.true_volume_ml is None else repr(one.true_volume_ml),
            "warnings": ";".join(one.case.warnings),
        }
        for one in scored
    ]
    atomic_write(path, table(CSV_COLUMNS[VOLUMES], rows))


def _summary(group: Sequence[VolumeCase], n_boot: int) -> VolumeScores:
    cases = [one.case for one in group]
    scores, intervals = summarise(cases), bootstrap(cases, n_boot)
    known = [(one.volume_ml, one.true_volume_ml) for one in group if one.volume_ml is not None and one.true_volume_ml is not None]
    mean = np.mean(known, axis=0) if known else None
    return VolumeScores(
        n_volumes=len(cases),
        **{name: scores[name] for name in SCORES},
        volume_ml=None if mean is None else float(mean[0]),
        true_volume_ml=None if mean is None else float(mean[1]),
        volume_error_ml=float(np.mean([abs(a - b) for a, b in known])) if known else None,
        ci95={name: pair for name, pair in intervals.items() if name in SCORES},
    )


def _key(sample: Sample) -> Key:
    return sample.study, sample.label
