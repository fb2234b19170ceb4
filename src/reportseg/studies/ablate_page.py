"""ablate.html: the verdict on each part first, then what it rests on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..charts import interval_plot
from ..compare_tables import p_value
from ..limits import atomic_write
from ..page import Child, Html, cell, counted, el, figure, join, minus, number, sectioned, side_by_side, table
from ..report_numbers import NAMES
from ..schemas.studies import Ablation, AblationArm
from .pages import SHOWN, arm_head, bullets, difference_cell, hashes, header, points, row_head, score_cell, score_heads, seed_rows, warnings

FULL = "full"


def write_page(path: Path, study: Ablation) -> None:
    """Writes ablate.html atomically."""
    sections: dict[str, tuple[str, Html | None]] = {
        "verdicts": ("Verdicts", _verdicts(study)),
        "warnings": ("Warnings", warnings(study.warnings)),
        "compared": ("Scores", _scores(study)),
        "seeds": ("Seeds", _seeds(study)),
        "figures": ("What training logged", _figures(study)),
        "method": ("How the numbers were made", _method(study)),
    }
    title = f"What each part of {study.name} is worth"
    pairs: list[tuple[str, Child]] = [
        ("Metric", NAMES[study.metric]),
        ("Smallest effect of interest", f"{study.smallest:g}"),
        ("Seeds", ", ".join(map(str, study.seeds))),
        ("Scored", f"{counted(study.n_cases, 'case')} of {counted(study.n_patients, 'patient')}, split {study.split}"),
    ]
    atomic_write(path, sectioned(f"{title}: reportseg study", header(title, answer(study), pairs, study.command), sections))


def name(arm: AblationArm) -> str:
    """The change as a reader sees it."""
    return arm.change.removeprefix("model.") if arm.change else FULL


def answer(study: Ablation) -> str | None:
    """The verdicts counted, in a sentence; None where none is told."""
    counts: Counter[str] = Counter(arm.verdict for arm in study.arms[1:] if arm.verdict)
    says = {"helps": ("helps", "help"), "does not help": ("does not help", "do not help"), "undecided": ("is undecided", "are undecided")}
    parts = [f"{n} {one if n == 1 else many}" for key, (one, many) in says.items() if (n := counts.get(key, 0))]
    n, failed = len(study.arms) - 1, sum(bool(arm.failed) for arm in study.arms[1:])
    parts += [f"{failed} failed"] if failed else []
    return f"Of {counted(n, 'part')}, each taken away alone: {', '.join(parts)}." if parts else None


def _disagree(arm: AblationArm) -> bool:
    """Whether one seed is for the part and another against it."""
    return len({value > 0 for value, *_ in arm.by_seed.values()}) > 1


def _verdicts(study: Ablation) -> Html:
    items = []
    for arm in study.arms[1:]:
        effect = arm.effect.get(study.metric)
        says = "failed" if arm.failed else "not told" if arm.verdict is None else arm.verdict
        mark = el("span", says, class_=f"verdict v-{says.split()[0]}")
        small = effect is not None and arm.verdict == "helps" and effect[2] < study.smallest
        note = ", which is less than the smallest effect of interest" if small else ""
        note += "; the seeds disagree on its sign" if _disagree(arm) else ""
        link = " takes away what is " if says in ("undecided", "not told") else " " if arm.failed else " takes away what "
        items.append(el("li", el("code", name(arm), dir="auto"), link, mark, f" {points(effect, 2)}{note}" if effect else None))
    rows = [(name(arm), *arm.effect[study.metric]) for arm in study.arms[1:] if study.metric in arm.effect]
    plots = []
    if rows:
        title = f"{NAMES[study.metric]}: full minus changed"
        below = (
            f"Right of the dashed line the full configuration is better. The shaded band ends at {study.smallest:g}, the smallest effect "
            "of interest: an interval that ends before it says that the part does not help."
        )
        plots.append(figure(title, below, interval_plot(rows, title, differences=True, mark=study.smallest)))
    return join(el("ul", *items, class_="plain verdicts"), side_by_side(plots))


def _scores(study: Ablation) -> Html:
    rows = []
    for arm in study.arms:
        effect = arm.effect.get(study.metric)
        p = cell() if arm.change is None else cell("–" if arm.p_holm is None else p_value(arm.p_holm))
        scores = (score_cell(arm.scores.get(score), arm.ci95.get(score)) for score in SHOWN)
        rows.append(el("tr", arm_head(name(arm), arm), cell(f"{arm.params['total'] / 1e6:.2f}"), difference_cell(effect), p, *scores))
    heads = ("Configuration", "Parameters, M", f"Full minus it, {NAMES[study.metric]}", "p, Holm", *score_heads())
    return table(heads, rows, "Scores of each configuration", text={"Configuration"})


def _seeds(study: Ablation) -> Html | None:
    if len(study.seeds) < 2:
        return None
    rows = []
    for arm in study.arms:
        rows += seed_rows(name(arm), arm.runs, [difference_cell(arm.by_seed.get(run.seed)) for run in arm.runs])
    heads = ("Configuration", "Seed", f"Full minus it, {NAMES[study.metric]}", *score_heads())
    split = [name(arm) for arm in study.arms if _disagree(arm)]
    note = el("p", "The seeds disagree on the sign of the effect of ", ", ".join(split), ".") if split else None
    return join(note, table(heads, rows, "Scores of each seed", text={"Configuration"}))


def _figures(study: Ablation) -> Html | None:
    names = list(dict.fromkeys(key for arm in study.arms for key in arm.figures))
    if not names:
        return None
    rows = []
    for key in sorted(names, key=lambda n: (not n.startswith("dev_"), n)):
        rows.append(el("tr", row_head(key), *(cell(number(arm.figures.get(key))) for arm in study.arms)))
    says = (
        "The last logged value of each loss and figure, mean over the seeds: whether a part did what it is there for. What begins with "
        "dev_ was read on the tenth of the training films that is held out."
    )
    if any(key not in arm.figures for key in names for arm in study.arms):
        says += " –: that configuration logs no such figure."
    heads = ("Figure", *(name(arm) for arm in study.arms))
    return join(el("p", says), table(heads, rows, "Figures of the trainings", text={"Figure"}))


def _method(study: Ablation) -> Html:
    ci = study.ci
    items: list[Child] = [
        "Metric, seeds, changes and the smallest effect of interest were written to plan.json before the first training; a resume with "
        "others is refused.",
        "Helps: the interval of the effect lies above 0. Does not help: its upper bound is below the smallest effect of interest. "
        "Undecided: neither, and that is a full answer.",
        "All configurations were trained with the same seeds, films, order of films, schedule and precision.",
        f"Intervals: {ci.method}, {ci.n_boot:,} draws of {counted(ci.clusters, 'cluster')}, the same for both, not adjusted.",
    ]
    if len(study.seeds) > 2:
        items.append("Seeds are drawn together with the patients, the same seed for both.")
    if any(arm.p is not None for arm in study.arms):
        items.append("p: two-sided Wilcoxon signed-rank test on patient means, adjusted after Holm over the changes.")
    if ci.without_patient:
        items.append(
            minus(f"{counted(ci.without_patient, 'film')} without a patient are clusters of their own: the intervals are a lower bound.")
        )
    return join(bullets(items), hashes([("Cases", study.cases_sha256)]))
