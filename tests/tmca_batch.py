"""A tiny TMCA in training and a batch for it, the same in every process."""

from __future__ import annotations

import torch

from reportseg.models import build
from reportseg.models.encoders import train_tokenizer

LEFT, RIGHT, BOTH, DROPPED = "upper left lung.", "upper right lung.", "lower left lung and lower right lung.", ""
TEXTS = [LEFT, RIGHT, BOTH, DROPPED, RIGHT, LEFT]
TOKENIZER = train_tokenizer(TEXTS)


def built(**section):
    """A tiny TMCA with open gates, so that no path hides behind a zero."""
    torch.manual_seed(0)
    model = build({"name": "tmca", "preset": "tiny", **section}, TOKENIZER)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


def trained_model(**section):
    """The same between `begin_training` and `end_training`."""
    model = built(**section)
    model.begin_training(TEXTS)
    return model.train()


def make_batch(height=32, width=40):
    """Films, sentences, masks: one film without its sentence, and one without a target."""
    generator = torch.Generator().manual_seed(3)
    mask = torch.zeros(6, 1, height, width, dtype=torch.bool)
    for i, (y, x) in enumerate([(4, 3), (5, 24), (18, 10), (9, 9), (6, 22), (0, 0)]):
        mask[i, :, y : y + 8 + i, x : x + 10] = True
    mask[5] = False
    return torch.rand(6, 3, height, width, generator=generator), list(TEXTS), mask
