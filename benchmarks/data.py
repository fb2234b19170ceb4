"""Rate of the data pipeline alone, beside the rate at which the model of the same config trains.

    python benchmarks/data.py CONFIG MANIFEST [--batches 40] [--out results/bench-data.json]

The pipeline is all that stands between the cache and the model, wherever it runs: reading rows, drawing, augmentation, swapped words,
collation; and, once for each sentence, the tokenizer. The project's bound is a ratio of 8. Medians over batches, per size of the schedule.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from output import finish
from reportseg.config import RunConfig, load_config
from reportseg.data.cache import open_cache
from reportseg.data.loader import Steps, batches
from reportseg.engines import autocast
from reportseg.models import bank_of, build, resolve
from reportseg.models.encoders import SentenceTokenizer, train_tokenizer
from reportseg.optim import adamw, bf16_gains, seconds_per_step
from reportseg.runs import prepare

BOUND = 8


def with_manifest(config: RunConfig, manifest: str, **changes: object) -> RunConfig:
    return config.model_copy(update={"data": config.data.model_copy(update={"manifest": manifest, **changes})})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("manifest")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    config = with_manifest(resolve(load_config(asked.config)), asked.manifest)
    prepared, device = prepare(config), torch.device("cpu")
    films = open_cache(prepared.train, max(size for _, size in config.data.sizes()))
    precision = "bf16" if bf16_gains(device) else "fp32"
    bank = bank_of(config.model)
    words = train_tokenizer([s.text for s in prepared.train] + (bank.texts() if bank else []))
    model = build(config.model, words, bank)
    optimiser = adamw(model, config.train)
    tokenizer = SentenceTokenizer(words, 77)

    rows = {}
    for _, size in config.data.sizes():
        sized = with_manifest(config, asked.manifest, size_px=size)
        stream = iter(batches(Steps(prepared.train, films, sized), 0, device))

        def load(stream=stream) -> None:
            tokenizer(next(stream).texts, device)

        batch = next(stream)

        def train(batch=batch) -> None:
            with autocast(device, precision):
                output = model(batch.image_B3HW, batch.texts, batch.mask_B1HW, batch.valid_BHW[:, None])
            torch.stack(list(output.losses.values())).sum().backward()
            optimiser.step()
            optimiser.zero_grad()

        data, step = seconds_per_step(load, device, 3, asked.batches), seconds_per_step(train, device, 3, max(5, asked.batches // 8))
        n = config.train.batch
        rows[str(size)] = {
            "data_images_per_s": round(n / data, 1),
            "model_images_per_s": round(n / step, 1),
            "ratio": round(step / data, 2),
        }
    print(f"{'px':>5} {'data, images/s':>15} {'model, images/s':>16} {'ratio':>7}")
    for size, row in rows.items():
        print(f"{size:>5} {row['data_images_per_s']:>15} {row['model_images_per_s']:>16} {row['ratio']:>7}")
    result = {"config": config.name, "precision": precision, "threads": torch.get_num_threads(), "bound": BOUND, "sizes": rows}
    finish(result, asked.out)


if __name__ == "__main__":
    main()
