"""LanGuideMedSeg (Zhong, Xu, Liang, Chen, Wu, "Ariadne's Thread", MICCAI 2023, arXiv 2307.03942): words guide the decoder, scale by scale.

ConvNeXt-T, a frozen CXR-BERT, and a GuideDecoder at strides 32, 16 and 8: self-attention of the map, cross-attention to the words with a
learnt weight that starts at 0.01, then an up-block that joins the next map of the encoder. A subpixel head goes from stride 4 to the image.

Written from the paper. Its code has no licence; it was read for what the paper leaves open, and nothing is taken from it.
What differs, and why:
  words      The paper mixes 24 fixed places for words into 24, 12 and 9. Here the map attends to all words, however many, so that a
             longer text is not cut and no weight is tied to a place; their order still enters by the paper's sinusoids.
  positions  The sinusoids of the map are those of the paper's grids at 224 px, interpolated to any other size.
  any size   A film is padded to a multiple of 4, a map of an odd side by one; what was lifted is cut to the map that it joins.
  norms      GroupNorm where the paper has BatchNorm, and ReLU where its up-block leaks one hundredth.
  loss       Dice and cross-entropy, as the paper says. Its code gives MONAI's DiceCELoss one channel of probabilities, whose
             cross-entropy is then zero: what was published is trained by Dice alone. Here it is both, on logits.
  head       `output_stride` 1 is the paper's; 2 and 4 spread each place over fewer pixels.

Counted at `published`: ConvNeXt-T 27.8 M, decoder 14.4 M, head 0.3 M, 42.6 M beside a BERT of 108.9 M. The paper gives no figure that we
know of; others count 44.0 M without the BERT (table of arXiv 2606.27794), 3.4 % more. The difference is two projections of pooled image and
pooled text (1.1 to 1.8 M by their width) that its code has and its mask never reads. At `cpu` every width of image tower and decoder is 3/8
of the published; the words are read by the small tower that all peers share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..config import Section
from ..knowledge.bank import Bank
from ..schemas.bundle import Base
from .assembly import Tower
from .convnext import Pyramid, build_convnext
from .layers import Attention, ResidualBlock, SubpixelHead, cut, pad_to_multiple, resize
from .output import ModelOutput, SegmentationModel, TextBatch, answer
from .words import WORDS, Words

GRIDS = (7, 14, 28)  # of the guided strides 32, 16 and 8 at the paper's 224 px

PRESETS = {
    "tiny": Pyramid((16, 16, 32, 64), (1, 1, 1, 1)),
    "cpu": Pyramid((36, 72, 144, 288)),
    "published": Pyramid((96, 192, 384, 768)),
}


class LanGuideMedSegConfig(Section):
    """The `model` section of a run's config for LanGuideMedSeg."""

    name: Literal["languidemedseg"] = "languidemedseg"
    preset: Literal["tiny", "cpu", "published"] = "cpu"
    output_stride: Literal[1, 2, 4] = 1
    vision: Tower = Tower()
    text: Tower = Tower()


class Maps(NamedTuple):
    """Maps of the film at strides 4, 8, 16 and 32, and the sizes to bring an answer back to."""

    maps: list[Tensor]
    padded: tuple[int, int]
    size: tuple[int, int]


