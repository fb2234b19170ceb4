"""compare.json: evaluations of the same cases, set against one reference."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..types import INTENDED_USE
from .base import Count, Difference, File, Fraction, Interval, NonNegative, Sha256
from .bundle import DecisionConfig
from .metrics import IntervalMethod

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
