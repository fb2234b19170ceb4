"""One spelling for a sentence, and its words."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

CONSTANT = "image"
"""The one sentence of a text-free twin."""

_TOKEN = re.compile(r"\w+(?:['’\-/]\w+)*")
_INVISIBLE = str.maketrans("", "", "\u00ad\u200b\u2060\ufeff")  # soft hyphen, zero-width space, word joiner, BOM: spreadsheets leave them


def clean(text: str) -> str:
    """NFKC, without invisible characters."""
    return unicodedata.normalize("NFKC", text).translate(_INVISIBLE)


@lru_cache(maxsize=2048)
def normalise(text: str) -> str:
    """The same sentence written once: NFKC, lower case, single spaces, a space on both sides of `, ; : . ! ? ( )`.

    Marks between digits ("3.5") stay. Spelling stays: only `zones` tolerates slips. Idempotent.
    """
    text = unicodedata.normalize("NFKC", clean(clean(text).lower()))
    text = re.sub(r"(?<!\d)([,;:.!?()])|([,;:.!?()])(?!\d)", r" \1\2 ", text)
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """The words of the normalised text; hyphens, slashes and apostrophes inside a word stay ("left-sided")."""
    return _TOKEN.findall(normalise(text))


def word_bag(text: str) -> tuple[str, ...]:
    """The words in alphabetical order: equal for two sentences that differ in word order only."""
    return tuple(sorted(words(text)))
