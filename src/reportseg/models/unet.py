"""U-Net (Ronneberger, Fischer, Brox, 2015, arXiv 1505.04597): the text-free reference that this field measures against.

Counted at its widths, 64 to 1024: 31.04 M. The paper gives no figure; the layers that it draws have 31.03 M (one input channel, two
outputs, biases in place of norms). Differs from the paper: same-size padding, GroupNorm after each convolution, three input channels, one
output.
At `output_stride` 2 or 4 the last levels of the decoder are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from ..config import Section
from ..knowledge.bank import Bank
from .layers import conv_block, pad_to_multiple
from .output import ModelOutput, SegmentationModel, TextBatch, answer, no_units
from .towers import IMAGENET_STATISTICS


class UNetConfig(Section):
    """The `model` section of a run's config for U-Net."""

    name: Literal["unet"] = "unet"
    width: int = Field(default=64, ge=4, le=256, description="channels of the first level; each level below doubles them")
    output_stride: Literal[1, 2, 4] = 1


class UNetFeatures(NamedTuple):
    """The last map of the decoder, and the sizes to bring an answer back to."""

    map_BChw: Tensor
    padded: tuple[int, int]
    size: tuple[int, int]


class UNet(SegmentationModel):
    """Five levels of two convolutions, skips by concatenation, transposed convolutions on the way up."""

    reads_text = False
    max_tokens = None

    def __init__(self, config: UNetConfig, tokenizer_json: str | None = None, bank: Bank | None = None) -> None:
        super().__init__()
        widths = [config.width * 2**i for i in range(5)]
        self.use_statistics(IMAGENET_STATISTICS)
        self.down = nn.ModuleList(
            nn.Sequential(conv_block(c_in, c), conv_block(c, c)) for c_in, c in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        lifted = widths[-2::-1][: 4 if config.output_stride == 1 else 4 - config.output_stride // 2]
        self.lift = nn.ModuleList(nn.ConvTranspose2d(2 * c, c, 2, 2) for c in lifted)
        self.up = nn.ModuleList(nn.Sequential(conv_block(2 * c, c), conv_block(c, c)) for c in lifted)
        self.head = nn.Conv2d(lifted[-1], 1, 1)

    def encode_text(self, texts: Sequence[str]) -> TextBatch:
        """No units: the sentence is not read."""
        return no_units(texts, self.mean)

    def truncates(self, text: str) -> bool:
        """No text is read, so none is cut."""
        return False

    def encode_image(self, image_B3HW: Tensor) -> UNetFeatures:
        """All of the network but its last layer. `image_B3HW` is in [0, 1], any H, W >= 1."""
        x = pad_to_multiple((image_B3HW - self.mean) / self.std, 16)
        skips = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        for lift, block, skip in zip(self.lift, self.up, skips[-2::-1], strict=False):
            x = block(torch.cat([skip, lift(x)], dim=1))
        padded = (skips[0].shape[2], skips[0].shape[3])
        return UNetFeatures(x, padded, (image_B3HW.shape[2], image_B3HW.shape[3]))

    def decode(
        self, image: UNetFeatures, text: TextBatch, mask_B1HW: Tensor | None = None, valid_B1HW: Tensor | None = None
    ) -> ModelOutput:
        """Logits (B, 1, H, W); the text has no effect. Losses only with `mask` (B, 1, H, W), over the pixels of `valid` (B, 1, H, W)."""
        return answer(self.head(image.map_BChw), image.padded, image.size, mask_B1HW, valid_B1HW)
