"""A bundle: one directory that holds all that a prediction needs, weights, words, knowledge, decision and their card.

`config.json` lists every other file with its sha256, so the bundle's hash, the sha256 of the canonical `config.json`, stands for all of it
except README.md, licence files and `engines/`. Weights are fp16 safetensors with strict keys, never pickle. A pretrained tower that was not
trained in full is not among them: `base` says where it came from and its hash. A bundle is untrusted input: sizes, hashes and the weights'
header are read first, and the model is counted on the meta device before it takes memory.

Format version N is read by reportseg 0.N and later.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.resources
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .card import card
from .decision import Decision
from .errors import InputError
from .schemas.base import load_json, parse, read_json, to_json
from .schemas.bundle import Base, BundleConfig
from .schemas.training import TrainingFile

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .knowledge.bank import Bank

VERSION = 1
CONFIG, WEIGHTS, TOKENIZER, KNOWLEDGE, VOCABULARY, TRAINING, CARD = (
    "config.json", "model.safetensors", "tokenizer.json", "knowledge.json", "vocabulary.json", "training.json", "README.md",
)  # fmt: skip
ENGINES = "engines"
_LISTED = (WEIGHTS, TOKENIZER, KNOWLEDGE, VOCABULARY, TRAINING)  # the names that `files` may hold
_REQUIRED = (WEIGHTS, VOCABULARY, TRAINING)
_UNLISTED = re.compile(r"(config\.json|README\.md|LICEN[CS]E.*|NOTICE.*|\..*)", re.IGNORECASE)  # beside them, not hashed
_TEXT_BYTES, _WEIGHT_BYTES = 64 * 2**20, 8 * 2**30
_PICKLE_NAMES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_AGAIN = "Fetch the bundle again or write it anew with `reportseg train`."


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle; `model` is in eval mode and fp32. `words` are the words of the training texts, normalised."""

    config: BundleConfig
    model: nn.Module
    bank: Bank | None
    words: frozenset[str]
    tokenizer_json: str | None
    path: Path
    sha256: str

    @property
    def decision(self) -> Decision:
        """The rule that turns its probabilities into a mask, fitted on dev."""
        return Decision(self.config.decision.rule, self.config.decision.threshold, self.config.decision.temperature)


# ---------------------------------------------------------------- writing


