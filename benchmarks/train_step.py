"""Time of a training step of each config as a ratio to that of the 31 M U-Net, in one process, since machines are noisy.

    python benchmarks/train_step.py tgcnet_qata_small [CONFIG ...] [--size 112] [--batch 32] [--steps 9] [--out FILE]

Forwards, backwards and the optimiser on made-up films and sentences, in turns, so that a busy moment falls on all alike; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from output import finish
from reportseg.config import TrainSection, load_config
from reportseg.engines import autocast
from reportseg.models import bank_of, build
from reportseg.models.encoders import train_tokenizer
from reportseg.optim import adamw, bf16_gains

UNET = {"name": "unet", "width": 64}
SENTENCES = [
    f"Unilateral pulmonary infection, one infected area, {level} {side} lung."
    for side in ("left", "right")
    for level in ("upper", "middle", "lower", "upper middle", "middle lower", "all")
] + ["Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."]


def stepper(section: Mapping[str, Any], size: int, batch: int, precision: Any) -> tuple[Callable[[], None], int]:
    torch.manual_seed(0)
    bank = bank_of(section)
    model = build(section, train_tokenizer(SENTENCES + (bank.texts() if bank else [])), bank)
    optimiser = adamw(model, TrainSection())
    image, mask = torch.rand(batch, 3, size, size), torch.rand(batch, 1, size, size) > 0.8
    texts = [SENTENCES[i % len(SENTENCES)] for i in range(batch)]

    def step() -> None:
        with autocast(torch.device("cpu"), precision):
            output = model(image, texts, mask)
        torch.stack(list(output.losses.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step, sum(p.numel() for p in model.parameters())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    precision = "bf16" if bf16_gains(torch.device("cpu")) else "fp32"
    sections = {"unet, 31 M": UNET} | {name: load_config(name).model for name in asked.configs}
    steppers = {name: stepper(section, asked.size, asked.batch, precision) for name, section in sections.items()}
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for turn in range(asked.steps + 2):
        for name, (step, _) in steppers.items():
            start = time.perf_counter()
            step()
            if turn >= 2:
                times[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in times.items()}
    base = median["unet, 31 M"]
    rows = {
        name: {"params": steppers[name][1], "images_per_s": round(asked.batch / value, 1), "ratio": round(value / base, 3)}
        for name, value in median.items()
    }
    print(f"{'config':<24} {'parameters':>12} {'images/s':>9} {'step, x U-Net':>14}")
    for name, row in rows.items():
        print(f"{name:<24} {row['params']:>12,} {row['images_per_s']:>9} {row['ratio']:>14}")
    result = {"size_px": asked.size, "batch": asked.batch, "precision": precision, "threads": torch.get_num_threads(), "configs": rows}
    finish(result, asked.out)


if __name__ == "__main__":
    main()
