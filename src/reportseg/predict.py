"""Many films and sentences into one folder: what cannot be read is listed, the others go on, and a stop loses nothing."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import groupby
from pathlib import Path

from .answers import report_file
from .errors import InputError
from .io import case_ids, hashed_name
from .io.cases import Stacks, is_volume, read_case, source_sha256
from .io.stacks import Series
from .limits import DEFAULT, VARIABLE, Limits, check_file, check_text, finding_id
from .predictions import PredictionFolder
from .schemas.prediction import AskedFile, ReportFile
from .segmenter import BATCH, Encoded, Question, ReportAnswer, Segmenter
from .types import Image, Laterality, Sample
from .volumes import segment_volume

__all__ = [
    "Encoded",
    "PredictReport",
    "Question",
    "ReportAnswer",
    "Segmenter",
    "jobs_from",
    "jobs_from_report",
    "load_report",
    "predict_files",
]

NO_STACKS: Stacks = {}
READERS = 2  # threads that read films
HELD_VALUES = 2**25  # numbers of films kept waiting, 128 MiB as float32; a larger film goes alone


@dataclass(frozen=True)
class PredictReport:
    """How a run ended. `failures` holds the errors as raised: `str(error)` names the user's path, `error.public()` does not. `warnings`
    says on how many answers of this run each code stands.

    Where the path may be named after a person (DICOM, folders) `str(error)` names row and id in its place.
    """

    done: int
    failed: int
    skipped: int
    failures: tuple[tuple[str, InputError], ...] = ()
    warnings: Mapping[str, int] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 all done, 3 some cases failed, 2 nothing could be done."""
        return 0 if not self.failed else 3 if self.done + self.skipped else 2


def jobs_from(paths: Sequence[str | Path], text: str, limits: Limits = DEFAULT, stacks: Stacks = NO_STACKS) -> list[Sample]:
    """One job a path, all with the same text, ids by `io.case_ids`, of a stack that of its series. InputError: those of check_text."""
    check_text(text, "--text", limits)
    ids = _ids(paths, stacks, limits)
    return [
        Sample(id=id, image=Path(path), mask=None, text=text, row=row) for row, (id, path) in enumerate(zip(ids, paths, strict=True), 1)
    ]


def load_report(path: str | Path, limits: Limits = DEFAULT) -> str:
    """A report in UTF-8. InputError that names the file and never its text: those of check_file and check_text, text_encoding."""
    file = check_file(path)
    size = file.stat().st_size
    if size > limits.text_bytes + 3:
        what = f"the report is larger than the limit of {limits.text_bytes:,} bytes"
        fix = f"Keep the sentences that describe the image, or allow it: {VARIABLE}=text_bytes={size}."
        raise InputError(what, path, fix, "text_too_long")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as e:
        raise InputError("the report is not UTF-8", path, "Save it as plain text in UTF-8.", "text_encoding") from e
    return check_text(text, path, limits)


def jobs_from_report(
    segmenter: Segmenter, paths: Sequence[str | Path], report: str, stacks: Stacks = NO_STACKS
) -> tuple[list[Sample], list[ReportFile]]:
    """A job for each film and each finding that the report affirms or doubts, and for each film how the report was understood.

    InputError: those of check_text.
    """
    reading, warnings, unknown = segmenter.read_report(report)
    ids = _ids(paths, stacks, segmenter.limits)
    jobs = [
        Sample(id=finding_id(id, number), image=Path(path), mask=None, text=finding.text, row=row, finding=finding)
        for row, (id, path) in enumerate(zip(ids, paths, strict=True), 1)
        for number, finding in enumerate(reading.asked, 1)
    ]
    return jobs, [report_file(id, reading, warnings, unknown) for id in ids]


