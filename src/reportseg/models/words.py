"""Words for the peers: a reader of tokens from random initialisation, or a pretrained one, at the sizes of their presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..schemas.bundle import Tower as Record
from .assembly import Tower, open_tower
from .encoders import VOCABULARY, SentenceTokenizer, TextTransformer, check_tokenizer, count_pieces, train_tokenizer
from .reader import TokenReader


@dataclass(frozen=True)
class WordPreset:
    """Sizes of the tower that reads words. `vocabulary` is for counting: a tokenizer brings its own."""

    width: int
    depth: int
    heads: int
    max_tokens: int = 77
    vocabulary: int = VOCABULARY

    def layout(self) -> dict[str, Any]:
        """A BERT of this size, to be counted without opening its source."""
        sizes = {"hidden_size": self.width, "intermediate_size": 4 * self.width, "num_hidden_layers": self.depth}
        read = {"vocab_size": self.vocabulary, "max_position_embeddings": self.max_tokens}
        return {"model_type": "bert", "num_attention_heads": self.heads, **sizes, **read}


#: BERT base with the vocabulary of CXR-BERT, as the papers read with; the others are trained here.
WORDS = {
    "tiny": WordPreset(32, 1, 2),
    "cpu": WordPreset(128, 3, 4),
    "published": WordPreset(768, 12, 12, max_tokens=512, vocabulary=30_522),
}


class Words(TokenReader):
    """The tower that `section` describes, `width` channels a token. `tokenizer_json` None only lays it out, to be counted. `record` is what
    a bundle has of a pretrained tower; what this one stands on is in `self.record`.
    """

    def __init__(self, p: WordPreset, section: Tower, tokenizer_json: str | None, record: Record | None) -> None:
        found, width, limit = Record(), p.width, p.max_tokens
        if section.source == "scratch":
            vocabulary = p.vocabulary if tokenizer_json is None else count_pieces(tokenizer_json)
            tower: Any = TextTransformer(vocabulary, p.width, p.depth, p.heads, p.width, p.max_tokens)
        else:
            tower, found = open_tower("text", section, record, p.layout() if tokenizer_json is None else None)
            width, limit = tower.width, tower.max_tokens
            if tokenizer_json is not None:
                check_tokenizer(tokenizer_json, tower.vocabulary)
        super().__init__(tower, SentenceTokenizer(tokenizer_json or train_tokenizer([]), limit))
        self.record, self.width, self.max_tokens = found, width, limit

    def too_long(self, text: str) -> bool:
        """Whether a sentence of the text is over the limit, so that its last words are not read."""
        return self.tokenizer.too_long(text)
