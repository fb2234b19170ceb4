"""Asks films for masks under many sentences and scores each answer, for `evaluate`.

A film is read and encoded once and decoded for each of its distinct sentences. What cannot be read, or not be asked, counts as an empty
prediction with the warning `failed`, and the others go on. Shapes: H,W the grid of the true mask, to which logits are brought before they
are cut.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .io import read_mask
from .io.nifti import read_nifti
from .io.slices import view_of
from .limits import check_file, safe_id
from .metrics import Calibration, border_band, cases_sha256, score_case
from .types import CaseScore, Image, Prediction, Sample

if TYPE_CHECKING:
    from .predict import Question, Segmenter

READERS = 2  # threads that read films
HELD_VALUES = 2**25  # pixels held at once, 128 MiB as float32; a larger film goes alone

Mask = NDArray[np.bool_]
Column = Sequence[str | None]  # a sentence for each sample, None where it is left out


@dataclass(frozen=True)
class Answer:
    """One mask, and where a model gave it its calibrated probabilities and the presence.

    Of an answer to a film's own sentence also the probabilities at temperature 1, and how sure it is (see `types.Prediction`).
    """

    mask_HW: Mask
    prob_HW: NDArray[np.float32] | None = None
    presence: float | None = None
    warnings: tuple[str, ...] = ()
    raw_HW: NDArray[np.float32] | None = None
    uncertainty: float | None = None
    disagreement: float | None = None


@dataclass(frozen=True)
class Scored:
    """A case under one sentence. `raw` is the calibration at temperature 1, of the film's own sentence only."""

    case: CaseScore
    calibration: Calibration
    raw: Calibration = field(default_factory=Calibration)


class Source(Protocol):
    """Where masks come from. `seconds` is the time spent on the first sentence of each film, reading not counted."""

    seconds: float

    def read(self, sample: Sample, shape: tuple[int, int]) -> Any:
        """What `answer` needs of a film, in any thread; `shape` is the true mask's. InputError for a film that cannot be read."""
        ...

    def answer(self, samples: Sequence[Sample], films: Sequence[Any], texts: Sequence[Sequence[str]]) -> list[list[Answer | InputError]]:
        """For each film an answer, or what forbids it, to each of its sentences (one or more)."""
        ...


class ModelSource:
    """The answers of a segmenter."""

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter, self.seconds = segmenter, 0.0

    def read(self, sample: Sample, shape: tuple[int, int]) -> Image:
        """The film, to be answered on the grid `shape` (H, W) of its true mask. InputError: those of read_image."""
        image = self.segmenter.read(sample.image)
        return replace(image, geometry=replace(image.geometry, shape=shape))

    def answer(self, samples: Sequence[Sample], films: Sequence[Image], texts: Sequence[Sequence[str]]) -> list[list[Answer | InputError]]:
        """Round r asks each film its r-th sentence; round 0 does not depend on the others, so nor do the scores under the true sentence."""
        start = time.perf_counter()
        encoded = self.segmenter.encode_images(films)
        answers: list[list[Answer | InputError]] = [[] for _ in films]
        for turn in range(max(map(len, texts))):
            asked = [
                self._question(sample, film, own[turn] if turn < len(own) else own[0])
                for sample, film, own in zip(samples, films, texts, strict=True)
            ]
            filler = self.segmenter.ask("")  # a film without a question here goes through with the others; its answer is dropped
            questions = [filler if isinstance(question, InputError) else question for question in asked]
            predictions = self.segmenter.answer_each(encoded, questions, [sample.id for sample in samples], examine=turn == 0)
            for row, (question, prediction) in enumerate(zip(asked, predictions, strict=True)):
                if turn < len(texts[row]):
                    given = question if isinstance(question, InputError) else prediction
                    answers[row].append(given if isinstance(given, InputError) else _given(given))
            if turn == 0:
                self.seconds += time.perf_counter() - start
        return answers

    def _question(self, sample: Sample, film: Image, text: str) -> Question | InputError:
        try:
            return self.segmenter.ask(text, None if sample.laterality == "none" else sample.laterality, film.laterality)
        except InputError as error:
            return error


def _given(p: Prediction) -> Answer:
    return Answer(p.mask_HW, p.probability_HW, p.presence, p.warnings, p.raw_HW, p.uncertainty, p.disagreement)


