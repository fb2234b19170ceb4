"""`reportseg study cost`: parameters, operations, memory and time of models, beside the U-Net of 31 M parameters, and their scores.

Times of one machine say little about another, and on a shared one little about the next minute: each model is timed in turns with the
U-Net in one process, and the ratio is what is quoted. Memory is measured in processes that hold one model alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..bundle import TRAINING, load_bundle, reads_text, shipped
from ..compare import Run, arm_scores, group, read_runs
from ..config import MAX_SIDE, MIN_SIDE, load_config, shipped_configs
from ..engines import pick_device
from ..errors import InputError
from ..limits import atomic_write, safe_id
from ..models import MODELS, resolve, section_sha256
from ..optim import bf16_gains
from ..runs import alone
from ..schemas.base import load_json, read_json, write_json
from ..schemas.metrics import Metrics
from ..schemas.studies import CostRow, CostStudy, StudyPlan
from ..schemas.training import TrainingFile
from ..stats import N_BOOT
from ..twins import config_sha256, twin_sha256
from .cost_child import UNET
from .cost_page import write_page
from .plan import Progress, begin, check_metric, no_repeats, now, remark, stored

FILE, PAGE = "cost.json", "cost.html"
REFERENCE = "unet, 31 M"
TURNS = 7


@dataclass(frozen=True)
class Subject:
    """What is measured: a `model` section, or a bundle. `reads`: a sentence moves its answers; `flips`: they are averaged with those to the
    mirrored films; `size_px`: the side of the films that it is made for. Of a bundle its hash, the two that its other seeds share (of the
    configuration; of that and the films), its seed.
    """

    name: str
    section: Mapping[str, Any]
    reads: bool
    flips: bool = False
    size_px: int | None = None
    bundle: str | None = None
    sha256: str | None = None
    config_sha256: str | None = None
    twin_sha256: str | None = None
    seed: int | None = None


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

    `scores` are evaluation folders on the same cases. One belongs to the bundle of its hash, else to a bundle of its configuration and
    another seed, or to the configuration of its name, if that has its model and reads text as it does; several are seeds. Writes
    plan.json, cells/ (a file for each subject as it is done), cost.html and cost.json into `out`.
    InputError before anything is measured: unknown, twice, size, device, metric, score (of no subject, or of two; two methods for one),
    exists, plan, in_use, seed_twice, those of configurations, bundles and `read_runs`.
    """
    folder = Path(out)
    check_metric(metric)
    if not (MIN_SIDE <= size_px <= MAX_SIDE and 1 <= batch <= 1024):
        fix = f"Films are of {MIN_SIDE} to {MAX_SIDE} px, the batch of 1 to 1024."
        raise InputError(f"{size_px} px at batch {batch} is not measured", "--size", fix, "size")
    no_repeats(named, "CONFIG|BUNDLE")
    subjects = _unlike([subject(name) for name in named])
    scored = _scores(scores, subjects, n_boot)
    subjects = [replace(s, flips=scored[s.name]["flips"]) if s.name in scored else s for s in subjects]  # what was scored is paid for
    reference = next((s for s in subjects if _is_reference(s)), Subject(REFERENCE, UNET, reads=False))
    subjects = [reference, *(s for s in subjects if s is not reference)]
    where = pick_device(device)
    before = stored(folder, resume)
    kept = before.settings.get("precision") if before is not None else None
    precision = kept or ("bf16" if bf16_gains(where) else "fp32")
    settings: dict[str, int | str] = {"size_px": size_px, "batch": batch, "device": _named(where), "precision": precision, "turns": turns}
    asked = {"reads": [s.name for s in subjects if s.reads], "flips": [s.name for s in subjects if s.flips]}
    plan = StudyPlan(
        kind="cost", command=command, written=now(), metric=metric, arms=[s.name for s in subjects],
        bundles=[s.sha256 for s in subjects if s.sha256],
        config={s.name: dict(s.section) for s in subjects},
        settings={**settings, "threads": torch.get_num_threads(), **{key: ", ".join(names) for key, names in asked.items()}},
    )  # fmt: skip
    begin(folder, plan, resume)
    with alone(folder):
        rows = []
        for i, one in enumerate(subjects):
            cell = folder / "cells" / f"{safe_id(f'{i}-{one.name}')}.json"
            if not cell.exists():
                remark(progress, f"{one.name}: {i + 1} of {len(subjects)}")
                own = {"section": one.section, "bundle": one.bundle, "reads": one.reads, "flips": one.flips}
                job = {**own, **settings, "device": str(where)}
                told = {task: _child(task, job, one.name) for task in ("times", "predict", "train")}
                atomic_write(cell, json.dumps(told, indent=1) + "\n")
            rows.append((one, load_json(cell)))
        study = CostStudy(
            command=command, size_px=size_px, batch=batch, device=str(settings["device"]), precision=str(precision),  # type: ignore[arg-type]
            threads=torch.get_num_threads(), metric=metric if scores else None, split=scored.get("", {}).get("split"),
            rows=[_row(one, told, rows[0][1], batch, scored.get(one.name, {})) for one, told in rows],
            warnings=_warnings(subjects, scored, size_px),
        )  # fmt: skip
        write_page(folder / PAGE, study)
        write_json(folder / FILE, study)
    return study


