"""A comparison as one table: for a text, for a program, for a paper. Scores are fractions in all three.

Names of methods may be names of folders and so hold anything: each format escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .data.manifest import table
from .limits import csv_cell
from .page import minus
from .schemas.comparison import COMPARED, ComparedArm, Comparison
from .schemas.files import CSV_COLUMNS
from .stats import MIN_SEEDS

CONSTANT = "constant"
HEADS = {"dice_pooled": "Dice, pooled", "dice_mean": "Dice, mean", "iou_pooled": "IoU, pooled", "iou_mean": "IoU, mean", "nsd": "NSD"}
DIFFERENCES = ("dice_pooled", "dice_mean")  # of the printed tables; csv and json have all
_MARKS = {"*": "$^{*}$", "†": r"$^{\dagger}$"}
_TEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def head(score: str, comparison: Comparison) -> str:
    """The name of a score as a column shows it; a distance with its unit."""
    return HEADS.get(score) or f"HD95, {comparison.hd95_unit}"


def digits(score: str) -> int:
    """Decimals that a score is printed with."""
    return 2 if score == "hd95" else 4


def signed(score: str, value: float) -> str:
    """A difference with its sign."""
    return minus(f"{value:+.{digits(score)}f}")


def text_free(arm: ComparedArm) -> bool:
    """Whether the method reads no sentence, or one and the same for every film."""
    return arm.text == CONSTANT


def p_value(p: float) -> str:
    """Three decimals, or that it is smaller."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def method_notes(comparison: Comparison) -> list[str]:
    """How the table was made, in sentences that belong below it."""
    c, ci = comparison, comparison.ci
    notes = [
        f"{c.n_cases:,} cases of {c.n_patients:,} patients, split {c.split}. Scores are fractions; HD95 in {c.hd95_unit} (lower is "
        f"better), NSD at {c.nsd_tolerance:g} {c.hd95_unit}.",
    ]
    if ci.clusters > 1:
        notes.append(
            f"In brackets 95 % intervals: {ci.method}, {ci.n_boot:,} draws of {ci.clusters:,} clusters; differences are paired, this "
            "method minus the reference. Methods of three seeds or more: seeds are drawn together with the patients."
        )
    if ci.without_patient:
        notes.append(f"{ci.without_patient:,} films without a patient are clusters of their own, so the intervals are a lower bound.")
    if c.family.n:
        notes.append(f"p: {c.family.test} of {c.family.score} against the reference, adjusted after Holm over {c.family.n} of them.")
    notes.append(f"Win / tie / loss: films whose Dice is above, within {c.tie_margin:g} of, or below the reference's.")
    return notes


# ---------------------------------------------------------------- markdown, LaTeX


def markdown_table(comparison: Comparison) -> str:
    """With the notes below it."""
    heads, rows = _printed(comparison)
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *(_markdown_row(row) for row in rows)]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    marks = [f"{mark} {says}" for mark, says in (("†", "reads no text."), ("*", "the reference."))]
    return body + "\n\n" + "\n".join(f"{_escape_markdown(note)}  " for note in [*marks, *method_notes(comparison)]).rstrip() + "\n"


def _markdown_row(row: Sequence[tuple[str, str, str]]) -> list[str]:
    return [" ".join(part for part in (_escape_markdown(value) + _escape_markdown(mark), between) if part) for value, between, mark in row]


def _escape_markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*|<>[]" else c for c in _one_line(text))


def latex_table(comparison: Comparison) -> str:
    """A table over both columns of a page; it needs booktabs. Intervals stand below their values."""
    heads, rows = _printed(comparison)
    lines = []
    for row in rows:
        values = [_escape_latex(value) + "".join(_MARKS[c] for c in mark) for value, _, mark in row]
        guard = "{}" if values[0].startswith(("[", "*")) else ""  # behind the end of a row they would be read as its arguments
        lines.append(guard + " & ".join(values) + r" \\")
        if any(between for _, between, _ in row):
            lines.append(" & ".join(rf"{{\tiny {_escape_latex(between)}}}" if between else "" for _, between, _ in row) + r" \\[2pt]")
    notes = " ".join(_escape_latex(note) for note in method_notes(comparison))
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table*}",
            r"\centering\scriptsize\setlength{\tabcolsep}{3pt}",
            rf"\caption{{{notes} {_MARKS['*']} the reference, {_MARKS['†']} reads no text.}}",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(_escape_latex(head) for head in heads) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
            "",
        ]
    )


