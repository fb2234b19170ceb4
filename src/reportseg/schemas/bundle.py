"""config.json of a bundle: the model, what it stands on, and what is done to a film and a text before and after it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ..config import MAX_SIDE
from ..types import INTENDED_USE, Laterality
from .base import File, Fraction, Positive, Sha256, Windows


class DecisionConfig(File):
    """How a probability map becomes a mask."""

    rule: Literal["fixed", "expected_dice"] = Field(description="fixed: cut at `threshold`; expected_dice: the best cut per film.")
    threshold: Fraction = Field(description="Cut on calibrated probabilities; unused by expected_dice.")
    temperature: Positive = Field(description="Logits are divided by it before the sigmoid.")
    flips: bool = Field(
        default=False, description="Whether the answer is averaged with that to the mirrored film under swapped side words, mirrored back."
    )


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
