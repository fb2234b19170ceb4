"""report.html: one evaluation as one file that needs nothing else, no network and no folder beside it, and that prints.

It is for a reader who was not there: each number says what it is, and the page ends with where the sentences and the numbers come from.
Ids and sentences are the user's and may be hostile; `page` escapes them. Patients are not named. The same input gives the same bytes.
"""

from __future__ import annotations

import base64
import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .charts import Row, histogram, interval_plot, line_plot, reliability, style
from .errors import WARNINGS
from .limits import atomic_write
from .page import (
    Child,
    Html,
    cell,
    counted,
    el,
    facts,
    figure,
    interval,
    join,
    minus,
    number,
    page,
    short_hash,
    side_by_side,
    sort_cell,
    table,
)
from .schemas import Curve, Metrics, Scores, SubsetScores, TrainingFile
from .types import INTENDED_USE, CaseScore

MOST_ROWS = 300  # of the case table; cases.csv has all
FOUR = ("dice_pooled", "dice_mean", "iou_pooled", "iou_mean")
DICE = ("dice_pooled", "dice_mean")
NAMES = {
    "dice_pooled": "Dice, pooled",
    "dice_mean": "Dice, mean",
    "iou_pooled": "IoU, pooled",
    "iou_mean": "IoU, mean",
    "hd95": "HD95",
    "nsd": "NSD",
    "ece": "ECE",
    "ece_border": "ECE at borders",
    "presence_auroc": "Presence AUROC",
    "absent_correct": "Absent left empty",
}
LOWER_IS_BETTER = {"hd95", "ece", "ece_border"}
CONTROLS = {
    "original": "the sentence as it was written",
    "empty": "no sentence at all",
    "shuffled": "the sentence of another case, never an equal one; mean of several permutations",
    "swapped-side": "left and right exchanged; only cases whose zones change",
}
CAVEAT = """The sentence tells where the lesion is, and it may have been written with the mask in view. What the text adds here is therefore
not the gain to expect from a report that was written before."""
NO_PROBABILITIES = "needs probabilities, and masks have none"
WHY_MISSING = {
    "ece": NO_PROBABILITIES,
    "ece_border": NO_PROBABILITIES,
    "presence_auroc": "needs a bundle with a trained presence head, and cases with and without a target",
    "absent_correct": "no case here has an absent target",
}


@dataclass(frozen=True)
class CasePicture:
    """A case to show. `overlay_png` is the film with the prediction in orange and the truth in blue, drawn by `io.png.overlay_rgb`."""

    kind: Literal["best", "median", "worst"]
    id: str
    sentence: str
    dice: float
    overlay_png: bytes


