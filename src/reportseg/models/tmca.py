"""TMCA: target-informed multi-level contrastive alignment for text-guided segmentation (Li, Meng, Ye, Fulham, Bi, Kim, arXiv 2412.13533).

The paper bridges the gap between the patterns of image and text, where earlier contrastive alignment is global and misses the target:
  TSDM  target-sensitive semantic distance        which sentences a film's target also fits      (models/alignment.py, training only)
  MCA   multi-level contrastive alignment         targets and sentences in one space, per scale  (models/alignment.py, training only)
  LTEM  language-guided target enhancement        places that fit the sentence count for more
Written from its abstract: the constructions are our reading, and docs/methods.md keeps stated and read apart. Base, as our reading has
it: a ConvNeXt pyramid, a BERT-type text encoder, and a U-shaped decoder whose skips attend to the words.

Shapes: B batch, H,W pixels, h,w = H/s,W/s rounded up for a stride s in 4, 8, 16, 32, L text tokens, D joint width, d own width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Section
from ..knowledge.bank import Bank
from ..losses import bce_loss
from ..schemas.bundle import Base
from .alignment import WARM_UP, Alignment, Projector
from .assembly import PyramidPreset, Tower, build_pyramid
from .encoders import SentenceTokenizer, train_tokenizer
from .layers import CrossAttention, PositionMap, PresenceHead, cells_of, conv_block, group_norm, lift, pad_to_multiple, resize
from .output import ModelOutput, SegmentationModel, TextBatch, answer
from .reader import TokenReader

Stride = Literal[4, 8, 16, 32]
STRIDES: tuple[Stride, ...] = (4, 8, 16, 32)
ATTENDED = (1, 2, 3)  # levels with cross-attention to the tokens: strides 8, 16 and 32
PIXEL_WEIGHT = 0.2


class Tsdm(Section):
    """Switch of the target-sensitive semantic distance."""

    soft_labels: bool = Field(default=True, description="false: a film's own sentence is the only right one")


class Levels(Section):
    """Switch of the multi-level contrastive alignment."""

    levels: tuple[Stride, ...] = Field(default=STRIDES, description="strides at which targets meet sentences; none: no alignment")

    @field_validator("levels")
    @classmethod
    def _each_once(cls, levels: tuple[Stride, ...]) -> tuple[Stride, ...]:
        if len(set(levels)) < len(levels):
            raise ValueError("a stride stands twice")
        return tuple(sorted(levels))


class Ltem(Section):
    """Switches of the language-guided target enhancement and of its pixel term."""

    enabled: bool = True
    pixel_loss: bool = Field(default=True, description="train the attention maps against the mask; nothing to do where enabled is false")


class TMCAConfig(Section):
    """The `model` section of a run's config for TMCA."""

    name: Literal["tmca"] = "tmca"
    preset: Literal["tiny", "small", "large", "convnext-t"] = "small"
    output_stride: Literal[2, 4] = 4
    vision: Tower = Tower()
    text: Tower = Tower()
    tsdm: Tsdm = Tsdm()
    alignment: Levels = Levels()
    ltem: Ltem = Ltem()
    presence: bool = Field(default=False, description="a head that says whether the target is there; training adds it for absent prompts")


PRESETS = {
    "tiny": PyramidPreset(cnn=(16, 24, 32, 48), depths=(1, 1, 1, 1), stem=16, text=(32, 1, 2), joint=32, width=24),
    "small": PyramidPreset(cnn=(64, 128, 224, 320), depths=(2, 2, 4, 2), stem=32, text=(128, 3, 4), joint=128, width=96),
    "large": PyramidPreset(cnn=(80, 160, 320, 448), depths=(2, 2, 4, 2), stem=32, text=(128, 4, 4), joint=128, width=128),
    "convnext-t": PyramidPreset(
        cnn=(96, 192, 384, 768),
        depths=(3, 3, 9, 3),
        stem=48,
        text=(768, 12, 12),
        joint=128,
        width=128,
        max_tokens=512,
        vocabulary=30_522,
    ),
}


class ImageFeatures(NamedTuple):
    """What `encode_image` keeps: maps F_l (B, d, h, w), the compared ones P_l F_l (B, D, h, w; none without LTEM), the stem at stride 2
    (no channel where the pyramid has none), the sizes to crop back to.
    """

    maps: list[Tensor]
    compared: list[Tensor]
    stem_BCHW: Tensor
    padded: tuple[int, int]
    size: tuple[int, int]


