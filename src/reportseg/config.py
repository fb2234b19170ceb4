"""The configuration of a run: frozen, unknown keys refused with the nearest legal one. YAML is data and nothing else."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import InputError

MAX_BYTES = 1 << 20
MIN_SIDE, MAX_SIDE = 16, 2048  # of the square that a model reads, pixels


class Section(BaseModel):
    """What all sections share: frozen, no unknown key, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Augment(Section):
    """Random changes to the films of a batch; each is drawn by seed, step and index."""

    flip: bool = Field(default=True, description="mirror half of the films that are flip_safe, and the side words with them")
    rotate_deg: float = Field(default=20, ge=0, le=180, description="largest rotation, degrees")
    scale: float = Field(default=0.3, ge=0, lt=1, description="zoom between 1 - scale and 1 / (1 - scale), log-uniform")
    shift: float = Field(default=0.08, ge=0, le=0.5, description="largest shift, as a share of the side")
    intensity: float = Field(default=0.3, ge=0, lt=1, description="strength of gamma, contrast, brightness, sharpness and noise")


class DataConfig(Section):
    """Films and sentences, and how they are shown to the model."""

    manifest: str | list[str] | None = Field(default=None, description="manifest.csv or its folder; `--data` overrides")
    train: str = Field(default="train", description="the split to train on; 10 % of it, whole patients, becomes dev")
    size_px: int | list[tuple[float, int]] = Field(
        default=224, description="side of the square in pixels, or [[share of images seen, side], ...]"
    )
    text_column: str = "text"
    text: Literal["as_written", "constant"] = Field(default="as_written", description="constant: the text-free twin")
    text_dropout: float = Field(default=0.1, ge=0, lt=1, description="share of films trained with an empty text")
    negatives: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="share of the films whose text names sides that are asked for the other side, where nothing is, or for one of two",
    )
    teacher: str | None = Field(
        default=None,
        description="folder with a teacher's answers to the training films, as `predict` writes it: the target of a film is then a mean of "
        "its mask and of the teacher's probabilities",
    )
    teacher_weight: float = Field(default=0.5, gt=0, le=1, description="share of the teacher in that mean")
    limit: int | None = Field(default=None, ge=1, description="use only the first films of the split, for a trial")
    augment: Augment | None = Augment()

    @field_validator("size_px")
    @classmethod
    def _schedule(cls, value: int | list[tuple[float, int]]) -> int | list[tuple[float, int]]:
        steps = [(1.0, value)] if isinstance(value, int) else value
        shares = [share for share, _ in steps]
        if not steps or shares != sorted(set(shares)) or shares[-1] != 1.0 or shares[0] <= 0:
            raise ValueError("shares must rise and end at 1.0, as in [[0.85, 112], [1.0, 224]]")
        if not all(MIN_SIDE <= size <= MAX_SIDE for _, size in steps):
            raise ValueError(f"a side must be between {MIN_SIDE} and {MAX_SIDE} pixels")
        return value

    def sizes(self) -> list[tuple[float, int]]:
        """The schedule as (share of images seen at which it ends, side in pixels)."""
        return [(1.0, self.size_px)] if isinstance(self.size_px, int) else [(float(a), int(b)) for a, b in self.size_px]


class TrainSection(Section):
    """The schedule: how many films, at what rate, with which precision."""

    images: int = Field(default=110_000, ge=1, description="films seen in all, counted with repetition")
    batch: int = Field(default=32, ge=1)
    accumulate: int = Field(default=1, ge=1, description="batches summed before each step")
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    warmup: float = Field(default=0.03, ge=0, lt=1, description="share of the steps")
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    lovasz: float = Field(default=0, ge=0, le=1, description="share of the steps, the last ones, that add the Lovasz hinge to the loss")
    ema: float = Field(default=0.998, ge=0, lt=1, description="decay of the weight average; its horizon is kept under 10 % of the run")
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    init: str | None = Field(default=None, description="a bundle to start from")
    text_steps: int = Field(
        default=0,
        ge=0,
        description="steps before the first film in which a text encoder from scratch learns where sentences place what they name; "
        "none with `init`, a pretrained text tower or a constant text",
    )
    checkpoint_minutes: float = Field(default=5, gt=0)
    minutes: float | None = Field(
        default=None, gt=0, description="measure the rate and fix `images` so that training, `text_steps` included, takes about this long"
    )
    workers: int = Field(default=0, ge=0, le=64, description="loader processes; the batches are the same for any number")


