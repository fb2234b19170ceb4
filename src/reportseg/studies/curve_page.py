"""data.html: the score over the number of training films."""

from __future__ import annotations

from pathlib import Path

from ..charts import Point, point_plot
from ..limits import atomic_write
from ..page import Child, Html, cell, counted, el, figure, join, sectioned, side_by_side, table
from ..report_numbers import NAMES
from ..schemas.studies import DataShare, DataStudy
from .pages import (
    DICE,
    SHOWN,
    SPOKEN,
    arm_head,
    bullets,
    difference_cell,
    hashes,
    header,
    points,
    score_cell,
    score_heads,
    seed_rows,
    warnings,
)


def write_page(path: Path, study: DataStudy) -> None:
    """Writes data.html atomically."""
    sections: dict[str, tuple[str, Html | None]] = {
        "curve": ("Score over films", _curves(study)),
        "warnings": ("Warnings", warnings(study.warnings)),
        "compared": ("Scores", _scores(study)),
        "seeds": ("Seeds", _seeds(study)),
        "method": ("How the numbers were made", _method(study)),
    }
    title = f"What more films bought {study.name}"
    pairs: list[tuple[str, Child]] = [
        ("Metric", NAMES[study.metric]),
        ("Seeds", ", ".join(map(str, study.seeds))),
        ("Images seen by each", f"{study.images:,}"),
        ("Scored", f"{counted(study.n_cases, 'case')} of {counted(study.n_patients, 'patient')}, split {study.split}"),
    ]
    atomic_write(path, sectioned(f"{title}: reportseg study", header(title, answer(study), pairs, study.command), sections))


def answer(study: DataStudy) -> str | None:
    """What the last step of the curve bought, in one sentence; None without intervals."""
    before, last = study.shares[-2:]
    gap = before.gap.get(study.metric)
    if gap is None:
        return None
    gain = (-gap[0], -gap[2], -gap[1])
    step = f"From {before.n_films:,} to {last.n_films:,} films"
    if gain[1] > 0:
        return f"{step} {SPOKEN[study.metric]} rose by {points(gain).removeprefix('+')}: more films would still help."
    if gain[2] < 0:
        return f"{step} {SPOKEN[study.metric]} fell: {points(gain)}."
    return f"{step} the change of {SPOKEN[study.metric]} is undecided: {points(gain)}."


def _curves(study: DataStudy) -> Html | None:
    plots = []
    for score in dict.fromkeys((study.metric, *DICE)):
        dots = [_point(one, score) for one in study.shares if one.runs]
        title = f"{NAMES[score]} over training films"
        says = "With the 95 % interval of each. Neighbours share films to score, so look at the differences below, not at overlaps."
        says += " Small dots: the seeds." if len(study.seeds) > 1 else ""
        plots.append(figure(title, says, point_plot(dots, title, "training films", NAMES[score], joined=True)))
    return side_by_side(plots)


def _point(share: DataShare, score: str) -> Point:
    """The mean over the seeds and, where there are several, what each reached."""
    low, high = share.ci95.get(score, (None, None))
    each = tuple(run.scores[score] for run in share.runs) if len(share.runs) > 1 else ()
    return Point(f"share {share.share:g}", share.n_films, share.scores[score], low, high, each)


def _scores(study: DataStudy) -> Html:
    rows = []
    for one in study.shares:
        counts = (cell(f"{one.n_films:,}"), cell(f"{one.n_patients:,}"), cell(f"{study.images / one.n_films:.1f}"))
        values = (score_cell(one.scores.get(score), one.ci95.get(score)) for score in SHOWN)
        rows.append(el("tr", arm_head(f"{100 * one.share:g} %", one), *counts, difference_cell(one.gap.get(study.metric)), *values))
    heads = ("Share", "Films", "Patients", "Passes", f"Minus the largest, {NAMES[study.metric]}", *score_heads())
    return table(heads, rows, "Scores of each share", text={"Share"})


def _seeds(study: DataStudy) -> Html | None:
    if len(study.seeds) < 2:
        return None
    rows = [row for one in study.shares for row in seed_rows(f"{100 * one.share:g} %", one.runs)]
    return table(("Share", "Seed", *score_heads()), rows, "Scores of each seed", text={"Share"})


def _method(study: DataStudy) -> Html:
    ci = study.ci
    items: list[Child] = [
        "Each share is whole patients, ranked by a hash of data set and patient, and holds every smaller share.",
        "A tenth of each share is its dev: it chooses the weights and the decision rule, and is not trained on.",
        "The schedule is one for all, in images seen; a pass is once through the share.",
        f"Intervals: {ci.method}, {ci.n_boot:,} draws of {counted(ci.clusters, 'cluster')}; differences are paired.",
    ]
    if ci.without_patient:
        items.append(f"{counted(ci.without_patient, 'film')} without a patient are clusters of their own: the intervals are a lower bound.")
    return join(bullets(items), hashes([("Cases", study.cases_sha256)]))
