"""Low-rank adaptation (Hu et al. 2022, arXiv 2106.09685): a frozen weight W is used as W + B A, and only B and A are trained."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

RANK = 8


class Adapted(nn.Module):
    """A linear map or convolution `base` with W + B A for its weight: B is zero at start. The scale alpha / r of the paper is 1."""

    def __init__(self, base: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        self.base: Any = base
        rows, columns = base.weight.shape[0], base.weight[0].numel()
        self.A = nn.Parameter(torch.randn(RANK, columns) / math.sqrt(columns))
        self.B = nn.Parameter(torch.zeros(rows, RANK))

    def weight(self) -> Tensor:
        """W + B A, of the shape of W."""
        whole: Tensor = self.base.weight + (self.B @ self.A).view_as(self.base.weight)
        return whole

    def forward(self, x: Tensor) -> Tensor:
        """What `base` gives for `x` with that weight."""
        out: Tensor = functional_call(self.base, {"weight": self.weight()}, (x,))
        return out


def adapt(module: nn.Module, names: Collection[str]) -> None:
    """Freeze `module` and give every linear map and convolution in it that is called one of `names` its B and A."""
    module.requires_grad_(False)
    for parent in list(module.modules()):
        for name, part in list(parent.named_children()):
            if name in names and isinstance(part, nn.Linear | nn.Conv2d):
                setattr(parent, name, Adapted(part))


@torch.no_grad()
def merge(module: nn.Module) -> None:
    """Put each B A into its weight, for inference: the same answers without the extra product."""
    for parent in list(module.modules()):
        for name, part in list(parent.named_children()):
            if isinstance(part, Adapted):
                part.base.weight.copy_(part.weight())
                setattr(parent, name, part.base)
