"""What a statement must keep to. A bank that breaks a rule is not read; `check` adds warnings, `build` drops what breaks one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from reportseg.schemas.knowledge import BankFile, Statement
from reportseg.text import can_swap, has_side, normalise, words

MAX_STATEMENTS = 20_000
MAX_WORDS = 60  # of one statement; a model reads them all, so a page of prose is a mistake
MAX_CHARACTERS = 1_000  # a word can be long too
NEUTRAL = "neutral"  # the kind of a control

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Broken:
    """One broken rule. `index` is the statement's place in the bank, None for what concerns all of it."""

    index: int | None
    code: str
    what: str

    def __str__(self) -> str:
        return self.what if self.index is None else f"statement {self.index} {self.what}"


def broken(file: BankFile) -> list[Broken]:
    """All that is wrong with a bank, in its order. A bank with too many statements is not looked at further."""
    if len(file.statements) > MAX_STATEMENTS:
        return [Broken(None, "too_many", f"{len(file.statements)} statements are more than {MAX_STATEMENTS}")]
    found = [] if file.statements else [Broken(None, "empty", "there is no statement")]
    if any(_CONTROL.search(text) for text in (file.name, file.licence, file.description)):
        found.append(Broken(None, "control_character", "its name, licence or description holds a control character"))
    seen: dict[str, int] = {}
    for i, statement in enumerate(file.statements):
        first = seen.setdefault(normalise(statement.statement), i)
        if first != i:
            found.append(Broken(i, "duplicate", f"repeats statement {first}"))
        found += [Broken(i, code, what) for code, what in faults(statement)]
    return found


def faults(s: Statement) -> Iterator[tuple[str, str]]:
    """(code, what) of each rule that a statement breaks by itself."""
    if any(_CONTROL.search(text) for text in (s.concept, s.statement, *s.terms, s.source, s.model or "", s.reviewed_by or "")):
        yield "control_character", "holds a control character"
    if len(s.statement) > MAX_CHARACTERS:
        yield "too_long", f"has more than {MAX_CHARACTERS} characters"
        return
    if len(words(s.statement)) > MAX_WORDS:
        yield "too_long", f"has more than {MAX_WORDS} words"
    if not words(s.statement) or not words(s.concept):
        yield "no_words", "has no words in its statement or its concept"
    if s.laterality == "none" and has_side(s.statement):
        yield "side_unnamed", "names a side but not whose (laterality)"
    if s.laterality != "none" and not can_swap(s.statement):
        yield "side_unknown", "has a side word that cannot be swapped"