class GuideLayer(nn.Module):
    """Self-attention of the places of a map, then cross-attention to the words, weighed by a learnt number."""

    places_NC: Tensor

    def __init__(self, width: int, text_width: int, grid: int) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("places_NC", sinusoids(grid * grid, width), persistent=False)
        self.told = nn.Sequential(nn.Linear(text_width, width), nn.LeakyReLU())
        self.norm_look, self.look, self.norm_seen = nn.LayerNorm(width), Attention(width, 1), nn.LayerNorm(width)
        self.norm_ask, self.ask, self.norm_asked = nn.LayerNorm(width), Attention(width, 4), nn.LayerNorm(width)
        self.scale = nn.Parameter(torch.tensor(0.01))

    def forward(self, map_BChw: Tensor, tokens_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        """The guided map (B, C, h, w)."""
        size = (map_BChw.shape[2], map_BChw.shape[3])
        place_1NC = resize(self.places_NC.T.reshape(1, -1, self.grid, self.grid), size).flatten(2).transpose(1, 2)
        told_BLC = self.told(tokens_BLD)
        order_LC = sinusoids(told_BLC.shape[1], told_BLC.shape[2]).to(told_BLC)
        x = map_BChw.flatten(2).transpose(1, 2)
        flat = self.norm_look(x)
        x = x + self.norm_seen(self.look(flat + place_1NC, flat + place_1NC, flat))
        asked = self.ask(self.norm_ask(x) + place_1NC, told_BLC + order_LC, told_BLC, mask_BL)
        x = x + self.scale * self.norm_asked(asked)
        out: Tensor = x.transpose(1, 2).unflatten(2, size)
        return out


class GuideDecoder(nn.Module):
    """A guided map lifted to twice its size and joined with the encoder's map there."""

    def __init__(self, c_in: int, c_out: int, text_width: int, grid: int) -> None:
        super().__init__()
        self.guide = GuideLayer(c_in, text_width, grid)
        self.lift = nn.ConvTranspose2d(c_in, c_out, 2, 2, bias=False)
        self.join = ResidualBlock(2 * c_out, c_out)

    def forward(self, map_BChw: Tensor, skip_BCHW: Tensor, text: TextBatch) -> Tensor:
        """(B, c_out, H, W): that of the skip, of which 2 h, 2 w are at most one more."""
        lifted = cut(self.lift(self.guide(map_BChw, text.tokens_BLD, text.mask_BL)), skip_BCHW)
        out: Tensor = self.join(torch.cat([lifted, skip_BCHW], dim=1))
        return out


class LanGuideMedSeg(SegmentationModel):
    """ConvNeXt, words, three guided up-blocks and a subpixel head. `tokenizer_json` None only lays the model out, to be counted."""

    def __init__(self, config: LanGuideMedSegConfig, tokenizer_json: str | None, bank: Bank | None, base: Base | None = None) -> None:
        super().__init__()
        laid_out = tokenizer_json is None
        self.vision, vision = build_convnext(PRESETS[config.preset], config.vision, base.vision if base else None, laid_out)
        self.words = Words(WORDS[config.preset], config.text, tokenizer_json, base.text if base else None)
        self.base, self.max_tokens = Base(vision=vision, text=self.words.record), self.words.max_tokens
        self.use_statistics(self.vision.statistics)
        widths = self.vision.widths
        self.guided = nn.ModuleList(GuideDecoder(widths[3 - i], widths[2 - i], self.words.width, grid) for i, grid in enumerate(GRIDS))
        self.head = SubpixelHead(widths[0], 4 // config.output_stride)

    def encode_text(self, texts: Sequence[str]) -> TextBatch:
        """Sentences to the states of their words."""
        encoded: TextBatch = self.words(texts)
        return encoded

    def truncates(self, text: str) -> bool:
        """Whether a sentence of `text` is longer than the tower reads."""
        return self.words.too_long(text)

    def encode_image(self, image_B3HW: Tensor) -> Maps:
        """The text-free part. `image_B3HW` is in [0, 1], any H, W >= 1."""
        x = pad_to_multiple((image_B3HW - self.mean) / self.std, 4)
        return Maps(self.vision(x)[1:], (x.shape[2], x.shape[3]), (image_B3HW.shape[2], image_B3HW.shape[3]))

    def decode(self, image: Maps, text: TextBatch, mask_B1HW: Tensor | None = None, valid_B1HW: Tensor | None = None) -> ModelOutput:
        """Answer `text` on encoded films. With a mask, its loss too; `valid` leaves pixels out of it."""
        x = image.maps[3]
        for guided, skip in zip(self.guided, reversed(image.maps[:3]), strict=True):
            x = guided(x, skip, text)
        return answer(self.head(x), image.padded, image.size, mask_B1HW, valid_B1HW)


def sinusoids(places: int, width: int) -> Tensor:
    """(places, width): sine and cosine in turn, of wave lengths from 2 pi to 20,000 pi places (Vaswani et al. 2017)."""
    rate_W = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    angle_NW = torch.arange(places)[:, None] * rate_W
    return torch.stack([angle_NW.sin(), angle_NW.cos()], dim=2).flatten(1)
