"""What a form answers: "Pneumothorax: none", "Effusion - no", "Effusion (none)", "Effusion? No.", "Pneumothorax: [ ] yes [x] no".

An answer is the whole of what follows its mark, so "Effusion: no change" and "Nodule: No. 3" are none. All texts here are folded
(`sentences.fold`), and every expression is bounded in what it looks at.
"""

from __future__ import annotations

import re

from ..types import Polarity
from . import lexicon as lex

_YES, _NO, _UNSURE = (lex.alternation(words) for words in (lex.YES, lex.NO, lex.UNSURE))
_ANY = lex.alternation(f"{lex.YES} | {lex.NO} | {lex.UNSURE}")
_WORDS = rf"(?:(?P<yes>{_YES})|(?P<no>{_NO})|(?P<unsure>{_UNSURE}))(?!\w)"
_BOX = r"(?:\[[ \t]?[x✓✔✗✘*]?[ \t]?\]|\([ \t]?[x✓✔✗✘*]?[ \t]?\)|[☐☑☒])"
_CHOICE = rf"{_BOX}[ \t]{{0,3}}(?:{_YES}|{_NO}|{_UNSURE})(?!\w)"
_CHOICES = rf"{_CHOICE}(?:[ \t,/]{{0,4}}{_CHOICE}){{0,3}}"
_MARK = r"(?:[:(=]|(?<!\?)\?+|(?<=[ \t])--?(?=[ \t]))"
_END = r"(?=[ \t]{0,4}(?:\.(?![ \t]{0,3}\d)|[,;!)(\n\r]|(?:and|but)\b|$))"

#: The mark in front of an answer: a box needs none, nor does "effusion absent", so there it is empty.
MARK = rf"(?:{_MARK}(?=[ \t]{{0,4}}(?:{_CHOICES}|{_ANY}(?!\w)){_END})|(?={_CHOICES}{_END})|(?<=[\w)][ \t])(?=absent{_END}))"
_ANSWER = re.compile(rf"{_MARK}?[ \t]{{0,4}}(?:{_CHOICES}|{_WORDS}){_END}")
_CHECKED = re.compile(rf"(?:\W[x✓✔✗✘*]\W|[☑☒])[ \t]{{0,3}}{_WORDS}")
_LINE = re.compile(rf"{_MARK}[ \t]{{0,4}}(?:{_CHOICES}|{_ANY})[ \t]{{0,80}}\r?$")


def answer(low: str, start: int, end: int) -> Polarity:
    """What the answer whose mark stands at `start` says; uncertain where no box is ticked, or boxes that contradict each other."""
    told = _ANSWER.match(low, start, end)
    if told is None:
        raise ValueError(f"no answer stands at {start}")
    said = {told.lastgroup} if told.lastgroup else {mark.lastgroup for mark in _CHECKED.finditer(told.group())}
    return "absent" if said == {"no"} else "present" if said == {"yes"} else "uncertain"


def answered(low: str, place: int) -> bool:
    """Whether an answer follows the mark at `place`."""
    return bool(_ANSWER.match(low, place))


def ends_answered(line: str) -> bool:
    """Whether the line ends with an answer."""
    return bool(_LINE.search(line))
