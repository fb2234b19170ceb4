"""Facts about what is here: this installation, its models and configs, a bundle, a config."""

from __future__ import annotations

import difflib
import os
import platform
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from .config import RunConfig, load_config, shipped_configs
from .errors import InputError


def about(what: str | None = None, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """A bundle's facts, else a config's, else those of this installation. A name that is both means the bundle, unless keys are changed.

    `params` is {total, trainable, frozen}; a config is counted on the meta device, without weights. InputError unknown for what is neither.
    """
    if what is None:
        return installation()
    from .bundle import shipped

    if not overrides and (Path(what).is_dir() or what.startswith("hf:") or what in shipped()):
        return bundle_facts(what)
    if not Path(what).is_file() and what not in shipped_configs():
        known = [*shipped(), *shipped_configs()]
        near = difflib.get_close_matches(what, known, 1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise InputError("neither a bundle nor a config", what, f"{hint}Shipped: {', '.join(dict.fromkeys(known))}.", "unknown")
    return config_facts(load_config(what, overrides))


def installation() -> dict[str, Any]:
    """Versions, devices, and what ships with the program."""
    from importlib.metadata import version

    import torch

    from .bundle import shipped
    from .limits import cache_root
    from .models import MODELS
    from .types import INTENDED_USE

    devices = ["cpu", *(f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {
        "reportseg": version("reportseg"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "devices": devices,
        "bundles": shipped(),
        "configs": shipped_configs(),
        "models": list(MODELS),
        "cache": str(cache_root()),
        "intended_use": INTENDED_USE,
    }


def bundle_facts(ref: str) -> dict[str, Any]:
    """What a bundle is, after every check that a prediction would make."""
    from .bundle import TRAINING, load_bundle
    from .schemas.base import read_json
    from .schemas.training import TrainingFile

    bundle = load_bundle(ref, merged=False)
    training = read_json(bundle.path / TRAINING, TrainingFile)
    stored, frozen = bundle.config, [p.numel() for p in bundle.model.parameters() if not p.requires_grad]
    total = sum(p.numel() for p in bundle.model.parameters())
    size = sum((bundle.path / name).stat().st_size for name in stored.files)
    return {
        "kind": "bundle",
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "model": stored.model_type,
        "params": {"total": total, "trainable": total - sum(frozen), "frozen": sum(frozen)},
        "bytes": size,
        "size_px": stored.preprocess.size_px,
        "laterality": stored.text.laterality,
        "decision": stored.decision.model_dump(),
        "presence": stored.presence,
        "words": len(bundle.words),
        "knowledge": bundle.bank.name if bundle.bank else None,
        "trained_on": [source.model_dump() for source in stored.trained_on],
        "images": training.images,
        "dev": dict(training.dev),
        "licence": stored.licence,
        "intended_use": stored.intended_use,
    }


def config_facts(config: RunConfig) -> dict[str, Any]:
    """What a config would train."""
    from .models import count_parameters, resolve

    resolved = resolve(config)
    return {
        "kind": "config",
        "name": resolved.name,
        "model": resolved.model["name"],
        "params": count_parameters(resolved.model),
        "images": resolved.train.images,
        "steps": resolved.steps(),
        "size_px": [size for _, size in resolved.data.sizes()],
        "text": resolved.data.text,
    }


def known_models() -> dict[str, Any]:
    """Name to what the model is, in the words of its module."""
    import sys

    from .models import MODELS

    return {name: (sys.modules[model.__module__].__doc__ or "").strip().splitlines()[0] for name, (_, model) in MODELS.items()}


def known_configs() -> dict[str, str]:
    """Name to the comment at the head of the file."""
    folder = resources.files("reportseg").joinpath("configs")
    return {name: folder.joinpath(f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name in shipped_configs()}


def schemas(name: str | None = None) -> dict[str, Any]:
    """JSON schemas by name: every file that is written, `config` (a run's YAML) and `model/NAME` (its model section); one alone by `name`.

    InputError unknown, with the nearest name.
    """
    from .models import MODELS
    from .schemas.files import all_schemas

    known = {**all_schemas(), "config": RunConfig.model_json_schema()}
    known |= {f"model/{model}": section.model_json_schema() for model, (section, _) in MODELS.items()}
    if name is None:
        return known
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise InputError(
            "there is no schema of this name", name, f"Did you mean {near[0]}?" if near else f"Names: {', '.join(known)}.", "unknown"
        )
    found: dict[str, Any] = known[name]
    return found
