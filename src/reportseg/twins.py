"""What a text-free twin is, and what proves that an evaluation is one.

The twin of a model is the same configuration with `data.text=constant`: seed, films, schedule, architecture and teacher are equal, and a
model that went on from a parent has a twin that went on from the parent's twin, for else the twin's first weights would have read texts.
What the text bought is the model minus this twin; minus another model it would be the text and all else in which the two differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from .cases import CASES, METRICS, read_cases
from .config import DataConfig, EvalSection, TrainSection
from .errors import InputError
from .schemas.base import read_json
from .schemas.bundle import BundleConfig, DecisionConfig
from .schemas.metrics import Metrics
from .schemas.training import TrainingFile
from .types import CaseScore

# Keys that configurations did not have from the start: at their defaults they are no part of the hash, so older seeds still group.
LATER: Mapping[str, Mapping[str, Any]] = {
    "eval": EvalSection().model_dump(include={"flips"}),
    "data": DataConfig().model_dump(include={"teacher", "teacher_weight"}),
    "train": TrainSection().model_dump(include={"lovasz", "text_steps"}),
}

# No result depends on these: where a configuration has them they are hashed at their defaults. Older hashes that were made with other
# values than these are no longer met.
IDLE: Mapping[str, Mapping[str, Any]] = {"train": TrainSection().model_dump(mode="json", include={"checkpoint_minutes", "workers"})}

# What only the reading model has, what a machine decides (`auto` measures which precision is quicker), and paths: teacher, parent and
# films are told by their hashes.
_FREE = {
    "model": {"presence"},
    "data": {"text", "text_dropout", "negatives", "manifest", "teacher"},
    "train": {"text_steps", "images", "minutes", "checkpoint_minutes", "workers", "precision", "init"},
}


def config_sha256(training: TrainingFile | None, parent: str | None = None) -> str | None:
    """Equal for the runs of one configuration, one teacher and one parent that differ in the seed only."""
    if training is None or not training.config:
        return None
    values = {key: value for key, value in training.config.items() if key != "seed"}
    for section in LATER.keys() | IDLE.keys():
        if isinstance(values.get(section), dict):
            later, idle = LATER.get(section, {}), IDLE.get(section, {})
            told = {key: value for key, value in values[section].items() if key not in later or value != later[key]}
            values[section] = {key: idle.get(key, value) for key, value in told.items()}
    values |= ({"teacher": training.teacher} if training.teacher else {}) | ({"parent": parent} if parent else {})
    return _sha256(values)


def twin_sha256(training: TrainingFile, bundle: BundleConfig) -> str | None:
    """Equal for a model and its twin, whatever their seeds and names; None where the training does not tell its configuration.

    Defaults are no part of it: a key that comes later leaves it as it is. Pretrained towers are told by their hashes too, for what lies at
    a path may change. Of a parent that has a twin it takes `parent_twin`, of any other its hash, so that both must have gone on from that
    very bundle.
    """
    from .models import model_config

    sections = {name: training.config.get(name, {}) for name in _FREE}
    if not sections["model"]:
        return None
    try:
        read = {
            "model": model_config(sections["model"]),
            "data": DataConfig(**sections["data"]),
            "train": TrainSection(**sections["train"]),
        }
    except (InputError, ValidationError, TypeError):
        return None
    values: dict[str, Any] = {name: one.model_dump(mode="json", exclude=_FREE[name], exclude_defaults=True) for name, one in read.items()}
    values["model"]["name"] = sections["model"].get("name")
    values |= {"images": training.images, "teacher": training.teacher, "parent": training.parent_twin or bundle.parent}
    towers = {part: tower["sha256"] for part, tower in bundle.base.model_dump().items() if tower["sha256"] is not None}
    values |= {"towers": towers} if towers else {}  # none where all began from scratch: older hashes stay
    return _sha256(values | {"films": _films(bundle)})


def films_sha256(bundle: BundleConfig) -> str | None:
    """Equal for bundles of the same training films; None where these are not recorded."""
    return _sha256({"films": _films(bundle)}) if bundle.trained_on else None


def _films(bundle: BundleConfig) -> list[list[str]]:
    return [[source.name, source.split_sha256] for source in bundle.trained_on]


def parent_twin(parent: TrainingFile, bundle: BundleConfig, *, reads: bool, constant: bool) -> str | None:
    """For the training.json of what goes on from a bundle: equal for that bundle and its twin of the same seed, through all parents.

    `reads`: a sentence moves the parent's answers; `constant`: what goes on from it reads one sentence for all. None where both are so, for
    then it is nobody's twin, and where the parent does not tell its configuration.
    """
    shared = None if reads and constant else twin_sha256(parent, bundle)
    return shared and _sha256({"twin": shared, "seed": parent.seed})


def read_twin(
    folder: Path, cases_sha256: str, ids: set[str], training: TrainingFile, bundle: BundleConfig, decision: DecisionConfig | None
) -> tuple[Metrics, list[CaseScore]]:
    """The evaluation in `folder`, of the twin of this bundle on these cases. InputError cases_differ, twin."""
    metrics = read_json(folder / METRICS, Metrics)
    if metrics.cases_sha256 != cases_sha256:
        what = f"the twin was evaluated on other cases ({metrics.n_cases} of the split {metrics.split!r})"
        raise InputError(what, folder / METRICS, "Evaluate it on the same split of the same manifest.", "cases_differ")
    if differs := _differs(metrics, training, bundle):
        fix = _how(training, bundle)
        raise InputError(f"this is not the evaluation of the model's text-free twin: {differs}", folder / METRICS, fix, "twin")
    flips = decision is not None and decision.flips
    if flips != (metrics.decision is not None and metrics.decision.flips):
        what = f"the model answers with{'' if flips else 'out'} flips and the twin with{'out' if flips else ''}"
        raise InputError(what, folder / METRICS, f"Evaluate the twin with --{'' if flips else 'no-'}flips.", "twin")
    cases = read_cases(folder / CASES)
    if {case.id for case in cases} != ids:
        what = f"the twin's {CASES} is not that of its {METRICS}"
        raise InputError(what, folder / CASES, "Evaluate the twin again.", "cases_differ")
    return metrics, cases


def _differs(metrics: Metrics, training: TrainingFile, bundle: BundleConfig) -> str | None:
    """In what the evaluated model is not the twin; None where it is."""
    if metrics.text != "constant" or metrics.bundle_sha256 is None:
        return f"it read the column {metrics.text}" if metrics.bundle_sha256 else "it scored masks"
    if metrics.ensemble:
        return "it is an ensemble"
    if metrics.seed != training.seed:
        return f"its seed is {metrics.seed}, the model's {training.seed}"
    if metrics.twin_sha256 is None:
        return "it does not tell what it was trained with; if an earlier version made it, evaluate that bundle again"
    ours = twin_sha256(training, bundle)
    return None if ours == metrics.twin_sha256 else "its architecture, schedule, films, teacher or parent are others"


def _how(training: TrainingFile, bundle: BundleConfig) -> str:
    """The command that trains the twin."""
    name, schedule = training.config.get("name") or "CONFIG", training.config.get("train", {})
    keys = ["data.text=constant", f"seed={training.seed}", f"train.images={training.images}", f"train.precision={training.precision}"]
    keys += ["train.minutes=null"] if schedule.get("minutes") else []
    keys += [f"train.init={'TWIN_OF_THE_PARENT' if training.parent_twin else 'PARENT'}"] if bundle.parent else []
    command = f"reportseg train {name} {' '.join(f'-s {key}' for key in keys)}"
    return f"Train it on the model's films with the settings that the model had and `{command}`, and evaluate it on this split."


def _sha256(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
