"""The plan of a study: written before anything is trained or scored, and held to.

A study that chose its metric, or the smallest effect that it calls one, after the numbers are in says what its author likes. So a folder
has one plan, and a resume with another one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..data.manifest import near
from ..errors import InputError
from ..runs import LOCK
from ..schemas.base import read_json, write_json
from ..schemas.studies import StudyPlan

PLAN = "plan.json"
METRICS = ("dice_mean", "dice_pooled", "iou_mean", "iou_pooled", "nsd")  # all of them higher where better
SMALLEST = 0.003  # effect of interest, unless a study is told another
_FREE = {"command", "written", "contents"}

Progress = Callable[[Mapping[str, Any]], None]


def begin(folder: Path, plan: StudyPlan, resume: bool) -> StudyPlan:
    """Writes the plan into a folder that is new; with `resume` gives the one that lies there, which must be the same.

    InputError: exists (a study without `resume`, or something else), plan (another one, with the keys that differ, or with the contents of
    the films that do; what the plan of an earlier version does not name agrees).
    """
    file = folder / PLAN
    if not file.exists():
        if folder.exists() and (not folder.is_dir() or any(found.name != LOCK for found in folder.iterdir())):
            raise InputError("the folder holds something else than a study", folder, "Choose another one with -o.", "exists")
        write_json(file, plan)
        return plan
    if not resume:
        fix = "Give --resume to go on with it, or another folder with -o."
        raise InputError("a study lies there already", folder, fix, "exists")
    before = read_json(file, StudyPlan)
    one, two = (_flat(p.model_dump(mode="json", exclude=_FREE)) for p in (before, plan))
    differs = sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))
    if differs:
        more = f" and {len(differs) - 8} more" if len(differs) > 8 else ""
        what = f"the study was begun with another plan; it differs in {', '.join(differs[:8])}{more}"
        raise InputError(what, file, "Repeat the command that began it, or begin another study with -o.", "plan")
    changed = sorted(key for key, value in plan.contents.items() if before.contents.get(key, value) != value)
    if changed:
        what = f"the data changed since the study was begun; it differs in {', '.join(changed)}"
        raise InputError(what, file, "Put back what it began with, or begin another study with -o.", "plan")
    return before


def stored(folder: Path, resume: bool) -> StudyPlan | None:
    """The plan of a study that is gone on with; None where there is none."""
    file = folder / PLAN
    return read_json(file, StudyPlan) if resume and file.exists() else None


def now() -> str:
    """The time of a plan."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_metric(metric: str) -> None:
    """InputError metric for a score that no study is read from."""
    if metric not in METRICS:
        raise InputError(f"there is no metric {metric!r}{near(metric, METRICS)}", "--metric", f"There are {', '.join(METRICS)}.", "metric")


def told(progress: Progress | None, phase: str) -> Callable[[int, int], None] | None:
    """`progress` for a function that tells (done, total)."""
    return None if progress is None else lambda done, of: progress({phase: done, "of": of})


def remark(progress: Progress | None, text: str) -> None:
    """A line on what begins now."""
    if progress is not None:
        progress({"remark": text})


def no_repeats(items: Sequence[Any], where: str) -> None:
    """InputError twice where something is named twice."""
    for item in items:
        if list(items).count(item) > 1:
            raise InputError(f"{item} stands twice", where, "Name each once.", "twice")


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found
