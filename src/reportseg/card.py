"""The card of a bundle, its README.md: what it is for, what it learnt from, how good, and its limits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from .schemas.bundle import Base, BundleConfig
from .schemas.training import TrainingFile

if TYPE_CHECKING:
    from torch import nn


def card(config: BundleConfig, training: TrainingFile, model: nn.Module, reads: bool, sha256: str) -> str:
    """The text in Markdown. `reads` says whether a sentence moves the answer, `sha256` is the bundle's hash."""
    total = sum(p.numel() for p in model.parameters())
    named = {part: getattr(config.base, part) for part in Base.model_fields}
    towers = [f"{tower.id} ({part})" for part, tower in named.items() if tower.id]
    sources = [f"- {d.name}, licence: {d.licence or 'not stated'}, split {d.split_sha256[:12]}" for d in config.trained_on]
    known = {name: value for name, value in sorted(training.dev.items()) if value is not None}
    figures = [f"| {name} | {value:.4f} |" for name, value in known.items()]
    minutes = training.seconds / 60
    whose = {
        "image": '"left" is the left side of the image as it is displayed, the patient\'s right on a standard film',
        "patient": '"left" is the patient\'s left',
        "none": "the training sentences name no side; a side word cannot be trusted",
    }[config.text.laterality]
    if reads:
        asked, task = "...", "Segments in an image what a sentence describes."
        tokens = f"\nA text is read {config.text.max_tokens} tokens at a time; a longer one is cut at sentences."
        sides = f"{config.text.laterality}: {whose}. `--laterality` converts from another convention."
        answers = """It answers to sentences like those it was trained on; words it never saw raise the warning `out_of_vocabulary`.
- A sentence that was written with the lesion in view tells where it is; expect less from a report that was not."""
    else:
        asked, task = "", "Segments in an image what its training masks showed. No text is read: whatever is asked, the film alone decides."
        tokens, sides = "", "No side word is read. `--laterality` says whose left the side of an answer means."
        answers = "It cannot be asked for one finding among several, nor for one that its training masks did not show."
    cut = f"p >= {config.decision.threshold:g}" if config.decision.rule == "fixed" else "per film the mask of highest expected Dice"
    flips = (
        "\nThe probability is averaged with that of the mirrored film under swapped side words; `--no-flips` answers in half the time."
        if config.decision.flips
        else ""
    )
    regime = (
        "Trained from random initialisation, both towers included: a result is evidence for the modules, never for parameter efficiency."
        if not towers
        else f"Stands on pretrained towers: {', '.join(towers)}. One that was not trained in full is not in this folder:\n"
        "it is found again where config.json says, or in a folder of its name beside this one, and its sha256 must match."
    )
    short = " The schedule was cut short by the time limit." if training.truncated else ""
    short += f" It went on from the bundle {config.parent}, whose images are not among these." if config.parent else ""
    short += f" The masks were softened by the answers of {', '.join(one[:12] for one in training.teacher)}." if training.teacher else ""
    return f"""---
library_name: reportseg
pipeline_tag: image-segmentation
license: other
license_name: {json.dumps(config.licence)}
---
# {config.model_type}: a mask for a {"sentence" if reads else "film"}

**{config.intended_use}**

{task} Bundle {sha256}, {total / 1e6:.2f} M parameters, fp16.

## Use
```
reportseg predict THIS_FOLDER film.png --text "{asked}" -o out
```
```python
from reportseg import Segmenter
prediction = Segmenter.from_pretrained("THIS_FOLDER").segment("film.png", "{asked}")
```
Images are stretched to {config.preprocess.size_px} px; the answer is on the image's own grid.{tokens}

## Whose left
{sides}

## Trained on
{chr(10).join(sources) or "- not stated"}

{training.images} images in {training.steps} steps, {minutes:.1f} minutes on {training.device} ({training.precision}),
seed {training.seed}.{short}
{regime}

## Decision
probability = sigmoid(logit / {config.decision.temperature:.4g}); mask: {cut}. Fitted on dev, films that were never trained on.{flips}
Presence: {"own head" if config.presence else "unavailable, no absent target was trained"}.

## Figures on dev
| score | value |
|---|---|
{chr(10).join(figures) or "| none | recorded |"}

Dev chose the decision and the best weights, so these are optimistic; score a test set with `reportseg evaluate`.

## Limits
- {answers}
- Other scanners, ages, views and diseases than those of the training data were not tested.

## Licence
{config.licence}
"""
