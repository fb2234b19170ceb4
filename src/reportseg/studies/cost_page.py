"""cost.html: what each model costs as multiples of the U-Net's, and what it gives for that."""

from __future__ import annotations

from pathlib import Path

from ..charts import Point, front_of, point_plot
from ..limits import atomic_write
from ..page import Child, Html, cell, el, figure, join, number, sectioned, side_by_side, table
from ..report_numbers import NAMES
from ..schemas.studies import CostRow, CostStudy
from .pages import SPOKEN, bullets, header, row_head, score_cell, warnings

RATIOS = {
    "params": "Parameters",
    "trainable": "Trainable",
    "flops": "Operations",
    "predict_bytes": "Memory, answer",
    "train_bytes": "Memory, training",
    "latency_1_s": "Time, batch 1",
    "latency_8_s": "Time, batch 8",
    "train_time": "Training time",
}


def write_page(path: Path, study: CostStudy) -> None:
    """Writes cost.html atomically."""
    sections: dict[str, tuple[str, Html | None]] = {
        "pareto": ("Score for cost", _pareto(study)),
        "warnings": ("Warnings", warnings(study.warnings)),
        "ratios": ("As multiples of the U-Net", _ratios(study)),
        "absolute": ("On this machine", _absolute(study)),
        "method": ("How the numbers were made", _method(study)),
    }
    title = "What each model costs"
    threads = "one thread" if study.threads == 1 else f"{study.threads} threads"
    pairs: list[tuple[str, Child]] = [
        ("Films", f"{study.size_px} x {study.size_px} px"),
        ("Training batch", str(study.batch)),
        ("Computed on", f"{study.device}, {threads}" if study.device == "cpu" else study.device),
        ("Precision of training", study.precision),
        ("Scores", f"{NAMES[study.metric]} on {study.split}" if study.metric else None),
    ]
    atomic_write(path, sectioned(f"{title}: reportseg study", header(title, answer(study), pairs, study.command), sections))


def name(row: CostRow) -> str:
    """What a row is called: an answer with flips is two."""
    return f"{row.name}, with flips" if row.flips else row.name


def answer(study: CostStudy) -> str | None:
    """Whom no other score beats at no more time, by the figures alone: whether a lead is more than chance is not asked here. None without
    scores.
    """
    scored = _scored(study)
    if len(scored) < 2:
        return None
    best = [name(scored[i]) for i in front_of([(row.ratios["latency_1_s"], row.scores[study.metric or ""]) for row in scored])]
    score, caveat = SPOKEN[study.metric or ""], "Whether a difference of scores is more than chance is for `reportseg compare` to tell."
    if len(best) == 1:
        return f"No other {score} is higher than that of {best[0]}, and no other answer quicker. {caveat}"
    return f"No other model has both a higher {score} and a quicker answer than these: {', '.join(best)}. {caveat}"


def _scored(study: CostStudy) -> list[CostRow]:
    return [row for row in study.rows if study.metric is not None and study.metric in row.scores]


def _pareto(study: CostStudy) -> Html | None:
    scored = _scored(study)
    if not scored or study.metric is None:
        return None
    plots = []
    for label, costs in (
        ("Time of an answer at batch 1, U-Net = 1", [row.ratios["latency_1_s"] for row in scored]),
        ("Training time of an image, U-Net = 1", [row.ratios["train_time"] for row in scored]),
        ("Parameters, millions", [row.params["total"] / 1e6 for row in scored]),
        ("Operations of an answer, GFLOP", [row.flops / 1e9 for row in scored]),
    ):
        points = [
            Point(name(row), x, row.scores[study.metric], *row.ci95.get(study.metric, (None, None)))
            for row, x in zip(scored, costs, strict=True)
        ]
        title = f"{NAMES[study.metric]} over {label.partition(',')[0].lower()}"
        says = "Upper left is better; the dashed stair is the Pareto front. Bars: 95 % interval."
        plots.append(figure(title, says, point_plot(points, title, f"{label}, log scale", NAMES[study.metric], log=True, front=True)))
    key = el("ol", *(el("li", el("bdi", name(row))) for row in scored), class_="numbers")
    return join(key, side_by_side(plots))


def _ratios(study: CostStudy) -> Html:
    rows = []
    for row in study.rows:
        score = [score_cell(row.scores.get(study.metric), row.ci95.get(study.metric))] if study.metric else []
        rows.append(el("tr", row_head(name(row), row.model), *(cell(_multiple(row.ratios.get(key))) for key in RATIOS), *score))
    heads = ("Model", *RATIOS.values(), *([NAMES[study.metric]] if study.metric else []))
    return join(
        el("p", "Below 1 is less than the U-Net of 31 million parameters in the first row takes; times were taken in turns with it."),
        table(heads, rows, "Costs as multiples of the U-Net's", text={"Model"}),
    )


def _multiple(ratio: float | None) -> Html:
    """Two decimals, three where two would leave one digit."""
    return number(ratio, 2 if ratio is None or ratio >= 0.1 else 3)


def _absolute(study: CostStudy) -> Html:
    rows = []
    for row in study.rows:
        params = (number(row.params[key] / 1e6, 2) for key in ("total", "trainable", "frozen"))
        memory = (number(value / 2**20, 0) for value in (row.predict_bytes, row.train_bytes))
        times = (number(1000 * value, 1) for value in (row.latency_1_s, row.latency_8_s))
        values = (*params, number(row.flops / 1e9, 2), *memory, *times, number(row.train_images_per_s, 1))
        rows.append(el("tr", row_head(name(row), row.model), *map(cell, values)))
    heads = (
        "Model", "Parameters, M", "Trainable, M", "Frozen, M", "GFLOP an answer", "Answer, MiB", f"Training at {study.batch}, MiB",
        "Batch 1, ms", "Batch 8, ms", "Training, images/s",
    )  # fmt: skip
    return table(heads, rows, "Costs on this machine", text={"Model"})


def _method(study: CostStudy) -> Html:
    items: list[Child] = [
        "Operations: of matrix products, convolutions and attention in one answer to one film with one sentence, a multiply and an add "
        "counted as two.",
        "Every answer is to a sentence that was not asked before, so it encodes it. A frozen text tower has read what is constant, the "
        "statements of the knowledge bank and the one sentence of a text-free twin, and in training the sentences of the data set.",
        "With flips an answer is two, to the film, and to the mirrored film under swapped side words. Where a score was made with flips, "
        "or the bundle or configuration without a score answers so, operations, memory and times of an answer are of both.",
        "Memory: what the largest moment takes beyond what the libraries hold, parameters included, each in a process of its own. What "
        "loading took for a moment is left out where the system can forget it (Linux, CUDA).",
        "Times: medians; an answer in fp32, a training step forwards, backwards and with the optimiser. The U-Net's own rates are "
        "those of its own process, so divide ratios, not rates.",
        "Intervals of scores: bootstrap of patients. Where films have no known patient they are clusters of their own, and the intervals a "
        "lower bound.",
        "Films, sentences and weights are made up. Towers of a configuration are laid out as published and trained as it says; no weights "
        "are fetched.",
    ]
    return bullets(items)
