"""What the program knows about sentences without a model: spelling, sides, clauses, zones, findings, denial, and the text controls."""

from .controls import shuffled, swapped_rows
from .language import FOREIGN, NAMED
from .places import LEVELS, zones
from .reading import Reading, Skipped, findings, is_negated, read_report
from .sentences import clauses
from .sides import SIDES, can_swap, has_side, swap_sides, unknown_sides
from .spelling import CONSTANT, normalise, word_bag, words

__all__ = [
    "CONSTANT",
    "FOREIGN",
    "LEVELS",
    "NAMED",
    "SIDES",
    "Reading",
    "Skipped",
    "can_swap",
    "clauses",
    "findings",
    "has_side",
    "is_negated",
    "normalise",
    "read_report",
    "shuffled",
    "swap_sides",
    "swapped_rows",
    "unknown_sides",
    "word_bag",
    "words",
    "zones",
]