def _escape_latex(text: str) -> str:
    text = "".join(_TEX.get(c, c) for c in _one_line(text))
    return text.replace("<", r"$<$").replace(">", r"$>$").replace("−", r"$-$").replace("Δ", r"$\Delta$").replace("–", "--")


def _one_line(text: str) -> str:
    """What does not print, a line break among it, would end a row."""
    return "".join(c if c.isprintable() else "?" for c in text)


Cell = tuple[str, str, str]  # value, interval, mark


def _printed(comparison: Comparison) -> tuple[list[str], list[list[Cell]]]:
    heads = ["Method", "Seeds", *(head(score, comparison) for score in COMPARED)]
    heads += [*(f"Δ {head(score, comparison)}" for score in DIFFERENCES), "p", "Win / tie / loss"]
    rows = []
    for arm in comparison.arms:
        mark = ("*" if arm.name == comparison.reference else "") or ("†" if text_free(arm) else "")
        rows.append([(arm.name, "", mark), (str(len(arm.runs)), "", ""), *_score_cells(arm), *_difference_cells(arm)])
        rows += list(_seed_rows(arm, len(heads)))
    return heads, rows


def _score_cells(arm: ComparedArm) -> list[Cell]:
    return [(f"{arm.scores[s]:.{digits(s)}f}", _between(s, arm.ci95.get(s)), "") for s in COMPARED]


def _difference_cells(arm: ComparedArm) -> list[Cell]:
    """All empty for the reference; where all cases are of one patient only the films are counted."""
    if arm.win is None:
        return [("", "", "")] * (len(DIFFERENCES) + 2)
    cells = [(signed(s, d[0]), _between(s, d[1:]), "") if (d := arm.difference.get(s)) else ("", "", "") for s in DIFFERENCES]
    return [*cells, ("" if arm.p_holm is None else p_value(arm.p_holm), "", ""), (f"{arm.win} / {arm.tie} / {arm.loss}", "", "")]


def _seed_rows(arm: ComparedArm, width: int) -> Iterator[list[Cell]]:
    """Two seeds are both shown: their interval does not tell how much they vary."""
    for run in arm.runs if 1 < len(arm.runs) < MIN_SEEDS else ():
        row = [(f"– seed {run.seed}", "", ""), ("", "", ""), *((f"{run.scores[s]:.{digits(s)}f}", "", "") for s in COMPARED)]
        yield row + [("", "", "")] * (width - len(row))


def _between(score: str, pair: tuple[float, float] | None) -> str:
    if pair is None:
        return ""
    return minus(f"[{pair[0]:.{min(digits(score), 3)}f}, {pair[1]:.{min(digits(score), 3)}f}]")


# ---------------------------------------------------------------- csv


def csv_table(comparison: Comparison) -> str:
    """A row a method, every number exact; what there is not is empty."""
    rows = []
    for arm in comparison.arms:
        row = {"method": csv_cell(arm.name), "text": csv_cell(arm.text), "seeds": str(len(arm.runs))}
        for score in COMPARED:
            for part, value in zip(("", "_low", "_high"), (arm.scores[score], *arm.ci95.get(score, ())), strict=False):
                row[f"{score}{part}"] = repr(value)
            for part, value in zip(("", "_low", "_high"), arm.difference.get(score, ()), strict=False):
                row[f"{score}_minus_reference{part}"] = repr(value)
        row |= {key: repr(value) for key in ("p", "p_holm", "win", "tie", "loss") if (value := getattr(arm, key)) is not None}
        rows.append(row)
    return table(CSV_COLUMNS["table.csv"], rows)
