"""Where sentences place what they name, learnt from sentences and masks alone, before a film is seen.

A text encoder from random initialisation learns slowly beside an image encoder: as long as films improve the answer, the gradient says
little of words, and two sentences of the same words in another order ("upper left ... lower right", "lower left ... upper right") stay the
same to the model. Placed first, for the cost of a few hundred steps without images, they are apart from the first film on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from statistics import fmean
from typing import Any

import torch
from torch import nn

from .config import Augment, RunConfig
from .data.loader import Batch
from .losses import bce_loss, coarse_target
from .run_config import changed

GRID = 14
BATCH = 128
SIZE_PX = 56
RATE, HEAD_RATE = 1e-3, 1e-2
WARMUP = 30  # steps
SEEN = 50  # steps whose loss is averaged for the log


def sentences_only(config: RunConfig) -> RunConfig:
    """The run's config for the batches of `learn_places`: small films that are mirrored and otherwise left where they are, since a
    sentence knows nothing of a shift.
    """
    augment = config.data.augment
    still = None if augment is None else Augment(flip=augment.flip, rotate_deg=0, scale=0, shift=0, intensity=0)
    data = config.data.model_copy(update={"augment": still, "size_px": SIZE_PX})
    return changed(config.model_copy(update={"data": data}), "train", batch=BATCH, images=BATCH * config.train.text_steps)


def learn_places(model: Any, batches: Iterator[Batch], steps: int, clip: float, progress: Callable[[int], None]) -> float:
    """Moves the text encoder of `model` until a linear map of its units, summed over a sentence, tells what share of each cell of a 14 x 14
    grid the mask covers: binary cross-entropy over the valid cells. The map is thrown away, and parameters that no sentence reaches stay as
    they are. Returns the mean loss of the last steps, in nats; `progress` hears of each step.
    """
    model.train()
    with torch.no_grad():
        width = model.encode_text([""]).tokens_BLD.shape[2]
    head = nn.Linear(width, GRID * GRID).to(model.mean.device)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained}, {"params": list(head.parameters())}]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.98))
    losses = []
    for step, batch in enumerate(islice(batches, steps)):
        text = model.encode_text(batch.texts)
        cells_BLG = head(text.tokens_BLD.float()) * text.mask_BL[..., None]
        logits_B1hw = cells_BLG.sum(1).view(-1, 1, GRID, GRID)
        target, weight = coarse_target(batch.mask_B1HW, batch.valid_BHW[:, None], (GRID, GRID))
        loss = bce_loss(logits_B1hw, target, weight)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*trained, *head.parameters()], clip)
        share = min(1.0, (step + 1) / WARMUP, 2 * (steps - step) / steps)  # a rise, then from the middle on a fall to zero
        for group, rate in zip(optimiser.param_groups, (RATE, HEAD_RATE), strict=True):
            group["lr"] = share * rate
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        progress(step + 1)
    return fmean(losses[-SEEN:])
