"""What a run starts from: its films, split into train and dev, what their sentences mean, and what is needed to repeat it."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray

from .config import RunConfig
from .data.manifest import Dataset, read_manifest
from .data.splits import draw_dev, split_sha256
from .errors import InputError
from .models import MODELS, count_parameters
from .schemas.base import Windows
from .schemas.training import EnvFile
from .text import CONSTANT, can_swap, normalise, swap_sides, words
from .types import Laterality, Sample

LOCK = ".lock"  # in a run folder; the empty file stays


@dataclass(frozen=True)
class Prepared:
    """The films of a run. `words` are those of the training sentences; `trained_on` and `licence` go into the bundle.

    `absent`: some row of train says that its target is not there.
    """

    train: list[Sample]
    dev: list[Sample]
    laterality: Laterality
    reads_text: bool
    constant: bool
    absent: bool
    trained_on: list[dict[str, Any]]
    licence: str
    windows: Windows  # of the organs in slices of volumes

    @property
    def words(self) -> set[str]:
        """All words of the training texts, for the warning out_of_vocabulary."""
        return {word for sample in self.train for word in words(self.text_of(sample))}

    def text_of(self, sample: Sample) -> str:
        """The sentence of a film as this run reads it; the twin reads one for all."""
        return CONSTANT if self.constant else sample.text


def prepare(config: RunConfig) -> Prepared:
    """Read the manifests and set dev aside: 10 % of the films of each data set, whole patients, seeded by its name.

    The run means the side that its first sided film states; sentences that mean the other are turned. With several data sets an id begins
    with the name of its own; what a bundle says of each is the same as if it were alone.
    InputError: no_manifest, same_name, side_word (a sentence that cannot be turned), flips (`eval.flips` on films that are not flip_safe),
    windows (two of one organ), empty_split, those of the manifest.
    """
    named = config.data.manifest
    if not named:
        raise InputError("no data was given", "data.manifest", "Give --data with a manifest or its folder.", "no_manifest")
    datasets = [read_manifest(path, text_column=config.data.text_column) for path in ([named] if isinstance(named, str) else named)]
    names = [dataset.name for dataset in datasets]
    if len(set(names)) < len(names):
        fix = "Import one of them with another --name: ids, dev and what the bundle was trained on are told by it."
        raise InputError(f"two data sets have the same name: {', '.join(names)}", "data.manifest", fix, "same_name")
    whose: Laterality = "none"
    train: list[Sample] = []
    dev: list[Sample] = []
    sources: list[dict[str, Any]] = []
    windows: Windows = {}
    for dataset in datasets:
        samples = dataset.split(config.data.train)[: config.data.limit]
        if whose == "none":
            whose = next((sample.laterality for sample in samples if sample.laterality != "none"), "none")
        chosen = set(draw_dev(samples, dataset.name))  # by the data set's own ids, so its dev is the same alone and beside others
        kept = [sample for sample in samples if sample.id not in chosen]
        safe = all(sample.flip_safe for sample in samples if can_swap(sample.text))
        if config.eval.flips and not safe:
            fix = "Leave out eval.flips, or say flip_safe in the manifest if the mirrored anatomy is as true."
            raise InputError("some films are not flip_safe, so an answer to the mirrored film means nothing", dataset.path, fix, "flips")
        source = {"name": dataset.name, "licence": dataset.info.licence, "split_sha256": split_sha256(s.id for s in kept)}
        sources.append({**source, "flip_safe": safe})
        if any(windows.get(name, pair) != pair for name, pair in dataset.info.windows.items()):
            fix = "Import one of them again, with the --windows of the other."
            what = f"{dataset.name} shows an organ in another window than the data set before it"
            raise InputError(what, "data.manifest", fix, "windows")
        windows |= dataset.info.windows
        prefix = f"{dataset.name}__" if len(datasets) > 1 else ""
        train += [_meaning(sample, whose, dataset, prefix) for sample in kept]
        dev += [_meaning(sample, whose, dataset, prefix) for sample in samples if sample.id in chosen]
    return Prepared(
        train=train,
        dev=dev,
        laterality=whose,
        reads_text=MODELS[config.model["name"]][1].reads_text,
        constant=config.data.text == "constant",
        absent=not all(sample.present for sample in train),
        trained_on=sources,
        licence="; ".join(dict.fromkeys(s["licence"] for s in sources if s["licence"])) or "not stated",
        windows=windows,
    )


def _meaning(sample: Sample, whose: Laterality, dataset: Dataset, prefix: str) -> Sample:
    """The film as the run reads it: its id behind `prefix`, its sentence in the convention `whose`. InputError side_word."""
    sample = replace(sample, id=prefix + sample.id)
    if sample.laterality in ("none", whose):
        return sample
    if not can_swap(sample.text):
        what = f"the text of row {sample.row} means the {sample.laterality}'s left, the run the {whose}'s, and a side word cannot be turned"
        raise InputError(what, dataset.path, 'Write "left" or "right" there, or leave the row out.', "side_word")
    return replace(sample, text=swap_sides(sample.text), laterality=whose)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds a run folder, made where it is missing, for this process. InputError in_use where another process holds it.

    The system frees it when the process ends, in whatever way. The films' readers are forked and may outlive it by seconds: they do not
    hold it, since `lockf` locks for the process and not, as `flock`, for the open file. On a disk that knows no locks nobody is held off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "ab") as file:
        try:
            _lock(file)
        except (BlockingIOError, PermissionError) as error:
            fix = "Wait until it ends, or stop it; then --resume goes on. Or choose another folder with -o."
            raise InputError("another process trains in this folder", folder, fix, "in_use") from error
        except OSError:
            pass  # the disk knows no locks
        yield


def _lock(file: IO[bytes]) -> None:
    """BlockingIOError or PermissionError where another process has the lock; closing the file frees it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def text_steps(config: RunConfig, prepared: Prepared) -> int:
    """Steps that place sentences before the first film. None where there is nothing to learn (no text, or one constant sentence), after a
    parent, which has learnt it, and for a pretrained text tower, which knows words and would forget them.
    """
    learns = prepared.reads_text and not prepared.constant and not config.train.init and config.model["text"]["source"] == "scratch"
    return config.train.text_steps if learns else 0


