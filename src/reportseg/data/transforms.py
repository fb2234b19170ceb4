"""Augmentation on the batch. Parameters are drawn apart from being applied: plain numbers, so a replay and a test come free.

Shapes: B batch, C channels, H,W the source grid, s the side of the square that is produced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..config import Augment


@dataclass(frozen=True)
class Params:
    """One film's augmentation. Angle in degrees (counter-clockwise), shift in shares of the side, zoom above 1 enlarges.

    A positive shift moves the film left and up. `sharpness` in [-1, 0.5]: below 0 towards the 3 x 3 mean, above 0 away from it. `noise` is
    a standard deviation, `noise_seed` its stream.
    """

    flip: bool = False
    angle: float = 0.0
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    gamma: float = 1.0
    contrast: float = 1.0
    brightness: float = 0.0
    sharpness: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0


IDENTITY = Params()


def generator(seed: int, *place: int) -> np.random.Generator:
    """A stream that depends on (seed, place) alone, for example (seed, step, index): a resume restores no random state."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *place])))


def draw(config: Augment | None, rng: np.random.Generator, flip_safe: bool) -> Params:
    """Parameters for one film. Every number is drawn whether it is used or not, so that one switch does not move the others."""
    u = rng.random(12)
    seed = int(rng.integers(2**31))
    if config is None:
        return IDENTITY
    zoom_range = -math.log(1 - config.scale)
    k = config.intensity
    return Params(
        flip=bool(config.flip and flip_safe and u[0] < 0.5),
        angle=float(config.rotate_deg * (2 * u[1] - 1)),
        zoom=math.exp(zoom_range * (2 * u[2] - 1)),
        shift=(float(config.shift * (2 * u[3] - 1)), float(config.shift * (2 * u[4] - 1))),
        gamma=math.exp(1.2 * k * (2 * u[5] - 1)),
        contrast=float(1 + k * (2 * u[6] - 1)),
        brightness=float(0.5 * k * (2 * u[7] - 1)),
        sharpness=float(min(0.5, max(-1, k * (5 * u[8] - 10 / 3)))) if u[9] < 0.3 else 0.0,
        noise=float(0.2 * k * u[10]) if u[11] < 0.3 else 0.0,
        noise_seed=seed,
    )


def matrices(params: list[Params]) -> Tensor:
    """Output-to-input affine maps (B, 2, 3) in the [-1, 1] coordinates of `affine_grid`."""
    rows = []
    for p in params:
        cos, sin = math.cos(math.radians(p.angle)) / p.zoom, math.sin(math.radians(p.angle)) / p.zoom
        mirror = -1.0 if p.flip else 1.0
        # The mirror is applied to the input side, so angle and shift mean the same on a mirrored film.
        rows.append([[mirror * cos, mirror * -sin, mirror * 2 * p.shift[0]], [sin, cos, 2 * p.shift[1]]])
    return torch.tensor(rows, dtype=torch.float32)


def warp(source_BCHW: Tensor, params: list[Params], size: int) -> Tensor:
    """Sample maps in [0, 1] under the affine maps onto a square of `size`; zero outside the source. Shrinks by area first."""
    factor = min(source_BCHW.shape[-2:]) // size
    if factor > 1:
        source_BCHW = F.avg_pool2d(source_BCHW, factor)
    if all(p == IDENTITY for p in params) and source_BCHW.shape[-2:] == (size, size):
        return source_BCHW
    theta = matrices(params).to(source_BCHW.device)
    grid = F.affine_grid(theta, [len(params), source_BCHW.shape[1], size, size], align_corners=False)
    return F.grid_sample(source_BCHW, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def shade(image_BCHW: Tensor, params: list[Params]) -> Tensor:
    """Gamma, contrast about the film's mean, brightness, sharpness, noise; the result is clipped to [0, 1]."""

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(p, name) for p in params], device=image_BCHW.device).view(-1, 1, 1, 1)

    x = image_BCHW.clamp(1e-4, 1) ** column("gamma")
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * column("contrast") + mean + column("brightness")
    rows = [i for i, p in enumerate(params) if p.sharpness]
    if rows:
        part = x[rows]
        smooth = F.avg_pool2d(F.pad(part, (1, 1, 1, 1), mode="replicate"), 3, 1)
        x[rows] = part + column("sharpness")[rows] * (part - smooth)
    for i, p in enumerate(params):
        if p.noise:
            stream = torch.Generator().manual_seed(p.noise_seed)
            x[i] += p.noise * torch.randn(x.shape[-2:], generator=stream).to(x.device)
    return x.clamp(0, 1)


def augment(image_BCHW: Tensor, mask_B1HW: Tensor, params: list[Params], size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Image in [0, 1], mask (bool) and the film's own extent (bool), each on a square of `size`, under the same parameters.

    A pixel is in the mask where at least half of it was, as in the cache; the mask never leaves the extent, outside of it the image is 0.
    """
    extent = torch.ones_like(mask_B1HW, dtype=image_BCHW.dtype)
    stack = warp(torch.cat([image_BCHW, mask_B1HW.to(image_BCHW.dtype), extent], dim=1), params, size)
    channels = image_BCHW.shape[1]
    image, mask, valid = stack[:, :channels], stack[:, channels : channels + 1] >= 0.5, stack[:, channels + 1 :] >= 0.5
    if any(p != IDENTITY for p in params):
        image = shade(image, params) * valid
    return image, mask, valid