# ---------------------------------------------------------------- subjects


def subject(name: str) -> Subject:
    """A bundle, else a configuration. InputError unknown, and those of both."""
    if name in shipped() or name.startswith("hf:") or Path(name).is_dir():
        bundle = load_bundle(name, merged=False)
        training = read_json(bundle.path / TRAINING, TrainingFile)
        told = training.config.get("name")
        return Subject(
            told if isinstance(told, str) and told else bundle.path.name,
            bundle.config.model,
            reads_text(bundle.model, training),
            bundle.config.decision.flips,
            bundle.config.preprocess.size_px,
            str(bundle.path),
            bundle.sha256,
            config_sha256(training, bundle.config.parent),
            twin_sha256(training, bundle.config),
            training.seed,
        )
    if not Path(name).is_file() and name not in shipped_configs():
        raise InputError("neither a bundle nor a config", name, f"Shipped: {', '.join([*shipped(), *shipped_configs()])}.", "unknown")
    resolved = resolve(load_config(name))
    reads = MODELS[resolved.model["name"]][1].reads_text and resolved.data.text != "constant"
    return Subject(resolved.name, resolved.model, reads, resolved.eval.flips, resolved.data.sizes()[-1][1])


def _unlike(subjects: Sequence[Subject]) -> list[Subject]:
    """A bundle of a configuration that stands there too is told apart by its hash. InputError twice."""
    names = [s.name for s in subjects]
    told = [replace(s, name=f"{s.name} ({s.sha256[:8]})") if s.sha256 and names.count(s.name) > 1 else s for s in subjects]
    no_repeats([s.name for s in told], "CONFIG|BUNDLE")
    return told


def _is_reference(one: Subject) -> bool:
    """Whether a configuration is the very U-Net that the others are multiples of: measured once, it stands in its place."""
    return one.bundle is None and not one.flips and section_sha256(one.section) == section_sha256(UNET)


def _named(device: torch.device) -> str:
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


# ---------------------------------------------------------------- scores


def _scores(folders: Sequence[str | Path], subjects: Sequence[Subject], n_boot: int) -> dict[str, dict[str, Any]]:
    """By the name of a subject what its evaluations tell; under "" {split}. InputError score, seed_twice, those of read_runs."""
    if not folders:
        return {}
    runs = read_runs([Path(folder) for folder in folders])
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(_owner(run, subjects).name, []).append(run)
    told: dict[str, dict[str, Any]] = {"": {"split": runs[0].metrics.split}}
    bundles = {s.name for s in subjects if s.sha256}
    for name, own in found.items():
        arm, *more = group(own)
        if more:
            what = f"this and {arm.runs[0].folder} are both of {name}, but of another configuration, films, texts or flips"
            fix = "Give the evaluations of one of the two; of two trainings name the bundles, each of which has its own row."
            raise InputError(what, more[0].runs[0].folder, fix, "score")
        unsure = name not in bundles and any(run.metrics.model_sha256 is None for run in own)
        rule = arm.runs[0].metrics.decision  # that of all: others are another arm
        flips = rule is not None and rule.flips
        told[name] = {**arm_scores(arm.runs, n_boot), "seeds": arm.seeds, "flips": flips, "unsure": unsure}
    return told