class MaskSource:
    """The files of a folder, made by any program; they know no sentence.

    `<id>.png`, else `<id>.mask.png`, is the mask of a row. A slice may also be that of a volume: `<study>_<label>.nii.gz`, or
    `<study>.nii.gz` where `samples` have one label for the study; .nii will do.
    """

    def __init__(self, folder: Path, samples: Sequence[Sample] = ()) -> None:
        if not folder.is_dir():
            raise InputError(
                "there is no such folder of masks", folder, "Give the folder that holds <id>.png or <id>.mask.png for each case.", "masks"
            )
        self.folder, self.seconds = folder, 0.0
        self.labels = {study: {one.label for one in rows} for study, rows in groupby(sorted(samples, key=_study), _study)}
        self.volume = lru_cache(READERS)(_slices)  # neighbouring rows are slices of one volume
        self.lock = Lock()

    def read(self, sample: Sample, shape: tuple[int, int]) -> Mask:
        """The case's mask on the grid `shape`. InputError: size_mismatch, and those of check_file, read_mask and read_nifti."""
        file = self.folder / f"{sample.id}.png"
        if not file.exists() and (own := file.with_suffix(".mask.png")).exists():  # as predict calls it
            file = own
        there = self._volume_of(sample)
        if file.exists() or there is None or sample.slice is None:
            mask = read_mask(check_file(file))
        else:
            file = there
            with self.lock:
                slices = self.volume(file)
            if not 0 <= sample.slice < len(slices):
                what = f"the volume has {len(slices)} slices, and one is numbered {sample.slice}"
                raise InputError(what, file, "Write it on the grid of the volume.", "size_mismatch")
            mask = slices[sample.slice]
        if mask.shape != shape:
            what = f"the mask has {mask.shape[1]} x {mask.shape[0]} pixels and the true one {shape[1]} x {shape[0]}"
            raise InputError(what, file, "Write it on the grid of the true mask.", "size_mismatch")
        return mask

    def _volume_of(self, sample: Sample) -> Path | None:
        """The volume that a row is a slice of, None where there is none."""
        if not sample.study:
            return None
        stems = [safe_id(f"{sample.study}_{sample.label}")]
        stems += [safe_id(sample.study)] if len(self.labels.get(sample.study, ())) == 1 else []
        files = [self.folder / f"{stem}{suffix}" for stem in stems for suffix in (".nii.gz", ".nii")]
        return next((file for file in files if file.exists()), None)

    def answer(self, samples: Sequence[Sample], films: Sequence[Mask], texts: Sequence[Sequence[str]]) -> list[list[Answer | InputError]]:
        """The masks as they are, whatever the sentence."""
        return [[Answer(mask)] * len(own) for mask, own in zip(films, texts, strict=True)]


def _study(sample: Sample) -> str:
    return sample.study


def _slices(file: Path) -> Mask:
    """The mask of a volume as slices in the order of display, as the importers number them: (S, H, W).

    InputError: mask_values for several labels, orientation where the file does not say how it lies; those of read_nifti.
    """
    volume = read_nifti(file)
    values = volume.values_DHW
    if "orientation_assumed" in volume.warnings:
        what = "the mask does not say how it lies in the patient, so which slice is which is not known"
        raise InputError(what, file, "Write it with the affine of the volume.", "orientation")
    mask: Mask = values != 0
    if not (values[mask] == values.max()).all():
        raise InputError("the mask holds several labels", file, "Write a file STUDY_LABEL.nii.gz for each.", "mask_values")
    return view_of(volume.affine).shown(mask)


@dataclass
class Result:
    """`columns[c][i]` is sample i under its sentence of column c, None where it has none there. `failures` are those of column 0."""

    columns: list[list[Scored | None]]
    failures: dict[str, InputError] = field(default_factory=dict)
    off_grid: int = 0  # films whose true mask is on another grid than the film


