"""Draws the chest of a phantom film by formula: lungs, bones, heart, opacities, exposure. What is drawn and told: synthetic.py.

Coordinates: x from -1 (left of the image) to 1, y from -1 (top) to 1; H = W = size. Gray stands for what the rays meet: air 0, flesh about
0.6, everything adds up. All that is drawn but the grain is the same at every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ..text import LEVELS, SIDES

Map = NDArray[np.floating[Any]]  # (H, W) float32 but for short lists of numbers


@dataclass(frozen=True)
class Area:
    """One opacity: its side of the image and the neighbouring levels that it fills."""

    side: str
    levels: tuple[str, ...]

    @property
    def zones(self) -> frozenset[tuple[str, str]]:
        """(side, level) pairs that it fills."""
        return frozenset((self.side, level) for level in self.levels)


@dataclass(frozen=True)
class Body:
    """Lines of one chest in x and y; a pair is (left, right of the image). From `bone` on: what it adds to, or takes from, the rays."""

    apex: float
    dome: tuple[float, float]  # the top of each half of the diaphragm: the liver lifts the left one of the image
    width: float
    hilum: float
    heart: tuple[float, float, float, float, float]  # centre; a, b, c of the ellipse a dx^2 + 2 b dx dy + c dy^2 = 1
    rib_gap: float
    rib_phase: float
    rib_arch: float
    bone: float
    flesh: float
    breast: float
    bubble: float


def body_of(patient: np.random.Generator, film: np.random.Generator) -> Body:
    """The patient's chest, with the depth of this film's breath."""
    u = patient.uniform
    dome = u(0.40, 0.54) + film.uniform(-0.04, 0.04)
    along, across, tilt = u(0.34, 0.44) ** -2, u(0.23, 0.29) ** -2, math.radians(u(30, 50))
    cos, sin = math.cos(tilt), math.sin(tilt)
    ellipse = (along * cos**2 + across * sin**2, (along - across) * cos * sin, along * sin**2 + across * cos**2)
    return Body(
        apex=u(-0.76, -0.66),
        dome=(dome, dome + u(0.03, 0.09)),
        width=u(0.66, 0.77),
        hilum=u(-0.14, -0.06),
        heart=(u(0.13, 0.19), dome - u(0.14, 0.20), *ellipse),
        rib_gap=u(0.13, 0.16),
        rib_phase=u(0, 1),
        rib_arch=u(0.3, 0.5),
        bone=u(0.05, 0.09),
        flesh=u(0.56, 0.64),
        breast=max(0.0, u(-0.06, 0.06)),
        bubble=max(0.0, u(-0.10, 0.16)),
    )


def _edges(body: Body, side: int, y: Map) -> tuple[Map, Map]:
    """Distance from the midline of the lung's inner and outer border at height y. The heart lies over the right lung of the image."""
    middle = 0.33
    t = np.clip((y - body.apex) / (body.dome[side] - body.apex), 0, 1)
    outer = middle + (body.width - middle) * np.sqrt(1 - (1 - np.minimum(t / 0.7, 1)) ** 2.2)
    inner = middle - (middle - 0.14) * np.sqrt(1 - (1 - np.minimum(t / 0.3, 1)) ** 2)
    x0, y0, a, b, c = body.heart
    dy = y - y0
    reach = a - (a * c - b * b) * dy**2
    heart = (2 * side - 1) * (x0 - b * dy / a) + np.sqrt(np.maximum(reach, 0)) / a
    return np.maximum(inner, np.where(reach > 0, heart, 0)), outer


def _zone_lines(body: Body, side: int) -> list[float]:
    """The four heights that bound the three zones, from under the apex to a little below the dome."""
    top, bottom = body.apex + 0.04, body.dome[side] + 0.06
    return [top + (bottom - top) * k / 3 for k in range(4)]


class Grid(NamedTuple):
    """Where each pixel lies in the chest: coordinates after the pose, and the two lungs as soft masks in [0, 1]."""

    x: Map
    y: Map
    lungs: tuple[Map, Map]


