"""Batches. Which films a step sees, and every random draw on them, is a function of (seed, step, index): no state to restore."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ..config import RunConfig
from ..text import CONSTANT, can_swap, swap_sides
from ..types import Image, Sample
from .negatives import Prompt, prompts, tells_all
from .transforms import Params, augment, draw, generator, warp

ORDER, FILM, NEGATIVE = 1, 2, 3  # names of the random streams


@dataclass(frozen=True)
class Batch:
    """image_B3HW float32 in [0, 1], not normalised; mask_B1HW bool; valid_BHW True where a pixel belongs to the film.

    target_B1HW float32 in [0, 1] is what is learnt in place of the mask where there is a teacher.
    """

    image_B3HW: Tensor
    mask_B1HW: Tensor
    texts: list[str]
    ids: list[str]
    valid_BHW: Tensor
    target_B1HW: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on that device; texts and ids stay."""
        return replace(
            self,
            image_B3HW=self.image_B3HW.to(device),
            mask_B1HW=self.mask_B1HW.to(device),
            valid_BHW=self.valid_BHW.to(device),
            target_B1HW=None if self.target_B1HW is None else self.target_B1HW.to(device),
        )


@dataclass(frozen=True)
class RawBatch:
    """What the loader's processes read: bytes, texts and drawn numbers; `finish` turns it into a Batch on the device."""

    image_BCHW: Tensor
    mask_B1HW: Tensor
    texts: list[str]
    ids: list[str]
    params: list[Params]
    size: int
    target_B1HW: Tensor | None = None

    def finish(self, device: torch.device) -> Batch:
        """The batch on the device, augmented there by the drawn numbers: image in [0, 1], gray repeated to three channels."""
        image = self.image_BCHW.to(device).float() / 255
        image, mask, valid = augment(image, self.mask_B1HW.to(device), self.params, self.size)
        target = None
        if self.target_B1HW is not None:
            target = warp(self.target_B1HW.to(device).float() / 255, self.params, self.size) * valid
        return Batch(image.expand(-1, 3, -1, -1), mask, self.texts, self.ids, valid[:, 0], target)


class Films(Protocol):
    """What the loader needs of a cache."""

    @property
    def images_NCHW(self) -> NDArray[np.uint8]:
        """Film i in row i, C is 1 or 3, all of one size."""
        ...

    @property
    def masks_NHW(self) -> NDArray[np.uint8]:
        """Their masks, 0 or 1."""
        ...

    @property
    def targets_NHW(self) -> NDArray[np.uint8] | None:
        """What is learnt in place of the masks where there is a teacher, 0 to 255."""
        ...


class Steps(Dataset[RawBatch]):
    """Item k is micro-batch k of the run. Each pass over the films is a new permutation of all of them."""

    def __init__(self, samples: Sequence[Sample], films: Films, config: RunConfig) -> None:
        self.samples, self.films, self.config = list(samples), films, config
        self.tells_all = tells_all(self.samples)

    def __len__(self) -> int:
        return -(-self.config.train.images // self.config.train.batch)

    def rows(self, k: int) -> list[int]:
        """Rows of `samples` in micro-batch k."""
        n, batch = len(self.samples), self.config.train.batch
        first, last = k * batch, min((k + 1) * batch, self.config.train.images)
        epochs = {e: generator(self.config.seed, ORDER, e).permutation(n) for e in range(first // n, (last - 1) // n + 1)}
        return [int(epochs[i // n][i % n]) for i in range(first, last)]

    def __getitem__(self, k: int) -> RawBatch:
        data, rows = self.config.data, self.rows(k)
        params, texts = [], []
        masks_BHW = np.ascontiguousarray(self.films.masks_NHW[rows]).astype(bool)
        targets_BHW = None if self.films.targets_NHW is None else np.ascontiguousarray(self.films.targets_NHW[rows])
        for index, row in enumerate(rows):
            sample, rng = self.samples[row], generator(self.config.seed, FILM, k, index)
            dropped = rng.random() < data.text_dropout
            one = draw(data.augment, rng, sample.flip_safe and can_swap(sample.text))  # the twin sees the same films as its model
            params.append(one)
            if data.text == "constant":
                texts.append(CONSTANT)
            elif dropped:
                texts.append("")
            else:
                other = self._other(k, index, row, masks_BHW[index])
                text = sample.text if other is None else other.text
                texts.append(swap_sides(text) if one.flip else text)
                if other is not None:
                    masks_BHW[index] = other.mask_HW
                    if targets_BHW is not None:  # the teacher was asked the film's own sentence
                        targets_BHW[index] = 255 * other.mask_HW
        image = torch.from_numpy(np.ascontiguousarray(self.films.images_NCHW[rows]))
        mask = torch.from_numpy(masks_BHW)[:, None]
        ids, size = [self.samples[r].id for r in rows], self.config.size_at(k * self.config.train.batch)
        target = None if targets_BHW is None else torch.from_numpy(targets_BHW)[:, None]
        return RawBatch(image, mask, texts, ids, params, size, target)

    def _other(self, k: int, index: int, row: int, mask_HW: NDArray[np.bool_]) -> Prompt | None:
        """For the share `negatives` of the films one of the other prompts that the film allows, else None: its own sentence.

        From a stream of its own, so that with and without negatives a run sees the same films turned the same way.
        """
        sample, share = self.samples[row], self.config.data.negatives
        chance, which = generator(self.config.seed, NEGATIVE, k, index).random(2) if share else (1.0, 0.0)
        others = prompts(sample, mask_HW) if chance < share and self.tells_all[row] else []
        return others[int(which * len(others))] if others else None


def batches(steps: Steps, start: int, device: torch.device, workers: int = 0) -> Iterator[Batch]:
    """Micro-batches from number `start` on. The number of workers changes the speed and nothing else."""
    order = range(start, len(steps))
    own = torch.Generator()  # torch would seed the workers from the global stream, and move it
    loader = DataLoader(steps, batch_size=None, sampler=order, num_workers=workers, prefetch_factor=4 if workers else None, generator=own)
    for raw in loader:
        yield raw.finish(device)


def prepare_image(image: Image, size: int) -> Tensor:
    """A film as the models take it: (3, size, size) float32 in [0, 1], turned for display, stretched to the square with anti-aliasing, gray
    repeated.
    """
    pixels = torch.from_numpy(np.ascontiguousarray(image.geometry.displayed(image.pixels_HWC))).permute(2, 0, 1)[None]
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return pixels[0].expand(3, -1, -1).contiguous()
