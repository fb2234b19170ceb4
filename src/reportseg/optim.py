"""What surrounds the gradient: parameter groups, learning rate, weight average, and which precision this machine gains from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .config import TrainSection


def adamw(model: nn.Module, train: TrainSection) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) with no decay on norms, biases and other vectors and scalars."""
    named = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in named if p.ndim > 1], "weight_decay": train.weight_decay},
        {"params": [p for p in named if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=train.lr, betas=(0.9, 0.98), fused=True)


def learning_rate(step: int, steps: int, train: TrainSection) -> float:
    """For step 0 .. steps - 1: a linear rise over the share `warmup`, then a cosine that would reach zero at `steps`."""
    warm = max(1, round(train.warmup * steps))
    if step < warm:
        return train.lr * (step + 1) / warm
    return train.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class Average:
    """Exponential moving average of weights and buffers: decay min(d, (1 + t) / (10 + t)) after step t, horizon <= 10 % of the run.

    `t` begins anew with each size of the films, which leaves next to nothing of the average before: it was of another size's weights.
    """

    def __init__(self, model: nn.Module, decay: float, steps: int) -> None:
        self.decay = min(decay, max(0.0, 1 - 10 / max(1, steps)))
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, t: int) -> None:
        """Moves the average towards the model's weights: step `t` since it began."""
        decay = min(self.decay, (1 + t) / (10 + t))
        mine, new = [], []
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                mine.append(self.state[name])
                new.append(value)
            else:
                self.state[name].copy_(value)
        torch._foreach_lerp_(mine, new, 1 - decay)


def optimiser_state(optimiser: torch.optim.AdamW, model: nn.Module) -> dict[str, Tensor]:
    """AdamW's moments as flat tensors named after their parameters."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {f"{names[id(p)]}:{key}": value for p, state in optimiser.state.items() for key, value in state.items()}


def load_optimiser_state(optimiser: torch.optim.AdamW, model: nn.Module, state: dict[str, Tensor]) -> None:
    """The reverse of `optimiser_state`: moments go to the device of their parameter."""
    parameters = dict(model.named_parameters())
    for key, value in state.items():
        name, _, part = key.rpartition(":")
        parameter = parameters[name]
        optimiser.state[parameter][part] = value.to(parameter.device) if part != "step" or parameter.is_cuda else value


def seconds_per_step(step: Callable[[], object], device: torch.device, discard: int = 5, count: int = 30) -> float:
    """Median time of `step`, after some that are thrown away."""
    times = []
    for i in range(discard + count):
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= discard:
            times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def bf16_gains(device: torch.device) -> bool:
    """Whether a 3x3 convolution, forwards and backwards, is at least 1.3 times as fast in bf16 as in fp32: not every processor has it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    with torch.random.fork_rng(devices=[]):  # a resume does not ask again, and what it draws next must be the same
        layer = nn.Conv2d(96, 96, 3, padding=1, device=device)
        x_BCHW = torch.randn(8, 96, 28, 28, device=device)

    def one(enabled: bool) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            layer(x_BCHW).float().square().mean().backward()

    try:
        slow, fast = (seconds_per_step(lambda on=on: one(on), device, 3, 9) for on in (False, True))  # type: ignore[misc]
    except RuntimeError:
        return False
    return slow > 1.3 * fast