def chest(body: Body, rng: np.random.Generator, size: int) -> tuple[Map, NDArray[np.uint8], Grid]:
    """The thickness that the rays meet, without opacities; the map of the zones; the grid."""
    angle, zoom = math.radians(rng.uniform(-4, 4)), rng.uniform(0.94, 1.06)
    dx, dy = rng.uniform(-0.05, 0.05), rng.uniform(-0.05, 0.05)
    line = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
    row, column = line[None, :] - dx, line[:, None] - dy
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    x, y = cos * row + sin * column, cos * column - sin * row

    far = np.abs(x)
    lungs, floors, zone_HW = [], [], np.zeros((size, size), np.uint8)
    for side, sign in enumerate((-1, 1)):
        a = sign * x
        inner, outer = _edges(body, side, y)
        out = a - 0.34  # from the top of the dome outwards
        floor = body.dome[side] + 0.75 * np.maximum(out, 0) ** 2 + 0.25 * np.minimum(out, 0) ** 2
        inside = np.minimum(np.minimum(a - inner, outer - a), np.minimum(y - body.apex, floor - y))
        lung = _step(inside, 0.03)
        _, first, second, _ = _zone_lines(body, side)
        zone_HW += ((lung > 0.5) * (1 + 3 * side + (y > first) + (y > second))).astype(np.uint8)
        lungs.append(lung)
        floors.append(floor)
    air, floor = lungs[0] + lungs[1], np.where(x < 0, floors[0], floors[1])

    film = body.flesh * (1 - 0.66 * air) + 0.10 * _step(y - floor, 0.03) * _step(body.width + 0.08 - far, 0.1)
    film += 0.13 * np.exp(-((x / 0.12) ** 2)) * (1 + 0.15 * np.cos(y * 42))  # the spine
    film += 0.05 * np.exp(-((x / 0.25) ** 2))  # the mediastinum
    film -= 0.10 * np.exp(-((x / 0.045) ** 2)) * _step(-0.28 - y, 0.2)  # the windpipe
    film += 0.12 * _heart(body, x, y)
    film -= body.bubble * np.exp(-(((x - 0.36) / 0.13) ** 2) - ((y - body.dome[1] - 0.18) / 0.07) ** 2)  # air in the stomach
    film += 0.10 * np.exp(-(((x - 0.13) / 0.08) ** 2) - ((y + 0.30) / 0.09) ** 2)  # the arch of the aorta
    film += body.breast * _step(1 - ((far - 0.45) / 0.36) ** 2 - ((y - 0.3) / 0.3) ** 2, 0.6)
    film += _vessels(body, x, y, rng) * air
    film += _bones(body, x, y, far)
    shoulder = 0.30 + 0.9 * _step(y + 0.86, 0.35) + 0.2 * _step(y + 0.2, 1.0)
    film *= _step(shoulder - far, 0.08)  # around the neck there is only air
    return film, zone_HW, Grid(x, y, (lungs[0], lungs[1]))


def _heart(body: Body, x: Map, y: Map) -> Map:
    """Its depth along the rays, that of a ball: 1 at the centre, 0 from the border on."""
    x0, y0, a, b, c = body.heart
    dx, dy = x - x0, y - y0
    depth: Map = np.sqrt(np.maximum(1 - a * dx**2 - 2 * b * dx * dy - c * dy**2, 0))
    return depth


def _bones(body: Body, x: Map, y: Map, far: Map) -> Map:
    """Ribs, back and front, and the collar bones."""
    cage = _step(body.width + 0.06 - far, 0.06) * _step(y - body.apex - 0.02, 0.06) * _step(far - 0.08, 0.05) * _step(0.75 - y, 0.3)
    back = np.cos(2 * np.pi * ((y - body.rib_arch * (far - 0.2) ** 2) / body.rib_gap + body.rib_phase))
    front = np.cos(2 * np.pi * ((y - 0.9 * body.rib_arch * (0.9 - far) ** 2) / (1.25 * body.rib_gap) + 2 * body.rib_phase))
    bones: Map = body.bone * cage * (_step(back - 0.25, 0.5) + 0.5 * _step(front - 0.4, 0.5) * _step(far - 0.3, 0.2) * _step(y + 0.35, 0.3))
    collar = body.apex + 0.17 - 0.22 * (far - 0.08) + 0.05 * np.sin(7 * far)
    bones += 1.8 * body.bone * np.exp(-(((y - collar) / 0.032) ** 2)) * _step(0.85 - far, 0.1) * _step(far - 0.07, 0.05)
    return bones


def _vessels(body: Body, x: Map, y: Map, rng: np.random.Generator) -> Map:
    """What spreads from the roots of the lungs: dense at the root, in strands further out."""
    cloud = _cloud(rng, 8, len(x))
    tree = 0.02 * _cloud(rng, 24, len(x))
    for sign in (-1, 1):
        u, v = sign * x - 0.2, y - body.hilum
        r = np.hypot(u, v)
        strands = np.clip(np.cos(7 * np.arctan2(v, u) + 7 * cloud + sign) - 0.1, 0, 1)
        tree += (u > -0.2) * (0.14 * np.exp(-((r / 0.13) ** 2)) + 0.10 * strands * np.exp(-r / 0.25))
    return tree


