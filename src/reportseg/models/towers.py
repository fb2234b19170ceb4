"""Pretrained towers: CLIP, any BERT, ResNet and ConvNeXt of transformers behind the two interfaces of encoders.py.

`taps, values = vision(image)`, `vectors = text(ids, mask)`, and `maps = cnn(image)`. A family says what of a config.json decides its
architecture, how the keys of its files map to its own, and which maps lora changes. transformers is imported only where a tower is built.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .layers import pad_to_multiple
from .lora import adapt

Train = Literal["frozen", "lora", "full"]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation per colour channel

CLIP_STATISTICS: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
REMEMBERED = 20_000  # sentences whose vectors a frozen text tower keeps; an eighth where it keeps all of their tokens


class Pretrained(nn.Module):
    """A tower of transformers, always in eval mode: dropout would draw numbers that a resume cannot repeat, and BatchNorm keeps the
    statistics it came with.

    Of a tower that is frozen or adapted, only what is trained is in the state dict: the rest is found again by its hash.
    """

    kinds: ClassVar[frozenset[str]]  # values of model_type in config.json
    keeps: ClassVar[tuple[str, ...]]  # keys of config.json that decide the architecture
    adapts: ClassVar[tuple[str, ...]]  # names of the maps that lora changes
    usual: ClassVar[Statistics] = IMAGENET_STATISTICS  # where the source does not state its own
    model: Any

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        mean, std = (config.get(key) for key in ("image_mean", "image_std"))
        self.statistics = (tuple(mean), tuple(std)) if mean and std else self.usual
        self.referenced = False
        self._prefix = ""
        self.register_state_dict_post_hook(_leave_out)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_note_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_forgive)  # type: ignore[no-untyped-call]

    @classmethod
    def pick(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """The keys that decide the architecture."""
        return {key: config[key] for key in cls.keeps if config.get(key) is not None}

    @classmethod
    def settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """What is kept of a source's config.json: its type and the keys that decide the architecture."""
        return {"model_type": config["model_type"], **cls.pick(config)}

    def rename(self, key: str) -> str | None:
        """A key of the source's weights as this module has it, None for what has no use here."""
        raise NotImplementedError

    def regime(self, train: Train) -> None:
        """What of the tower takes a gradient. Eval mode begins here, for a module is born in training mode."""
        self.referenced = train != "full"
        self.train()
        if train == "lora":
            adapt(self, self.adapts)
        elif train == "frozen":
            self.requires_grad_(False)
        for part in self.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.requires_grad_(False)

    def train(self, mode: bool = True) -> Pretrained:
        """Stays in eval mode, whatever the model around it does."""
        return super().train(False)

    def is_kept(self, key: str) -> bool:
        """Whether the state dict has `key`: all of a tower that is trained in full, else what takes a gradient."""
        return not self.referenced or key in {name for name, parameter in self.named_parameters() if parameter.requires_grad}


