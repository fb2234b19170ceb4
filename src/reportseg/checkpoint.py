"""Checkpoints that a kill at any byte cannot lose: written beside, synced, renamed; each file proves by itself that it is complete.

A checkpoint is one safetensors file: all tensors of the run (model, EMA, optimiser), flat by name, and the run's small facts as JSON in its
header, with the sha256 of both. `last` becomes `previous` only after its successor is safely on disk. Never pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

LAST, PREVIOUS, BEST = "last", "previous", "best"


def path_of(directory: Path, name: str) -> Path:
    """Where the checkpoint of that name lies: last, previous or best."""
    return Path(directory) / f"{name}.safetensors"


def save(directory: Path, state: Mapping[str, Tensor], meta: Mapping[str, Any], name: str = LAST) -> Path:
    """Write one checkpoint and return its path. `meta` is JSON data.

    `last` keeps its complete predecessor as `previous`; any other name, such as `best`, replaces itself. InputError unwritable.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    target = path_of(directory, name)
    temporary = target.with_name(f"{target.name}.tmp")
    tensors = _separate(state)
    text = json.dumps(dict(meta), sort_keys=True)
    try:
        save_file(tensors, temporary, metadata={"meta": text, "sha256": _digest(tensors, text)})
        _sync(temporary)
    except (OSError, SafetensorError) as error:  # safetensors wraps what the system says
        temporary.unlink(missing_ok=True)
        fix = "Make room and go on with --resume; older checkpoints are untouched."
        raise InputError("the checkpoint cannot be written; the disk may be full", target, fix, "unwritable") from error
    if name == LAST and target.exists() and _has_full_length(target):  # a damaged `last` must not push out a sound `previous`
        os.replace(target, path_of(directory, PREVIOUS))
    os.replace(temporary, target)
    _sync(directory)
    return target


def load(directory: Path, name: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors (on the CPU) and meta of the newest complete checkpoint: `last`, else `previous`; with `name` of that one only.

    None where none is complete.
    """
    for candidate in (LAST, PREVIOUS) if name is None else (name,):
        found = read(path_of(directory, candidate))
        if found is not None:
            return found
    return None


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """One checkpoint file, None where it is absent, cut short or altered."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError):
        return None
    text = header.get("meta", "")
    if header.get("sha256") != _digest(tensors, text):
        return None
    return tensors, json.loads(text)


def _separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors that share no memory: safetensors refuses tied ones, and a resume needs none of the sharing."""
    seen: set[int] = set()
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        pointer = tensor.untyped_storage().data_ptr()
        tensors[key] = tensor.clone() if pointer in seen else tensor
        seen.add(pointer)
    return tensors


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """sha256 over names, types, shapes, bytes and the meta text."""
    import torch

    sha = hashlib.sha256(text.encode())
    for key in sorted(tensors):
        tensor = tensors[key]
        sha.update(f"\0{key}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _has_full_length(path: Path) -> bool:
    """The header can be read and the file is as long as the header says; cheap, reads no tensor."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return "sha256" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk. Windows cannot open folders, and renames are durable there without."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
