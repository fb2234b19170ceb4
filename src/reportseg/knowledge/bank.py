"""A bank of statements about what findings look like, and which of them a sentence calls for.

Retrieval is lexical: a statement fits where its concept or one of its terms stands in the text. It needs no model, is the same on every
machine, and says why. Statements of kind "neutral" are controls and never retrieved: `Bank.control` puts them in the place of the fitting
ones, sentence for sentence.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from reportseg.errors import InputError
from reportseg.schemas.base import parse, read_json
from reportseg.schemas.knowledge import BankFile, Statement
from reportseg.text import normalise, swap_sides, words

from .rules import NEUTRAL, broken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reportseg.types import Laterality


@dataclass(frozen=True)
class Hit:
    """A retrieved statement: its index in the bank, the score (higher fits better) and the terms of it that stand in the text."""

    index: int
    statement: Statement
    score: float
    why: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Bank:
    """Statements in the order of the file. `sha256` is that of the canonical content, whatever the file's layout."""

    file: BankFile
    sha256: str

    @property
    def name(self) -> str:
        """Its name, by which a config asks for it."""
        return self.file.name

    @property
    def statements(self) -> tuple[Statement, ...]:
        """The statements, in the order of the file."""
        return tuple(self.file.statements)

    def texts(self) -> list[str]:
        """All statements as sentences."""
        return [s.statement for s in self.file.statements]

    def facing(self, laterality: Laterality) -> Bank:
        """The bank in the asked convention: where a statement means the other side, its sentence, concept and terms are turned.

        "none" leaves every one as it stands: nobody knows whose side is meant.
        """

        def turned(s: Statement) -> Statement:
            if "none" in (laterality, s.laterality) or s.laterality == laterality:
                return s
            swapped = {"concept": swap_sides(s.concept), "statement": swap_sides(s.statement), "terms": list(map(swap_sides, s.terms))}
            return s.model_copy(update={**swapped, "laterality": laterality})

        return _with(self, list(map(turned, self.file.statements)))

    def fitting(self) -> Bank:
        """The bank without its neutral statements: what a model with knowledge reads."""
        return _with(self, [s for s in self.file.statements if s.kind != NEUTRAL])

    def control(self) -> Bank:
        """The bank for the *neutral* control: each fitting statement keeps concept and terms and says a neutral sentence of as many words.

        The same statements are called for, in the same number and length, and none says anything. The first unused neutral sentence of the
        right length is taken. InputError `no_control` where one is missing.
        """
        spare: dict[int, list[Statement]] = {}
        for s in self.file.statements:
            if s.kind == NEUTRAL:
                spare.setdefault(len(words(s.statement)), []).append(s)
        statements = []
        for s in self.fitting().statements:
            length = len(words(s.statement))
            if not spare.get(length):
                what = f"the bank has no neutral statement of {length} words left for {s.concept!r}"
                raise InputError(what, self.name, "The bank `chest` has one for each; write the missing ones, kind neutral.", "no_control")
            sentence = spare[length].pop(0).statement
            statements.append(s.model_copy(update={"kind": "control", "statement": sentence}))
        return _with(self, statements, f"{self.name}-neutral")

    def to_json(self) -> str:
        """The canonical JSON: what `sha256` is taken of and what a bundle keeps. `load_bank` reads it back to an equal bank."""
        return canonical(self.file)

    @cached_property
    def index(self) -> Mapping[str, tuple[tuple[tuple[str, ...], str, tuple[int, ...]], ...]]:
        """First stem of a term -> (all its stems, the term as written, statements that have it)."""
        owners: dict[tuple[str, ...], tuple[str, list[int]]] = {}
        for i, statement in enumerate(self.file.statements):
            if statement.kind == NEUTRAL:
                continue
            for term in (statement.concept, *statement.terms):
                stems = _stems(term)
                indices = owners.setdefault(stems, (term, []))[1]
                if indices[-1:] != [i]:
                    indices.append(i)
        index: dict[str, list[tuple[tuple[str, ...], str, tuple[int, ...]]]] = {}
        for stems, (term, indices) in owners.items():
            if stems:
                index.setdefault(stems[0], []).append((stems, term, tuple(indices)))
        return {first: tuple(entries) for first, entries in index.items()}


