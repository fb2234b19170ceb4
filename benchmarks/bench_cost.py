"""What the methods of a bench cost, and what they give for that, from the cost.json that `reportseg study cost` wrote into its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from figures import beside
from reportseg.charts import Point, front_of, point_plot
from reportseg.report_numbers import NAMES as SAID
from reportseg.schemas.base import read_json
from reportseg.schemas.studies import CostRow, CostStudy
from reportseg.studies.pages import SPOKEN

COST = "cost.json"
COSTS = {"latency_1_s": "Time of an answer", "train_time": "Time of training on an image"}


def _spoken(metric: str) -> str:
    """As a sentence begins."""
    return SPOKEN[metric][:1].upper() + SPOKEN[metric][1:]


def _scored(folder: Path) -> tuple[CostStudy, list[CostRow]] | None:
    """The study, and its rows that have a score, the best first; None before there is one."""
    if not (folder / COST).exists():
        return None
    study = read_json(folder / COST, CostStudy)
    rows = [row for row in study.rows if study.metric in row.scores]
    return study, sorted(rows, key=lambda row: -row.scores[study.metric or ""])


def picture(folder: Path, names: Mapping[str, str]) -> str | None:
    """Score over time, of an answer and of training, as SVG."""
    if (found := _scored(folder)) is None:
        return None
    study, rows = found
    metric = study.metric or ""
    plots = {}
    for cost, says in COSTS.items():
        points = [Point(names[r.name], r.ratios[cost], r.scores[metric], *r.ci95.get(metric, (None, None))) for r in rows]
        plots[f"{_spoken(metric)} over the {says.lower()}"] = point_plot(
            points, says, f"{says}, U-Net of 31 M = 1, log scale", SAID[metric], log=True, front=True
        )
    return beside(plots, [f"{i}  {names[row.name]}" for i, row in enumerate(rows, 1)])


def section(folder: Path, names: Mapping[str, str]) -> str:
    """The part of the page, or nothing."""
    if (found := _scored(folder)) is None:
        return ""
    study, rows = found
    metric = study.metric or ""
    best = {cost: [names[rows[i].name] for i in front_of([(row.ratios[cost], row.scores[metric]) for row in rows])] for cost in COSTS}
    says = [
        "\n### Cost\n",
        f"![{_spoken(metric)} of every method over the time of an answer and of training](images/{folder.name}-cost.svg)\n",
        "Up and left is better; on the dashed stair no other method is both; bars are intervals. Times are multiples of those of the U-Net "
        "of 31 M parameters, "
        f"timed in turns with each method in one process: films of {study.size_px} px, an answer to one film with its sentence in fp32, "
        f"a step of {study.batch} films in {study.precision}, {study.threads} threads. Memory: of an answer, parameters included.\n",
        *(f"{says}: nothing is both quicker and better than {', '.join(best[cost])}.\n" for cost, says in COSTS.items()),
    ]
    heads = ["", "method", metric, "answer", "training", "M parameters", "GFLOP", "MiB"]
    lines = [heads, ["---"] * len(heads)]
    for i, row in enumerate(rows, 1):
        costs = [f"{row.ratios[cost]:.2f}" for cost in COSTS]
        size = [f"{row.params['total'] / 1e6:.2f}", f"{row.flops / 1e9:.2f}", f"{row.predict_bytes / 2**20:.0f}"]
        lines.append([str(i), names[row.name], f"{row.scores[metric]:.4f}", *costs, *size])
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join(says) + "\n" + table + f"\n\n```bash\n{study.command}\n```\n"
