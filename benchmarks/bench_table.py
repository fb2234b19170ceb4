"""table.json of a bench, from the counts of its cells: intervals over patients, and differences paired film by film."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench_page import SCORES
from bench_protocol import Protocol, arms, pairs
from reportseg.cases import METRICS, read_cases
from reportseg.data.splits import split_sha256
from reportseg.errors import InputError
from reportseg.metrics import overlap
from reportseg.schemas.base import load_json
from reportseg.stats import bootstrap_runs, paired_bootstrap_runs
from reportseg.types import CaseScore, Sample

COUNTS = "counts.json"
PIXELS = ("tp", "fp", "fn")


def update(table: dict[str, Any], protocol: Protocol, results: Path, films: Sequence[Sample]) -> dict[str, Any]:
    """The table with what is new in `results`, without what no longer lies there. `films` are those that were scored, by id."""
    table = table or {"arms": {}, "differences": {}}
    for arm in arms(protocol):
        if not _whole(protocol, results, [arm.name]):
            table["arms"].pop(arm.name, None)
        elif fresh := _fresh(protocol, results, [arm.name], table["arms"].get(arm.name)):
            intervals = bootstrap_runs(cases(results, arm.name, fresh["seeds"], films))
            table["arms"][arm.name] = fresh | {"ci95": {name: intervals[name] for name in SCORES if name in intervals}}
    for one, other in pairs(protocol):
        known = table["differences"].setdefault(one, {})
        if not _whole(protocol, results, [one, other]):
            known.pop(other, None)
        elif fresh := _fresh(protocol, results, [one, other], known.get(other)):
            ours, theirs = (cases(results, name, fresh["seeds"], films) for name in (one, other))
            minus = paired_bootstrap_runs(ours, theirs, same_seeds=True)
            known[other] = fresh | {name: minus[name] for name in SCORES if name in minus}
    return table


def done(results: Path, cell: str) -> bool:
    """Whether a cell is whole: its scores are written last."""
    return (results / cell / METRICS).exists()


def counts(scored: Path, films: Sequence[Sample]) -> dict[str, Any]:
    """An evaluation's pixels, film by film; a film that could not be read is among its cases, as an empty answer."""
    cases, ids = {case.id: case for case in read_cases(scored)}, [film.id for film in films]
    return {"split_sha256": split_sha256(ids), **{name: [getattr(cases[id], name) for id in ids] for name in PIXELS}}


def cases(results: Path, arm: str, seeds: Sequence[int], films: Sequence[Sample]) -> list[list[CaseScore]]:
    """The films under each seed, with the overlap scores alone. InputError protocol where the counts are those of other films."""
    runs = list[list[CaseScore]]()
    for seed in seeds:
        path = results / f"{arm}-{seed}" / COUNTS
        found = load_json(path)
        if found["split_sha256"] != split_sha256(film.id for film in films):
            fix = "Give the data set that the bench was begun with, or another folder for --results."
            raise InputError("the films that were scored are not those of the split", path, fix, "protocol")
        pixels = zip(*(found[name] for name in PIXELS), strict=True)
        runs.append([_case(film, *of_film) for film, of_film in zip(films, pixels, strict=True)])
    return runs


def _whole(protocol: Protocol, results: Path, of: Sequence[str]) -> list[int]:
    """The seeds that all of these arms have been run with."""
    return [seed for seed in protocol.seeds if all(done(results, f"{arm}-{seed}") for arm in of)]


def _fresh(protocol: Protocol, results: Path, of: Sequence[str], known: dict[str, Any] | None) -> dict[str, Any] | None:
    """Those seeds, and the bundles of these arms; None where that is no news."""
    seeds = _whole(protocol, results, of)
    bundles = [load_json(results / f"{arm}-{seed}" / METRICS)["bundle_sha256"] for arm in of for seed in seeds]
    return None if known and known["bundles"] == bundles else {"seeds": seeds, "bundles": bundles}


def _case(film: Sample, tp: int, fp: int, fn: int) -> CaseScore:
    """A film's overlap scores; what the counts cannot tell is NaN."""
    dice, iou = overlap(tp, fp, fn)
    return CaseScore(film.id, film.patient, "", tp, fp, fn, dice, iou, math.nan, math.nan, None, tp + fn > 0, tp + fp)
