"""The text controls of an evaluation: which sentence a row gets instead of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .places import zones
from .sides import can_swap, swap_sides
from .spelling import normalise


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
