"""Where in the lungs, or in a picture, a template-like sentence places its lesion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from .sides import GLUED, NOT_A_SLIP, PIECE, SIDES, SWAP, is_side_slip, one_slip
from .spelling import normalise

LEVELS = ("upper", "middle", "lower")

_LEVEL_WORDS = {
    "upper": "upper", "higher": "upper", "top": "upper", "superior": "upper", "apex": "upper", "apical": "upper", "apices": "upper",
    "middle": "middle", "mid": "middle", "center": "middle", "centre": "middle", "central": "middle",
    "lower": "lower", "bottom": "lower", "inferior": "lower", "base": "lower", "bases": "lower", "basal": "lower", "basilar": "lower",
    "uooer": "upper", "lowerl": "lower", "lowe": "lower", "ower": "lower",
}  # fmt: skip
_ZONE_OF = {
    "rul": ("right", "upper"), "rml": ("right", "middle"), "rll": ("right", "lower"),
    "lul": ("left", "upper"), "lingula": ("left", "middle"), "lingular": ("left", "middle"), "lll": ("left", "lower"),
    "ruq": ("right", "upper"), "luq": ("left", "upper"), "rlq": ("right", "lower"), "llq": ("left", "lower"),
}  # fmt: skip
_NOUNS = {"lung", "lungs", "ung", "lobe", "lobes", "zone", "zones", "field", "fields", "hemithorax"}
_WHOLE = {"whole", "entire", "complete"}
_BOTH = {"bilateral", "bilaterally", "both"}
_IMAGE_PLACE = re.compile(r"\b(?:in|at|on) (?:the )?(.{1,200}?) (?:of|in) (?:the )?(?:\w+ ){0,2}(?:image|picture|frame)\b")


def _level_slip(word: str) -> str:
    if len(word) < 4 or word in NOT_A_SLIP:
        return ""
    return next((level for level in LEVELS if one_slip(word, level)), "")


def _zone_words(text: str) -> list[str]:
    """The words the parser reads, glued words cut apart and slips mended; separators stay as ",", "." and "and"."""
    out: list[str] = []
    tokens = re.findall(r"[^\W\d_]+|[,;]|\.(?!\d)", text)
    for i, token in enumerate(tokens):
        before_lung = i + 1 < len(tokens) and tokens[i + 1] in {"lung", "lungs", "ung"}
        if token in {"leflung", "righlung"}:
            out += ["left" if token == "leflung" else "right", "lung"]
        elif token in _LEVEL_WORDS or token in SWAP or token in _NOUNS:
            out.append(token)
        elif before_lung and (token == "lift" or is_side_slip(token)):
            out.append("left" if token == "lift" or one_slip(token, "left") else "right")
        elif GLUED.fullmatch(token):
            out += PIECE.findall(token)
        elif token.startswith("bi") and token[2:] in _LEVEL_WORDS:  # bibasilar, biapical
            out += ["bilateral", token[2:]]
        else:
            out.append(_level_slip(token) or token)
    return out


def _segments(tokens: list[str]) -> list[tuple[list[str], bool]]:
    """(words, a full stop stands before) between the separators."""
    segments: list[tuple[list[str], bool]] = [([], True)]
    for token in tokens:
        if token in {",", ";", "and", "or", "with"}:
            segments.append(([], False))
        elif token == ".":
            segments.append(([], True))
        else:
            segments[-1][0].append(token)
    return [s for s in segments if s[0]]


def _groups(segment: list[str]) -> list[tuple[list[str], list[str]]]:
    """(sides, levels) of one segment. "upper left lower right" and "left upper right lower" both make two groups."""
    groups: list[tuple[list[str], list[str]]] = []
    side_first: bool | None = None
    last = ""
    for word in segment:
        if word in SIDES:
            kind = "side"
        elif word in _LEVEL_WORDS or word == "all":
            kind = "level"
        else:
            continue
        if side_first is None:
            side_first = kind == "side"
        opens = (kind == "side") == side_first and last != "" and last != kind
        if not groups or opens:
            groups.append(([], []))
        groups[-1][kind == "level"].append(word)
        last = kind
    return groups


def _levels(found: Sequence[str]) -> set[str]:
    """Named levels; "all" alone, or no level at all, means the three of them."""
    return {_LEVEL_WORDS[w] for w in found if w in _LEVEL_WORDS} or set(LEVELS)


@lru_cache(maxsize=2048)
def zones(text: str) -> frozenset[tuple[str, str]]:
    """Where a template-like sentence places its lesion: pairs (side, level), level in upper, middle, lower.

    "upper middle left lung" = {(left, upper), (left, middle)}. A side without a level, or with "all", is all three; so "bilateral
    opacities" is all six, unless a side is named. Tolerates slips ("middlelower", "midddle", "higher"). In a bilateral sentence that
    names one side and a second lung without one, the second is the other side. Places in a picture ("located in top left, center of the
    image") lie on a 3 x 3 grid: side left, center or right, and what is not said is center or middle. Empty where no zone is said.
    Made for prompts, not for whole reports.
    """
    low = normalise(text)
    place = _IMAGE_PLACE.search(low)
    if place and not _NOUNS.intersection(place.group(1).split()):
        return _grid(_zone_words(place.group(1)))
    tokens = _zone_words(low)
    found: set[tuple[str, str]] = {_ZONE_OF[t] for t in tokens if t in _ZONE_OF}
    bilateral = any(t in _BOTH for t in tokens)
    named = {t for t in tokens if t in SIDES}
    pending: list[str] = []  # levels that wait for the side of the next segment: "upper and lower left lung"
    waiting: list[str] = []  # sides that wait for a level: "left and right lower lobes"
    previous: tuple[list[str], list[str], bool] = ([], [], True)  # sides, levels, closed by a noun
    for segment, after_stop in _segments(tokens):
        if after_stop:
            found |= {(s, level) for s in waiting for level in LEVELS}
            pending, waiting, previous = [], [], ([], [], True)
        noun = any(w in _NOUNS for w in segment)
        lung = any(w in {"lung", "lungs", "ung"} for w in segment)
        whole = bool(_WHOLE.intersection(segment))
        groups = _groups(segment)
        for position, (sides, levels) in enumerate(groups):
            if sides:
                levels = levels if whole else pending + levels  # "upper zone and whole right lung"
                pending = []
                if not levels and previous[0] and previous[1] and not previous[2] and not whole:
                    levels = previous[1]  # "lower left and right lung"
                if not levels and not noun:
                    waiting += sides
                else:
                    found |= {(s, level) for s in waiting + sides for level in _levels(levels)}
                    waiting = []
                previous = (sides, levels, noun or position < len(groups) - 1)
            elif bilateral and lung and len(named) == 1:
                other = "right" if "left" in named else "left"  # "all left lung and upper lower lung"
                found |= {(other, level) for level in _levels(levels)}
            elif bilateral and not named:
                found |= {(s, level) for s in SIDES for level in _levels(levels)}
            elif previous[0] and noun:
                found |= {(s, level) for s in previous[0] for level in _levels(pending + levels)}  # "left upper, middle and lower lobes"
                pending = []
                previous = (previous[0], levels, True)
            else:
                pending += levels
    found |= {(s, level) for s in waiting for level in LEVELS}
    if not found and bilateral:
        found = {(s, level) for s in SIDES for level in LEVELS}
    return frozenset(found)


def _grid(tokens: list[str]) -> frozenset[tuple[str, str]]:
    cells: set[tuple[str, str]] = set()
    for segment, _ in _segments(tokens):
        for sides, levels in _groups([w for w in segment if w not in {"center", "centre", "central"}]) or [([], [])]:
            side, level = sides or ["center"], [_LEVEL_WORDS[w] for w in levels if w in _LEVEL_WORDS] or ["middle"]
            if sides or levels or any(w in {"center", "centre", "central"} for w in segment):
                cells |= {(s, v) for s in side for v in level}
    return frozenset(cells)
