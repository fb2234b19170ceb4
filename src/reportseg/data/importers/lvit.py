"""The layout of LViT: {Train,Val,Test}_Folder/{img,labelcol}/ and a sheet *_text.xlsx with the columns Image and Description."""

from __future__ import annotations

import re
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...limits import DEFAULT, Limits, check_file, check_text
from ...text import can_swap, words
from ...types import Laterality
from ..manifest import near
from ..splits import mark_disjoint
from .found import Found, image_files, some

SPLITS = ("train", "val", "test")
HEADER = ("Image", "Description")
MAX_ROWS, MAX_COLUMNS = 2**20, 64  # a sheet is padded to the last cell that it mentions, so a few bytes could ask for billions of cells
MAX_SHEET_BYTES = 256 * 2**20  # unpacked
MASK = "mask_"  # QaTa-COV19 names its masks, and the sheet the masks
_SUBJECT = re.compile(r"sub-([A-Za-z0-9]+)_")
_CHEST = frozenset(["lung", "lungs", "pulmonary", "chest", "thorax"])


def read_lvit(src: Path, laterality: Laterality | None = None, limits: Limits = DEFAULT) -> Found:
    """All rows of the splits that are there; film, mask and sentence are matched by stem, and what has no partner is reported.

    InputError: layout, sheet, those of read_sheet and check_text.
    """
    if not src.is_dir():
        raise InputError("the folder does not exist", src, "Give the folder that holds Train_Folder.", "missing")
    folders = {f.name.lower(): f for f in src.iterdir() if f.is_dir()}
    parts = {split: folders[f"{split}_folder"] for split in SPLITS if f"{split}_folder" in folders}
    if not parts:
        fix = "Give the folder that holds Train_Folder, Val_Folder or Test_Folder."
        raise InputError("this is not the layout of LViT", src, fix, "layout")
    found = Found([], src, src, laterality or "image", split_source="published with the data, in the layout of LViT")
    for split, folder in parts.items():
        found.rows += _read_part(folder, split, found, limits)
    mark_disjoint(found.rows)
    if "train" not in parts:
        found.messages.append("without Train_Folder it is not known whose films train has: no subset `disjoint`")
    return found


def _read_part(folder: Path, split: str, found: Found, limits: Limits) -> list[dict[str, str]]:
    images = image_files(folder / "img", found.messages)
    masks = image_files(folder / "labelcol", found.messages, MASK)
    rows, strangers, seen = [], [], set()
    sheet = _sheet(folder)
    for number, (name, text) in enumerate(read_sheet(sheet, limits), 2):
        check_text(text, f"{sheet}, row {number}", limits)
        stem = _stem(name)
        image, mask = images.get(stem) or images.get(MASK + stem), masks.get(stem)
        if image is None or mask is None:
            strangers.append(name)
        elif (stem, text) not in seen:
            rows.append(_row(found, image, mask, text, split))
        seen.add((stem, text))
    named = {stem for stem, _ in seen}
    lonely = [file.name for stem, file in images.items() if stem.removeprefix(MASK) not in named]
    maskless = [images[stem].name for stem in images if stem.removeprefix(MASK) not in masks]
    for what, names in (
        ("rows of the sheet without film or mask, left out", strangers),
        ("films without a row in the sheet, left out", lonely),
        ("films without a mask, left out", maskless),
        ("rows without a sentence", [Path(r["image"]).name for r in rows if not r["text"]]),
    ):
        if names:
            found.messages.append(f"{split}: {what}: {some(names)}")
    return rows


def _row(found: Found, image: Path, mask: Path, text: str, split: str) -> dict[str, str]:
    subject = _SUBJECT.match(image.stem)
    # A mirrored chest is still a chest; a mirrored abdomen is not one, so organs that share this layout are never flipped.
    safe = found.laterality != "none" and can_swap(text) and not _CHEST.isdisjoint(words(text))
    return {
        "image": image.relative_to(found.root).as_posix(),
        "mask": mask.relative_to(found.root).as_posix(),
        "text": text,
        "split": split,
        "patient": subject.group(1) if subject else "",
        "flip_safe": "1" if safe else "0",
        "text_source": "lvit",
        "subsets": "sub" if subject and split != "train" else "",
    }


def _stem(name: str) -> str:
    """The name in a sheet without folder, ending and `mask_`. Dots inside a name stay: only endings of image files are cut."""
    stem = re.split(r"[\\/]", name.strip())[-1]
    return re.sub(r"\.(png|jpe?g|tiff?|bmp|gif)$", "", stem, flags=re.IGNORECASE).removeprefix(MASK)


def _sheet(folder: Path) -> Path:
    sheets = [f for f in sorted(folder.glob("*.xlsx")) if not f.name.startswith(("~$", "."))]
    sheets = [f for f in sheets if f.stem.lower().endswith("text")] or sheets
    if len(sheets) != 1:
        what = "there is no sheet *_text.xlsx" if not sheets else f"there are {len(sheets)} sheets"
        raise InputError(what, folder, "Put one sheet with the columns Image and Description there.", "sheet")
    return sheets[0]


def read_sheet(path: Path, limits: Limits = DEFAULT) -> list[tuple[str, str]]:
    """(Image, Description) of each row of the first sheet that names a film. InputError: archive_bomb, bad_sheet, missing_column."""
    import openpyxl

    _check_archive(path, limits)
    try:
        with closing(openpyxl.load_workbook(path, read_only=True, data_only=True)) as book:
            page = book.worksheets[0]
            page.reset_dimensions()  # the size that the file states may be wrong
            grid = page.iter_rows(max_row=MAX_ROWS, max_col=MAX_COLUMNS, values_only=True)
            lines = (line for line in grid if line.count(None) < len(line))
            header = [_cell(value).strip().lower() for value in next(lines, ())]
            columns = [header.index(name.lower()) for name in HEADER if name.lower() in header]
            rows = [tuple(_cell(line[i]) for i in columns) for line in lines]
    except Exception as e:  # openpyxl raises whatever the zip and XML readers under it raise
        raise InputError(f"the sheet cannot be read ({type(e).__name__})", path, "Open it and save it again as .xlsx.", "bad_sheet") from e
    for name in HEADER:
        if name.lower() not in header:
            hint = near(name, [h for h in header if h])
            fix = f"The first row names the columns {' and '.join(HEADER)}."
            raise InputError(f"missing column {name}{hint}", path, fix, "missing_column")
    return [(name, sentence) for name, sentence in rows if name.strip()]


def _cell(value: Any) -> str:
    """A cell as text; a number that names a film has no decimal point."""
    if value is None:
        return ""
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
