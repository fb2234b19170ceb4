"""transfer.html: each bundle on its own data and on others."""

from __future__ import annotations

from pathlib import Path

from ..charts import interval_plot
from ..errors import WARNINGS
from ..limits import atomic_write
from ..page import Child, Html, cell, el, figure, join, minus, number, sectioned, side_by_side, table
from ..report_numbers import NAMES
from ..schemas.studies import TransferRow, TransferStudy
from .pages import DICE, SHOWN, bullets, difference_cell, hashes, header, row_head, score_cell, score_heads, warnings


def write_page(path: Path, study: TransferStudy) -> None:
    """Writes transfer.html atomically."""
    sections: dict[str, tuple[str, Html | None]] = {
        "there": ("Own data and others", _plots(study)),
        "warnings": ("Warnings", warnings(study.warnings)),
        "compared": ("Scores", _scores(study)),
        "read": ("Is the sentence still read?", _text(study)),
        "codes": ("Warnings of the cases", _codes(study)),
        "method": ("How the numbers were made", _method(study)),
    }
    names = list(dict.fromkeys(row.data for row in study.rows))
    title = f"{', '.join(dict.fromkeys(row.bundle for row in study.rows))} on other data"
    pairs: list[tuple[str, Child]] = [("Metric", NAMES[study.metric]), ("Data sets", el("bdi", ", ".join(names)))]
    atomic_write(path, sectioned(f"{title}: reportseg study", header(title, answer(study), pairs, study.command), sections))


def answer(study: TransferStudy) -> str | None:
    """A sentence for each bundle: its score on its own data and on each other set; None where nothing but its own was scored."""
    metric, parts = study.metric, []
    for sha in dict.fromkeys(row.bundle_sha256 for row in study.rows):
        rows = [row for row in study.rows if row.bundle_sha256 == sha and metric in row.scores]
        told = [f"{row.scores[metric]:.3f} on {'its own data, ' if row.own else ''}{row.data}" for row in rows]
        if not all(row.own for row in rows):
            parts.append(f"{NAMES[metric]} of {name(rows[0], study)}: {'; '.join(told)}.")
    return " ".join(parts) or None


def name(row: TransferRow, study: TransferStudy) -> str:
    """The bundle, with its seed where there are several of that name."""
    several = len({one.bundle_sha256 for one in study.rows if one.bundle == row.bundle}) > 1
    return f"{row.bundle}, seed {row.seed}" if several else row.bundle


def _heading(row: TransferRow, study: TransferStudy) -> Html:
    kind = "its own data" if row.own else "never seen"
    return row_head(f"{row.data}", f"{name(row, study)}; {kind}, split {row.split}, {row.n_cases:,} cases")


def _plots(study: TransferStudy) -> Html | None:
    plots = []
    for score in dict.fromkeys((study.metric, *DICE)):
        several = len({row.bundle_sha256 for row in study.rows}) > 1
        lines = [
            (f"{row.data}{' *' if row.own else ''}{f': {name(row, study)}' if several else ''}", row.scores[score],
             *row.ci95.get(score, (None, None)))
            for row in study.rows if score in row.scores
        ]  # fmt: skip
        title = f"{NAMES[score]} on each data set"
        says = "* Its own data. With the 95 % interval; the films differ, so these are not paired."
        plots.append(figure(title, says, interval_plot(lines, title)))
    return side_by_side(plots)


def _scores(study: TransferStudy) -> Html:
    rows = []
    for row in study.rows:
        lost = row.lost.get(study.metric)
        shown = cell("–" if row.own or lost is None else minus(f"{-lost:+.4f}"))
        values = (score_cell(row.scores.get(score), row.ci95.get(score)) for score in SHOWN)
        rows.append(el("tr", _heading(row, study), shown, *values))
    heads = ("Data set", f"Against its own data, {NAMES[study.metric]}", *score_heads())
    return table(heads, rows, "Scores on each data set", text={"Data set"})


def _text(study: TransferStudy) -> Html | None:
    shown = [row for row in study.rows if row.shuffled]
    if not shown:
        return None
    rows = [el("tr", _heading(row, study), *(difference_cell(row.shuffled.get(score)) for score in SHOWN)) for row in shown]
    says = "The films' own sentences minus those of other films there, paired. Near 0 the sentence is not read, or tells nothing."
    return join(el("p", says), table(("Data set", *score_heads()), rows, "What shuffled sentences cost", text={"Data set"}))


def _codes(study: TransferStudy) -> Html | None:
    codes = list(dict.fromkeys(code for row in study.rows for code in row.codes))
    if not codes:
        return None
    rows = [el("tr", _heading(row, study), *(cell(number(row.codes.get(code, 0), 0)) for code in codes)) for row in study.rows]
    says = el("ul", *(el("li", el("code", code), f": {WARNINGS[code]}.") for code in codes if code in WARNINGS))
    return join(table(("Data set", *codes), rows, "Cases with each warning", text={"Data set"}), says)


def _method(study: TransferStudy) -> Html:
    bundles = dict.fromkeys((name(row, study), row.bundle_sha256) for row in study.rows)
    cases = dict.fromkeys((f"Cases of {row.data}", row.cases_sha256) for row in study.rows)
    items: list[Child] = [
        "Nothing was fitted anew: weights, decision rule and tokenizer are the bundle's.",
        "A data set is a bundle's own where the bundle was trained on one of that name.",
        "The loss is the score on its own data minus that on the other: other films, outlined by other people, so it is not paired.",
        "Intervals: bootstrap of patients, within each data set. Where films have no known patient they are clusters of their own, and the "
        "intervals a lower bound.",
    ]
    return join(bullets(items), hashes([*bundles, *cases]))
