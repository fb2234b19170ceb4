"""How a volume is looked at: which of its axes become slice, row and column, and how bright its values are.

A model for films sees a volume as a radiologist does: slices in the plane that was acquired, turned to the display that everybody knows, in
the window of the organ that is asked for. Both ways are views of the same memory, so an answer comes back on the volume's own voxels.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..text import normalise
from ..types import Affine, Geometry, Image, Volume

Window = tuple[float, float]
"""Centre and width, in Hounsfield units."""
#: Which window a prompt gets: the longest name that stands in it, else `default`.
WINDOWS: Mapping[str, Window] = {
    "default": (40.0, 400.0),
    "femoral head": (300.0, 1500.0),
    "femur": (300.0, 1500.0),
    "bone": (300.0, 1500.0),
    "lung": (-600.0, 1500.0),
    "pulmonary": (-600.0, 1500.0),
    "brain": (40.0, 80.0),
}
THICK = 2.0  # an axis whose voxels are so many times longer than both others is the one that was acquired slice by slice
AIR = -500  # values below it occur in CT alone
SHOWN = (0.5, 99.5)  # percentiles of a volume without Hounsfield units that become black and white
SAMPLED = 1_000_000  # voxels that tell these percentiles
# For slices across the patient's x, y, z (LPS): the patient axis and the direction that slices, rows and columns count up to.
PLANES = {
    0: ((0, 1), (2, -1), (1, 1)),  # sagittal: from the right, head up, facing left
    1: ((1, 1), (2, -1), (0, 1)),  # coronal: from the front, head up, the patient's right on the left
    2: ((2, 1), (1, 1), (0, 1)),  # axial: from the feet, front up, the patient's right on the left
}


@dataclass(frozen=True)
class View:
    """Axes of the file that become slice, row and column, whether each is reversed, and the patient axis across the slices (0, 1, 2)."""

    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    across: int
    spacing_mm: tuple[float, float, float]  # of neighbouring slices, rows, columns

    @property
    def has_sides(self) -> bool:
        """Whether left and right of a slice are sides of the patient; a sagittal slice has none."""
        return self.across != 0

    def shown(self, array_DHW: NDArray[Any]) -> NDArray[Any]:
        """The file's array as slices to look at: a view (S, H, W)."""
        return array_DHW.transpose(self.order)[self._flip]

    def stored(self, array_SHW: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `shown`."""
        return array_SHW[self._flip].transpose(tuple(int(i) for i in np.argsort(self.order)))

    @cached_property
    def _flip(self) -> tuple[slice, slice, slice]:
        first, second, third = (slice(None, None, -1 if flip else None) for flip in self.flips)
        return first, second, third


def view_of(affine: Affine) -> View:
    """The view of a volume with this affine, oblique ones by their nearest axes.

    Slices are cut across the axis whose voxels are by far the longest, as they were acquired; where none is, they are axial.
    """
    steps = np.array(affine)[:3, :3]
    sizes = np.linalg.norm(steps, axis=0)
    cosines = steps / sizes
    # axes[p] is the file's axis that lies along the patient's axis p
    axes = max(itertools.permutations(range(3)), key=lambda axes: sum(abs(cosines[p, axis]) for p, axis in enumerate(axes)))
    longest, next_, _ = sorted(range(3), key=lambda p: -sizes[axes[p]])
    across = longest if sizes[axes[longest]] > THICK * sizes[axes[next_]] else 2
    order = tuple(axes[p] for p, _ in PLANES[across])
    flips = tuple(bool(cosines[p, axes[p]] * sign < 0) for p, sign in PLANES[across])
    spacing = tuple(float(sizes[axis]) for axis in order)
    return View(order, flips, across, spacing)  # type: ignore[arg-type]


def film_of(volume: Volume, where: str = "") -> Image:
    """A NIfTI file of one slice, in whatever direction, as a film: its pixels as they are stored, and which way they are shown.

    InputError volume.
    """
    shape = volume.values_DHW.shape
    if 1 not in shape:
        what = f"the file is a volume of {shape[0]} slices, not a film"
        raise InputError(what, where, "Give it to `predict`; for training, import its slices.", "volume")
    thin = shape.index(1)
    down_, across_ = (axis for axis in range(3) if axis != thin)
    values_HW = volume.values_DHW.transpose(thin, down_, across_)[0]
    matrix = np.array(volume.affine)[:, [thin, down_, across_, 3]]
    low, high = brightness(volume, WINDOWS["default"])
    steps = matrix[:3, 1:3]
    places = np.abs(steps / np.linalg.norm(steps, axis=0))
    down, across = max(itertools.permutations(range(3), 2), key=lambda axes: places[axes[0], 0] + places[axes[1], 1])
    ends = ("RL"[int(steps[0, 1] > 0)], "AP"[int(steps[1, 1] > 0)], "FH"[int(steps[2, 1] > 0)])
    rows = ("RL"[int(steps[0, 0] > 0)], "AP"[int(steps[1, 0] > 0)], "FH"[int(steps[2, 0] > 0)])
    spacing = (volume.spacing_mm[down_], volume.spacing_mm[across_])
    affine = tuple(tuple(float(v) for v in row) for row in matrix)
    geometry = Geometry(values_HW.shape, spacing, (ends[across], rows[down]), affine, (thin, down_, across_))
    return Image(pixels(values_HW, low, high)[:, :, None], geometry, volume.format, "patient", volume.warnings)


def window_for(text: str, windows: Mapping[str, Window] = WINDOWS) -> Window:
    """The window of the organ that `text` names: of the longest name that stands in it as whole words, else the default one."""
    said = f" {normalise(text)} "
    names = [name for name in windows if f" {normalise(name)} " in said or f" {normalise(name)}s " in said]
    return windows[max(names, key=len)] if names else windows.get("default", WINDOWS["default"])


def brightness(volume: Volume, window: Window) -> tuple[float, float]:
    """The values that become black and white: of CT the window's ends, of others the file's own window, else nearly all there is.

    A file that names no modality is CT where it has values that only CT has. Bytes are shown as they are.
    """
    values = volume.values_DHW
    if volume.modality == "CT" or (not volume.modality and bool((np.isfinite(values) & (values < AIR)).any())):
        return window[0] - window[1] / 2, window[0] + window[1] / 2
    if values.dtype == np.uint8 and volume.window is None:
        return 0.0, 255.0
    if volume.window is not None:
        return volume.window[0] - volume.window[1] / 2, volume.window[0] + volume.window[1] / 2
    sample = values.reshape(-1)[:: max(1, values.size // SAMPLED)]
    sample = sample[np.isfinite(sample)]
    low, high = (float(v) for v in np.percentile(sample, SHOWN)) if sample.size else (0.0, 1.0)
    return low, high


def pixels(values_HW: NDArray[Any], low: float, high: float, inverted: bool = False) -> NDArray[np.float32]:
    """float32 in [0, 1], black at `low` and below, white at `high` and above, or the other way about; what is no number is black."""
    if inverted:
        return pixels(-values_HW.astype(np.float32), -high, -low)
    scaled = (values_HW.astype(np.float32) - np.float32(low)) / np.float32(max(high - low, 1e-6))
    unit: NDArray[np.float32] = np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0).clip(0, 1)
    return unit