class EvalSection(Section):
    """How the result answers, and what an evaluation asks beside the film's own sentence."""

    controls: list[Literal["original", "empty", "shuffled", "swapped-side"]] = ["original", "empty", "shuffled", "swapped-side"]
    flips: bool = Field(
        default=False,
        description="answers are averaged with those to the mirrored film under swapped side words; for films that are flip_safe",
    )


class RunConfig(Section):
    """A run's YAML. Equal configs of equal seed on equal data give equal weights, on CPU and for an equal thread count."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    seed: int = Field(default=0, ge=0, lt=2**31)
    data: DataConfig = DataConfig()
    model: dict[str, Any] = Field(description="validated by the class of the model it names")
    train: TrainSection = TrainSection()
    eval: EvalSection = EvalSection()

    def steps(self) -> int:
        """Optimiser steps in all: the last one may see fewer images."""
        per_step = self.train.batch * self.train.accumulate
        return -(-self.train.images // per_step)

    def size_at(self, seen: int) -> int:
        """The side in pixels of the batch that begins after `seen` images."""
        sizes = self.data.sizes()
        return next((size for end, size in sizes if seen / self.train.images < end), sizes[-1][1])

    def size_began(self, seen: int) -> int:
        """After how many images that side came in."""
        return max([0, *(math.ceil(end * self.train.images) for end, _ in self.data.sizes() if seen / self.train.images >= end)])


class _Loader(yaml.SafeLoader):
    """YAML that reads 3e-4 as a number. Refuses aliases, which make a small file huge, and a key that stands twice, which loses one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.[0-9_]*|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.(?:inf|nan))$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """Safe YAML: plain values, lists and maps. InputError yaml, with the line."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(
            f"not readable as plain YAML{line}: {problem}", where, "Only plain values, lists and maps are read.", "yaml"
        ) from None


def load_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a map. InputError: missing, too_large, encoding, config, those of parse_yaml."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise InputError(f"cannot be read ({getattr(error, 'strerror', error)})", path, "Check the path.", "missing") from None
    if len(raw) > MAX_BYTES:
        raise InputError(f"is longer than {MAX_BYTES} bytes, the most that a config has", path, "Is this the right file?", "too_large")
    try:
        value = parse_yaml(raw.decode("utf-8"), str(path))
    except UnicodeDecodeError:
        raise InputError("is not UTF-8 text", path, "Save it as UTF-8.", "encoding") from None
    if not isinstance(value, dict):
        raise InputError("does not hold a map of keys", path, "Start from `reportseg config show NAME`.", "config")
    return value


def load_windows(path: Path) -> dict[str, tuple[float, float]]:
    """A YAML file of organs and their windows in Hounsfield units, as in `liver: [60, 200]`. InputError: those of load_yaml, windows."""
    found = {}
    for name, pair in load_yaml(path).items():
        numbers = [float(n) for n in pair if type(n) in (int, float) and math.isfinite(n)] if isinstance(pair, list) else []
        if len(numbers) != 2 or len(pair) != 2 or numbers[1] <= 0:
            raise InputError(f"{name} is {pair!r}, which is no window", path, "Write centre and width, as in liver: [60, 200].", "windows")
        found[str(name)] = (numbers[0], numbers[1])
    return found


def shipped_configs() -> list[str]:
    """Names that `load_config` knows without a file."""
    return sorted(
        p.name.removesuffix(".yaml") for p in resources.files("reportseg").joinpath("configs").iterdir() if p.name.endswith(".yaml")
    )


def load_config(name_or_path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """A shipped name or a YAML file, with `key.sub=value` overrides on top (values are YAML).

    InputError: config, which names file or override and key, and those of load_yaml.
    """
    path = Path(name_or_path)
    if str(name_or_path) in shipped_configs():
        path = Path(str(resources.files("reportseg").joinpath("configs", f"{name_or_path}.yaml")))
    elif not path.suffix and not path.exists():
        near = difflib.get_close_matches(str(name_or_path), shipped_configs(), 1)
        hint = f"Did you mean {near[0]}?" if near else f"Shipped: {', '.join(shipped_configs())}."
        raise InputError("no file and no shipped config of this name", name_or_path, hint, "config")
    values = load_yaml(path)
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise InputError("an override has the form key=value", f"-s {item}", "For example: -s train.lr=3e-4", "config")
        place = values
        *parents, last = key.strip().split(".")
        for parent in parents:
            inner = place.get(parent)
            place[parent] = inner if isinstance(inner, dict) else {}
            place = place[parent]
        place[last] = parse_yaml(text, f"-s {item}")
    return parse_config(values, str(name_or_path))


def parse_config(values: Mapping[str, Any], where: str) -> RunConfig:
    """Validated but for the `model` section, which `models.resolve` checks through the class that it names."""
    try:
        return RunConfig.model_validate(dict(values))
    except ValidationError as error:
        raise explain(error, RunConfig, where) from None


def dump_config(config: RunConfig) -> str:
    """YAML that `load_config` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=140)


