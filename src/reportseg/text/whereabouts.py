"""Where a finding lies, as its clause says it: a side, and levels of the lung. All texts here are folded (`sentences.fold`)."""

from __future__ import annotations

import re

from ..types import Side
from .lexicon import NOT_THERE, alternation
from .places import LEVELS

_SIDE = re.compile(
    r"(?:\b(?P<left>left|lt|lul|lll|lingular?)|\b(?P<right>right|rt|rul|rml|rll)|"
    r"(?<![\w'.\-/&])(?:(?P<l>l)|(?P<r>r))(?=[ \-](?!spine)[a-z]{2})|"  # "R effusion", but not "L-spine", "L1", "r/o"
    r"\b(?P<both>bilateral(?:ly)?|both|bi[ \-]?(?:basilar|basal|apical)))\b"
    r"(?![ \-](?:\w{1,20} )?(?:atri|ventric|heart|cardiac|main))"  # chambers and borders of the heart are no sides of the body
)
_TURNED = re.compile(r"\b(?:shift|deviat|displac)\w{0,9}[\w ]{0,30}? to(?:wards?)? the (?:left|right)\b")
#: The side where the finding is not. Behind "but" it is a finding of its own.
_NOT_THERE = re.compile(rf"\b{alternation(NOT_THERE)}")
#: What the finding spares, up to where it is told again where it lies.
_SPARED = re.compile(r"\bspar(?:es|ed|ing)\b(?:\s(?!(?:in|at|within|but|with)\b|and (?!the\b))[\w\-]+){0,6}")
_TIP = re.compile(r"\btips?\b")
_LEVEL = re.compile(
    r"\b(?:(?P<upper>upper|(?:bi[ \-]?)?apical|apex|apices|rul|lul)|(?P<middle>middle|mid(?=[ \-]?(?:lung|zone))|rml|lingular?|perihilar)|"
    r"(?P<lower>lower|(?:bi[ \-]?)?(?:basilar|basal)|bases?|rll|lll))(?:\b|(?<=mid))"
)
_NO_LUNG = re.compile(
    r"\b(?:spine|thoracic|lumbar|vertebra\w*|aort\w+|abdomen|quadrant|ribs?|humer\w+|mediastin\w+|limits?|catheter|tip|heart|cardiac)\b"
)
_GOVERNS = re.compile(
    r"\W{0,3}(?:(?:the|there|is|are|small|mild|moderate|large|trace|stable|possible|probable|likely|no|without) ){0,4}"
    r"(?:(?:left|right)[ \-]sided|bilateral|bi[ \-]?(?:basilar|basal|apical))\b"
)
_PLACED = re.compile(r"\b(?:in|at|within|involving|of|on|throughout|overlying)\b[\w\s\-]{1,60}$")


def side_in(text: str) -> Side | None:
    """The side that the clause names; both together are bilateral. Neither the heart's chambers nor the direction of a shift is a side, nor
    is where the finding is not ("right, not left", "sparing the left"), nor where the tip of a device lies whose own side is told."""
    plain = _NOT_THERE.sub(" ", _SPARED.sub(" ", _TURNED.sub(" ", text)))
    tip = _TIP.search(plain)
    named = _named(plain[: tip.start()] if tip else plain) or _named(plain)
    if "both" in named or len(named) > 1:
        return "bilateral"
    return "left" if "left" in named else "right" if named else None


def _named(text: str) -> set[str]:
    return {{"l": "left", "r": "right"}.get(str(m.lastgroup), str(m.lastgroup)) for m in _SIDE.finditer(text)}


def zone_in(text: str) -> str | None:
    """The levels of the lung that the clause names, from above, separated by blanks; None where it speaks of something else than lung."""
    if _NO_LUNG.search(text):
        return None
    named = {str(m.lastgroup) for m in _LEVEL.finditer(_SPARED.sub(" ", text))}
    return " ".join(level for level in LEVELS if level in named) or None


def governs(text: str) -> bool:
    """Whether the clause begins with a side that holds for what is joined to it: "left-sided atelectasis" and effusion."""
    return bool(_GOVERNS.match(text))


def placed_side(text: str) -> Side | None:
    """The side of a place that ends the clause, and so holds for what is joined before it: atelectasis and "scarring in the left base"."""
    end = text.rstrip(" .,;\n")[-100:]
    place = _PLACED.search(end)
    return side_in(place.group()) if place and side_in(end[: place.start()]) is None else None
