"""manifest.csv and dataset.json: one row per film and sentence, and what holds for all of them.

A manifest is its owner's file: paths may be absolute, climb with `..` and go through links. Nothing is opened here but the two files;
whether the films can be read is for `verify` and for whoever reads them.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

from ..errors import InputError
from ..io import case_ids
from ..limits import DEFAULT, VARIABLE, Limits, atomic_write, check_file, check_text, safe_id
from ..schemas.base import read_json, write_json
from ..schemas.data import DatasetFile
from ..schemas.files import CSV_COLUMNS
from ..types import Laterality, Sample

MANIFEST, DATASET = "manifest.csv", "dataset.json"
COLUMNS = CSV_COLUMNS["manifest.csv"]
TEXTS = ("text", "label")  # those of them that a model may be asked
LATERALITIES: tuple[str, ...] = get_args(Laterality)
_FLAGS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class Dataset:
    """A manifest that was read. `root` is the folder that its relative paths start from."""

    path: Path
    info: DatasetFile
    root: Path
    samples: tuple[Sample, ...]

    @property
    def name(self) -> str:
        """The data set's name, which seeds the choice of dev."""
        return self.info.name

    @property
    def laterality(self) -> Laterality:
        """Whose left its sentences mean, where a row does not say otherwise."""
        return self.info.laterality

    def split(self, name: str) -> list[Sample]:
        """The samples of one split, in the manifest's order. InputError empty_split names the splits that exist."""
        found = [s for s in self.samples if s.split == name]
        if not found:
            there = sorted({s.split for s in self.samples if s.split})
            fix = f"It has: {', '.join(there)}." if there else "Fill in the column split, or import the data anew."
            raise InputError(f"the manifest has no split {name!r}", self.path, fix, "empty_split")
        return found


def read_manifest(path: str | Path, *, text_column: str = "text", need_masks: bool = True, limits: Limits = DEFAULT) -> Dataset:
    """A manifest, or the folder it lies in, with its dataset.json where there is one.

    `need_masks=False` reads a jobs file. Without dataset.json paths start from the manifest's folder, and laterality is `none` unless the
    column says otherwise. InputError: text_column (it holds no texts), not_a_manifest, those of read_table, of samples_of, and of
    dataset.json.
    """
    file = Path(path)
    if file.is_dir():
        file = file / MANIFEST
    if file.suffix.lower() == ".json":
        raise InputError("this is not a manifest", path, f"Give the {MANIFEST} beside it, or its folder.", "not_a_manifest")
    if text_column in COLUMNS and text_column not in TEXTS:
        fix = f"Name {' or '.join(TEXTS)}, or a column of your own."
        raise InputError(f"the column {text_column} holds no texts", path, fix, "text_column")
    beside = file.parent / DATASET
    check_file(file)
    info = read_json(beside, DatasetFile) if beside.exists() else DatasetFile(name=file.resolve().parent.name or "data")
    root = file.parent / info.root
    required = ("image", "mask", text_column) if need_masks else ("image", text_column)
    rows = list(read_table(file, required, limits))
    return Dataset(file, info, root, samples_of(rows, file, root, info, text_column, need_masks))


def samples_of(
    rows: Sequence[Mapping[str, str]], file: Path, root: Path, info: DatasetFile, text_column: str = "text", need_masks: bool = True
) -> tuple[Sample, ...]:
    """The rows of `file` as samples. InputError names the row: no_rows, missing_cell, bad_cell, duplicate_id."""
    if not rows:
        raise InputError("there are no rows", file, "Add a row per film and sentence.", "no_rows")
    for number, row in enumerate(rows, 1):
        for column in ("image", "mask") if need_masks else ("image",):
            if not row[column]:
                raise _cell(file, number, column, "is empty", "Fill it in, or leave the row out.", "missing_cell")
    ids = _ids([root / row["image"] for row in rows], [row.get("id", "") for row in rows], file)
    return tuple(_sample(file, n, row, one, root, info, text_column) for n, (row, one) in enumerate(zip(rows, ids, strict=True), 1))


