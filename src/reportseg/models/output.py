"""What every model takes and gives. Shapes: B batch, L text units, D joint width, H,W pixels of the image given, h,w a model grid.

A model that needs more than its weights to be trained has `begin_training(sentences)` and `end_training()`: between the two it may hold
parameters and buffers that are in every checkpoint and in no bundle, its `progress` is the share of the run that is behind it, and
`alarms(figures)` says in words what is wrong with the figures that it logs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..losses import dice_bce_loss
from .layers import resize


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
    figures: named numbers for the log of a training, without gradient; one that the batch does not allow is left out.
    """

    logits_B1HW: Tensor
    presence_B: Tensor | None = None
    token_map_BLhw: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)
    maps: dict[str, Tensor] = field(default_factory=dict)
    figures: dict[str, Tensor] = field(default_factory=dict)


def answer(
    logits_B1hw: Tensor, padded: tuple[int, int], size: tuple[int, int], mask_B1HW: Tensor | None, valid_B1HW: Tensor | None
) -> ModelOutput:
    """The answer of a model that has logits and no more: brought to the size of the padded image, cut to `size`. With a mask, their loss:
    soft Dice and binary cross-entropy.
    """
    logits = resize(logits_B1hw.float(), padded)[..., : size[0], : size[1]]
    if mask_B1HW is None:
        return ModelOutput(logits)
    valid = torch.ones_like(logits) if valid_B1HW is None else valid_B1HW.float()
    return ModelOutput(logits, losses={"mask": dice_bce_loss(logits, mask_B1HW, valid)})
