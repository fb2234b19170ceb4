"""Every JSON and CSV file that reportseg writes, as code: `reportseg config schema` and the docs are generated from here.

All scores are fractions, never percent. A score that could not be computed is null; NaN and infinity are refused.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .config import MAX_SIDE, place
from .errors import InputError
from .limits import atomic_write, check_file
from .types import INTENDED_USE, Laterality, Polarity, Reason, Side

MAX_JSON_BYTES = 64 * 2**20
MAX_JSON_DEPTH = 100
MAX_CURVE_POINTS = 200

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Windows = dict[str, tuple[float, Positive]]
"""Name of an organ, or default -> centre and width of its window in Hounsfield units."""
Interval = tuple[float, float]
Difference = tuple[float, float, float]
M = TypeVar("M", bound=BaseModel)


class File(BaseModel):
    """What all of them share: frozen, no unknown key, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=(), populate_by_name=True)


class DecisionConfig(File):
    """How a probability map becomes a mask."""

    rule: Literal["fixed", "expected_dice"] = Field(description="fixed: cut at `threshold`; expected_dice: the best cut per film.")
    threshold: Fraction = Field(description="Cut on calibrated probabilities; unused by expected_dice.")
    temperature: Positive = Field(description="Logits are divided by it before the sigmoid.")
    flips: bool = Field(
        default=False, description="Whether the answer is averaged with that to the mirrored film under swapped side words, mirrored back."
    )


# ---- bundle: config.json and training.json


class Tower(File):
    """A pretrained tower that the bundle stands on; all null for one trained from scratch."""

    id: str | None = Field(default=None, description="Hub id, or path as the training's config had it, of the public weights.")
    revision: str | None = Field(default=None, description="Commit of the hub id.")
    sha256: Sha256 | None = Field(
        default=None, description="Hash of its weights; must match where they are not in the bundle, as of a frozen tower."
    )
    config: dict[str, Any] | None = Field(default=None, description="Its architecture, from its config.json.")


class Base(File):
    """The pretrained towers under the weights."""

    vision: Tower = Field(default=Tower(), description="The image tower.")
    text: Tower = Field(default=Tower(), description="The text tower.")
    cnn: Tower = Field(default=Tower(), description="The CNN branch.")


class Preprocess(File):
    """From a film to the grid that the model reads."""

    size_px: int = Field(gt=0, le=MAX_SIDE, description="Side of the square grid that the model reads, in pixels.")
    resize: Literal["stretch"] = Field(default="stretch", description="How a film meets the square: stretched to it.")
    mean: tuple[float, float, float] = Field(description="Mean per colour channel, for pixels in [0, 1].")
    std: tuple[Positive, Positive, Positive] = Field(description="Standard deviation per colour channel.")
    windows: Windows = Field(
        default={}, description="Of CT volumes: the window of each organ, as it was trained with; empty means those of reportseg."
    )


class TextConfig(File):
    """How a sentence is read."""

    laterality: Laterality = Field(description="Whose left the training sentences mean: patient, image, or none.")
    max_tokens: int | None = Field(
        gt=0,
        description="Tokens read at a time: longer texts are cut at sentences, and a longer sentence records text_truncated. "
        "Null where no text is read.",
    )


class TrainedOn(File):
    """A data set behind the weights."""

    name: str = Field(description="Name of the data set.")
    licence: str = Field(description="Its licence, as its owner states it.")
    split_sha256: Sha256 = Field(description="sha256 of the sorted ids trained on, joined by newlines.")
    flip_safe: bool | None = Field(
        default=None,
        description="Whether its mirrored films with swapped side words are as true, as its manifest says; null where it is not recorded.",
    )


class BundleConfig(File):
    """config.json of a bundle. The bundle's hash is the sha256 of this file's canonical form."""

    format: Literal["reportseg-bundle"] = Field(default="reportseg-bundle", description="Says that this directory is a bundle.")
    version: int = Field(default=1, ge=1, description="Version of the format.")
    model_type: str = Field(description="Name of the model, a key of `reportseg models`.")
    model: dict[str, Any] = Field(description="The model's own configuration; its schema is that of the model type.")
    base: Base = Field(default=Base(), description="Pretrained towers that the weights stand on.")
    preprocess: Preprocess = Field(description="What happens to an image before the model sees it.")
    text: TextConfig = Field(description="What happens to a text before the model reads it.")
    decision: DecisionConfig = Field(description="Fitted on dev at the end of training.")
    presence: bool = Field(default=False, description="Whether the presence head was trained; if not, presence is unavailable.")
    trained_on: list[TrainedOn] = Field(default=[], description="The data sets behind the weights.")
    parent: Sha256 | None = Field(default=None, description="Hash of the bundle that this one was fine-tuned from.")
    licence: str = Field(description="Licence of the weights.")
    intended_use: str = Field(default=INTENDED_USE, description="What the bundle may be used for.")
    files: dict[str, Sha256] = Field(description="sha256 of every file of the bundle but README.md and engines/.")


