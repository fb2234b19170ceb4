"""LViT (Li, Li, Li, Wang, Guo, Lu, Jin, Zhang, Hong, TMI 2023, arXiv 2206.14718): a U of convolutions beside a U of transformers.

The convolutions never see the text. Beside each level stands one transformer block on a 14 x 14 grid of patches; the first is told the
words, each next one is joined with the one before, and on the way back up each gives its patches to the convolutions' skip. A Pixel-Level
Attention Module (PLAM) weighs the skip before it is used. The semi-supervised part (pseudo labels, LV loss) is not here.

Written from the paper; its code (MIT) was read for what the paper leaves open, and nothing is taken from it. What differs, and why:
  words      Its map from places of words to patches holds for 10 tokens, which cuts a sentence of QaTa before its last zone; here for 32.
             What is beyond is not read, and the answer carries the warning `text_truncated`.
  any size   That map and the positions are learnt on the paper's 14 x 14 grid and interpolated to any other.
  norms      GroupNorm where the paper has BatchNorm. No dropout: a resume could not repeat its draws.
  loss       Dice and cross-entropy in equal parts, as the paper has it, but for its factor of one half.

Counted at `published`: 29.9 M beside a BERT of 108.9 M, which the paper does not count either; the paper has 29.7 M (0.7 % less). What its
code has and never uses is in neither: patch embeddings of the way up, a second set of PLAM. At `cpu` every width is 7/16 of the published,
with four heads, for 28 is no multiple of eight; the words are read by the small tower that all peers share. At `output_stride` 2 or 4 the
last levels of the decoder, and what feeds only them, are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Section
from ..knowledge.bank import Bank
from ..schemas.bundle import Base
from .assembly import Tower
from .layers import TransformerBlock, conv_block, group_norm, pad_to_multiple, resize
from .output import ModelOutput, SegmentationModel, TextBatch, answer
from .towers import IMAGENET_STATISTICS
from .words import WORDS, Words

GRID = 14  # patches of 16 px along a side of the paper's 224 px
SLOTS = 32  # words that the patches are told
LEVELS = 4
PRESETS = {"tiny": (12, 4), "cpu": (28, 4), "published": (64, 8)}  # channels of the first level, doubled at each below; attention heads


class LViTConfig(Section):
    """The `model` section of a run's config for LViT."""

    name: Literal["lvit"] = "lvit"
    preset: Literal["tiny", "cpu", "published"] = "cpu"
    output_stride: Literal[1, 2, 4] = 1
    text: Tower = Tower()


class LViTFeatures(NamedTuple):
    """Maps of the convolutions at strides 1 to 16, patches (B, C, h, w) of the first four, and the sizes to bring an answer back to."""

    maps: list[Tensor]
    patches: list[Tensor]
    padded: tuple[int, int]
    size: tuple[int, int]


class PLAM(nn.Module):
    """Pixel-Level Attention Module: mean and maximum over channels and their sum make one factor for each pixel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.for_mean = nn.Conv2d(width, width, 1, bias=False)
        self.for_maximum = nn.Conv2d(width, width, 1, bias=False)
        self.weigh = nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 1, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The map, each pixel times its factor."""
        mean = F.relu(self.for_mean(x_BCHW)).mean(1, keepdim=True)
        maximum = F.relu(self.for_maximum(x_BCHW)).amax(1, keepdim=True)
        out: Tensor = x_BCHW * self.weigh(torch.cat([mean, maximum, mean + maximum], dim=1))
        return out


class Told(nn.Module):
    """What each patch is told: a weighted sum of the words, with weights for each pair of a patch and a place in the sentence."""

    def __init__(self, text_width: int, width: int) -> None:
        super().__init__()
        chain = [text_width, *(width * 2**level for level in reversed(range(LEVELS)))]
        self.narrow = nn.Sequential(*(nn.Conv1d(a, b, 3, padding=1) for a, b in pairwise(chain)))
        self.weight_1Khw = nn.Parameter(torch.empty(1, 3 * SLOTS, GRID, GRID).uniform_(-1, 1) / (3 * SLOTS) ** 0.5)
        self.bias_11hw = nn.Parameter(torch.zeros(1, 1, GRID, GRID))
        self.norm = group_norm(width)

    def forward(self, tokens_BLD: Tensor, size: tuple[int, int]) -> Tensor:
        """Words (B, L, D), zero where there is none, to patches (B, C, h, w)."""
        words_BSD = F.pad(tokens_BLD, (0, 0, 0, SLOTS - tokens_BLD.shape[1]))
        words_BCS = self.narrow(words_BSD.transpose(1, 2))
        near_BCSK = F.pad(words_BCS.transpose(1, 2), (1, 1)).unfold(2, 3, 1).transpose(1, 2)  # each channel and the two beside it
        told = near_BCSK.flatten(2) @ resize(self.weight_1Khw, size)[0].flatten(1)
        return F.relu(self.norm(told.reshape(*told.shape[:2], *size) + resize(self.bias_11hw, size)))


