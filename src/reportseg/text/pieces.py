"""The pieces of a sentence, and what governs the terms of each: it affirms, denies or doubts them.

A sentence is cut at commas, "and", "or", "with", and before words that deny or doubt. A denial or doubt governs the terms of its piece and
is handed on to the next pieces as `_carries` tells. Every step is linear in the length of the sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from ..types import Polarity
from . import lexicon as lex
from .answers import MARK, answer
from .sentences import Sentence

# ---------------------------------------------------------------- marks

_FINDING, _FINDING_LABELS = lex.labelled(lex.FINDINGS, "f")
_STRUCTURE, _STRUCTURE_LABELS = lex.labelled(lex.STRUCTURES, "s")
_FIRST = {
    "pseudo": lex.PSEUDO,
    "doubted": lex.DOUBTED_AFTER,
    "denied": lex.DENIED_AFTER,
    "doubts": lex.DOUBTS,
    "denies": lex.DENIES,
    "turn": lex.TURNS,
    "alternative": lex.ALTERNATIVES,
}
_LAST = {"normal": lex.NORMAL, "generic": lex.GENERIC, "tip": lex.TIP, "lead": lex.LEADS, "join": lex.JOINS}


@lru_cache(maxsize=1)
def marker() -> re.Pattern[str]:
    """All of the lexicon as one expression; a match's group says which table it is from. Words of _FIRST win over terms."""

    def words(kinds: dict[str, str]) -> str:
        return "|".join(f"(?P<{name}>{lex.alternation(pattern)})" for name, pattern in kinds.items())

    edge = r"(?:(?<!\w)(?=\w)|(?=[^\w\s]))"
    return re.compile(
        rf"(?P<answer>{MARK})|{edge}(?:{words(_FIRST)}|{_FINDING}|{_STRUCTURE}|{words(_LAST)})(?:(?<!\w)|(?!\w))|(?<=\w)(?P<apostrophe>n't)(?!\w)"
    )


def names(mark: re.Match[str]) -> bool:
    """Whether the mark names a finding, a device or a structure."""
    return mark.lastgroup in _FINDING_LABELS or mark.lastgroup in _STRUCTURE_LABELS


_CLAUSE = re.compile(
    rf"\bthere (?:is|are|was|were|has|have)\b|\b{lex.VERBS}\b"
    rf"(?! (?:\w+ly )?(?:also )?{lex.SEEN}\b)"
)
_UNCHANGED = re.compile(r"(?:no|without|lack|absence)\b.* (?:in|of)$")
_THERE = re.compile(r"\bthere (?:is|are|was|were)\b")
FRESH = re.compile(
    r"\b(?:left|right|bilateral\w*|both|[rl][uml]l|stable|unchanged|mild(?:ly)?|minimal(?:ly)?|small|moderate(?:ly)?|severe(?:ly)?|"
    r"tiny|trace|old|chronic|healed|persistent|interval|increased|decreased|scattered|multiple|calcified|degenerative|status|again|there|\d+|"
    r"new(?:ly)?|placement|insertion|replacement|repositioning|improvement|worsening|development|residual|remaining|"
    r"in (?:\w+ )?(?:place|position)|(?:heart|aorta)(?: size)? (?:(?:is|\w+ly) )?(?:enlarged|tortuous|ectatic|unfolded|calcified))\b"
)


@dataclass
class Piece:
    """A stretch between two cuts. `cut` is what it begins with: start, join, alternative, lead, turn, word (a denial or doubt), answer."""

    start: int
    end: int
    cut: str
    cut_text: str = ""
    terms: list[tuple[int, str]] = field(default_factory=list)
    generic: list[str] = field(default_factory=list)
    tip: bool = False
    unchanged: bool = False  # in the reach of "no change in", where "or" lists what is there
    spread: bool = False  # shares the "normal" in front of an earlier structure
    structures: list[tuple[int, str]] = field(default_factory=list)
    normal: list[tuple[int, str]] = field(default_factory=list)
    before: list[tuple[int, str, str]] = field(default_factory=list)  # place, denies or doubts, the words
    after: list[tuple[int, str]] = field(default_factory=list)  # place, denied or doubted
    answer: Polarity | None = None  # what a form says of the piece before
    text: str = ""

    @property
    def clause(self) -> bool:
        """Whether it has a verb of its own, so that a denial before it is of another clause."""
        return bool(_CLAUSE.search(self.text))

    @property
    def bare(self) -> bool:
        """Whether it names nothing that its denial could be of: "is not | due to pneumonia"."""
        return self.cut == "word" and not (self.terms or self.generic or self.structures or self.normal)

    @property
    def joined(self) -> bool:
        """Whether it goes on with what the piece before says."""
        return self.cut in {"join", "alternative"}


