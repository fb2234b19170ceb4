"""What a path holds: a film, or a volume in a NIfTI file or in a folder of DICOM slices."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import InputError
from ..limits import DEFAULT, Limits, check_file
from ..types import Volume
from .dicom_header import is_dicom
from .nifti import is_nifti, read_header, read_nifti
from .series import Stacks, find_series, read_volume, stacks_in
from .stacks import Series

__all__ = ["Stacks", "is_volume", "read_case", "source_sha256"]


def is_volume(path: Path, stacks: Stacks, limits: Limits = DEFAULT) -> bool:
    """Whether `read_case` is the one to read it: a stack, a folder, or a file of several slices, NIfTI or DICOM. False for what cannot be
    told.
    """
    if path in stacks or path.is_dir():
        return True
    try:
        with open(path, "rb") as file:
            head = file.read(352)
        if is_nifti(head):
            return 1 not in read_header(path, limits).shape
        return is_dicom(head) and bool(stacks_in(path, limits))
    except (OSError, ValueError):  # InputError is one; whoever reads the file will tell
        return False


def read_case(path: Path, stacks: Stacks, limits: Limits = DEFAULT) -> Volume:
    """The volume. InputError: those of read_nifti, find_series and read_volume; several_series for a folder or a file of more than one
    stack; of `stacks` what was found in its place.
    """
    stack = _stack(path, stacks, limits) or _stack_in(path, limits)
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
    """The series behind a path, None for a file that is no known stack. InputError: those of find_series, several_series."""
    found_here = stacks.get(path)
    if isinstance(found_here, InputError):
        raise found_here
    if found_here is not None or not path.is_dir():
        return found_here
    found, _ = find_series(path, limits)
    series = [one for one in found if one.stacked]
    if len(series) != 1:
        what = f"the folder holds {len(series)} series of slices" if series else "the folder holds no series of slices"
        raise InputError(what, path, "Name the folder of one series.", "several_series")
    return series[0]


def _stack_in(path: Path, limits: Limits) -> Series | None:
    """The one stack in a file, None for a file of no stack. InputError: those of stacks_in, several_series."""
    found = stacks_in(path, limits)
    if len(found) > 1:
        what = f"the file holds {len(found)} volumes: phases, orientations or grids that do not belong together"
        raise InputError(what, path, "Give the file itself to `predict`, not in a table: it answers each of them.", "several_series")
    return found[0] if found else None
