"""Compares evaluations on the same cases: which method is ahead, by how much, how surely, and on which films.

Evaluations of one configuration that differ in the seed are one method. Each method is compared with one reference, named before anything
is known of the scores (the first, unless the user names another): a reference chosen as the best of the day would flatter itself, and
the tests would not mean what they say.

Shapes: N cases, in the order of the first evaluation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from .cases import CASES, METRICS, read_cases
from .compare_films import TIE, PairPicture, Shown, draw_pairs, furthest, win_tie_loss
from .compare_page import write_page
from .compare_tables import csv_table, latex_table, markdown_table
from .data.manifest import near, read_manifest
from .errors import InputError
from .evaluate import MASKS
from .limits import atomic_write
from .metrics import summarise
from .schemas.base import read_json, write_json
from .schemas.comparison import COMPARED, ComparedArm, ComparedRun, Comparison, Family
from .schemas.metrics import IntervalMethod, Metrics
from .stats import MIN_SEEDS, N_BOOT, align, bootstrap_runs, clusters, film_means, holm, paired_bootstrap_runs, wilcoxon_runs
from .types import CaseScore

COMPARE, PAGE = "compare.json", "compare.html"
TABLES = {"table.md": markdown_table, "table.csv": csv_table, "table.tex": latex_table}


@dataclass(frozen=True)
class Run:
    """One evaluation; the cases of all are in one order."""

    folder: Path
    metrics: Metrics
    cases: list[CaseScore]


@dataclass(frozen=True)
class Arm:
    """One method. Runs by seed."""

    name: str
    runs: list[Run]

    @property
    def cases(self) -> list[list[CaseScore]]:
        """The cases of each run, in the order of the runs."""
        return [run.cases for run in self.runs]

    @property
    def seeds(self) -> list[int]:
        """The seed of each run, in their order."""
        return [run.metrics.seed for run in self.runs]


def compare(
    folders: Sequence[str | Path],
    *,
    out: str | Path,
    reference: str | None = None,
    manifest: str | Path | None = None,
    n_boot: int = N_BOOT,
    overwrite: bool = False,
    command: str = "",
) -> Comparison:
    """Compares the evaluations in `folders` (metrics.json and cases.csv) and writes tables, page and compare.json into `out`.

    `reference` is the name of a method or one of the folders. `manifest` shows films side by side, from the masks that `evaluate` saved.
    InputError, and nothing is written: exists, twice, too_few, cases_differ, protocol_differs, bad_cases, seed_twice, reference, and those
    of the files and of `draw_pairs`.
    """
    if (Path(out) / COMPARE).exists() and not overwrite:
        raise InputError("a comparison lies there already", Path(out) / COMPARE, "Choose another folder, or add --overwrite.", "exists")
    arms = group(read_runs([Path(folder) for folder in folders]))
    if len(arms) < 2:
        what = f"all of this is one method, {arms[0].name}" if len(arms[0].runs) > 1 else "there is one evaluation only"
        raise InputError(what, folders[0], "Name the evaluations of two methods or more.", "too_few")
    chosen = _reference(arms, reference)
    metrics, cases = arms[0].runs[0].metrics, arms[0].runs[0].cases
    described = [_describe(arm, chosen, n_boot) for arm in arms]
    tested = [i for i, one in enumerate(described) if one.p is not None]
    for i, p in zip(tested, holm([described[i].p or 0.0 for i in tested]), strict=True):
        described[i] = described[i].model_copy(update={"p_holm": p})
    comparison = Comparison(
        command=command,
        cases_sha256=metrics.cases_sha256,
        split=metrics.split,
        n_cases=metrics.n_cases,
        n_patients=metrics.n_patients,
        hd95_unit=metrics.hd95_unit,
        nsd_tolerance=metrics.nsd_tolerance,
        empty_policy=metrics.empty_policy,
        reference=chosen.name,
        tie_margin=TIE,
        ci=IntervalMethod(n_boot=n_boot, clusters=len(set(clusters(cases))), without_patient=sum(not case.patient for case in cases)),
        family=Family(n=len(tested)),
        arms=described,
        warnings=_warnings(arms),
    )
    pictures = {} if manifest is None else _pictures(comparison, arms, chosen, manifest)
    for file, write in TABLES.items():
        atomic_write(Path(out) / file, write(comparison))
    write_page(Path(out) / PAGE, comparison, pictures)
    write_json(Path(out) / COMPARE, comparison)
    return comparison


# ---------------------------------------------------------------- reading, and what forbids a comparison


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The evaluations, every one on the cases of the first. InputError: twice, cases_differ, and the others that `compare` lists."""
    for folder, n in Counter(folder.resolve() for folder in folders).items():
        if n > 1:
            raise InputError("this evaluation was named twice", folder, "Name each once.", "twice")
    runs: list[Run] = []
    for folder in folders:
        metrics = read_json(folder / METRICS, Metrics)
        first = runs[0] if runs else None
        if first:
            _check_protocol(folder, metrics, first)
        cases = read_cases(folder / CASES)
        _check_cases(folder, metrics, cases)
        if first:
            cases = align(first.cases, cases)
            if clusters(cases) != clusters(first.cases):
                what = f"the patients are not those of {first.folder}"
                raise InputError(what, folder / CASES, "Evaluate both with the same manifest.", "cases_differ")
        runs.append(Run(folder, metrics, cases))
    return runs