def pieces_of(low: str, sentence: Sentence) -> list[Piece]:
    """The sentence of the folded text `low`, cut; each piece with the words that tell."""
    pieces = [Piece(sentence.start, sentence.end, "start")]
    for mark in marker().finditer(low, sentence.start, sentence.end):
        kind, here = str(mark.lastgroup), pieces[-1]
        if kind == "apostrophe":
            kind = "denies"
        if kind == "answer" and (here.terms or here.generic or here.tip):
            here.end = mark.start()
            pieces.append(Piece(mark.start(), sentence.end, "answer", answer=answer(low, mark.start(), sentence.end)))
        elif kind == "answer" and mark.group():
            here.end = mark.start()
            pieces.append(Piece(mark.end(), sentence.end, "join", mark.group()))
        elif kind in {"join", "alternative", "lead", "turn"}:
            here.end = mark.start()
            pieces.append(Piece(mark.end() if kind != "turn" else mark.start(), sentence.end, kind, mark.group()))
        elif kind in {"denies", "doubts"}:
            if here.terms or here.normal or here.generic:
                here.end = mark.start()
                here = Piece(mark.start(), sentence.end, "word")
                pieces.append(here)
            here.before.append((mark.start(), kind, mark.group()))
        elif kind in {"denied", "doubted"}:
            here.after.append((mark.start(), kind))
        elif kind == "pseudo":
            here.unchanged |= bool(_UNCHANGED.match(mark.group()))
        elif kind == "normal":
            here.normal.append((mark.start(), mark.group()))
        elif kind == "generic":
            here.generic.append(mark.group())
        elif kind == "tip":
            here.tip = True
        elif kind in _FINDING_LABELS:
            here.terms.append((mark.start(), _FINDING_LABELS[kind]))
        elif kind in _STRUCTURE_LABELS:
            here.structures.append((mark.start(), _STRUCTURE_LABELS[kind]))
    earlier = pieces[0]
    for piece in pieces:
        piece.text = low[piece.start : piece.end]
        piece.unchanged |= piece.joined and earlier.unchanged and not piece.clause
        earlier = piece
    return pieces


# ---------------------------------------------------------------- polarity


def polarities(pieces: list[Piece]) -> list[Polarity]:
    """What governs the terms of each piece."""
    later_or = [False] * (len(pieces) + 1)
    for i in range(len(pieces) - 2, -1, -1):
        following = pieces[i + 1]
        later_or[i] = following.cut == "alternative" or (following.cut == "join" and not following.clause and later_or[i + 1])
    state: Polarity = "present"
    narrow = False
    gone = False  # the denial is of what was there
    heading: Polarity | None = None  # "no longer seen:" holds for all that follows
    found: list[Polarity] = []
    for number, (piece, carried) in enumerate(zip(pieces, later_or, strict=False)):
        earlier = pieces[number - 1] if number else piece
        if piece.cut_text == ":":
            heading = _heading(earlier)
        elif piece.cut == "turn" or piece.clause:
            heading = None
        opens = piece.cut in {"start", "turn", "answer"} or bool(earlier.answer and number)
        opens = opens or (piece.cut != "word" and not _carries(piece, carried)) or (gone and piece.cut_text == "with")
        if heading:
            state, narrow, gone = heading, False, False
        elif opens or (narrow and piece.cut != "alternative" and not (piece.cut == "lead" and earlier.bare)):
            state, narrow, gone = "present", False, False
        for nth, (place, kind, words) in enumerate(piece.before):
            if kind == "denies" and nth and piece.before[nth - 1][2].endswith(" that"):
                state, narrow = "uncertain", False
            elif kind == "denies":
                state, narrow, gone = "absent", bool(lex.NARROW.fullmatch(words)), bool(lex.GONE.fullmatch(words))
            elif state != "absent" or (piece.joined and not piece.text[: place - piece.start].strip() and words != "suspicious"):
                state, narrow = "uncertain", False
        found.append(state)
        if piece.answer:
            _answer_for(pieces, found)
    return found


def _heading(piece: Piece) -> Polarity | None:
    """What a piece that does nothing but deny or doubt says of what follows its colon: "No longer seen: right effusion"."""
    if piece.terms or piece.structures or piece.normal:
        return None
    if piece.after:
        return "absent" if piece.after[-1][1] == "denied" else "uncertain"
    if piece.generic or not piece.before:
        return None
    place, kind, words = piece.before[-1]
    rest = re.findall(r"\w+", piece.text[place - piece.start + len(words) :])
    if not (_INTRODUCES.issuperset(rest) or lex.NARROW.fullmatch(words)):
        return None
    return "absent" if kind == "denies" else "uncertain"


#: Words that a denial or a doubt may have beside it where it introduces a list: "none of the following is seen:".
_INTRODUCES = frozenset("is are was were any evidence sign signs of for the these following all seen identified present".split())


def _answer_for(pieces: list[Piece], found: list[Polarity]) -> None:
    """The answer, the last piece so far, holds for the piece before it and for what "and" or "or" lists with that one."""
    said, listed = pieces[len(found) - 1].answer, False
    for number in range(len(found) - 2, -1, -1):
        if said == "absent" or (said == "uncertain" and found[number] == "present"):
            found[number] = said
        piece = pieces[number]
        listed |= piece.joined and piece.cut_text not in {",", ":", "(", ")"}
        if not (piece.joined and listed) or piece.cut_text == ":" or pieces[number - 1].answer:
            break


def _carries(piece: Piece, later_or: bool) -> bool:
    """Whether the denial or doubt of the piece before reaches this one."""
    if piece.cut == "alternative":
        return not _THERE.search(piece.text)
    if piece.cut == "lead" and piece.cut_text != "with":
        return True
    if piece.cut_text == ":" or piece.clause:
        return False
    return later_or or not FRESH.search(piece.text)