def write_manifest(folder: str | Path, rows: Sequence[Mapping[str, str]], info: DatasetFile) -> Path:
    """Writes dataset.json and manifest.csv, each whole or not at all, every cell exactly as given; returns the path of the manifest.

    The columns are those that some row has: image, mask, text first, then those of the contract, then others as they come.
    InputError text_encoding where a cell, for example the name of a file, is not valid Unicode.
    """
    target = Path(folder) / MANIFEST
    given = dict.fromkeys(name for row in rows for name in row)
    columns = [*COLUMNS[:3], *(c for c in COLUMNS[3:] if c in given), *(c for c in given if c not in COLUMNS)]
    for number, row in enumerate(rows, 1):
        for column, value in row.items():
            check_text(value, f"{target}, row {number}, column {column}")
    write_json(Path(folder) / DATASET, info)
    atomic_write(target, table(columns, rows))
    return target


def table(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> str:
    """A CSV table as text; a column that a row lacks is empty."""
    cells = [list(columns), *([row.get(c, "") for c in columns] for row in rows)]
    # Before Python 3.13 the csv module leaves a bare carriage return unquoted and would read it back as the end of the row.
    bare = any("\r" in cell for line in cells for cell in line)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL).writerows(cells)
    return out.getvalue()


def read_table(path: str | Path, required: Sequence[str], limits: Limits = DEFAULT) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header, cells exact; blank lines are left out, a byte order mark is tolerated.

    InputError: those of check_file, encoding (not UTF-8), missing_column with the nearest name, duplicate_column, bad_row, unreadable,
    and those of check_text for each cell, with its row.
    """
    file = check_file(path)
    # The csv module's own limit is a setting of the whole process: it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), limits.text_bytes))
    number = 0
    try:
        with open(file, encoding="utf-8-sig", newline="") as f:
            lines = (line for line in csv.reader(f, strict=True) if any(line))
            header = [name.strip() for name in next(lines, [])]
            _check_header(path, header, required)
            for number, line in enumerate(lines, 1):
                if len(line) != len(header):
                    raise InputError(
                        f"row {number} has {len(line)} cells, the header has {len(header)}",
                        path,
                        'Put cells with commas in quotes, and write a quote inside as "".',
                        "bad_row",
                    )
                for column, cell in zip(header, line, strict=True):
                    check_text(cell, f"{path}, row {number}, column {column}", limits)
                yield dict(zip(header, line, strict=True))
    except UnicodeDecodeError as e:
        raise InputError("the table is not UTF-8 text", path, "Save it as CSV UTF-8.", "encoding") from e
    except csv.Error as e:
        long = "field limit" in str(e)
        what = "a cell is longer than the limit, or a quote is never closed" if long else f"not readable as CSV ({e})"
        code = "text_too_long" if long else "bad_row"
        fix = "Look at the quotes of this row." + (f" Longer cells are allowed by {VARIABLE}=text_bytes=N." if long else "")
        raise InputError(what, f"{path}, row {number + 1}", fix, code) from e
    except OSError as e:
        raise InputError(f"the file cannot be read ({e.strerror})", path, "Check the path and its permissions.", "unreadable") from e


def parse_spacing(text: str) -> tuple[tuple[float, float] | None, float | None]:
    """(row, column) distance and that of slices, in mm, from "0.5 0.5", "0.5,0.5" or "0.5 x 0.5 x 3"; None for what is not there.

    ValueError otherwise.
    """
    parts = re.split(r"\s*[,;x×]\s*|\s+", text.strip().lower())
    if parts == [""]:
        return None, None
    row, column, *between = (float(p) for p in parts)
    if len(between) > 1 or not all(math.isfinite(v) and v > 0 for v in (row, column, *between)):
        raise ValueError("two or three distances above 0")
    return (row, column), between[0] if between else None


def parse_flag(text: str, default: bool) -> bool:
    """1, true, yes and 0, false, no in any case; `default` for an empty text. ValueError otherwise."""
    value = text.strip().lower()
    if value and value not in _FLAGS:
        raise ValueError("not a flag")
    return _FLAGS.get(value, default)


def near(name: str, names: Sequence[str]) -> str:
    """ " (nearest: X)" for the most similar of `names`, else ""."""
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], 1, cutoff=0.5)
    return next((f" (nearest: {n})" for n in names if close and n.lower() == close[0]), "")


def _check_header(path: str | Path, header: list[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in header]
    twice = [name for name, n in Counter(header).items() if n > 1]
    if twice and not missing:
        raise InputError(f"the column {twice[0]!r} stands there twice", path, "Rename or delete one.", "duplicate_column")
    if not missing:
        return
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        raise InputError("the columns are not separated by commas", path, "Save it as CSV with commas.", "missing_column")
    wanted = ", ".join(f"{name}{near(name, header)}" for name in missing)
    known = {*required, *COLUMNS}.intersection(header)  # else the first line may be no header, but somebody's data
    has = f"It has: {', '.join(header)}." if known else "Its first line names none that is known."
    fix = f"{has} A manifest needs {', '.join(required)}."
    raise InputError(f"missing column {wanted}", path, fix, "missing_column")


def _ids(images: Sequence[Path], given: Sequence[str], file: Path) -> list[str]:
    """The ids of the rows: as given, as a name for files; else from the image. InputError duplicate_id."""
    ids = [safe_id(own) if own else made for own, made in zip(given, case_ids(images), strict=True)]
    first: dict[str, int] = {}
    for number, one in enumerate(ids, 1):
        if one in first:
            fix = "Give each row its own id, or leave the column out."
            raise InputError(f"the id {one!r} stands in row {first[one]} and in row {number}", file, fix, "duplicate_id")
        first[one] = number
    return ids


def _sample(file: Path, number: int, row: Mapping[str, str], one: str, root: Path, info: DatasetFile, text_column: str) -> Sample:
    def flag(column: str, default: bool) -> bool:
        try:
            return parse_flag(row.get(column, ""), default)
        except ValueError as e:
            raise _cell(file, number, column, "is neither 0 nor 1", "Write one of them, or nothing.") from e

    whose = row.get("laterality", "").strip().lower() or info.laterality
    if whose not in LATERALITIES:
        raise _cell(file, number, "laterality", "is none of ours", f"Write {', '.join(LATERALITIES)}, or nothing.")
    try:
        spacing, between = parse_spacing(row.get("spacing_mm", ""))
    except ValueError as e:
        raise _cell(
            file,
            number,
            "spacing_mm",
            "is no spacing",
            "Write row and column distance in mm, as in 0.5 0.5; of volumes also that of slices: 0.5 0.5 3.",
        ) from e
    layer = row.get("slice", "").strip()
    if not re.fullmatch(r"([+-]?[0-9]{1,9})?", layer):
        raise _cell(file, number, "slice", "is no number", "Write a whole number.")
    return Sample(
        id=one,
        image=root / row["image"],
        mask=root / row["mask"] if row.get("mask") else None,
        text=row[text_column],
        split=row.get("split", "").strip(),
        patient=row.get("patient", "").strip(),
        laterality=cast(Laterality, whose),
        flip_safe=flag("flip_safe", False),
        text_source=row.get("text_source", ""),
        label=row.get("label", ""),
        present=flag("present", True),
        complete=flag("complete", True),
        subsets=tuple(dict.fromkeys(s.strip() for s in row.get("subsets", "").split(";") if s.strip())),
        study=row.get("study", ""),
        slice=int(layer) if layer else None,
        spacing_mm=spacing,
        slice_mm=between,
        row=number,
        extra={k: v for k, v in row.items() if k not in COLUMNS or (k == "text" and text_column != "text")},
    )


def _cell(file: Path, number: int, column: str, what: str, fix: str, code: str = "bad_cell") -> InputError:
    return InputError(f"{column} {what} in row {number}", file, fix, code)