Curve = Annotated[list[tuple[Count, float]], Field(max_length=MAX_CURVE_POINTS)]


class TrainingFile(File):
    """training.json of a bundle: how the weights came about."""

    images: Count = Field(description="Images seen, repeats counted.")
    steps: Count = Field(description="Optimiser steps.")
    seconds: NonNegative = Field(description="Training time from the first film on, all resumed parts together.")
    seed: int = Field(default=0, description="Seed of the run.")
    device: str = Field(default="cpu", description="Device type: cpu, cuda, mps.")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="Precision of the forward pass.")
    truncated: bool = Field(default=False, description="Whether the safety stop cut the schedule short.")
    teacher: list[Sha256] = Field(default=[], description="Hashes of the bundles whose answers softened the masks.")
    parent_twin: Sha256 | None = Field(
        default=None, description="Hash of what the parent and its text-free twin share; null without a parent that has a twin, or unknown."
    )
    config: dict[str, Any] = Field(default={}, description="The resolved run configuration, without paths.")
    dev: dict[str, float | None] = Field(default={}, description="Scores of the finished model on dev.")
    curves: dict[str, Curve] = Field(default={}, description="Name to [images seen, value], at most 200 points each.")


# ---- run folder


class EnvFile(File):
    """env.json of a run folder: what is needed to repeat the run."""

    commit: str | None = Field(default=None, description="Commit of the sources, null outside a checkout.")
    versions: dict[str, str] = Field(description="Versions of Python, reportseg and the libraries that compute.")
    platform: str = Field(default="", description="Operating system and processor family.")
    device: str = Field(default="cpu", description="Device that trained.")
    threads: Count = Field(default=0, description="CPU threads; a resume is bit-exact only for an equal count.")
    seed: int = Field(description="Seed of the run.")
    split_sha256: Sha256 = Field(description="sha256 of the sorted ids trained on, joined by newlines.")
    dev_ids: list[str] = Field(description="Ids held out of training for everything that is fitted or selected.")
    teacher: list[Sha256] = Field(default=[], description="Hashes of the bundles whose answers soften the masks.")
    sources: dict[str, Sha256] | None = Field(
        default=None,
        description="Hashes of the answers at data.teacher (`teacher`) and of the bundle at train.init (`init`); null in older runs.",
    )


