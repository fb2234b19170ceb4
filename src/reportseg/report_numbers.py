"""The sections of report.html that compare scores: all of them, under changed sentences, against the twin, by subset.

Here each score has its name, its digits and its direction, so that every table says them alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .charts import Row, histogram, interval_plot
from .page import Html, cell, counted, el, figure, interval, join, minus, number, short_hash, side_by_side, table
from .schemas.metrics import ControlScores, Metrics, Scores, SubsetScores, VolumeScores
from .types import CaseScore

Differences = Mapping[str, tuple[float, float, float]]  # by score: value, lower, upper

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
NO_PROBABILITIES = "needs probabilities, and masks have none"
WHY_MISSING = {
    "ece": NO_PROBABILITIES,
    "ece_border": NO_PROBABILITIES,
    "presence_auroc": "needs a bundle with a trained presence head, and cases with and without a target",
    "absent_correct": "needs a case with an absent target, or a film that can be asked for its other side",
}


# ---------------------------------------------------------------- numbers


def value(name: str, scores: Scores) -> float | None:
    """The score of that name: a fraction, hd95 in its unit, or None where it could not be computed."""
    known: float | None = getattr(scores, name)
    return known


def label(name: str, metrics: Metrics) -> str:
    """The score's name for a reader, with its unit where it has one."""
    return f"{NAMES[name]}, {metrics.hd95_unit}" if name == "hd95" else NAMES[name]


def digits(name: str) -> int:
    """Decimals that a table shows."""
    return 2 if name == "hd95" else 4


def bounds(name: str, pair: tuple[float, float] | None) -> Html | None:
    """The 95 % interval (lower, upper) as text, one digit shorter than its score."""
    return None if pair is None else interval(pair, min(digits(name), 3))


def signed(name: str, difference: float, places: int | None = None) -> str:
    """A difference with its sign, as many `places` as the score's table has unless said otherwise."""
    return minus(f"{difference:+.{digits(name) if places is None else places}f}")


# ---------------------------------------------------------------- scores, controls, twin, subsets


def score_table(metrics: Metrics) -> Html:
    """Every score with its interval, its direction and what it is; a null one says why."""
    what = {
        "dice_pooled": "Overlap over all pixels of all cases together: large lesions weigh more.",
        "dice_mean": "Overlap of each case alone, then averaged: every case weighs the same.",
        "iou_pooled": "The pooled count as intersection over union; stricter than Dice.",
        "iou_mean": "Intersection over union of each case, then averaged.",
        "hd95": "95th percentile of the distance between the outlines, mean over cases.",
        "nsd": f"Share of the outlines within {metrics.nsd_tolerance:g} {metrics.hd95_unit} of each other, mean over cases.",
        "ece": "Gap between the stated probability and what is true, over all pixels.",
        "ece_border": "The same over the pixels within 10 px of a true border, where it is hardest.",
        "presence_auroc": "Whether the stated presence ranks prompts with a target above absent ones.",
        "absent_correct": f"Share of the {metrics.n_absent:,} absent prompts that were answered with an empty mask.",
    }
    rows = []
    for name in NAMES:
        known, pair = value(name, metrics), bounds(name, metrics.ci95.get(name))
        why = WHY_MISSING.get(name) if known is None else None
        rows.append(
            el(
                "tr",
                el("th", label(name, metrics), scope="row"),
                cell(number(known, digits(name))),
                cell(pair or (number(None) if known is None else el("span", "not drawn", class_="none"))),
                el("td", "lower" if name in LOWER_IS_BETTER else "higher", class_="soft"),
                el("td", what[name], el("span", f"Not told here: it {why}.", class_="why") if why else None, class_="says"),
            )
        )
    heads = ("Score", "Value", "95 % interval", "Better", "What it is")
    return table(heads, rows, "All scores", text={"Score", "Better", "What it is"})


def control_rows(metrics: Metrics) -> list[tuple[str, Scores]]:
    """(name, scores) of each control in the order of CONTROLS, the original among them though nobody asked; empty without controls."""
    known = list(CONTROLS)
    rows: dict[str, Scores] = {"original": metrics, **metrics.controls} if metrics.controls else {}
    return sorted(rows.items(), key=lambda row: [*known, row[0]].index(row[0]))


