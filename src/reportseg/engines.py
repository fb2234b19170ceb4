"""What computes: one `run(image_B3HW, texts) -> ModelOutput` for every backend, and the way back to the grid of the film."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import InputError
from .models import ModelOutput, TextBatch
from .text import can_swap, swap_sides
from .types import Image

Precision = Literal["fp32", "bf16"]
DEVICES = ("cpu", "cuda", "mps")


def pick_device(name: str = "auto") -> torch.device:
    """`auto` takes CUDA, else Apple's MPS, else the CPU. Raises InputError for a device that is not here, or that we do not compute on."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"the device {name!r} is not available", "--device", "Use cpu, or auto.", "device") from error
    return device


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """bf16 where asked; otherwise nothing at all."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


class TorchEngine:
    """A model in eval mode on one device. No gradient is kept; answers come back in fp32."""

    def __init__(self, model: nn.Module, device: str = "auto", precision: Precision = "fp32") -> None:
        self.device = pick_device(device)
        self.model: Any = model.to(self.device).eval()
        self.precision = precision

    @property
    def name(self) -> str:
        """What the answers name as their engine, e.g. torch-cpu."""
        return f"torch-{self.device.type}"

    def encode_image(self, image_B3HW: Tensor) -> Any:
        """The text-free part; its result goes to `decode` with any sentences."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            return self.model.encode_image(image_B3HW.to(self.device))

    def encode_text(self, texts: Sequence[str]) -> TextBatch:
        """Sentences to units in the joint space, once for any number of films."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            encoded: TextBatch = self.model.encode_text(list(texts))
        return encoded

    def decode(self, features: Any, text: TextBatch, mask_B1HW: Tensor | None = None) -> ModelOutput:
        """With a mask the answer also holds the similarity maps and the losses."""
        with torch.inference_mode(), autocast(self.device, self.precision):
            output: ModelOutput = self.model.decode(features, text, mask_B1HW)
        return output

    def run(self, image_B3HW: Tensor, texts: Sequence[str]) -> ModelOutput:
        """Films in [0, 1], one sentence each."""
        return self.decode(self.encode_image(image_B3HW), self.encode_text(texts))


def mirrored_film(image: Image) -> Image:
    """The film with left and right of its display exchanged, on its own grid: mirrored before it is resized, twice it is itself."""
    grid = image.geometry
    return replace(image, pixels_HWC=np.ascontiguousarray(grid.stored(grid.displayed(image.pixels_HWC)[:, ::-1])))


def mirrored_text(text: str, reads_text: bool) -> str | None:
    """The sentence that asks of the mirrored film what `text` asks of the film; None where a side word of it cannot be exchanged."""
    if not reads_text:
        return text
    return swap_sides(text) if can_swap(text) else None


def native_logits(logits_B1HW: Tensor, shapes: Sequence[tuple[int, int]]) -> list[NDArray[np.float32]]:
    """Each answer on its own film's grid, (H, W) float32: logits are resampled first and cut afterwards."""
    logits = logits_B1HW.detach().float().cpu()
    return [
        row.numpy() if row.shape == shape else F.interpolate(row[None, None], shape, mode="bilinear", align_corners=False)[0, 0].numpy()
        for row, shape in zip(logits[:, 0], shapes, strict=True)
    ]
