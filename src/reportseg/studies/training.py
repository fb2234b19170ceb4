"""The runs of a study that trains: each arm with each seed becomes a run folder and an evaluation, and what is done is not done again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cases import METRICS
from ..compare import Run, arm_scores, read_runs
from ..config import RunConfig
from ..data.splits import draw_dev
from ..engines import pick_device
from ..errors import InputError
from ..evaluate import evaluate
from ..limits import safe_id
from ..optim import bf16_gains
from ..runs import without_paths
from ..schemas.metrics import IntervalMethod
from ..schemas.studies import StudyPlan
from ..stats import MIN_SEEDS, clusters
from ..teacher import sources_sha256
from ..train import train
from .films import Films
from .plan import Progress, remark, told


@dataclass(frozen=True)
class Arm:
    """What is trained with every seed, and the manifest that it reads. `folder` names its folders; `says` is what a reader is told."""

    folder: str
    says: str
    config: RunConfig
    manifest: Path


@dataclass(frozen=True)
class Trained:
    """What became of an arm: its evaluations by seed, and why a seed has none."""

    runs: list[Run]
    failed: dict[int, str]


def alike(config: RunConfig, before: StudyPlan | None, device: str) -> RunConfig:
    """The configuration with its precision fixed, for all arms: that of the plan where it was begun. InputError minutes, device."""
    found = pick_device(device)
    if config.train.minutes is not None:
        what = "train.minutes would give each run as many images as it finds time for, and the runs of a study see equally many"
        raise InputError(what, "train.minutes", "Set train.images, and train.minutes to null.", "minutes")
    if config.train.precision != "auto":
        return config
    if before is not None and before.config is not None:
        precision = before.config["train"]["precision"]
    else:
        precision = "bf16" if bf16_gains(found) else "fp32"
    return config.model_copy(update={"train": config.train.model_copy(update={"precision": precision})})


def planned(config: RunConfig) -> dict[str, object]:
    """The configuration as a plan has it: without its seed and without what no result depends on."""
    values = without_paths(config)
    del values["seed"]
    for key in ("checkpoint_minutes", "workers"):
        del values["train"][key]
    return values


def sources(config: RunConfig, films: Films, parts: Sequence[Collection[str]]) -> dict[str, str]:
    """For the plan: a hash of what lies behind the paths of `data.teacher` and `train.init`, which a resume must find as it was.

    `parts` are the ids of each arm's films; each run sets its own dev aside, and what is dev in all of them needs no teacher.
    InputError: teacher, those of a bundle.
    """
    learnt: set[str] = set()
    for ids in parts:
        part = [sample for sample in films.train if sample.id in ids]
        learnt |= {sample.id for sample in part} - set(draw_dev(part, films.dataset.name))
    return sources_sha256(config, [sample for sample in films.train if sample.id in learnt])


def run_arms(
    arms: Sequence[Arm],
    seeds: Sequence[int],
    split: str,
    folder: Path,
    *,
    device: str,
    n_boot: int,
    command: str,
    progress: Progress | None,
) -> list[Trained]:
    """The evaluations of each arm, by seed. Seed by seed, so that after the first one there is an answer to look at for every arm.

    A training that diverges fails its arm and stops no other; the next call tries it again. InputError: diverged (all of them), those of
    train, of evaluate and of read_runs.
    """
    failed: dict[str, InputError] = {}
    done, of = 0, len(arms) * len(seeds)
    for seed in seeds:
        for arm in arms:
            done += 1
            name = _name(arm, seed)
            scored = folder / "eval" / name
            if (scored / METRICS).exists():
                continue
            remark(progress, f"{arm.says}, seed {seed}: {done} of {of}")
            config = arm.config.model_copy(update={"seed": seed})
            try:
                run = train(config, manifest=arm.manifest, out=folder / "runs" / name, resume=True, device=device, progress=progress)
            except InputError as error:
                if error.code != "diverged":
                    raise
                failed[name] = error
                remark(progress, f"{arm.says}, seed {seed}: {error.what}")
                continue
            tell = told(progress, "scoring")
            evaluate(
                run / "bundle", arm.manifest, split=split, text_column=config.data.text_column, device=device, out=scored, images=False,
                n_boot=n_boot, command=command, progress=tell,
            )  # fmt: skip
    names = [name for arm in arms for seed in seeds if (name := _name(arm, seed)) not in failed]
    if not names:
        first = next(iter(failed.values()))
        raise InputError(f"all {of} trainings diverged, the first so: {first.what}", folder, first.fix, "diverged")
    runs = dict(zip(names, read_runs([folder / "eval" / name for name in names]), strict=True))
    return [
        Trained(
            [runs[name] for seed in seeds if (name := _name(arm, seed)) in runs],
            {seed: failed[name].what for seed in seeds if (name := _name(arm, seed)) in failed},
        )
        for arm in arms
    ]


def _name(arm: Arm, seed: int) -> str:
    """Of the folders of a run and of its evaluation."""
    return safe_id(f"{arm.folder}-{seed}")


def described(arm: Trained, n_boot: int) -> dict[str, Any]:
    """The fields of `schemas.studies.StudyArm`."""
    return {**arm_scores(arm.runs, n_boot), "failed": arm.failed}


def scored_fields(arms: Sequence[Trained], n_boot: int) -> dict[str, Any]:
    """The fields of `schemas.studies.ScoredStudy` that the evaluations tell, which are all of the same films."""
    return scored_by(next(run for arm in arms for run in arm.runs), n_boot)


def scored_by(run: Run, n_boot: int) -> dict[str, Any]:
    """The same, of one evaluation."""
    m, cases = run.metrics, run.cases
    return {
        "split": m.split,
        "cases_sha256": m.cases_sha256,
        "n_cases": m.n_cases,
        "n_patients": m.n_patients,
        "ci": IntervalMethod(n_boot=n_boot, clusters=len(set(clusters(cases))), without_patient=sum(not case.patient for case in cases)),
    }


def seed_warnings(seeds: Sequence[int]) -> list[str]:
    """What so many seeds cannot tell."""
    if len(seeds) == 1:
        return ["One seed: what is said is about these weights; another seed may differ."]
    if len(seeds) < MIN_SEEDS:
        return [
            "Two seeds: both are shown. The intervals are about these runs, not about how much another seed would differ; no p is given."
        ]
    return []


def run_warnings(names: Sequence[str], trained: Sequence[Trained]) -> list[str]:
    """Trainings and cases that failed, and what the evaluations warn of, each said once."""
    found = [f"{name}, seed {seed}: {why}." for name, arm in zip(names, trained, strict=True) for seed, why in arm.failed.items()]
    if found:
        found.append("--resume tries these again from their last checkpoint. Another rate is another study: -s train.lr and -o.")
    arms = [(name, arm.runs) for name, arm in zip(names, trained, strict=True) if arm.runs]
    if len(set(clusters(arms[0][1][0].cases))) < 2:
        found.append("All cases are of one patient: no interval can be drawn, and no verdict is given.")
    for name, runs in arms:
        if failed := max(run.metrics.counts.failed for run in runs):
            found.append(f"{name}: {failed} cases failed and count as empty predictions.")
    said: dict[str, list[str]] = {}
    for name, runs in arms:
        for text in dict.fromkeys(text for run in runs for text in run.metrics.warnings):
            said.setdefault(text, []).append(name)
    return found + [text if len(names) == len(arms) else f"{', '.join(names)}: {text}" for text, names in said.items()]
