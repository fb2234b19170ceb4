"""Which towers a model gets: from random initialisation at the sizes of its preset, or pretrained, as the source's config.json has them.

A bundle records of a pretrained tower where it came from, its hash and its architecture: one whose weights the bundle holds needs no
source, and any other is found again and must be the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import nn

from ..config import Section
from ..errors import InputError
from ..schemas.bundle import Base
from ..schemas.bundle import Tower as Record
from .encoders import VOCABULARY, ConvNeXtPyramid, ResidualCNN, TextTransformer, VisionTransformer, check_tokenizer, count_pieces
from .sources import Source, find
from .text_towers import BertText, ClipText, Projected
from .towers import IMAGENET_STATISTICS, ClipVision, ConvNeXt, Pretrained, Renormalised, ResNet, Statistics, Train


class Tower(Section):
    """A tower in the `model` section of a run's config."""

    source: str = Field(default="scratch", min_length=1, description="scratch, or pretrained weights: a hub id or the path of a folder")
    train: Train = Field(default="full", description="frozen: as it came; lora: low-rank changes to it; full: all of its weights")
    revision: str | None = Field(default=None, description="commit, tag or branch of a hub id")

    @model_validator(mode="after")
    def _nothing_to_freeze(self) -> Tower:
        if self.source == "scratch" and self.train != "full":
            done = {"frozen": "frozen", "lora": "adapted by lora"}[self.train]
            raise ValueError(f"random weights cannot be {done}: set train to full, or name pretrained weights in source")
        return self


@dataclass(frozen=True)
class Preset:
    """Widths of everything; (width, depth, heads) for the two transformers, `stem` channels of the CNN branch at stride 2. `vocabulary` is
    for counting: a tokenizer brings its own. A pretrained tower puts its own sizes in their place.
    """

    cnn: tuple[int, int, int, int]
    stem: int
    cnn_depth: int
    vision: tuple[int, int, int]
    text: tuple[int, int, int]
    joint: int
    width: int
    patch: int = 16
    max_tokens: int = 77
    vocabulary: int = VOCABULARY

    def layout(self, part: str) -> dict[str, Any]:
        """A pretrained tower of this size, to be counted without opening its source."""

        def transformer(width: int, depth: int, heads: int) -> dict[str, Any]:
            sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": depth, "num_attention_heads": heads}
            return sizes | {"projection_dim": self.joint}

        if part == "vision":
            return {"model_type": "clip_vision_model", "patch_size": self.patch, **transformer(*self.vision)}
        if part == "text":
            read = {"vocab_size": self.vocabulary, "max_position_embeddings": self.max_tokens}
            return {"model_type": "clip_text_model", **read, **transformer(*self.text)}
        stages = {"hidden_sizes": list(self.cnn), "depths": [self.cnn_depth] * 4, "layer_type": "basic"}
        return {"model_type": "resnet", "embedding_size": self.cnn[0], **stages}


class Towers(NamedTuple):
    """The towers of a model, the preset with their sizes in it, what a bundle records of them, and the statistics their images have.

    `aligned`: image and text tower are of one CLIP.
    """

    vision: nn.Module
    cnn: nn.Module | None
    text: nn.Module
    p: Preset
    base: Base
    statistics: Statistics
    aligned: bool


def build_towers(p: Preset, named: Mapping[str, Tower | None], compared: bool, tokenizer_json: str | None, base: Base | None) -> Towers:
    """The towers that `named` describes under vision, text and cnn (None: no CNN branch). D is the width of CLIP's joint space where a CLIP
    is among them. `compared` False: no patch of the image meets a sentence, so none is projected. `tokenizer_json` None: only laid out.
    """
    opened: dict[str, Any] = {}
    records: dict[str, Any] = {}
    for part, section in named.items():
        if section is not None and section.source != "scratch":
            layout = p.layout(part) if tokenizer_json is None else None
            options = {"projected": compared} if part == "vision" else {}
            opened[part], records[part] = open_tower(part, section, getattr(base, part) if base else None, layout, **options)
    vision, text, cnn = (opened.get(part) for part in ("vision", "text", "cnn"))

    if vision is not None:
        p = replace(p, vision=(vision.width, 0, 0), patch=vision.patch, joint=vision.joint)
    elif isinstance(text, ClipText):
        p = replace(p, joint=text.width)
    if cnn is not None:
        p = replace(p, cnn=cnn.widths, stem=cnn.stem)
    statistics = vision.statistics if vision is not None else IMAGENET_STATISTICS
    aligned = isinstance(text, ClipText) and vision is not None and _same(named["vision"], named["text"]) and text.width == p.joint

    if vision is None:
        width, depth, heads = p.vision
        vision = VisionTransformer(width, depth, heads, p.patch, p.joint if compared else None)
    if cnn is None and named["cnn"] is not None:
        cnn = ResidualCNN(p.cnn, p.cnn_depth, p.stem)
    elif cnn is not None and cnn.statistics != statistics:
        cnn = Renormalised(cnn, statistics, cnn.statistics)
    if text is None:
        vocabulary = p.vocabulary if tokenizer_json is None else count_pieces(tokenizer_json)
        width, depth, heads = p.text
        text = TextTransformer(vocabulary, width, depth, heads, p.joint, p.max_tokens)
    else:
        p = replace(p, max_tokens=text.max_tokens)
        if tokenizer_json is not None:
            check_tokenizer(tokenizer_json, text.vocabulary)
        if not isinstance(text, ClipText) or text.width != p.joint:
            text = Projected(text, p.joint)
    return Towers(vision, cnn, text, p, Base(**records), statistics, aligned)