def _owner(run: Run, subjects: Sequence[Subject]) -> Subject:
    """The one subject that this is an evaluation of. InputError score where there is none, or no telling which."""
    metrics = run.metrics
    if metrics.ensemble:
        what = f"this evaluation is of an ensemble of {len(metrics.ensemble) + 1} bundles"
        raise InputError(what, run.folder, "Leave it out: what is measured is one model.", "score")
    very = [s for s in subjects if s.sha256 and s.sha256 == metrics.bundle_sha256]
    fits = very or [s for s in subjects if _differs(s, metrics) is None]
    if len(fits) == 1:
        return fits[0]
    if fits:
        what = f"this evaluation may be of each of these: {', '.join(s.name for s in fits)}"
        raise InputError(what, run.folder, "Name its own bundle too, or one of these only.", "score")
    named = next((why for s in subjects if s.name == metrics.name and (why := _differs(s, metrics))), "which is not measured")
    what = f"this evaluation is of {metrics.name or 'masks of other code'}, {named}"
    fix = f"Name its bundle too, or leave it out; there are {', '.join(s.name for s in subjects)}."
    raise InputError(what, run.folder, fix, "score")


def _differs(one: Subject, metrics: Metrics) -> str | None:
    """Why an evaluation is of another model than `one` or its other seeds; None where it may be of it. A file of an earlier version does
    not tell its model section, and passes for that of its name.
    """
    if one.sha256:
        told = (one.config_sha256, one.twin_sha256)
        if None in told or told != (metrics.config_sha256, metrics.twin_sha256):
            return "though of another training"
        return "though of another training with the same seed" if metrics.seed == one.seed else None
    if one.name != metrics.name or metrics.bundle_sha256 is None:
        return "which is not measured"
    if one.reads != (metrics.text != "constant"):
        return f"though of its text-free twin, and {one.name} reads" if one.reads else f"though it reads, and {one.name} is text-free"
    if metrics.model_sha256 not in (None, section_sha256(one.section)):
        return "though with another model section than the configuration of this name"
    return None


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
        flips=one.flips,
        params=params,
        flops=times["flops"]["own"],
        predict_bytes=told["predict"],
        train_bytes=told["train"],
        latency_1_s=times["latency_1_s"]["own"],
        latency_8_s=times["latency_8_s"]["own"],
        train_images_per_s=batch / times["step_s"]["own"],
        ratios=dict.fromkeys(ratios, 1.0) if told is unet else ratios,
        **{key: scored[key] for key in ("scores", "ci95", "seeds") if key in scored},
    )


def _warnings(subjects: Sequence[Subject], scored: Mapping[str, Any], size_px: int) -> list[str]:
    without = [s.name for s in subjects if s.name not in scored and s.name != REFERENCE]
    unsure = [s.name for s in subjects if scored.get(s.name, {}).get("unsure")]
    found = [f"No evaluation was given of {', '.join(without)}: not in the plots."] if scored and without else []
    if others := [f"{s.name} ({s.size_px} px)" for s in subjects if s.name in scored and s.size_px not in (None, size_px)]:
        found.append(f"Films of {size_px} px were measured, and these scores are of another size: {', '.join(others)}.")
    if unsure:
        what = f"The evaluations of {', '.join(unsure)} are of an earlier version and do not record the model section"
        found.append(f"{what}: they were matched by the name alone. Evaluate again to have that checked.")
    return found