def opacity(area: Area, body: Body, grid: Grid, rng: np.random.Generator) -> tuple[Map, NDArray[np.bool_]]:
    """A cloud in the zones of `area`: its veil, about 0 to 1, and its mask, where the cloud has half of its full density or more.

    It is a heap of soft balls in bent coordinates, cut by the lung's border; towards zones that are not named it thins out, so that the
    mask ends before them.
    """
    side, size = SIDES.index(area.side), len(grid.x)
    lines = _zone_lines(body, side)
    low, high = lines[LEVELS.index(area.levels[0])], lines[LEVELS.index(area.levels[-1]) + 1]
    n = 5 * len(area.levels)
    heights = low + (high - low) * (0.24 + 0.52 * (rng.permutation(n) + rng.random(n)) / n)  # spread evenly, so that it is one cloud
    inner, outer = _edges(body, side, heights)
    drift = rng.uniform(0.25, 0.75)  # against the heart, or at the chest wall
    places = (2 * side - 1) * (inner + (outer - inner) * np.clip(drift + rng.uniform(-0.22, 0.22, n), 0.12, 0.88))
    widths = rng.uniform(0.065, 0.115, n)
    x, y = grid.x + 0.10 * _cloud(rng, 11, size), grid.y + 0.10 * _cloud(rng, 11, size)
    heap: Map = np.zeros_like(x)
    for x0, y0, width in zip(places.tolist(), heights.tolist(), widths.tolist(), strict=True):
        heap += np.exp(((x - x0) ** 2 + (y - y0) ** 2) * (-0.5 / width**2))
    cloud = (1 - np.exp(-1.3 * heap)) * grid.lungs[side]
    ragged = grid.y + 0.04 * _cloud(rng, 9, size)
    if low > lines[0]:
        cloud *= _step(ragged - low - 0.04, 0.08)
    if high < lines[3]:
        cloud *= _step(high - 0.04 - ragged, 0.08)
    cloud, mask = _largest(cloud)
    return cloud * (0.85 + 0.3 * _cloud(rng, 14, size) + 0.15 * _cloud(rng, 40, size)), mask


def _largest(cloud: Map) -> tuple[Map, NDArray[np.bool_]]:
    """The cloud and its mask; shreds that hang loose are thinned until they belong to neither."""
    labels, count = ndimage.label(cloud > 0.5)
    if count < 2:
        return cloud, labels > 0
    mask = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    return np.where((labels > 0) & ~mask, 0.3 * cloud, cloud), mask


def foreign_bodies(film: Map, body: Body, grid: Grid, rng: np.random.Generator) -> None:
    """In one film of four a catheter, an electrode or the two nipples: bright, sharp, and never described. Changes `film`."""
    kind, sign, a, b = rng.random(), 1 if rng.random() < 0.5 else -1, rng.random(), rng.random()
    if kind < 0.10:
        way = sign * (0.10 + 0.25 * np.exp(-(((grid.y + 0.75) / 0.25) ** 2))) + 0.03 * np.sin(5 * grid.y + 6 * a)
        film += 0.16 * np.exp(-(((grid.x - way) / 0.014) ** 2)) * _step(0.1 * b - 0.05 - grid.y, 0.02)
    elif kind < 0.18:
        film += 0.22 * _step(0.035 - np.hypot(grid.x - sign * (0.25 + 0.4 * a), grid.y + 0.3 - 0.5 * b), 0.02)
    elif kind < 0.26:
        for side in (-1, 1):
            spot = np.hypot(grid.x - side * (0.42 + 0.1 * a), grid.y - body.dome[0] + 0.14 + 0.1 * b)
            film += 0.08 * np.exp(-((spot / 0.022) ** 2))


def expose(film: Map, grid: Grid, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Thickness to gray: uneven light, exposure, grain."""
    gamma, black, white, grain = rng.uniform(0.8, 1.3), rng.uniform(0.0, 0.08), rng.uniform(0.85, 1.0), rng.uniform(0.012, 0.035)
    uneven = 1 + rng.uniform(-0.05, 0.05) * grid.x + rng.uniform(-0.05, 0.05) * grid.y
    light = film * uneven + 0.015 * _cloud(rng, 5, len(film))
    gray = black + (white - black) * np.clip(light / 1.02, 0, 1) ** gamma + grain * rng.standard_normal(film.shape, np.float32)
    pixels: NDArray[np.uint8] = np.rint(np.clip(gray, 0, 1) * 255).astype(np.uint8)
    return pixels


# ---------------------------------------------------------------- brushes


def _step(d: Map, width: float) -> Map:
    """0 to 1 as d goes from -width / 2 to width / 2, smoothly."""
    t = np.clip(d * (1 / width) + 0.5, 0, 1)
    step: Map = t * t * (3 - 2 * t)
    return step


@lru_cache(maxsize=64)
def _weights(cells: int, size: int) -> Map:
    """(size, cells + 1): how much each random corner counts for each pixel; smooth steps between neighbours."""
    place = (np.arange(size) + 0.5) * cells / size
    left = place.astype(int)
    t = place - left
    t = t * t * (3 - 2 * t)
    table = np.zeros((size, cells + 1), np.float32)
    table[np.arange(size), left], table[np.arange(size), left + 1] = 1 - t, t
    return table


def _cloud(rng: np.random.Generator, cells: int, size: int) -> Map:
    """Smooth noise in [-1, 1], the same at every size: `cells` hills across."""
    table = _weights(cells, size)
    cloud: Map = table @ rng.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32) @ table.T
    return cloud
