"""How weights came about: training.json of a bundle, and env.json of a run folder."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .base import Count, File, NonNegative, Sha256

MAX_CURVE_POINTS = 200
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
    contents: dict[str, Sha256] | None = Field(
        default=None,
        description="Hashes of the sentences and masks of train and dev, in their order: `rows` (ids, normalised sentences, whose left "
        "they mean, flip_safe, complete) and `masks`, on the training grid; null in older runs.",
    )
