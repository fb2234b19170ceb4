"""The sections of report.html that show what lies behind the scores: pictures, distribution, each case, and the training's curves."""

from __future__ import annotations

import base64
import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .charts import histogram, line_plot, reliability, style
from .page import Child, Html, breakable, counted, el, facts, figure, join, minus, number, side_by_side, sort_cell, table
from .report_numbers import NAMES
from .schemas.metrics import Metrics
from .schemas.training import Curve, TrainingFile
from .types import CaseScore

MOST_ROWS = 300  # of the case table; cases.csv has all
DEV = {"dice_pooled": "Dice, pooled, on dev", "dice_mean": "Dice, mean, on dev", "n_films": "Films of dev", "nll": "NLL on dev",
       "nll_raw": "NLL on dev before the fit"}  # fmt: skip
FIRST = ("Loss", "Dice on dev")  # the curves that are seen at once; the others are folded


@dataclass(frozen=True)
class CasePicture:
    """A case to show. `overlay_png` is the film with the prediction in orange and the truth in blue, drawn by `io.png.overlay_rgb`."""

    kind: Literal["best", "median", "worst"]
    id: str
    sentence: str
    dice: float
    overlay_png: bytes


# ---------------------------------------------------------------- the cases


def distribution_plots(metrics: Metrics, cases: Sequence[CaseScore], calibration: Sequence[tuple[float, float, int]]) -> Html | None:
    """The histogram of Dice, and the calibration where there are pixels; None where there is neither.

    `calibration`: (mean confidence, observed frequency, pixels) per bin.
    """
    dice = [case.dice for case in cases if math.isfinite(case.dice)]
    plots = []
    if dice:
        low, _, high = statistics.quantiles(dice, n=4, method="inclusive") if len(dice) > 1 else dice * 3
        says = f"A quarter of the cases lies below {low:.3f}, a quarter above {high:.3f}; {counted(dice.count(0.0), 'case')} at 0."
        plots.append(figure("Dice of the cases", says, histogram(dice, "Dice of the cases", "Dice of a case")))
    if any(n > 0 for *_, n in calibration):
        says = join("Below the dashed diagonal it is too sure of a lesion, above it not sure enough. ECE ", number(metrics.ece), ".")
        plots.append(figure("Calibration", says, reliability(calibration, "Calibration")))
    return side_by_side(plots)


def picture_rows(figures: Sequence[CasePicture]) -> Html:
    """Best, median and worst cases, each kind a row; a sentence where films were left out."""
    if not figures:
        return el("p", "Left out: this page holds no films and no sentences that go with them (", el("code", "--no-images"), ").")
    legend = el(
        "ul",
        el("li", el("i", class_="swatch pred"), "prediction: orange veil and outline"),
        el("li", el("i", class_="swatch truth"), "truth: blue outline"),
        class_="key",
    )
    groups: list[Child] = []
    for kind in ("best", "median", "worst"):
        shown = [_picture(case) for case in figures if case.kind == kind]
        groups += [el("h3", kind.capitalize()), el("div", *shown, class_="pictures")] if shown else []
    return join(legend, *groups)


def _picture(case: CasePicture) -> Html:
    source = "data:image/png;base64," + base64.b64encode(case.overlay_png).decode("ascii")
    caption = el(
        "figcaption",
        el("p", "Dice ", el("b", number(case.dice, 3))),
        el("p", el("code", case.id, dir="auto")),
        el("p", case.sentence or el("span", "no sentence", class_="soft"), dir="auto", class_="sentence"),
    )
    return el("figure", el("img", src=source, alt=f"Film of {case.id} with prediction and truth"), caption)


