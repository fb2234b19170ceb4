"""report.html: one evaluation as one file that needs nothing else, no network and no folder beside it, and that prints.

It is for a reader who was not there. The first screen tells what was scored, the headline figures, whether the text is read, what it
bought, and where the sentences come from; each number says what it is, and the page ends with how the numbers were made.
Ids and sentences are the user's and may be hostile; `page` escapes them. Patients are not named. The same input gives the same bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from .charts import bar_plot
from .errors import WARNINGS
from .limits import atomic_write
from .page import Child, Html, command_line, counted, el, facts, join, number, sectioned, short_hash
from .report_cases import CasePicture, case_table, curve_plots, distribution_plots, picture_rows
from .report_numbers import (
    DICE,
    FOUR,
    NAMES,
    bounds,
    control_rows,
    control_table,
    score_table,
    signed,
    subset_table,
    twin_table,
    value,
    verdict,
    volume_table,
)
from .report_uncertainty import uncertainty_section
from .schemas.metrics import Metrics
from .schemas.training import TrainingFile
from .types import INTENDED_USE, CaseScore

CAVEAT = """The sentence tells where the lesion is, and it may have been written with the mask in view. What the text adds here is therefore
not the gain to expect from a report that was written before."""


def write_report(
    path: str | Path,
    metrics: Metrics,
    cases: Sequence[CaseScore],
    *,
    training: TrainingFile | None = None,
    calibration: Sequence[tuple[float, float, int]] = (),
    raw: Sequence[tuple[float, float, int]] = (),
    figures: Sequence[CasePicture] = (),
    twin_cases: Sequence[CaseScore] | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Writes report.html atomically. What is not given leaves its section out, or the section says how to get it.

    `calibration` holds (mean confidence, observed frequency, pixels) per bin, `raw` the same at temperature 1, `twin_cases` the twin's
    scores of the same cases, `texts` the sentence of each id for the case table; None keeps sentences out of it. InputError unwritable.
    """
    sections: dict[str, tuple[str, Html | None]] = {
        "warnings": ("Warnings", _warnings(metrics, cases, training)),
        "scores": ("Scores", score_table(metrics)),
        "text": ("What the text bought", twin_table(metrics, cases, twin_cases or ())),
        "controls": ("Controls", control_table(metrics)),
        "volumes": ("Volumes", volume_table(metrics)),
        "subsets": ("Subsets", subset_table(metrics)),
        "pictures": ("Pictures", picture_rows(figures)),
        "distribution": ("Distribution", distribution_plots(metrics, cases, calibration)),
        "uncertainty": ("Uncertainty", uncertainty_section(metrics, cases, raw)),
        "cases": ("Cases", case_table(metrics, cases, texts)),
        "training": ("Training", curve_plots(training)),
        "method": ("Method", _method(metrics)),
    }
    title = f"{_subject(metrics, training)} on {metrics.split}: reportseg evaluation"
    summary = _summary(metrics, training, [key for key, (_, body) in sections.items() if body is not None])
    atomic_write(path, sectioned(title, summary, sections))


# ---------------------------------------------------------------- the first screen


def _subject(metrics: Metrics, training: TrainingFile | None) -> str:
    """What was scored: the run's name, else the bundle."""
    name = training.config.get("name") if training else None
    return str(name) if name else f"Bundle {metrics.bundle_sha256[:12]}" if metrics.bundle_sha256 else "Masks made by other code"


def _summary(metrics: Metrics, training: TrainingFile | None, sections: Sequence[str]) -> Html:
    bundles = [short_hash(sha) for sha in (metrics.bundle_sha256, *metrics.ensemble) if sha]
    cards = []
    for name in FOUR:
        pair = bounds(name, metrics.ci95.get(name))
        shown = el("p", number(value(name, metrics), 3), class_="big")
        below = el("p", join("95 % interval ", pair) if pair else "no interval", class_="bounds")
        cards.append(el("div", el("h2", NAMES[name]), shown, below, class_="card"))
    panels = [panel for panel in (_bought(metrics, sections), _read(metrics)) if panel]
    return el(
        "header",
        el("h1", el("bdi", _subject(metrics, training)), " on ", el("bdi", metrics.split)),
        el("p", INTENDED_USE, class_="use"),
        facts(
            [
                ("Bundle", join(*(join(bundle, " ") for bundle in bundles)) or "none: masks made by other code"),
                ("Split", metrics.split),
                ("Cases", f"{counted(metrics.n_cases, 'case')} of {_patients(metrics)}"),
                ("Decision rule", _decision(metrics)),
                ("Text", "constant: a text-free twin" if metrics.text == "constant" else join("column ", el("code", metrics.text))),
                ("Seed", str(metrics.seed) if metrics.bundle_sha256 else None),
            ]
        ),
        el("div", *cards, class_="cards"),
        el("div", *panels, class_="panels") if panels else None,
        el("p", el("strong", "Where the sentence comes from. "), CAVEAT, class_="note", id="caveat"),
    )


