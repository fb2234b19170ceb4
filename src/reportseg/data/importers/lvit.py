"""The layout of LViT: {Train,Val,Test}_Folder/{img,labelcol}/ and a sheet *_text.xlsx with the columns Image and Description."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from ...limits import DEFAULT, Limits
from ...types import Laterality
from ..splits import mark_disjoint
from .found import AS_PUBLISHED, Found, image_files
from .sheets import MASK, add_rows, read_sheet

SPLITS = ("train", "val", "test")


def read_lvit(src: Path, laterality: Laterality | None = None, limits: Limits = DEFAULT) -> Found:
    """All rows of the splits that are there; film, mask and sentence are matched by stem, and what has no partner is reported.

    InputError: missing, layout, sheet, those of read_sheet and add_rows.
    """
    parts = part_folders(src)
    if not parts:
        fix = "Give the folder that holds Train_Folder, Val_Folder or Test_Folder."
        raise InputError("this is not the layout of LViT", src, fix, "layout")
    found = Found([], src, src, laterality or "image", assumed=AS_PUBLISHED, text_source="lvit")
    found.split_source = "published with the data, in the layout of LViT"
    for split, folder in parts.items():
        images, masks = image_files(folder / "img", found.messages), image_files(folder / "labelcol", found.messages, MASK)
        add_rows(found, images, masks, read_sheet(one_sheet(folder), split, limits), limits, f"{split}: ")
    mark_disjoint(found.rows)
    if "train" not in parts:
        found.messages.append("without Train_Folder it is not known whose films train has: no subset `disjoint`")
    return found


def part_folders(src: Path) -> dict[str, Path]:
    """The folders of the splits that are there, in any case of letters. InputError missing."""
    if not src.is_dir():
        raise InputError("the folder does not exist", src, "Give the folder of the data set.", "missing")
    folders = {f.name.lower(): f for f in src.iterdir() if f.is_dir()}
    return {split: folders[f"{split}_folder"] for split in SPLITS if f"{split}_folder" in folders}


def one_sheet(folder: Path) -> Path:
    """The sheet of a split. InputError sheet where there is none, or more than one *text.xlsx."""
    sheets = [f for f in sorted(folder.glob("*.xlsx")) if not f.name.startswith(("~$", "."))]
    sheets = [f for f in sheets if f.stem.lower().endswith("text")] or sheets
    if len(sheets) != 1:
        what = "there is no sheet *_text.xlsx" if not sheets else f"there are {len(sheets)} sheets"
        raise InputError(what, folder, "Put one sheet with the columns Image and Description there.", "sheet")
    return sheets[0]
