"""The plan of a study, and the file in which each kind of study answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..types import INTENDED_USE
from .base import Count, Difference, File, Fraction, Interval, Positive, Sha256
from .comparison import ComparedRun
from .metrics import IntervalMethod

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
    contents: dict[str, Sha256] = Field(
        default={},
        description="Hash of what the films say and show, by what it is: the sentences of each column that is read, with ids and whose "
        "left they mean, and the true masks. A resume is held to what the plan names; one of an earlier version names nothing.",
    )
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
    words: Count | None = Field(default=None, description="Words of a sentence, median; null for controls, twin, and in older files.")
    scores: dict[str, float] = Field(description="Its scores.")
    own: dict[str, float] = Field(description="Scores of the same cases under their own sentences.")
    twin: dict[str, float] = Field(default={}, description="Scores of the text-free twin on the same cases; empty without a twin.")
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
    flips: bool = Field(
        default=False,
        description="Whether an answer is averaged with that to the mirrored film, so that all its figures are of two passes.",
    )
    params: dict[str, int] = Field(description="Parameters: total, trainable, frozen.")
    flops: Count = Field(description="Floating-point operations of one answer, multiply and add counted apart; of one film, one sentence.")
    predict_bytes: Count = Field(
        description="Peak memory of an answer at batch 1, parameters included, in its own process, beyond what the libraries take."
    )
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
    rows: list[CostRow] = Field(
        min_length=1,
        description="The U-Net, by the name of a configuration that is this very model if one was named; then the others in the order of "
        "the command.",
    )