class LTEM(nn.Module):
    """Language-guided target enhancement: A_l = sigmoid((cos(P_l F_l, t) - delta_l) / tau'_l), F_l' = F_l + gamma_l A_l F_l.

    P_l is that of the alignment. gamma is zero at start, delta and tau' are 0.2.
    """

    def __init__(self, p: PyramidPreset) -> None:
        super().__init__()
        n = len(STRIDES)
        self.project = nn.ModuleList(Projector(p.width, p.joint) for _ in STRIDES)
        self.delta = nn.Parameter(torch.full((n,), 0.2))
        self.log_tau = nn.Parameter(torch.full((n,), math.log(0.2)))
        self.gamma = nn.Parameter(torch.zeros(n))

    def forward(self, compared: Sequence[Tensor], text_BD: Tensor) -> list[Tensor]:
        """Logits of A_l (B, 1, h, w), in fp32."""
        with torch.autocast(text_BD.device.type, enabled=False):
            t_BD = F.normalize(text_BD.float(), dim=1)
            cosines = [torch.einsum("bdhw,bd->bhw", F.normalize(z, dim=1), t_BD)[:, None] for z in compared]
            return [(cosine - self.delta[i]) / self.log_tau[i].exp() for i, cosine in enumerate(cosines)]


class TMCA(SegmentationModel):
    """Pyramid and tokens, brought together by LTEM and by cross-attention on the skips of a U-shaped decoder.

    Between `begin_training` and `end_training` it also holds the alignment, which is in no bundle and costs nothing at inference.
    `tokenizer_json` None only lays the model out, to be counted. `base` is what a bundle records of its pretrained towers.
    """

    def __init__(self, config: TMCAConfig, tokenizer_json: str | None, bank: Bank | None = None, base: Base | None = None) -> None:
        super().__init__()
        self.config = config
        p = PRESETS[config.preset]
        towers = build_pyramid(p, config.vision, config.text, tokenizer_json, base)
        self.base, self.max_tokens, self.sizes = towers.base, towers.max_tokens, p
        self.use_statistics(towers.statistics)
        self.pyramid = towers.cnn
        self.reader = TokenReader(towers.text, SentenceTokenizer(tokenizer_json or train_tokenizer([]), towers.max_tokens))
        self.lateral = nn.ModuleList(nn.Sequential(nn.Conv2d(c, p.width, 1), group_norm(p.width)) for c in towers.widths)
        if config.ltem.enabled:
            self.ltem = LTEM(p)
        self.positions = nn.ModuleList(PositionMap(p.width) for _ in ATTENDED)
        self.attend_norms = nn.ModuleList(nn.LayerNorm(p.width) for _ in ATTENDED)
        self.told = nn.Sequential(nn.Linear(p.joint, p.width), nn.LayerNorm(p.width))  # tokens at our own width, once for all strides
        self.attend = nn.ModuleList(CrossAttention(p.width, p.width, p.width) for _ in ATTENDED)
        self.up = nn.ModuleList(nn.Sequential(conv_block(2 * p.width, p.width), conv_block(p.width, p.width)) for _ in STRIDES[:-1])
        if config.output_stride == 2:
            self.sharpen = conv_block(p.width + towers.stem, p.width // 2)
        self.head = nn.Conv2d(p.width // 2 if config.output_stride == 2 else p.width, 1, 1)
        if config.presence:  # last, so that the weights before it start as they do without it
            self.presence = PresenceHead(p.width, p.joint)
        self.alignment: Alignment | None = None

    # ---------------------------------------------------------------- training

    def begin_training(self, sentences: Sequence[str]) -> None:
        """Adds the alignment, with a table of these sentences. Without LTEM its projectors are its own."""
        levels, p = self.config.alignment.levels, self.sizes
        if levels:
            own = [] if self.config.ltem.enabled else [Projector(p.width, p.joint) for _ in levels]
            self.alignment = Alignment(levels, p.joint, self.config.tsdm.soft_labels, sentences, own).to(self.mean.device)

    def end_training(self) -> None:
        """Drops the alignment: what is left is what a bundle holds."""
        self.alignment = None

    def alarms(self, figures: Mapping[str, float]) -> list[str]:
        """Once the alignment has its full weight: what is wrong with it."""
        return [] if self.alignment is None or self.progress < WARM_UP else self.alignment.alarms(figures)

    # ---------------------------------------------------------------- text, image, answer

    def encode_text(self, texts: Sequence[str]) -> TextBatch:
        """Sentences to tokens and their vector t, in the joint space."""
        encoded: TextBatch = self.reader(list(texts))
        return encoded

    def truncates(self, text: str) -> bool:
        """Whether a sentence of `text` is longer than the tower reads."""
        return self.reader.tokenizer.too_long(text)

    def encode_image(self, image_B3HW: Tensor) -> ImageFeatures:
        """The text-free part: one film serves any number of sentences. `image_B3HW` is in [0, 1], any H, W >= 1."""
        padded = pad_to_multiple((image_B3HW - self.mean) / self.std, STRIDES[0])
        stem, *pyramid = self.pyramid(padded)
        maps = [lateral(c) for lateral, c in zip(self.lateral, pyramid, strict=True)]
        compared = [project(f) for project, f in zip(self.ltem.project, maps, strict=True)] if self.config.ltem.enabled else []
        return ImageFeatures(maps, compared, stem, (padded.shape[2], padded.shape[3]), (image_B3HW.shape[2], image_B3HW.shape[3]))

    def decode(
        self, image: ImageFeatures, text: TextBatch, mask_B1HW: Tensor | None = None, valid_B1HW: Tensor | None = None
    ) -> ModelOutput:
        """Answer `text` on encoded films. With a mask, losses too; `valid` leaves pixels out of them."""
        guided, attention, units = list(image.maps), [], None
        if self.config.ltem.enabled:
            attention = self.ltem(image.compared, text.pooled_BD)
            gamma = self.ltem.gamma
            guided = [f + (gamma[i] * a.sigmoid()).to(f.dtype) * f for i, (f, a) in enumerate(zip(guided, attention, strict=True))]
            places = F.normalize(image.compared[1], dim=1)
            units = torch.einsum("bdhw,bld->blhw", places, F.normalize(text.tokens_BLD.float(), dim=2).to(places.dtype)).float()
        told_BLd = self.told(text.tokens_BLD)
        for i, level in enumerate(ATTENDED):
            f = guided[level] + self.positions[i]((guided[level].shape[2], guided[level].shape[3]))
            asked = self.attend[i](self.attend_norms[i](f.flatten(2).transpose(1, 2)), told_BLd, text.mask_BL)
            guided[level] = guided[level] + asked.transpose(1, 2).unflatten(2, (f.shape[2], f.shape[3]))
        presence_B = self.presence(guided[2], text.pooled_BD) if self.config.presence else None

        x = guided[3]
        for level in (2, 1, 0):
            x = self.up[level](torch.cat([lift(x, guided[level]), guided[level]], dim=1))
        if self.config.output_stride == 2:
            stem = image.stem_BCHW
            x = self.sharpen(torch.cat([resize(x, (stem.shape[2], stem.shape[3])), stem], dim=1))
        output = answer(self.head(x), image.padded, image.size, mask_B1HW, valid_B1HW, presence_B)
        maps: dict[str, Tensor] = {}
        strides: dict[str, int] = {f"A{stride}": stride for stride in STRIDES}
        if attention and mask_B1HW is not None:
            valid = torch.ones_like(output.logits_B1HW) if valid_B1HW is None else valid_B1HW
            for stride, a in zip(STRIDES, attention, strict=True):
                maps[f"A{stride}"] = a
                if self.config.ltem.pixel_loss:
                    output.losses[f"pixel_{stride}"] = PIXEL_WEIGHT * bce_loss(a, *cells_of(mask_B1HW, valid, a, stride))
        return replace(output, token_map_BLhw=units, maps=maps, strides=strides)

    def forward(self, image_B3HW: Tensor, texts: Sequence[str], mask: Tensor | None = None, valid: Tensor | None = None) -> ModelOutput:
        """One film, one sentence each; losses only with `mask` (B, 1, H, W), over the pixels of `valid` (B, 1, H, W). While it is trained
        there are those of the alignment too, and its figures.
        """
        image, text = self.encode_image(image_B3HW), self.encode_text(texts)
        output = self.decode(image, text, mask, valid)
        if self.alignment is not None and self.training and mask is not None:
            levels = [STRIDES.index(stride) for stride in self.alignment.strides]
            project = self.alignment.projectors  # its own where there is no LTEM
            compared = [project[i](image.maps[n]) if project else image.compared[n] for i, n in enumerate(levels)]
            seen = torch.ones_like(mask) if valid is None else valid
            losses, figures = self.alignment(
                compared, text.pooled_BD, texts, mask, seen, lambda part: self.encode_text(part).pooled_BD, self.progress
            )
            output.losses.update(losses)
            output.figures.update(figures)
        return output