def explain(error: ValidationError, model: type[BaseModel], where: str) -> InputError:
    """All of pydantic's findings, 20 at most, as one InputError; an unknown key names the nearest legal one."""
    found = [(item, *place(item, model)) for item in error.errors()]
    paths = {key for _, key, _ in found}
    lines, fixes = [], []
    for item, key, legal in found:
        if any(path.startswith(f"{key}.") for path in paths):
            continue  # "not a bool" of a union says nothing where the map that was meant has its own finding
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(str(item["loc"][-1]), legal, 1)
            lines.append(f"unknown key {key!r}")
            fixes.append(f"Did you mean {near[0]!r}?" if near else f"Legal keys here: {', '.join(legal)}.")
        else:
            message = "should be a map of keys" if item["type"] == "model_type" else item["msg"].removeprefix("Value error, ")
            lines.append(f"{key}: {message}" if key else message)
    fix = " ".join(dict.fromkeys(fixes[:20])) or "`reportseg config schema` lists the keys and what each may hold."
    return InputError("; ".join(lines[:20]), where, fix, "config")


def place(item: Any, model: type[BaseModel]) -> tuple[str, list[str]]:
    """The key of a finding as the file has it, and the keys that are legal beside it."""
    keys, here, legal = [], [model], _keys([model])
    for number, part in enumerate(item["loc"]):
        fields = {name: field for m in here for name, field in m.model_fields.items()}
        legal = _keys(here)
        unknown = item["type"] == "extra_forbidden" and number == len(item["loc"]) - 1
        if part in fields or unknown or isinstance(part, int):
            keys.append(str(part))  # else it is pydantic's name for one member of a union, as "bool" or "Tower"
        if part in fields:
            annotation = fields[str(part)].annotation
            options = [annotation, *getattr(annotation, "__args__", ())]
            here = [t for t in options if isinstance(t, type) and issubclass(t, BaseModel)]
    return ".".join(keys), legal


def _keys(models: Sequence[type[BaseModel]]) -> list[str]:
    """The keys of a map as its file spells them."""
    return [field.alias or name for model in models for name, field in model.model_fields.items()]
