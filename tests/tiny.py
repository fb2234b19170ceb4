"""A tiny TGC-Net bundle with random weights, as quick as a bundle can be, and films to ask it about."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from reportseg.bundle import save_bundle
from reportseg.knowledge.bank import load_bank
from reportseg.models import build
from reportseg.models.encoders import train_tokenizer
from reportseg.schemas.training import TrainingFile
from reportseg.text import words

LEFT = "Unilateral pulmonary infection, one infected area, upper left lung."
RIGHT = "Unilateral pulmonary infection, one infected area, upper right lung."
SENTENCES = [LEFT, RIGHT, "Bilateral pulmonary infection, two infected areas, lower left lung and lower right lung."]
TGCNET = {"name": "tgcnet", "preset": "tiny"}
UNET = {"name": "unet", "width": 4}
#: A training of four steps.
SMALL = ["data.size_px=16", "train.images=32", "train.batch=8", "train.precision=fp32", "eval.controls=[]"]


def write_bundle(
    path: Path,
    section=TGCNET,
    *,
    seed=0,
    laterality="image",
    size_px=32,
    temperature=1.3,
    threshold=0.5,
    rule="fixed",
    text="as_written",
    flips=False,
    flip_safe=None,
):
    """Returns `path`. The weights are random, but the last layer is steep: masks are neither empty nor full, and words move them."""
    torch.manual_seed(seed)
    reads = section["name"] != "unet"
    tokenizer, bank = (train_tokenizer(SENTENCES), load_bank("chest")) if reads else (None, None)
    model = build(section, tokenizer, bank).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("attend.") and name.endswith("out.weight"):
                parameter.mul_(8)
        model.head.weight.mul_(20)
        logits = model(torch.from_numpy(film()).permute(2, 0, 1)[None].expand(-1, 3, -1, -1), [LEFT]).logits_B1HW
        model.head.bias.sub_(logits.median())
    config = {
        "preprocess": {"size_px": size_px},
        "text": {"laterality": laterality},
        "presence": section.get("presence", False),
        "decision": {"rule": rule, "threshold": threshold, "temperature": temperature, "flips": flips},
        "trained_on": [{"name": "made-up", "licence": "CC0-1.0", "split_sha256": "a" * 64, "flip_safe": flip_safe}],
        "licence": "Apache-2.0",
    }
    training = TrainingFile(images=0, steps=0, seconds=0.0, config={"model": dict(section), "data": {"text": text}})
    return save_bundle(path, model, section, tokenizer, bank, config, training, [w for s in SENTENCES for w in words(s)])


def film(height: int = 40, width: int = 48, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A smooth film with some noise, float32 (H, W, C) in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    waves = np.sin(6 * x + seed) * np.cos(5 * y) * 0.3 + 0.5
    return (waves[:, :, None] + rng.uniform(-0.1, 0.1, (height, width, channels))).clip(0, 1).astype(np.float32)