def _ids(paths: Sequence[str | Path], stacks: Stacks, limits: Limits) -> list[str]:
    found = [stacks.get(Path(path)) for path in paths]
    return case_ids([Path(one.id) if isinstance(one, Series) else path for one, path in zip(found, paths, strict=True)], limits)


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
    progress: Callable[[float, int], None] | None = None,
    reports: Sequence[ReportFile] = (),
    keep_text: bool = False,
    probabilities: bool = False,
    uncertainty: bool = False,
    stacks: Stacks = NO_STACKS,
) -> PredictReport:
    """Answers every job into `out`. A case that cannot be read is a line of failures.csv and the others go on.

    Neighbouring jobs with one image read and encode it once. `reports` (of `jobs_from_report`) are written beside the answers, and the
    DICOM objects of a film hold all findings of its report; `keep_text` puts what was asked into them, `probabilities` makes a SEG of
    fractions. `uncertainty` also writes where averaged answers differ; InputError uncertainty where the segmenter gives one answer alone.

    A volume (a file of NIfTI, a folder of one series, or one of `stacks`) is one case, answered slice by slice after the films.

    `laterality` goes before that of a job ("none" there means: not stated). `progress(finished, all)`. Raises InputError before the first
    case for what concerns all of them (see PredictionFolder and, with `resume`, its `keep`), and where the output cannot be written before
    any case is done; later that ends the run with all further cases failed, and the tables as whole as the disk allows.
    """
    segmenter.ask("", laterality)  # a convention that does not exist concerns all of them
    if uncertainty and not (segmenter.flips or segmenter.ensemble):
        what = "one answer is given to a film, so there is none that it could differ from"
        raise InputError(what, "--uncertainty", "Add --flips, or a second bundle with --with.", "uncertainty")
    volumes = {job.id for job in jobs if is_volume(job.image, stacks, segmenter.limits)}
    folder = PredictionFolder(out, jobs, formats, overwrite, resume, reports, keep_text, probabilities, uncertainty, volumes)
    hashes = (segmenter.sha256, *segmenter.ensemble)
    whose: dict[str, Laterality | None] = {job.id: laterality or (job.laterality if job.laterality != "none" else None) for job in jobs}
    hash_of = cache(lambda path: source_sha256(path, stacks, segmenter.limits))  # a film may be asked many questions
    todo = [job for job in jobs if not (resume and folder.keep(job, hashes, whose[job.id], segmenter.flips, hash_of))]
    if folder.film_suffixes:  # a DICOM object is of all answers to its film
        begun = {folder.film(job) for job in todo}
        todo = [job for job in jobs if folder.film(job) in begun]
    folder.save()  # an output that cannot be written shows now, not after an hour
    folder.write_reports()
    failures: list[tuple[str, InputError]] = []
    group: list[tuple[_Film, list[tuple[Sample, Question]]]] = []  # films, each with what it is asked
    done = 0

    def answer() -> None:
        """One question each for the films of a group; a film with several stands alone in its group."""
        nonlocal done
        started = time.perf_counter()
        encoded = segmenter.encode_images([film.image for film, _ in group])
        rounds = [[asked[0] for _, asked in group]] if len(group) > 1 else [[asked] for asked in group[0][1]]
        for turn in rounds:
            questions, ids = [question for _, question in turn], [job.id for job, _ in turn]
            predictions = segmenter.answer_each(encoded, questions, ids, started, examine=uncertainty)
            for (job, _), prediction, (film, _) in zip(turn, predictions, group, strict=True):
                if isinstance(prediction, InputError):
                    fail(job, prediction)
                    continue
                folder.write(job, prediction, film.image.pixels_HWC, segmenter.ensemble, asked_of(job, film.sha256))
                done += 1
            folder.save_often()
            started = time.perf_counter()
        for film, asked in group:
            for name, same in groupby((job for job, _ in asked if job.id in folder.rows), key=folder.film):
                try:
                    folder.write_film(name, film.image, segmenter.sha256)
                except InputError as error:
                    if error.code != "dicom_source":
                        raise
                    for job in same:
                        fail(job, error)
                        done -= 1
        group.clear()

    def answer_volume(jobs_of_it: Sequence[Sample]) -> None:
        """All that one volume is asked; it is held no longer than that."""
        nonlocal done
        ready = done + len(failures) + len(jobs) - len(todo)
        try:
            volume = read_case(jobs_of_it[0].image, stacks, segmenter.limits)
            sha256 = source_sha256(jobs_of_it[0].image, stacks, segmenter.limits)
            folder.check_volume(volume)
        except InputError as error:
            for job in jobs_of_it:
                fail(job, error)
            return
        asked = []
        for job in jobs_of_it:
            try:
                asked.append((job, segmenter.ask(job.text, whose[job.id], "patient", job.finding)))
            except InputError as error:
                fail(job, error)

        def tell(slices: int, of: int) -> None:
            if progress is not None:
                progress(round(ready + len(asked) * slices / of, 2), len(jobs))

        questions, ids = [question for _, question in asked], [job.id for job, _ in asked]
        answers = segment_volume(segmenter, volume, questions, ids, batch, tell, bool(folder.film_suffixes) and probabilities)
        broken: InputError | None = None  # by a slice without a finite answer; then the volume has none
        for film, same in groupby(asked, key=lambda one: folder.film(one[0])):
            rows = []
            for job, _ in same:
                if broken is None:
                    try:
                        prediction = next(answers)
                    except InputError as error:
                        broken = error
                if broken is not None:
                    fail(job, broken)
                    continue
                folder.write_volume(job, prediction, volume, segmenter.ensemble, asked_of(job, sha256))
                rows.append(job)
                done += 1
            try:
                folder.write_stack(film, volume, segmenter.sha256)
            except InputError as error:
                if error.code != "dicom_source":
                    raise
                done -= len(rows)
                for job in rows:
                    fail(job, error)
            folder.save_often()

    def asked_of(job: Sample, sha256: str) -> AskedFile:
        return folder.asked(job, whose[job.id], sha256)

    def fail(job: Sample, error: InputError) -> None:
        if error.code != "unwritable" and (job.image in stacks or hashed_name(job.image, segmenter.limits)):
            error = InputError(error.what, f"row {job.row} ({job.id})", error.fix, error.code)
        folder.fail(job, error)
        failures.append((job.id, error))

    try:
        for same, film in _read_ahead(segmenter, [job for job in todo if job.id not in volumes], batch):
            asked: list[tuple[Sample, Question]] = []
            for job in same:
                try:
                    folder.check_film(film.result().image)
                    asked.append((job, segmenter.ask(job.text, whose[job.id], film.result().image.laterality, job.finding)))
                except InputError as error:
                    fail(job, error)
            if len(asked) > 1 and group:
                answer()
            if asked:
                group.append((film.result(), asked))
            if group and (len(group) >= batch or len(asked) > 1 or sum(one.image.pixels_HWC.size for one, _ in group) >= HELD_VALUES):
                answer()
            if progress is not None:
                progress(len(jobs) - len(todo) + done + len(failures), len(jobs))
        if group:
            answer()
        for _, stack in groupby((job for job in todo if job.id in volumes), key=lambda job: job.image):
            answer_volume(list(stack))
        if progress is not None:
            progress(len(jobs), len(jobs))
        folder.save()
    except InputError as error:  # the output cannot be written any more
        some = done + len(jobs) - len(todo) > 0
        for job in [job for job in todo if job.id not in folder.rows and job.id not in folder.failures] if some else ():
            with suppress(InputError):
                folder.fail(job, error)
            failures.append((job.id, error))
        folder.save_what_fits()
        if not some:
            raise
        failures = failures or [("", error)]  # every case is done, and a table is not
    except BaseException:
        folder.save_what_fits()
        raise
    warned = Counter(code for job in todo if job.id in folder.rows for code in folder.rows[job.id]["warnings"].split(";") if code)
    return PredictReport(done, len(failures), len(jobs) - len(todo), tuple(failures), warned)


