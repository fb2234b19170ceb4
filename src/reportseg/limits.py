"""Budgets that are checked before anything is decoded, safe names, and writes that are whole or absent."""

from __future__ import annotations

import errno
import hashlib
import math
import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

from .errors import InputError

GIB = 2**30
MAX_ID = 100


@dataclass(frozen=True)
class Limits:
    """What a file may cost. `REPORTSEG_LIMITS` overrides fields for a whole process (see `parse_limits`)."""

    pixels: int = 100_000_000  # of a 2-D image
    volume_bytes: int = 2 * GIB  # a volume decoded, or any file as stored
    text_bytes: int = 32 * 2**10  # one text as UTF-8
    ratio: int = 200  # decoded to stored, inside an archive
    members: int = 10_000  # of an archive, a folder of DICOM, a study in a PACS
    fetch_bytes: int = 16 * GIB  # fetched from a PACS by one command


VARIABLE = "REPORTSEG_LIMITS"


def parse_limits(text: str) -> Limits:
    """The limits, but for those that `text` names, as in pixels=400000000,text_bytes=65536. InputError limits."""
    names = [field.name for field in fields(Limits)]
    given = {}
    for item in filter(None, text.replace(" ", "").split(",")):
        name, _, number = item.partition("=")
        if name not in names or not number.isdecimal() or int(number) < 1:
            fix = f"Write {names[0]}=400000000, a comma between several; there are {', '.join(names)}."
            raise InputError(f"{item!r} is not a limit", VARIABLE, fix, "limits")
        given[name] = int(number)
    return Limits(**given)


DEFAULT = parse_limits(os.environ.get(VARIABLE, ""))


def check_file(path: str | Path) -> Path:
    """The path, if it is a regular file with bytes in it that we may read.

    InputError: missing, directory, empty_file, symlink_loop, unreadable (pipes and devices too: opening one may never return).
    """
    file = Path(path)
    try:
        found = file.stat()
    except FileNotFoundError as e:
        raise InputError(
            "the file does not exist", path, "Check the spelling; relative paths start from the current folder.", "missing"
        ) from e
    except (OSError, ValueError, RuntimeError) as e:
        if isinstance(e, RuntimeError) or getattr(e, "errno", None) == errno.ELOOP:
            raise InputError("the link leads back to itself", path, "Give the file that the link was meant for.", "symlink_loop") from e
        raise InputError(f"the file cannot be reached ({_reason(e)})", path, "Check the path and its permissions.", "unreadable") from e
    if stat.S_ISDIR(found.st_mode):
        raise InputError("this is a folder, not a file", path, "Name the files in it.", "directory")
    if not stat.S_ISREG(found.st_mode):
        raise InputError("this is not a regular file", path, "Save the data as a file first.", "unreadable")
    if not os.access(file, os.R_OK):
        raise InputError("the file may not be read", path, "Change its permissions.", "unreadable")
    if found.st_size == 0:
        raise InputError("the file is empty", path, "Copy or download it again.", "empty_file")
    return file


def peak_bytes(width: int, height: int, channels: int = 3) -> int:
    """Memory that work on one image may take: three float32 copies and 1 GiB."""
    return 3 * 4 * width * height * channels + GIB


