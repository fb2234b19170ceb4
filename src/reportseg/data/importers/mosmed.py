"""MosMedData+ with LViT's sheets: CT slices of 512 px from four sources, the CT told by the name of a file.

Reads the layouts of LViT and LanGuideMedSeg, and what the downloads give: frames/, masks/ and three sheets beside them. The published
split was drawn by slices: most of its test comes from CTs that train has, and import says how many.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import InputError
from ...limits import DEFAULT, Limits
from ...types import Laterality
from ..splits import mark_disjoint
from .found import Found, image_files
from .languidemedseg import read_languidemedseg
from .lvit import SPLITS, part_folders, read_lvit
from .sheets import add_rows, read_sheet

FILMS = ("frames", "images", "img")
MASKS = ("masks", "labelcol")
# Morozov_study_0301_21, Jun_coronacases_case1_119, Jun_radiopaedia_10_85902_3_case12_107; bjorke_8 tells no CT
_CT = re.compile(r"(.*(?:study_|case)[0-9]+)_[0-9]+")


def read_mosmed(src: Path, laterality: Laterality | None = None, limits: Limits = DEFAULT) -> Found:
    """All slices that have mask and sentence, patient = CT; a slice whose name tells no CT has none.

    InputError: layout, sheet, and those of the two layouts.
    """
    if part_folders(src):
        found = read_lvit(src, laterality, limits)
    elif (src / "prompt").is_dir():
        found = read_languidemedseg(src, laterality, limits)
    else:
        found = _from_downloads(src, laterality, limits)
    found.name, found.assumed = "mosmed", "its annotators are those of QaTa-COV19, who mean it"
    for row in found.rows:
        row["text_source"] = found.name
        ct = _CT.fullmatch(Path(row["image"]).stem)
        row["patient"] = ct.group(1) if ct else ""
    mark_disjoint(found.rows)
    alone = sum(not row["patient"] for row in found.rows)
    if alone:
        found.messages.append(f"{alone} slices whose names tell no CT: whether another split has that CT is not known")
    return found


def _from_downloads(src: Path, laterality: Laterality | None, limits: Limits) -> Found:
    folders = [next((src / name for name in names if (src / name).is_dir()), None) for names in (FILMS, MASKS)]
    tables = sorted(f for f in src.iterdir() if f.suffix.lower() in (".xlsx", ".csv") and not f.name.startswith(("~$", ".")))
    sheets = {split: [f for f in tables if f.name.lower().startswith(f"{split}_text")] for split in SPLITS}
    if None in folders or not any(sheets.values()):
        fix = "Give a folder with Train_Folder, Val_Folder and Test_Folder, or with frames, masks and Train_text*.xlsx, Val_text*.xlsx ..."
        raise InputError("this is not a layout of MosMedData+", src, fix, "layout")
    for split, files in sheets.items():
        if len(files) > 1:
            raise InputError(f"there are {len(files)} sheets for {split}", src, f"Leave one {split}_text*.xlsx there.", "sheet")
    found = Found([], src, src, laterality or "image", split_source="published with the data, by the sheets of LViT")
    images, masks = (image_files(folder, found.messages) for folder in folders if folder)
    lines = [line for split, files in sheets.items() for sheet in files for line in read_sheet(sheet, split, limits)]
    add_rows(found, images, masks, lines, limits)
    return found