def score_films(
    source: Source,
    samples: Sequence[Sample],
    columns: Sequence[Column],
    *,
    text_name: str,
    spacing: bool,
    batch: int,
    keep: Callable[[str, Mask], None] | None = None,
    gather: Callable[[Sample, Mask, Mask], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Result:
    """Every sample under its sentence of each column; column 0 has one for all. Distances are in mm if `spacing`, else in pixels.

    `keep` gets id and mask of every answer to column 0, `gather` sample, truth and mask, an empty one where it failed.

    InputError for a true mask that cannot be read, and if no sample at all could be answered.
    """
    result = Result([[None] * len(samples) for _ in columns])
    done = 0
    for group in _groups(lambda sample: _read(source, sample), samples, batch):
        rows = range(done, done + len(group))
        wanted = [list(dict.fromkeys(text for column in columns if (text := column[i]) is not None)) for i in rows]
        readable = [k for k, (_, film) in enumerate(group) if not isinstance(film, InputError)]
        answers: list[list[Answer | InputError]] = [[film] * len(own) for (_, film), own in zip(group, wanted, strict=True)]
        if readable:
            there = source.answer([samples[rows[k]] for k in readable], [group[k][1] for k in readable], [wanted[k] for k in readable])
            for k, given in zip(readable, there, strict=True):
                answers[k] = given
        for i, (truth, film), own, given in zip(rows, group, wanted, answers, strict=True):
            if isinstance(given[0], InputError):
                result.failures[samples[i].id] = given[0]
            elif isinstance(film, Image):
                result.off_grid += film.pixels_HWC.shape[:2] != truth.shape
            if keep is not None and isinstance(given[0], Answer):
                keep(samples[i].id, given[0].mask_HW)
            if gather is not None:
                gather(samples[i], truth, given[0].mask_HW if isinstance(given[0], Answer) else np.zeros_like(truth))
            scored = dict(zip(own, _score(samples[i], truth, given, text_name, spacing), strict=True))
            for column, texts in zip(result.columns, columns, strict=True):
                text = texts[i]
                column[i] = None if text is None else scored[text]
        done += len(group)
        if progress is not None:
            progress(done, len(samples))
    if len(result.failures) == len(samples):
        first = next(iter(result.failures.values()))
        raise InputError(f"none of the {len(samples)} cases could be scored; the first: {first.what}", first.where, first.fix, first.code)
    return result


def presence_cases(own: Sequence[Scored], elsewhere: Sequence[Scored | None]) -> list[CaseScore]:
    """The prompts that tell whether absence is told from presence: of each film that was asked for its other side, where nothing is, that
    prompt and the film's own; where the cases themselves hold absent targets, all of them. A film that failed was asked nothing.
    """
    pairs = [(a.case, b.case) for a, b in zip(own, elsewhere, strict=True) if b is not None and "failed" not in b.case.warnings]
    absent = not all(one.case.present_truth for one in own)
    affirmed = [one.case for one in own] if absent else [case for case, _ in pairs]
    return affirmed + [
        replace(case, tp=0, fp=case.area_px, fn=0, dice=float(not case.area_px), iou=float(not case.area_px), present_truth=False)
        for _, case in pairs
    ]


def hash_cases(samples: Sequence[Sample]) -> str:
    """`metrics.cases_sha256` of the true masks; so each of them has been read once before the long work begins."""
    with ThreadPoolExecutor(READERS) as pool:
        return cases_sha256(zip((sample.id for sample in samples), pool.map(read_truth, samples), strict=True))


def read_truth(sample: Sample) -> Mask:
    """The true mask of a row. InputError: those of read_mask. ValueError for a row of a jobs file."""
    if sample.mask is None:
        raise ValueError(f"{sample.id} has no mask")
    return read_mask(sample.mask)


def _read(source: Source, sample: Sample) -> tuple[Mask, Any]:
    """The true mask and the film, or what forbids it."""
    truth = read_truth(sample)
    try:
        return truth, source.read(sample, (truth.shape[0], truth.shape[1]))
    except InputError as error:
        return truth, error


def _score(sample: Sample, truth_HW: Mask, answers: Sequence[Answer | InputError], text_name: str, spacing: bool) -> list[Scored]:
    band_HW: Mask | None = None
    scored = []
    for given in answers:
        answer = Answer(np.zeros_like(truth_HW), warnings=("failed",)) if isinstance(given, InputError) else given
        case = score_case(
            sample.id,
            sample.patient,
            answer.mask_HW,
            truth_HW,
            text_name=text_name,
            spacing_mm=sample.spacing_mm if spacing else None,
            presence=answer.presence,
            warnings=answer.warnings,
        )
        case = replace(case, uncertainty=answer.uncertainty, disagreement=answer.disagreement)
        one = Scored(case, Calibration())
        for calibration, prob_HW in ((one.calibration, answer.prob_HW), (one.raw, answer.raw_HW)):
            if prob_HW is not None:
                band_HW = border_band(truth_HW) if band_HW is None else band_HW
                calibration.add(prob_HW, truth_HW, band_HW)
        scored.append(one)
    return scored


def _groups(read: Callable[[Sample], tuple[Mask, Any]], samples: Sequence[Sample], batch: int) -> Iterator[list[tuple[Mask, Any]]]:
    """The films in order, `batch` together or fewer where they are large, while two threads read the next ones."""
    pool = ThreadPoolExecutor(READERS)
    ahead: deque[Future[tuple[Mask, Any]]] = deque()
    group: list[tuple[Mask, Any]] = []
    todo = iter(samples)
    held, size = 0, HELD_VALUES  # pixels in the group, and of the last film; the first one may be large
    try:
        for _ in samples:
            room = max(READERS, min(batch, HELD_VALUES // size)) - len(ahead)
            ahead.extend(pool.submit(read, sample) for _, sample in zip(range(room), todo, strict=False))
            group.append(ahead.popleft().result())
            size = max(1, group[-1][0].size)
            held += size
            if len(group) >= batch or held >= HELD_VALUES:
                yield group
                group, held = [], 0
        if group:
            yield group
    finally:
        pool.shutdown(cancel_futures=True)
