"""What `predict` writes beside masks: <id>.json of an answer, and <id>.report.json of a report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ..types import INTENDED_USE, Laterality, Polarity, Reason, Side
from .base import Count, File, Fraction, NonNegative, Positive, Sha256
from .bundle import DecisionConfig


class FindingFile(File):
    """What was asked."""

    text: str = Field(description="The prompt, or the clause of the report that was read.")
    span: tuple[Count, Count] | None = Field(default=None, description="Its characters in the report; null for a prompt.")
    side: Side | None = Field(default=None, description="Side that the report names, as it names it.")
    zone: str | None = Field(default=None, description="Zone that it names.")
    label: str | None = Field(default=None, description="Concept that it names.")


class AskedFile(File):
    """What an answer depends on beside bundle, text and decision: `predict --resume` keeps one only where all of it is the same again."""

    source_sha256: Sha256 = Field(description="Hash of the film's file; of a series that of the sorted hashes of its files.")
    laterality: Laterality | None = Field(description="Whose left the text was said to mean; null where nobody said.")
    spacing_mm: tuple[Positive, Positive] | None = Field(description="Distances of rows and columns that the jobs file gives.")
    formats: list[str] = Field(description="Formats that were written, sorted.")
    keep_text: bool = Field(description="Whether DICOM objects hold the text.")
    probabilities: bool = Field(description="Whether a SEG holds probabilities.")
    uncertainty: bool = Field(description="Whether the map of averaged answers was asked for.")


class PredictionFile(File):
    """<id>.json beside a predicted mask. Holds the text that was asked: personal data, like the report it came from."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this file.")
    id: str = Field(description="The case, as in predictions.csv.")
    bundle_sha256: Sha256 = Field(description="Hash of the bundle.")
    ensemble: list[Sha256] = Field(default=[], description="Hashes of the further bundles whose probabilities were averaged.")
    finding: FindingFile | None = Field(default=None, description="What was asked.")
    asked: AskedFile | None = Field(default=None, description="Of which film, and how, it was asked; null in answers of other programs.")
    polarity: Polarity = Field(default="present", description="Whether the text affirms, denies or doubts the finding.")
    presence: Annotated[Fraction | Literal["unavailable"], BeforeValidator(lambda v: "unavailable" if v is None else v)] = Field(
        default="unavailable", description="Probability that the finding is there; unavailable where the bundle has no such head."
    )
    area_px: Count | None = Field(description="Area of the mask in pixels of the image; null for a volume.")
    area_mm2: NonNegative | None = Field(
        default=None, description="Area in square millimetres; null where the spacing is unknown, and for a volume."
    )
    voxels: Count | None = Field(default=None, description="Voxels in the mask of a volume; null for a film.")
    volume_ml: NonNegative | None = Field(default=None, description="Volume of the mask in millilitres; null for a film.")
    side: Side | None = Field(default=None, description="Side that the mask lies on, in the convention of `laterality`.")
    laterality: Laterality = Field(description="Whose left `side` means.")
    uncertainty: Fraction | None = Field(
        default=None, description="1 minus the Dice to expect of the mask under its calibrated probabilities; null for a denied text."
    )
    disagreement: Fraction | None = Field(
        default=None,
        description="1 minus the mean Dice of the averaged answers' own masks with this one; null where one alone was given, or not asked.",
    )
    decision: DecisionConfig = Field(description="The decision rule.")
    engine: str = Field(description="What computed it, e.g. torch-cpu.")
    warnings: list[str] = Field(default=[], description="Codes of the warnings.")
    unknown_words: list[str] = Field(default=[], description="The words behind the warning out_of_vocabulary.")
    time_s: NonNegative = Field(default=0.0, description="Time of the answer in seconds.")
    intended_use: str = Field(default=INTENDED_USE, description="What the answer may be used for.")


class ReportFinding(FindingFile):
    """A finding of a report."""

    id: str | None = Field(description="Case that answers it; null for a denied one, which gets no mask.")
    polarity: Polarity = Field(description="Whether the report affirms, denies or doubts it.")


class SkippedFile(File):
    """A sentence of a report, or a part of one, that gave no finding."""

    text: str = Field(description="What it says.")
    span: tuple[Count, Count] = Field(description="Its characters in the report.")
    reason: Reason = Field(
        description="no_finding: names none that is known; indication: why the film was taken; history: the past; "
        "recommendation: what to do; technique: how the film was taken; other_language: the report is not in English."
    )


class ReportFile(File):
    """<id>.report.json: how a report was understood. Holds the report's text: personal data, like the report."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this file.")
    id: str = Field(description="The film.")
    findings: list[ReportFinding] = Field(description="What the report affirms, denies or doubts, in its order.")
    skipped: list[SkippedFile] = Field(description="What gave no finding, and why.")
    warnings: list[str] = Field(default=[], description="Codes of the warnings that concern the whole report.")
    unknown_words: list[str] = Field(default=[], description="The words behind the warning out_of_vocabulary.")
    intended_use: str = Field(default=INTENDED_USE, description="What the answer may be used for.")