def _patients(metrics: Metrics) -> str:
    """How many patients, as far as the manifest names them."""
    if metrics.ci and metrics.ci.without_patient:
        known = counted(metrics.n_patients, "known patient")
        return f"{known}, {counted(metrics.ci.without_patient, 'film')} without" if metrics.n_patients else "patients who are not named"
    return counted(metrics.n_patients, "patient")


def _decision(metrics: Metrics) -> str:
    decision = metrics.decision
    if decision is None:
        return "none: the masks came as they are"
    rule = f"cut at {decision.threshold:.2f}" if decision.rule == "fixed" else "expected Dice of each film"
    return f"{rule}, temperature {decision.temperature:.2f}{', averaged with the mirrored film' if decision.flips else ''}"


def _bought(metrics: Metrics, sections: Sequence[str]) -> Html | None:
    """What the text bought, in two figures."""
    if "text" not in sections:
        return None
    if metrics.text == "constant":
        says: list[Child] = [el("p", "This is a text-free twin; it reads no sentence.")]
    elif metrics.twin is None:
        says = [
            el("p", "Not measured: that takes a twin, trained with one constant sentence. ", el("a", "How to get one", href="#text"), ".")
        ]
    else:
        differences = {score: metrics.twin.difference[score] for score in DICE if score in metrics.twin.difference}
        shown = (
            el("div", el("dt", NAMES[score]), el("dd", signed(score, one[0], 3), bounds(score, one[1:])))
            for score, one in differences.items()
        )
        says = [el("dl", *shown, class_="gain"), el("p", verdict(metrics.twin.difference))]
        says.append(el("p", "This model minus its text-free twin. ", el("a", "All scores", href="#text"), ".", class_="small"))
    return el("div", el("h2", "What the text bought"), *says, class_="panel")


def _read(metrics: Metrics) -> Html | None:
    """Whether the text is read: the headline score under each sentence."""
    score = DICE[0]
    rows = [(name, known) for name, scores in control_rows(metrics) if (known := value(score, scores)) is not None]
    if len(rows) < 2:
        return None
    title = f"{NAMES[score]}, with the sentence as written and with others"
    link = el("p", title, ". ", el("a", "All controls", href="#controls"), ".", class_="small")
    return el("div", el("h2", "Does it read the sentence?"), bar_plot(rows, title), link, class_="panel")


# ---------------------------------------------------------------- what a reader must know


def _warnings(metrics: Metrics, cases: Sequence[CaseScore], training: TrainingFile | None) -> Html | None:
    items: list[Child] = list(metrics.warnings)
    if metrics.counts.failed:
        items.append(f"{counted(metrics.counts.failed, 'case')} could not be read and scored as an empty prediction: the warning failed.")
    if training and training.truncated:
        items.append("The training was cut short by its time limit: the learning rate never reached zero.")
    for code, n in sorted(Counter(code for case in cases for code in set(case.warnings) - {"failed"}).items()):
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
    hashes = [
        ("Bundle", metrics.bundle_sha256),
        *(("Averaged with", sha) for sha in metrics.ensemble),
        ("Configuration", metrics.config_sha256),
        ("Twin", metrics.twin.bundle_sha256 if metrics.twin else None),
        ("Cases", metrics.cases_sha256),
    ]
    rows = (el("div", el("dt", name), el("dd", el("code", sha))) for name, sha in hashes if sha)
    return join(command_line(metrics.command), el("ul", *(el("li", item) for item in items)), el("dl", *rows, class_="hashes"))
