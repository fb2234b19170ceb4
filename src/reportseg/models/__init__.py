"""The models: one file and one line each. `MODELS[name] = (Config, Model)`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import nn

from ..config import RunConfig, explain
from ..errors import InputError
from ..knowledge.bank import Bank, load_bank
from .encoders import train_tokenizer
from .output import ModelOutput, TextBatch
from .tgcnet import TGCNet, TGCNetConfig
from .unet import UNet, UNetConfig

MODELS: dict[str, tuple[type[BaseModel], type[nn.Module]]] = {
    "tgcnet": (TGCNetConfig, TGCNet),
    "unet": (UNetConfig, UNet),
}

__all__ = ["MODELS", "ModelOutput", "TextBatch", "bank_of", "build", "count_parameters", "model_config", "resolve"]


def model_config(section: Mapping[str, Any], where: str = "model") -> BaseModel:
    """The `model` section of a run's config as the class of its model. Raises InputError that names the nearest legal spelling."""
    name = section.get("name")
    if name not in MODELS:
        near = difflib.get_close_matches(str(name), MODELS, 1)
        hint = f"Did you mean {near[0]}?" if near else f"Legal names: {', '.join(MODELS)}."
        raise InputError(f"there is no model called {name!r}", f"{where}.name", hint, "config")
    try:
        return MODELS[name][0].model_validate(dict(section))
    except ValidationError as error:
        raise explain(error, MODELS[name][0], where) from None


def resolve(config: RunConfig) -> RunConfig:
    """The config with its `model` section checked and every default written out."""
    return config.model_copy(update={"model": model_config(config.model, f"{config.name}: model").model_dump()})


def build(section: Mapping[str, Any], tokenizer_json: str | None = None, bank: Bank | None = None) -> nn.Module:
    """A model with random weights. Text models need the tokenizer's JSON; `bank` is used where the config switches knowledge on."""
    config = model_config(section)
    return MODELS[str(section["name"])][1](config, tokenizer_json, bank)


def bank_of(section: Mapping[str, Any]) -> Bank | None:
    """The knowledge bank that a model section names, or None where it uses none."""
    date = getattr(model_config(section), "date", None)
    return load_bank(date.bank) if date is not None and date.knowledge else None


def count_parameters(section: Mapping[str, Any]) -> dict[str, int]:
    """Parameters {total, trainable, frozen}, counted on the meta device: no memory, no weights, `source` is not resolved."""
    words = train_tokenizer([]) if MODELS[str(model_config(section).name)][1].reads_text else None  # type: ignore[attr-defined]
    with torch.device("meta"):
        model = build(section, words, bank_of(section))
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"total": total, "trainable": trainable, "frozen": total - trainable}