def _check_protocol(folder: Path, metrics: Metrics, first: Run) -> None:
    other = first.metrics
    if metrics.cases_sha256 != other.cases_sha256:
        one, two = (f"{m.n_cases} cases of the split {m.split!r}" for m in (metrics, other))
        what = f"this was evaluated on other films or other true masks than {first.folder}: {one}, there {two}"
        raise InputError(what, folder / METRICS, "Evaluate both on the same split of the same manifest.", "cases_differ")
    for key, name in (
        ("split", "split"),
        ("empty_policy", "policy on empty masks"),
        ("hd95_unit", "unit of distances"),
        ("nsd_tolerance", "tolerance of nsd"),
    ):
        if getattr(metrics, key) != getattr(other, key):
            what = f"the {name} is not that of {first.folder}: {getattr(metrics, key)!r}, there {getattr(other, key)!r}"
            fix = "Evaluate both with the same manifest and the same version of the program."
            raise InputError(what, folder / METRICS, fix, "protocol_differs")


def _check_cases(folder: Path, metrics: Metrics, cases: Sequence[CaseScore]) -> None:
    """cases.csv must be of the evaluation that metrics.json tells of: everything here is computed from its rows."""
    found = summarise(cases)
    for score in COMPARED:
        told, counted = getattr(metrics, score), found[score]
        if len(cases) != metrics.n_cases or told is None or counted is None or abs(told - counted) > 1e-9 * max(1, abs(told)):
            what = f"the cases do not add up to {METRICS} beside them ({score})"
            raise InputError(what, folder / CASES, "Evaluate again; edit neither of the two.", "bad_cases")


# ---------------------------------------------------------------- methods


def group(runs: Sequence[Run]) -> list[Arm]:
    """Runs of one configuration and the same training films under one text, with flips or without, are one method, in the order of the
    first of each; masks and ensembles stand alone. A run that does not tell its films goes with those that do, where all these have the
    same.

    InputError seed_twice: a run that is counted twice would look like a second seed.
    """
    films: dict[str | None, set[str]] = {}
    for run in runs:
        films.setdefault(run.metrics.config_sha256, set()).update({run.metrics.films_sha256} - {None})  # type: ignore[arg-type]
    groups: dict[object, list[Run]] = {}
    for run in runs:
        m = run.metrics
        flips = m.decision is not None and m.decision.flips
        told = m.films_sha256 if len(films[m.config_sha256]) > 1 else None
        key = (m.config_sha256, told, m.text, flips) if m.config_sha256 and not m.ensemble else run.folder
        groups.setdefault(key, []).append(run)
    for own in groups.values():
        own.sort(key=lambda run: run.metrics.seed)
        for one, two in pairwise(own):
            if one.metrics.seed == two.metrics.seed:
                what = f"this has the configuration and the seed {one.metrics.seed} of {one.folder}"
                raise InputError(what, two.folder, "Name one of the two.", "seed_twice")
    return [Arm(name, own) for name, own in zip(_names([own[0] for own in groups.values()]), groups.values(), strict=True)]


def _names(runs: Sequence[Run]) -> list[str]:
    """A name for each method: that of the configuration, else of the folder. What would be the name of an earlier one gets its folder."""
    places = _places([run.folder for run in runs])
    names: list[str] = []
    for run, place in zip(runs, places, strict=True):
        name, more = run.metrics.name or place, len(run.metrics.ensemble)
        name += f", ensemble of {more + 1}" if more else ""
        names.append(f"{name} ({place})" if name in names else name)
    return names


def _places(folders: Sequence[Path]) -> list[str]:
    """What tells the folders apart: the shortest ends of their paths that differ, without the end that all share."""
    paths = [folder.resolve().parts for folder in folders]
    while len({path[-1] for path in paths}) == 1 and len(paths) > 1 and all(len(path) > 2 for path in paths):
        paths = [path[:-1] for path in paths]
    for length in range(1, max(map(len, paths)) + 1):
        ends = ["/".join(path[-length:]) for path in paths]
        if len(set(ends)) == len(ends):
            break
    return ends


def _reference(arms: Sequence[Arm], asked: str | None) -> Arm:
    if asked is None:
        return arms[0]
    for arm in arms:
        if asked == arm.name or Path(asked).resolve() in {run.folder.resolve() for run in arm.runs}:
            return arm
    names = [arm.name for arm in arms]
    raise InputError(f"there is no method {asked!r}{near(asked, names)}", "--reference", f"There are {', '.join(names)}.", "reference")


