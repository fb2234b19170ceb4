"""A memory-mapped copy of films and masks on the training grid, so that no file is decoded twice.

It lies in `$REPORTSEG_CACHE`, by default the user's cache folder, readable by the user alone; a changed file makes a new cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..io import read_image, read_mask
from ..types import Sample
from .loader import prepare_image


@dataclass(frozen=True)
class FilmCache:
    """images (N, C, size, size) uint8 with C 1 (all gray) or 3, masks (N, size, size) uint8 in {0, 1}; row i is sample i."""

    images_NCHW: NDArray[np.uint8]
    masks_NHW: NDArray[np.uint8]


def cache_root() -> Path:
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "reportseg"
    return Path(os.environ.get("REPORTSEG_CACHE", default))


def open_cache(samples: Sequence[Sample], size: int, progress: Callable[[int, int], None] | None = None) -> FilmCache:
    """The cache of these samples at `size` pixels, built where it is missing. Raises InputError with the first unreadable file."""
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
    if not (folder / "done.json").exists():
        _build(samples, size, folder, progress)
    return FilmCache(np.load(folder / "images.npy", mmap_mode="r"), np.load(folder / "masks.npy", mmap_mode="r"))


def _build(samples: Sequence[Sample], size: int, folder: Path, progress: Callable[[int, int], None] | None) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
    try:
        images = np.lib.format.open_memmap(work / "images.npy", mode="w+", dtype=np.uint8, shape=(len(samples), 3, size, size))
        masks = np.lib.format.open_memmap(work / "masks.npy", mode="w+", dtype=np.uint8, shape=(len(samples), size, size))

        def read(i: int) -> bool:
            film = prepare_image(read_image(samples[i].image), size)
            images[i] = (film * 255).round().byte().numpy()
            masks[i] = prepare_mask(read_mask(cast(Path, samples[i].mask)), size)  # open_cache has seen that there is one
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
        (work / "done.json").write_text(json.dumps({"n": len(samples), "size": size}))
        try:
            work.rename(folder)
        except OSError:  # another run was faster
            if not (folder / "done.json").exists():
                shutil.rmtree(folder, ignore_errors=True)
                work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def prepare_mask(mask_HW: NDArray[np.bool_], size: int) -> NDArray[np.uint8]:
    """A mask on the square grid: a pixel is inside where at least half of it was."""
    if mask_HW.shape == (size, size):
        return mask_HW.astype(np.uint8)
    import torch
    from torch.nn import functional as F

    area = F.interpolate(torch.from_numpy(mask_HW.astype(np.float32))[None, None], size=(size, size), mode="area")
    return (area[0, 0] >= 0.5).numpy().astype(np.uint8)
