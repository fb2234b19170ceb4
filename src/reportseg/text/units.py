"""The units of a sentence: stretches that each affirm, deny or doubt one finding, device or structure.

A piece (`pieces.py`) that names a finding, or a structure called normal, makes a unit; a piece that names neither belongs to the unit
before it, else to the one after it. Every step is linear in the length of the sentence.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise

from ..types import Polarity, Reason, Side
from . import lexicon as lex
from .pieces import FRESH, Piece, pieces_of, polarities
from .sentences import Sentence
from .whereabouts import governs, placed_side, side_in

_ADVICE = re.compile(rf"\b{lex.alternation(lex.ADVICE)}\b")
_HISTORY = re.compile(rf"\b{lex.alternation(lex.HISTORY)}\b")
_WORD = re.compile(r"[^\W_]+(?:['\-][^\W_]+)*")
#: "right but not left", "absent on the left but present on the right": the other side's finding, told without its name.
_OTHER_SIDE = re.compile(
    r"but (?:not|never|(?:is )?(?P<there>present|seen|visible|noted)) (?:(?:on|in|at) )?(?:the )?(?:left|right|lt|rt)(?: side| one)?\W*"
)
#: "No effusion on the right and a small one on the left": a finding told by its side, after its name.
_ONE = re.compile(r"\b(?:an?|another|the|\w+er)(?: (?!than\b)[\w\-]+){0,2} ones?\b")
#: "The left effusion has resolved, the right is smaller": the same of the other side.
_THE_OTHER = re.compile(r"\W*(?:(?:but|while|whereas) )?the (?:left|right)(?: one)? (?:is|are|was|has|have|remains?|persists)\b")
_VERB = re.compile(rf"\b{lex.VERBS}\b")
#: Nodes are looked at in every film, so these are named as a structure is; but not "lymph nodes in an otherwise normal hilum".
_NORMAL_NODES = re.compile(
    r"\bnodes(?: (?:is|are|were|appears?|remains?|all|both|\w+ly)){0,3} (?:normal|unremarkable)\b|"
    r"\b(?:normal|unremarkable)(?:[ \-](?:sized?|appearing|hilar|mediastinal|axillary)){0,2} (?:lymph )?nodes\b"
)
_COPULA = re.compile(r"\w+ (?:is|are|was|were|appears?|remains?) ")
#: Words that affirm nothing, beside a denial.
_HARMLESS = frozenset(
    """
    the a an in on of at to is are was were be been has have this that these it its there and or for as with within left right upper
    middle mid lower both all either any side sided bilateral bilaterally lung lungs lobe lobes zone zones field fields base bases apex
    apices region area seen present identified visible visualized visualised noted evident found detected appreciated demonstrated film
    image chest radiograph study evidence sign signs shows show focal definite acute large small significant suspicious patient xray
    x-ray ct scan
    """.split()
)
#: Words whose denial denies no finding: "no comparison", "no pain".
_EMPTY = frozenset(
    """
    comparison prior previous change interval history evidence film films study studies image images sign signs definite significant
    focal the a an of in on for with is are was were seen identified noted present there to be been it and or xxxx priors available exam
    radiograph radiographs other further new old more less than acute any such this that these time doubt question lateral frontal view
    views pain fever else following residual recurrent remaining persistent large small
    """.split()
)


@dataclass
class Unit:
    """One finding before it is one: a stretch of the report. `dropped` says why it is none after all."""

    start: int
    end: int
    polarity: Polarity
    label: str | None
    piece: int  # number of the piece that named it
    normal: bool = False  # absent because a structure is called normal
    dropped: Reason | None = None
    side: Side | None = None


def units_of(low: str, sentence: Sentence) -> tuple[list[Unit], bool]:
    """The units of a sentence, and whether it holds something besides them that may affirm."""
    if sentence.section in {"technique", "recommendation"}:
        return [], True
    pieces = pieces_of(low, sentence)
    states = polarities(pieces)
    _read_title(pieces, states)
    waits = _waits(pieces)
    units: list[Unit] = []
    waiting: list[tuple[int, Piece]] = []  # pieces in front of the unit they belong to
    doubt = False
    normal_ahead = False  # one of them is "normal" without what
    structure: str | None = None
    for number, (piece, state) in enumerate(zip(pieces, states, strict=True)):
        made = _make(pieces, number, state, bool(units), normal_ahead, structure)
        other = _OTHER_SIDE.fullmatch(piece.text)
        if made is None and units and other:
            made = Unit(piece.start, piece.end, "present" if other["there"] else "absent", units[-1].label, number)
        elif made is None and units and not piece.terms and side_in(piece.text) and _is_one(piece, pieces[units[-1].piece]):
            made = Unit(piece.start, piece.end, state, units[-1].label, number)
        same = bool(units) and piece.cut != "turn" and not waiting
        if piece.structures:
            structure = piece.structures[-1][1]
        if made is not None:
            for i, earlier in waiting:
                if earlier.structures and piece.structures and piece.joined and not piece.terms:
                    units.append(Unit(earlier.start, earlier.end, made.polarity, earlier.structures[0][1], i, made.normal))
                elif earlier.structures or not (piece.before and piece.cut_text == ","):
                    made.start = min(made.start, earlier.start)
                else:  # "cough, rule out pneumonia"
                    doubt |= not _harmless(earlier)
            waiting, normal_ahead = [], False
            units.append(made)
        elif waits[number] or not same:
            if _WORD.search(piece.text) and piece.cut != "turn":
                waiting.append((number, piece))
                normal_ahead |= bool(piece.normal and not piece.structures)
            doubt |= piece.cut == "turn"
        else:
            if not _ADVICE.search(piece.text):
                units[-1].end = piece.end
            doubt |= not (piece.cut == "alternative" or piece.answer or _harmless(piece))
        _apply_after(piece, units, pieces, leads=number + 1 < len(pieces) and pieces[number + 1].cut == "lead")
        if piece.cut == "alternative" and made is not None:
            _alternatives(units, pieces)
    doubt |= any(not _harmless(piece) for _, piece in waiting)
    if low.endswith("?", sentence.start, sentence.end):
        for unit in units:
            unit.polarity = "uncertain" if unit.polarity == "present" else unit.polarity
    _drop(low, sentence, units, pieces)
    for unit in units:
        unit.side = side_in(low[unit.start : unit.end])
    _share_sides(low, units, pieces)
    return units, doubt


def _make(pieces: list[Piece], number: int, state: Polarity, follows: bool, normal_ahead: bool, structure: str | None) -> Unit | None:
    """The unit that a piece names, or None. `structure` is the last one named before it."""
    piece = pieces[number]

    def unit(polarity: Polarity, label: str | None, normal: bool = False) -> Unit:
        return Unit(piece.start, piece.end, polarity, label, number, normal)

    own = piece.structures[0][1] if piece.structures else None
    if piece.answer:
        return None
    if piece.terms:
        label = _label(piece)
        within = piece.normal and "limits" in piece.normal[-1][1] and piece.normal[-1][0] > piece.terms[-1][0]
        return unit("absent" if within or (piece.normal and _NORMAL_NODES.search(piece.text)) else state, label)
    if piece.generic and (state == "absent" or (own and piece.generic[-1].startswith("abnormalit"))):
        return unit(state, own or "abnormality")
    if piece.normal and (own or _COPULA.search(piece.text[: piece.normal[0][0] - piece.start]) or "otherwise" in piece.text):
        denied = state == "absent" and any(kind == "denies" for _, kind, _ in piece.before)  # not by "no effusion" before it
        return unit("present" if denied else "absent", own or structure, normal=True)
    brief = piece.cut == "start" and len(_WORD.findall(piece.text)) <= 3
    if piece.normal and (piece.cut == "turn" or piece.cut_text == ":" or brief or (structure and not follows)):
        return unit("absent", structure, normal=True)
    piece.spread = piece.joined and _all_normal(pieces[number - 1])
    if own and (piece.spread or normal_ahead):
        return unit("absent", own, normal=True)
    if piece.tip and not follows:
        return unit(state, "catheter")
    denials = [place for place, kind, words in piece.before if kind == "denies" and not lex.NARROW.fullmatch(words)]
    if denials and any(word not in _EMPTY for word in _WORD.findall(piece.text[denials[-1] - piece.start :])[1:]):
        return unit("absent", None)
    return None


def _read_title(pieces: list[Piece], states: list[Polarity]) -> None:
    """ "Masses: no suspicious mass", "Pneumothorax: none seen today": a title affirms nothing, what stands behind its colon tells."""
    if len(pieces) < 2:
        return
    title, told = pieces[:2]
    titled = told.cut_text == ":" or (told.cut == "word" and title.text.rstrip().endswith("-"))
    if not titled or not title.terms or title.structures or title.before or title.after:
        return
    denied = told.before and told.before[0][1] == "denies" and not lex.NARROW.fullmatch(told.before[0][2])
    if told.terms:
        title.terms = [] if _label(told) == _label(title) else title.terms
    elif told.normal and not told.structures and _label(title) == "lymphadenopathy":
        states[0], told.normal = "absent", []
    elif denied and all(word in _EMPTY or word in _HARMLESS for word in _WORD.findall(told.text)[1:]):
        states[0], told.before, told.cut = "absent", [], "join"


def _is_one(piece: Piece, named: Piece) -> bool:
    """Whether the piece tells again, of a side, of the finding that was named before it."""
    the_other = _THE_OTHER.match(piece.text) and not (piece.structures or piece.generic or named.structures)
    compared = piece.cut == "lead" or side_in(piece.text) == "bilateral"  # "from the left", "the right is larger than the left"
    return bool((the_other and not compared) or _ONE.search(piece.text))


def _all_normal(piece: Piece) -> bool:
    """ "Normal heart size": what joins it is normal too."""
    if piece.terms or not piece.structures:
        return False
    return piece.spread or bool(piece.normal and piece.normal[0][0] < piece.structures[0][0])


def _label(piece: Piece) -> str:
    """The most telling label of a piece: not an adjective or a shadow where something is named, and an enlarged heart by its name."""
    labels = [label for _, label in piece.terms]
    telling = [label for label in labels if label not in _VAGUE] or labels
    if telling[0] == "enlargement" and any(label == "heart" for _, label in piece.structures):
        return "cardiomegaly"
    return telling[0]


_VAGUE = frozenset({"opacity", "calcification", "abnormal", "enlargement", "deformity", "cyst", "device", "shift"})


def _waits(pieces: list[Piece]) -> list[bool]:
    """Pieces that name a structure only, and share the normal statement or the finding that is said of the next one."""
    waits = [False] * len(pieces)
    for i in range(len(pieces) - 2, -1, -1):
        here, following = pieces[i], pieces[i + 1]
        bare = bool(here.structures) and not (here.terms or here.normal or here.generic or here.before)
        said = bool(following.structures and following.normal and not following.terms) or (waits[i + 1] and bool(following.structures))
        waits[i] = bare and following.joined and said
    return waits


def _apply_after(piece: Piece, units: list[Unit], pieces: list[Piece], leads: bool) -> None:
    """ "effusion and pneumothorax have resolved", "pneumonia is possible": words that deny or doubt what stands before them."""
    verdict: Polarity | None = None
    if piece.answer or piece.tip:
        return
    if piece.after:
        verdict = "absent" if piece.after[-1][1] == "denied" else "uncertain"
    elif (
        piece.cut == "word"
        and not leads
        and piece.before[-1][1] == "doubts"
        and piece.before[-1][2] != "if"
        and not (piece.terms or piece.generic or piece.structures)
    ):
        verdict = "uncertain"
    if verdict is None or not units or (piece.cut != "turn" and units[-1].piece < 0):
        return
    listed = False  # "A and B have cleared", but "A, B has cleared" is of B only
    for i in range(len(units) - 1, -1, -1):
        unit, named = units[i], pieces[units[i].piece]
        if i < len(units) - 1 and (unit.polarity != "present" or _VERB.search(named.text)):
            break
        unit.polarity = verdict if unit.polarity != "absent" or verdict == "uncertain" else unit.polarity
        listed |= named.joined and named.cut_text not in {",", ":", "(", ")"}
        if not (named.joined and listed) or piece.cut == "turn":
            break


def _alternatives(units: list[Unit], pieces: list[Piece]) -> None:
    """ "scar, atelectasis or pneumonia": the last unit, the one before the "or", and those of the same list are uncertain."""
    if len(units) < 2 or pieces[units[-1].piece].unchanged or units[-1].polarity != "present" or units[-2].polarity == "absent":
        return
    units[-1].polarity = units[-2].polarity = "uncertain"
    for i in range(len(units) - 2, 0, -1):
        piece = pieces[units[i].piece]
        if (
            piece.cut != "join"
            or piece.cut_text != ","
            or FRESH.search(piece.text)
            or piece.structures
            or "either" in piece.text
            or units[i - 1].polarity != "present"
        ):
            break
        units[i - 1].polarity = "uncertain"


def _harmless(piece: Piece) -> bool:
    return all(word in _HARMLESS for word in _WORD.findall(piece.text))


def _drop(low: str, sentence: Sentence, units: list[Unit], pieces: list[Piece]) -> None:
    """Marks what is said of the past, as advice, or as the reason of the examination."""
    text = low[sentence.start : sentence.end]
    advice = [m.start() + sentence.start for m in _ADVICE.finditer(text)]
    history = [m.start() + sentence.start for m in _HISTORY.finditer(text)]
    bounds = [piece.start for piece in pieces if piece.cut in {"start", "turn"} or piece.cut_text == "," or _tells_more(piece)]
    for unit in units:
        after = bisect_right(bounds, pieces[unit.piece].start)
        begin, end = bounds[max(after - 1, 0)], bounds[after] if after < len(bounds) else sentence.end
        if _within(advice, begin, end):
            unit.dropped = "recommendation"
        elif _within(history, begin, pieces[unit.piece].end):
            unit.dropped = "history"
        elif sentence.section == "indication" and unit.polarity != "uncertain":
            unit.dropped = "indication"


def _tells_more(piece: Piece) -> bool:
    """ "A nodule in the left lung *and follow-up is recommended*": what has its own verb, or names nothing, is no part of the list."""
    return piece.cut == "join" and (piece.clause or not (piece.terms or piece.structures or piece.generic))


def _within(places: list[int], begin: int, end: int) -> bool:
    """Whether one of the places, in order, lies between the two."""
    return bisect_left(places, begin) < bisect_left(places, end)


def _share_sides(low: str, units: list[Unit], pieces: list[Piece]) -> None:
    """One side said of two findings that "and" or "or" joins, where grammar says so (`governs`, `placed_side`)."""
    for one, two in pairwise(units):
        first, second = pieces[one.piece], pieces[two.piece]
        joined = second.joined and second.cut_text not in {",", ":", "(", ")"} and two.piece == one.piece + 1
        if not joined or one.polarity != two.polarity:
            continue
        if one.side and not two.side and not second.structures and governs(low[one.start : one.end]):
            two.side = one.side
        elif two.side and not one.side and not first.structures:
            one.side = placed_side(low[two.start : two.end])