def canonical(file: BankFile) -> str:
    """The bank's content as JSON that does not depend on the file's layout: what its sha256 is taken of."""
    return json.dumps(
        file.model_dump(mode="json", by_alias=True), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def from_file(file: BankFile, where: str | Path = "") -> Bank:
    """A checked bank. InputError `bad_bank` lists what is wrong with its statements, at most 20 lines."""
    problems = list(map(str, broken(file)))
    if problems:
        more = [f"and {len(problems) - 20} more"] if len(problems) > 20 else []
        raise InputError(
            "; ".join(problems[:20] + more), where, "Mend these statements; `reportseg knowledge check` lists all.", "bad_bank"
        )
    return _hashed(file)


def _hashed(file: BankFile) -> Bank:
    return Bank(file, hashlib.sha256(canonical(file).encode()).hexdigest())


def _with(bank: Bank, statements: list[Statement], name: str = "") -> Bank:
    """The bank with other statements; itself where nothing changes."""
    if statements == bank.file.statements:
        return bank
    return _hashed(bank.file.model_copy(update={"name": name or bank.name, "statements": statements}))


def shipped_banks() -> list[str]:
    """Names of the banks inside the package."""
    return sorted(entry.name[:-5] for entry in files("reportseg.knowledge").joinpath("banks").iterdir() if entry.name.endswith(".json"))


def load_bank(name_or_path: str | Path) -> Bank:
    """A JSON file in the bank's schema, else a shipped bank's name ("chest").

    Raises InputError: `unknown_bank` (neither), `bad_bank` (from_file), and those of schemas.base.read_json for a file that cannot be read.
    """
    if not Path(name_or_path).is_file() and re.fullmatch(r"[\w-]+", str(name_or_path)):
        if str(name_or_path) not in shipped_banks():
            names = ", ".join(shipped_banks())
            raise InputError(
                f"there is no knowledge bank {name_or_path!r}",
                "",
                f"Shipped banks: {names}. A path to a JSON file works too.",
                "unknown_bank",
            )
        return _shipped(str(name_or_path))
    return from_file(read_json(name_or_path, BankFile), name_or_path)


@lru_cache(maxsize=8)
def _shipped(name: str) -> Bank:
    content = files("reportseg.knowledge").joinpath("banks", f"{name}.json").read_text(encoding="utf-8")
    return from_file(parse(json.loads(content), BankFile, name), name)


# ---------------------------------------------------------------- retrieval

_KEEP_S = ("ss", "us", "is")
_IRREGULAR = {
    "bases": "base",
    "apices": "apex",
    "diagnoses": "diagnosis",
    "metastases": "metastasis",
    "hila": "hilum",
    "bronchi": "bronchus",
    "foci": "focus",
}


@lru_cache(maxsize=16384)
def stem(word: str) -> str:
    """The singular of a normalised English word, near enough: "areas" -> "area", "opacities" -> "opacity", "masses" -> "mass"."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(_KEEP_S):
        return word[:-1]
    return word


def _stems(text: str) -> tuple[str, ...]:
    return tuple(map(stem, re.findall(r"[^\W_]+", normalise(text))))  # "ground-glass" is two words here


def retrieve(text: str, bank: Bank, top_k: int = 8) -> list[Hit]:
    """The at most `top_k` statements that fit the text, best first; [] where no term of the bank stands in it.

    Score: for each term found, its number of words x the log-rarity of the term in the bank. Equal scores keep the bank's order. Concepts
    take turns: a second statement of one comes after the first of every other, so that no concept of many statements fills the answer.
    """
    return list(_lexical(normalise(text), bank)[: max(0, top_k)])


@lru_cache(maxsize=4096)
def _lexical(text: str, bank: Bank) -> tuple[Hit, ...]:
    stems = _stems(text)
    found: dict[tuple[str, ...], tuple[str, tuple[int, ...]]] = {}
    for position, first in enumerate(stems):
        for term_stems, term, owners in bank.index.get(first, ()):
            if stems[position : position + len(term_stems)] == term_stems:
                found[term_stems] = (term, owners)
    total = sum(s.kind != NEUTRAL for s in bank.file.statements)  # with or without its control a bank ranks alike
    scores: dict[int, float] = {}
    why: dict[int, list[str]] = {}
    for term_stems, (term, owners) in found.items():
        for i in owners:
            scores[i] = scores.get(i, 0.0) + len(term_stems) * math.log(1 + total / len(owners))
            why.setdefault(i, []).append(term)
    best_first = sorted(scores, key=lambda i: (-round(scores[i], 9), i))
    taken: Counter[str] = Counter()
    turn: dict[int, int] = {}
    for i in best_first:
        concept = normalise(bank.file.statements[i].concept)
        turn[i] = taken[concept]
        taken[concept] += 1
    order = sorted(best_first, key=turn.__getitem__)
    return tuple(Hit(i, bank.file.statements[i], scores[i], tuple(why[i])) for i in order)


def union(texts: Sequence[str], bank: Bank, top_k: int = 8) -> tuple[list[int], list[list[int]]]:
    """What a batch needs encoded: (sorted distinct indices, for each text its indices, best first)."""
    per_text = [[hit.index for hit in retrieve(text, bank, top_k)] for text in texts]
    return sorted({i for indices in per_text for i in indices}), per_text


_MASKED = re.compile(
    r"\b(?:upper|middle|mid|lower|top|bottom|left|right|bilateral|unilateral|both|zones?|lobes?|one|two|three|four|five|six|several|multiple|single|\d+)\b"
)


def skeleton(statement: str) -> str:
    """The normalised statement with the words for zone, side and number masked: equal skeletons differ by a template's slots only."""
    return _MASKED.sub("_", normalise(statement))
