"""Pretrained towers, and those that read images: CLIP's, ResNet and ConvNeXt of transformers behind the interfaces of encoders.py.

`taps, values = vision(image)` and `maps = cnn(image)`; what reads text is in text_towers.py. A family says what of a config.json decides
its architecture, how the keys of its files map to its own, and which maps lora changes. transformers is imported only where a tower is
built.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .layers import pad_to_multiple
from .lora import adapt

Train = Literal["frozen", "lora", "full"]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation per colour channel

CLIP_STATISTICS: Statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_STATISTICS: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


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
        return super().settings(part_of_clip(config, "vision"))

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


def part_of_clip(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    """The settings of one tower in the config.json of a whole CLIP, where older files have a second map that goes before the first."""
    if config.get("model_type") != "clip":
        return dict(config)
    maps = [config.get(key) for key in (f"{part}_config", f"{part}_config_dict")]
    joined = {key: value for found in maps if isinstance(found, dict) for key, value in found.items()}
    return joined | {"model_type": f"clip_{part}_model", "projection_dim": config.get("projection_dim", 512)}


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
    """Liu et al. 2022. Its patches do not overlap, so the image is padded to whole ones, and so is each map of an odd side."""

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
        """A map without channels at stride 2, then those at strides 4, 8, 16, 32, each side rounded up."""
        maps, x = [image_B3HW[:, :0, ::2, ::2]], pad_to_multiple(image_B3HW, 4)
        for level in range(4):
            x = self.stage(level, x)
            maps.append(x)
        return maps

    def stage(self, level: int, x_BCHW: Tensor) -> Tensor:
        """The first from an image of whole patches to stride 4, each further one from the map before it to half its sides, rounded up."""
        x = pad_to_multiple(x_BCHW, 2) if level else self.model.embeddings(x_BCHW)
        out: Tensor = self.model.encoder.stages[level](x)
        return out


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
