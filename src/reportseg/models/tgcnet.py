"""TGC-Net: a CLIP-based network for text-guided medical image segmentation (Lin, Zhao, Xiong, Zhang, Du, Zhu, 2025, arXiv 2512.21135).

The paper closes three gaps of CLIP on medical images with three modules:
  SSE   Semantic-Structural Synergy Encoder   CLIP's ViT beside a CNN branch            (structural gap)
  DATE  Domain-Augmented Text Encoder         knowledge of a language model in the text  (semantic gap)
  VLCM  Vision-Language Calibration Module    refined correspondence in one space        (alignment gap)
Written from its abstract: the constructions below are our reading, and docs/methods.md keeps stated and read apart.

Shapes: B batch, H,W pixels, h,w = H/s,W/s for a stride s in 4, 8, 16, 32, L text units, U statements, D joint width, d own width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import Section
from ..knowledge.bank import Bank, union
from ..losses import bce_loss, coarse_target, dice_bce_loss
from ..schemas.bundle import Base
from ..text import clauses, normalise
from .assembly import Preset, Tower, build_towers
from .encoders import SentenceTokenizer, train_tokenizer
from .layers import CrossAttention, PositionMap, PresenceHead, conv_block, pad_to, pad_to_multiple, resize
from .output import ModelOutput, SegmentationModel, TextBatch, answer

STRIDES = (4, 8, 16, 32)
ATTENDED = (1, 2, 3)  # levels with cross-attention to the text: strides 8, 16 and 32
SIMILARITY_WEIGHTS = (0.3, 0.2, 0.1, 0.1)
RAW_WEIGHT = 0.1  # our reading: where image and text are not of one CLIP, nothing else would align the raw similarity


class Sse(Section):
    """Switch of SSE's CNN branch."""

    cnn: bool | Tower = Field(
        default=True, description="false: ViT alone; true: with a CNN branch, from scratch; {source, train}: as that says"
    )

    @property
    def tower(self) -> Tower | None:
        """Where the CNN branch comes from, None where there is none."""
        return Tower() if self.cnn is True else self.cnn or None


class Date(Section):
    """Switch of DATE's knowledge, and the bank that it reads."""

    knowledge: bool = True
    bank: str = Field(default="chest", description="a shipped bank's name, or a JSON file")
    statements: Literal["fitting", "neutral"] = Field(
        default="fitting", description="neutral: the control; the same number of sentences of the same length that say nothing"
    )
    top_k: int = Field(default=8, ge=1, description="statements retrieved for a sentence, at most")


class Vlcm(Section):
    """Switch of VLCM."""

    enabled: bool = True


class TGCNetConfig(Section):
    """The `model` section of a run's config for TGC-Net."""

    name: Literal["tgcnet"] = "tgcnet"
    preset: Literal["tiny", "small", "large", "vit-b-16"] = "small"
    output_stride: Literal[2, 4] = 4
    vision: Tower = Tower()
    text: Tower = Tower()
    sse: Sse = Sse()
    date: Date = Date()
    vlcm: Vlcm = Vlcm()
    presence: bool = Field(default=False, description="a head that says whether the target is there; training adds it for absent prompts")


PRESETS = {
    "tiny": Preset(cnn=(16, 24, 32, 48), stem=16, cnn_depth=1, vision=(32, 4, 2), text=(32, 1, 2), joint=32, width=24),
    "small": Preset(cnn=(48, 96, 176, 256), stem=32, cnn_depth=2, vision=(128, 4, 4), text=(128, 3, 4), joint=128, width=96),
    "large": Preset(cnn=(64, 128, 256, 384), stem=32, cnn_depth=2, vision=(128, 4, 4), text=(128, 4, 4), joint=128, width=128),
    "vit-b-16": Preset(
        cnn=(64, 128, 256, 512), stem=40, cnn_depth=2, vision=(768, 12, 12), text=(512, 12, 8), joint=512, width=128, vocabulary=49_408
    ),
}


class ImageFeatures(NamedTuple):
    """What `encode_image` keeps: fused maps F_s (B, d, h, w), patch tokens z (B, D, h, w), the stride-2 stem, the sizes to crop back to.

    The stem has no channel without a CNN branch, the patches have none without VLCM.
    """

    fused: list[Tensor]
    patches_BDhw: Tensor
    stem_BCHW: Tensor
    padded: tuple[int, int]
    size: tuple[int, int]


