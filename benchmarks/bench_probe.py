"""What tells one code of a model from another: what it computes on a made-up batch before it is trained.

A commit does not tell: it changes with every cell that is committed, and the sources may differ from it. A hash of the sources changes with
a comment. Losses and gradient change where the model does, its start, its losses, its words or its knowledge. They are computed in fp32 on
a CPU, so machines agree on them but for rounding. Films, augmentation and schedule have no part in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from reportseg.models import bank_of, build, make_tokenizer

TOLERANCE = 1e-3  # relative; rounding of another machine stays far below it
SENTENCES = ["Upper left lung and lower right lung.", "", "Lower left lung.", "Upper right lung."]
SIDE = 112  # as the bench trains: here maps have odd sides, and what a model does there shows


def probe(section: Mapping[str, Any]) -> dict[str, float]:
    """Loss terms and the norm of their gradient, of a model of this `model` section at its start: the same for all seeds and rates."""
    return _probe(json.dumps(section, sort_keys=True))


@cache
def _probe(section_json: str) -> dict[str, float]:
    section = json.loads(section_json)
    bank = bank_of(section)
    tokenizer = make_tokenizer(section, [*SENTENCES, *(bank.texts() if bank else [])])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(section, tokenizer, bank).train()
        model.begin_training(SENTENCES)
        with torch.no_grad():
            for parameter in model.parameters():
                if not parameter.any():  # a gate that starts at zero hides what lies behind it
                    parameter.copy_(torch.randn_like(parameter) * 0.1)
        image = torch.rand(len(SENTENCES), 3, SIDE, SIDE)
    mask = torch.zeros(len(SENTENCES), 1, SIDE, SIDE, dtype=torch.bool)
    for i in range(len(SENTENCES)):
        mask[i, :, 8 * i : 8 * i + 16, 12 * i : 12 * i + 20] = True
    valid = torch.ones_like(image[:, :1])
    valid[..., -9:] = 0
    model(image, SENTENCES, mask, valid)  # what a model keeps of the films so far, as TMCA's mean masks, has a part in the next step
    losses = model(image, SENTENCES, mask, valid).losses
    torch.stack(list(losses.values())).sum().backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    return {**{name: float(loss.detach()) for name, loss in losses.items()}, "norm": float(norm)}


def difference(before: Mapping[str, float] | None, now: Mapping[str, float]) -> str:
    """The figures that differ, in words; empty where none does, and where none were written down, as by the first cells."""
    told: list[str] = []
    if before is None:
        return ""
    for name in sorted(before.keys() | now.keys()):
        one, two = before.get(name), now.get(name)
        if one is None or two is None or abs(one - two) > TOLERANCE * max(abs(one), abs(two), TOLERANCE):
            told.append(f"{name} {_shown(two)}, was {_shown(one)}")
    return "; ".join(told)


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.5g}"