@dataclass(frozen=True)
class PyramidPreset:
    """Sizes of a ConvNeXt and of a text tower that gives tokens; `text` is (width, depth, heads). `vocabulary` is for counting."""

    cnn: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    stem: int
    text: tuple[int, int, int]
    joint: int
    width: int
    max_tokens: int = 77
    vocabulary: int = VOCABULARY

    def layout(self, part: str) -> dict[str, Any]:
        """A pretrained tower of this size, to be counted without opening its source."""
        if part == "cnn":
            return {"model_type": "convnext", "hidden_sizes": list(self.cnn), "depths": list(self.depths)}
        width, depth, heads = self.text
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": depth, "num_attention_heads": heads}
        return {"model_type": "bert", "vocab_size": self.vocabulary, "max_position_embeddings": self.max_tokens, **sizes}


class PyramidTowers(NamedTuple):
    """An image pyramid and a text tower that gives tokens of width `joint`, and what a bundle records of them."""

    cnn: nn.Module
    text: nn.Module
    widths: tuple[int, int, int, int]
    stem: int
    max_tokens: int
    base: Base
    statistics: Statistics


def build_pyramid(p: PyramidPreset, image: Tower, text: Tower, tokenizer_json: str | None, base: Base | None) -> PyramidTowers:
    """A ConvNeXt (or ResNet) and a text tower, as their sections say. `tokenizer_json` None: only laid out, and no source is opened.

    A pretrained pyramid without a map at stride 2 has `stem` 0.
    """
    records: dict[str, Any] = {}
    laid_out = tokenizer_json is None
    if image.source == "scratch":
        cnn: Any = ConvNeXtPyramid(p.cnn, p.depths, p.stem)
        widths, stem, statistics = p.cnn, p.stem, IMAGENET_STATISTICS
    else:
        cnn, records["vision"] = open_tower("cnn", image, base.vision if base else None, p.layout("cnn") if laid_out else None)
        widths, stem, statistics = cnn.widths, cnn.stem, cnn.statistics
    if text.source == "scratch":
        vocabulary = p.vocabulary if tokenizer_json is None else count_pieces(tokenizer_json)
        width, depth, heads = p.text
        reader: Any = TextTransformer(vocabulary, width, depth, heads, p.joint, p.max_tokens)
        limit = p.max_tokens
    else:
        tower, records["text"] = open_tower("text", text, base.text if base else None, p.layout("text") if laid_out else None)
        if tokenizer_json is not None:
            check_tokenizer(tokenizer_json, tower.vocabulary)
        reader, limit = Projected(tower, p.joint), tower.max_tokens
    return PyramidTowers(cnn, reader, widths, stem, limit, Base(**records), statistics)


def _same(one: Tower | None, other: Tower | None) -> bool:
    return one is not None and other is not None and (one.source, one.revision) == (other.source, other.revision)


# ---------------------------------------------------------------- one pretrained tower

FAMILIES: dict[str, tuple[type[Any], ...]] = {
    "vision": (ClipVision,),
    "text": (ClipText, BertText),
    "cnn": (ResNet, ConvNeXt),
    "convnext": (ConvNeXt,),
}

#: The sizes that a config.json states, and the most that a tower may have: far above any that was published.
MOST = dict.fromkeys(
    ("hidden_size", "intermediate_size", "projection_dim", "embedding_size", "hidden_sizes", "max_position_embeddings"), 2**16
)
MOST |= dict.fromkeys(("num_attention_heads", "type_vocab_size", "patch_size"), 2**10) | {"image_size": 2**14, "vocab_size": 2**22}
MOST |= {"num_hidden_layers": 512, "depths": 512, "num_stages": 16}
STAGES = 16  # values of a list


