"""Data sets in the layouts that importers read, made of tiny pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openpyxl
import PIL.Image
import pytest

from reportseg.data.importers import import_data
from reportseg.errors import InputError

LEFT = "Unilateral pulmonary infection, one infected area, lower left lung."
RIGHT = "Unilateral pulmonary infection, one infected area, upper right lung."


def picture(path: Path, value: int = 128, mode: str = "L", side: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.full((side, side), value, np.uint8)).convert(mode).save(path)
    return path


def sheet(path: Path, rows: list[tuple], header: tuple = ("Image", "Description")) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    for row in (header, *rows):
        book.active.append(row)
    book.save(path)
    return path


def lvit(root: Path, **parts: dict[str, str]) -> Path:
    """{split: {stem: sentence}} in the layout of LViT, films as JPEG and masks as mask_<stem>.png."""
    for split, films in parts.items():
        folder = root / f"{split.capitalize()}_Folder"
        for stem in films:
            picture(folder / f"img/{stem}.jpg")
            picture(folder / f"labelcol/mask_{stem}.png", 255, "1")
        sheet(folder / f"{split.capitalize()}_text.xlsx", [(f"mask_{stem}.png", text) for stem, text in films.items()])
    return root


def table(path: Path, header: str, *rows: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def refused(*args, **kwargs) -> InputError:
    with pytest.raises(InputError) as caught:
        import_data(*args, **kwargs)
    assert caught.value.fix, "every InputError says what to do"
    return caught.value


def films(root: Path, *stems: str) -> Path:
    for stem in stems:
        picture(root / f"images/{stem}.png")
        picture(root / f"masks/{stem}.png", 255)
    return root
