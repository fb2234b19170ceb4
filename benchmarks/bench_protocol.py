"""What the cells of the bench are: methods, modules, and what is equal for all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bench_page import REFERENCES
from reportseg.config import RunConfig, load_config
from reportseg.models import resolve
from reportseg.runs import without_paths

CHECKPOINT_MINUTES = 2.0  # a cell takes about ten: a kill costs no more than this


@dataclass(frozen=True)
class Protocol:
    """What is equal for all cells. `recipe` names the configuration of a method; what stands here is set over it."""

    name: str
    device: str
    share: float  # of the training films, nested by patient
    size_px: int
    output_stride: int
    images: int
    seeds: tuple[int, ...]
    modules: bool  # whether modules are taken away too, at half the images
    batch: int = 32
    rates: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    search: float = 0.25  # share of the images that each rate is tried with, at the first seed
    split: str = "val"
    recipe: str = "{}_qata_small"


#: 160,000 images are 31 times QaTa-COV19's training films without dev.
PROTOCOLS = {
    "cpu": Protocol("bench-cpu", "cpu", 0.5, 112, 2, 24_000, (0, 1), modules=True),
    "gpu": Protocol("bench-gpu", "auto", 1.0, 224, 4, 160_000, (0,), modules=False),
}


@dataclass(frozen=True)
class Arm:
    """A method, or one with changes. `full` is the arm that a module was taken from; arms with half the images name themselves there."""

    name: str
    method: str
    changes: tuple[str, ...] = ()
    full: str | None = None


#: The most telling first.
METHODS = (
    Arm("tgcnet", "tgcnet"),
    Arm("tmca", "tmca"),
    Arm("tgcnet_twin", "tgcnet", ("data.text=constant",)),
    Arm("tmca_twin", "tmca", ("data.text=constant",)),
    Arm("unet", "unet"),
    Arm("languidemedseg", "languidemedseg"),
    Arm("lvit", "lvit"),
    Arm("mmiunet", "mmiunet"),
    Arm("resenc_unet", "resenc_unet"),
)
MODULES = (
    Arm("tgcnet_half", "tgcnet", (), "tgcnet_half"),
    Arm("tgcnet_half_no_cnn", "tgcnet", ("model.sse.cnn=false",), "tgcnet_half"),
    Arm("tgcnet_half_no_knowledge", "tgcnet", ("model.date.knowledge=false",), "tgcnet_half"),
    Arm("tgcnet_half_no_vlcm", "tgcnet", ("model.vlcm.enabled=false",), "tgcnet_half"),
    Arm("tmca_half", "tmca", (), "tmca_half"),
    Arm("tmca_half_no_soft_targets", "tmca", ("model.tsdm.soft_labels=false",), "tmca_half"),
    Arm("tmca_half_no_alignment", "tmca", ("model.alignment.levels=[]",), "tmca_half"),
    Arm("tmca_half_no_pixel_term", "tmca", ("model.ltem.pixel_loss=false",), "tmca_half"),
    # Without the enhancement there is nothing that its pixel term could train, so what it is worth is told where neither has that term.
    Arm("tmca_half_no_enhancement", "tmca", ("model.ltem.enabled=false", "model.ltem.pixel_loss=false"), "tmca_half_no_pixel_term"),
)
ARMS = {arm.name: arm for arm in (*METHODS, *MODULES)}


def arms(protocol: Protocol) -> list[Arm]:
    return [*METHODS, *(MODULES if protocol.modules else ())]


def cells(protocol: Protocol) -> dict[str, tuple[Arm, int]]:
    """All cells in the order in which they are run: one seed of everything, then the next."""
    return {f"{arm.name}-{seed}": (arm, seed) for seed in protocol.seeds for arm in arms(protocol)}


def configure(protocol: Protocol, arm: Arm, seed: int, rate: float, images: int, precision: str) -> RunConfig:
    """The recipe of the method under the protocol. A twin and what lacks a module have the learning rate of their method."""
    settings = {
        "name": arm.name,
        "seed": seed,
        "data.size_px": protocol.size_px,
        "model.output_stride": protocol.output_stride,
        "train.images": images,
        "train.batch": protocol.batch,
        "train.lr": rate,
        "train.precision": precision,
        "train.checkpoint_minutes": CHECKPOINT_MINUTES,
    }
    recipe = protocol.recipe.format(arm.method)
    return resolve(load_config(recipe, [*(f"{key}={value!r}" for key, value in settings.items()), *arm.changes]))


def keys(config: RunConfig) -> dict[str, Any]:
    """section.key to value, but for paths and for what no result depends on."""
    values = without_paths(config)
    found = {f"{section}.{key}": value for section in ("data", "model", "train", "eval") for key, value in values[section].items()}
    return {key: value for key, value in found.items() if key not in ("train.checkpoint_minutes", "train.workers")}


def pairs(protocol: Protocol) -> Iterator[tuple[str, str]]:
    """(one, other) of each difference that is told: one minus other."""
    for one in REFERENCES:
        yield from ((one, arm.name) for arm in METHODS if arm.name != one)
    if protocol.modules:
        yield from ((arm.full, arm.name) for arm in MODULES if arm.full and arm.full != arm.name)
