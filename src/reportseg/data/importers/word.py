"""WORD: abdominal CT with sixteen organs, imagesTr/Val/Ts and labelsTr/Val/Ts, a split that its authors made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ...errors import InputError
from ...io.slices import WINDOWS, Window
from ...limits import DEFAULT, Limits
from ...types import Laterality
from .found import Found, Progress
from .organs import add_volumes, nifti_files, paired

SPLITS = {"Tr": "train", "Val": "val", "Ts": "test"}
ORGANS = {
    1: "liver",
    2: "spleen",
    3: "left kidney",
    4: "right kidney",
    5: "stomach",
    6: "gallbladder",
    7: "esophagus",
    8: "pancreas",
    9: "duodenum",
    10: "colon",
    11: "small intestine",
    12: "adrenal gland",
    13: "rectum",
    14: "bladder",
    15: "left femoral head",
    16: "right femoral head",
}


def read_word(
    src: Path,
    laterality: Laterality | None = None,
    limits: Limits = DEFAULT,
    windows: Mapping[str, Window] = WINDOWS,
    progress: Progress = None,
) -> Found:
    """All volumes with labels, one patient each; any of the three parts may be missing. Both adrenal glands are one label.

    InputError: layout, those of add_volumes.
    """
    found = Found([], src, src, name="word", split_source="published with the data, by its folders", windows=dict(windows))
    cases = []
    for part, split in SPLITS.items():
        images, labels = nifti_files(src / f"images{part}"), nifti_files(src / f"labels{part}")
        cases += paired(found, images, labels, split)
    if not cases:
        fix = "Give the folder with imagesTr, labelsTr, imagesVal, labelsVal, imagesTs and labelsTs, or some of them."
        raise InputError("this is not the layout of WORD", src, fix, "layout")
    add_volumes(found, cases, ORGANS, windows, limits, progress)
    return found