class SSE(nn.Module):
    """Semantic-Structural Synergy Encoder: g_s = sigmoid(conv1x1[C_s ; V_s]), F_s = block3x3(C_s + g_s V_s), a convolution, GroupNorm and
    ReLU; block3x3(V_s) without a CNN.
    """

    def __init__(self, vision: nn.Module, cnn: nn.Module | None, p: Preset) -> None:
        super().__init__()
        self.vision, self.cnn = vision, cnn
        self.tap_norms = nn.ModuleList(nn.LayerNorm(p.vision[0]) for _ in STRIDES)
        self.tap_projections = nn.ModuleList(nn.Conv2d(p.vision[0], p.width, 1) for _ in STRIDES)
        if cnn is not None:
            self.cnn_projections = nn.ModuleList(nn.Conv2d(c, p.width, 1) for c in p.cnn)
            self.gates = nn.ModuleList(nn.Conv2d(2 * p.width, p.width, 1) for _ in STRIDES)
        self.refine = nn.ModuleList(conv_block(p.width, p.width) for _ in STRIDES)

    def forward(self, image_B3HW: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Fused maps at the four strides, patch tokens in the joint space, the stride-2 stem."""
        taps, patches = self.vision(image_B3HW)
        stem, *structure = [image_B3HW[:, :0, ::2, ::2]] if self.cnn is None else self.cnn(image_B3HW)
        grid, (height, width) = patches.shape[-2:], image_B3HW.shape[-2:]
        fused = []
        for level, stride in enumerate(STRIDES):
            tap = self.tap_norms[level](taps[level]).transpose(1, 2).unflatten(2, grid)
            semantic = resize(self.tap_projections[level](tap), (-(-height // stride), -(-width // stride)))
            if self.cnn is not None:
                detail = self.cnn_projections[level](structure[level])
                gate = self.gates[level](torch.cat([detail, semantic], dim=1)).sigmoid()
                semantic = detail + gate * semantic
            fused.append(self.refine[level](semantic))
        return fused, patches, stem


class DATE(nn.Module):
    """Domain-Augmented Text Encoder: sentence and clause vectors, enriched by the statements of the bank that fit the report.

    T' = T + tanh(gate) CrossAttention(T, knowledge); the gate is zero at start, so training begins without knowledge.
    """

    def __init__(self, tower: nn.Module, tokenizer: SentenceTokenizer, bank: Bank | None, p: Preset, top_k: int) -> None:
        super().__init__()
        self.tower, self.tokenizer, self.bank, self.top_k = tower, tokenizer, bank, top_k
        self.null_D = nn.Parameter(torch.randn(p.joint) * 0.02)
        if bank is not None:
            self.knowledge = CrossAttention(p.joint, p.joint, p.width)
            self.gate = nn.Parameter(torch.zeros(1))

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Sentence vectors (N, D). A text that is longer than the tower reads is the mean of its chunks, each of whole sentences."""
        chunks = [self.tokenizer.chunks(text) for text in texts]
        read = list(dict.fromkeys(chunk for row in chunks for chunk in row))
        encoded: Tensor = self.tower(*self.tokenizer(read, self.null_D.device))
        if read == list(texts):
            return encoded
        place = {chunk: i for i, chunk in enumerate(read)}
        return torch.stack([encoded[[place[chunk] for chunk in row]].mean(0) for row in chunks])

    def forward(self, texts: Sequence[str]) -> TextBatch:
        """Units of each sentence: a learnt null that is never masked, the whole sentence, its clauses (when more than one)."""
        spans = [unit_spans(text) for text in texts]
        used, per_text = union(texts, self.bank, self.top_k) if self.bank is not None else ([], [])
        statements = [self.bank.statements[i].statement for i in used] if self.bank is not None else []
        distinct = {text[a:b]: 0 for text, pairs in zip(texts, spans, strict=True) for a, b in pairs}
        order = list(dict.fromkeys([*distinct, *statements]))
        row = {string: i + 1 for i, string in enumerate(order)}  # row 0 is the null unit
        table_ND = self.null_D[None].float()
        if order:
            table_ND = torch.cat([table_ND, self.encode(order).float()])

        length = 1 + max(map(len, spans))
        index = [[0] + [row[text[a:b]] for a, b in pairs] for text, pairs in zip(texts, spans, strict=True)]
        device = self.null_D.device
        mask_BL = torch.arange(length) < torch.tensor([len(units) for units in index])[:, None]
        index_BL = torch.tensor([units + [0] * (length - len(units)) for units in index], device=device)
        mask_BL = mask_BL.to(device)
        tokens_BLD = table_ND[index_BL]
        if statements:
            known_UD = table_ND[torch.tensor([row[s] for s in statements], device=device)]
            fits = torch.zeros(len(texts), len(statements), dtype=torch.bool)
            place = {i: column for column, i in enumerate(used)}
            for b, hits in enumerate(per_text):
                fits[b, [place[i] for i in hits]] = True
            fits_BU = fits.to(device)
            matched_B11 = fits_BU.any(1)[:, None, None]
            # A sentence that nothing fits attends to all and is then left as it was: attention over nothing would be NaN.
            context = known_UD.expand(len(texts), -1, -1)
            told = self.knowledge(tokens_BLD, context, fits_BU | ~matched_B11[:, :, 0])
            tokens_BLD = tokens_BLD + self.gate.tanh() * told * matched_B11
        pooled_BD = tokens_BLD[:, min(1, length - 1)]
        pooled_BD = torch.where(mask_BL[:, min(1, length - 1), None], pooled_BD, tokens_BLD[:, 0])
        return TextBatch(tokens_BLD, mask_BL, pooled_BD, tuple((None, *pairs) for pairs in spans))


def unit_spans(text: str) -> list[tuple[int, int]]:
    """The whole sentence, then its clauses where there is more than one; nothing for an empty text."""
    if not normalise(text):
        return []
    parts = clauses(text)
    return [(0, len(text)), *(parts if len(parts) > 1 else [])]


class VLCM(nn.Module):
    """Vision-Language Calibration Module: similarity of places and text, raw from the tower, calibrated with the fused maps.

    a = softmax over units, q = sum_p a_p t_p, raw r = sum_p a_p cos(z, t_p); u_s = alpha_s cos(W_s F_s, q) + beta_s;
    S_s = u_s + kappa_s r + conv_s([W_s F_s ; u_s ; r]), where F_s has its position embedding;
    F_s' = F_s (1 + gamma_s sigmoid(S_s)), without it.
    Runs in fp32: differences of cosines are small. `aligned`: tower and text are of one CLIP, so r needs no training of its own.
    """

    def __init__(self, p: Preset, aligned: bool = False) -> None:
        super().__init__()
        n = len(STRIDES)
        self.unit_score = nn.Linear(p.joint, 1, bias=False)  # a bias would shift the softmax by nothing
        self.project = nn.ModuleList(nn.Conv2d(p.width, p.joint, 1) for _ in STRIDES)
        self.alpha = nn.Parameter(torch.full((n,), 10.0))
        self.beta = nn.Parameter(torch.full((n,), -2.0))
        self.kappa = nn.Parameter(torch.ones(n))
        self.gamma = nn.Parameter(torch.zeros(n))
        self.raw_scale = None if aligned else nn.Parameter(torch.tensor([10.0, -2.0]))
        self.calibrate = nn.ModuleList()
        for _ in STRIDES:
            last = nn.Conv2d(32, 1, 3, padding=1)
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
            self.calibrate.append(nn.Sequential(nn.Conv2d(p.joint + 2, 32, 1), nn.ReLU(inplace=True), last))

    def query(self, text: TextBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Units of length 1 (B, L, D), a (B, L) and q (B, D)."""
        with torch.autocast(text.tokens_BLD.device.type, enabled=False):
            tokens = F.normalize(text.tokens_BLD.float(), dim=2)
            weights_BL = self.unit_score(tokens)[..., 0].masked_fill(~text.mask_BL, -torch.inf).softmax(1)
            return tokens, weights_BL, F.normalize((weights_BL[..., None] * tokens).sum(1), dim=1)

    def forward(self, placed: list[Tensor], patches_BDhw: Tensor, text: TextBatch) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """`placed` are the F_s with their position embedding. Gives cos of each unit with each patch (B, L, h, w), r, [u_s], [S_s]."""
        with torch.autocast(patches_BDhw.device.type, enabled=False):
            tokens, weights_BL, query_BD = self.query(text)
            units = torch.einsum("bdhw,bld->blhw", F.normalize(patches_BDhw.float(), dim=1), tokens)
            raw = torch.einsum("blhw,bl->bhw", units, weights_BL)[:, None]
            plain, calibrated = [], []
            for level, map_BdHW in enumerate(placed):
                joint = self.project[level](map_BdHW.float())
                cosine = torch.einsum("bdhw,bd->bhw", joint, query_BD)[:, None] / joint.norm(dim=1, keepdim=True).clamp(min=1e-6)
                u = self.alpha[level] * cosine + self.beta[level]
                r = resize(raw, (map_BdHW.shape[2], map_BdHW.shape[3]))
                plain.append(u)
                calibrated.append(u + self.kappa[level] * r + self.calibrate[level](torch.cat([joint, u, r], dim=1)))
        return units, raw, plain, calibrated


class TGCNet(SegmentationModel):
    """SSE and DATE, brought together by VLCM and cross-attention at strides 8, 16 and 32, then a top-down decoder.

    `tokenizer_json` None only lays the model out, to be counted: its vocabulary is the preset's and no `source` is opened. `base` is what a
    bundle records of its pretrained towers; what this model stands on is in `self.base`.
    """

    def __init__(self, config: TGCNetConfig, tokenizer_json: str | None, bank: Bank | None, base: Base | None = None) -> None:
        super().__init__()
        self.config = config
        named = {"vision": config.vision, "text": config.text, "cnn": config.sse.tower}
        towers = build_towers(PRESETS[config.preset], named, config.vlcm.enabled, tokenizer_json, base)
        p, cnn, self.base = towers.p, towers.cnn, towers.base
        self.max_tokens = p.max_tokens
        tokenizer = SentenceTokenizer(tokenizer_json or train_tokenizer([]), p.max_tokens)
        self.use_statistics(towers.statistics)
        self.patch = p.patch
        self.sse = SSE(towers.vision, cnn, p)
        self.date = DATE(towers.text, tokenizer, bank if config.date.knowledge else None, p, config.date.top_k)
        compared = [config.vlcm.enabled or level in ATTENDED for level in range(len(STRIDES))]
        self.positions = nn.ModuleList(PositionMap(p.width) if used else nn.Identity() for used in compared)
        if config.vlcm.enabled:
            self.vlcm = VLCM(p, towers.aligned)
        self.attend_norms = nn.ModuleList(nn.LayerNorm(p.width) for _ in ATTENDED)
        self.told = nn.Sequential(nn.Linear(p.joint, p.width), nn.LayerNorm(p.width))  # T' at our own width, once for all strides
        self.attend = nn.ModuleList(CrossAttention(p.width, p.width, p.width) for _ in ATTENDED)
        self.top_down = nn.ModuleList(conv_block(p.width, p.width) for _ in STRIDES[:-1])
        if config.output_stride == 2:
            self.sharpen = conv_block(p.width + (0 if cnn is None else p.stem), p.width // 2)
        self.head = nn.Conv2d(p.width // 2 if config.output_stride == 2 else p.width, 1, 1)
        if config.presence:  # last, so that the weights before it start as they do without it
            self.presence = PresenceHead(p.width, p.joint)

    def encode_text(self, texts: Sequence[str]) -> TextBatch:
        """Sentences to units and their knowledge, in the joint space."""
        encoded: TextBatch = self.date(list(texts))
        return encoded

    def truncates(self, text: str) -> bool:
        """Whether a sentence of `text` is longer than the tower reads."""
        return self.date.tokenizer.too_long(text)

    def encode_image(self, image_B3HW: Tensor) -> ImageFeatures:
        """The text-free part: one film serves any number of sentences. `image_B3HW` is in [0, 1], any H, W >= 1."""
        padded = pad_to_multiple((image_B3HW - self.mean) / self.std, self.patch)
        fused, patches, stem = self.sse(padded)
        return ImageFeatures(fused, patches, stem, (padded.shape[2], padded.shape[3]), (image_B3HW.shape[2], image_B3HW.shape[3]))

    def decode(
        self, image: ImageFeatures, text: TextBatch, mask_B1HW: Tensor | None = None, valid_B1HW: Tensor | None = None
    ) -> ModelOutput:
        """Answer `text` on encoded films. With a mask, losses too; `valid` leaves pixels out of them."""
        guided = list(image.fused)
        units, raw, plain, calibrated = None, None, [], []
        if self.config.vlcm.enabled:
            placed = [f + position((f.shape[2], f.shape[3])) for f, position in zip(image.fused, self.positions, strict=True)]
            units, raw, plain, calibrated = self.vlcm(placed, image.patches_BDhw, text)
            gamma = self.vlcm.gamma
            guided = [f * (1 + gamma[i] * s.sigmoid()).to(f.dtype) for i, (f, s) in enumerate(zip(guided, calibrated, strict=True))]
        told_BLd = self.told(text.tokens_BLD)
        for i, level in enumerate(ATTENDED):
            f = guided[level] + self.positions[level]((guided[level].shape[2], guided[level].shape[3]))
            asked = self.attend[i](self.attend_norms[i](f.flatten(2).transpose(1, 2)), told_BLd, text.mask_BL)
            guided[level] = guided[level] + asked.transpose(1, 2).unflatten(2, (f.shape[2], f.shape[3]))

        presence_B = self.presence(guided[2], self._query(text)) if self.config.presence else None

        x = guided[3]
        for level in (2, 1, 0):
            x = self.top_down[level](resize(x, (guided[level].shape[2], guided[level].shape[3])) + guided[level])
        if self.config.output_stride == 2:
            stem = image.stem_BCHW
            x = self.sharpen(torch.cat([resize(x, (stem.shape[2], stem.shape[3])), stem], dim=1))
        output = answer(self.head(x), image.padded, image.size, mask_B1HW, valid_B1HW, presence_B)
        maps = {}
        if mask_B1HW is not None and raw is not None:
            maps = {"r": raw, **{f"u{s}": m for s, m in zip(STRIDES, plain, strict=True)}}
            maps |= {f"S{s}": m for s, m in zip(STRIDES, calibrated, strict=True)}
            valid = torch.ones_like(output.logits_B1HW) if valid_B1HW is None else valid_B1HW
            output.losses.update(self.similarity_losses(raw, calibrated, mask_B1HW, valid, image.padded))
        return replace(output, token_map_BLhw=units, maps=maps)

    def _query(self, text: TextBatch) -> Tensor:
        """q of VLCM; without it the vector of the whole sentence."""
        query_BD: Tensor = self.vlcm.query(text)[2] if self.config.vlcm.enabled else text.pooled_BD
        return query_BD

    def similarity_losses(
        self, raw: Tensor, calibrated: list[Tensor], mask: Tensor, valid: Tensor, padded: tuple[int, int]
    ) -> dict[str, Tensor]:
        """The calibrated maps against the area-averaged mask, BCE and Dice; the raw one, where no CLIP has aligned it, BCE alone.

        `raw` (B, 1, h, w), `calibrated` one (B, 1, h, w) a stride, `mask` and `valid` (B, 1, H, W) before they are padded. Scalars by name.
        """
        mask, valid = pad_to(mask, padded), pad_to(valid, padded)

        def targets(map_B1hw: Tensor) -> tuple[Tensor, Tensor]:
            return coarse_target(mask, valid, (map_B1hw.shape[2], map_B1hw.shape[3]))

        losses = {}
        if self.vlcm.raw_scale is not None:
            scale, shift = self.vlcm.raw_scale
            losses["raw"] = RAW_WEIGHT * bce_loss(scale * raw + shift, *targets(raw))
        for stride, weight, similarity in zip(STRIDES, SIMILARITY_WEIGHTS, calibrated, strict=True):
            losses[f"similarity_{stride}"] = weight * dice_bce_loss(similarity, *targets(similarity))
        return losses
