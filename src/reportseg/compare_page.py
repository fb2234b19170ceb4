"""compare.html: a comparison as one file that needs nothing else. The first screen says who is ahead of the reference and how surely.

Ids, sentences and names are the user's and may be hostile; `page` escapes them. The same input gives the same bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

from .charts import interval_plot
from .compare_films import PairPicture
from .compare_tables import DIFFERENCES, digits, head, method_notes, p_value, signed, text_free
from .limits import atomic_write
from .page import (
    Child,
    Html,
    breakable,
    cell,
    command_line,
    counted,
    el,
    facts,
    figure,
    interval,
    join,
    number,
    sectioned,
    short_hash,
    side_by_side,
    sort_cell,
    table,
)
from .schemas.comparison import COMPARED, ComparedArm, Comparison
from .types import INTENDED_USE


def write_page(path: Path, comparison: Comparison, pictures: Mapping[str, Sequence[PairPicture]]) -> None:
    """Writes compare.html atomically. `pictures` is by the name of the method; without any the page lists the films only."""
    sections: dict[str, tuple[str, Html | None]] = {
        "ahead": (f"Against {comparison.reference}", _ahead(comparison)),
        "warnings": ("Warnings", _warnings(comparison)),
        "compared": ("Scores", _scores(comparison)),
        "differences": ("Differences", _differences(comparison)),
        "seeds": ("Seeds", _seeds(comparison)),
        "films": ("Where they differ most", _films(comparison)),
        "pictures": ("Side by side", _pairs(comparison, pictures)),
        "method": ("How the numbers were made", _method(comparison)),
    }
    atomic_write(path, sectioned(f"{_title(comparison)}: reportseg comparison", _header(comparison), sections))


def _title(comparison: Comparison) -> str:
    return f"{counted(len(comparison.arms), 'method')} on {comparison.split}"


def _header(c: Comparison) -> Html:
    seeds = sorted(len(arm.runs) for arm in c.arms)
    return el(
        "header",
        el("h1", el("bdi", _title(c))),
        facts(
            [
                ("Cases", f"{counted(c.n_cases, 'case')} of {counted(c.n_patients, 'patient')}"),
                ("Reference", el("bdi", c.reference)),
                ("Seeds", f"{seeds[0]} a method" if seeds[0] == seeds[-1] else f"{seeds[0]} to {seeds[-1]} a method"),
                ("Draws", f"{c.ci.n_boot:,} of {counted(c.ci.clusters, 'cluster')}"),
            ]
        ),
        command_line(c.command),
        el("p", INTENDED_USE, class_="use"),
    )


# ---------------------------------------------------------------- who is ahead


def verdict(arm: ComparedArm) -> str:
    """From the intervals of both Dice scores: above or below the reference, or undecided; not told where there are none."""
    if not arm.difference:
        return "not told, since all cases are of one patient"
    pooled, mean = (
        "above" if low > 0 else "below" if high < 0 else "undecided" for _, low, high in (arm.difference[s] for s in DIFFERENCES)
    )
    return f"{pooled} on both Dice scores" if pooled == mean else f"{pooled} on pooled Dice, {mean} on mean Dice"


def _ahead(c: Comparison) -> Html:
    others = [arm for arm in c.arms if arm.win is not None]
    items = [
        el(
            "li",
            el("b", el("bdi", arm.name)),
            _tag(arm),
            f": {verdict(arm)}; better on {arm.win:,}, worse on {arm.loss:,} of {counted(c.n_cases, 'film')}, {arm.tie:,} tied.",
        )
        for arm in others
    ]
    plots = []
    for score in DIFFERENCES if all(arm.difference for arm in others) else ():
        title = f"{head(score, c)}: minus {c.reference}"
        rows = [(arm.name, *arm.difference[score]) for arm in others]
        says = "Right of the dashed line the method is better. An interval on the line decides nothing."
        plots.append(figure(title, says, interval_plot(rows, title, differences=True)))
    return join(el("ul", *items, class_="plain"), side_by_side(plots))


def _tag(arm: ComparedArm) -> Html | None:
    return el("span", " reads no text", class_="soft") if text_free(arm) else None


def _warnings(c: Comparison) -> Html | None:
    return el("ul", *(el("li", item) for item in c.warnings), class_="warnings") if c.warnings else None


# ---------------------------------------------------------------- tables


def _name(arm: ComparedArm, c: Comparison) -> Html:
    notes = ["the reference"] if arm.name == c.reference else []
    if text_free(arm):
        notes.append("reads no text")
    if all(run.bundle_sha256 is None for run in arm.runs):
        notes.append("masks made by other code")
    if len(arm.runs) > 1:
        notes.append(f"mean of {len(arm.runs)} seeds")
    return el(
        "th", el("bdi", breakable(arm.name)), el("span", ", ".join(notes), class_="under") if notes else None, scope="row", class_="method"
    )


def _score_heads(c: Comparison) -> list[str]:
    return [head(score, c) for score in COMPARED]


def _bounds(score: str, pair: tuple[float, float] | None) -> Html | None:
    return None if pair is None else interval(pair, min(digits(score), 3))


def _scores(c: Comparison) -> Html:
    rows = [
        el("tr", _name(arm, c), *(cell(number(arm.scores[s], digits(s)), _bounds(s, arm.ci95.get(s))) for s in COMPARED)) for arm in c.arms
    ]
    plots = []
    for score in DIFFERENCES if all(arm.ci95 for arm in c.arms) else ():
        title = head(score, c)
        plots.append(
            figure(title, "With the 95 % interval.", interval_plot([(a.name, a.scores[score], *a.ci95[score]) for a in c.arms], title))
        )
    return join(table(("Method", *_score_heads(c)), rows, "Scores with 95 % intervals", text={"Method"}), side_by_side(plots))


def _differences(c: Comparison) -> Html | None:
    rows = []
    for arm in (arm for arm in c.arms if arm.difference):
        values = [cell(signed(s, arm.difference[s][0]), _bounds(s, arm.difference[s][1:])) for s in COMPARED]
        p = number(None) if arm.p_holm is None else p_value(arm.p_holm)
        counts = cell(f"{arm.win} / {arm.tie} / {arm.loss}")
        rows.append(el("tr", _name(arm, c), *values[:2], cell(p), counts, *values[2:]))
    if not rows:
        return None
    heads = ["Method", *_score_heads(c)]
    heads[3:3] = ["p, Holm", "Win / tie / loss"]
    says = f"Each method minus {c.reference}, paired: the same films, the same draws of patients. For HD95 below 0 is better."
    none = el("p", "– under p: two seeds cannot tell how much a method varies.", class_="small")
    shown = table(heads, rows, "Differences to the reference", text={"Method"})
    return join(el("p", says), shown, none if any(arm.difference and arm.p_holm is None for arm in c.arms) else None)


def _seeds(c: Comparison) -> Html | None:
    rows = [
        el(
            "tr",
            el("th", el("bdi", arm.name), scope="row"),
            cell(str(run.seed)),
            *(cell(number(run.scores[s], digits(s))) for s in COMPARED),
        )
        for arm in c.arms
        if len(arm.runs) > 1
        for run in arm.runs
    ]
    return table(("Method", "Seed", *_score_heads(c)), rows, "Scores of each seed", text={"Method"}) if rows else None


# ---------------------------------------------------------------- films


def _films(c: Comparison) -> Html | None:
    films = sorted(((arm, film) for arm in c.arms for film in arm.films), key=lambda pair: pair[1].dice - pair[1].reference)
    if not films:
        return el("p", f"No film differs by more than {c.tie_margin:g} of Dice.")
    rows = []
    for arm, film in films:
        values = (sort_cell(v, 3) for v in (film.reference, film.dice, film.dice - film.reference))
        rows.append(el("tr", el("th", el("code", breakable(film.id), dir="auto"), scope="row"), el("td", el("bdi", arm.name)), *values))
    heads = ("Film", "Method", "Dice, reference", "Dice, method", "Difference")
    search = el("label", "Show only rows with ", el("input", type="search", autocomplete="off"))
    says = "Of each method the films where it lies furthest below and furthest above the reference; a column's name sorts by it."
    return join(
        el("p", says),
        el("p", search, el("span", role="status"), class_="filter", hidden=True),
        table(heads, rows, "Films where methods differ most", text={"Film", "Method"}, sorted_by="Difference"),
    )


def _pairs(c: Comparison, pictures: Mapping[str, Sequence[PairPicture]]) -> Html:
    if not pictures:
        how = (
            "Left out: this page holds no films. Evaluate with ",
            el("code", "--save-masks"),
            " and compare with ",
            el("code", "--data MANIFEST"),
        )
        return el("p", *how, " to see them.")
    legend = el(
        "ul",
        el("li", el("i", class_="swatch pred"), "prediction: orange veil and outline"),
        el("li", el("i", class_="swatch truth"), "truth: blue outline"),
        class_="key",
    )
    groups: list[Child] = [legend]
    for name, pairs in pictures.items():
        groups += [
            el("h3", el("bdi", c.reference), " and ", el("bdi", name)),
            el("div", *(_pair(pair, name, c.reference) for pair in pairs), class_="pairs"),
        ]
    return join(*groups)


def _pair(pair: PairPicture, name: str, reference: str) -> Html:
    sides = ((reference, pair.reference_dice, pair.reference_png), (name, pair.dice, pair.png))
    shown = [
        el(
            "div",
            _image(png, f"Film of {pair.id} with the answer of {who} and the truth"),
            el("p", el("bdi", who), el("br"), "Dice ", el("b", number(dice, 3))),
        )
        for who, dice, png in sides
    ]
    sentence = el("p", pair.sentence or el("span", "no sentence", class_="soft"), dir="auto", class_="sentence")
    caption = el("figcaption", el("p", el("code", pair.id, dir="auto")), sentence)
    return el("figure", el("div", *shown, class_="pair"), caption)


def _image(png: bytes, alt: str) -> Html:
    return el("img", src="data:image/png;base64," + base64.b64encode(png).decode("ascii"), alt=alt)


# ---------------------------------------------------------------- how


def _method(c: Comparison) -> Html:
    items = [
        *method_notes(c),
        f"The reference, {c.reference}, is the first that was named, or the one asked for with --reference; it is not chosen by its score.",
        "Intervals are each at 95 % and not adjusted for their number. A p of methods with one seed is about these very weights.",
        f"Empty masks. {c.empty_policy}",
    ]
    rows = []
    for arm in c.arms:
        for run in arm.runs:
            rule = run.decision
            how = "none" if rule is None else f"cut at {rule.threshold:.2f}" if rule.rule == "fixed" else "expected Dice of each film"
            how += ", averaged with the mirrored film" if rule and rule.flips else ""
            named = [join(short_hash(sha), " ") for sha in (run.bundle_sha256, *run.ensemble) if sha]
            text = "not known" if run.bundle_sha256 is None else "none" if text_free(arm) else el("code", arm.text)
            values = (
                cell(str(run.seed)),
                el("td", text),
                el("td", how),
                el("td", *named or ("masks made by other code",)),
            )
            rows.append(el("tr", el("th", el("bdi", arm.name), scope="row"), *values))
    bundles = dict.fromkeys(sha for arm in c.arms for run in arm.runs for sha in (run.bundle_sha256, *run.ensemble) if sha)
    pairs = [*(("Bundle", sha) for sha in bundles), ("Cases", c.cases_sha256)]
    hashes = el("dl", *(el("div", el("dt", name), el("dd", el("code", sha))) for name, sha in pairs), class_="hashes")
    heads = ("Method", "Seed", "Text", "Decision rule", "Bundle")
    return join(
        el("ul", *(el("li", item) for item in items)),
        table(heads, rows, "What was compared", text={"Method", "Text", "Decision rule", "Bundle"}),
        hashes,
    )
