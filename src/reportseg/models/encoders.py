"""Towers for training from random initialisation, a residual CNN, a ConvNeXt, a ViT and a bidirectional text tower, and their tokenizer.

Pretrained towers (towers.py, text_towers.py) have the same interfaces: `taps, values = vision(image)`, `vectors = text(ids, mask)`,
`tokens, vectors = text.tokens(ids, mask)`, `maps = cnn(image)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from ..errors import InputError
from ..text import normalise
from .layers import ChannelNorm, ConvNeXtBlock, ResidualBlock, TransformerBlock, conv_block, pad_to_multiple, resize
from .tokenizer import faults_told, read_tokenizer

VOCABULARY = 2000
PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?;])\s+|\s*\n\s*")


class ResidualCNN(nn.Module):
    """Overlapping 3x3 stem at stride 4, then residual stages at strides 4, 8, 16, 32 (He et al. 2016, GroupNorm)."""

    def __init__(self, widths: Sequence[int], depth: int, stem: int) -> None:
        super().__init__()
        self.stem = conv_block(3, stem, stride=2)
        self.widen = conv_block(stem, widths[0], stride=2)
        self.stages = nn.ModuleList()
        c_in = widths[0]
        for level, width in enumerate(widths):
            first = ResidualBlock(c_in, width, stride=1 if level == 0 else 2)
            self.stages.append(nn.Sequential(first, *(ResidualBlock(width, width) for _ in range(depth - 1))))
            c_in = width

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Maps at strides 2, 4, 8, 16, 32."""
        return _pyramid(self.stem, self.widen, self.stages, image_B3HW)


class ConvNeXtPyramid(nn.Module):
    """ConvNeXt stages (Liu et al. 2022) at strides 4, 8, 16, 32 behind an overlapping 3x3 stem: patches that do not overlap cost points
    where nothing is pretrained.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], stem: int) -> None:
        super().__init__()
        self.stem = conv_block(3, stem, stride=2)
        self.widen = nn.Sequential(nn.Conv2d(stem, widths[0], 3, 2, 1), ChannelNorm(widths[0]))
        self.stages = nn.ModuleList()
        c_in = widths[0]
        for level, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            down = [] if level == 0 else [ChannelNorm(c_in), Halve(c_in, width)]
            self.stages.append(nn.Sequential(*down, *(ConvNeXtBlock(width) for _ in range(depth))))
            c_in = width

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Maps at strides 2, 4, 8, 16, 32, each side rounded up."""
        return _pyramid(self.stem, self.widen, self.stages, image_B3HW)


class Halve(nn.Conv2d):
    """Patches of 2x2, as ConvNeXt goes from stage to stage. Only a map of an odd side is padded, by one row or column: to pad the image to
    whole patches of the last stage costs a third more places at 112 px.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 2, 2)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H / 2, W / 2), rounded up."""
        return super().forward(pad_to_multiple(x_BCHW, 2))


def _pyramid(stem: nn.Module, widen: nn.Module, stages: nn.ModuleList, image_B3HW: Tensor) -> list[Tensor]:
    maps = [stem(image_B3HW)]
    x = widen(maps[0])
    for stage in stages:
        x = stage(x)
        maps.append(x)
    return maps