def plan(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """What `train --dry-run` prints: counts of films and parameters, the steps without films and with, and the sizes these run at."""
    return {
        "name": config.name,
        "train_films": len(prepared.train),
        "dev_films": len(prepared.dev),
        "sentences": len({prepared.text_of(sample) for sample in prepared.train}),
        "laterality": prepared.laterality,
        "params": count_parameters(config.model),
        "text_steps": text_steps(config, prepared),
        "images": config.train.images,
        "steps": config.steps(),
        "passes": round(config.train.images / len(prepared.train), 2),
        "sizes": [[share, size] for share, size in config.data.sizes()],
    }


def contents(prepared: Prepared, masks_NHW: NDArray[np.uint8]) -> dict[str, str]:
    """Hashes of what the rows of train and dev say and of their masks on the training grid, (N, H, W) of 0 and 1, for env.json.

    In their order, by which a step takes its films. The masks are those of the cache: no file is decoded for it.
    """
    rows, masks = hashlib.sha256(), hashlib.sha256()
    for sample, mask_HW in zip([*prepared.train, *prepared.dev], masks_NHW, strict=True):
        read = (sample.id, sample.laterality, sample.flip_safe, sample.complete, normalise(sample.text))
        rows.update("\t".join(map(str, read)).encode() + b"\n")
        masks.update(np.packbits(mask_HW).tobytes())
    return {"rows": rows.hexdigest(), "masks": masks.hexdigest()}


def environment(
    config: RunConfig,
    prepared: Prepared,
    device: torch.device,
    teacher: Sequence[str] = (),
    sources: Mapping[str, str] | None = None,
    shown: Mapping[str, str] | None = None,
) -> EnvFile:
    """env.json of the run; `teacher` are the hashes of its bundles, `sources` those that teacher.sources_sha256 gives, `shown` those of
    `contents`.
    """
    return EnvFile(
        commit=_commit(),
        versions={
            "python": platform.python_version(),
            **{name: _version(name) for name in ("reportseg", "torch", "numpy", "accelerate", "transformers")},
        },
        platform=f"{platform.system()} {platform.machine()}",
        device=str(device),
        threads=torch.get_num_threads(),
        seed=config.seed,
        split_sha256=split_sha256(sample.id for sample in prepared.train),
        dev_ids=sorted(sample.id for sample in prepared.dev),
        teacher=list(teacher),
        sources=dict(sources or {}),
        contents=None if shown is None else dict(shown),
    )


def without_paths(config: RunConfig) -> dict[str, Any]:
    """The configuration for a bundle: a path tells about the user's disk and is of no use elsewhere."""
    values = config.model_dump(mode="json")
    values["data"]["manifest"] = None
    values["data"]["teacher"] = None
    values["train"]["init"] = None
    return values


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def _commit() -> str | None:
    """The commit of the sources, None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "rev-parse", "HEAD"],  # noqa: S607 - git from PATH, as the user has it
            capture_output=True,
            text=True,
            timeout=10,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None if found.returncode == 0 else None
