"""The layout of LanGuideMedSeg: {Train,Test}/{Images,GTs}/ and prompt/{train,test}.csv with the columns Image and Description."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from ...limits import DEFAULT, Limits
from ...types import Laterality
from ..splits import mark_disjoint
from .found import AS_PUBLISHED, Found, image_files
from .sheets import MASK, add_rows, read_sheet

SPLITS = ("train", "val", "test")
MASKS = ("gts", "ground-truths")
TRAIN_SHARE = 0.8  # of train.csv, in its order; its published code validates on the rest


def read_languidemedseg(src: Path, laterality: Laterality | None = None, limits: Limits = DEFAULT) -> Found:
    """All rows of the splits that are there. Without a folder Val the last fifth of train.csv is val, as that project cuts it.

    InputError: missing, layout, those of read_sheet and add_rows.
    """
    if not src.is_dir():
        raise InputError("the folder does not exist", src, "Give the folder of the data set.", "missing")
    parts, tables = _inside(src), _inside(src / "prompt")
    there = [split for split in SPLITS if split in parts and f"{split}.csv" in tables]
    if not there:
        fix = "Give the folder that holds Train, Test and prompt, with prompt/train.csv and prompt/test.csv."
        raise InputError("this is not the layout of LanGuideMedSeg", src, fix, "layout")
    found = Found([], src, src, laterality or "image", assumed=AS_PUBLISHED, text_source="languidemedseg")
    found.split_source = "published with the data, in the layout of LanGuideMedSeg"
    for split in there:
        inner = _inside(parts[split])
        folder = next((inner[name] for name in MASKS if name in inner), parts[split] / "GTs")
        images = image_files(inner.get("images", parts[split] / "Images"), found.messages)
        lines = read_sheet(tables[f"{split}.csv"], split, limits)
        if split == "train" and "val" not in there:
            cut = int(TRAIN_SHARE * len(lines))
            lines[cut:] = [line._replace(split="val") for line in lines[cut:]]
            found.messages.append(f"val is the last fifth of train.csv, as LanGuideMedSeg cuts it: {len(lines) - cut} rows")
        add_rows(found, images, image_files(folder, found.messages, MASK), lines, limits, f"{split}: ")
    mark_disjoint(found.rows)
    return found


def _inside(folder: Path) -> dict[str, Path]:
    """What a folder holds, by its name in small letters."""
    return {f.name.lower(): f for f in folder.iterdir()} if folder.is_dir() else {}
