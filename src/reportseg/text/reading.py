"""Report to findings: what a report says is there, is not there, or may be there.

`units.py` reads the sentences; here their units become findings, and questions of the indication meet their answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from ..types import Finding, Reason, Side
from .language import foreign_words
from .sentences import Section, fold, sentences
from .units import Unit, units_of
from .whereabouts import zone_in


@dataclass(frozen=True)
class Skipped:
    """A sentence, or a part of one, that gave no finding. `report[span[0]:span[1]] == text`; `reason` says why."""

    text: str
    span: tuple[int, int]
    reason: Reason


@dataclass(frozen=True)
class Reading:
    """A report as it was understood: findings and skipped parts, each in the order of the report.

    `foreign` has words that show that the report is not in English: then it was not read, and all of it is skipped.
    """

    findings: tuple[Finding, ...]
    skipped: tuple[Skipped, ...]
    foreign: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[Finding, ...]:
        """The findings that a mask is made for: affirmed and uncertain ones."""
        return tuple(finding for finding in self.findings if finding.polarity != "absent")


def findings(report: str) -> list[Finding]:
    """What the report says of each finding, device or structure, in order.

    Resolved findings, normal structures, and questions of the indication that the report answers negatively are absent; alternatives,
    questions and rule-outs are uncertain. `side` is the side that the report names, in whatever convention it was written, None where it
    names none; `label` is from a fixed vocabulary, None for a denial of something outside it. A report in another language than English
    says nothing.
    """
    return list(read_report(report).findings)


@lru_cache(maxsize=64)
def read_report(report: str) -> Reading:
    """The findings, and the sentences without any with the reason."""
    foreign = foreign_words(report)
    if foreign:
        parts = [(sentence.start, sentence.end) for sentence in sentences(report)]
        return Reading((), tuple(Skipped(report[a:b], (a, b), "other_language") for a, b in parts), foreign)
    low = fold(report)
    found: list[tuple[Finding, Section]] = []
    skipped: list[Skipped] = []
    for sentence in sentences(report):
        units, _ = units_of(low, sentence)
        kept = [unit for unit in units if not unit.dropped]
        found += [(_finding(report, low, unit), sentence.section) for unit in kept]
        dropped = [(unit.start, unit.end, unit.dropped) for unit in units if unit.dropped]
        if not kept:
            reason: Reason = "no_finding" if sentence.section == "findings" else sentence.section
            dropped = [(sentence.start, sentence.end, dropped[0][2] if dropped else reason)]
        skipped += [Skipped(report[a:b], (a, b), reason) for a, b, reason in dropped]
    return Reading(tuple(_answer_questions(found)), tuple(skipped))


@lru_cache(maxsize=2048)
def is_negated(text: str) -> bool:
    """Whether the whole prompt denies ("no pleural effusion", "lungs are clear"). A mixed prompt does not.

    In doubt the answer is no: a mask too many can be seen and judged, a mask that was withheld cannot. So every word outside the denials
    must be harmless, "no new opacity" denies only half, and what has cleared was once there. Of what is called normal only what is clear is
    denied: a normal liver may be asked for.
    """
    low = fold(text)
    parts = [units_of(low, sentence) for sentence in sentences(text)]
    denied = all(units and not doubt and all(_denies(low, unit) for unit in units) for units, doubt in parts)
    return bool(parts) and denied and not _HALF_DENIED.search(low)


def _denies(low: str, unit: Unit) -> bool:
    return unit.polarity == "absent" and (not unit.normal or "clear" in low[unit.start : unit.end])


_HALF_DENIED = re.compile(
    r"\b(?:new|other|further|additional|more|known|enlargement|residual|resol\w+|clear(?:ed|ing)|remov\w+|disappear\w+)\b"
)


def _finding(report: str, low: str, unit: Unit) -> Finding:
    start, end = unit.start, unit.end
    while start < end and not (report[start].isalnum() or report[start] in "?("):
        start += 1
    while end > start and not (report[end - 1].isalnum() or report[end - 1] in "?)%"):
        end -= 1
    return Finding(report[start:end], (start, end), unit.polarity, unit.side, zone_in(low[start:end]), unit.label)


_LUNG = frozenset(
    "pneumonia infection tuberculosis atelectasis edema consolidation infiltrate opacity nodule mass tumor cavity lesion".split()
) | {"airspace disease", "interstitial disease"}


def _answer_questions(found: list[tuple[Finding, Section]]) -> Iterator[Finding]:
    """The findings; a question of the indication is absent where the rest of the report denies what it asks and affirms it nowhere.

    A denial of one side answers no question about the other, about both, or without a side.
    """
    rest = [finding for finding, section in found if section == "findings"]
    affirmed = {finding.label for finding in rest if finding.polarity != "absent"}
    denied: dict[str | None, set[Side | None]] = {}
    for finding in rest:
        if finding.polarity == "absent":
            denied.setdefault(finding.label, set()).add(finding.side)
    for finding, section in found:
        if section == "indication" and finding.label not in affirmed:
            labels = [finding.label, "abnormality", *(["lung"] if finding.label in _LUNG else [])]
            if any(_answers(denied.get(label, set()), finding.side) for label in labels):
                finding = replace(finding, polarity="absent")
        yield finding


def _answers(denied: set[Side | None], asked: Side | None) -> bool:
    """Whether denials of these sides answer a question about that one; those of left and right are one of both."""
    return not denied.isdisjoint({None, "bilateral"}) or {"left", "right"} <= denied or (asked is not None and asked in denied)
