"""What `predict` leaves in its folder: the files of each case, `predictions.csv` and `failures.csv`.

A case is done when its `<id>.json` lies there, which is the last of its files, and where DICOM was asked for also the objects of its film:
one object holds all findings of a report. The tables hold names of ours and what was asked, never a path.
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .answers import difference, prediction_file, table_row
from .errors import InputError
from .io.nifti import write_nifti
from .io.png import write_mask, write_overlay, write_probability
from .limits import atomic_write, csv_cell, safe_id
from .schemas.base import read_json, write_json
from .schemas.files import CSV_COLUMNS
from .schemas.prediction import AskedFile, PredictionFile, ReportFile
from .types import Image, Laterality, Prediction, Sample, Volume, VolumePrediction

if TYPE_CHECKING:
    from .io.dicom_out import Frames, Segment

MASK, PROBABILITY, OVERLAY, ANSWER, REPORT = ".mask.png", ".prob.png", ".overlay.png", ".json", ".report.json"
UNCERTAINTY = ".uncertainty.png"
SEG, GSPS, SC, NIFTI = ".seg.dcm", ".gsps.dcm", ".sc.dcm", ".nii.gz"
CASE_FORMATS: dict[str, tuple[str, ...]] = {"png": (MASK, PROBABILITY, OVERLAY), "nifti": (NIFTI,)}
FILM_FORMATS = {"dicom-seg": SEG, "dicom-gsps": GSPS, "dicom-sc": SC}
OURS = (MASK, PROBABILITY, OVERLAY, UNCERTAINTY, ANSWER)  # ends of names that no film bears
PREDICTIONS, FAILURES = "predictions.csv", "failures.csv"
SAVE_SECONDS = 5.0  # between two writings of the tables; a kill in between loses nothing, since --resume reads the answers themselves

Row = Mapping[str, str]


class PredictionFolder:
    """The output of one run, checked before anything is computed.

    Of a case there are the files of `suffixes`, of a film (what one report is about, else the case itself) those of `film_suffixes`.
    `keep_text` puts what was asked into DICOM objects too, `probabilities` makes a SEG of fractions. `overwrite` replaces what is there;
    `resume` keeps answers that are complete and the ones that this run would give, whatever run they came from, and adds to the tables.
    `volumes` are the ids of jobs on volumes, whose mask is a NIfTI file where a film has PNG or NIfTI.
    `reports` are how the reports behind the jobs were understood; with them there may be nothing to answer. `uncertainty` adds the map
    of each case where several answers were averaged.
    InputError: no_jobs, bad_id, duplicate_id, format, options, exists (also a film that would be written over, whatever the options),
    resume (tables that predict did not write), unwritable.
    """

    def __init__(
        self,
        path: str | Path,
        jobs: Sequence[Sample],
        formats: Sequence[str] = ("png",),
        overwrite: bool = False,
        resume: bool = False,
        reports: Sequence[ReportFile] = (),
        keep_text: bool = False,
        probabilities: bool = False,
        uncertainty: bool = False,
        volumes: Collection[str] = (),
    ) -> None:
        self.path = Path(path)
        suffixes, self.film_suffixes = _suffixes(formats)
        self.suffixes = (*suffixes[:-1], *((UNCERTAINTY,) if uncertainty else ()), suffixes[-1])
        self.formats, self.uncertainty = sorted(set(formats)), uncertainty
        self.volumes = frozenset(volumes)
        self.keep_text, self.probabilities = keep_text, probabilities
        self.films = {finding.id: report.id for report in reports for finding in report.findings if finding.id}
        self.segments: dict[str, list[Segment]] = defaultdict(list)  # of films that are not written yet
        self.order = {job.id: place for place, job in enumerate(jobs)}
        if overwrite and resume:
            raise InputError("--overwrite replaces what is there and --resume keeps it", path, "Choose one of the two.", "options")
        self.reports = {f"{report.id}{REPORT}": report for report in reports}
        if jobs or not reports:
            _check_ids(jobs)
        self._check_free({job.image for job in jobs}, replace=overwrite or resume)
        self.rows: dict[str, Row] = {}
        self.failures: dict[str, Row] = {}
        if resume:
            self.rows = {row["id"]: row for row in _read_table(self.path / PREDICTIONS) if row["id"] not in self.order}
            self.failures = {row["id"]: row for row in _read_table(self.path / FAILURES) if row["id"] not in self.order}
            self._check_reports()
        self.saved = 0.0

    def file(self, id: str, suffix: str) -> Path:
        """The path of a case's file, e.g. `suffix` ".mask.png"."""
        return self.path / f"{id}{suffix}"

    def suffixes_of(self, id: str) -> tuple[str, ...]:
        """The files of one case. Pictures are of films: in their place a volume has a NIfTI file."""
        if id not in self.volumes:
            return self.suffixes
        return (*([NIFTI] if {MASK, NIFTI} & set(self.suffixes) else []), ANSWER)

    def film(self, job: Sample) -> str:
        """The name of the film that a job asks about."""
        return self.films.get(job.id, job.id)

    def check_film(self, image: Image) -> None:
        """InputError not_dicom where DICOM is to be written for a film that comes from elsewhere."""
        if self.film_suffixes and not image.headers:
            what = "DICOM can be written only for a film that is read from DICOM: it takes patient, study and grid from there"
            raise InputError(what, "--format", "Choose --format png for this one.", "not_dicom")

    def check_volume(self, volume: Volume) -> None:
        """InputError: not_dicom, as check_film; options for what can only be made of a film; uneven_slices for what NIfTI cannot hold."""
        films = [name for name, suffix in FILM_FORMATS.items() if suffix in self.film_suffixes and suffix != SEG]
        if films:
            raise InputError(f"{films[0]} is of films, not of volumes", "--format", "Choose dicom-seg or nifti.", "options")
        if self.film_suffixes and not volume.headers:
            what = "DICOM can be written only for a volume that is read from DICOM: it takes patient, study and grid from there"
            raise InputError(what, "--format", "Choose --format nifti for this one.", "not_dicom")
        if volume.planes is None and {MASK, NIFTI} & set(self.suffixes):
            what = "the slices lie at uneven distances, or are shifted against each other, and a NIfTI file holds an even grid only"
            raise InputError(what, "--format", "Choose --format dicom-seg, which holds the place of each slice.", "uneven_slices")

    def asked(self, job: Sample, laterality: Laterality | None, source_sha256: str) -> AskedFile:
        """What the answer to a job depends on beside bundle, text and decision."""
        return AskedFile(
            source_sha256=source_sha256,
            laterality=laterality,
            spacing_mm=job.spacing_mm,
            formats=self.formats,
            keep_text=self.keep_text,
            probabilities=self.probabilities,
            uncertainty=self.uncertainty,
        )

    def keep(
        self, job: Sample, bundles: Sequence[str], laterality: Laterality | None, flips: bool, source_sha256: Callable[[Path], str]
    ) -> bool:
        """Whether the answer to this job lies here complete; its row is then taken over.

        InputError resume where this run would answer otherwise: another film under the same name (`source_sha256` computes its hash),
        another text, bundle, side or option. Nothing is done again then and nothing removed, since what lies here may be all there is.
        """
        try:
            stored = read_json(self.file(job.id, ANSWER), PredictionFile)
        except InputError:
            return False
        try:
            asked = self.asked(job, laterality, source_sha256(job.image))
        except (InputError, OSError):
            other = "is of a film that cannot be read, so whether it is the same cannot be told"
        else:
            other = difference(stored, job, asked, bundles, flips)
        if other:
            fix = "Choose another folder, remove this file to have it answered anew, or --overwrite all."
            raise InputError(f"the answer that lies here {other}", self.file(job.id, ANSWER), fix, "resume")
        files = [self.file(job.id, suffix) for suffix in self.suffixes_of(job.id)]
        files += [self.file(self.film(job), suffix) for suffix in self.film_suffixes]
        mapless = stored.disagreement is None  # one answer alone was given
        if not all(file.is_file() for file in files if not (mapless and file.name.endswith(UNCERTAINTY))):
            return False
        self.rows[job.id] = self._row(stored, job)
        return True

    def write(self, job: Sample, prediction: Prediction, image_HWC: NDArray[np.float32], ensemble: Sequence[str], asked: AskedFile) -> None:
        """The files of one answer and its row. InputError unwritable."""
        answer = prediction_file(prediction, ensemble, asked)
        self._clear(job)
        if UNCERTAINTY in self.suffixes and prediction.spread_HW is not None:
            write_probability(self.file(job.id, UNCERTAINTY), prediction.spread_HW)
        if MASK in self.suffixes:
            write_mask(self.file(job.id, MASK), prediction.mask_HW)
            write_probability(self.file(job.id, PROBABILITY), prediction.probability_HW)
            write_overlay(self.file(job.id, OVERLAY), image_HWC, prediction.mask_HW)
        if NIFTI in self.suffixes:
            grid = prediction.geometry
            down, right = grid.spacing_mm or (1.0, 1.0)
            affine = grid.affine or ((0.0, 0.0, right, 0.0), (0.0, down, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
            own = [int(axis) for axis in np.argsort(grid.axes)]
            of_file = tuple((*(row[axis] for axis in own), row[3]) for row in affine)
            write_nifti(self.file(job.id, NIFTI), prediction.mask_HW[None].transpose(own), of_file, placed=grid.affine is not None)
        write_json(self.file(job.id, ANSWER), answer)
        if self.film_suffixes:
            probability = prediction.probability_HW if self.probabilities else np.zeros((0, 0), np.float32)
            self.segments[self.film(job)].append(self._segment(prediction, prediction.mask_HW[None], probability[None]))
        self.rows[job.id] = self._row(answer, job)

    def write_volume(self, job: Sample, prediction: VolumePrediction, volume: Volume, ensemble: Sequence[str], asked: AskedFile) -> None:
        """The files of one answer to a volume and its row. InputError unwritable."""
        answer = prediction_file(prediction, ensemble, asked)
        self._clear(job)
        if NIFTI in self.suffixes_of(job.id):
            placed = "orientation_assumed" not in volume.warnings
            write_nifti(self.file(job.id, NIFTI), volume.on_grid(prediction.mask_DHW), volume.affine, placed=placed)
        write_json(self.file(job.id, ANSWER), answer)
        if self.film_suffixes:
            from .io.dicom_out import Packed

            steps = np.zeros((0, 0, 0), np.uint8) if prediction.probability_DHW is None else prediction.probability_DHW
            self.segments[self.film(job)].append(self._segment(prediction, Packed(prediction.mask_DHW), Packed(steps)))
        self.rows[job.id] = self._row(answer, job)

    def write_film(self, film: str, image: Image, bundle_sha256: str) -> None:
        """The DICOM objects of a film, all of whose answers are written. InputError dicom_source, unwritable."""
        segments = self.segments.pop(film, [])
        for suffix in self.film_suffixes if segments else ():
            file = self.file(film, suffix)
            if suffix == SEG:
                from .io.dicom_seg import write_seg

                write_seg(file, image.headers, segments, bundle_sha256, probabilities=self.probabilities)
            elif suffix == GSPS:
                from .io.dicom_gsps import write_gsps

                write_gsps(file, image.headers[0], segments, bundle_sha256)
            else:
                from .io.dicom_sc import write_sc

                write_sc(file, image.headers[0], image.pixels_HWC, segments, bundle_sha256)

    def write_stack(self, film: str, volume: Volume, bundle_sha256: str) -> None:
        """The SEG of a volume, all of whose answers are written. InputError dicom_source, unwritable."""
        segments = self.segments.pop(film, [])
        if SEG in self.film_suffixes and segments:
            from .io.dicom_seg import write_seg

            frames = volume.frames or None
            write_seg(self.file(film, SEG), volume.headers, segments, bundle_sha256, frames=frames, probabilities=self.probabilities)

    def fail(self, job: Sample, error: InputError) -> None:
        """One line in the table of failures; no mask of an earlier run stays beside it."""
        self._clear(job)
        self.rows.pop(job.id, None)
        self.failures[job.id] = {"id": job.id, "code": error.code, "what": csv_cell(error.what), "fix": csv_cell(error.fix)}

    def write_reports(self) -> None:
        """One file a film that was asked by a report. InputError unwritable."""
        for name, report in self.reports.items():
            write_json(self.path / name, report)

    def save(self) -> None:
        """Both tables, each whole, in the order of the jobs. InputError unwritable."""
        for name, rows in ((PREDICTIONS, self.rows), (FAILURES, self.failures)):
            table = io.StringIO()
            writer = csv.DictWriter(table, CSV_COLUMNS[name], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[id] for id in sorted(rows, key=lambda id: self.order.get(id, -1)))
            atomic_write(self.path / name, table.getvalue())
        self.saved = time.monotonic()

    def save_what_fits(self) -> None:
        """`save` after an error, which is the one to tell."""
        with suppress(InputError):
            self.save()

    def save_often(self) -> None:
        """`save`, if the last time is some seconds ago."""
        if time.monotonic() - self.saved > SAVE_SECONDS:
            self.save()

    def _segment(self, prediction: Prediction | VolumePrediction, mask_FHW: Frames, probability_FHW: Frames) -> Segment:
        """A prediction as a segment. What is only possible is called so."""
        from .io.dicom_codes import meaning_of
        from .io.dicom_out import Segment

        meaning = meaning_of(prediction.text, prediction.finding.label if prediction.finding else None)
        if prediction.polarity == "uncertain":
            meaning = replace(meaning, label=f"possible {meaning.label}")
        return Segment(meaning, mask_FHW, probability_FHW, prediction.text if self.keep_text else "")

    def _clear(self, job: Sample) -> None:
        """Removes what an earlier run left of this case in any format, its answer first: that stands for all of them.

        A NIfTI file only where the run writes one or the answer says that it did: the name may be that of somebody's film.
        """
        suffixes = {*OURS, *self.suffixes_of(job.id)} - {ANSWER}
        with suppress(InputError):
            left = read_json(self.file(job.id, ANSWER), PredictionFile)
            suffixes |= {NIFTI} if left.voxels is not None or (left.asked and "nifti" in left.asked.formats) else set()
        _remove(self.file(job.id, ANSWER))
        for suffix in FILM_FORMATS.values():
            _remove(self.file(self.film(job), suffix))
        for suffix in suffixes:
            _remove(self.file(job.id, suffix))

    def _row(self, answer: PredictionFile, job: Sample) -> Row:
        names = [f"{job.id}{suffix}" for suffix in self.suffixes_of(job.id) if suffix not in (ANSWER, UNCERTAINTY)]
        names += [f"{self.film(job)}{suffix}" for suffix in self.film_suffixes]
        return table_row(answer, job.row, names[0])

    def _check_reports(self) -> None:
        for name, report in self.reports.items():
            if (self.path / name).exists() and read_json(self.path / name, ReportFile) != report:
                raise InputError("another report was answered here", self.path / name, "Choose another folder, or --overwrite.", "resume")

    def _check_free(self, sources: Collection[Path], replace: bool) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise InputError("the output is a folder, and this is a file", self.path, "Choose another folder.", "exists")
        try:
            there = set(os.listdir(self.path)) if self.path.exists() else set()
        except OSError as error:
            raise InputError(f"the folder cannot be read ({error.strerror})", self.path, "Choose another folder.", "unwritable") from error
        films = {self.films.get(id, id) for id in self.order}
        wanted = [PREDICTIONS, FAILURES, *self.reports]
        wanted += [f"{id}{suffix}" for id in self.order for suffix in dict.fromkeys((*self.suffixes_of(id), *OURS))]
        wanted += [f"{film}{suffix}" for film in sorted(films) for suffix in FILM_FORMATS.values()]
        taken = next((name for name in wanted if name in there), None)
        lost = there.intersection(wanted)
        if any(source.name in lost and _lies_in(source, self.path) for source in sources):
            raise InputError("an answer would be written over its film", self.path, "Choose another folder.", "exists")
        if taken and not replace:
            fix = "Choose another folder, --resume to go on with this one, or --overwrite to replace it."
            raise InputError("the file exists already", self.path / taken, fix, "exists")


def _lies_in(file: Path, folder: Path) -> bool:
    try:
        return file.parent.samefile(folder)
    except (OSError, ValueError):
        return False


def _suffixes(formats: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those of a case's files, the answer last, and those of a film's."""
    every = [*CASE_FORMATS, *FILM_FORMATS]
    unknown = [name for name in formats if name not in every]
    if unknown or not formats:
        what = f"the format {unknown[0]!r} is not known" if unknown else "no format was named"
        raise InputError(what, "--format", f"This version writes {', '.join(every)}.", "format")
    cases = dict.fromkeys(suffix for name in formats for suffix in CASE_FORMATS.get(name, ()))
    return (*cases, ANSWER), tuple(dict.fromkeys(FILM_FORMATS[name] for name in formats if name in FILM_FORMATS))


def _check_ids(jobs: Sequence[Sample]) -> None:
    """Ids become names of files."""
    if not jobs:
        raise InputError("there is nothing to predict", "", "Name images, or a jobs file with rows.", "no_jobs")
    for job in jobs:
        if job.id != safe_id(job.id):
            fix = "Use A-Z a-z 0-9 . _ - and at most 100 of them."
            raise InputError(f"row {job.row}: the id {job.id!r} cannot be the name of a file", "", fix, "bad_id")
    id, count = Counter(job.id.lower() for job in jobs).most_common(1)[0]
    if count > 1:
        what = f"{count} jobs have the id {id!r} (capitals do not tell files apart on every disk)"
        raise InputError(what, "", "Give each its own id.", "duplicate_id")


def _read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a table that an earlier run left; none where there is no table."""
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise _not_ours(path) from error
    if tuple(reader.fieldnames or ()) != CSV_COLUMNS[path.name] or any(None in row or None in row.values() for row in rows):
        raise _not_ours(path)
    return rows


def _not_ours(path: Path) -> InputError:
    return InputError("this is not a table that predict wrote, so there is nothing to resume", path, "Choose another folder.", "resume")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"the file cannot be replaced ({error.strerror})", path, "Choose another folder.", "unwritable") from error
