"""What a path holds: a film, or a volume in a NIfTI file or in a folder of DICOM slices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from ..errors import InputError
from ..limits import DEFAULT, Limits, check_file
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
    stack = _stack(path, stacks, limits)
    return read_volume(stack, limits) if stack else read_nifti(path, limits)


def source_sha256(path: Path, stacks: Stacks, limits: Limits = DEFAULT) -> str:
    """Hash of the film or volume behind a path: of its file; of several slices that of their sorted hashes, wherever they lie.

    InputError: those of check_file, find_series and _stack.
    """
    stack = _stack(path, stacks, limits)
    hashes = sorted(map(_file_sha256, stack.files if stack else [path]))
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _file_sha256(path: Path) -> str:
    with open(check_file(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stack(path: Path, stacks: Stacks, limits: Limits) -> Series | None:
    """The series behind a path, None for a file that is no stack. InputError: those of find_series, several_series."""
    if path in stacks or not path.is_dir():
        return stacks.get(path)
    found, _ = find_series(path, limits)
    series = [one for one in found if one.stacked]
    if len(series) != 1:
        what = f"the folder holds {len(series)} series of slices" if series else "the folder holds no series of slices"
        raise InputError(what, path, "Name the folder of one series.", "several_series")
    return series[0]