# ---------------------------------------------------------------- numbers


def arm_scores(runs: Sequence[Run], n_boot: int) -> dict[str, Any]:
    """The fields `runs`, `scores` (mean over the runs) and `ci95` of a method; without runs all are empty."""
    told = [
        ComparedRun(
            seed=run.metrics.seed,
            bundle_sha256=run.metrics.bundle_sha256,
            ensemble=run.metrics.ensemble,
            decision=run.metrics.decision,
            scores={score: getattr(run.metrics, score) for score in COMPARED},
        )
        for run in runs
    ]
    intervals = bootstrap_runs([run.cases for run in runs], n_boot) if runs else {}
    return {
        "runs": told,
        "scores": {score: float(np.mean([run.scores[score] for run in told])) for score in COMPARED} if told else {},
        "ci95": {score: intervals[score] for score in COMPARED if score in intervals},
    }


def _describe(arm: Arm, reference: Arm, n_boot: int) -> ComparedArm:
    """Everything but Holm's adjustment, which needs all of them."""
    first = arm.runs[0].metrics
    described = ComparedArm(name=arm.name, text=first.text, config_sha256=first.config_sha256, **arm_scores(arm.runs, n_boot))
    if arm is reference:
        return described
    order = arm.runs[0].cases
    dice_N, reference_N = film_means(arm.cases, order), film_means(reference.cases, order)
    failed = {case.id for run in (*arm.runs, *reference.runs) for case in run.cases if "failed" in case.warnings}
    able_N = np.array([case.id not in failed for case in order])
    win, tie, loss = win_tie_loss(dice_N - reference_N)
    difference = paired_bootstrap_runs(arm.cases, reference.cases, same_seeds=_paired(arm, reference), n_boot=n_boot)
    return described.model_copy(
        update={
            "difference": {score: difference[score] for score in COMPARED if score in difference},
            "p": None if _untested(arm, reference) or not difference else wilcoxon_runs(arm.cases, reference.cases),
            "win": win,
            "tie": tie,
            "loss": loss,
            "films": furthest([case.id for case in order], dice_N, reference_N, able_N),
        }
    )


def _paired(arm: Arm, reference: Arm) -> bool:
    """Equal seeds saw the same films in the same order, so they are drawn together."""
    return arm.seeds == reference.seeds


def _untested(*arms: Arm) -> bool:
    """Two seeds show that a method varies and cannot tell how much: a p would claim to know. One is about these very weights."""
    return any(1 < len(arm.runs) < MIN_SEEDS for arm in arms)


def _pictures(comparison: Comparison, arms: Sequence[Arm], reference: Arm, manifest: str | Path) -> dict[str, list[PairPicture]]:
    """By the name of the method; of several seeds the lowest is shown."""
    text = reference.runs[0].metrics.text
    dataset = read_manifest(manifest, text_column="text" if text == "constant" else text)
    samples = {sample.id: sample for sample in dataset.samples}
    shown = {arm.name: Shown(arm.runs[0].folder / MASKS, {case.id: case for case in arm.runs[0].cases}) for arm in arms}
    return {one.name: draw_pairs(one.films, samples, shown[one.name], shown[reference.name]) for one in comparison.arms if one.films}


# ---------------------------------------------------------------- what a reader must know


def _warnings(arms: Sequence[Arm]) -> list[str]:
    found = []
    if len(set(clusters(arms[0].cases[0]))) < 2:
        found.append("All cases are of one patient: no interval can be drawn, nothing is tested, and which method is ahead is not told.")
    two = [arm.name for arm in arms if _untested(arm)]
    if two:
        found.append(f"Two seeds: {', '.join(two)}. Both are shown; the intervals are about these runs only, and no p is given.")
    single = [arm.name for arm in arms if len(arm.runs) == 1 and arm.runs[0].metrics.bundle_sha256]
    if single:
        found.append(f"One seed: {', '.join(single)}. What is said of it is about these weights; another seed may differ.")
    rules = {run.metrics.decision.rule for arm in arms for run in arm.runs if run.metrics.decision}
    if len(rules) > 1:
        found.append("The methods differ in their decision rule too: a part of a difference may come from it.")
    for arm in arms:
        failed = max(run.metrics.counts.failed for run in arm.runs)
        if failed:
            found.append(f"{arm.name}: {failed} cases failed and count as empty predictions.")
    said: dict[str, list[str]] = {}
    for arm in arms:
        for text in dict.fromkeys(text for run in arm.runs for text in run.metrics.warnings):
            said.setdefault(text, []).append(arm.name)
    found += [text if len(names) == len(arms) else f"{', '.join(names)}: {text}" for text, names in said.items()]
    return found