class Along(nn.Module):
    """Convolution along the row of patches, GroupNorm, ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv1d(c_in, c_out, 3, padding=1, bias=False), group_norm(c_out), nn.ReLU())

    def forward(self, x_BChw: Tensor) -> Tensor:
        """(B, c_in, h, w) to (B, c_out, h, w)."""
        out: Tensor = self.body(x_BChw.flatten(2)).unflatten(2, x_BChw.shape[2:])
        return out


class PatchBlock(nn.Module):
    """One transformer block on a map of patches."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.block = TransformerBlock(width, heads)

    def forward(self, x_BChw: Tensor) -> Tensor:
        """(B, C, h, w)."""
        out: Tensor = self.block(x_BChw.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x_BChw.shape[2:])
        return out


class LViT(SegmentationModel):
    """The two U and what joins them. `tokenizer_json` None only lays the model out, to be counted."""

    def __init__(self, config: LViTConfig, tokenizer_json: str | None, bank: Bank | None, base: Base | None = None) -> None:
        super().__init__()
        first, heads = PRESETS[config.preset]
        widths = [first * 2**level for level in range(LEVELS)]
        self.use_statistics(IMAGENET_STATISTICS)
        self.words = Words(WORDS[config.preset], config.text, tokenizer_json, base.text if base else None)
        self.base, self.max_tokens = Base(text=self.words.record), min(SLOTS, self.words.max_tokens)
        self.first = config.output_stride // 2  # the finest level that the decoder reaches
        reached = range(self.first, LEVELS)

        self.inlet = conv_block(3, widths[0])
        self.down = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(2), conv_block(c_in, c), conv_block(c, c))
            for c_in, c in zip(widths, [*widths[1:], widths[-1]], strict=True)
        )
        self.embed = nn.ModuleList(nn.Conv2d(c, c, 16 // 2**level, 16 // 2**level) for level, c in enumerate(widths))
        self.position = nn.ParameterList(nn.Parameter(torch.randn(1, c, GRID, GRID) * 0.02) for c in widths)
        self.told = Told(self.words.width, widths[0])
        self.patch_down = nn.ModuleList(PatchBlock(c, heads) for c in widths)
        self.halve = nn.ModuleList(Along(c, c // 2) for c in widths[1:])
        self.patch_up = nn.ModuleDict({str(level): PatchBlock(widths[level], heads) for level in reached})
        self.narrow = nn.ModuleDict({str(level): Along(widths[level + 1], widths[level]) for level in reached if level < LEVELS - 1})
        self.give = nn.ModuleDict({str(level): conv_block(widths[level], widths[level], kernel=1) for level in reached})
        self.attend = nn.ModuleDict({str(level): PLAM(widths[level]) for level in reached})
        self.up = nn.ModuleDict()
        for level in reached:
            c_out = widths[max(level - 1, 0)]
            self.up[str(level)] = nn.Sequential(conv_block(2 * widths[level], c_out), conv_block(c_out, c_out))
        self.head = nn.Conv2d(widths[max(self.first - 1, 0)], 1, 1)

    def encode_text(self, texts: Sequence[str]) -> TextBatch:
        """Sentences to the states of their words."""
        encoded: TextBatch = self.words(texts)
        return encoded

    def truncates(self, text: str) -> bool:
        """Whether `text` has more words than the patches are told."""
        tokenizer = self.words.tokenizer
        return self.words.too_long(text) or sum(len(tokenizer.ids(chunk)) for chunk in tokenizer.chunks(text)) > SLOTS

    def encode_image(self, image_B3HW: Tensor) -> LViTFeatures:
        """The convolutions on the way down and the patches of their maps. `image_B3HW` is in [0, 1], any H, W >= 1."""
        x = pad_to_multiple((image_B3HW - self.mean) / self.std, 16)
        padded = (x.shape[2], x.shape[3])
        maps = [self.inlet(x)]
        for down in self.down:
            maps.append(down(maps[-1]))
        patches = []
        for x, embed, position in zip(maps[:LEVELS], self.embed, self.position, strict=True):
            patch = embed(x)
            patches.append(patch + resize(position, (patch.shape[2], patch.shape[3])))
        return LViTFeatures(maps, patches, padded, (image_B3HW.shape[2], image_B3HW.shape[3]))

    def decode(
        self, image: LViTFeatures, text: TextBatch, mask_B1HW: Tensor | None = None, valid_B1HW: Tensor | None = None
    ) -> ModelOutput:
        """Answer `text` on encoded films. With a mask, its loss too; `valid` leaves pixels out of it."""
        told = self.told(text.tokens_BLD, (image.patches[0].shape[2], image.patches[0].shape[3]))
        going_down = [self.patch_down[0](image.patches[0] + told)]
        for block, halve, patch in zip(self.patch_down[1:], self.halve, image.patches[1:], strict=True):
            going_down.append(torch.cat([halve(block(patch)), going_down[-1]], dim=1))

        x = image.maps[LEVELS]
        y = going_down[-1]
        for level in reversed(range(self.first, LEVELS)):
            key, skip = str(level), image.maps[level]
            up = self.patch_up[key](going_down[level])
            y = up if level == LEVELS - 1 else up + self.narrow[key](y)
            skip = skip + self.give[key](F.interpolate(y, size=skip.shape[2:], mode="nearest"))
            x = F.interpolate(x, size=skip.shape[2:], mode="nearest")
            x = self.up[key](torch.cat([self.attend[key](skip), x], dim=1))
        return answer(self.head(x), image.padded, image.size, mask_B1HW, valid_B1HW)
