"""Sentences to word tokens, for models whose maps attend to every token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .encoders import SentenceTokenizer
from .output import TextBatch


class TokenReader(nn.Module):
    """A text tower and its tokenizer. A text that is longer than the tower reads is read in chunks of whole sentences, whose tokens are
    joined; its sentence vector is the mean of theirs. Each distinct chunk is encoded once.
    """

    def __init__(self, tower: nn.Module, tokenizer: SentenceTokenizer) -> None:
        super().__init__()
        self.tower: Any = tower
        self.tokenizer = tokenizer
        self.known: dict[str, tuple[tuple[int, int] | None, ...]] = {}

    def forward(self, texts: Sequence[str]) -> TextBatch:
        """Units are tokens in the joint space; begin and end of a sentence are real ones that stand for no character."""
        chunks = [self.tokenizer.chunks(text) for text in texts]
        read = list(dict.fromkeys(chunk for row in chunks for chunk in row))
        ids_RL, mask_RL = self.tokenizer(read, next(self.tower.parameters()).device)
        tokens_RLD, pooled_RD = (encoded.float() for encoded in self.tower.tokens(ids_RL, mask_RL))
        length = mask_RL.sum(1).tolist()
        place = {chunk: i for i, chunk in enumerate(read)}
        rows = [[place[chunk] for chunk in row] for row in chunks]
        joined = [torch.cat([tokens_RLD[i, : length[i]] for i in row]) for row in rows]
        lengths_B = torch.tensor([len(tokens) for tokens in joined])
        mask_BL = (torch.arange(int(lengths_B.max())) < lengths_B[:, None]).to(mask_RL.device)
        pooled_BD = torch.stack([pooled_RD[row].mean(0) for row in rows])
        return TextBatch(nn.utils.rnn.pad_sequence(joined, batch_first=True), mask_BL, pooled_BD, tuple(map(self.spans, texts)))

    def spans(self, text: str) -> tuple[tuple[int, int] | None, ...]:
        """The characters behind each token."""
        if text not in self.known:
            if len(self.known) > 20_000:
                self.known.clear()
            found: list[tuple[int, int] | None] = []
            start = 0
            for chunk in self.tokenizer.chunks(text):
                start = text.index(chunk, start)
                found += [span and (start + span[0], start + span[1]) for span in self.tokenizer.spans(chunk)]
                start += len(chunk)
            self.known[text] = tuple(found)
        return self.known[text]
