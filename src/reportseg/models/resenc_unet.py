"""Residual-encoder U-Net after nnU-Net's ResEnc plan (Isensee et al., "nnU-Net Revisited", MICCAI 2024, arXiv 2404.09556): no text.

The strong text-free reference. nnU-Net plans a network from the data: for 2-D films of 224 px the plan is six stages of 32, 64, 128,
256, 512 and 512 channels with 1, 3, 4, 6, 6 and 6 residual blocks (two 3x3 convolutions, a skip that averages where it strides), then
transposed convolutions and one 3x3 a stage on the way up. Plans M and L differ by the memory they fill: here by the batch, not by the net.

Written from the paper and the plan's rules; nnU-Net (Apache-2.0) was read for them, and nothing is taken from it. What differs, and why:
  norms      GroupNorm where nnU-Net has InstanceNorm, which has nothing to measure where a film is one place; no bias before a norm.
  loss       Dice and cross-entropy on the decoder's outputs at each stride, the weight halved at each step, the coarsest left out, all
             weights together 1, as nnU-Net has it. Dice is per film, not per batch: accumulation changes nothing. Coarse targets are area
             averages.
  any size   A film is padded to a multiple of 4; below, sides are rounded up, and what was lifted is cut to the map that it joins.
  training   The network alone. Schedule, augmentation and inference are this bench's, not nnU-Net's.

Counted at `published`: 71.8 M. There is no figure to compare with: a plan's network depends on its data. At `cpu` every width is 9/32 of
it. At `output_stride` 2 or 4 the last levels of the decoder are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Section
from ..knowledge.bank import Bank
from ..losses import dice_bce_loss
from .layers import cells_of, cut, group_norm, pad_to_multiple
from .output import ModelOutput, SegmentationModel, TextBatch, answer, no_units
from .towers import IMAGENET_STATISTICS

WIDEST = 16  # times the width of the first stage


@dataclass(frozen=True)
class Plan:
    """Channels of the first stage, doubled at each further one up to WIDEST times, and residual blocks of each stage."""

    width: int
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6)

    @property
    def widths(self) -> list[int]:
        """Channels of each stage."""
        return [self.width * min(2**stage, WIDEST) for stage in range(len(self.blocks))]


PRESETS = {"tiny": Plan(4, (1, 1, 1, 1, 1, 1)), "cpu": Plan(9), "published": Plan(32)}


class ResEncUNetConfig(Section):
    """The `model` section of a run's config for the residual-encoder U-Net."""

    name: Literal["resenc_unet"] = "resenc_unet"
    preset: Literal["tiny", "cpu", "published"] = "cpu"
    output_stride: Literal[1, 2, 4] = 1


class ResEncFeatures(NamedTuple):
    """Maps of the decoder, fine to coarse, and the sizes to bring an answer back to."""

    maps: list[Tensor]
    padded: tuple[int, int]
    size: tuple[int, int]


def convolution(c_in: int, c_out: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, GroupNorm, LeakyReLU."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), group_norm(c_out), nn.LeakyReLU(0.01, inplace=True))


class ResidualBlockD(nn.Module):
    """Two 3x3 convolutions and a skip that averages before it projects (He, T. et al. 2019, "bag of tricks", D)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution(c_in, c_out, stride), nn.Conv2d(c_out, c_out, 3, padding=1, bias=False), group_norm(c_out))
        pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        project = nn.Identity() if c_in == c_out else nn.Sequential(nn.Conv2d(c_in, c_out, 1, bias=False), group_norm(c_out))
        self.skip = nn.Sequential(pool, project)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H / stride, W / stride), rounded up."""
        return F.leaky_relu(self.body(x_BCHW) + self.skip(x_BCHW), 0.01)


class ResEncUNet(SegmentationModel):
    """Residual stages down, plain ones up, an output at each stride of the decoder but the coarsest."""

    reads_text = False
    max_tokens = None

    def __init__(self, config: ResEncUNetConfig, tokenizer_json: str | None = None, bank: Bank | None = None) -> None:
        super().__init__()
        plan = PRESETS[config.preset]
        widths, self.output_stride = plan.widths, config.output_stride
        self.use_statistics(IMAGENET_STATISTICS)
        self.stem = convolution(3, widths[0])
        self.down = nn.ModuleList()
        for stage, (c_in, c) in enumerate(zip([widths[0], *widths[:-1]], widths, strict=True)):
            first = ResidualBlockD(c_in, c, 2 if stage else 1)
            self.down.append(nn.Sequential(first, *(ResidualBlockD(c, c, 1) for _ in range(plan.blocks[stage] - 1))))
        kept = [(below, c) for c, below in pairwise(widths)][config.output_stride // 2 :][::-1]
        self.lift = nn.ModuleList(nn.ConvTranspose2d(below, c, 2, 2) for below, c in kept)
        self.up = nn.ModuleList(convolution(2 * c, c) for _, c in kept)
        self.heads = nn.ModuleList(nn.Conv2d(c, 1, 1) for _, c in kept[:0:-1])  # fine to coarse, none at the coarsest

    def encode_text(self, texts: Sequence[str]) -> TextBatch:
        """No units: the sentence is not read."""
        return no_units(texts, self.mean)

    def truncates(self, text: str) -> bool:
        """No text is read, so none is cut."""
        return False

    def encode_image(self, image_B3HW: Tensor) -> ResEncFeatures:
        """All of the network but its outputs. `image_B3HW` is in [0, 1], any H, W >= 1."""
        x = pad_to_multiple((image_B3HW - self.mean) / self.std, 4)
        padded = (x.shape[2], x.shape[3])
        x, skips = self.stem(x), []
        for stage in self.down:
            x = stage(x)
            skips.append(x)
        maps: list[Tensor] = []
        for lift, join, skip in zip(self.lift, self.up, skips[-2::-1], strict=False):
            x = join(torch.cat([cut(lift(x), skip), skip], dim=1))
            maps.insert(0, x)
        return ResEncFeatures(maps[: len(self.heads)], padded, (image_B3HW.shape[2], image_B3HW.shape[3]))

    def decode(
        self, image: ResEncFeatures, text: TextBatch, mask_B1HW: Tensor | None = None, valid_B1HW: Tensor | None = None
    ) -> ModelOutput:
        """Logits (B, 1, H, W); the text has no effect. Losses only with `mask` (B, 1, H, W), over the pixels of `valid` (B, 1, H, W)."""
        output = answer(self.heads[0](image.maps[0]), image.padded, image.size, mask_B1HW, valid_B1HW)
        if mask_B1HW is None:
            return output
        losses = dict(output.losses)
        valid = torch.ones_like(output.logits_B1HW) if valid_B1HW is None else valid_B1HW
        for step, (head, x) in enumerate(zip(list(self.heads)[1:], image.maps[1:], strict=True), 1):
            stride = self.output_stride * 2**step
            losses[f"stride_{stride}"] = dice_bce_loss(head(x), *cells_of(mask_B1HW, valid, x, stride))
        weights = [0.5**step for step in range(len(losses))]
        return replace(output, losses={name: w / sum(weights) * loss for w, (name, loss) in zip(weights, losses.items(), strict=True)})
