"""What `knowledge check` says of a bank: the errors that keep it from being read, and what its author should look at."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reportseg.schemas.base import read_json
from reportseg.schemas.knowledge import BankFile, Statement
from reportseg.text import normalise, swap_sides, words

from .bank import load_bank, skeleton, stem
from .rules import NEUTRAL, broken

LONG = 40  # words of a statement above which a text tower of 77 tokens may not read all of it
ALIKE = 0.8  # shared words, as a share of all words of the two, above which two statements are near duplicates
CANDIDATES = 50  # earlier statements that one is compared with for each of its rare words: bounds the time for a hostile bank
_SIDE = r"\b(?:left|right)\b"
#: By convention, words in a normalised statement that mean the other one.
OTHER = {
    "patient": re.compile(rf"{_SIDE}(?: \w+){{0,3}} of the (?:picture|image)\b|\b(?:picture|image)(?: s|['\u2019]s) (?:\w+ )?{_SIDE}"),
    "image": re.compile(rf"{_SIDE}(?: \w+){{0,3}} of the patient\b|\bpatient(?: s|['\u2019]s) (?:\w+ )?{_SIDE}"),
}


@dataclass(frozen=True)
class Finding:
    """One finding. `index` is the statement's place in the bank, None for what concerns all of it."""

    severity: Literal["error", "warning"]
    code: str
    index: int | None
    what: str

    def __str__(self) -> str:
        return f"{self.what if self.index is None else f'statement {self.index} {self.what}'} [{self.code}]"


def read_bank(name_or_path: str | Path) -> BankFile:
    """A bank that may break rules: a file in the schema, else a shipped name. InputError as for load_bank, but never `bad_bank`."""
    return read_json(name_or_path, BankFile) if Path(name_or_path).is_file() else load_bank(name_or_path).file


def check(file: BankFile, concepts: Sequence[str] = ()) -> list[Finding]:
    """All findings, errors first, each kind in the order of the bank. `concepts` are those that the bank ought to have statements for."""
    errors = [Finding("error", b.code, b.index, b.what) for b in broken(file)]
    if any(finding.code == "too_many" for finding in errors):
        return errors
    warnings = [Finding("warning", code, i, what) for i, s in enumerate(file.statements) for code, what in _remarks(s)]
    warnings += [Finding("warning", "near_duplicate", i, what) for i, what in _near_duplicates(file.statements)]
    warnings.sort(key=lambda finding: finding.index or 0)
    return errors + warnings + [Finding("warning", code, None, what) for code, what in _of_the_whole(file, concepts)]


def _remarks(s: Statement) -> Iterator[tuple[str, str]]:
    length = len(words(s.statement))
    if length > LONG:
        yield "long", f"has {length} words; a text tower may not read more than {LONG}"
    if s.kind != NEUTRAL and not s.source:
        yield "no_source", "does not say where it comes from"
    if s.laterality == "none":
        return
    said, meant = _sides(s.statement), _sides(s.concept)
    if not said | meant | {side for term in s.terms for side in _sides(term)}:
        yield "no_side", f"says whose side it means ({s.laterality}) and names none"
    if said and meant and not said & meant:
        yield "side_contradicts", f"is about the {' and '.join(sorted(meant))} and speaks of the {' and '.join(sorted(said))} only"

    contrary = OTHER[s.laterality].search(normalise(s.statement))
    if contrary:
        yield "side_contradicts", f"means the {s.laterality}'s side and says {contrary.group()!r}"


def _sides(text: str) -> set[str]:
    return set(re.findall(r"\b(?:left|right)\b", normalise(text)))


def _near_duplicates(statements: Sequence[Statement]) -> Iterator[tuple[int, str]]:
    """Statements that say what an earlier one says: equal but for zone, side and number, or of nearly the same words.

    Two sets that share `ALIKE` of their words share one of the rarest of each, so only those are looked up.
    """
    bags = [frozenset(map(stem, words(s.statement))) for s in statements]
    rarity = Counter(word for bag in bags for word in bag)
    exact: dict[str, int] = {}
    skeletons: dict[str, int] = {}
    owners: dict[str, list[int]] = {}
    for i, (s, bag) in enumerate(zip(statements, bags, strict=True)):
        if exact.setdefault(normalise(s.statement), i) != i:
            continue  # an error already
        first = skeletons.setdefault(skeleton(s.statement), i)
        rare = sorted(bag, key=lambda word: (rarity[word], word))[: len(bag) - math.ceil(ALIKE * len(bag)) + 1]
        if first != i:
            yield i, f"differs from statement {first} in words for zone, side or number only"
        else:
            near = (j for word in rare for j in owners.get(word, ()) if len(bag & bags[j]) >= ALIKE * len(bag | bags[j]))
            j = next(near, None)
            if j is not None:
                yield i, f"has nearly the words of statement {j}"
        for word in rare:
            if len(owners.setdefault(word, [])) < CANDIDATES:
                owners[word].append(i)


def _of_the_whole(file: BankFile, concepts: Sequence[str]) -> Iterator[tuple[str, str]]:
    fitting = [s for s in file.statements if s.kind != NEUTRAL]
    conventions = {s.laterality for s in fitting} - {"none"}
    if len(conventions) > 1:
        yield "two_conventions", "some statements mean the patient's side and some the image's"
    known = {normalise(s.concept) for s in fitting} | {normalise(swap_sides(s.concept)) for s in fitting if s.laterality != "none"}
    for concept in concepts:
        if normalise(concept) not in known:
            yield "no_statement", f"there is no statement for {concept!r}"
    neutral = Counter(len(words(s.statement)) for s in file.statements if s.kind == NEUTRAL)
    missing = Counter(len(words(s.statement)) for s in fitting) - neutral
    if neutral and missing:
        lengths = ", ".join(f"{n} of {length} words" for length, n in sorted(missing.items()))
        yield "no_control", f"the neutral statements are no full control: it lacks {lengths}"
