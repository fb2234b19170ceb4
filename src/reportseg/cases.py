"""cases.csv, the scores of each case, and failures.csv, the cases that could not be read. Neither holds a text or a path."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .data.manifest import read_table, table
from .errors import InputError
from .limits import atomic_write, csv_cell
from .schemas.files import CSV_COLUMNS
from .types import CaseScore

METRICS, CASES, FAILURES = "metrics.json", "cases.csv", "failures.csv"  # what an evaluation leaves
OPTIONAL = ("presence", "uncertainty", "disagreement")  # empty where a case has none
LATER = ("uncertainty", "disagreement")  # columns that older tables lack


def write_cases(path: str | Path, cases: Sequence[CaseScore]) -> None:
    """Numbers are exact; what a case does not have is empty; warnings are separated by semicolons."""
    rows = [
        {
            "id": csv_cell(case.id),
            "patient": csv_cell(case.patient),
            "text_name": csv_cell(case.text_name),
            **{name: repr(getattr(case, name)) for name in ("tp", "fp", "fn", "dice", "iou", "hd95", "nsd", "area_px")},
            **{name: "" if (value := getattr(case, name)) is None else repr(value) for name in OPTIONAL},
            "present_truth": str(int(case.present_truth)),
            "warnings": ";".join(case.warnings),
        }
        for case in cases
    ]
    atomic_write(path, table(CSV_COLUMNS[CASES], rows))


def read_cases(path: str | Path) -> list[CaseScore]:
    """The cases of a cases.csv, or of the one in a folder. InputError: those of read_table, bad_cell with its row, duplicate_id."""
    file = Path(path) / CASES if Path(path).is_dir() else Path(path)
    cases: dict[str, CaseScore] = {}
    required = [name for name in CSV_COLUMNS[CASES] if name not in LATER]
    for number, row in enumerate(read_table(file, required), 1):
        try:
            case = _case(row)
        except ValueError as error:
            raise InputError(f"row {number} is not that of a case ({error})", file, "Evaluate again.", "bad_cell") from error
        if case.id in cases:
            raise InputError(f"row {number} is the second one of the case {case.id!r}", file, "Evaluate again.", "duplicate_id")
        cases[case.id] = case
    return list(cases.values())


def write_failures(path: str | Path, failures: Mapping[str, InputError]) -> None:
    """One row a case; where none failed there is no file, not even that of an earlier evaluation."""
    if not failures:
        with suppress(FileNotFoundError):
            Path(path).unlink()
        return
    rows = [{"id": csv_cell(id), "code": e.code, "what": csv_cell(e.what), "fix": csv_cell(e.fix)} for id, e in failures.items()]
    atomic_write(path, table(CSV_COLUMNS[FAILURES], rows))


def _case(row: Mapping[str, str]) -> CaseScore:
    """ValueError for a number that is none."""
    number = {name: float(row[name]) for name in ("dice", "iou", "hd95", "nsd")}
    if not all(math.isfinite(value) and value >= 0 for value in number.values()):
        raise ValueError("a score is not finite")
    return CaseScore(
        id=_plain(row["id"]),
        patient=_plain(row["patient"]),
        text_name=_plain(row["text_name"]),
        tp=int(row["tp"]),
        fp=int(row["fp"]),
        fn=int(row["fn"]),
        dice=number["dice"],
        iou=number["iou"],
        hd95=number["hd95"],
        nsd=number["nsd"],
        **{name: float(cell) if (cell := row.get(name)) else None for name in OPTIONAL},
        present_truth=bool(int(row["present_truth"])),
        area_px=int(row["area_px"]),
        warnings=tuple(code for code in row["warnings"].split(";") if code),
    )


def _plain(cell: str) -> str:
    """The text without the apostrophe that `csv_cell` has put before it."""
    return cell[1:] if cell.startswith("'") and csv_cell(cell[1:]) == cell else cell
