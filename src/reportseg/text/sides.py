"""Left and right in a sentence: what can be exchanged, and which side words cannot.

Whose left is meant (`laterality`) is decided by the caller. `swap_sides` serves both the mirrored film of training and the conversion
between the image's and the patient's side. `swap_sides` and `unknown_sides` read one lexicon, so what one cannot swap the other reports,
and a sentence that is only half understood is never flipped.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .spelling import clean

SIDES = ("left", "right")

_WORD = re.compile(r"[^\W\d_]+")

_PAIRS = {"left": "right", "lul": "rul", "lll": "rll", "lingula": "rml", "luq": "ruq", "llq": "rlq", "leflung": "righlung"}
SWAP = _PAIRS | {b: a for a, b in _PAIRS.items()}  # a slip swaps with a slip, so that swapping twice gives the sentence back
_SWAP_BEFORE_LUNG = {"lift": "rigth", "rigth": "lift"}  # "lower lift lung" stands in QaTa-COV19; elsewhere "lift" is a verb

#: Words that QaTa-COV19 and its like glue together: "lowerright", "rightlung", "upperlower", "leftsided".
_PIECES = (
    "left right upper higher middle lower top bottom center centre all lungs lung lobes lobe zones zone and infected "
    "sided side wards ward most one two three four five six"
).split()
GLUED = re.compile("(?:" + "|".join(_PIECES) + "){2,6}")
PIECE = re.compile("|".join(_PIECES))

#: Sides in other languages.
FOREIGN_SIDES = frozenset(
    """
    links linke linker linken linkes linksseitig rechts rechte rechter rechten rechtes rechtsseitig linkerlong rechterlong
    gauche gauches droit droite droits droites izquierda izquierdo izquierdas izquierdos derecha derecho derechas derechos
    esquerda esquerdo direita direito sinistro sinistre sinistri destra destro destre destri vänster höger venstre højre høyre
    lewa lewy lewe prawa prawy prawe левый левая левое левого левой слева правый правая правое правого правой справа
    sağ يسار يمين اليسرى اليمنى 왼쪽 오른쪽 좌측 우측
    """.split()
)
#: Words that name a side and that the lexicon cannot swap: abbreviations, Latin, curvatures, other languages.
_NOT_SWAPPED = FOREIGN_SIDES | frozenset(
    """
    lt rt lhs rhs lf leftish rightish lingular rij lij rsc lsc dexter dextra dextrum dextral sinister sinistra sinistrum sinistral
    dextroscoliosis levoscoliosis dextrocurvature levocurvature dextroconvex levoconvex dextroposition levoposition dextrocardia levocardia
    """.split()
)
_SIDE_SIGNS = re.compile("[左右]")
_LETTER = re.compile(
    r"(?<![\w'’.\-/])(?:[RL](?![\w'’])(?!-?\s?spine)|"
    r"[rl](?=\.(?!\w)|[-\s](?:sided?|lungs?|lobes?|chest|bases?|apex|hemithorax|upper|lower|mid|middle)\b))"
)
_OCLOCK = re.compile(r"\b\d{1,2}(?::\d\d)?\s*o['’]?\s?clock\b", re.IGNORECASE)
_LUNG_NEXT = re.compile(r"\s*l?ungs?\b", re.IGNORECASE)

NOT_A_SLIP = frozenset(
    """
    flower power tower slower mower rower cower bower lowers lowed supper super riddle fiddle piddle meddle muddle
    light night might sight fight tight eight weight bright fright wright height rights
    lift loft lefts deft heft weft cleft eft let lent lest felt
    """.split()
)


def one_slip(word: str, target: str) -> bool:
    """One letter added, left out, changed, or two neighbours exchanged."""
    if word == target or abs(len(word) - len(target)) > 1:
        return False
    i = 0
    while i < min(len(word), len(target)) and word[i] == target[i]:
        i += 1
    a, b = word[i:], target[i:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0] and a[2:] == b[2:])


def is_side_slip(word: str) -> bool:
    """Whether the word is "left" or "right" with one slip, and no word of its own."""
    return word not in NOT_A_SLIP and any(one_slip(word, side) for side in SIDES)


def _copy_case(model: str, word: str) -> str:
    if "rml" in (word, model.lower()):
        return "RML" if word == "rml" else word  # an abbreviation against a common noun: no case to copy
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[:1].isupper() else word


def _swap_match(match: re.Match[str]) -> str:
    word = match.group()
    low = word.lower()
    if low in SWAP:
        return _copy_case(word, SWAP[low])
    if low in _SWAP_BEFORE_LUNG and _LUNG_NEXT.match(match.string, match.end()):
        return _copy_case(word, _SWAP_BEFORE_LUNG[low])
    if ("left" in low or "right" in low) and len(low) == len(word) and GLUED.fullmatch(low):
        return PIECE.sub(lambda m: _copy_case(word[m.start() : m.end()], SWAP.get(m.group(), word[m.start() : m.end()])), low)
    return word


@lru_cache(maxsize=2048)
def swap_sides(text: str) -> str:
    """The sentence with left and right exchanged; case is kept where it can be, everything else stays.

    Covers left/right (also "-sided", "left of the image", glued "lowerright"), RUL RLL LUL LLL, RML <-> lingula, the quadrants; "bilateral"
    stays. Raises nothing. Applied twice it gives a covered sentence (`can_swap`) back, up to `normalise`. Does not look at `unknown_sides`.
    """
    plain = clean(text)
    swapped = _WORD.sub(_swap_match, plain)
    return text if swapped == plain else swapped


def unknown_sides(text: str) -> list[str]:
    """Side words outside the lexicon, in order, lower case: "lt", the "l" of "L-sided", "links", "3 o'clock", a slip ("rihgt lung")."""
    return list(_unknown_sides(text))


@lru_cache(maxsize=2048)
def _unknown_sides(text: str) -> tuple[str, ...]:
    plain = clean(text)
    found: list[tuple[int, str]] = []
    for match in _WORD.finditer(plain):
        low = match.group().lower()
        slip = low not in SWAP and low not in _SWAP_BEFORE_LUNG and low not in SIDES and is_side_slip(low)
        if low in _NOT_SWAPPED or (slip and _LUNG_NEXT.match(plain, match.end())):
            found.append((match.start(), low))
    for pattern in (_SIDE_SIGNS, _LETTER, _OCLOCK):
        found += [(m.start(), m.group().lower()) for m in pattern.finditer(plain)]
    return tuple(word for _, word in sorted(found))


def has_side(text: str) -> bool:
    """Whether the text names a side in any way, known or not ("bilateral" is none): then it matters whose left is meant."""
    return swap_sides(text) != text or bool(unknown_sides(text))


def can_swap(text: str) -> bool:
    """Whether `swap_sides` covers every side word of the text; true for a text without any."""
    return not unknown_sides(text)