def _leave_out(module: Any, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        if not module.is_kept(key.removeprefix(prefix)):
            del state[key]


def _note_prefix(module: Any, state: Any, prefix: str, *_: Any) -> None:
    module._prefix = prefix


def _forgive(module: Any, keys: Any) -> None:
    own = module._prefix
    keys.missing_keys[:] = [key for key in keys.missing_keys if not key.startswith(own) or module.is_kept(key.removeprefix(own))]


# ---------------------------------------------------------------- CLIP's image tower


class ClipVision(Pretrained):
    """CLIP's ViT (Radford et al. 2021). `joint` is the width of CLIP's own image-text space; with `projected` False nothing uses it."""

    kinds = frozenset({"clip", "clip_vision_model"})
    keeps = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size", "patch_size", "hidden_act",
        "layer_norm_eps", "projection_dim",
    )  # fmt: skip
    adapts = ("q_proj", "v_proj")
    usual = CLIP_STATISTICS

    def __init__(self, config: Mapping[str, Any], projected: bool = True) -> None:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        super().__init__(config)
        sizes: Any = CLIPVisionConfig(**self.pick(config))
        self.width, self.patch, self.joint = sizes.hidden_size, int(sizes.patch_size), sizes.projection_dim
        self.model = CLIPVisionModel(sizes)
        self.projection = nn.Linear(self.width, self.joint, bias=False) if projected else None
        if not projected:
            self.model.post_layernorm = nn.Identity()

    @classmethod
    def settings(cls, config: Mapping[str, Any]) -> dict[str, Any]:
        """As `Pretrained.settings`, of this tower alone."""
        return super().settings(_part_of_clip(config, "vision"))

    def rename(self, key: str) -> str | None:
        """Drops the text tower, and what nothing uses where patches are not projected."""
        if key.endswith("position_ids") or key.startswith(("text_model.", "text_projection.", "logit_scale", "classifier.")):
            return None
        if key.startswith("visual_projection."):
            return key.replace("visual_projection", "projection") if self.projection is not None else None
        name = key.removeprefix("vision_model.")
        return None if self.projection is None and name.startswith("post_layernorm.") else f"model.{name}"

    def forward(self, image_B3HW: Tensor) -> tuple[list[Tensor], Tensor]:
        """Four taps (B, h*w, width), at 1/4, 2/4, 3/4 and 4/4 of the depth, and the patches in the joint space (B, joint or 0, h, w):
        the value path of the last block, out_proj(v_proj(norm(x))), through CLIP's own post-norm and projection (Zhou et al. 2022).
        """
        read = self.model(pixel_values=image_B3HW, interpolate_pos_encoding=True, output_hidden_states=True)
        states = read.hidden_states  # the embedded patches, then the state after each block; the class token comes first
        depth = len(states) - 1
        taps = [states[max(1, round(depth * quarter / 4))][:, 1:] for quarter in (1, 2, 3, 4)]
        if self.projection is None:
            values = taps[-1][..., :0]
        else:
            block = self.model.encoder.layers[-1]
            value = block.self_attn.out_proj(block.self_attn.v_proj(block.layer_norm1(states[-2][:, 1:])))
            values = self.projection(self.model.post_layernorm(value))
        grid = (image_B3HW.shape[2] // self.patch, image_B3HW.shape[3] // self.patch)
        return taps, values.transpose(1, 2).unflatten(2, grid)


def _part_of_clip(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The settings of one tower in the config.json of a whole CLIP, where older files have a second map that goes before the first."""
    if config.get("model_type") != "clip":
        return dict(config)
    maps = [config.get(key) for key in (f"{part}_config", f"{part}_config_dict")]
    joined = {key: value for found in maps if isinstance(found, dict) for key, value in found.items()}
    return joined | {"model_type": f"clip_{part}_model", "projection_dim": config.get("projection_dim", 512)}


# ---------------------------------------------------------------- text towers


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
        return super().settings(_part_of_clip(config, "text"))

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


# ---------------------------------------------------------------- CNN branch


class PretrainedCNN(Pretrained):
    """A pyramid: maps at strides 2, 4, 8, 16, 32 with `widths` channels. `stem` channels at stride 2, none for ConvNeXt."""

    stem: int
    widths: tuple[int, int, int, int]


class ResNet(PretrainedCNN):
    """He et al. 2016, with its BatchNorm frozen."""

    kinds = frozenset({"resnet"})
    keeps = (
        "embedding_size",
        "hidden_sizes",
        "depths",
        "layer_type",
        "hidden_act",
        "downsample_in_first_stage",
        "downsample_in_bottleneck",
    )
    adapts = ("convolution",)

    def __init__(self, config: Mapping[str, Any]) -> None:
        from transformers import ResNetConfig, ResNetModel

        super().__init__(config)
        sizes: Any = ResNetConfig(**self.pick(config))
        if len(sizes.hidden_sizes) != 4 or sizes.downsample_in_first_stage:
            raise ValueError("a CNN branch has four stages at strides 4, 8, 16 and 32")
        self.stem, self.widths = sizes.embedding_size, tuple(sizes.hidden_sizes)
        self.model = ResNetModel(sizes)

    def rename(self, key: str) -> str | None:
        """Drops the classifier."""
        return None if key.startswith("classifier.") else f"model.{key.removeprefix('resnet.')}"

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Maps at strides 2, 4, 8, 16, 32."""
        maps = [self.model.embedder.embedder(image_B3HW)]
        x = self.model.embedder.pooler(maps[0])
        for stage in self.model.encoder.stages:
            x = stage(x)
            maps.append(x)
        return maps


class ConvNeXt(PretrainedCNN):
    """Liu et al. 2022. Its patches do not overlap, so the image is padded to whole ones and the maps are cut back."""

    kinds = frozenset({"convnext"})
    keeps = ("patch_size", "hidden_sizes", "depths", "num_stages", "hidden_act", "layer_scale_init_value")
    adapts = ("pwconv1", "pwconv2")
    stem = 0

    def __init__(self, config: Mapping[str, Any]) -> None:
        from transformers import ConvNextConfig, ConvNextModel

        super().__init__(config)
        sizes: Any = ConvNextConfig(**self.pick(config))
        if len(sizes.hidden_sizes) != 4 or sizes.patch_size != 4:
            raise ValueError("a CNN branch has four stages at strides 4, 8, 16 and 32")
        self.widths = tuple(sizes.hidden_sizes)
        self.model = ConvNextModel(sizes)
        self.model.layernorm = nn.Identity()  # of the pooled vector, which nothing reads

    def rename(self, key: str) -> str | None:
        """Drops the classifier and its norm."""
        name = key.removeprefix("convnext.")
        return None if name.startswith(("classifier.", "layernorm.")) else f"model.{name}"

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """A map without channels at stride 2, then those at strides 4, 8, 16, 32."""
        height, width = image_B3HW.shape[-2:]
        maps = [image_B3HW[:, :0, ::2, ::2]]
        x = self.model.embeddings(pad_to_multiple(image_B3HW, 32))
        for stage, stride in zip(self.model.encoder.stages, (4, 8, 16, 32), strict=True):
            x = stage(x)
            maps.append(x[..., : -(-height // stride), : -(-width // stride)])
        return maps


class Renormalised(nn.Module):
    """A CNN branch that was trained with other statistics of its images than the model's."""

    ratio: Tensor
    shift: Tensor

    def __init__(self, tower: nn.Module, given: Statistics, own: Statistics) -> None:
        super().__init__()
        self.tower = tower
        (mean, std), (own_mean, own_std) = (tuple(torch.tensor(v).view(1, -1, 1, 1) for v in pair) for pair in (given, own))
        self.register_buffer("ratio", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """The maps of the tower, for an image with the statistics of the model."""
        maps: list[Tensor] = self.tower(image_B3HW * self.ratio + self.shift)
        return maps
