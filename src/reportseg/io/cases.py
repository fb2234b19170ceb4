"""What a path holds: a film, or a volume in a NIfTI file or in a folder of DICOM slices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from ..limits import DEFAULT, Limits
from ..types import Volume
from .nifti import is_nifti, read_header, read_nifti
from .series import Series, find_series, read_volume

Stacks = Mapping[Path, Series]
"""The first file of a stack of slices -> the stack, as `films_in` found it."""


def is_volume(path: Path, stacks: Stacks, limits: Limits = DEFAULT) -> bool:
    """Whether `read_case` is the one to read it: a stack, a folder, or a NIfTI file of several slices. False for what cannot be told."""
    if path in stacks or path.is_dir():
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(352)
        return is_nifti(head) and read_header(path, limits).shape[0] > 1
    except (OSError, ValueError):  # InputError is one; whoever reads the file will tell
        return False


def read_case(path: Path, stacks: Stacks, limits: Limits = DEFAULT) -> Volume:
    """The volume. InputError: those of read_nifti, find_series and read_volume; several_series for a folder of more than one stack."""
    if path in stacks:
        return read_volume(stacks[path], limits)
    if not path.is_dir():
        return read_nifti(path, limits)
    found, _ = find_series(path, limits)
    series = [one for one in found if one.stacked]
    if len(series) != 1:
        what = f"the folder holds {len(series)} series of slices" if series else "the folder holds no series of slices"
        raise InputError(what, path, "Name the folder of one series.", "several_series")
    return read_volume(series[0], limits)
