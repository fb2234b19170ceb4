"""The configuration of a run: what cannot be trained is refused before it begins, and a resume is held to what it began with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .config import RunConfig, load_config
from .errors import InputError
from .models import check, model_config, resolve
from .runs import LOCK, Prepared
from .schemas.base import read_json
from .schemas.training import EnvFile

CONFIG, ENV = "config.yaml", "env.json"

Manifests = str | Path | Sequence[str | Path] | None


def check_parent(parent: Bundle, config: RunConfig, prepared: Prepared) -> None:
    """A bundle to start from has the same model, but perhaps no presence head yet, and its sentences mean the same side.

    InputError: init, laterality.
    """
    theirs = model_config(parent.config.model).model_dump()  # an older bundle does not name the keys that came later
    if theirs.get("presence") is False:
        theirs["presence"] = config.model["presence"]
    if theirs != dict(config.model):
        keys = [k for k in config.model if config.model[k] != theirs.get(k)]
        fix = f"Set the model section to that of the bundle; it differs in {', '.join(keys) or 'its keys'}."
        fix += " The presence head follows from absent prompts: see data.negatives." * ("presence" in keys)
        raise InputError("the bundle to start from holds another model", config.train.init or "", fix, "init")
    whose = {parent.config.text.laterality, prepared.laterality} - {"none"}
    if len(whose) > 1:
        what = f"the bundle means the {parent.config.text.laterality}'s left, the manifest the {prepared.laterality}'s"
        raise InputError(what, config.train.init or "", "Import the data again with the other --laterality.", "laterality")


def checked(config: RunConfig, manifest: Manifests) -> RunConfig:
    """The config with every default written out and the given data in it; what cannot be built is refused here."""
    config = resolve(config)
    check(config.model)
    named = [str(one) for one in ([manifest] if isinstance(manifest, (str, Path)) else manifest or ())]
    return changed(config, "data", manifest=named[0] if len(named) == 1 else named) if named else config


def changed(config: RunConfig, section: str, **changes: Any) -> RunConfig:
    """The config with other values in one section."""
    return config.model_copy(update={section: getattr(config, section).model_copy(update=changes)})


def check_free(folder: Path) -> None:
    """InputError exists where something lies in the folder of a new run."""
    if folder.exists() and any(found.name != LOCK for found in folder.iterdir()):
        raise InputError("the run folder exists", folder, "Give --resume to go on with it, or another folder with -o.", "exists")


def stored_config(config: RunConfig, folder: Path, manifest: Manifests) -> RunConfig:
    """The config that the run began with. What was repeated on the command line must agree, but for what the run itself fixed, and for
    where films, teacher and parent lie by now, which are told by their hashes. InputError: config, those of load_config.
    """
    stored = resolve(load_config(folder / CONFIG))
    free = {"train": {"images", "minutes", "precision", "checkpoint_minutes", "workers"}, "data": {"manifest", "teacher"}}
    free["train"] |= {"init"} if config.train.init and stored.train.init else set()
    differs = []
    for section in ("data", "model", "train", "eval"):
        one, two = config.model_dump(mode="json")[section], stored.model_dump(mode="json")[section]
        differs += [f"{section}.{key}" for key in two if one.get(key) != two[key] and key not in free.get(section, ())]
    if differs or config.seed != stored.seed:
        keys = ", ".join(differs or ["seed"])
        raise InputError(f"the run was started with another {keys}", folder, "Leave these out to go on, or choose another -o.", "config")
    moved = {"manifest": config.data.manifest} if manifest else {}
    moved |= {"teacher": config.data.teacher} if config.data.teacher else {}
    return changed(changed(stored, "data", **moved), "train", init=config.train.init)


def settled(config: RunConfig, first: Path) -> RunConfig:
    """The config with what was measured for another seed, whose run lies in `first`.

    InputError: config (what was not to be measured is another than there), those of load_config.
    """
    asked, found = config.train, load_config(first / CONFIG).train
    differs = ["precision"] * (asked.precision not in ("auto", found.precision)) + ["minutes"] * (asked.minutes != found.minutes)
    differs += ["images"] * (asked.minutes is None and asked.images != found.images)
    if differs:
        what = f"the first seed was started with another {', '.join(f'train.{key}' for key in differs)}"
        raise InputError(what, first, "Leave these out to go on, or choose another -o.", "config")
    return changed(config, "train", precision=found.precision, images=found.images, minutes=found.minutes)


def check_same(config: RunConfig, folder: Path, now: EnvFile) -> None:
    """A run goes on with the films, their sentences and masks, the teacher and the parent that it began with: on others it would end
    neither as this run nor as a new one. What an older run did not note agrees. InputError config.
    """
    if not (folder / ENV).exists():
        return
    before = read_json(folder / ENV, EnvFile)
    where = str(config.data.manifest)
    fix = "Restore the manifest, or begin anew with another -o."
    if (before.split_sha256, before.dev_ids) != (now.split_sha256, now.dev_ids):
        raise InputError("these are not the films that the run was started with", where, fix, "config")
    said = {"rows": "rows of the manifest (their sentences, order, laterality, flip_safe or complete)", "masks": "masks of its films"}
    for name, what in said.items():
        if before.contents is not None and before.contents.get(name) != (now.contents or {}).get(name):
            fix = "Put back what the run began with, or begin anew with another -o."
            raise InputError(f"the {what} changed since the run was started", where, fix, "config")
    if before.teacher != now.teacher:
        raise InputError("this is not the teacher that the run was started with", str(config.data.teacher), fix, "config")
    named = {"teacher": ("answers of the teacher", config.data.teacher), "init": ("bundle to start from", config.train.init)}
    for name, (what, path) in named.items():
        if before.sources is not None and before.sources.get(name) != (now.sources or {}).get(name):
            fix = "Put back what lay there, name the place where it lies by now, or begin anew with another -o."
            raise InputError(f"the {what} changed since the run was started", str(path), fix, "config")
