"""`reportseg study cost`: parameters, operations, memory and time of models, beside the U-Net of 31 M parameters, and their scores.

Times of one machine say little about another, and on a shared one little about the next minute: each model is timed in turns with the
U-Net in one process, and the ratio is what is quoted. Memory is measured in processes that hold one model alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..bundle import TRAINING, load_bundle, shipped
from ..compare import read_runs
from ..config import MAX_SIDE, MIN_SIDE, load_config, shipped_configs
from ..engines import pick_device
from ..errors import InputError
from ..limits import atomic_write, safe_id
from ..models import resolve
from ..optim import bf16_gains
from ..runs import alone
from ..schemas.base import load_json, read_json, write_json
from ..schemas.comparison import COMPARED
from ..schemas.studies import CostRow, CostStudy, StudyPlan
from ..schemas.training import TrainingFile
from ..stats import N_BOOT, bootstrap_runs
from .cost_child import UNET
from .cost_page import write_page
from .plan import Progress, begin, check_metric, no_repeats, now, remark, stored

FILE, PAGE = "cost.json", "cost.html"
REFERENCE = "unet, 31 M"
TURNS = 7


@dataclass(frozen=True)
class Subject:
    """What is measured: a `model` section, or a bundle."""

    name: str
    section: Mapping[str, Any]
    bundle: str | None = None
    sha256: str | None = None


def cost(
    named: Sequence[str],
    *,
    out: str | Path,
    scores: Sequence[str | Path] = (),
    size_px: int = 224,
    batch: int = 8,
    device: str = "auto",
    metric: str = "dice_mean",
    turns: int = TURNS,
    resume: bool = False,
    n_boot: int = N_BOOT,
    command: str = "",
    progress: Progress | None = None,
) -> CostStudy:
    """Measures configurations (names or YAML files) and bundles on square films of `size_px`, training steps at `batch`.

    `scores` are evaluation folders on the same cases; each belongs to the subject of its name, or of its bundle's hash, several to its
    seeds. Writes plan.json, cells/ (a file for each subject as it is done), cost.html and cost.json into `out`.
    InputError before anything is measured: unknown, twice, size, device, metric, score (of no subject), exists, plan, in_use, those of
    configurations, bundles and evaluations.
    """
    folder = Path(out)
    check_metric(metric)
    if not (MIN_SIDE <= size_px <= MAX_SIDE and 1 <= batch <= 1024):
        fix = f"Films are of {MIN_SIDE} to {MAX_SIDE} px, the batch of 1 to 1024."
        raise InputError(f"{size_px} px at batch {batch} is not measured", "--size", fix, "size")
    no_repeats(named, "CONFIG|BUNDLE")
    subjects = [Subject(REFERENCE, UNET), *_unlike([subject(name) for name in named])]
    scored = _scores(scores, subjects, n_boot)
    where = pick_device(device)
    before = stored(folder, resume)
    kept = before.settings.get("precision") if before is not None else None
    precision = kept or ("bf16" if bf16_gains(where) else "fp32")
    settings: dict[str, int | str] = {"size_px": size_px, "batch": batch, "device": _named(where), "precision": precision, "turns": turns}
    plan = StudyPlan(
        kind="cost", command=command, written=now(), metric=metric, arms=[s.name for s in subjects],
        bundles=[s.sha256 for s in subjects if s.sha256],
        config={s.name: dict(s.section) for s in subjects}, settings={**settings, "threads": torch.get_num_threads()},
    )  # fmt: skip
    begin(folder, plan, resume)
    with alone(folder):
        rows = []
        for i, one in enumerate(subjects):
            cell = folder / "cells" / f"{safe_id(f'{i}-{one.name}')}.json"
            if not cell.exists():
                remark(progress, f"{one.name}: {i + 1} of {len(subjects)}")
                job = {"section": one.section, "bundle": one.bundle, **settings, "device": str(where)}
                told = {task: _child(task, job, one.name) for task in ("times", "predict", "train")}
                atomic_write(cell, json.dumps(told, indent=1) + "\n")
            rows.append((one, load_json(cell)))
        study = CostStudy(
            command=command, size_px=size_px, batch=batch, device=str(settings["device"]), precision=str(precision),  # type: ignore[arg-type]
            threads=torch.get_num_threads(), metric=metric if scores else None, split=scored.get("", {}).get("split"),
            rows=[_row(one, told, rows[0][1], batch, scored.get(one.name, {})) for one, told in rows],
            warnings=_warnings(subjects, scored),
        )  # fmt: skip
        write_page(folder / PAGE, study)
        write_json(folder / FILE, study)
    return study


# ---------------------------------------------------------------- subjects


def subject(name: str) -> Subject:
    """A bundle, else a configuration. InputError unknown, and those of both."""
    if name in shipped() or name.startswith("hf:") or Path(name).is_dir():
        bundle = load_bundle(name, merged=False)
        config = read_json(bundle.path / TRAINING, TrainingFile).config
        told = config.get("name")
        return Subject(told if isinstance(told, str) and told else bundle.path.name, bundle.config.model, str(bundle.path), bundle.sha256)
    if not Path(name).is_file() and name not in shipped_configs():
        raise InputError("neither a bundle nor a config", name, f"Shipped: {', '.join([*shipped(), *shipped_configs()])}.", "unknown")
    resolved = resolve(load_config(name))
    return Subject(resolved.name, resolved.model)


def _unlike(subjects: Sequence[Subject]) -> list[Subject]:
    """A bundle of a configuration that stands there too is told apart by its hash. InputError twice."""
    names = [s.name for s in subjects]
    told = [
        Subject(f"{s.name} ({s.sha256[:8]})", s.section, s.bundle, s.sha256) if s.sha256 and names.count(s.name) > 1 else s
        for s in subjects
    ]
    no_repeats([s.name for s in told], "CONFIG|BUNDLE")
    return told


def _named(device: torch.device) -> str:
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def _scores(folders: Sequence[str | Path], subjects: Sequence[Subject], n_boot: int) -> dict[str, dict[str, Any]]:
    """By the name of a subject {scores, ci95, seeds}; under "" the split. InputError score: an evaluation of none of them."""
    if not folders:
        return {}
    runs = read_runs([Path(folder) for folder in folders])
    found: dict[str, list[Any]] = {}
    for run in runs:
        m = run.metrics
        owner = next((s for s in subjects if s.sha256 and s.sha256 == m.bundle_sha256), None) or next(
            (s for s in subjects if s.name == m.name and not m.ensemble), None
        )
        if owner is None:
            fix = f"Name its configuration or bundle too; there are {', '.join(s.name for s in subjects[1:])}."
            raise InputError(
                f"this evaluation is of {m.name or 'masks of other code'}, which is not measured", str(run.folder), fix, "score"
            )
        found.setdefault(owner.name, []).append(run)
    told: dict[str, dict[str, Any]] = {"": {"split": runs[0].metrics.split}}
    for name, own in found.items():
        scores = {score: sum(getattr(run.metrics, score) for run in own) / len(own) for score in COMPARED}
        intervals = bootstrap_runs([run.cases for run in own], n_boot)
        ci95 = {score: intervals[score] for score in COMPARED if score in intervals}
        told[name] = {"scores": scores, "ci95": ci95, "seeds": sorted(run.metrics.seed for run in own)}
    return told


# ---------------------------------------------------------------- figures


def _child(task: str, job: Mapping[str, Any], name: str) -> Any:
    """One task in a process of its own. InputError memory where it was killed; RuntimeError with its last line where it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "reportseg.studies.cost_child", task], input=json.dumps(job), capture_output=True, text=True, check=False
    )
    if done.returncode < 0:
        what = f"{name} was stopped by the system while it was measured ({task})"
        raise InputError(what, "", "It needs more memory: take a smaller --size or --batch.", "memory")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise RuntimeError(f"{name}, {task}: {last}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _row(one: Subject, told: Mapping[str, Any], unet: Mapping[str, Any], batch: int, scored: Mapping[str, Any]) -> CostRow:
    times = told["times"]
    params = times["params"]
    ratios = {
        "params": params["total"] / times["unet_params"],
        "trainable": params["trainable"] / times["unet_params"],
        "flops": times["flops"]["own"] / times["flops"]["unet"],
        "predict_bytes": told["predict"] / max(1, unet["predict"]),
        "train_bytes": told["train"] / max(1, unet["train"]),
        **{key: times[key]["own"] / times[key]["unet"] for key in ("latency_1_s", "latency_8_s")},
        "train_time": times["step_s"]["own"] / times["step_s"]["unet"],
    }
    return CostRow(
        name=one.name,
        model=str(one.section["name"]),
        params=params,
        flops=times["flops"]["own"],
        predict_bytes=told["predict"],
        train_bytes=told["train"],
        latency_1_s=times["latency_1_s"]["own"],
        latency_8_s=times["latency_8_s"]["own"],
        train_images_per_s=batch / times["step_s"]["own"],
        ratios=dict.fromkeys(ratios, 1.0) if one.name == REFERENCE else ratios,
        **{key: scored[key] for key in ("scores", "ci95", "seeds") if key in scored},
    )


def _warnings(subjects: Sequence[Subject], scored: Mapping[str, Any]) -> list[str]:
    without = [s.name for s in subjects[1:] if s.name not in scored]
    return [f"No evaluation was given of {', '.join(without)}: not in the plots."] if scored and without else []
