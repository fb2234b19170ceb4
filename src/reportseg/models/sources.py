"""Where pretrained towers come from: a folder on this disk, or a snapshot of the hub.

Nothing in a source is run. config.json is data, weights are safetensors and never pickle, and a tokenizer is the JSON of `tokenizers`.
What is read here is untrusted: every fault is an InputError that names the source.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..schemas.base import load_json

if TYPE_CHECKING:
    from torch import nn

CONFIG, TOKENIZER, VOCABULARY, STATISTICS = "config.json", "tokenizer.json", "vocab.txt", "preprocessor_config.json"
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors")
_PICKLES = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin")  # no other name: one of a stranger would stand in the command below
_WANTED = [CONFIG, TOKENIZER, VOCABULARY, STATISTICS, "tokenizer_config.json", "model.safetensors", "model-*-of-*.safetensors"]
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_TOKENIZER_BYTES = 64 * 2**20

CONVERT = (  # a fixed text, since people paste it into a shell; keeps the names of shards
    'python -c "import glob, torch; from safetensors.torch import save_file; '
    "[save_file({k: v.contiguous().clone() for k, v in torch.load(f, map_location='cpu', weights_only=True).items()}, "
    "f[8:-4] + '.safetensors') for f in glob.glob('pytorch_model*.bin')]\""
)


@dataclass(frozen=True)
class Source:
    """One tower's files. `id` is the source as it was named, `revision` the commit of a hub id, `config` its config.json."""

    id: str
    revision: str | None
    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def sha256(self) -> str:
        """Of the weights file; of the lines `name<TAB>sha256`, sorted, where there are several."""
        hashes = {file.name: _sha256(str(file.resolve()), file.stat().st_mtime_ns) for file in self.weights}
        if len(hashes) == 1:
            return next(iter(hashes.values()))
        return hashlib.sha256("\n".join(f"{name}\t{sha}" for name, sha in sorted(hashes.items())).encode()).hexdigest()

    def statistics(self) -> dict[str, list[float]]:
        """Mean and standard deviation per colour channel that the tower was trained with, where the source states them.

        InputError: bad_tower, those of load_json.
        """
        file = self.folder / STATISTICS
        stated = load_json(file) if file.is_file() else {}
        found = {key: stated.get(key) for key in ("image_mean", "image_std")} if isinstance(stated, dict) else {}
        for key, values in found.items():
            sound = isinstance(values, list) and len(values) == 3 and all(isinstance(v, int | float) and math.isfinite(v) for v in values)
            if values is not None and not (sound and (key == "image_mean" or min(values) > 0)):
                raise InputError(f"{key} is not three usable numbers: {str(values)[:80]}", file, "Restore the file.", "bad_tower")
        return {key: values for key, values in found.items() if values is not None}

    def tokenizer_json(self) -> str:
        """The source's own fast tokenizer, without padding or truncation; a BERT that has only its vocab.txt gets WordPiece over it.

        InputError: missing, too_large_file, encoding, bad_tower, those of tokenizer_config.json as JSON.
        """
        from tokenizers import BertWordPieceTokenizer

        from .tokenizer import faults_told, read_tokenizer

        file = next((self.folder / name for name in (TOKENIZER, VOCABULARY) if (self.folder / name).is_file()), None)
        if file is None:
            save = f"from transformers import AutoTokenizer as A; A.from_pretrained('{self.id}').save_pretrained('DIR')"
            fix = f'Write one with `python -c "{save}"` and put it into the folder.'
            raise InputError(f"the tower {self.id!r} has no tokenizer.json", self.folder, fix, "missing")
        if file.stat().st_size > _TOKENIZER_BYTES:
            raise InputError("the tokenizer is larger than 64 MiB", file, "Is it the right file?", "too_large_file")
        if file.name == TOKENIZER:
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError as error:
                raise InputError("the tokenizer is not UTF-8 text", file, "Fetch the source again.", "encoding") from error
        else:
            extra = self.folder / "tokenizer_config.json"
            stated = load_json(extra) if extra.is_file() else {}
            lower = stated.get("do_lower_case", True) if isinstance(stated, dict) else True
            with faults_told(file):
                text = BertWordPieceTokenizer(str(file), lowercase=bool(lower)).to_str()
        return str(read_tokenizer(text, file).to_str())

    def check_sizes(self, config: Mapping[str, Any]) -> None:
        """That the files hold at least one tensor for each layer that `config` asks for, told from their headers before a layer is built:
        laying out alone takes time and memory for each. InputError bad_tower, bad_weights.
        """
        depths = config.get("depths", [])
        stated = [config.get("num_hidden_layers"), *(depths if isinstance(depths, list) else [])]
        counts = [n for n in stated if isinstance(n, int | float)]
        held = 0
        for file in self.weights:
            with self._opened(file) as weights:
                held += len(weights.keys())
        if any(n < 0 for n in counts) or sum(counts) > held or len(stated) > held:
            what = f"the config.json of {self.id!r} asks for more layers than its weights have tensors, {held}"
            raise InputError(what, self.folder, "Fetch the source again, or name another one.", "bad_tower")

    @contextmanager
    def _opened(self, file: Path) -> Iterator[Any]:
        """A file of weights. InputError bad_weights, whenever safetensors finds that it is none."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as weights:
                yield weights
        except (SafetensorError, OSError) as error:
            fix = "Fetch the source again; weights are read as safetensors only, never as pickle."
            what = f"the weights of {self.id!r} are not readable as safetensors: {error}"
            raise InputError(what, file, fix, "bad_weights") from error

    def fill(self, module: nn.Module, rename: Callable[[str], str | None]) -> None:
        """Put the weights into `module`, which was laid out on the meta device, in fp32. `rename` maps a key of the file to one of
        `module`, or to None where the module has no use for it. Strict: all that the module has, and nothing else.

        InputError weights_mismatch, bad_weights, not_finite. On the meta device as default the header is checked and nothing is read.
        """
        import torch

        expected = {key: tuple(value.shape) for key, value in module.state_dict().items()}
        only_checked = torch.get_default_device().type == "meta"
        tensors: dict[str, torch.Tensor] = {}
        problems: list[str] = []
        for file in self.weights:
            with self._opened(file) as weights:
                for key in weights.keys():  # noqa: SIM118 - not a dict
                    name = rename(key)
                    if name is None:
                        continue
                    found = tuple(weights.get_slice(key).get_shape())
                    if name not in expected:
                        problems.append(f"{key[:120]} has no place")
                    elif found != expected.pop(name):
                        problems.append(f"{key} has another shape than config.json says: {found}")
                    elif not only_checked:
                        tensor = weights.get_tensor(key)
                        tensors[name] = tensor.float() if tensor.is_floating_point() else tensor
        problems = [f"{key} is missing" for key in expected] + problems
        if problems:
            listed = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
            what = f"the weights of {self.id!r} do not fit its config.json: {listed}"
            raise InputError(what, self.folder, "Fetch the source again, or name another one.", "weights_mismatch")
        for name, tensor in tensors.items():
            if not torch.isfinite(tensor).all():
                raise InputError(f"the weights of {self.id!r} are not finite: {name}", self.folder, "Name another source.", "not_finite")
        if not only_checked:
            module.load_state_dict(tensors, strict=True, assign=True)


def find(name: str, revision: str | None = None) -> Source:
    """The source that `name` names: an existing folder, else a hub id at `revision`, from the cache on this disk where it is there.

    InputError: no_tower, revision (of a folder), hub, missing (no config.json, no weights), pickle, bad_tower (no map in config.json), and
    those of load_json for it.
    """
    path = Path(name).expanduser()
    if "\0" in name or (not path.is_dir() and not _REPOSITORY.fullmatch(name)):
        fix = "Give a folder with config.json and model.safetensors, or a hub id, owner/name."
        raise InputError(f"there is no tower {name!r}", name, fix, "no_tower")
    if path.is_dir():
        if revision is not None:
            raise InputError("a revision is only known on the hub", name, "Leave `revision` out for a folder.", "revision")
        folder, commit = path, None
    else:
        folder = _snapshot(name, revision)
        commit = folder.name
    if not (folder / CONFIG).is_file():
        raise InputError(f"the tower {name!r} has no config.json", folder, "Give the folder that transformers saved.", "missing")
    config = load_json(folder / CONFIG)
    if not isinstance(config, dict):
        raise InputError(f"the config.json of {name!r} holds no map of keys", folder / CONFIG, "Fetch the source again.", "bad_tower")
    weights = tuple(sorted(file for file in folder.iterdir() if _WEIGHTS.fullmatch(file.name)))
    if not weights:
        pickled = any(_PICKLES.fullmatch(file.name) for file in folder.iterdir())
        fetch = "" if path.is_dir() else f"fetch it with `hf download {name} --local-dir DIR`, give DIR as source, and "
        fix = f"If it has pickled weights from an author whom you trust, {fetch}run in that folder: {CONVERT}"
        what = "pickled weights can run code and are never read" if pickled else "there is no model.safetensors"
        raise InputError(f"the tower {name!r} has no safetensors weights; {what}", folder, fix, "pickle" if pickled else "missing")
    return Source(name, commit, folder, config, weights)


def _snapshot(name: str, revision: str | None) -> Path:
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=_WANTED))
    except Exception as error:  # no network, no such name, no such revision, no access: all are about `name`
        fix = f"Check name, revision and network, or run `hf download {name} --local-dir DIR` elsewhere and give the folder as source."
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        at = f" at {revision!r}" if revision else ""
        raise InputError(f"the tower {name!r}{at} is no folder and could not be fetched: {reason}", name, fix, "hub") from error


@lru_cache(maxsize=16)
def _sha256(file: str, changed_ns: int) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
