"""The models: one file and one line each. `MODELS[name] = (Config, Model)`."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

from ..config import RunConfig, explain
from ..errors import InputError
from ..knowledge.bank import Bank, load_bank
from ..schemas.bundle import Base
from .assembly import source_tokenizer
from .encoders import train_tokenizer
from .languidemedseg import LanGuideMedSeg, LanGuideMedSegConfig
from .lvit import LViT, LViTConfig
from .mmiunet import MMIUNet, MMIUNetConfig
from .output import ModelOutput, SegmentationModel, TextBatch
from .resenc_unet import ResEncUNet, ResEncUNetConfig
from .tgcnet import TGCNet, TGCNetConfig
from .tmca import TMCA, TMCAConfig
from .unet import UNet, UNetConfig

MODELS: dict[str, tuple[type[BaseModel], type[SegmentationModel]]] = {
    "tgcnet": (TGCNetConfig, TGCNet),
    "tmca": (TMCAConfig, TMCA),
    "unet": (UNetConfig, UNet),
    "resenc_unet": (ResEncUNetConfig, ResEncUNet),
    "languidemedseg": (LanGuideMedSegConfig, LanGuideMedSeg),
    "lvit": (LViTConfig, LViT),
    "mmiunet": (MMIUNetConfig, MMIUNet),
}

__all__ = [
    "MODELS",
    "ModelOutput",
    "TextBatch",
    "bank_of",
    "build",
    "check",
    "count_parameters",
    "make_tokenizer",
    "model_config",
    "resolve",
    "section_sha256",
]


def model_config(section: Mapping[str, Any], where: str = "model") -> BaseModel:
    """The `model` section of a run's config as the class of its model. Raises InputError that names the nearest legal spelling."""
    name = section.get("name")
    if not isinstance(name, str) or name not in MODELS:
        near = difflib.get_close_matches(str(name), MODELS, 1)
        hint = f"Did you mean {near[0]}?" if near else f"Legal names: {', '.join(MODELS)}."
        raise InputError(f"there is no model called {name!r}", f"{where}.name", hint, "config")
    try:
        return MODELS[name][0].model_validate(dict(section))
    except ValidationError as error:
        raise explain(error, MODELS[name][0], where) from None


def resolve(config: RunConfig, absent: bool = False) -> RunConfig:
    """The config with its `model` section checked and every default written out. `absent`: some training rows have an absent target.

    A model that reads no text, or a twin, is asked nothing but its one question: `data.negatives` becomes 0. One that reads gets its
    presence head exactly where training has absent prompts, so a bundle never claims what it was not taught. InputError config: what
    model_config refuses, and output_stride 2 above 128 px.
    """
    model = model_config(config.model, f"{config.name}: model")
    largest = max(size for _, size in config.data.sizes())
    if getattr(model, "output_stride", 4) == 2 and largest > 128:
        fix = "Set model.output_stride to 4: above 128 px it costs no Dice and half the decoder's time."
        raise InputError(
            f"output_stride 2 is for training at 128 px or less, and data.size_px goes to {largest}", config.name, fix, "config"
        )
    section = model.model_dump()
    reads = MODELS[section["name"]][1].reads_text and config.data.text != "constant"
    data = config.data if reads else config.data.model_copy(update={"negatives": 0.0})
    if "presence" in section:
        section["presence"] = reads and (absent or data.negatives > 0)
    return config.model_copy(update={"data": data, "model": section})


def section_sha256(section: Mapping[str, Any]) -> str:
    """Equal for `model` sections of one architecture: defaults are no part of it, so that a key that comes later leaves it as it is, nor is
    the presence head, which training adds where its films ask for it. Raises what model_config raises.
    """
    values = model_config(section).model_dump(mode="json", exclude={"presence"}, exclude_defaults=True) | {"name": section["name"]}
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def build(
    section: Mapping[str, Any], tokenizer_json: str | None = None, bank: Bank | None = None, base: Base | None = None
) -> SegmentationModel:
    """A model with random weights but for its pretrained towers. `bank` is used where the config switches knowledge on; `base` is what a
    bundle records of its towers.

    Raises InputError for a section that is not valid and for towers that cannot be had, ValueError for a text model without its tokenizer.
    """
    config = model_config(section)
    model = MODELS[str(section["name"])][1]
    if not model.reads_text:
        return model(config)
    if tokenizer_json is None:
        raise ValueError(f"{section['name']} reads text and needs a tokenizer")
    return model(config, tokenizer_json, bank, base)


def make_tokenizer(section: Mapping[str, Any], texts: Iterable[str]) -> str | None:
    """The tokenizer that a model reads with: its pretrained text tower's own, else one trained on `texts`; None where it reads none."""
    config = model_config(section)
    if not MODELS[str(section["name"])][1].reads_text:
        return None
    return source_tokenizer(config.text) or train_tokenizer(texts)  # type: ignore[attr-defined]


def check(section: Mapping[str, Any]) -> None:
    """Lays the model out on the meta device: what `build` would refuse is refused before any data is read."""
    with torch.device("meta"):
        build(section, make_tokenizer(section, []), bank_of(section))


def bank_of(section: Mapping[str, Any]) -> Bank | None:
    """What a model section reads of the knowledge bank it names: the fitting statements, or the neutral control; None for none."""
    date = getattr(model_config(section), "date", None)
    if date is None or not date.knowledge:
        return None
    bank = load_bank(date.bank)
    return bank.control() if date.statements == "neutral" else bank.fitting()


def count_parameters(section: Mapping[str, Any]) -> dict[str, int]:
    """Parameters {total, trainable, frozen}, counted on the meta device: no memory, no weights, `source` is not resolved."""
    config, bank = model_config(section), bank_of(section)
    with torch.device("meta"):
        model = MODELS[str(section["name"])][1](config, None, bank)
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"total": total, "trainable": trainable, "frozen": total - trainable}
