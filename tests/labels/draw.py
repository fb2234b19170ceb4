"""Prints the 300 drawn sentences: python tests/labels/draw.py reports.csv. Nothing is stored."""

from __future__ import annotations

import csv
import random
import re
import sys
from collections.abc import Iterator

Row = dict[str, str]


def sentences(cell: str) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of 3 words or more of which at most half are anonymised."""
    start = 0
    for stop in re.finditer(r"[.?!](?=\s|$)|$", cell):
        a, b, start = start, stop.end(), stop.end()
        words = cell[a:b].split()
        if len(words) >= 3 and 2 * sum("XXXX" in word for word in words) <= len(words):
            yield a + len(cell[a:b]) - len(cell[a:b].lstrip()), a + len(cell[a:b].rstrip())


def draw(rows: list[Row]) -> list[tuple[Row, str, int, int, str]]:
    """(row, column, start, end, half): one sentence of a report, reports whose uid ends in 3 to 9, 300 in all."""
    rng = random.Random(20261124)
    pool = [row for row in rows if int(row["uid"]) % 10 >= 3]
    rng.shuffle(pool)
    drawn = []
    for row in pool:
        places = [(column, a, b) for column in ("findings", "impression") for a, b in sentences(row[column] or "")]
        if places and len(drawn) < 300:
            drawn.append((row, *rng.choice(places)))
    halves = ["dev"] * 150 + ["held"] * 150
    rng.shuffle(halves)
    return [(*place, half) for place, half in zip(drawn, halves, strict=True)]


if __name__ == "__main__":
    with open(sys.argv[1], newline="", encoding="utf-8") as file:
        for row, column, start, end, half in draw(list(csv.DictReader(file))):
            print(row["uid"], column, start, end, half, row[column][start:end], sep="\t")
