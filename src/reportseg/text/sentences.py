"""Where the sentences of a report and the clauses of a sentence begin and end. Every span is of the text as it was given."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Literal

from .answers import answered, ends_answered

Section = Literal["findings", "indication", "recommendation", "technique"]

_CUT = re.compile(r"(?<!\d)[,;.!?]|[,;.!?](?!\d)|[，；。、！？]|\band\b", re.IGNORECASE)

_HEADINGS: dict[Section, str] = {
    "findings": r"findings?|impressions?|conclusions?|opinion|interpretation|summary|(?<!differential\s)diagnosis|report|addendum|"
    "narrative|result",
    "indication": "(?:clinical )?(?:indications?|history|information|question|data)|reason(?: for (?:the )?(?:exam|examination|study))?",
    "recommendation": "recommendations?|follow[- ]?up|plan",
    "technique": "(?:exam|examination|study|procedure|technique|views?|comparisons?|contrast|date|dictated by|signed by|patient)"
    "(?: (?:type|date|performed|description))?",
}
_HEADING = re.compile(
    "|".join(rf"(?P<{name}>(?<!\w)(?:{words})\s{{0,3}}:|^[ \t]{{0,40}}(?:{words})[ \t]{{0,40}}$)" for name, words in _HEADINGS.items()),
    re.MULTILINE,
)
_STOP = re.compile(r"[!;。！？；]+|(?<=[^\s?(])\?++(?![\w)])|(?<=\w\s)\?++(?=\s+[A-Z][a-z])|\.+(?=[\s\"')\]]|$)|(?<=[a-z)])\.(?=[A-Z])|\n")
_ABBREVIATED = re.compile(r"(?:^|[^a-z])(?:[a-z]|dr|mr|mrs|ms|st|vs|approx|e\.g|i\.e|fig|cf|incl|ca|resp|w)$")
_NUMBER = re.compile(r"(?<!\w)no\.[ \t]{0,3}\d+(?!\d|[.)][ \t]{0,3}\S)")  # "no. 3", but not "no. 3. Next item"
_BODY = re.compile("findings?|report|narrative|result|interpretation")
_PARAGRAPH = re.compile(r"\S[ \t\r]{0,80}\n[ \t\r]{0,80}\n")
_BULLET = re.compile(r"[ \t]{0,80}(?:[-*•·–—>]|\(?\d{1,2}[.)]|[a-z][.)])[ \t]")
_GOES_ON = re.compile(r"(?:[,/(]|\b(?:a|an|the|of|in|at|on|to|for|from|with|without|and|or|no|is|are|was|were|by|as|may|be))[ \t]{0,80}$")


@dataclass(frozen=True)
class Sentence:
    """`report[start:end]` without outer white space and bullet; it has a letter."""

    start: int
    end: int
    section: Section


def fold(text: str) -> str:
    """The text in lower case and plain forms, character by character, so that places in it are places in the text."""
    return "".join(_fold(c) for c in text) if not text.isascii() else text.lower()


def _fold(character: str) -> str:
    plain = {"’": "'", "‘": "'", "–": "-", "—": "-", "−": "-"}.get(character) or unicodedata.normalize("NFKC", character).lower()
    return plain if len(plain) == 1 else character


def clauses(text: str) -> list[tuple[int, int]]:
    """Character spans (start, end) of the clauses, cut at commas, semicolons, full stops and "and".

    `text[start:end]` is the clause: stripped, in order, with at least one letter or digit. A text without any has no clause.
    """
    spans: list[tuple[int, int]] = []
    start = 0
    for cut in [(m.start(), m.end()) for m in _CUT.finditer(text)] + [(len(text), len(text))]:
        piece = text[start : cut[0]]
        if any(c.isalnum() for c in piece):
            a = start + len(piece) - len(piece.lstrip())
            spans.append((a, a + len(piece.strip())))
        start = cut[1]
    return spans


def sentences(report: str) -> list[Sentence]:
    """The sentences and list items of a report in order, each with the section whose heading stands above it.

    Cut at full stops (not in numbers and after usual abbreviations), question and exclamation marks, semicolons, bullets and numbers of
    lists, and line ends unless the line plainly goes on. Headings belong to no sentence; before the first one the section is findings.
    Where no heading says where the findings begin, they do behind the paragraph of the indication or the technique.
    """
    low = fold(report)
    found: list[Sentence] = []
    section: Section = "findings"
    start = 0
    headings = [*_HEADING.finditer(low)]
    headless = not any(_BODY.match(heading.group().strip()) for heading in headings)
    for heading in [*headings, None]:
        end = heading.start() if heading else len(report)
        if headless and section in {"indication", "technique"} and (paragraph := _PARAGRAPH.search(report, start, end)):
            found += [Sentence(a, b, section) for a, b in _split(report, low, start, paragraph.end())]
            section, start = "findings", paragraph.end()
        found += [Sentence(a, b, section) for a, b in _split(report, low, start, end)]
        if heading:
            section, start = heading.lastgroup, heading.end()  # type: ignore[assignment]
    return found


def _split(report: str, low: str, start: int, end: int) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for stop in [*_STOP.finditer(report, start, end), None]:
        if stop and stop.group() == "." and _ABBREVIATED.search(low, max(start, stop.start() - 8), stop.start()):
            continue
        if stop and stop.group() == "." and _NUMBER.match(low, stop.start() - 2):
            continue
        if stop and stop.group()[0] == "?" and answered(low, stop.start()):
            continue
        if stop and stop.group() == "\n" and not _line_ends(report, low, start, stop):
            continue
        last = stop.end() if stop else end
        bullet = _BULLET.match(low, start, last)
        first = bullet.end() if bullet else start
        piece = report[first:last]
        if any(c.isalpha() for c in piece):
            first += len(piece) - len(piece.lstrip())
            spans.append((first, first + len(piece.strip())))
        start = last
    return spans


def _line_ends(report: str, low: str, start: int, stop: re.Match[str]) -> bool:
    """Whether the sentence ends with the line: the next one is empty, a list item, or begins anew, and this one is not left hanging;
    or this one ends with the answer of a form."""
    after = stop.end()
    if _BULLET.match(low, after) or report[after : after + 1] in {"", "\n", "\r"}:
        return True
    begin = re.compile(r"[ \t]{0,80}(\S)").match(report, after)
    line = low[max(start, stop.start() - 100) : stop.start()]
    return ends_answered(line) or (bool(begin and begin.group(1).isupper()) and not _GOES_ON.search(line))
