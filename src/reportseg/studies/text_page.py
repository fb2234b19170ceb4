"""text.html: what the sentences bought, in one figure that is read before anything else."""

from __future__ import annotations

from pathlib import Path

from ..charts import Rung, interval_plot, ladder_plot
from ..limits import atomic_write
from ..page import Child, Html, cell, counted, el, figure, join, sectioned, short_hash, side_by_side, table
from ..report import CAVEAT
from ..report_numbers import NAMES
from ..schemas.studies import TextRow, TextStudy
from .pages import DICE, SHOWN, SPOKEN, bullets, difference_cell, hashes, header, points, row_head, score_cell, score_heads, warnings
from .plan import SMALLEST

_SAYS = {
    "original": ("Its own sentence", "as written"),
    "twin": ("Never had a text", "the twin, trained without"),
    "empty": ("No sentence", "the same model, asked nothing"),
    "shuffled": ("Another film's sentence", "mean of five shuffles"),
    "swapped-side": ("Left and right exchanged", ""),
}
_ORDER = ("original", "twin", "column", "control")  # what the text bought is told by the first two bars
_STYLE = {"original": "c1", "column": "c3", "twin": "c4", "control": "c0"}


def write_page(path: Path, study: TextStudy) -> None:
    """Writes text.html atomically."""
    sections: dict[str, tuple[str, Html | None]] = {
        "bought": ("What the text bought", _bought(study)),
        "warnings": ("Warnings", warnings(study.warnings)),
        "compared": ("Scores", _scores(study)),
        "losses": ("Losses", _losses(study)),
        "method": ("How the numbers were made", _method(study)),
    }
    title = f"What the text bought {study.name}"
    pairs: list[tuple[str, Child]] = [
        ("Bundle", short_hash(study.bundle_sha256)),
        ("Seed", str(study.seed)),
        ("Sentences", join("column ", el("code", study.column))),
        ("Scored", f"{counted(study.n_cases, 'case')} of {counted(study.n_patients, 'patient')}, split {study.split}"),
    ]
    atomic_write(path, sectioned(f"{title}: reportseg study", header(title, answer(study), pairs, study.command), sections))


def answer(study: TextStudy) -> str:
    """The study in two sentences, for the page and the terminal."""
    rows, metric = {row.name: row for row in study.rows}, SPOKEN[study.metric]
    twin, other = rows.get("twin"), rows.get("shuffled")
    parts = []
    if twin is not None and (gain := twin.loss.get(study.metric)):
        own = f"{twin.own[study.metric]:.3f} with it, {twin.scores[study.metric]:.3f} for the twin that was trained without"
        value, low, high = gain
        if low > 0:
            parts.append(f"The text bought {points(gain)} of {metric}: {own}.")
        elif high < 0:
            parts.append(f"The text cost {points((-value, -high, -low))} of {metric}: {own}.")
        else:
            parts.append(f"Whether the text bought anything is undecided: {points(gain)} of {metric}, {own}.")
    if other is not None and (loss := other.loss.get(study.metric)):
        if loss[1] > 0:
            parts.append(f"The model reads its sentence: that of another film costs it {points(loss).removeprefix('+')}.")
        elif loss[2] < SMALLEST:
            parts.append(f"The model hardly reads its sentence: that of another film costs it {points(loss)}.")
        else:
            parts.append(f"Whether the model reads its sentence is undecided: that of another film costs it {points(loss)}.")
    if twin is None:
        parts.append("What the text bought in all is told by a twin that is trained without, and none was given.")
    return " ".join(parts)


def _names(row: TextRow, study: TextStudy) -> tuple[str, str]:
    if row.kind == "column":
        n = study.n_cases
        long = "column" if row.words is None else counted(row.words, "word")
        return row.name, f"{long}, {'all' if row.n_changed == n else f'{row.n_changed:,} of {n:,}'} sentences differ"
    label, under = _SAYS.get(row.name, (row.name, ""))
    if row.kind == "original" and row.words is not None:
        under += f", {counted(row.words, 'word')}"
    return label, f"{row.n_cases:,} cases whose places change" if row.name == "swapped-side" else under


def _rows(study: TextStudy) -> list[TextRow]:
    return sorted(study.rows, key=lambda row: _ORDER.index(row.kind))


def ladder(study: TextStudy) -> Html:
    """The figure: a bar for each kind of sentence."""
    rungs = [
        Rung(*_names(row, study), row.scores[study.metric], row.own[study.metric], _STYLE[row.kind], row.twin.get(study.metric))
        for row in _rows(study)
        if study.metric in row.scores and study.metric in row.own
    ]
    return ladder_plot(rungs, _title(study), "without text")


def _title(study: TextStudy) -> str:
    return f"{NAMES[study.metric]}: the same films under other sentences"


def _bought(study: TextStudy) -> Html:
    says = "Each bar is a score. Shaded up to its tick: what is lost against the films' own sentences."
    if any(row.twin for row in study.rows):
        says += " Dashed: the twin that never had a text, on the same films; a bar that ends left of it does worse than no text at all."
    note = el("p", el("strong", "Where the sentence comes from. "), CAVEAT, class_="note")
    return join(figure(_title(study), says, ladder(study), wide=True), note)


def _scores(study: TextStudy) -> Html:
    rows = []
    for row in _rows(study):
        counts = (cell(f"{row.n_cases:,}"), cell(f"{row.n_changed:,}"), cell(f"{row.n_empty:,}"))
        rows.append(el("tr", row_head(*_names(row, study)), *counts, *(score_cell(row.scores.get(score)) for score in SHOWN)))
    heads = ("Sentence", "Cases", "Changed", "Empty", *score_heads())
    return table(heads, rows, "Scores under each sentence", text={"Sentence"})


def _losses(study: TextStudy) -> Html | None:
    shown = [row for row in _rows(study) if row.loss]
    if not shown:
        return None
    rows = [el("tr", row_head(*_names(row, study)), *(difference_cell(row.loss.get(score)) for score in SHOWN)) for row in shown]
    plots = []
    for score in DICE:
        title = f"{NAMES[score]}: own sentence minus the other"
        lines = [(_names(row, study)[0], *row.loss[score]) for row in shown if score in row.loss]
        if lines:
            plots.append(
                figure(title, "Right of the dashed line the film's own sentence is better.", interval_plot(lines, title, differences=True))
            )
    says = "The films' own sentences minus the others, paired: the same films and draws of patients. For the twin: what the text bought."
    heads = ("Sentence", *score_heads())
    return join(el("p", says), table(heads, rows, "What is lost under each sentence", text={"Sentence"}), side_by_side(plots))


def _method(study: TextStudy) -> Html:
    ci = study.ci
    items: list[Child] = [
        "Shuffled: a permutation of the sentences that gives no film an equal one, mean of five. Left and right exchanged: only films "
        "whose places change, and their loss is measured on these.",
        "No sentence: in distribution only where training dropped the text of some films.",
        "A further column is another sentence on the same film, read by the same weights; words that training lacked may count against it.",
        "Words: of a sentence, median.",
        f"Intervals: {ci.method}, {ci.n_boot:,} draws of {counted(ci.clusters, 'cluster')}; not adjusted for their number.",
    ]
    if ci.without_patient:
        items.append(f"{counted(ci.without_patient, 'film')} without a patient are clusters of their own: the intervals are a lower bound.")
    return join(bullets(items), hashes([("Bundle", study.bundle_sha256), ("Cases", study.cases_sha256)]))
