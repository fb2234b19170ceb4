"""Tables of the columns Image and Description, as .xlsx or CSV, and their match with films and masks by stem."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import InputError
from ...limits import DEFAULT, Limits, check_file, check_text
from ...text import can_swap, words
from ..manifest import near, read_table
from .found import Found

HEADER = ("Image", "Description")
MAX_ROWS, MAX_COLUMNS = 2**20, 64  # a sheet is padded to the last cell that it mentions, so a few bytes could ask for billions of cells
MAX_SHEET_BYTES = 256 * 2**20  # unpacked
MASK = "mask_"  # QaTa-COV19 names its masks, and the sheet the masks
_SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)_")
_CHEST = frozenset(["lung", "lungs", "pulmonary", "chest", "thorax"])


class Line(NamedTuple):
    """One row of a sheet; `where` is the file and the row's number in it, the header being row 1."""

    where: str
    split: str
    name: str
    text: str


# ---------------------------------------------------------------- rows of a manifest


def add_rows(
    found: Found, images: Mapping[str, Path], masks: Mapping[str, Path], lines: Sequence[Line], limits: Limits, about: str = ""
) -> None:
    """Adds a row for each line whose film and mask are there, and reports what has no partner; `about` begins the messages.

    `images` and `masks` are by stem. Of equal lines of a split the first counts. InputError: those of check_text.
    """
    rows, strangers, seen = [], [], set()
    for line in lines:
        check_text(line.text, line.where, limits)
        stem = _stem(line.name)
        image, mask = images.get(stem) or images.get(MASK + stem), masks.get(stem)
        if image is None or mask is None:
            strangers.append(line.name)
        elif (stem, line.text, line.split) not in seen:
            rows.append(_row(found, image, mask, line))
        seen.add((stem, line.text, line.split))
    named = {stem for stem, _, _ in seen}
    found.report(f"{about}rows of the sheet without film or mask, left out", strangers)
    films = {stem.removeprefix(MASK): file.name for stem, file in images.items()}
    found.report(f"{about}films without a row in the sheet, left out", [name for stem, name in films.items() if stem not in named])
    found.report(f"{about}films without a mask, left out", [name for stem, name in films.items() if stem not in masks])
    found.report(f"{about}rows without a sentence", [Path(row["image"]).name for row in rows if not row["text"]])
    found.rows += rows


def _row(found: Found, image: Path, mask: Path, line: Line) -> dict[str, str]:
    subject = _SUBJECT.match(image.stem)
    # A mirrored chest is still a chest; a mirrored abdomen is not one, so organs that share this layout are never flipped.
    safe = found.laterality != "none" and can_swap(line.text) and not _CHEST.isdisjoint(words(line.text))
    return {
        "image": image.relative_to(found.root).as_posix(),
        "mask": mask.relative_to(found.root).as_posix(),
        "text": line.text,
        "split": line.split,
        "patient": subject.group(1) if subject else "",
        "flip_safe": "1" if safe else "0",
        "text_source": found.text_source,
        "subsets": "sub" if subject and line.split != "train" else "",
    }


def _stem(name: str) -> str:
    """The name in a sheet without folder, ending and `mask_`. Dots inside a name stay: only endings of image files are cut."""
    stem = re.split(r"[\\/]", name.strip())[-1]
    return re.sub(r"\.(png|jpe?g|tiff?|bmp|gif)$", "", stem, flags=re.IGNORECASE).removeprefix(MASK)


# ---------------------------------------------------------------- the tables


def read_sheet(path: Path, split: str, limits: Limits = DEFAULT) -> list[Line]:
    """The rows of a table that name a film; of a workbook those of its first sheet. Nothing is computed: a formula is its stored result.

    InputError: missing_column, formula (a cell whose result is not stored), archive_bomb, bad_sheet; for CSV those of read_table.
    """
    if path.suffix.lower() == ".csv":
        rows = enumerate(read_table(path, HEADER, limits), 2)
        lines = [Line(f"{path}, row {n}", split, *(row[name] for name in HEADER)) for n, row in rows]
    else:
        _check_archive(path, limits)
        lines = _cells(path, split, data_only=False)
        formulas = [line.where for line in lines if line.name.startswith("=") or line.text.startswith("=")]
        if formulas:
            lines = _cells(path, split, data_only=True)
            known = {line.where for line in lines if line.name and line.text}
            for where in formulas:
                if where not in known:
                    fix = "Open the sheet, paste its cells as values, and save it."
                    raise InputError("a formula stands there without its result", where, fix, "formula")
    return [line for line in lines if line.name.strip()]


def _cells(path: Path, split: str, data_only: bool) -> list[Line]:
    """All rows but empty ones, with the results of formulas, or the formulas."""
    import openpyxl

    try:
        with closing(openpyxl.load_workbook(path, read_only=True, data_only=data_only)) as book:
            page = book.worksheets[0]
            page.reset_dimensions()  # the size that the file states may be wrong
            grid = enumerate(page.iter_rows(max_row=MAX_ROWS, max_col=MAX_COLUMNS, values_only=True), 1)
            cells = ((number, line) for number, line in grid if line.count(None) < len(line))
            header = [_cell(value).strip().lower() for value in next(cells, (0, ()))[1]]
            columns = [header.index(name.lower()) for name in HEADER if name.lower() in header]
            whole = len(columns) == len(HEADER)
            lines = [Line(f"{path}, row {number}", split, *(_cell(line[i]) for i in columns)) for number, line in cells if whole]
    except Exception as e:  # openpyxl raises whatever the zip and XML readers under it raise
        raise InputError(f"the sheet cannot be read ({type(e).__name__})", path, "Open it and save it again as .xlsx.", "bad_sheet") from e
    for name in HEADER:
        if name.lower() not in header:
            hint = near(name, [h for h in header if h])
            fix = f"The first row names the columns {' and '.join(HEADER)}."
            raise InputError(f"missing column {name}{hint}", path, fix, "missing_column")
    return lines


def _cell(value: Any) -> str:
    """A cell as text; a number that names a film has no decimal point."""
    if value is None:
        return ""
    if type(value).__module__.startswith("openpyxl"):  # a formula that fills several cells
        return "="
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _check_archive(path: Path, limits: Limits) -> None:
    """A sheet is a zip: its directory tells what it would take to unpack, and the reader never unpacks more than that."""
    try:
        with zipfile.ZipFile(check_file(path)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as e:
        raise InputError("this is not an .xlsx file", path, "Open it and save it as .xlsx.", "bad_sheet") from e
    size = sum(m.file_size for m in members)
    swollen = any(m.file_size > limits.ratio * max(m.compress_size, 1) and m.file_size > 2**20 for m in members)
    if len(members) > limits.members or size > min(limits.volume_bytes, MAX_SHEET_BYTES) or swollen:
        raise InputError("the sheet would unpack to far more than it holds", path, "Is it the right file? Save it anew.", "archive_bomb")