@dataclass(frozen=True)
class _Film:
    """A film, and the hash of its file."""

    image: Image
    sha256: str


def _read_ahead(segmenter: Segmenter, jobs: Sequence[Sample], batch: int) -> Iterator[tuple[list[Sample], Future[_Film]]]:
    """Films in order, each finished, with their jobs, while the next ones are read: as many as a batch, fewer where films are large."""

    def read(job: Sample) -> _Film:
        image = segmenter.read(job.image)
        spacing = image.geometry.spacing_mm or job.spacing_mm
        placed = replace(image, geometry=replace(image.geometry, spacing_mm=spacing))
        return _Film(placed, source_sha256(job.image, NO_STACKS))  # after it was read: the system still holds its bytes

    pool = ThreadPoolExecutor(READERS)
    waiting: deque[tuple[list[Sample], Future[_Film]]] = deque()
    films = [list(same) for _, same in groupby(jobs, key=lambda job: (job.image, job.spacing_mm))]
    size = HELD_VALUES  # of the last film; the first one may be large
    try:
        for same in [*films, None]:
            if same is not None:
                waiting.append((same, pool.submit(read, same[0])))
            while waiting and (same is None or len(waiting) > max(READERS, min(batch, HELD_VALUES // size))):
                ready, film = waiting.popleft()
                if film.exception() is None:
                    size = max(1, film.result().image.pixels_HWC.size)
                yield ready, film
                del film
    finally:
        pool.shutdown(cancel_futures=True)
