"""Soft targets: what a teacher, one bundle or several averaged, answers to the training films (Hinton et al. 2015, for each pixel).

`reportseg predict TEACHER --jobs MANIFEST --split train -o FOLDER` writes the answers, `data.teacher: FOLDER` learns from them. A teacher's
doubt at a border says more than the border that one reader drew. Shapes: N films, H,W the square that the run caches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .bundle import read_config
from .bundle import resolve as find_bundle
from .config import RunConfig
from .data.loader import prepare_image
from .errors import InputError
from .io import read_image
from .predictions import ANSWER, PROBABILITY
from .schemas.base import read_json
from .schemas.prediction import PredictionFile
from .text import can_swap, normalise, swap_sides
from .types import Sample

READERS = 2  # threads that read answers


def read_teacher(
    folder: str | Path, samples: Sequence[Sample], masks_NHW: NDArray[np.uint8], weight: float, constant: bool = False
) -> tuple[NDArray[np.uint8], list[str]]:
    """Targets (N, H, W), 255 for certain: (1 - weight) mask + weight probability; and the hashes of the teacher's bundles.

    A teacher may be asked what it likes where the student reads one `constant` sentence; else it must have been asked the film's own.
    InputError teacher: an answer that is missing, or is to another sentence, or of other bundles than the first; those of read_image.
    """
    folder = Path(folder)
    asked = [_bundles(folder, sample, constant) for sample in samples]
    other = next((sample for sample, bundles in zip(samples, asked, strict=True) if bundles != asked[0]), None)
    if other is not None:
        what = f"the answers are of different bundles: that to {other.id} is not of the one that answered {samples[0].id}"
        raise InputError(what, folder, "Let one teacher answer all films, into an empty folder.", "teacher")
    side = masks_NHW.shape[1]
    targets = np.empty(masks_NHW.shape, np.uint8)

    def blend(i: int) -> None:
        film, answer = read_image(samples[i].image), read_image(folder / f"{samples[i].id}{PROBABILITY}")
        probability = prepare_image(replace(answer, geometry=film.geometry), side)[0].numpy()  # turned as the film is for display
        targets[i] = np.rint(255 * ((1 - weight) * masks_NHW[i] + weight * probability))

    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(blend, range(len(samples))))
    return targets, asked[0]


def teacher_sha256(folder: str | Path, samples: Sequence[Sample], constant: bool = False) -> str:
    """Hash of the answers to these films: of each the bundles that gave it and its probabilities. InputError teacher."""
    folder = Path(folder)
    whole = hashlib.sha256()
    for sample in sorted(samples, key=lambda sample: sample.id):
        bundles = _bundles(folder, sample, constant)
        answer = hashlib.sha256((folder / f"{sample.id}{PROBABILITY}").read_bytes()).hexdigest()
        whole.update("\t".join([sample.id, *bundles, answer, "\n"]).encode())
    return whole.hexdigest()


def sources_sha256(config: RunConfig, asked: Sequence[Sample]) -> dict[str, str]:
    """Hashes of what lies at the paths `data.teacher`, its answers to the films `asked`, and `train.init`: a resume must find both as they
    were, wherever they lie by then. InputError: teacher, those of a bundle.
    """
    found = {}
    if config.data.teacher is not None:
        found["teacher"] = teacher_sha256(config.data.teacher, asked, config.data.text == "constant")
    if config.train.init is not None:
        found["init"] = read_config(find_bundle(config.train.init))[1]
    return found


def _bundles(folder: Path, sample: Sample, constant: bool) -> list[str]:
    """Hashes of the bundles that answered this film. InputError teacher."""
    file = folder / f"{sample.id}{ANSWER}"
    if not (file.is_file() and (folder / f"{sample.id}{PROBABILITY}").is_file()):
        fix = "Make them with `reportseg predict TEACHER --jobs MANIFEST --split train -o FOLDER`; --resume goes on."
        raise InputError(f"the teacher has no answer to the film {sample.id}", folder, fix, "teacher")
    answer = read_json(file, PredictionFile)
    text = answer.finding.text if answer.finding else ""
    if "none" not in (answer.laterality, sample.laterality) and answer.laterality != sample.laterality and can_swap(text):
        text = swap_sides(text)
    if not constant and normalise(text) != normalise(sample.text):
        what = f"the teacher was asked another sentence than the film {sample.id} has"
        raise InputError(what, folder, "Let it answer the manifest, and the text column, that the run reads.", "teacher")
    return [answer.bundle_sha256, *answer.ensemble]