# ---- metrics.json


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
    twin_sha256: Sha256 | None = Field(
        default=None, description="Hash of what a model and its text-free twin share: architecture, films, schedule, teacher and parent."
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


# ---- compare.json

COMPARED = ("dice_pooled", "dice_mean", "iou_pooled", "iou_mean", "hd95", "nsd")


class ComparedRun(File):
    """One evaluation."""

    seed: int = Field(description="Seed of the training; 0 for masks made by other code.")
    bundle_sha256: Sha256 | None = Field(description="Hash of the bundle; null for masks made by other code.")
    ensemble: list[Sha256] = Field(default=[], description="Hashes of the further bundles whose probabilities were averaged.")
    decision: DecisionConfig | None = Field(description="The decision rule; null for masks made by other code.")
    scores: dict[str, float] = Field(description="Its scores.")


class FilmDifference(File):
    """A film that two methods answer differently; where a method has several seeds, with its mean over them."""

    id: str = Field(description="The case, as in cases.csv.")
    dice: Fraction = Field(description="Dice of this method.")
    reference: Fraction = Field(description="Dice of the reference.")


class ComparedArm(File):
    """One method: the evaluations of one configuration, one for each seed."""

    name: str = Field(description="Its name in the tables: that of the configuration, else that of the folder.")
    text: str = Field(description="Column the text came from, or `constant` for a method that reads none.")
    config_sha256: Sha256 | None = Field(description="Hash of the configuration without its seed; null where none is known.")
    runs: list[ComparedRun] = Field(min_length=1, description="Its evaluations, by seed.")
    scores: dict[str, float] = Field(description="Mean over the seeds.")
    ci95: dict[str, Interval] = Field(description="95 % interval of each score: lower, upper; empty where all cases are of one patient.")
    difference: dict[str, Difference] = Field(
        default={}, description="This method minus the reference, paired: value, lower, upper; empty where all cases are of one patient."
    )
    p: Fraction | None = Field(
        default=None, description="Wilcoxon's p against the reference; null where one of the two has two seeds, or there is one patient."
    )
    p_holm: Fraction | None = Field(default=None, description="The same, adjusted for the family.")
    win: Count | None = Field(default=None, description="Films whose Dice is above the reference's by more than tie_margin.")
    tie: Count | None = Field(default=None, description="Films within tie_margin.")
    loss: Count | None = Field(default=None, description="Films whose Dice is below the reference's by more than tie_margin.")
    films: list[FilmDifference] = Field(default=[], description="The films of greatest gain, then those of greatest loss.")


class Family(File):
    """The tests that Holm's adjustment counts."""

    test: str = Field(default="two-sided Wilcoxon signed-rank test on patient means", description="The test.")
    score: str = Field(default="dice_mean", description="What is tested, each method against the reference.")
    n: Count = Field(description="Tests made.")


class Comparison(File):
    """compare.json: methods on the same cases, each against one reference."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this file.")
    command: str = Field(description="The command that made it.")
    cases_sha256: Sha256 = Field(description="Hash over ids and true masks, equal in all evaluations.")
    split: str = Field(description="Split that was scored.")
    n_cases: Count = Field(description="Cases scored.")
    n_patients: Count = Field(description="Patients among them.")
    hd95_unit: Literal["mm", "px"] = Field(description="Unit of hd95.")
    nsd_tolerance: NonNegative = Field(description="Tolerance of nsd, in hd95_unit.")
    empty_policy: str = Field(description="How empty masks are scored.")
    reference: str = Field(description="Name of the method that the others are compared with.")
    tie_margin: Fraction = Field(description="Films whose Dice differs by no more are a tie.")
    ci: IntervalMethod = Field(description="How the intervals were made.")
    family: Family = Field(description="The tests that p_holm counts.")
    arms: list[ComparedArm] = Field(min_length=2, description="The methods, in the order of the command.")
    warnings: list[str] = Field(default=[], description="What a reader must know.")
    intended_use: str = Field(default=INTENDED_USE, description="What the result may be used for.")


# ---- study

Verdict = Literal["helps", "does not help", "undecided"]


class StudyPlan(File):
    """plan.json of a study: what is asked and how it is to be answered, written before the first training or scoring."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this file.")
    kind: Literal["ablate", "text", "data", "transfer", "cost"] = Field(description="The study.")
    command: str = Field(default="", description="The command that wrote it.")
    written: str = Field(description="When it was written, UTC.")
    metric: str | None = Field(default=None, description="The score that the answer is read from.")
    smallest: Positive | None = Field(default=None, description="Smallest effect of interest, in units of the metric.")
    seeds: list[int] = Field(default=[], description="Seeds of every arm.")
    arms: list[str] = Field(default=[], description="What is set side by side: changes, shares, columns, or subjects.")
    split: str | None = Field(default=None, description="Split that is scored; of several manifests one for each, by commas.")
    config: dict[str, Any] | None = Field(default=None, description="The configuration that all arms share, without paths.")
    bundles: list[Sha256] = Field(default=[], description="Hashes of the bundles, the twin's last.")
    films: dict[str, Sha256] = Field(default={}, description="Hash of each set of films: of its sorted ids, or of ids and true masks.")
    sources: dict[str, Sha256] = Field(
        default={}, description="Hash of what the configuration names beside films: the answers of its `teacher`, the bundle of its `init`."
    )
    settings: dict[str, int | str] = Field(default={}, description="What else the figures depend on, as the size of the films.")