def control_table(metrics: Metrics) -> Html | None:
    """The same cases under each control, with what it loses to the original; None without controls."""
    if not metrics.controls:
        return None
    rows = []
    drops: dict[str, list[Row]] = {score: [] for score in DICE}
    for name, scores in control_rows(metrics):
        control = scores if isinstance(scores, ControlScores) else None
        differences: Differences = control.difference if control and name != "original" else {}
        n_cases = metrics.n_cases if control is None or control.n_cases is None else control.n_cases
        rows.append(_control_row(name, scores, n_cases, control.n_changed if control else 0, differences))
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


def _control_row(name: str, scores: Scores, n_cases: int, n_changed: int, differences: Differences) -> Html:
    says = el("span", CONTROLS[name], class_="under") if name in CONTROLS else None
    losses = []
    for score in DICE:
        loss = differences.get(score)
        losses.append(cell() if loss is None else cell(signed(score, loss[0]), bounds(score, loss[1:])))
    values = (cell(number(value(score, scores))) for score in FOUR)
    return el("tr", el("th", el("bdi", name), says, scope="row"), cell(f"{n_cases:,}"), cell(f"{n_changed:,}"), *values, *losses)


def twin_table(metrics: Metrics, cases: Sequence[CaseScore], twin_cases: Sequence[CaseScore]) -> Html | None:
    """This model beside its text-free twin, paired; without one, how to get it. None for masks of other code, which have no twin."""
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
        difference, own = differences[name], value(name, metrics)
        twin = None if own is None else own - difference[0]  # the twin scored the same cases
        shown = (number(own, digits(name)), number(twin, digits(name)), signed(name, difference[0]), bounds(name, difference[1:]))
        rows.append(el("tr", el("th", label(name, metrics), scope="row"), *map(cell, shown)))
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
        el("p", "Compared with ", twin_name, ", trained alike but with one constant sentence. ", el("strong", verdict(differences))),
        table(heads, rows, "This model and its text-free twin", text={"Score"}),
        side_by_side(plots + _gains(cases, twin_cases)),
        el("p", "What such a gain is worth depends on ", el("a", "where the sentence comes from", href="#caveat"), ".", class_="small"),
    )


def verdict(differences: Differences) -> str:
    """What the differences in Dice say about the text, in one sentence."""
    pairs = [differences[score][1:] for score in DICE if score in differences]
    if not pairs:
        return "Not told: with fewer than two patients no interval can be drawn."
    if all(low > 0 for low, _ in pairs):
        return "The text helped on these cases: the intervals of Dice lie above 0."
    if all(high < 0 for _, high in pairs):
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


def subset_table(metrics: Metrics) -> Html | None:
    """Each subset beside all cases; None where the manifest names none."""
    if not metrics.subsets:
        return None
    groups: list[tuple[str, Metrics | SubsetScores]] = [("all cases", metrics), *metrics.subsets.items()]
    rows, plots = [], []
    for name, group in groups:
        values = (cell(number(value(score, group), digits(score)), bounds(score, group.ci95.get(score))) for score in (*FOUR, "hd95"))
        rows.append(el("tr", el("th", el("bdi", name), scope="row"), cell(f"{group.n_cases:,}"), *values))
    for score in DICE:
        lines = [(name, own, *group.ci95.get(score, (None, None))) for name, group in groups if (own := value(score, group)) is not None]
        if lines:
            title = f"{NAMES[score]} by subset"
            plots.append(figure(title, "With the 95 % interval, where one was drawn.", interval_plot(lines, title)))
    heads = ("Subset", "Cases", *(NAMES[score] for score in FOUR), label("hd95", metrics))
    return join(table(heads, rows, "Scores by subset", text={"Subset"}), side_by_side(plots))


def volume_table(metrics: Metrics) -> Html | None:
    """Whole volumes, all and by organ; None where the cases are not slices of studies."""
    if not metrics.volumes:
        return None
    names = ("dice_mean", "dice_pooled", "hd95", "nsd", "volume_ml", "true_volume_ml", "volume_error_ml")

    def shown(score: str, group: VolumeScores) -> Html:
        places = 1 if score == "hd95" or score.endswith("_ml") else 3
        return cell(number(getattr(group, score), places), bounds(score, group.ci95.get(score)))

    rows = [
        el(
            "tr",
            el("th", el("bdi", name), scope="row"),
            cell(f"{group.n_volumes:,}"),
            *(shown(score, group) for score in names),
        )
        for name, group in metrics.volumes.items()
    ]
    unit = metrics.volume_hd95_unit or "px"
    heads = ("Volumes", "n", "Dice, mean", "Dice, pooled", f"HD95, {unit}", "NSD", "predicted, ml", "true, ml", "error, ml")
    return table(heads, rows, "Scores of volumes in three dimensions", text={"Volumes"})
