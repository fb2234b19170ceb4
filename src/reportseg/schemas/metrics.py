"""metrics.json: what an evaluation found."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..types import INTENDED_USE
from .base import Count, Difference, File, Fraction, Interval, NonNegative, Sha256
from .bundle import DecisionConfig


class Scores(File):
    """The scores of one set of cases."""

    dice_pooled: Fraction | None = Field(description="Dice of all pixels of all cases together.")
    iou_pooled: Fraction | None = Field(description="IoU of all pixels of all cases together.")
    dice_mean: Fraction | None = Field(description="Mean over cases of the Dice.")
    iou_mean: Fraction | None = Field(description="Mean over cases of the IoU.")
    hd95: NonNegative | None = Field(default=None, description="Mean 95th percentile Hausdorff distance, in hd95_unit.")
    nsd: Fraction | None = Field(default=None, description="Mean normalised surface Dice at nsd_tolerance.")
    ece: Fraction | None = Field(default=None, description="Expected calibration error over pixels, 15 equal-width bins.")
    ece_border: Fraction | None = Field(default=None, description="The same over the pixels within 10 px of a true border.")
    presence_auroc: Fraction | None = Field(
        default=None, description="AUROC of presence, of prompts with a target against absent ones; null where the bundle has no such head."
    )
    absent_correct: Fraction | None = Field(
        default=None, description="Share of absent prompts answered with an empty mask; null where there is none."
    )


class ControlScores(Scores):
    """The same cases under a changed text."""

    n_changed: Count = Field(description="Cases whose text the control changed.")
    n_cases: Count | None = Field(default=None, description="Cases scored; swapped-side scores only those whose zones change.")
    difference: dict[str, Difference] = Field(default={}, description="Original minus control on the same cases: value, lower, upper.")


class SubsetScores(Scores):
    """The cases of one subset."""

    n_cases: Count = Field(description="Cases in the subset.")
    ci95: dict[str, Interval] = Field(default={}, description="95 % interval of each score: lower, upper.")


class Counts(File):
    """How many cases the policy for empty masks decided."""

    both_empty: Count = Field(default=0, description="Cases where truth and prediction are empty; Dice 1.")
    truth_only: Count = Field(default=0, description="Cases with an empty prediction and a target; Dice 0.")
    pred_only: Count = Field(default=0, description="Cases with a prediction and no target; Dice 0.")
    failed: Count = Field(default=0, description="Cases that could not be read; scored as an empty prediction.")


class IntervalMethod(File):
    """How the 95 % intervals were made."""

    method: str = Field(default="percentile bootstrap of patients", description="How the intervals were made.")
    n_boot: Count = Field(description="Draws.")
    clusters: Count = Field(description="Patients; a film without a patient is its own cluster.")
    without_patient: Count = Field(default=0, description="Films without a patient; above 0 the intervals are a lower bound.")


class Twin(File):
    """What the text bought: this model minus its twin trained with a constant sentence."""

    bundle_sha256: Sha256 | None = Field(description="The twin's hash.")
    difference: dict[str, Difference] = Field(description="Paired difference of each score: value, lower, upper.")


class RiskCoverage(File):
    """What it is worth that answers say how sure they are: the least sure are rejected first."""

    n_cases: Count = Field(description="Cases ranked: those that failed, and those whose text denies, say nothing.")
    risk: Literal["1 - dice"] = Field(default="1 - dice", description="Risk of a case.")
    aurc: dict[str, Fraction] = Field(
        description="Mean over all coverages k/n of the mean risk of the k surest cases, lower is better; by measure: uncertainty "
        "(1 minus the Dice to expect under the calibrated probabilities), disagreement (1 minus the mean Dice of the averaged answers "
        "with their average), area (small predicted masks are rejected first), random, oracle."
    )
    ci95: dict[str, Interval] = Field(default={}, description="95 % interval of each: lower, upper.")
    gain_over_area: dict[str, Difference] = Field(
        default={}, description="AURC of area minus that of the measure, on the same draws: value, lower, upper."
    )


class VolumeScores(File):
    """The scores of volumes in three dimensions: a study and organ each, put together from its slices."""

    n_volumes: Count = Field(description="Volumes scored.")
    dice_pooled: Fraction | None = Field(description="Dice of all voxels of all volumes together.")
    dice_mean: Fraction | None = Field(description="Mean over volumes of the Dice.")
    iou_mean: Fraction | None = Field(description="Mean over volumes of the IoU.")
    hd95: NonNegative | None = Field(description="Mean 95th percentile Hausdorff distance between surfaces, in volume_hd95_unit.")
    nsd: Fraction | None = Field(description="Mean normalised surface Dice at nsd_tolerance, in that unit.")
    volume_ml: NonNegative | None = Field(description="Mean volume of the predictions in millilitres; null where the spacing is unknown.")
    true_volume_ml: NonNegative | None = Field(description="Mean volume of the truth.")
    volume_error_ml: NonNegative | None = Field(description="Mean absolute difference of the two.")
    ci95: dict[str, Interval] = Field(default={}, description="95 % interval of each score: lower, upper.")


class Metrics(Scores):
    """metrics.json: one bundle on one split of one manifest under one decision rule."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this file.")
    command: str = Field(description="The command that made it.")
    name: str | None = Field(default=None, description="Name of the configuration; null for masks made by other code.")
    bundle_sha256: Sha256 | None = Field(description="Hash of the bundle; null for masks made by other code.")
    ensemble: list[Sha256] = Field(default=[], description="Hashes of the further bundles whose probabilities were averaged.")
    config_sha256: Sha256 | None = Field(default=None, description="Hash of the run's configuration without its seed.")
    model_sha256: Sha256 | None = Field(
        default=None,
        description="Hash of the `model` section of that configuration, without defaults and presence head; null in older files.",
    )
    twin_sha256: Sha256 | None = Field(
        default=None, description="Hash of what a model and its text-free twin share: architecture, films, schedule, teacher and parent."
    )
    films_sha256: Sha256 | None = Field(
        default=None, description="Hash of the films that it was trained on; null in older files and for masks made by other code."
    )
    seed: int = Field(description="Seed of the training; 0 for masks made by other code.")
    cases_sha256: Sha256 = Field(description="Hash over ids and true masks; equal for results that may be paired.")
    split: str = Field(description="Split that was scored.")
    n_cases: Count = Field(description="Cases scored.")
    n_patients: Count = Field(description="Patients among them.")
    decision: DecisionConfig | None = Field(description="The decision rule; null for masks made by other code.")
    text: str = Field(description="Column the text came from, or `constant` for a text-free twin.")
    hd95_unit: Literal["mm", "px"] = Field(description="Unit of hd95.")
    nsd_tolerance: NonNegative = Field(description="Tolerance of nsd, in hd95_unit.")
    empty_policy: str = Field(
        default="Dice and IoU: both empty 1, one empty 0. HD95: both empty 0, one empty the image diagonal.",
        description="How empty masks are scored.",
    )
    n_absent: Count = Field(
        default=0, description="Absent prompts behind the two scores of presence: absent targets, and films asked for their other side."
    )
    counts: Counts = Field(description="How many cases met that policy.")
    ci95: dict[str, Interval] = Field(default={}, description="95 % interval of each score: lower, upper.")
    ci: IntervalMethod | None = Field(default=None, description="How the intervals were made.")
    controls: dict[str, ControlScores] = Field(default={}, description="Scores under changed texts, by control.")
    subsets: dict[str, SubsetScores] = Field(default={}, description="Scores of each subset that the manifest names.")
    volumes: dict[str, VolumeScores] = Field(
        default={}, description="Where every row is a slice of a study: the scores of whole volumes, `all`, and by label."
    )
    volume_hd95_unit: Literal["mm", "px"] | None = Field(default=None, description="Unit of the distances of volumes.")
    twin: Twin | None = Field(default=None, description="Comparison with the text-free twin, where one was given.")
    ece_raw: Fraction | None = Field(default=None, description="ece at temperature 1, before the fit on dev.")
    ece_border_raw: Fraction | None = Field(default=None, description="ece_border at temperature 1.")
    risk_coverage: RiskCoverage | None = Field(
        default=None, description="Whether the answers know how good they are; null for masks made by other code."
    )
    warnings: list[str] = Field(default=[], description="What a reader must know, e.g. patients shared with the training split.")
    images_per_s: NonNegative | None = Field(default=None, description="Rate of prediction; reading and scoring not counted.")
    demo_s: NonNegative | None = Field(default=None, description="Program time of the whole demo; null elsewhere.")
    intended_use: str = Field(default=INTENDED_USE, description="What the result may be used for.")
