"""What our HTML pages share: elements, numbers as text, tables, figures, and the shell around them.

A plain string is text and is escaped; only what `el` and `join` return is taken for markup. So a hostile id or sentence stays text, and a
slip shows as `&lt;` and never as a tag. The shell holds style and script itself and forbids everything else by its own policy.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files

from .types import INTENDED_USE

MAIN = "main"  # id of what the skip link leads to
VOID = {"meta", "img", "input", "br", "wbr"}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # not allowed in HTML, or not writable as UTF-8


class Html(str):
    """Markup that is safe as it is."""

    __slots__ = ()


Child = str | None
Attribute = str | float | bool | None


def escape(text: str) -> Html:
    """Text as markup: nothing in it can open a tag, end an attribute, or break the file's encoding. Markup stays."""
    return text if isinstance(text, Html) else Html(html.escape(_CONTROL.sub("\ufffd", text)))


def join(*children: Child) -> Html:
    """The children one after the other; None is nothing."""
    return Html("".join(escape(child) for child in children if child is not None))


def el(tag: str, *children: Child, **attributes: Attribute) -> Html:
    """One element. `class_` loses its underscore, others become hyphens; True is a bare attribute, None and False none.

    Floats are coordinates: two decimals at most.
    """
    parts = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        if isinstance(value, float):
            value = f"{value:.2f}".rstrip("0").rstrip(".")
        parts.append(name if value is True else f'{name}="{escape(str(value))}"')
    head = f"<{' '.join(parts)}>"
    return Html(head) if tag in VOID else Html(f"{head}{join(*children)}</{tag}>")


def page(title: str, *body: Child) -> str:
    """The whole file: no request leaves it, and no script but ours runs in it. One element of the body has the id MAIN."""
    style, script = Html(_resource("page.css")), Html(_resource("page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = ("default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content="; ".join((*allowed, "base-uri 'none'", "form-action 'none'"))),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", style),
    )
    return "<!DOCTYPE html>\n" + el("html", head, "\n", el("body", _bar(), *body, el("script", script)), lang="en") + "\n"


def sectioned(title: str, header: Html, sections: Mapping[str, tuple[str, Html | None]]) -> str:
    """A page of sections, id to (heading, body), with links to them below its header; a section without a body is left out."""
    there = [(key, heading, body) for key, (heading, body) in sections.items() if body is not None]
    links = (el("a", heading, href=f"#{key}") for key, heading, _ in there)
    main = (el("section", el("h2", heading), body, id=key) for key, heading, body in there)
    nav = el("nav", *links, aria_label="Sections")
    return page(title, header, nav, el("main", *main, id=MAIN), el("footer", el("p", INTENDED_USE)))


def _bar() -> Html:
    """The skip link, and the switch of colours: three radio buttons that the style sheet reads, so it works without a script."""
    choices = [
        el("label", el("input", type="radio", name="theme", id=f"theme-{name.lower()}", checked=name == "Auto"), el("span", name))
        for name in ("Auto", "Light", "Dark")
    ]
    switch = el("fieldset", el("legend", "Colours", class_="unseen"), *choices, class_="theme")
    return el("div", el("a", "Skip to the figures", href=f"#{MAIN}", class_="skip"), el("span", "reportseg"), switch, class_="top")


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


# ---------------------------------------------------------------- numbers as text


def minus(text: str) -> str:
    """The text with a typographic minus sign."""
    return text.replace("-", "−")


def number(value: float | None, digits: int = 4) -> Html:
    """What is missing or not finite is an en dash, with a name for those who hear it. Why it is missing is for the page to write beside it:
    what only shows when hovered is lost to touch, keyboard and paper.
    """
    if value is None or not math.isfinite(value):
        return el("span", "–", class_="none", role="img", aria_label="not available")
    return escape(minus(f"{value:,.{digits}f}"))


def interval(pair: tuple[float, float], digits: int = 3) -> Html:
    """An interval (lower, upper) as text."""
    return el("span", minus(f"[{pair[0]:,.{digits}f}, {pair[1]:,.{digits}f}]"), class_="ci")


def counted(n: int, noun: str) -> str:
    """1 case, 2,000 cases."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def short_hash(sha256: str) -> Html:
    """The first twelve digits. The whole hash stands where the page says how its numbers were made; here it shows when hovered."""
    return el("code", sha256[:12], title=sha256)


# ---------------------------------------------------------------- parts of a page


def breakable(name: str) -> Html:
    """A name that may go on in the next line behind its underscores, hyphens and points, and not in the middle of a word or number."""
    parts = re.split(r"(?<=[_/=-])(?=.)|(?<=\.)(?=[^\W\d])", name)
    return join(parts[0], *(join(el("wbr"), part) for part in parts[1:]))


def command_line(command: str) -> Html:
    """The command that made a page; no option is broken at its hyphens."""
    words = (el("span", word, class_="option") if word.startswith("-") else word for word in command.split(" "))
    first, *others = words
    code = el("code", first, *(join(" ", word) for word in others))
    return el("pre", code, tabindex="0", role="region", aria_label="The command that made this page")


def cell(*children: Child) -> Html:
    """A cell that holds a number."""
    return el("td", *children, class_="num")


def sort_cell(value: float | None, digits: int) -> Html:
    """A number in a table that sorts: by its exact value, or last where there is none."""
    known = value is not None and math.isfinite(value)
    return el("td", number(value, digits), class_="num", data_v=repr(float(value)) if known and value is not None else "")


def table(heads: Sequence[str], rows: Iterable[Html], label: str, *, text: Collection[str], sorted_by: str | None = None) -> Html:
    """A table that scrolls by itself on a narrow screen. Columns named in `text` are set left, numbers right.

    `sorted_by` names the column the rows ascend by, and makes every head a button that sorts.
    """
    cells = []
    for head in heads:
        order = None if sorted_by is None else "ascending" if head == sorted_by else "none"
        content = head if sorted_by is None else el("button", head, type="button")
        cells.append(el("th", content, scope="col", class_=None if head in text else "num", aria_sort=order))
    body = el("table", el("thead", el("tr", *cells)), el("tbody", *rows), class_=sorted_by and "sortable")
    return el("div", body, class_="scroll tall" if sorted_by else "scroll", role="region", tabindex="0", aria_label=label)


def figure(title: str, says: Child, plot: Html, legend: Html | None = None, *, wide: bool = False) -> Html:
    """A plot with its title, one line on how to read it, and a key where it has several series; `wide`: alone in its row."""
    return el("figure", el("figcaption", el("strong", title), says), legend, plot, class_="chart wide" if wide else "chart")


def side_by_side(figures: Sequence[Html]) -> Html | None:
    """Figures two in a row, one below the other on a narrow screen; None where there is none."""
    return el("div", *figures, class_="charts") if figures else None


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Name and value, side by side; pairs without a value are left out."""
    return el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in pairs if value), class_="facts")