def case_table(metrics: Metrics, cases: Sequence[CaseScore], texts: Mapping[str, str] | None) -> Html | None:
    """The cases of the lowest Dice first, at most MOST_ROWS, in a table that sorts; `texts` adds each sentence. None without cases."""
    if not cases:
        return None
    worst = sorted(cases, key=lambda case: (case.dice if math.isfinite(case.dice) else -1, case.id))[:MOST_ROWS]
    with_presence = any(case.presence is not None for case in worst)
    rows = []
    for case in worst:
        sentence = () if texts is None else (el("td", texts.get(case.id, ""), dir="auto", class_="says"),)
        scores = (sort_cell(case.dice, 3), sort_cell(case.iou, 3), sort_cell(case.hd95, 1), sort_cell(case.nsd, 3))
        areas = (sort_cell(case.tp + case.fn, 0), sort_cell(case.tp + case.fp, 0))
        presence = (sort_cell(case.presence, 2),) if with_presence else ()
        warnings = el("td", ", ".join(case.warnings), class_="codes")
        rows.append(
            el("tr", el("th", el("code", breakable(case.id), dir="auto"), scope="row"), *scores, *areas, *presence, *sentence, warnings)
        )
    heads = ["Case", "Dice", "IoU", f"HD95, {metrics.hd95_unit}", "NSD", "True px", "Pred. px", "Presence", "Sentence", "Warnings"]
    heads = [h for h in heads if (h != "Sentence" or texts is not None) and (h != "Presence" or with_presence)]
    means = (
        join(" What a warning means stands under ", el("a", "Warnings", href="#warnings"), ".") if any(c.warnings for c in worst) else None
    )
    says = f"All {counted(len(cases), 'case')}"
    if len(worst) < len(cases):
        says = f"The {len(worst):,} of {counted(len(cases), 'case')} with the lowest Dice"
    search = el("label", "Show only rows with ", el("input", type="search", autocomplete="off"))
    return join(
        el("p", f"{says}; a column's name sorts by it. ", el("code", "cases.csv"), " has all cases and columns.", means),
        el("p", search, el("span", role="status"), class_="filter", hidden=True),
        table(heads, rows, "Cases", text={"Case", "Sentence", "Warnings"}, sorted_by="Dice"),
    )


# ---------------------------------------------------------------- the training


def curve_plots(training: TrainingFile | None) -> Html | None:
    """How the weights came about: loss and dev Dice over the images seen, everything else that was logged folded away."""
    if training is None:
        return None
    panels: dict[str, dict[str, Curve]] = {title: {} for title in FIRST}
    placing = training.curves.get("placing")
    for name, curve in sorted(training.curves.items(), key=lambda item: _natural(item[0])):
        if curve and name != "placing":  # one value, from before the first film, of a loss of its own
            panels.setdefault(_panel(name), {})[name] = curve
    model = training.config.get("model")
    took = f"{training.seconds / 60:,.0f} min" if training.seconds >= 60 else f"{training.seconds:.0f} s"
    dev = ((DEV.get(name, f"{name} on dev"), number(score, 0 if name == "n_films" else 4)) for name, score in training.dev.items())
    folded = [_curves(title, panel) for title, panel in panels.items() if title not in FIRST]
    return join(
        facts(
            [
                ("Model", str(model["name"]) if isinstance(model, dict) and "name" in model else None),
                ("Sentences placed first", join("to a loss of ", number(placing[-1][1], 3)) if placing else None),
                ("Images seen", f"{training.images:,}"),
                ("Steps", f"{training.steps:,}"),
                ("Time", f"{took} on {training.device}, {training.precision}"),
                ("Schedule", "cut short by its time limit" if training.truncated else "run to its end"),
                *dev,
            ]
        ),
        side_by_side([_curves(title, panels[title]) for title in FIRST if panels[title]]),
        el("details", el("summary", "More curves: " + ", ".join(t for t in panels if t not in FIRST)), side_by_side(folded))
        if folded
        else None,
    )


def _panel(name: str) -> str:
    """Curves of one scale share a plot."""
    if name in ("total", "loss"):
        return "Loss"
    if name.startswith(("dev_dice", "dev_iou")):
        return "Dice on dev"
    if name.startswith("dev_auroc"):
        return "AUROC of the similarity maps on dev"
    other = {"lr": "Learning rate", "norm": "Gradient norm", "images_per_s": "Images a second"}
    return name if name.startswith("dev_") else other.get(name, "Parts of the loss")


def _natural(name: str) -> tuple[bool, str, int]:
    """similarity_8 before similarity_16, names without a number last: the styles of a plot then go with the strides."""
    digits = re.search(r"[0-9]*$", name)[0][:9]  # type: ignore[index]
    return not digits, name.removesuffix(digits), int(digits or 0)


def _curves(title: str, panel: Mapping[str, Curve]) -> Html:
    names = {name: name.removeprefix("dev_") for name in panel}
    legend = (
        el("li", swatch(style(i)), f"{NAMES.get(names[name], names[name])} ", el("b", _last(curve)))
        for i, (name, curve) in enumerate(panel.items())
    )
    return figure(title, "The key has the last values.", line_plot(panel, title, "images seen"), el("ul", *legend, class_="key"))


def _last(curve: Curve) -> str:
    value = curve[-1][1]
    return minus(f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}")


def swatch(classes: str) -> Html:
    """A piece of the line that has these classes, for a key."""
    line = el("line", class_=f"curve {classes}", x1=0, x2=26, y1=5, y2=5)
    return el("svg", line, class_="swatch", viewBox="0 0 26 10", aria_hidden="true")