def check_pixels(width: int, height: int, where: str | Path, limits: Limits = DEFAULT) -> None:
    """InputError too_large if a header announces more pixels than the budget, or than this machine's memory can hold."""
    if width * height > limits.pixels:
        raise InputError(
            f"the image has {width} x {height} pixels, more than the limit of {limits.pixels:,}",
            where,
            f"Make it smaller, or allow it: {VARIABLE}=pixels={width * height}.",
            "too_large",
        )
    need, have = peak_bytes(width, height), _memory_bytes()
    if have is not None and need > max(have, GIB + GIB // 2):
        raise InputError(
            f"the image has {width} x {height} pixels and needs up to {need / GIB:.1f} GiB of memory; this machine has {have / GIB:.1f}",
            where,
            "Make it smaller, or use a machine with more memory.",
            "too_large",
        )


def check_voxels(shape: Sequence[int], where: str | Path, limits: Limits = DEFAULT) -> None:
    """InputError too_large if a header announces a volume that takes more than the budget as float32, or than this machine's memory."""
    voxels = math.prod(shape)
    size = " x ".join(map(str, shape))
    if 4 * voxels > limits.volume_bytes:
        what = f"the volume has {size} voxels, which takes {4 * voxels / GIB:,.1f} GiB; the limit is {limits.volume_bytes / GIB:,.1f}"
        raise InputError(what, where, f"Cut it, or allow it: {VARIABLE}=volume_bytes={4 * voxels}.", "too_large")
    need, have = 3 * 4 * voxels + GIB, _memory_bytes()
    if have is not None and need > max(have, GIB + GIB // 2):
        what = f"the volume has {size} voxels and needs up to {need / GIB:.1f} GiB of memory; this machine has {have / GIB:.1f}"
        raise InputError(what, where, "Cut it, or use a machine with more memory.", "too_large")


def check_text(text: str, where: str | Path = "", limits: Limits = DEFAULT) -> str:
    """The text itself, never cut. InputError: text_too_long, text_nul, text_encoding (half a surrogate pair)."""
    if "\0" in text:
        raise InputError("the text holds a NUL character", where, "Save the text as UTF-8.", "text_nul")
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as e:
        raise InputError("the text is not valid Unicode", where, "Save the text as UTF-8.", "text_encoding") from e
    if size > limits.text_bytes:
        raise InputError(
            f"the text has {size:,} bytes, more than the limit of {limits.text_bytes:,}",
            where,
            f"Keep the sentences that describe the image, or allow it: {VARIABLE}=text_bytes={size}.",
            "text_too_long",
        )
    return text


def safe_id(stem: str) -> str:
    """A name for files of ours: characters A-Za-z0-9._- (others become -), at most 100, never empty, "." or "..".

    A hyphen in front becomes _: shells would take the file for an option, and spreadsheets the cell for a formula. Names that would lose
    everything, and names that are too long, are told apart by a hash of the stem.
    """
    name = re.sub(r"^-", "_", re.sub(r"[^A-Za-z0-9._-]", "-", stem))
    mark = hashlib.sha256(stem.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    if not re.search(r"[A-Za-z0-9]", name):
        return f"case-{mark}"
    return name if len(name) <= MAX_ID else f"{name[: MAX_ID - 9]}-{mark}"


def finding_id(film: str, number: int) -> str:
    """The id of the mask for a report's finding: that of the film and -f1, -f2; a long film's name makes room and keeps a hash."""
    suffix = f"-f{number}"
    if len(film) + len(suffix) > MAX_ID:
        film = f"{film[: MAX_ID - len(suffix) - 9]}-{hashlib.sha256(film.encode()).hexdigest()[:8]}"
    return film + suffix


def unique_ids(paths: Sequence[str | Path]) -> list[str]:
    """One id per path, in order: the stem; with the parent folder where another file has that stem (a__1); -2, -3 for repeated rows.

    No two differ in case only: on many disks they would be one file.
    """
    files = [Path(p) for p in paths]
    owners = Counter(safe_id(f.stem).lower() for f in dict.fromkeys(files))
    names = [safe_id(f.stem) if owners[safe_id(f.stem).lower()] == 1 else safe_id(f"{f.parent.name}__{f.stem}") for f in files]
    taken, ids = {name.lower() for name in names}, []
    seen: Counter[str] = Counter()
    for name in names:
        key = name.lower()
        seen[key] += 1
        candidate = name
        while seen[key] > 1:
            candidate = f"{name[: MAX_ID - 8]}-{seen[key]}"
            if candidate.lower() not in taken:  # another file may bear the name a-2
                break
            seen[key] += 1
        taken.add(candidate.lower())
        ids.append(candidate)
    return ids


def cache_root() -> Path:
    """Where what can be made again is kept: `$REPORTSEG_CACHE`, by default the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "reportseg"
    return Path(os.environ.get("REPORTSEG_CACHE", default))


def csv_cell(text: str) -> str:
    """A text cell that a spreadsheet does not take for a formula. Not for numbers, nor for manifests: those stay exact."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary sibling to write; at the end it is flushed to disk and renamed to `path`, or removed if anything failed.

    Its name says nothing of `path`: names of files may hold names of people. InputError unwritable where the disk refuses.
    """
    target = Path(path)
    part = target.parent / f".part-{secrets.token_hex(8)}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with open(part, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(part, target)
        _sync_folder(target.parent)
    except OSError as e:
        raise InputError(f"the file cannot be written ({_reason(e)})", path, "Choose another folder, or make room.", "unwritable") from e
    finally:
        with suppress(OSError):
            part.unlink()


def atomic_write(path: str | Path, content: bytes | str) -> None:
    """Writes the whole file or nothing; text as UTF-8 with its line ends kept."""
    with atomic_path(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def _sync_folder(folder: Path) -> None:
    """The rename itself reaches the disk. Windows cannot open folders and needs no such step."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _memory_bytes() -> int | None:
    """Physical memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
