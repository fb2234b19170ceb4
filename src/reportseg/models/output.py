"""What every model takes and gives. Shapes: B batch, L text units, D joint width, H,W pixels of the image given, h,w a model grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..losses import dice_bce_loss
from ..schemas.bundle import Base
from .layers import resize

PRESENCE_WEIGHT = 0.1  # our reading: the head learns alike under any weight, the trunk stays the mask's


@dataclass(frozen=True)
class TextBatch:
    """Encoded sentences. `spans[b][l]` is the (start, end) of unit l in sentence b, None for the learnt null unit.

    tokens_BLD: unit vectors; mask_BL: True where a unit is real; pooled_BD: one vector a sentence.
    """

    tokens_BLD: Tensor
    mask_BL: Tensor
    pooled_BD: Tensor
    spans: tuple[tuple[tuple[int, int] | None, ...], ...]

    def select(self, rows: Tensor) -> TextBatch:
        """The sentences at `rows` (an index tensor), in that order."""
        picked = tuple(self.spans[i] for i in rows.tolist())
        return TextBatch(self.tokens_BLD[rows], self.mask_BL[rows], self.pooled_BD[rows], picked)


@dataclass(frozen=True)
class ModelOutput:
    """logits_B1HW are raw (no sigmoid), at the size of the image given.

    presence_B: logits that the target is there, None where the model was not trained to say so.
    token_map_BLhw: cosine of every text unit with every place, in [-1, 1], None for models without text.
    losses: terms to add up, empty when no mask was given.
    maps: named similarity maps (B, 1, h, w) that training logs read; empty when no mask was given.
    strides: of maps whose cells have that many pixels a side, so that the last may end beyond the film; others are stretched over it.
    figures: named numbers for the log of a training, without gradient; one that the batch does not allow is left out.
    """

    logits_B1HW: Tensor
    presence_B: Tensor | None = None
    token_map_BLhw: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)
    strides: dict[str, int] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)


class SegmentationModel(nn.Module):
    """What all models are: `encode_image`, `encode_text` and `decode`, one after the other, on films with the statistics `mean` and `std`.

    `max_tokens` is None where no text is read; `truncates(text)` says whether words are lost. `base` is what a bundle records of the
    pretrained towers. `progress` is the share of a training that is behind the model.
    """

    reads_text = True
    base = Base()
    progress = 1.0
    max_tokens: int | None
    mean: Tensor
    std: Tensor

    def use_statistics(self, statistics: tuple[Sequence[float], Sequence[float]]) -> None:
        """Mean and standard deviation per colour channel, for pixels in [0, 1]; no part of the state dict."""
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def begin_training(self, sentences: Sequence[str]) -> None:
        """Until `end_training` a model may hold parameters and buffers that are in every checkpoint and in no bundle."""

    def end_training(self) -> None:
        """Drops what only training needs."""

    def alarms(self, figures: Mapping[str, float]) -> list[str]:
        """In words, what is wrong with the figures that the model logs."""
        return []

    def forward(self, image_B3HW: Tensor, texts: Sequence[str], mask: Tensor | None = None, valid: Tensor | None = None) -> ModelOutput:
        """One film, one sentence each; losses only with `mask` (B, 1, H, W) in [0, 1], over the pixels of `valid` (B, 1, H, W)."""
        model: Any = self
        output: ModelOutput = model.decode(model.encode_image(image_B3HW), model.encode_text(texts), mask, valid)
        return output


def no_units(texts: Sequence[str], like: Tensor) -> TextBatch:
    """The text of a model that reads none, on the device of `like`."""
    nothing = like.new_zeros(len(texts), 0, 1)
    return TextBatch(nothing, nothing[..., 0].bool(), nothing.sum(1), tuple(() for _ in texts))


def answer(
    logits_B1hw: Tensor,
    padded: tuple[int, int],
    size: tuple[int, int],
    mask_B1HW: Tensor | None,
    valid_B1HW: Tensor | None,
    presence_B: Tensor | None = None,
) -> ModelOutput:
    """The answer of a model: logits brought to the size of the padded image and cut to `size`. With a mask, which a teacher may have
    softened, their loss, soft Dice and binary cross-entropy over the pixels of `valid`, and that of the presence.
    """
    logits = resize(logits_B1hw.float(), padded)[..., : size[0], : size[1]]
    losses = {}
    if mask_B1HW is not None:
        valid = torch.ones_like(logits) if valid_B1HW is None else valid_B1HW.float()
        losses["mask"] = dice_bce_loss(logits, mask_B1HW, valid)
        if presence_B is not None:
            there_B = (mask_B1HW >= 0.5).flatten(1).any(1).float()
            losses["presence"] = PRESENCE_WEIGHT * F.binary_cross_entropy_with_logits(presence_B, there_B)
    return ModelOutput(logits, presence_B, losses=losses)
