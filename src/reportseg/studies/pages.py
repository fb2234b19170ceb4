"""What the pages of the studies share: the head, the warnings, how a row begins, and how a score is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..page import Child, Html, breakable, cell, command_line, el, facts, interval, minus, number
from ..report_numbers import NAMES
from ..schemas.base import Difference, Interval
from ..schemas.comparison import ComparedRun
from ..schemas.studies import StudyArm
from ..types import INTENDED_USE

DICE = ("dice_pooled", "dice_mean")
SPOKEN = {"dice_pooled": "pooled Dice", "dice_mean": "mean Dice", "iou_pooled": "pooled IoU", "iou_mean": "mean IoU", "nsd": "NSD"}
SHOWN = ("dice_pooled", "dice_mean", "iou_pooled", "iou_mean", "nsd")


def header(title: str, answer: Child, pairs: Iterable[tuple[str, Child]], command: str) -> Html:
    """Title, the answer in a sentence, what it is about, the command, what it may be used for."""
    return el(
        "header",
        el("h1", el("bdi", title)),
        el("p", answer, class_="answer") if answer else None,
        facts(pairs),
        command_line(command) if command else None,
        el("p", INTENDED_USE, class_="use"),
    )


def warnings(items: Sequence[str]) -> Html | None:
    """What a reader must know; None where there is nothing."""
    return el("ul", *(el("li", item) for item in items), class_="warnings") if items else None


def row_head(name: str, under: str = "") -> Html:
    """The first cell of a row."""
    return el("th", el("bdi", breakable(name)), el("span", under, class_="under") if under else None, scope="row", class_="named")


def arm_head(name: str, arm: StudyArm) -> Html:
    """The first cell of an arm's row, with the seeds that have no score."""
    failed = ", ".join(map(str, arm.failed))
    return row_head(name, f"{'seeds' if len(arm.failed) > 1 else 'seed'} {failed} failed" if failed else "")


def score_cell(value: float | None, pair: Interval | None = None) -> Html:
    """A score and its interval."""
    return cell(number(value), None if pair is None else interval(pair))


def difference_cell(difference: Difference | None) -> Html:
    """A difference with its sign and interval; empty where there is none."""
    return cell() if difference is None else cell(minus(f"{difference[0]:+.4f}"), interval(difference[1:]))


def points(difference: Difference, digits: int = 1) -> str:
    """A difference for people: in points of a hundred, with its interval."""
    value, low, high = (100 * part for part in difference)
    return minus(f"{value:+.{digits}f} points [{low:.{digits}f}, {high:.{digits}f}]")


def seed_rows(name: str, runs: Sequence[ComparedRun], *more: Sequence[Html]) -> list[Html]:
    """A row for each seed, with its scores and the cells of each column in `more`."""
    rows = []
    for i, run in enumerate(runs):
        values = (score_cell(run.scores.get(score)) for score in SHOWN)
        rows.append(el("tr", row_head(name), cell(str(run.seed)), *(column[i] for column in more), *values))
    return rows


def bullets(items: Sequence[Child]) -> Html:
    """Sentences on how the numbers were made."""
    return el("ul", *(el("li", item) for item in items))


def score_heads() -> list[str]:
    """Heads of the columns of `SHOWN`."""
    return [NAMES[score] for score in SHOWN]


def hashes(pairs: Iterable[tuple[str, str]]) -> Html:
    """Names and their sha256, whole."""
    return el("dl", *(el("div", el("dt", name), el("dd", el("code", sha))) for name, sha in pairs), class_="hashes")
