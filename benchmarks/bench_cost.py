"""What the methods of a bench cost beside what they reach: costs from the cost.json of `reportseg study cost`, scores from the cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill, wrap
from typing import NamedTuple

from figures import beside
from output import table
from reportseg.charts import Point, front_of, point_plot
from reportseg.report_numbers import NAMES as SAID
from reportseg.schemas.base import read_json
from reportseg.schemas.studies import CostRow, CostStudy

COST, LINE = "cost.json", 140
COSTS = {"latency_1_s": "Time of an answer", "train_time": "Time of training on an image"}


class Reached(NamedTuple):
    """A method that has a rank: its name, dice_mean over its seeds, and the interval of that."""

    name: str
    score: float
    low: float | None
    high: float | None


Pair = tuple[CostRow, Reached]


def _read(folder: Path, reached: Mapping[str, Reached]) -> tuple[CostStudy, list[Pair]] | None:
    """The study, and the methods of which cost and score are known, the best first; None before there are two."""
    if not (folder / COST).exists():
        return None
    study = read_json(folder / COST, CostStudy)
    pairs = sorted(((row, reached[row.name]) for row in study.rows if row.name in reached), key=lambda pair: -pair[1].score)
    return (study, pairs) if len(pairs) > 1 else None


def picture(folder: Path, reached: Mapping[str, Reached]) -> str | None:
    """dice_mean over time, of an answer and of training, as SVG; None before there are two methods."""
    if (found := _read(folder, reached)) is None:
        return None
    _, pairs = found
    plots = {}
    for cost, says in COSTS.items():
        points = [Point(one.name, row.ratios[cost], one.score, one.low, one.high) for row, one in pairs]
        label = f"{says}, U-Net of 31 M = 1, log scale"
        plots[f"Mean Dice over the {says.lower()}"] = point_plot(points, says, label, SAID["dice_mean"], log=True, front=True)
    return beside(plots, [f"{i}  {one.name}" for i, (_, one) in enumerate(pairs, 1)])


def section(folder: Path, reached: Mapping[str, Reached]) -> str:
    """The part of the page, or nothing."""
    if (found := _read(folder, reached)) is None:
        return ""
    study, pairs = found
    best = {cost: [pairs[i][1].name for i in front_of([(row.ratios[cost], one.score) for row, one in pairs])] for cost in COSTS}
    how = (
        "Upper left is better; the dashed stair is the Pareto front; bars are intervals. Times are multiples of those of the U-Net "
        f"of 31 M parameters, timed in turns with each method in one process: films of {study.size_px} px, an answer to one film with its "
        f"sentence in fp32, a step of {study.batch} films in {study.precision}, {study.threads} threads. Memory: of an answer, parameters "
        "included."
    )
    says = [
        "\n### Cost\n",
        f"![Mean Dice of every method over the time of an answer and of training](images/{folder.name}-cost.svg)\n",
        fill(how, LINE) + "\n",
        *(f"{says}: on the front are {', '.join(best[cost])}.\n" for cost, says in COSTS.items()),
    ]
    heads = ["", "method", "dice_mean", "answer", "training", "M parameters", "GFLOP", "MiB"]
    lines = []
    for i, (row, one) in enumerate(pairs, 1):
        costs = [f"{row.ratios[cost]:.2f}" for cost in COSTS]
        size = [f"{row.params['total'] / 1e6:.2f}", f"{row.flops / 1e9:.2f}", f"{row.predict_bytes / 2**20:.0f}"]
        lines.append([str(i), one.name, f"{one.score:.4f}", *costs, *size])
    command = " \\\n    ".join(wrap(study.command, LINE - 6, break_long_words=False, break_on_hyphens=False))
    return "\n".join(says) + "\n" + table(heads, lines) + f"\n```bash\n{command}\n```\n"
