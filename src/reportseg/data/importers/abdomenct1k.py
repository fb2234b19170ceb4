"""AbdomenCT-1K: Case_00001_0000.nii.gz in its three image folders, Case_00001.nii.gz in Mask, wherever the archives were unpacked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ...errors import InputError
from ...io.slices import WINDOWS, Window
from ...limits import DEFAULT, Limits
from ...types import Laterality
from .found import Found, Progress
from .organs import add_volumes, paired

ORGANS = {1: "liver", 2: "kidney", 3: "spleen", 4: "pancreas"}
_NAME = re.compile(r"(Case_[0-9]+)(_0000)?\.nii(\.gz)?")


def read_abdomenct1k(
    src: Path,
    laterality: Laterality | None = None,
    limits: Limits = DEFAULT,
    windows: Mapping[str, Window] = WINDOWS,
    progress: Progress = None,
) -> Found:
    """All volumes with labels, one patient each. Both kidneys are one label.

    InputError: layout, those of add_volumes.
    """
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    for file in sorted(src.rglob("Case_*.nii*")) if src.is_dir() else ():
        name = _NAME.fullmatch(file.name)
        if name:
            (images if name[2] else labels).setdefault(name[1], file)
    found = Found([], src, src, name="abdomenct1k", windows=dict(windows))
    cases = paired(found, images, labels)
    if not cases:
        fix = "Give the folder that holds the unpacked archives: Case_*_0000.nii.gz, and Case_*.nii.gz in Mask."
        raise InputError("this is not the layout of AbdomenCT-1K", src, fix, "layout")
    add_volumes(found, cases, ORGANS, windows, limits, progress)
    return found
