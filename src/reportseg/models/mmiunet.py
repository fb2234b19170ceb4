"""MMI-UNet (Bui, Le, Choo, "Visual-Textual Matching Attention", MICCAI 2024): image and words meet after each stage of the encoder.

Early fusion: only the first stage of the ConvNeXt is free of the text, so `encode_image` gives that stage alone, and a changed sentence
costs all that follows. Visual-Textual Matching Attention (VTMA): the map at half its size and the words, each through self-attention, then
attention to the other, then a small MLP, and back with a residual. The next stage reads the sum of the map before and after.

Written from the paper. Its code has no licence; it was read for what the paper leaves open, and nothing is taken from it.
What differs, and why:
  words      Padding is masked in every attention; in the code 24 tokens are read, padding among them.
  any size   A film is padded to a multiple of 4, a map of an odd side by one; what was lifted is cut to the map that it joins.
  norms      GroupNorm where the paper has BatchNorm. No dropout: a resume could not repeat its draws.
  positions  None are added, as published: what knows of places is the padding of convolutions alone.
  loss       Dice and cross-entropy on logits, as the paper says; its code gives MONAI's DiceCELoss one channel of probabilities,
             whose cross-entropy is then zero.
  head       `output_stride` 1 is the paper's; 2 and 4 spread each place over fewer pixels.

Counted at `published`: ConvNeXt-T 27.8 M, VTMA 16.3 M, decoder and head 5.4 M, 49.5 M beside a BERT of 108.9 M. The paper gives no figure
that we know of; its code has 56.2 M beside the BERT, 14 % more: the words' side of the last VTMA (5.5 M) and a projection of the pooled
text (1.2 M), whose results its mask never reads. At `cpu` every width of image tower, VTMA and decoder is 1/3 of the published; the words
are read by the small tower that all peers share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Section
from ..knowledge.bank import Bank
from ..schemas.bundle import Base
from .assembly import Tower
from .convnext import Pyramid, build_convnext
from .layers import Attention, SubpixelHead, conv_block, cut, pad_to_multiple
from .output import ModelOutput, SegmentationModel, TextBatch, answer
from .words import WORDS, Words

HEADS = 8  # where the width allows it, as that of every published ConvNeXt does
PRESETS = {
    "tiny": Pyramid((16, 16, 32, 64), (1, 1, 1, 1)),
    "cpu": Pyramid((32, 64, 128, 256)),
    "published": Pyramid((96, 192, 384, 768)),
}


class MMIUNetConfig(Section):
    """The `model` section of a run's config for MMI-UNet."""

    name: Literal["mmiunet"] = "mmiunet"
    preset: Literal["tiny", "cpu", "published"] = "cpu"
    output_stride: Literal[1, 2, 4] = 1
    vision: Tower = Tower()
    text: Tower = Tower()


class FirstStage(NamedTuple):
    """The one map that is free of the text, at stride 4, and the sizes to bring an answer back to."""

    map_BChw: Tensor
    padded: tuple[int, int]
    size: tuple[int, int]


