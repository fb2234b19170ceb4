"""Many films and sentences into one folder: what cannot be read is listed, the others go on, and a stop loses nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .errors import InputError
from .limits import DEFAULT, Limits, check_text, unique_ids
from .predictions import PredictionFolder
from .segmenter import BATCH, Encoded, Question, Segmenter
from .types import Image, Laterality, Sample

__all__ = ["Encoded", "PredictReport", "Question", "Segmenter", "jobs_from", "predict_files"]

READERS = 2  # threads that read films
HELD_VALUES = 2**25  # numbers of films kept waiting, 128 MiB as float32; a larger film goes alone


@dataclass(frozen=True)
class PredictReport:
    """How a run ended. `failures` holds the errors as raised: `str(error)` names the user's path, `error.public()` does not."""

    done: int
    failed: int
    skipped: int
    failures: tuple[tuple[str, InputError], ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some cases failed, 2 nothing could be done."""
        return 0 if not self.failed else 3 if self.done + self.skipped else 2


def jobs_from(paths: Sequence[str | Path], text: str, limits: Limits = DEFAULT) -> list[Sample]:
    """One job a path, all with the same text, ids by `limits.unique_ids`. InputError: those of check_text."""
    check_text(text, "--text", limits)
    ids = unique_ids(paths)
    return [
        Sample(id=id, image=Path(path), mask=None, text=text, row=row) for row, (id, path) in enumerate(zip(ids, paths, strict=True), 1)
    ]


def predict_files(
    segmenter: Segmenter,
    jobs: Sequence[Sample],
    out: str | Path,
    *,
    formats: Sequence[str] = ("png",),
    laterality: Laterality | None = None,
    overwrite: bool = False,
    resume: bool = False,
    batch: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> PredictReport:
    """Answers every job into `out`. A case that cannot be read is a line of failures.csv and the others go on.

    `laterality` goes before that of a job ("none" there means: not stated). `progress(finished, all)`. Raises InputError before the first
    case for what concerns all of them (see PredictionFolder), and later only where the output cannot be written; the tables are then as
    whole as the disk allows.
    """
    segmenter.ask("", laterality)  # a convention that does not exist concerns all of them
    folder = PredictionFolder(out, jobs, formats, overwrite, resume)
    hashes = (segmenter.sha256, *segmenter.ensemble)
    whose: dict[str, Laterality | None] = {job.id: laterality or (job.laterality if job.laterality != "none" else None) for job in jobs}
    todo = [job for job in jobs if not (resume and folder.keep(job, hashes, whose[job.id]))]
    folder.save()  # an output that cannot be written shows now, not after an hour
    failures: list[tuple[str, InputError]] = []
    group: list[tuple[Sample, Image, Question]] = []
    done = 0

    def answer() -> None:
        started = time.perf_counter()
        encoded = segmenter.encode_images([image for _, image, _ in group])
        predictions = segmenter.answer(encoded, [question for _, _, question in group], [job.id for job, _, _ in group], started)
        for (job, image, _), prediction in zip(group, predictions, strict=True):
            folder.write(job, prediction, image.pixels_HWC, segmenter.ensemble)
        group.clear()

    try:
        for job, film in _read_ahead(segmenter, todo, batch):
            try:
                image = film.result()
                group.append((job, image, segmenter.ask(job.text, whose[job.id], image.laterality)))
            except InputError as error:
                folder.fail(job, error)
                failures.append((job.id, error))
            if group and (len(group) >= batch or sum(image.pixels_HWC.size for _, image, _ in group) >= HELD_VALUES):
                done += len(group)
                answer()
                folder.save_often()
            if progress is not None:
                progress(len(jobs) - len(todo) + done + len(failures), len(jobs))
        if group:
            done += len(group)
            answer()
            if progress is not None:
                progress(len(jobs), len(jobs))
    except BaseException:
        with suppress(InputError):  # the first error is the one to tell
            folder.save()
        raise
    folder.save()
    return PredictReport(done, len(failures), len(jobs) - len(todo), tuple(failures))


def _read_ahead(segmenter: Segmenter, jobs: Sequence[Sample], batch: int) -> Iterator[tuple[Sample, Future[Image]]]:
    """Films in order, each finished, while the next ones are being read: as many as a batch, fewer where films are large."""

    def read(job: Sample) -> Image:
        image = segmenter.read(job.image)
        spacing = image.geometry.spacing_mm or job.spacing_mm
        return replace(image, geometry=replace(image.geometry, spacing_mm=spacing))

    pool = ThreadPoolExecutor(READERS)
    waiting: deque[tuple[Sample, Future[Image]]] = deque()
    size = HELD_VALUES  # of the last film; the first one may be large
    try:
        for job in [*jobs, None]:
            if job is not None:
                waiting.append((job, pool.submit(read, job)))
            while waiting and (job is None or len(waiting) > max(READERS, min(batch, HELD_VALUES // size))):
                ready, film = waiting.popleft()
                if film.exception() is None:
                    size = max(1, film.result().pixels_HWC.size)
                yield ready, film
                del film
    finally:
        pool.shutdown(cancel_futures=True)
