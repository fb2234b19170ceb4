"""A memory-mapped copy of films and masks on the training grid, so that no file is decoded twice.

It lies in `$REPORTSEG_CACHE`, by default the user's cache folder, readable by the user alone; a changed file makes a new cache. What was
used longest ago goes when a new one would bring all of them above MAX_BYTES.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..io import read_image, read_mask
from ..limits import GIB, cache_root
from ..types import Sample
from .loader import prepare_image

MAX_BYTES = 20 * GIB
"""Of all caches together, the one that is being built apart: QaTa-COV19 at 224 px takes 0.7 GiB."""
_NAME = re.compile(r"[0-9a-f]{24}-[0-9]+")
DONE = "done.json"  # written last; its time is that of the last use
BUILDING = ".building-"
DAY = 24 * 3600
_ALL = "`reportseg data verify` lists all such rows."


@dataclass(frozen=True)
class FilmCache:
    """images (N, C, size, size) uint8 with C 1 (all gray) or 3, masks (N, size, size) uint8 in {0, 1}; row i is sample i.

    targets (N, size, size) uint8, 255 for certain, are what is learnt where a teacher softens the masks.
    """

    images_NCHW: NDArray[np.uint8]
    masks_NHW: NDArray[np.uint8]
    targets_NHW: NDArray[np.uint8] | None = None


def open_cache(samples: Sequence[Sample], size: int, progress: Callable[[int, int], None] | None = None) -> FilmCache:
    """The cache of these samples at `size` pixels, built where it is missing.

    InputError: missing_mask, missing, those of read_image and read_mask for the first file that cannot be read, size_mismatch, empty_mask
    and absent_with_mask for the first that may not be trained on, cache (no room for it).
    """
    key = hashlib.sha256(b"films-1")
    for sample in samples:
        for path in (sample.image, sample.mask):
            if path is None:
                raise InputError("training needs a mask", sample.image, "Add it to the manifest.", "missing_mask")
            try:
                stat = path.stat()
            except OSError as error:
                raise InputError(f"cannot be read ({error.strerror})", path, "Run `reportseg data verify`.", "missing") from None
            key.update(f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    folder = cache_root() / f"{key.hexdigest()[:24]}-{size}"
    if (folder / DONE).exists():
        with suppress(OSError):  # a cache that others share may be read only
            os.utime(folder / DONE)
    else:
        _build(samples, size, folder, progress)
    found = FilmCache(np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "masks.npy", mmap_mode="r"))
    _check_targets(samples, found.masks_NHW)
    return found


def _check_targets(samples: Sequence[Sample], masks_NHW: NDArray[np.uint8]) -> None:
    """`present` is no part of the cache, so this is asked each time. A target too small for the grid is a target still."""
    for sample, mask_HW in zip(samples, masks_NHW, strict=True):
        file, some = cast(Path, sample.mask), bool(mask_HW.any())
        if some and not sample.present:
            raise InputError("present is 0 and the mask is not empty", file, f"Mend one of them. {_ALL}", "absent_with_mask")
        if sample.present and not some and not read_mask(file).any():
            fix = f"Draw it, or write present=0 if the target is absent. {_ALL}"
            raise InputError("the mask is empty", file, fix, "empty_mask")


def _build(samples: Sequence[Sample], size: int, folder: Path, progress: Callable[[int, int], None] | None) -> None:
    """Writes the cache whole, or nothing. InputError as open_cache."""
    needed = 5 * len(samples) * size * size  # at most, while gray films are written anew without colour
    work: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        _make_room(folder.parent, needed)
        work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=BUILDING))
        _fill(work, samples, size, progress)
        try:
            work.rename(folder)
        except OSError:  # another run was faster
            if not (folder / DONE).exists():
                shutil.rmtree(folder, ignore_errors=True)
                work.rename(folder)
    except OSError as e:
        what = f"the films cannot be kept decoded, which takes {needed / 2**20:,.0f} MiB ({e.strerror or e})"
        raise InputError(what, folder.parent, "Make room, or let REPORTSEG_CACHE name a folder on another disk.", "cache") from e
    finally:
        if work:
            shutil.rmtree(work, ignore_errors=True)


def _make_room(root: Path, needed: int) -> None:
    """Removes the caches that were used longest ago until `needed` more bytes fit into MAX_BYTES, and what a killed run left half built.

    A run that has one of them open goes on: its files stay until it closes them (Windows refuses to remove them, and they are left).
    """
    found = []
    for folder in root.iterdir():
        done = folder / DONE
        with suppress(OSError):  # another run removes it at the same time
            if _NAME.fullmatch(folder.name) and done.is_file():
                found.append((done.stat().st_mtime, sum(file.stat().st_size for file in folder.iterdir()), folder))
            elif folder.name.startswith(BUILDING) and time.time() - folder.stat().st_mtime > DAY:
                shutil.rmtree(folder, ignore_errors=True)
    total = sum(size for _, size, _ in found)
    for _, size, folder in sorted(found):
        if total + needed > MAX_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _fill(work: Path, samples: Sequence[Sample], size: int, progress: Callable[[int, int], None] | None) -> None:
    """images.npy, masks.npy and done.json. OSError where the disk is full."""
    images = _array(work / "images.npy", (len(samples), 3, size, size))
    masks = _array(work / "masks.npy", (len(samples), size, size))

    def read(i: int) -> bool:
        image, mask_HW = read_image(samples[i].image), read_mask(cast(Path, samples[i].mask))  # open_cache has seen that there is one
        if mask_HW.shape != image.geometry.shape:
            what = "the mask has {1} x {0} pixels".format(*mask_HW.shape) + ", its image {1} x {0}".format(*image.geometry.shape)
            raise InputError(what, cast(Path, samples[i].mask), f"Export it on the grid of its image. {_ALL}", "size_mismatch")
        film = prepare_image(image, size)
        images[i] = (film * 255).round().byte().numpy()
        masks[i] = prepare_mask(np.ascontiguousarray(image.geometry.displayed(mask_HW)), size)
        return bool((film[0] == film[1]).all() and (film[0] == film[2]).all())

    gray = True
    with ThreadPoolExecutor(2) as pool:
        for done, one in enumerate(pool.map(read, range(len(samples))), 1):
            gray = gray and one
            if progress:
                progress(done, len(samples))
    if gray:  # a third of the memory traffic
        np.save(work / "gray.npy", images[:, :1])
        (work / "gray.npy").replace(work / "images.npy")
    else:
        images.flush()
    masks.flush()
    (work / DONE).write_text(json.dumps({"n": len(samples), "size": size}))


def _array(path: Path, shape: tuple[int, ...]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A mapped array whose blocks are on the disk before a byte is written: a page that finds no room would kill the process."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with open(path, "rb+") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def prepare_mask(mask_HW: NDArray[np.bool_], size: int) -> NDArray[np.uint8]:
    """A mask on the square grid: a pixel is inside where at least half of it was."""
    if mask_HW.shape == (size, size):
        return mask_HW.astype(np.uint8)
    import torch
    from torch.nn import functional as F

    area = F.interpolate(torch.from_numpy(mask_HW.astype(np.float32))[None, None], size=(size, size), mode="area")
    return (area[0, 0] >= 0.5).numpy().astype(np.uint8)
