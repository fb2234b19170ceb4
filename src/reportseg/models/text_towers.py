"""Pretrained text towers: CLIP's and any BERT of transformers, `vectors = text(ids, mask)` and `tokens, vectors = text.tokens(ids, mask)`.

A frozen tower reads each distinct sentence once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .towers import Pretrained, part_of_clip

REMEMBERED = 20_000  # sentences whose vectors a frozen text tower keeps; an eighth where it keeps all of their tokens


class PretrainedText(Pretrained):
    """Sentence vectors of one text tower, or its tokens. A frozen one reads each distinct sentence once, alone and in fp32, and remembers
    what it gave, so that it does not depend on the batch, on the precision, or on when a run was resumed. What is remembered is no state:
    it is dropped when the weights change or move. A model asks for vectors or for tokens, never for both.
    """

    width: int  # of the vectors
    vocabulary: int
    max_tokens: int

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.known: dict[tuple[int, ...], Tensor] = {}
        self.stamp: tuple[tuple[int, int], ...] = ()

    def read(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Vectors (B, width)."""
        raise NotImplementedError

    def read_tokens(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Every token (B, L, width)."""
        raise NotImplementedError

    def sentence(self, tokens_BLW: Tensor, mask_BL: Tensor) -> Tensor:
        """The token that stands for the sentence (B, width)."""
        raise NotImplementedError

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Token ids and their mask (True: real) to sentence vectors (B, width)."""
        if any(parameter.requires_grad for parameter in self.parameters()):
            return self.read(ids_BL, mask_BL)
        return torch.stack(self.remembered(self.read, ids_BL, mask_BL))

    def tokens(self, ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Every token (B, L, width), zero where the mask says that there is none, and the sentence vectors (B, width)."""
        if any(parameter.requires_grad for parameter in self.parameters()):
            tokens = self.read_tokens(ids_BL, mask_BL)
        else:
            tokens = nn.utils.rnn.pad_sequence(self.remembered(self.read_tokens, ids_BL, mask_BL), batch_first=True)
        return tokens, self.sentence(tokens, mask_BL)

    def remembered(self, read: Callable[[Tensor, Tensor], Tensor], ids_BL: Tensor, mask_BL: Tensor) -> list[Tensor]:
        """What `read` gives for each row, alone."""
        stamp = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.parameters())
        if stamp != self.stamp or len(self.known) > (REMEMBERED if read == self.read else REMEMBERED // 8):
            self.known, self.stamp = {}, stamp
        rows = [tuple(row[:n]) for row, n in zip(ids_BL.tolist(), mask_BL.sum(1).tolist(), strict=True)]
        device = ids_BL.device
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
            for row in dict.fromkeys(rows):
                if row not in self.known:
                    ids = torch.tensor([row], device=device)
                    self.known[row] = read(ids, torch.ones_like(ids, dtype=torch.bool))[0]
        return [self.known[row] for row in rows]


class ClipText(PretrainedText):
    """CLIP's text tower. A sentence is the state of its end token, projected: the one place that CLIP aligned with images."""

    kinds = frozenset({"clip", "clip_text_model"})
    keeps = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
        "hidden_act", "layer_norm_eps", "projection_dim",
    )  # fmt: skip
    adapts = ("q_proj", "v_proj")

    def __init__(self, config: Mapping[str, Any]) -> None:
        from transformers import CLIPTextConfig, CLIPTextModel

        super().__init__(config)
        sizes: Any = CLIPTextConfig(**self.pick(config))
        self.width, self.vocabulary, self.max_tokens = int(sizes.projection_dim or 512), sizes.vocab_size, sizes.max_position_embeddings
        self.model = CLIPTextModel(sizes)
        self.projection = nn.Linear(sizes.hidden_size, self.width, bias=False)

    @classmethod
    def settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """As `Pretrained.settings`, of this tower alone."""
        return super().settings(part_of_clip(config, "text"))

    def rename(self, key: str) -> str | None:
        """Drops the image tower."""
        if key.endswith("position_ids") or key.startswith(("vision_model.", "visual_projection.", "logit_scale")):
            return None
        if key.startswith("text_projection."):
            return key.replace("text_projection", "projection")
        return f"model.{key.removeprefix('text_model.')}"

    def read(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Projected states of the end tokens (B, width)."""
        states = self.model(input_ids=ids_BL).last_hidden_state  # causal: what pads the end is never seen
        vectors: Tensor = self.projection(self.sentence(states, mask_BL))
        return vectors

    def read_tokens(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Projected states of all tokens (B, L, width)."""
        tokens: Tensor = self.projection(self.model(input_ids=ids_BL).last_hidden_state)
        return tokens

    def sentence(self, tokens_BLW: Tensor, mask_BL: Tensor) -> Tensor:
        """The end token."""
        return tokens_BLW[torch.arange(len(tokens_BLW), device=tokens_BLW.device), mask_BL.sum(1) - 1]


class BertText(PretrainedText):
    """Any BERT (Devlin et al. 2019), CXR-BERT among them, whose own heads are left out. A sentence is the state of its [CLS] token: BERT
    has no end token that was trained for more than the border of two sentences, and CXR-BERT met its images in [CLS].
    """

    kinds = frozenset({"bert", "cxr-bert"})
    keeps = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
        "hidden_act", "layer_norm_eps", "type_vocab_size", "pad_token_id",
    )  # fmt: skip
    adapts = ("query", "value")

    def __init__(self, config: Mapping[str, Any]) -> None:
        from transformers import BertConfig, BertModel

        super().__init__(config)
        sizes: Any = BertConfig(**self.pick(config))
        self.width, self.vocabulary, self.max_tokens = sizes.hidden_size, sizes.vocab_size, sizes.max_position_embeddings
        self.model = BertModel(sizes, add_pooling_layer=False)

    def rename(self, key: str) -> str | None:
        """Drops pooler and heads; reads the names that the first BERTs gave to the weights of their norms."""
        name = key.removeprefix("bert.")
        if name.endswith("position_ids") or name.startswith(("cls.", "cls_projection_head.", "pooler.", "classifier.", "qa_outputs.")):
            return None
        return f"model.{name}".replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")

    def read(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """States of the [CLS] tokens (B, width)."""
        return self.sentence(self.read_tokens(ids_BL, mask_BL), mask_BL)

    def read_tokens(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """States of all tokens (B, L, width)."""
        tokens: Tensor = self.model(input_ids=ids_BL, attention_mask=mask_BL.long()).last_hidden_state
        return tokens

    def sentence(self, tokens_BLW: Tensor, mask_BL: Tensor) -> Tensor:
        """[CLS]."""
        return tokens_BLW[:, 0]


class Projected(nn.Module):
    """A text tower that is not of the joint space, brought into it by a linear map that is always trained."""

    def __init__(self, tower: PretrainedText, joint: int) -> None:
        super().__init__()
        self.tower = tower
        self.projection = nn.Linear(tower.width, joint, bias=False)

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Sentence vectors (B, joint)."""
        vectors: Tensor = self.projection(self.tower(ids_BL, mask_BL))
        return vectors

    def tokens(self, ids_BL: Tensor, mask_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Every token (B, L, joint), and the sentence vectors (B, joint)."""
        tokens, vectors = self.tower.tokens(ids_BL, mask_BL)
        return self.projection(tokens), self.projection(vectors)