class StudyFile(File):
    """What the files of all studies share."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this file.")
    command: str = Field(description="The command that made it.")
    warnings: list[str] = Field(default=[], description="What a reader must know.")
    intended_use: str = Field(default=INTENDED_USE, description="What the result may be used for.")


class ScoredStudy(StudyFile):
    """What the studies share that score one set of films."""

    name: str = Field(description="Name of the configuration.")
    metric: str = Field(description="The score that the answer is read from.")
    split: str = Field(description="Split that was scored.")
    cases_sha256: Sha256 = Field(description="Hash over ids and true masks.")
    n_cases: Count = Field(description="Cases scored.")
    n_patients: Count = Field(description="Patients among them.")
    ci: IntervalMethod = Field(description="How the intervals were made.")


class StudyArm(File):
    """One method of a study that trains: runs that differ in the seed."""

    runs: list[ComparedRun] = Field(description="Its evaluations, by seed.")
    failed: dict[int, str] = Field(default={}, description="Seed to why its training stopped with an error; such an arm has no verdict.")
    scores: dict[str, float] = Field(description="Mean over the seeds that were trained.")
    ci95: dict[str, Interval] = Field(description="95 % interval of each score: lower, upper; empty where all cases are of one patient.")


class AblationArm(StudyArm):
    """The full configuration, or that with one change."""

    change: str | None = Field(description="What was changed, as key=value; null for the full configuration.")
    params: dict[str, int] = Field(description="Parameters: total, trainable, frozen.")
    figures: dict[str, float] = Field(description="Last logged value of each figure of the training, mean over the seeds.")
    effect: dict[str, Difference] = Field(default={}, description="Full minus this, paired, of each score: value, lower, upper.")
    by_seed: dict[int, Difference] = Field(default={}, description="Effect on the metric for each seed alone: value, lower, upper.")
    verdict: Verdict | None = Field(
        default=None,
        description="helps: the interval of the effect lies above 0; does not help: its upper bound is below the smallest effect of "
        "interest; else undecided. Null for the full configuration, where all cases are of one patient, and where a training failed.",
    )
    p: Fraction | None = Field(default=None, description="Wilcoxon's p on patient means; null for two seeds, and for pooled scores.")
    p_holm: Fraction | None = Field(default=None, description="The same, adjusted for the arms of this study.")


class Ablation(ScoredStudy):
    """ablate.json: what each part of a configuration is worth."""

    smallest: Positive = Field(description="Smallest effect of interest, in units of the metric.")
    seeds: list[int] = Field(description="Seeds of every arm.")
    arms: list[AblationArm] = Field(min_length=2, description="The full configuration, then each change.")


class TextRow(File):
    """The same films under one kind of sentence."""

    name: str = Field(description="original, empty, shuffled, swapped-side, twin, or the column.")
    kind: Literal["original", "control", "column", "twin"] = Field(description="Where the sentences come from.")
    n_cases: Count = Field(description="Cases scored; swapped-side scores only those whose zones change.")
    n_changed: Count = Field(description="Cases whose sentence is another than the original.")
    n_empty: Count = Field(default=0, description="Cases without a sentence.")
    scores: dict[str, float] = Field(description="Its scores.")
    own: dict[str, float] = Field(description="Scores of the same cases under their own sentences.")
    loss: dict[str, Difference] = Field(description="Original minus this on the same cases: value, lower, upper.")


class TextStudy(ScoredStudy):
    """text.json: what the sentences bought, and which of them."""

    bundle_sha256: Sha256 = Field(description="Hash of the bundle.")
    seed: int = Field(description="Seed of its training.")
    column: str = Field(description="Column of the original sentences.")
    rows: list[TextRow] = Field(min_length=1, description="The original, the controls, the further columns, the twin.")


class DataShare(StudyArm):
    """One share of the training films."""

    share: Fraction = Field(description="Share of the training films, dev counted.")
    n_films: Count = Field(description="Films of this share, dev counted.")
    n_patients: Count = Field(description="Known patients among them.")
    gap: dict[str, Difference] = Field(default={}, description="This minus the largest share, paired, of each score.")


class DataStudy(ScoredStudy):
    """data.json: the score over the share of the training films."""

    seeds: list[int] = Field(description="Seeds of every share.")
    images: Count = Field(description="Images that each training saw, repeats counted.")
    shares: list[DataShare] = Field(min_length=2, description="By share, ascending; each holds the films of the smaller ones.")


class TransferRow(File):
    """One bundle on one data set."""

    bundle: str = Field(description="Name of the bundle's configuration.")
    bundle_sha256: Sha256 = Field(description="Hash of the bundle.")
    seed: int = Field(description="Seed of its training.")
    data: str = Field(description="Name of the data set.")
    own: bool = Field(description="Whether the bundle was trained on a data set of this name.")
    split: str = Field(description="Split that was scored.")
    cases_sha256: Sha256 = Field(description="Hash over ids and true masks.")
    n_cases: Count = Field(description="Cases scored.")
    n_patients: Count = Field(description="Patients among them.")
    scores: dict[str, float] = Field(description="Its scores.")
    ci95: dict[str, Interval] = Field(description="95 % interval of each score: lower, upper.")
    lost: dict[str, float] = Field(default={}, description="Score on the bundle's own data minus this one; other films, so not paired.")
    shuffled: dict[str, Difference] = Field(default={}, description="Own sentences minus shuffled ones: value, lower, upper.")
    codes: dict[str, Count] = Field(default={}, description="Cases with a warning, by its code.")


class TransferStudy(StudyFile):
    """transfer.json: bundles on data that they were not trained on."""

    metric: str = Field(description="The score that the answer is read from.")
    rows: list[TransferRow] = Field(min_length=1, description="Bundle by bundle, its own data first.")


class CostRow(File):
    """What one model costs; times and memory are those of this machine, ratios are to the U-Net timed in the same process."""

    name: str = Field(description="Name of the configuration.")
    model: str = Field(description="Name of the model.")
    params: dict[str, int] = Field(description="Parameters: total, trainable, frozen.")
    flops: Count = Field(description="Floating-point operations of one answer, multiply and add counted apart; of one film, one sentence.")
    predict_bytes: Count = Field(description="Peak memory of an answer at batch 1, in its own process, beyond what the libraries take.")
    train_bytes: Count = Field(description="Peak memory of training steps, in its own process, likewise.")
    latency_1_s: Positive = Field(description="Median time of an answer at batch 1, seconds.")
    latency_8_s: Positive = Field(description="Median time of an answer at batch 8, seconds.")
    train_images_per_s: Positive = Field(description="Training rate.")
    ratios: dict[str, float] = Field(description="Each of these as a multiple of the U-Net's; the training rate as time per image.")
    scores: dict[str, float] = Field(default={}, description="Scores of the evaluations given, mean over the seeds.")
    ci95: dict[str, Interval] = Field(default={}, description="95 % interval of each score: lower, upper.")
    seeds: list[int] = Field(default=[], description="Seeds behind the scores.")


class CostStudy(StudyFile):
    """cost.json: what each model costs, beside the 31 M U-Net."""

    size_px: Count = Field(description="Side of the films.")
    batch: Count = Field(description="Batch of the training steps.")
    device: str = Field(description="What computed.")
    precision: Literal["fp32", "bf16"] = Field(description="Precision of the training steps; answers are in fp32.")
    threads: Count = Field(description="CPU threads.")
    metric: str | None = Field(description="The score beside the costs; null where no evaluations were given.")
    split: str | None = Field(default=None, description="Split that was scored.")
    rows: list[CostRow] = Field(min_length=1, description="The U-Net, then the others in the order of the command.")


# ---- predict


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


# ---- data and knowledge


class DatasetFile(File):
    """dataset.json beside a manifest."""

    name: str = Field(min_length=1, description="Name of the data set; seeds the choice of dev.")
    root: str = Field(default=".", description="Folder that relative paths of the manifest start from, itself relative to this file.")
    laterality: Laterality = Field(default="none", description="Whose left the sentences mean: patient, image, or none.")
    laterality_source: str = Field(default="", description="What says whose left that is; begins with `assumed` where nothing does.")
    licence: str = Field(default="", description="Licence, as the owner states it.")
    citation: str = Field(default="", description="What to cite.")
    split_source: str = Field(default="", description="Where the split comes from.")
    windows: Windows = Field(default={}, description="Slices of volumes: the window that each organ was shown in.")


class Statement(File):
    """One statement of a knowledge bank."""

    concept: str = Field(min_length=1, description="What it is about, e.g. pleural effusion.")
    kind: str = Field(pattern=r"^[a-z][a-z_-]*$", description="Kind of statement; `neutral` ones are controls and never retrieved.")
    statement: str = Field(min_length=1, description="The sentence that the model reads.")
    terms: list[str] = Field(default=[], description="Words and phrases of a report that call for it.")
    laterality: Laterality = Field(default="none", description="Whose left its side words mean; none where it has none.")
    source: str = Field(default="", description="Where the knowledge comes from.")
    model: str | None = Field(default=None, description="Language model that worded it; null where a person did.")
    date: str = Field(default="", pattern=r"^(\d{4}-\d{2}-\d{2})?$", description="When it was written, YYYY-MM-DD.")
    reviewed_by: str | None = Field(default=None, description="Who checked it; null while nobody has.")


class BankFile(File):
    """A knowledge bank."""

    schema_version: Literal[1] = Field(default=1, alias="schema", description="Version of this file.")
    name: str = Field(min_length=1, description="Name of the bank.")
    licence: str = Field(default="", description="Licence of the statements.")
    description: str = Field(default="", description="What the bank is for.")
    statements: list[Statement] = Field(description="The statements.")


FILES: dict[str, type[BaseModel]] = {
    "bundle/config.json": BundleConfig,
    "bundle/training.json": TrainingFile,
    "env.json": EnvFile,
    "metrics.json": Metrics,
    "compare.json": Comparison,
    "plan.json": StudyPlan,
    "ablate.json": Ablation,
    "text.json": TextStudy,
    "data.json": DataStudy,
    "transfer.json": TransferStudy,
    "cost.json": CostStudy,
    "prediction.json": PredictionFile,
    "report.json": ReportFile,
    "dataset.json": DatasetFile,
    "bank.json": BankFile,
}


def _columns(names: str) -> tuple[str, ...]:
    return tuple(names.split())


CSV_COLUMNS: dict[str, tuple[str, ...]] = {
    "manifest.csv": _columns(
        "image mask text id split patient laterality flip_safe text_source label present complete subsets slice study spacing_mm"
    ),
    "cases.csv": _columns(
        "id patient text_name tp fp fn dice iou hd95 nsd presence present_truth area_px uncertainty disagreement warnings"
    ),
    "volumes.csv": _columns("study patient label slices tp fp fn dice iou hd95 nsd volume_ml true_volume_ml warnings"),
    "table.csv": (
        *_columns("method text seeds"),
        *(f"{score}{part}" for score in COMPARED for part in ("", "_low", "_high")),
        *(f"{score}_minus_reference{part}" for score in COMPARED for part in ("", "_low", "_high")),
        *_columns("p p_holm win tie loss"),
    ),
    "predictions.csv": _columns(
        "id row finding polarity status mask presence area_px volume_ml side laterality uncertainty disagreement warnings"
    ),
    "failures.csv": _columns("id code what fix"),
}


def all_schemas() -> dict[str, Any]:
    """JSON schema of every JSON file, and the columns of every CSV, by file name."""
    schemas: dict[str, Any] = {name: model.model_json_schema() for name, model in FILES.items()}
    return schemas | {name: {"type": "csv", "columns": list(columns)} for name, columns in CSV_COLUMNS.items()}


# ---- reading and writing


def to_json(model: BaseModel) -> str:
    """The canonical form: sorted keys, indent 1, UTF-8, newline at the end. ValueError for NaN: write None instead."""
    return json.dumps(model.model_dump(by_alias=True), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: str | Path, model: BaseModel) -> None:
    """Writes the canonical form atomically."""
    atomic_write(path, to_json(model))


def read_json(path: str | Path, model: type[M]) -> M:
    """The file as a `model`. InputError naming file and key: bad_json, too_deep, too_large_file, bad_field, or those of check_file."""
    return parse(load_json(path), model, path)


def load_json(path: str | Path) -> Any:
    """The file as plain data, within 64 MiB and 100 levels; for files whose version is to be looked at first.

    InputError: too_large_file, too_deep, bad_json, those of check_file.
    """
    file = check_file(path)
    if file.stat().st_size > MAX_JSON_BYTES:
        raise InputError(f"the file is larger than {MAX_JSON_BYTES >> 20} MiB", path, "Is it the right file?", "too_large_file")
    try:
        data = json.loads(file.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except RecursionError as e:
        raise _too_deep(path) from e
    except (ValueError, OSError) as e:
        raise InputError(f"not valid JSON: {e}", path, "Restore the file or write it anew.", "bad_json") from e
    level: list[Any] = [data]
    for _ in range(MAX_JSON_DEPTH + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return data
    raise _too_deep(path)


def parse(data: Any, model: type[M], where: str | Path = "") -> M:
    """Plain data as a `model`; InputError bad_field lists what is wrong with each key, at most 20."""
    try:
        return model.model_validate(data)
    except ValidationError as e:
        problems = [_problem(error, model) for error in e.errors(include_url=False)]
    more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
    raise InputError("; ".join(problems[:20]) + more, where, "See `reportseg config schema` for the fields.", "bad_field")


def _problem(error: Any, model: type[BaseModel]) -> str:
    key = ".".join(map(str, error["loc"])) or "the whole file"
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(error["loc"][-1]), place(error, model)[1], n=1)
        return f"{key}: unknown key" + (f" (did you mean {near[0]}?)" if near else "")
    return f"{key}: {error['msg']}"


def _children(node: Any) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number that JSON knows; use null")


def _too_deep(path: str | Path) -> InputError:
    return InputError(f"nested more than {MAX_JSON_DEPTH} levels deep", path, "Is it the right file?", "too_deep")
