"""log.jsonl of a run: a line for each thing that was measured at a step, and the curves that a bundle keeps of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .limits import atomic_write
from .schemas.training import MAX_CURVE_POINTS


class RunLog:
    """The lines of a run, as `rows` and in the file at `path`. A run that goes on at `step` keeps those up to it, but for one that a kill
    cut short.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["step"] <= step:
                self.rows.append(row)
        atomic_write(path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, step: int, **values: Any) -> None:
        """One line; numbers with six digits after the point."""
        row = {"step": step, **{name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}}
        self.rows.append(row)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def curves(self) -> dict[str, list[tuple[int, float]]]:
        """Name to (images seen, value), each thinned to what a bundle may hold."""
        names = {name for row in self.rows for name in row} - {"step", "images", "alarm"}
        found = {name: [(r["images"], r[name]) for r in self.rows if name in r and math.isfinite(r[name])] for name in sorted(names)}
        return {name: _thinned(points) for name, points in found.items()}


def _thinned(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most `MAX_CURVE_POINTS`, evenly, with the first and the last: where the training ended is what is read most."""
    last = len(points) - 1
    return points if last < MAX_CURVE_POINTS else [points[i * last // (MAX_CURVE_POINTS - 1)] for i in range(MAX_CURVE_POINTS)]