def write_report(
    path: str | Path,
    metrics: Metrics,
    cases: Sequence[CaseScore],
    *,
    training: TrainingFile | None = None,
    calibration: Sequence[tuple[float, float, int]] = (),
    figures: Sequence[CasePicture] = (),
    twin_cases: Sequence[CaseScore] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Writes report.html atomically. What is not given leaves its section out, or the section says how to get it.

    `calibration` holds (mean confidence, observed frequency, pixels) per bin, `twin_cases` the twin's scores of the same cases, `texts` the
    sentence of each id for the case table; None keeps sentences out of it. InputError unwritable.
    """
    sections: dict[str, tuple[str, Html | None]] = {
        "scores": ("Scores", _scores(metrics)),
        "controls": ("Does it read the sentence?", _controls(metrics)),
        "text": ("What the text bought", _twin(metrics, cases, twin_cases or ())),
        "subsets": ("Subsets", _subsets(metrics)),
        "training": ("Learning curves", _training(training)),
        "distribution": ("Distribution and calibration", _distribution(metrics, cases, calibration)),
        "pictures": ("Best, median and worst cases", _pictures(figures)),
        "cases": ("Cases", _cases(metrics, cases, texts)),
        "warnings": ("Warnings", _warnings(metrics, cases, training)),
        "caveat": ("Where the sentence comes from", el("p", CAVEAT, class_="note")),
        "method": ("How the numbers were made", _method(metrics)),
    }
    there = [(key, heading, body) for key, (heading, body) in sections.items() if body is not None]
    links = (el("a", heading, href=f"#{key}") for key, heading, _ in there)
    main = (el("section", el("h2", heading), body, id=key) for key, heading, body in there)
    title = f"{_subject(metrics, training)} on {metrics.split}: reportseg evaluation"
    nav = el("nav", *links, aria_label="Sections")
    atomic_write(path, page(title, _header(metrics, training), nav, el("main", *main), el("footer", el("p", INTENDED_USE))))


def _subject(metrics: Metrics, training: TrainingFile | None) -> str:
    """What was scored: the run's name, else the bundle."""
    name = training.config.get("name") if training else None
    return str(name) if name else f"Bundle {metrics.bundle_sha256[:12]}" if metrics.bundle_sha256 else "Masks made by other code"


def _header(metrics: Metrics, training: TrainingFile | None) -> Html:
    bundles = [short_hash(sha) for sha in (metrics.bundle_sha256, *metrics.ensemble) if sha]
    return el(
        "header",
        el("p", "reportseg evaluation", class_="kicker"),
        el("h1", el("bdi", _subject(metrics, training)), " on ", el("bdi", metrics.split)),
        facts(
            [
                ("Bundle", join(*(join(bundle, " ") for bundle in bundles)) or "none: masks made by other code"),
                ("Split", metrics.split),
                ("Cases", f"{counted(metrics.n_cases, 'case')} of {counted(metrics.n_patients, 'patient')}"),
                ("Decision rule", _decision(metrics)),
                ("Text", "constant: a text-free twin" if metrics.text == "constant" else join("column ", el("code", metrics.text))),
                ("Seed", str(metrics.seed) if metrics.bundle_sha256 else None),
            ]
        ),
        el("pre", el("code", metrics.command), tabindex="0", role="region", aria_label="The command that made this page"),
        el("p", INTENDED_USE, class_="use"),
    )


def _decision(metrics: Metrics) -> str:
    decision = metrics.decision
    if decision is None:
        return "none: the masks came as they are"
    rule = f"cut at {decision.threshold:.2f}" if decision.rule == "fixed" else "expected Dice of each film"
    return f"{rule}, temperature {decision.temperature:.2f}"


# ---------------------------------------------------------------- numbers


def _digits(name: str) -> int:
    return 2 if name == "hd95" else 4


def _label(name: str, metrics: Metrics) -> str:
    return f"{NAMES[name]}, {metrics.hd95_unit}" if name == "hd95" else NAMES[name]


def _value(name: str, scores: Scores) -> float | None:
    value: float | None = getattr(scores, name)
    return value


def _bounds(name: str, pair: tuple[float, float] | None) -> Html | None:
    return None if pair is None else interval(pair, min(_digits(name), 3))


def _signed(name: str, value: float) -> str:
    return minus(f"{value:+.{_digits(name)}f}")


# ---------------------------------------------------------------- scores, controls, twin, subsets


def _scores(metrics: Metrics) -> Html:
    what = {
        "dice_pooled": "Overlap over all pixels of all cases together: large lesions weigh more.",
        "dice_mean": "Overlap of each case alone, then averaged: every case weighs the same.",
        "iou_pooled": "The pooled count as intersection over union; stricter than Dice.",
        "iou_mean": "Intersection over union of each case, then averaged.",
        "hd95": "95th percentile of the distance between the outlines, mean over cases.",
        "nsd": f"Share of the outlines within {metrics.nsd_tolerance:g} {metrics.hd95_unit} of each other, mean over cases.",
        "ece": "Gap between the stated probability and what is true, over all pixels.",
        "ece_border": "The same over the pixels within 10 px of a true border, where it is hardest.",
        "presence_auroc": "Whether the stated presence ranks present targets above absent ones.",
        "absent_correct": "Share of absent targets that were answered with an empty mask.",
    }
    cards, rows = [], []
    for name in FOUR:
        bounds = _bounds(name, metrics.ci95.get(name))
        value = el("p", number(_value(name, metrics), 3), class_="big")
        below = el("p", join("95 % interval ", bounds) if bounds else "no interval", class_="bounds")
        cards.append(el("div", el("h3", NAMES[name]), value, below, el("p", what[name]), class_="card"))
    for name in NAMES:
        rows.append(
            el(
                "tr",
                el("th", _label(name, metrics), scope="row"),
                cell(number(_value(name, metrics), _digits(name), WHY_MISSING.get(name, "not available"))),
                cell(_bounds(name, metrics.ci95.get(name)) or number(None, why="no interval was drawn")),
                el("td", "lower" if name in LOWER_IS_BETTER else "higher", class_="soft"),
                el("td", what[name], class_="says"),
            )
        )
    heads = ("Score", "Value", "95 % interval", "Better", "What it is")
    return join(el("div", *cards, class_="cards"), table(heads, rows, "All scores", text={"Score", "Better", "What it is"}))


def _controls(metrics: Metrics) -> Html | None:
    if not metrics.controls:
        return None
    rows = [] if "original" in metrics.controls else [_control_row("original", metrics, metrics.n_cases, 0, {})]
    known = list(CONTROLS)
    drops: dict[str, list[Row]] = {score: [] for score in DICE}
    for name in sorted(metrics.controls, key=lambda name: [*known, name].index(name)):
        control = metrics.controls[name]
        n_cases = metrics.n_cases if control.n_cases is None else control.n_cases
        differences = {} if name == "original" else control.difference
        rows.append(_control_row(name, control, n_cases, control.n_changed, differences))
        for score in DICE:
            if score in differences:
                drops[score].append((name, *differences[score]))
    plots = [
        figure(title, "Right of the dashed line the true sentence is better.", interval_plot(drops[score], title, differences=True))
        for score in DICE
        if drops[score] and (title := f"{NAMES[score]}: original minus control")
    ]
    heads = ("Sentence", "Cases", "Changed", *(NAMES[score] for score in FOUR), "Loss, pooled", "Loss, mean")
    return join(
        el("p", "The same cases again under a changed sentence. A model that ignores the text loses nothing; one that reads it loses."),
        table(heads, rows, "Scores under changed sentences", text={"Sentence"}),
        el(
            "p",
            "Loss is Dice of the original minus Dice of the control, paired: the same cases, the same draws of patients.",
            class_="small",
        ),
        side_by_side(plots),
    )


def _control_row(name: str, scores: Scores, n_cases: int, n_changed: int, differences: Mapping[str, tuple[float, float, float]]) -> Html:
    says = el("span", CONTROLS[name], class_="under") if name in CONTROLS else None
    losses = []
    for score in DICE:
        value, *pair = differences.get(score, (None, 0.0, 0.0))
        losses.append(cell() if value is None else cell(_signed(score, value), _bounds(score, (pair[0], pair[1]))))
    values = (cell(number(_value(score, scores))) for score in FOUR)
    return el("tr", el("th", el("bdi", name), says, scope="row"), cell(f"{n_cases:,}"), cell(f"{n_changed:,}"), *values, *losses)


def _twin(metrics: Metrics, cases: Sequence[CaseScore], twin_cases: Sequence[CaseScore]) -> Html | None:
    if metrics.text == "constant":
        return el("p", "This is a text-free twin: trained and scored with one constant sentence, it can read nothing from a text.")
    if metrics.twin is None:
        if metrics.bundle_sha256 is None:
            return None
        how = ("Not measured. Train the same configuration with ", el("code", "-s data.text=constant"), ", evaluate that twin on this ")
        return el(
            "p", *how, "split, and evaluate this bundle again with ", el("code", "--twin DIR"), ", the folder of the twin's evaluation."
        )
    differences = metrics.twin.difference
    rows, lines = [], []
    for name in (name for name in NAMES if name in differences):
        difference, value = differences[name], _value(name, metrics)
        twin = None if value is None else value - difference[0]  # the twin scored the same cases
        shown = (number(value, _digits(name)), number(twin, _digits(name)), _signed(name, difference[0]), _bounds(name, difference[1:]))
        rows.append(el("tr", el("th", _label(name, metrics), scope="row"), *map(cell, shown)))
        if name in FOUR:
            lines.append((NAMES[name], *difference))
    plots = []
    if lines:
        title = "This model minus its twin"
        plots.append(figure(title, "Right of the dashed line the text helped.", interval_plot(lines, title, differences=True)))
    sha = metrics.twin.bundle_sha256
    twin_name = join("its twin ", short_hash(sha)) if sha else "its twin"
    heads = ("Score", "This model", "Text-free twin", "Difference", "95 % interval")
    return join(
        el("p", "Compared with ", twin_name, ", trained alike but with one constant sentence. ", el("strong", _verdict(differences))),
        table(heads, rows, "This model and its text-free twin", text={"Score"}),
        side_by_side(plots + _gains(cases, twin_cases)),
        el("p", "What such a gain is worth depends on ", el("a", "where the sentence comes from", href="#caveat"), ".", class_="small"),
    )


def _verdict(differences: Mapping[str, tuple[float, float, float]]) -> str:
    bounds = [differences[score][1:] for score in DICE if score in differences]
    if bounds and all(low > 0 for low, _ in bounds):
        return "The text helped on these cases: the intervals of Dice lie above 0."
    if bounds and all(high < 0 for _, high in bounds):
        return "The text did harm on these cases: the intervals of Dice lie below 0."
    return "Undecided: an interval of Dice contains 0."


def _gains(cases: Sequence[CaseScore], twin_cases: Sequence[CaseScore]) -> list[Html]:
    """The histogram of what each case gained over the twin; none where no case is in both."""
    twin = {case.id: case.dice for case in twin_cases}
    gains = [gain for case in cases if case.id in twin and math.isfinite(gain := case.dice - twin[case.id])]
    if not gains:
        return []
    better, worse = sum(gain > 1e-9 for gain in gains), sum(gain < -1e-9 for gain in gains)
    reach = min(1.0, max(0.1, math.ceil(max(map(abs, gains)) * 10 - 1e-9) / 10))
    title, axis = "Gain per case", "Dice of this model minus the twin's"
    says = f"This model is better on {better:,} and worse on {worse:,} of {counted(len(gains), 'case')}."
    return [figure(title, says, histogram(gains, title, axis, lo=-reach, hi=reach, bins=40))]


def _subsets(metrics: Metrics) -> Html | None:
    if not metrics.subsets:
        return None
    groups: list[tuple[str, Metrics | SubsetScores]] = [("all cases", metrics), *metrics.subsets.items()]
    rows, plots = [], []
    for name, group in groups:
        values = (cell(number(_value(score, group), _digits(score)), _bounds(score, group.ci95.get(score))) for score in (*FOUR, "hd95"))
        rows.append(el("tr", el("th", el("bdi", name), scope="row"), cell(f"{group.n_cases:,}"), *values))
    for score in DICE:
        lines = [(name, v, *group.ci95.get(score, (None, None))) for name, group in groups if (v := _value(score, group)) is not None]
        if lines:
            title = f"{NAMES[score]} by subset"
            plots.append(figure(title, "With the 95 % interval, where one was drawn.", interval_plot(lines, title)))
    heads = ("Subset", "Cases", *(NAMES[score] for score in FOUR), _label("hd95", metrics))
    return join(table(heads, rows, "Scores by subset", text={"Subset"}), side_by_side(plots))


# ---------------------------------------------------------------- training, distribution, pictures, cases


def _training(training: TrainingFile | None) -> Html | None:
    if training is None:
        return None
    panels: dict[str, dict[str, Curve]] = {"Loss": {}, "Overlap": {}}
    for name, curve in training.curves.items():
        if curve:
            panels.setdefault(_panel(name), {})[name] = curve
    plots = []
    for title, panel in panels.items():
        if panel:
            legend = (el("li", _swatch(style(i)), f"{name} ", el("b", _last(curve))) for i, (name, curve) in enumerate(panel.items()))
            plots.append(figure(title, None, line_plot(panel, title, "images seen"), el("ul", *legend, class_="key")))
    model = training.config.get("model")
    took = f"{training.seconds / 60:,.0f} min" if training.seconds >= 60 else f"{training.seconds:.0f} s"
    return join(
        facts(
            [
                ("Model", str(model["name"]) if isinstance(model, dict) and "name" in model else None),
                ("Images seen", f"{training.images:,}"),
                ("Steps", f"{training.steps:,}"),
                ("Time", f"{took} on {training.device}, {training.precision}"),
                ("Schedule", "cut short by its time limit" if training.truncated else "run to its end"),
                *((f"dev {name}", number(value)) for name, value in training.dev.items()),
            ]
        ),
        side_by_side(plots),
    )


def _panel(name: str) -> str:
    """Curves of one scale share a plot."""
    low = name.lower()
    if "loss" in low:
        return "Loss"
    if "dice" in low or "iou" in low:
        return "Overlap"
    return "AUROC" if "auroc" in low else {"lr": "Learning rate"}.get(low, name)


def _last(curve: Curve) -> str:
    value = curve[-1][1]
    return minus(f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}")


def _swatch(classes: str) -> Html:
    line = el("line", class_=f"curve {classes}", x1=0, x2=26, y1=5, y2=5)
    return el("svg", line, class_="swatch", viewBox="0 0 26 10", aria_hidden="true")


def _distribution(metrics: Metrics, cases: Sequence[CaseScore], calibration: Sequence[tuple[float, float, int]]) -> Html | None:
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


def _pictures(figures: Sequence[CasePicture]) -> Html:
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


def _cases(metrics: Metrics, cases: Sequence[CaseScore], texts: Mapping[str, str] | None) -> Html | None:
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
        rows.append(el("tr", el("th", el("code", case.id, dir="auto"), scope="row"), *sentence, *scores, *areas, *presence, warnings))
    heads = ["Case", "Sentence", "Dice", "IoU", f"HD95, {metrics.hd95_unit}", "NSD", "True px", "Pred. px", "Presence", "Warnings"]
    heads = [h for h in heads if (h != "Sentence" or texts is not None) and (h != "Presence" or with_presence)]
    says = f"All {counted(len(cases), 'case')}"
    if len(worst) < len(cases):
        says = f"The {len(worst):,} of {counted(len(cases), 'case')} with the lowest Dice"
    search = el("label", "Show only rows with ", el("input", type="search", autocomplete="off"))
    return join(
        el("p", f"{says}; a column's name sorts by it. ", el("code", "cases.csv"), " has all cases and columns."),
        el("p", search, el("span", role="status"), class_="filter", hidden=True),
        table(heads, rows, "Cases", text={"Case", "Sentence", "Warnings"}, sorted_by="Dice"),
    )


# ---------------------------------------------------------------- what a reader must know


def _warnings(metrics: Metrics, cases: Sequence[CaseScore], training: TrainingFile | None) -> Html | None:
    items: list[Child] = list(metrics.warnings)
    if metrics.counts.failed:
        items.append(f"{counted(metrics.counts.failed, 'case')} could not be read and scored as an empty prediction.")
    if training and training.truncated:
        items.append("The training was cut short by its time limit: the learning rate never reached zero.")
    for code, n in sorted(Counter(code for case in cases for code in set(case.warnings)).items()):
        items.append(join(f"{counted(n, 'case')}: ", el("code", code), f", {WARNINGS[code]}." if code in WARNINGS else None))
    return el("ul", *(el("li", item) for item in items), class_="warnings") if items else None


def _method(metrics: Metrics) -> Html:
    counts, ci = metrics.counts, metrics.ci
    items: list[Child] = [
        "Pooled scores count the pixels of all cases together, mean scores are taken per case and averaged. The same masks give different "
        "figures, so compare like with like."
    ]
    if metrics.decision:
        items.append("Probabilities are brought to the grid of the true mask before they are cut.")
    if ci:
        items.append(
            f"Intervals: {ci.method}, {ci.n_boot:,} draws of {counted(ci.clusters, 'cluster')}, 2.5th to 97.5th percentile. Pooled scores "
            "are summed anew in each draw, and both arms of a difference see the same draws."
        )
    if ci and ci.without_patient:
        items.append(
            f"{counted(ci.without_patient, 'film')} without a patient: each is its own cluster. Some may be of one patient, so the width "
            "of the intervals is a lower bound."
        )
    items.append(
        f"Empty masks. {metrics.empty_policy} Here: {counts.both_empty:,} both empty, {counts.truth_only:,} with a target and an empty "
        f"prediction, {counts.pred_only:,} with a prediction and no target, {counts.failed:,} failed."
    )
    if metrics.ece is not None:
        items.append("ECE: 15 bins of equal width, over pixels.")
    if metrics.images_per_s:
        items.append(f"Prediction ran at {metrics.images_per_s:,.1f} images a second, reading and scoring not counted.")
    hashes = {
        "Bundle": metrics.bundle_sha256,
        "Configuration": metrics.config_sha256,
        "Twin": metrics.twin.bundle_sha256 if metrics.twin else None,
        "Cases": metrics.cases_sha256,
    }
    rows = (el("div", el("dt", name), el("dd", el("code", sha))) for name, sha in hashes.items() if sha)
    return join(el("ul", *(el("li", item) for item in items)), el("dl", *rows, class_="hashes"))
