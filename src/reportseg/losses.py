"""Losses on logits. Every term is a mean over images of a per-image value, so accumulation and DDP leave it unchanged.

`target` is in [0, 1] (a mask, or its area average); `valid` is 1 where a pixel belongs to the film, 0 where augmentation or padding made
it up. All are (B, 1, H, W). Computed in fp32 whatever the model ran in.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def soft_dice_loss(logits: Tensor, target: Tensor, valid: Tensor, eps: float = 1.0) -> Tensor:
    """1 - (2 sum(p t) + eps) / (sum p + sum t + eps) for each image (Milletari et al. 2016), mean over images; (B, 1, H, W) to a scalar
    in [0, 1].
    """
    probability, target = logits.float().sigmoid() * valid, target.float() * valid
    overlap = (probability * target).flatten(1).sum(1)
    size = (probability + target).flatten(1).sum(1)
    return (1 - (2 * overlap + eps) / (size + eps)).mean()


def bce_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Binary cross-entropy over the valid pixels of each image, mean over images; (B, 1, H, W) to a scalar in nats."""
    terms = F.binary_cross_entropy_with_logits(logits.float(), target.float(), reduction="none") * valid
    return (terms.flatten(1).sum(1) / valid.expand_as(terms).flatten(1).sum(1).clamp(min=1)).mean()


def dice_bce_loss(logits: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Soft Dice and binary cross-entropy, 1:1; (B, 1, H, W) to a scalar."""
    return soft_dice_loss(logits, target, valid) + bce_loss(logits, target, valid)


def lovasz_hinge_loss(logits: Tensor, mask: Tensor, valid: Tensor) -> Tensor:
    """The Lovasz extension of the Jaccard loss on the hinge of each image's valid pixels (Berman et al. 2018), mean over images; from 0.

    `mask` is True inside. Where all hinges are met it is 0; where each is met or is 1 it is the Jaccard loss of the pixels that miss it.
    """
    inside, valid = mask.flatten(1), valid.flatten(1) > 0
    hinge = (1 - logits.float().flatten(1) * torch.where(inside, 1.0, -1.0)).relu() * valid
    hinge, order = hinge.sort(dim=1, descending=True)
    inside = (inside & valid).gather(1, order).float()
    total = inside.sum(1, keepdim=True)
    # Jaccard loss of the k worst pixels taken as errors; what the k-th adds is its weight.
    loss = 1 - (total - inside.cumsum(1)) / (total + (1 - inside).cumsum(1)).clamp(min=1)
    steps = torch.cat([loss[:, :1], loss[:, 1:] - loss[:, :-1]], dim=1)
    return (hinge * steps).sum(1).mean()


def area_average(mask_B1HW: Tensor, size: tuple[int, int]) -> Tensor:
    """The share of each cell that the mask covers: the target at a coarse stride, where nearest would lose small lesions."""
    return F.interpolate(mask_B1HW.float(), size=size, mode="area")


def coarse_target(mask_B1HW: Tensor, valid_B1HW: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The share of each cell's valid part that the mask covers, and how much of the cell is valid; both (B, 1, *size)."""
    weight = area_average(valid_B1HW, size)
    return area_average(mask_B1HW * valid_B1HW, size) / weight.clamp(min=1e-6), weight
