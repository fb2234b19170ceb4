"""What the files of answers hold, and whether an answer that lies there is the one that a run would give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .limits import csv_cell, finding_id
from .schemas.bundle import DecisionConfig
from .schemas.files import CSV_COLUMNS
from .schemas.prediction import AskedFile, FindingFile, PredictionFile, ReportFile, ReportFinding, SkippedFile
from .text import Reading
from .types import Finding, Laterality, Prediction, Sample, VolumePrediction

OPTIONS = ("keep_text", "probabilities", "uncertainty")  # of AskedFile, named as on the command line


def prediction_file(prediction: Prediction | VolumePrediction, ensemble: Sequence[str], asked: AskedFile) -> PredictionFile:
    """A prediction as its `<id>.json`. `ensemble` are the hashes of the further bundles."""
    film, volume = (prediction, None) if isinstance(prediction, Prediction) else (None, prediction)
    return PredictionFile(
        id=prediction.id,
        bundle_sha256=prediction.bundle_sha256,
        ensemble=list(ensemble),
        finding=_finding_file(prediction.text, prediction.finding),
        asked=asked,
        polarity=prediction.polarity,
        presence="unavailable" if prediction.presence is None else prediction.presence,
        area_px=film.area_px if film else None,
        area_mm2=film.area_mm2 if film else None,
        voxels=volume.voxels if volume else None,
        volume_ml=volume.volume_ml if volume else None,
        side=prediction.side,
        laterality=prediction.laterality,
        uncertainty=film.uncertainty if film else None,
        disagreement=film.disagreement if film else None,
        decision=DecisionConfig.model_validate(dict(prediction.decision)),
        engine=prediction.engine,
        warnings=list(prediction.warnings),
        unknown_words=list(prediction.unknown_words),
        time_s=prediction.time_s,
    )


def report_file(id: str, reading: Reading, warnings: Sequence[str] = (), unknown_words: Sequence[str] = ()) -> ReportFile:
    """How a report was understood for the film `id`, as its `<id>.report.json`."""
    asked = {finding: finding_id(id, number) for number, finding in enumerate(reading.asked, 1)}
    return ReportFile(
        id=id,
        findings=[ReportFinding(id=asked.get(finding), polarity=finding.polarity, **_finding(finding)) for finding in reading.findings],
        skipped=[SkippedFile(text=part.text, span=part.span, reason=part.reason) for part in reading.skipped],
        warnings=list(warnings),
        unknown_words=list(unknown_words),
    )


def difference(stored: PredictionFile, job: Sample, asked: AskedFile, bundles: Sequence[str], flips: bool) -> str:
    """What an answer is that this run would not give, "" where it is the one. `bundles` are hashes."""
    then = stored.asked
    if then is None:
        return "does not say which film it is of"
    if then.source_sha256 != asked.source_sha256:
        return "is of another film"
    if (stored.bundle_sha256, *stored.ensemble) != tuple(bundles):
        return "comes from another bundle"
    if stored.finding != _finding_file(job.text, job.finding):
        return "answers another text"
    if then.laterality != asked.laterality:
        return f"was made {_sides(then.laterality)}, not {_sides(asked.laterality)}"
    if then.spacing_mm != asked.spacing_mm:
        return "was made for another spacing"
    if then.formats != asked.formats:
        return f"was written as {','.join(then.formats)}"
    options = {"--flips": (stored.decision.flips, flips)}
    options |= {f"--{name.replace('_', '-')}": (getattr(then, name), getattr(asked, name)) for name in OPTIONS}
    return next((f"was made {'with' if old else 'without'} {name}" for name, (old, new) in options.items() if old != new), "")


def _sides(laterality: Laterality | None) -> str:
    return "without a --laterality" if laterality is None else f"for sides of the {laterality}".replace("the none", "nobody")


def _finding_file(text: str, finding: Finding | None) -> FindingFile:
    return FindingFile(**_finding(finding)) if finding else FindingFile(text=text)


def _finding(finding: Finding) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in FindingFile.model_fields}


def table_row(answer: PredictionFile, source_row: int, mask: str) -> dict[str, str]:
    """A line of predictions.csv. `status`: done, or negated where the text denies and the mask is empty for that reason."""
    presence = answer.presence
    cells: dict[str, Any] = {
        "id": answer.id,
        "row": source_row,
        "finding": csv_cell(answer.finding.text) if answer.finding else "",
        "polarity": answer.polarity,
        "status": "negated" if answer.polarity == "absent" else "done",
        "mask": mask,
        "presence": presence if isinstance(presence, str) else f"{presence:.6g}",
        "area_px": "" if answer.area_px is None else answer.area_px,
        "volume_ml": "" if answer.volume_ml is None else f"{answer.volume_ml:.6g}",
        "side": answer.side or "",
        "laterality": answer.laterality,
        **{name: "" if (value := getattr(answer, name)) is None else f"{value:.6g}" for name in ("uncertainty", "disagreement")},
        "warnings": ";".join(answer.warnings),
    }
    return {name: str(cells[name]) for name in CSV_COLUMNS["predictions.csv"]}