def open_tower(part: str, tower: Tower, record: Record | None, layout: Mapping[str, Any] | None, **options: Any) -> tuple[Any, Record]:
    """The tower of `part` (a key of FAMILIES), of which that takes a gradient which `tower.train` says, and what a bundle records of it.

    `layout` given: with random weights, to be counted; no source is opened. `record` given: as in the bundle that recorded it: a frozen or
    adapted tower is found again and must be the same, and one that was trained in full has its weights in the bundle. Else from
    `tower.source`. InputError: those of find, Source.fill and check_bounds, family, bad_tower, sha256.
    """
    if layout is not None:
        module, found = _family(part, layout, "layout")(layout, **options), Record()
    elif record is None:
        source = find(tower.source, tower.revision)
        family = _family(part, source.config, source.id)
        config = family.settings(source.config) | source.statistics()
        module = _filled(part, family, config, source, options)
        found = Record(id=source.id, revision=source.revision, sha256=_hash(source), config=config)
    elif record.id is None or record.config is None:
        raise ValueError(f"the bundle does not record where its {part} tower came from")
    else:
        family, found = _family(part, record.config, record.id), record
        if tower.train == "full":
            check_bounds(f"base.{part}", family.pick(record.config), "Fetch the bundle again or write it anew with `reportseg train`.")
            module = family(record.config, **options)
        else:
            source = find(record.id, record.revision)
            if _hash(source) not in (record.sha256, None):
                what = f"the {part} tower {record.id!r} is not the one that the bundle stands on: its sha256 is another"
                raise InputError(what, source.folder, f"Put back the weights with the sha256 {record.sha256}.", "sha256")
            module = _filled(part, family, record.config, source, options)
    module.regime(tower.train)
    return module, found


def check_bounds(where: str, config: Mapping[str, Any], fix: str) -> None:
    """InputError bad_tower where a size of a tower is no whole number from 1 to MOST: a layer takes time when it is laid out, even without
    memory, and a tower without layers or places shows it at the first film only. So does an eps that is not between 0 and 1. What is laid
    out must then fit the header of its weights before it takes any.
    """
    stated = {key: config[key] if isinstance(config[key], list | tuple) else [config[key]] for key in MOST if key in config}
    for key, values in stated.items():
        sound = len(values) <= STAGES and all(type(value) is int and 1 <= value <= MOST[key] for value in values)
        if not sound or (key == "depths" and sum(values) > MOST[key]):
            what = f"{where}: {key} is {str(config[key])[:80]}, and a tower has a whole number from 1 to {MOST[key]}"
            raise InputError(what, where, fix, "bad_tower")
    eps = config.get("layer_norm_eps", 1e-5)
    if not (type(eps) is float and 0 < eps < 1):
        raise InputError(f"{where}: layer_norm_eps is {str(eps)[:80]}, and a norm has one between 0 and 1", where, fix, "bad_tower")


def source_tokenizer(tower: Tower) -> str | None:
    """The JSON of a pretrained text tower's own tokenizer, None where the tower is trained from scratch."""
    return None if tower.source == "scratch" else find(tower.source, tower.revision).tokenizer_json()


def _family(part: str, config: Mapping[str, Any], name: str) -> Any:
    kind = config.get("model_type")
    for family in FAMILIES[part]:
        if isinstance(kind, str) and kind in family.kinds:
            return family
    legal = ", ".join(sorted(kind for family in FAMILIES[part] for kind in family.kinds))
    what = f"{name!r} cannot be the {part} tower: its config.json has model_type {str(kind)[:80]!r}"
    raise InputError(what, name, f"Name a source of type {legal}.", "family")


def _hash(source: Source) -> str | None:
    """None on the meta device, where weights are not read."""
    return None if torch.get_default_device().type == "meta" else source.sha256


def _filled(part: str, family: Any, config: Mapping[str, Any], source: Source, options: Mapping[str, Any]) -> Pretrained:
    """Laid out without memory, compared with what the file holds, then filled. One without layers or places fits its file too."""
    source.check_sizes(config)
    try:
        with torch.device("meta"):
            module: Pretrained = family(config, **options)
    except Exception as error:  # config.json is untrusted, and its errors are of many kinds
        what = f"no tower can be built from the config.json of {source.id!r}: {str(error).strip()[:300]}"
        raise InputError(what, source.folder, "Fetch the source again, or name another one.", "bad_tower") from error
    source.fill(module, module.rename)
    check_bounds(f"{part} tower {source.id!r}", family.pick(config), "Fetch the source again, or name another one.")
    if torch.get_default_device().type != "meta":
        for layer in module.modules():
            for name, buffer in list(layer.named_buffers(recurse=False)):
                if buffer.is_meta:  # those that no file holds
                    setattr(layer, name, UNSTORED[name](buffer))
    return module


UNSTORED = {
    "position_ids": lambda buffer: torch.arange(buffer.shape[-1]).expand(buffer.shape),
    "token_type_ids": lambda buffer: torch.zeros(buffer.shape, dtype=torch.long),
}