class Interactor(nn.Module):
    """Self-attention, attention to the other modality, MLP; each with a residual and then a norm."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        heads = math.gcd(width, HEADS)
        self.look, self.norm_look = Attention(width, heads), nn.LayerNorm(width)
        self.ask, self.norm_ask = Attention(width, heads), nn.LayerNorm(width)
        self.mlp, self.norm_mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width)), nn.LayerNorm(width)

    def forward(self, x_BNC: Tensor, other_BMC: Tensor, mask_BN: Tensor | None, other_mask_BM: Tensor | None) -> Tensor:
        """(B, N, C). The masks are True where a row is real; None: all are."""
        x_BNC = self.norm_look(x_BNC + self.look(x_BNC, x_BNC, x_BNC, mask_BN))
        x_BNC = self.norm_ask(x_BNC + self.ask(x_BNC, other_BMC, other_BMC, other_mask_BM))
        out: Tensor = self.norm_mlp(x_BNC + self.mlp(x_BNC))
        return out


class Matching(nn.Module):
    """Visual-Textual Matching Attention. `answers` False: nothing reads the words after it, so they are left as they are."""

    def __init__(self, width: int, text_width: int, hidden: int, answers: bool) -> None:
        super().__init__()
        self.shrink = nn.Conv2d(width, width, 2, 2, bias=False)
        self.grow = nn.ConvTranspose2d(width, width, 2, 2, bias=False)
        self.norm_image, self.norm_text = nn.LayerNorm(width), nn.LayerNorm(width)
        self.told = nn.Linear(text_width, width)
        self.see = Interactor(width, hidden)
        self.answers = answers
        if answers:
            self.read = Interactor(width, hidden)
            self.back = nn.Linear(width, text_width)

    def forward(self, map_BChw: Tensor, words_BLD: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Map and words, each changed by the other."""
        height, width = map_BChw.shape[2:]
        small = self.shrink(F.pad(map_BChw, (0, width % 2, 0, height % 2), mode="replicate"))
        seen = self.norm_image(small.flatten(2).transpose(1, 2))
        told = self.norm_text(self.told(words_BLD))
        moved = self.see(seen, told, None, mask_BL).transpose(1, 2).unflatten(2, small.shape[2:])
        map_BChw = map_BChw + self.grow(moved)[..., :height, :width]
        if self.answers:
            words_BLD = words_BLD + self.back(self.read(told, seen, mask_BL, None))
        return map_BChw, words_BLD


class MMIUNet(SegmentationModel):
    """ConvNeXt and words, matched after each of four stages, and a plain decoder. `tokenizer_json` None only lays the model out."""

    def __init__(self, config: MMIUNetConfig, tokenizer_json: str | None, bank: Bank | None, base: Base | None = None) -> None:
        super().__init__()
        laid_out = tokenizer_json is None
        self.vision, vision = build_convnext(PRESETS[config.preset], config.vision, base.vision if base else None, laid_out)
        self.words = Words(WORDS[config.preset], config.text, tokenizer_json, base.text if base else None)
        self.base, self.max_tokens = Base(vision=vision, text=self.words.record), self.words.max_tokens
        self.use_statistics(self.vision.statistics)
        widths = self.vision.widths
        hidden = widths[0] * 4 // 3  # the paper's 128 beside 96
        last = len(widths) - 1
        self.match = nn.ModuleList(Matching(c, self.words.width, hidden, answers=i < last) for i, c in enumerate(widths))
        self.lift = nn.ModuleList(nn.ConvTranspose2d(widths[i + 1], widths[i], 2, 2) for i in (2, 1, 0))
        self.join = nn.ModuleList(conv_block(2 * widths[i], widths[i]) for i in (2, 1, 0))
        self.head = SubpixelHead(widths[0], 4 // config.output_stride)

    def encode_text(self, texts: Sequence[str]) -> TextBatch:
        """Sentences to the states of their words."""
        encoded: TextBatch = self.words(texts)
        return encoded

    def truncates(self, text: str) -> bool:
        """Whether a sentence of `text` is longer than the tower reads."""
        return self.words.too_long(text)

    def encode_image(self, image_B3HW: Tensor) -> FirstStage:
        """The first stage, before any word is heard. `image_B3HW` is in [0, 1], any H, W >= 1."""
        x = pad_to_multiple((image_B3HW - self.mean) / self.std, 4)
        return FirstStage(self.vision.stage(0, x), (x.shape[2], x.shape[3]), (image_B3HW.shape[2], image_B3HW.shape[3]))

    def decode(self, image: FirstStage, text: TextBatch, mask_B1HW: Tensor | None = None, valid_B1HW: Tensor | None = None) -> ModelOutput:
        """Answer `text` on films after their first stage. With a mask, its loss too; `valid` leaves pixels out of it."""
        x, words = image.map_BChw, text.tokens_BLD
        matched, heard = self.match[0](x, words, text.mask_BL)
        maps = [matched]
        for level in (1, 2, 3):
            x = self.vision.stage(level, matched + x)
            matched, heard = self.match[level](x, words + heard, text.mask_BL)
            maps.append(matched)
        x = maps[-1]
        for lift, join, skip in zip(self.lift, self.join, maps[-2::-1], strict=True):
            x = join(torch.cat([cut(lift(x), skip), skip], dim=1))
        return answer(self.head(x), image.padded, image.size, mask_B1HW, valid_B1HW)
