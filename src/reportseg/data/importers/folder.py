"""A folder that is nearly in order: manifest.csv or texts.csv, else images/, masks/ and texts/<stem>.txt."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from ...io import dicom_name
from ...limits import DEFAULT, VARIABLE, Limits, check_file, check_text
from ...schemas.base import read_json
from ...schemas.data import DatasetFile
from ...types import Laterality
from ..manifest import DATASET, MANIFEST, read_table
from .found import Found, image_files

TABLES = (MANIFEST, "texts.csv")


def read_folder(src: Path, laterality: Laterality | None = None, limits: Limits = DEFAULT) -> Found:
    """All rows of the table, its other columns and its split kept; or one row for each film that has a mask and a text.

    `src` may name the table itself. What has no partner is left out and reported. `laterality` goes before what dataset.json says.
    InputError: layout, no_rows, those of read_table and of check_text.
    """
    table = src if src.is_file() else next((src / name for name in TABLES if (src / name).is_file()), None)
    if table is not None:
        return _from_table(table, laterality, limits)
    if not (src / "images").is_dir():
        fix = f"It needs {' or '.join(TABLES)}, or the folders images, masks and texts."
        raise InputError("nothing to import was found", src, fix, "layout")
    return _from_pairs(src, laterality, limits)


def _from_table(table: Path, laterality: Laterality | None, limits: Limits) -> Found:
    rows = list(read_table(table, ("image", "mask", "text"), limits))
    beside = table.parent / DATASET
    info = read_json(beside, DatasetFile) if beside.exists() else None
    root = table.parent / (info.root if info else "")
    kept: list[dict[str, str]] = []
    lost: list[dict[str, str]] = []
    for row in rows:
        there = bool(row["image"] and row["mask"]) and (root / row["image"]).is_file() and (root / row["mask"]).is_file()
        (kept if there else lost).append(row)
    split = any(row.get("split") for row in kept)
    found = Found(kept, table, root, laterality, split_source=f"column split of {table.name}" if split else "")
    if info:
        found.name, found.licence, found.citation, found.windows = info.name, info.licence, info.citation, info.windows
        found.laterality = laterality or (info.laterality if info.laterality != "none" else None)
        found.laterality_source = (info.laterality_source or f"{DATASET} beside {table.name}") if found.laterality else ""
        found.split_source = info.split_source or found.split_source if split else ""
    found.report("rows whose film or mask is not there, left out", [dicom_name(root / row["image"]) or row["image"] for row in lost])
    if not kept:
        raise InputError("no row has a film and a mask that are there", table, f"Paths start from {root}.", "no_rows")
    return found


def _from_pairs(src: Path, laterality: Laterality | None, limits: Limits) -> Found:
    found = Found([], src, src, laterality)
    images = image_files(src / "images", found.messages)
    masks = image_files(src / "masks", found.messages)
    for stem, image in images.items():
        text = src / "texts" / f"{stem}.txt"
        if stem in masks and text.is_file():
            row = {"image": f"images/{image.name}", "mask": f"masks/{masks[stem].name}", "text": _read_text(text, limits)}
            found.rows.append(row)
    for what, names in (
        ("films without a mask, left out", [f.name for stem, f in images.items() if stem not in masks]),
        ("films without a text, left out", [f.name for stem, f in images.items() if not (src / "texts" / f"{stem}.txt").is_file()]),
        ("masks without a film, left out", [f.name for stem, f in masks.items() if stem not in images]),
    ):
        found.report(what, names)
    if not found.rows:
        raise InputError(
            "no film has a mask and a text of its stem", src, "Name them alike: images/a.png, masks/a.png, texts/a.txt.", "no_rows"
        )
    return found


def _read_text(path: Path, limits: Limits) -> str:
    """The sentence in a file without the white space around it; an empty file is an empty text."""
    if path.stat().st_size == 0:
        return ""
    size = check_file(path).stat().st_size
    if size > 4 * limits.text_bytes:  # white space apart; and no file is read only to be refused
        fix = f"Keep the sentences that describe the image, or allow it: {VARIABLE}=text_bytes={size}."
        raise InputError("the text is far above the limit", path, fix, "text_too_long")
    try:
        return check_text(path.read_text(encoding="utf-8-sig").strip(), path, limits)
    except UnicodeDecodeError as e:
        raise InputError("the text is not UTF-8", path, "Save it as UTF-8.", "encoding") from e