class VisionTransformer(nn.Module):
    """A ViT (Dosovitskiy et al. 2021) with position embeddings that interpolate, tapped at 1/4, 2/4, 3/4 and 4/4 of its depth.

    `joint` None: nothing compares its patches with text, so they are not projected.
    """

    def __init__(self, width: int, depth: int, heads: int, patch: int, joint: int | None) -> None:
        super().__init__()
        self.patch = patch
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.position_1Chw = nn.Parameter(torch.randn(1, width, 14, 14) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.joint = joint
        if joint is not None:
            self.post_norm = nn.LayerNorm(width)
            self.projection = nn.Linear(width, joint, bias=False)

    def forward(self, image_B3HW: Tensor) -> tuple[list[Tensor], Tensor]:
        """Four taps (B, h*w, width), and the last block's value path projected into the joint space, (B, joint or 0, h, w)."""
        x = self.embed(image_B3HW)
        size = (x.shape[2], x.shape[3])
        x = (x + resize(self.position_1Chw, size)).flatten(2).transpose(1, 2)
        depth = len(self.blocks)
        taps_at = [max(1, round(depth * quarter / 4)) for quarter in (1, 2, 3, 4)]
        states = []
        for block in self.blocks:
            before, x = x, block(x)
            states.append(x)
        last: Any = self.blocks[-1]
        values = x[..., :0] if self.joint is None else self.projection(self.post_norm(last.value_path(before)))
        return [states[i - 1] for i in taps_at], values.transpose(1, 2).unflatten(2, size)


class TextTransformer(nn.Module):
    """A bidirectional text tower; its sentence vector is the state of the end-of-sentence token, projected into the joint space."""

    def __init__(self, vocabulary: int, width: int, depth: int, heads: int, joint: int, max_tokens: int = 77) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.position_LC = nn.Parameter(torch.randn(max_tokens, width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, joint, bias=False)
        nn.init.normal_(self.embed.weight, std=0.02)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Token ids and their mask (True: real) to sentence vectors (B, joint)."""
        x = self.states(ids_BL, mask_BL)
        last = mask_BL.sum(1) - 1
        eos = x[torch.arange(len(x), device=x.device), last]
        out: Tensor = self.projection(self.norm(eos))
        return out

    def tokens(self, ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Every token in the joint space (B, L, joint), and the sentence vectors (B, joint)."""
        tokens: Tensor = self.projection(self.norm(self.states(ids_BL, mask_BL)))
        return tokens, tokens[torch.arange(len(tokens), device=tokens.device), mask_BL.sum(1) - 1]

    def states(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """What the last block gives for every token (B, L, width)."""
        x: Tensor = self.embed(ids_BL) + self.position_LC[: ids_BL.shape[1]]
        for block in self.blocks:
            x = block(x, mask_BL)
        return x


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> str:
    """A byte-level BPE of at most `vocabulary` pieces over normalised texts, as the JSON of `tokenizers`: no character is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted({normalise(text) for text in texts}), trainer)
    begin, end = (tokenizer.token_to_id(token) for token in (BOS, EOS))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=[(BOS, begin), (EOS, end)])
    return tokenizer.to_str()


def check_tokenizer(tokenizer_json: str, vocabulary: int) -> None:
    """InputError bad_tower for a tokenizer that is not the one of a tower with so many pieces, those that were added to it among them: each
    must have its row in the tower's table, and begin and end of a sentence must be marked; and those of read_tokenizer.
    """
    marks, rows = _marks_and_rows(read_tokenizer(tokenizer_json))
    if len(marks) != 2 or rows > vocabulary:
        what = f"the tokenizer does not fit the text tower: it numbers {rows} pieces of {vocabulary}, and has {len(marks)} marks of 2"
        raise InputError(what, "tokenizer.json", "Take tokenizer.json and the weights from one source.", "bad_tower")


def count_pieces(tokenizer_json: str) -> int:
    """Rows in the table of a tower that is trained with this tokenizer. ValueError where it numbers a piece past its vocabulary, which
    `train_tokenizer` never does. InputError: those of read_tokenizer.
    """
    tokenizer = read_tokenizer(tokenizer_json)
    size = int(tokenizer.get_vocab_size(with_added_tokens=False))
    if _marks_and_rows(tokenizer)[1] > size:
        raise ValueError(f"the tokenizer numbers a piece past its vocabulary of {size}")
    return size


def _marks_and_rows(tokenizer: Tokenizer) -> tuple[list[int], int]:
    """The ids around a sentence, and the rows that a table needs for these and for all pieces."""
    marks: list[int] = tokenizer.encode("").ids
    return marks, max([*marks, *tokenizer.get_vocab(with_added_tokens=True).values()], default=-1) + 1


class SentenceTokenizer:
    """Normalised sentences to padded ids, of the tower's own tokenizer. Ids are kept per distinct sentence; what is over the limit is cut
    before the end token, so a long text is to be given in `chunks`. That each id has its row, check_tokenizer or count_pieces has said.
    InputError: those of read_tokenizer. ValueError where begin and end of a sentence are not marked.
    """

    def __init__(self, tokenizer_json: str, max_tokens: int) -> None:
        self.tokenizer = read_tokenizer(tokenizer_json)
        if len(self.tokenizer.encode("").ids) != 2:
            raise ValueError("the tokenizer does not mark begin and end of a sentence")
        self.max_tokens = max_tokens
        self.known: dict[str, list[int]] = {}

    def ids(self, text: str) -> list[int]:
        """Piece ids with begin and end, of any length. InputError bad_tower where the tokenizer fails on the text."""
        if text not in self.known:
            if len(self.known) > 50_000:
                self.known.clear()
            self.tokenizer.encode_special_tokens = True  # a text that spells "<eos>" holds five characters; set here, for a copy loses it
            with faults_told():
                self.known[text] = self.tokenizer.encode(normalise(text)).ids
        return self.known[text]

    def spans(self, text: str) -> list[tuple[int, int] | None]:
        """The characters of `text` behind every piece that the tower reads, None for a piece that has none, as begin and end."""
        self.ids(text)  # sets how special tokens are read
        ends = self.tokenizer.encode(normalise(text)).offsets
        ends = ends if len(ends) <= self.max_tokens else [*ends[: self.max_tokens - 1], ends[-1]]
        plain = normalise(text)
        # A character may become several or none, so places are counted in visible ones.
        origin = [i for i, character in enumerate(text) for made in normalise(character) if not made.isspace()]
        before = [0]
        for character in plain:
            before.append(before[-1] + (not character.isspace()))
        if before[-1] != len(origin):  # characters that only make one together
            return [(0, len(text)) if a < b else None for a, b in ends]
        found = ((before[a], before[b]) for a, b in ends)
        return [(origin[a], origin[b - 1] + 1) if a < b else None for a, b in found]

    def fits(self, text: str) -> bool:
        """Whether the tower reads all of the text at once."""
        return len(self.ids(text)) <= self.max_tokens

    def chunks(self, text: str) -> list[str]:
        """The text in parts that the tower reads whole, as few as whole sentences allow; only a sentence that is too long alone does not
        fit, and is a part of its own.
        """
        if self.fits(text):
            return [text]
        ends = [match.start() for match in _BETWEEN_SENTENCES.finditer(text)] + [len(text)]
        parts, start, last = [], 0, 0
        for end in ends:
            if last > start and not self.fits(text[start:end]):
                parts.append(text[start:last].strip())
                start = last
            last = end
        return [part for part in [*parts, text[start:].strip()] if part]

    def too_long(self, text: str) -> bool:
        """Whether a sentence of the text is over the limit, so that its last words are not read."""
        return not all(map(self.fits, self.chunks(text)))

    def __call__(self, texts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """ids_BL and mask_BL (True: real)."""
        rows = [ids if len(ids) <= self.max_tokens else [*ids[: self.max_tokens - 1], ids[-1]] for ids in map(self.ids, texts)]
        length = max(map(len, rows))
        ids_BL = torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.long)
        mask_BL = torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]
        return ids_BL.to(device), mask_BL.to(device)
