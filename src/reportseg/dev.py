"""What the held-out tenth of the training films is for: to choose weights while a run goes on, and to fit the decision at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from .data.cache import FilmCache
from .data.loader import prepare_image
from .decision import Decision, calibrate, decide, fit
from .engines import TorchEngine, mirrored_film, mirrored_text, native_logits
from .io import read_image, read_mask
from .losses import area_average
from .models.layers import cells_of
from .types import Image, Sample

TextOf = Callable[[Sample], str]


@contextmanager
def averaged(model: nn.Module, average: Mapping[str, Tensor]) -> Iterator[None]:
    """The model with its weight average in it, for the time of a `with`."""
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(average)
    try:
        yield
    finally:
        model.load_state_dict(kept)


def score_dev(engine: TorchEngine, dev: Sequence[Sample], films: FilmCache, size: int, text_of: TextOf) -> dict[str, float]:
    """dice_mean and dice_pooled at 0.5 on the cached grid from films of `size` pixels, the size that the run has reached, and the AUROC of
    each similarity map, mean over films.
    """
    counts: list[tuple[int, int]] = []
    areas: dict[str, list[NDArray[np.float64]]] = {}
    for i in range(0, len(dev), 32):
        image = torch.from_numpy(np.array(films.images_NCHW[i : i + 32])).float().div(255)
        image = F.adaptive_avg_pool2d(image, size).expand(-1, 3, -1, -1)
        mask = torch.from_numpy(np.array(films.masks_NHW[i : i + 32]))[:, None].bool()
        texts = [text_of(sample) for sample in dev[i : i + 32]]
        covered = area_average(mask, (size, size)).to(engine.device)
        output = engine.decode(engine.encode_image(image), engine.encode_text(texts), covered >= 0.5)
        answer = (F.interpolate(output.logits_B1HW, mask.shape[2:], mode="bilinear", align_corners=False) > 0).cpu()
        counts += [_overlap(a.numpy(), m.numpy()) for a, m in zip(answer, mask, strict=True)]
        for name, values in output.maps.items():
            areas.setdefault(name, []).append(separation(values, covered, output.strides.get(name)))
    means = {f"auroc_{name}": _mean(np.concatenate(parts)) for name, parts in areas.items()}
    return _dice(counts) | {name: value for name, value in means.items() if value is not None}


def fit_decision(
    engine: TorchEngine, dev: Sequence[Sample], side: int, text_of: TextOf, progress: Callable[[int, int], None], flips: bool = False
) -> tuple[Decision, dict[str, float | None]]:
    """Temperature and cut, fitted on each film's own grid, and the scores that the result reaches there; 0.5 where there is no dev.

    With `flips` both are fitted on the probabilities averaged with those of the mirrored film, as they will be in use.
    """
    logits: list[NDArray[np.float16]] = []
    mirrored: list[NDArray[np.float16]] = []
    masks: list[NDArray[np.bool_]] = []
    for i in range(0, len(dev), 16):
        part = dev[i : i + 16]
        films, texts = [read_image(sample.image) for sample in part], [text_of(sample) for sample in part]
        masks += [film.geometry.displayed(read_mask(sample.mask)) for film, sample in zip(films, part, strict=True) if sample.mask]
        shapes = [mask.shape for mask in masks[i:]]
        logits += _logits(engine, films, texts, shapes, side)
        if flips:
            turned = [mirrored_text(text, engine.model.reads_text) for text in texts]
            asked = [own if text is None else text for own, text in zip(texts, turned, strict=True)]
            other = _logits(engine, [mirrored_film(film) for film in films], asked, shapes, side)
            mirrored += [own if t is None else row[:, ::-1] for own, row, t in zip(logits[i:], other, turned, strict=True)]
        progress(min(i + 16, len(dev)), len(dev))
    if not dev:
        return Decision(), {}
    decision, figures = fit(logits, masks, mirrored if flips else None)
    answers = [logits, mirrored] if flips else [logits]
    maps = (np.mean([calibrate(x, decision.temperature) for x in film], axis=0) for film in zip(*answers, strict=True))
    counts = [_overlap(decide(prob, decision), mask) for prob, mask in zip(maps, masks, strict=True)]
    return decision, {**_dice(counts), "n_films": float(len(dev)), "nll": figures["nll"], "nll_raw": figures["nll_raw"]}


def _logits(
    engine: TorchEngine, films: Sequence[Image], texts: Sequence[str], shapes: Sequence[tuple[int, int]], side: int
) -> list[NDArray[np.float16]]:
    output = engine.run(torch.stack([prepare_image(film, side) for film in films]), texts)
    return [row.astype(np.float16) for row in native_logits(output.logits_B1HW, shapes)]


def separation(map_B1hw: Tensor, mask_B1HW: Tensor, stride: int | None = None) -> NDArray[np.float64]:
    """AUROC of a similarity map against the cells that are at least half inside the mask, for each film; NaN where one side is empty.

    Without a stride the map is stretched over the film. With one `mask_B1HW` is on the grid of the film that was asked.
    """
    from scipy.stats import rankdata

    if stride is None:
        share = area_average(mask_B1HW, (map_B1hw.shape[2], map_B1hw.shape[3]))
    else:
        share, _ = cells_of(mask_B1HW, torch.ones_like(mask_B1HW), map_B1hw, stride)
    inside = (share >= 0.5).flatten(1).cpu().numpy()
    ranks = rankdata(map_B1hw.float().flatten(1).cpu().numpy(), axis=1)
    positive = inside.sum(1).astype(float)
    negative = inside.shape[1] - positive
    with np.errstate(invalid="ignore", divide="ignore"):
        area: NDArray[np.float64] = ((ranks * inside).sum(1) - positive * (positive + 1) / 2) / (positive * negative)
    return area


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def _overlap(answer: Any, truth: Any) -> tuple[int, int]:
    """(2 tp, 2 tp + fp + fn)."""
    return 2 * int((answer & truth).sum()), int(answer.sum()) + int(truth.sum())


def _dice(counts: Sequence[tuple[int, int]]) -> dict[str, float]:
    top, bottom = np.array(counts, dtype=np.float64).reshape(-1, 2).T
    mean = np.where(bottom > 0, top / np.maximum(bottom, 1), 1.0).mean() if len(counts) else 0.0
    return {"dice_mean": float(mean), "dice_pooled": float(top.sum() / bottom.sum()) if bottom.sum() else 1.0}