def save_bundle(
    directory: str | os.PathLike[str],
    model: nn.Module,
    model_cfg: Mapping[str, Any],
    tokenizer_json: str | None,
    bank: Bank | None,
    config: Mapping[str, Any],
    training: TrainingFile,
    training_words: Iterable[str],
) -> Path:
    """Write a bundle and return its directory. `config` holds the fields of BundleConfig but `model`, `files` and what the model itself
    tells: mean, std and max_tokens.

    Atomic: everything is written to a sibling folder that takes the name at the end; an older bundle of that name is replaced.
    ValueError for weights that are not finite: a diverged model is no bundle. InputError exists for a folder that holds something else.
    """
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())) and not (directory / CONFIG).is_file():
        raise InputError("the path exists and is no bundle", directory, "Choose another output folder.", "exists")
    contents: dict[str, bytes] = {
        WEIGHTS: _weights(model),
        VOCABULARY: _json(sorted(set(training_words))),
        TRAINING: to_json(training).encode(),
    }
    if tokenizer_json is not None:
        contents[TOKENIZER] = tokenizer_json.encode()
    if bank is not None:
        contents[KNOWLEDGE] = bank.to_json().encode()
    reads = reads_text(model, training)
    fields: dict[str, Any] = {"model_type": model_cfg.get("name", ""), "version": VERSION, **config, "model": dict(model_cfg)}
    fields["preprocess"] = {**config["preprocess"], **_statistics(model)}
    fields["text"] = {**config["text"], "max_tokens": model.max_tokens if reads else None}
    fields["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    checked = parse(fields, BundleConfig, directory / CONFIG)
    contents[CONFIG] = to_json(checked).encode()
    contents[CARD] = card(checked, training, model, reads, hashlib.sha256(contents[CONFIG]).hexdigest()).encode()

    directory.parent.mkdir(parents=True, exist_ok=True)
    fresh = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    stale = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    try:
        for name, data in contents.items():
            with (fresh / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if directory.exists():
            os.replace(directory, stale)
        os.replace(fresh, directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if stale.exists():
            if directory.exists():
                shutil.rmtree(stale, ignore_errors=True)
            else:
                os.replace(stale, directory)
    return directory


def reads_text(model: nn.Module, training: TrainingFile) -> bool:
    """Whether a sentence moves the answer: it moves none of a model without text, and none of a twin, trained with a constant one."""
    data = training.config.get("data")
    return bool(model.reads_text) and not (isinstance(data, dict) and data.get("text") == "constant")


def _statistics(model: Any) -> dict[str, list[float]]:
    """What the model subtracts from a film and divides it by, per channel."""
    return {name: [round(float(value), 6) for value in getattr(model, name).flatten()] for name in ("mean", "std")}


def _weights(model: nn.Module) -> bytes:
    """fp16 safetensors; a tensor that fp16 cannot hold stays fp32, integers and booleans stay what they are."""
    import torch
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu()
        if tensor.is_floating_point():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"the weights are not finite: {name}")
            fits = tensor.numel() == 0 or float(tensor.abs().max()) <= torch.finfo(torch.float16).max
            tensor = tensor.to(torch.float16 if fits else torch.float32)
        tensors[name] = tensor.contiguous().clone()
    return save(tensors, metadata={"format": "pt"})


def _json(data: Any) -> bytes:
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


# ---------------------------------------------------------------- reading


def load_bundle(ref: str | os.PathLike[str], revision: str | None = None, *, merged: bool = True) -> Bundle:
    """The bundle that `ref` names: an existing directory, else the name of a shipped bundle, else `hf:owner/name` at `revision`.

    `merged` False keeps the low-rank changes of its towers apart, to go on training them. InputError, with the file and the way out, for
    everything that is missing, cut short, altered, too new, or not a bundle, and for a tower that is gone or is another one.
    """
    from .knowledge.bank import load_bank
    from .models import build
    from .models.lora import merge

    path = resolve(ref, revision)
    config, sha256 = read_config(path)
    check_files(path, config)
    tokenizer_json = _read_text(path / TOKENIZER) if TOKENIZER in config.files else None
    bank = load_bank(path / KNOWLEDGE) if KNOWLEDGE in config.files else None
    words = load_json(path / VOCABULARY)
    if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
        raise InputError("not a list of words", path / VOCABULARY, _AGAIN, "bad_field")
    read_json(path / TRAINING, TrainingFile)
    base = nearby(config.base, path)
    model = _load_model(path, config, lambda: build(config.model, tokenizer_json, bank, base))
    if merged:
        merge(model)
    _check_said(config, model, path / CONFIG)
    bundle = Bundle(config, model, bank, frozenset(words), tokenizer_json, path, sha256)
    _ = bundle.decision  # a decision that cannot be used is refused now, not at the first film
    return bundle


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError("the file is not UTF-8 text", file, _AGAIN, "encoding") from error


def nearby(base: Base, path: Path) -> Base:
    """The towers of a bundle at `path`. One that is not at the path that was recorded, as on another machine, is looked for under the name
    of its folder beside the bundle; its hash decides whether it is the same.
    """
    found = {}
    for part in Base.model_fields:
        tower = getattr(base, part)
        beside = path.resolve().parent / Path(tower.id or "").name
        if tower.id and tower.revision is None and not Path(tower.id).expanduser().is_dir() and beside.is_dir():
            found[part] = tower.model_copy(update={"id": str(beside)})
    return base.model_copy(update=found)


def read_config(path: Path) -> tuple[BundleConfig, str]:
    """config.json of a bundle directory and the bundle's hash; reads no other file. InputError: no_bundle, newer_version, bad_field, those
    of load_json.
    """
    file = path / CONFIG
    if not file.is_file():
        raise InputError("the folder holds no config.json, so it is no bundle", path, "Give the `bundle` folder of a run.", "no_bundle")
    data = load_json(file)
    if not isinstance(data, dict) or data.get("format") != "reportseg-bundle":
        raise InputError("this config.json is not that of a reportseg bundle", file, "Give the `bundle` folder of a run.", "no_bundle")
    version = data.get("version")
    if type(version) is not int:
        raise InputError(f"version: {version!r} is no whole number", file, _AGAIN, "bad_field")
    if version > VERSION:
        fix = f"Install a newer one: pip install 'reportseg>=0.{version}'."
        raise InputError(f"the bundle has format version {version}; this reportseg reads up to {VERSION}", file, fix, "newer_version")
    config = parse(data, BundleConfig, file)
    if config.model.get("name") != config.model_type:
        raise InputError(f"model_type is {config.model_type!r}, and model.name {config.model.get('name')!r}", file, _AGAIN, "bad_field")
    return config, hashlib.sha256(_json(data)).hexdigest()


def check_files(path: Path, config: BundleConfig) -> None:
    """Every listed file is there, of a sane size and unaltered; nothing else lies beside them. InputError: unsafe_path, missing,
    empty_file, too_large_file, pickle, unexpected_file, sha256.
    """
    for name in sorted(config.files.keys() | set(_REQUIRED)):
        file = path / name
        if name not in _LISTED:
            raise InputError(f"lists a file that a bundle does not have: {name[:80]!r}", path / CONFIG, _AGAIN, "unsafe_path")
        if name not in config.files:
            raise InputError(f"does not list {name}", path / CONFIG, _AGAIN, "missing")
        if not file.is_file():
            raise InputError("the bundle's file is missing", file, _AGAIN, "missing")
        size, budget = file.stat().st_size, _WEIGHT_BYTES if name == WEIGHTS else _TEXT_BYTES
        if size == 0 or size > budget:
            code = "too_large_file" if size else "empty_file"
            raise InputError(f"the file has {size} bytes; between 1 and {budget} are expected", file, _AGAIN, code)
    for file in sorted(path.iterdir()):
        if file.suffix.lower() in _PICKLE_NAMES:
            fix = "Remove it; weights are read from model.safetensors only."
            raise InputError("pickled weights can run code and are never read", file, fix, "pickle")
        if file.name not in config.files and file.name != ENGINES and not _UNLISTED.fullmatch(file.name):
            raise InputError("config.json does not list this file", file, "Remove it from the folder.", "unexpected_file")
    _refuse_pickle(path / WEIGHTS)
    for name, expected in config.files.items():
        with (path / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != expected:
                what = "the file is cut short or was altered: its sha256 is not the one in config.json"
                raise InputError(what, path / name, _AGAIN, "sha256")


def _refuse_pickle(file: Path) -> None:
    with file.open("rb") as stream:
        head = stream.read(9)
    if head[8:] == b"{":  # safetensors: the header's length, which may begin with any byte, then its JSON
        return
    if head[:1] == b"\x80" or head[:4] == b"PK\x03\x04":
        fix = "Convert the weights with safetensors.torch.save_file in the program that made them."
        raise InputError("this is a pickle under the name of safetensors; it can run code and is never read", file, fix, "pickle")


def _load_model(path: Path, config: BundleConfig, make: Any) -> nn.Module:
    """Build the model and fill it. The header must fit the model counted on the meta device before either takes memory."""
    import torch
    from safetensors import SafetensorError, safe_open

    file = path / WEIGHTS
    try:
        with safe_open(file, framework="pt") as weights:
            names = weights.keys()
            stored = {name: tuple(weights.get_slice(name).get_shape()) for name in names}
            with torch.device("meta"):
                _match(stored, _build(path, make).state_dict(), file)
            model = _build(path, make)
            state = model.state_dict()
            tensors = {key: weights.get_tensor(key).to(state[key].dtype) for key in stored}
    except (SafetensorError, OSError) as error:
        raise InputError(f"not readable as safetensors: {error}", file, _AGAIN, "bad_weights") from error
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"the weights are not finite: {key}", file, "The training diverged; use another bundle.", "not_finite")
    model.load_state_dict(tensors, strict=True)
    return model.float().eval()


def _check_said(config: BundleConfig, model: Any, file: Path) -> None:
    """What config.json says of the model's reading is what it does: others read it there. Without text any limit of tokens may stand."""
    for name, own in _statistics(model).items():
        said = getattr(config.preprocess, name)
        if any(abs(one - two) > 1e-5 for one, two in zip(said, own, strict=True)):
            what = f"preprocess.{name} is {list(said)}, and {config.model_type} computes with {own}"
            raise InputError(what, file, _AGAIN, "bad_field")
    said, own = config.text.max_tokens, model.max_tokens
    if None not in (said, own) and said != own:
        raise InputError(f"text.max_tokens is {said}, and {config.model_type} reads {own}", file, _AGAIN, "bad_field")


def _build(path: Path, make: Any) -> nn.Module:
    try:
        model: nn.Module = make()
    except InputError as error:
        raise InputError(error.what, path / CONFIG, error.fix or _AGAIN, error.code) from error
    except Exception as error:  # config, tokenizer and bank are untrusted; tokenizers raises bare Exception
        raise InputError(f"the model cannot be built from this bundle: {error}", path / CONFIG, _AGAIN, "bad_model") from error
    return model


def _match(stored: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], file: Path) -> None:
    problems = []
    for verb, keys in (("missing", state.keys() - stored.keys()), ("unexpected", stored.keys() - state.keys())):
        if keys:
            problems.append(f"{len(keys)} {verb}: " + ", ".join(sorted(keys)[:5]) + (", ..." if len(keys) > 5 else ""))
    shapes = {key: (stored[key], tuple(state[key].shape)) for key in sorted(stored.keys() & state.keys())}
    wrong = [f"{key} is {found}, not {expected}" for key, (found, expected) in shapes.items() if found != expected]
    if wrong:
        problems.append(f"{len(wrong)} of another shape: " + "; ".join(wrong[:5]))
    if problems:
        raise InputError("the weights do not fit the model of config.json: " + " | ".join(problems), file, _AGAIN, "weights_mismatch")


# ---------------------------------------------------------------- finding


def shipped() -> list[str]:
    """Names of the bundles that came with the program."""
    folder = Path(str(importlib.resources.files(__package__))) / "bundles"
    return sorted(p.name for p in folder.iterdir() if (p / CONFIG).is_file()) if folder.is_dir() else []


def resolve(ref: str | os.PathLike[str], revision: str | None = None) -> Path:
    """The directory that `ref` names; downloads only for `hf:`. InputError: revision, pickle, no_bundle, hub."""
    name = os.fspath(ref)
    path = Path(name)
    if revision is not None and not name.startswith("hf:"):
        raise InputError("a revision is only known on the hub", name, "Give hf:owner/name with it, or leave it out.", "revision")
    names = shipped()
    if name and "\0" not in name and path.is_dir() and ((path / CONFIG).exists() or name not in names):
        return path
    if name and "\0" not in name and path.is_file():
        fix = "Give the folder that holds config.json and model.safetensors."
        if path.suffix.lower() in _PICKLE_NAMES:
            raise InputError("pickled weights can run code and are never read", name, fix, "pickle")
        raise InputError("a bundle is a folder, and this is a file", name, fix, "no_bundle")
    if name in names:
        return Path(str(importlib.resources.files(__package__))) / "bundles" / name
    if name.startswith("hf:"):
        return _download(name, revision)
    near = difflib.get_close_matches(name, names, n=1)
    fix = f"Did you mean {near[0]}? " if near else ""
    fix += f"Shipped: {', '.join(names) or 'none'}. Else give a bundle folder or hf:owner/name."
    raise InputError("no such bundle", name, fix, "no_bundle")


def _download(ref: str, revision: str | None) -> Path:
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    import huggingface_hub

    repo = ref.removeprefix("hf:")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", repo):
        raise InputError("not a name on the hub", ref, "Write hf:owner/name.", "no_bundle")
    wanted = [CONFIG, CARD, *_LISTED, "LICENSE*", "NOTICE*"]
    try:
        return Path(huggingface_hub.snapshot_download(repo, revision=revision, allow_patterns=wanted))
    except Exception as error:  # no network, no such name, no such revision, no access: all are about `ref`
        fix = "Check the name, the revision and the network, or download the folder by hand and give its path."
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(f"the bundle could not be fetched: {reason}", ref, fix, "hub") from error
