"""What the program knows about sentences without a model: one spelling, side words, clauses, zones, denial, and the text controls.

Sides are only words here: whose left is meant (`laterality`) is decided by the caller. `swap_sides` serves both the mirrored film of
training and the conversion between the image's and the patient's side. `swap_sides` and `unknown_sides` read one lexicon, so what one
cannot swap the other reports, and a sentence that is only half understood is never flipped.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

CONSTANT = "image"
"""The one sentence of a text-free twin."""

LEVELS = ("upper", "middle", "lower")
SIDES = ("left", "right")

_WORD = re.compile(r"[^\W\d_]+")
_TOKEN = re.compile(r"\w+(?:['’\-/]\w+)*")
_INVISIBLE = str.maketrans("", "", "\u00ad\u200b\u2060\ufeff")  # soft hyphen, zero-width space, word joiner, BOM: spreadsheets leave them

# ---------------------------------------------------------------- one spelling


def _clean(text: str) -> str:
    return unicodedata.normalize("NFKC", text).translate(_INVISIBLE)


@lru_cache(maxsize=2048)
def normalise(text: str) -> str:
    """The same sentence written once: NFKC, lower case, single spaces, a space on both sides of `, ; : . ! ? ( )`.

    Marks between digits ("3.5") stay. Spelling stays: only `zones` tolerates slips. Idempotent.
    """
    text = unicodedata.normalize("NFKC", _clean(_clean(text).lower()))
    text = re.sub(r"(?<!\d)([,;:.!?()])|([,;:.!?()])(?!\d)", r" \1\2 ", text)
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """The words of the normalised text; hyphens, slashes and apostrophes inside a word stay ("left-sided")."""
    return _TOKEN.findall(normalise(text))


def word_bag(text: str) -> tuple[str, ...]:
    """The words in alphabetical order: equal for two sentences that differ in word order only."""
    return tuple(sorted(words(text)))


# ---------------------------------------------------------------- sides

_PAIRS = {"left": "right", "lul": "rul", "lll": "rll", "lingula": "rml", "luq": "ruq", "llq": "rlq", "leflung": "righlung"}
_SWAP = _PAIRS | {b: a for a, b in _PAIRS.items()}  # a slip swaps with a slip, so that swapping twice gives the sentence back
_SWAP_BEFORE_LUNG = {"lift": "rigth", "rigth": "lift"}  # "lower lift lung" stands in QaTa-COV19; elsewhere "lift" is a verb

#: Words that QaTa-COV19 and its like glue together: "lowerright", "rightlung", "upperlower", "leftsided".
_PIECES = (
    "left right upper higher middle lower top bottom center centre all lungs lung lobes lobe zones zone and infected "
    "sided side wards ward most one two three four five six"
).split()
_GLUED = re.compile("(?:" + "|".join(_PIECES) + "){2,6}")
_PIECE = re.compile("|".join(_PIECES))

#: Words that name a side and that the lexicon cannot swap: abbreviations, Latin, curvatures, other languages.
_FOREIGN_SIDES = frozenset(
    """
    lt rt lhs rhs lf leftish rightish lingular rij lij rsc lsc dexter dextra dextrum dextral sinister sinistra sinistrum sinistral
    dextroscoliosis levoscoliosis dextrocurvature levocurvature dextroconvex levoconvex dextroposition levoposition dextrocardia levocardia
    links linke linker linken linkes linksseitig rechts rechte rechter rechten rechtes rechtsseitig linkerlong rechterlong
    gauche gauches droit droite droits droites izquierda izquierdo izquierdas izquierdos derecha derecho derechas derechos
    esquerda esquerdo direita direito sinistro sinistre sinistri destra destro destre destri vänster höger venstre højre høyre
    lewa lewy lewe prawa prawy prawe левый левая левое левого левой слева правый правая правое правого правой справа
    sağ يسار يمين اليسرى اليمنى 왼쪽 오른쪽 좌측 우측
    """.split()
)
_SIDE_SIGNS = re.compile("[左右]")
_LETTER = re.compile(
    r"(?<![\w'’.\-/])(?:[RL](?![\w'’])(?!-?\s?spine)|"
    r"[rl](?=\.(?!\w)|[-\s](?:sided?|lungs?|lobes?|chest|bases?|apex|hemithorax|upper|lower|mid|middle)\b))"
)
_OCLOCK = re.compile(r"\b\d{1,2}(?::\d\d)?\s*o['’]?\s?clock\b", re.IGNORECASE)
_LUNG_NEXT = re.compile(r"\s*l?ungs?\b", re.IGNORECASE)


def _copy_case(model: str, word: str) -> str:
    if "rml" in (word, model.lower()):
        return "RML" if word == "rml" else word  # an abbreviation against a common noun: no case to copy
    if model.isupper():
        return word.upper()
    return word.capitalize() if model[:1].isupper() else word


def _swap_match(match: re.Match[str]) -> str:
    word = match.group()
    low = word.lower()
    if low in _SWAP:
        return _copy_case(word, _SWAP[low])
    if low in _SWAP_BEFORE_LUNG and _LUNG_NEXT.match(match.string, match.end()):
        return _copy_case(word, _SWAP_BEFORE_LUNG[low])
    if ("left" in low or "right" in low) and len(low) == len(word) and _GLUED.fullmatch(low):
        return _PIECE.sub(lambda m: _copy_case(word[m.start() : m.end()], _SWAP.get(m.group(), word[m.start() : m.end()])), low)
    return word


@lru_cache(maxsize=2048)
def swap_sides(text: str) -> str:
    """The sentence with left and right exchanged; case is kept where it can be, everything else stays.

    Covers left/right (also "-sided", "left of the image", glued "lowerright"), RUL RLL LUL LLL, RML <-> lingula, the quadrants; "bilateral"
    stays. Raises nothing. Applied twice it gives a covered sentence (`can_swap`) back, up to `normalise`. Does not look at `unknown_sides`.
    """
    clean = _clean(text)
    swapped = _WORD.sub(_swap_match, clean)
    return text if swapped == clean else swapped


def unknown_sides(text: str) -> list[str]:
    """Side words outside the lexicon, in order, lower case: "lt", the "l" of "L-sided", "links", "3 o'clock", a slip ("rihgt lung")."""
    return list(_unknown_sides(text))


@lru_cache(maxsize=2048)
def _unknown_sides(text: str) -> tuple[str, ...]:
    clean = _clean(text)
    found: list[tuple[int, str]] = []
    for match in _WORD.finditer(clean):
        low = match.group().lower()
        slip = low not in _SWAP and low not in _SWAP_BEFORE_LUNG and low not in SIDES and _is_side_slip(low)
        if low in _FOREIGN_SIDES or (slip and _LUNG_NEXT.match(clean, match.end())):
            found.append((match.start(), low))
    for pattern in (_SIDE_SIGNS, _LETTER, _OCLOCK):
        found += [(m.start(), m.group().lower()) for m in pattern.finditer(clean)]
    return tuple(word for _, word in sorted(found))


def has_side(text: str) -> bool:
    """Whether the text names a side in any way, known or not ("bilateral" is none): then it matters whose left is meant."""
    return swap_sides(text) != text or bool(unknown_sides(text))


def can_swap(text: str) -> bool:
    """Whether `swap_sides` covers every side word of the text; true for a text without any."""
    return not unknown_sides(text)


# ---------------------------------------------------------------- clauses

_CUT = re.compile(r"(?<!\d)[,;.!?]|[,;.!?](?!\d)|[，；。、！？]|\band\b", re.IGNORECASE)


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


# ---------------------------------------------------------------- zones

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
_BOTH = {"bilateral", "bilaterally", "both"}
_NOT_A_SLIP = frozenset(
    """
    flower power tower slower mower rower cower bower lowers lowed supper super riddle fiddle piddle meddle muddle
    light night might sight fight tight eight weight bright fright wright height rights
    lift loft lefts deft heft weft cleft eft let lent lest felt
    """.split()
)
_IMAGE_PLACE = re.compile(r"\b(?:in|at|on) (?:the )?(.{1,200}?) (?:of|in) (?:the )?(?:\w+ ){0,2}(?:image|picture|frame)\b")


def _one_slip(word: str, target: str) -> bool:
    """One letter added, left out, changed, or two neighbours exchanged."""
    if word == target or abs(len(word) - len(target)) > 1:
        return False
    i = 0
    while i < min(len(word), len(target)) and word[i] == target[i]:
        i += 1
    a, b = word[i:], target[i:]
    return a[1:] == b or a == b[1:] or a[1:] == b[1:] or (len(a) > 1 and len(b) > 1 and a[0] == b[1] and a[1] == b[0] and a[2:] == b[2:])


def _is_side_slip(word: str) -> bool:
    return word not in _NOT_A_SLIP and any(_one_slip(word, side) for side in SIDES)


def _level_slip(word: str) -> str:
    if len(word) < 4 or word in _NOT_A_SLIP:
        return ""
    return next((level for level in LEVELS if _one_slip(word, level)), "")


def _zone_words(text: str) -> list[str]:
    """The words the parser reads, glued words cut apart and slips mended; separators stay as ",", "." and "and"."""
    out: list[str] = []
    tokens = re.findall(r"[^\W\d_]+|[,;]|\.(?!\d)", text)
    for i, token in enumerate(tokens):
        before_lung = i + 1 < len(tokens) and tokens[i + 1] in {"lung", "lungs", "ung"}
        if token in {"leflung", "righlung"}:
            out += ["left" if token == "leflung" else "right", "lung"]
        elif token in _LEVEL_WORDS or token in _SWAP or token in _NOUNS:
            out.append(token)
        elif before_lung and (token == "lift" or _is_side_slip(token)):
            out.append("left" if token == "lift" or _one_slip(token, "left") else "right")
        elif _GLUED.fullmatch(token):
            out += _PIECE.findall(token)
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
        groups = _groups(segment)
        for position, (sides, levels) in enumerate(groups):
            if sides:
                levels = pending + levels
                pending = []
                if not levels and previous[0] and previous[1] and not previous[2]:
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
                found |= {(s, level) for s in previous[0] for level in _levels(levels)}  # "left upper and lower lobes"
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


# ---------------------------------------------------------------- denial

_SENTENCE = re.compile(r"(?<!\d)[.;!?]|[.;!?](?!\d)")
_FRAME = (
    r"(?:(?:there|is|are|was|were|the|a|an|this|it|both|left|right|lungs?|lobes?|fields?|zones?|upper|middle|lower|chest|film|image|radiograph|x-ray|"
    r"xray|ct|scan|study|patient|shows?|has|have|demonstrates?|appears?|currently|again|specifically,?|impression|findings)\s+|:\s*)*"
)
_DENIES = re.compile(
    _FRAME + r"(?:no|without|negative for|free (?:of|from)|absence of|absent|lack of|lacks|lacking|neither|never|"
    r"(?:not|n't) (?:show|have|contain|demonstrate|seen|any)|do(?:es)? not (?:show|have|contain|demonstrate))\b"
)
_SEEN = (
    r"(?:\w+ly )?(?:seen|present|identified|visible|visuali[sz]ed|detected|observed|evident|noted|found|appreciated|demonstrated|apparent)"
)
_DENIED_AFTER = re.compile(rf"\b(?:is|are|was|were|be|been)?\s*(?:(?:not|no longer|never) {_SEEN}|absent|ruled out)\b")
_CLEAR = re.compile(
    r"^(?:(?:the |both |left |right )*(?:lungs?|lung fields?|lung zones?) (?:(?:is|are|appears?|remains?|were|was) )?(?:\w+ly )?clear|"
    r"clear lungs?)\b"
)
_NOT_A_DENIAL = re.compile(
    "|".join(
        (
            r"\bno\b(?: \w+){0,2} (?:change|increase|decrease|improvement|progression|worsening|resolution|difference)s?\b",
            r"\bno\b.{0,80}\b(?:known|enlargement)\b",
            r"\bno (?:new|other|further|additional|more)\b",
            r"\b(?:no|without) (?:doubt|exclu\w+)",
            r"\bwithout (?:\w+ )?(?:change|improvement|resolution)\b",
            r"\bnot only\b",
            r"\b(?:not|cannot|can't) (?:be )?(?:excluded?|ruled? out)\b",
            r"\bunchanged\b",
            rf"\bno longer\b(?! {_SEEN})",
        )
    )
)
_AFFIRMED = re.compile(r"\b(?:which|that|who|if|when|is|are|was|were|has|have|seen|noted)\b")
_CARRIES = re.compile(_FRAME + r"clear (?:of|without)\b")
_TURN = re.compile(r"\b(?:but|however|except|although|though|yet|other than|apart from|besides|aside from|with)\b")


@lru_cache(maxsize=2048)
def is_negated(text: str) -> bool:
    """Whether the whole prompt denies ("no pleural effusion", "lungs are clear"). A mixed prompt does not.

    Every sentence, and every part joined by a comma or "and", must deny for itself; "or" carries a denial on ("no effusion, nodule or
    mass"). In doubt the answer is no: a mask too many can be seen and judged, a mask that was withheld cannot. "no change in opacity"
    denies nothing.
    """
    sentences = [s.strip() for s in _SENTENCE.split(" ".join(_clean(text).lower().split()))]
    sentences = [s for s in sentences if any(c.isalnum() for c in s)]
    return bool(sentences) and all(_sentence_denies(s) for s in sentences)


def _sentence_denies(sentence: str) -> bool:
    if _NOT_A_DENIAL.search(sentence):
        return False
    if "or" in sentence.split() or "nor" in sentence.split():
        head, _, _ = sentence.partition(" or " if " or " in sentence else " nor ")
        carried = _DENIES.match(head) or _CARRIES.match(head)
        if carried and not _TURN.search(sentence) and not re.search(r"\b(?:and|there (?:is|are))\b", sentence[carried.end() :]):
            return True
    parts = [p.strip() for p in re.split(r",|\band\b", sentence) if p.strip()]
    return all(_part_denies(p) for p in parts)


def _part_denies(part: str) -> bool:
    turn = _TURN.search(part)
    if turn and turn.start() > 0 and not _DENIES.match(part[: turn.start()].strip() + " "):
        return False
    if turn and not _DENIES.match(part[turn.end() :].strip()):
        return False
    after = _DENIED_AFTER.search(part)
    return bool(_DENIES.match(part) or _CLEAR.search(part) or (after and not _AFFIRMED.search(part[: after.start()])))


# ---------------------------------------------------------------- the text controls


def shuffled(texts: Sequence[str], seed: int) -> list[int | None]:
    """For each row the index of the row whose sentence it gets: the *shuffled* control.

    A seeded permutation: the multiset of sentences stays and no row gets its own normalised sentence. Where one sentence fills over half of
    the rows that is impossible; its surplus rows, drawn at random, get None: they are left out and their sentence is given to nobody.
    """
    rng = random.Random(seed)
    keys = [normalise(text) for text in texts]
    groups: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        groups.setdefault(key, []).append(row)
    order = list(groups.values())
    for rows in order:
        rng.shuffle(rows)
    rng.shuffle(order)
    largest = max(order, key=len, default=[])
    del largest[: max(0, 2 * len(largest) - len(keys))]
    # Equal sentences stand together, so a rotation by the largest group's size takes every row out of its own group.
    rows = [row for group in order for row in group]
    size = max(map(len, order), default=0)
    donor: list[int | None] = [None] * len(keys)
    for i, row in enumerate(rows):
        donor[row] = rows[(i + size) % len(rows)]
    # The rotation hands whole groups to one neighbour; random exchanges that break no rule mix it.
    for _ in range(4 * len(rows)):
        a, b = rng.choice(rows), rng.choice(rows)
        da, db = donor[a], donor[b]
        if da is not None and db is not None and keys[a] != keys[db] and keys[b] != keys[da]:
            donor[a], donor[b] = db, da
    return donor


def swapped_rows(texts: Sequence[str]) -> list[int]:
    """Rows that the *swapped-side* control scores: every side word is known and the zones change under `swap_sides`."""
    return [i for i, text in enumerate(texts) if can_swap(text) and zones(swap_sides(text)) != zones(text)]
