"""Whether a bundle reads its sentences: sides under a mirror, and the order of words.

    python benchmarks/reading.py BUNDLE MANIFEST --split val [--films 100] [--out results/reading.json]

Sides: films drawn by seed are mirrored and the side words of their sentences swapped; the answer, mirrored back, is compared with the
answer to the film as it was. Mean Dice of the two answers, both empty 1.

Order: every film whose sentence has a sibling in the manifest, a sentence of the same words in another order that names other zones. The
film is asked both; Dice of its own sentence minus that of the sibling (the mean over siblings), with a bootstrap of patients.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from output import finish
from reportseg import Segmenter
from reportseg.data.manifest import read_manifest
from reportseg.io import read_image, read_mask
from reportseg.metrics import score_case
from reportseg.stats import paired_bootstrap
from reportseg.text import can_swap, normalise, swap_sides, word_bag, zones
from reportseg.types import CaseScore, Sample


def dice(a_HW: np.ndarray, b_HW: np.ndarray) -> float:
    total = int(a_HW.sum()) + int(b_HW.sum())
    return 2 * int((a_HW & b_HW).sum()) / total if total else 1.0


def mirrored_sides(segmenter: Segmenter, samples: list[Sample], films: int, seed: int) -> dict[str, float]:
    eligible = [s for s in samples if can_swap(s.text)]
    chosen = random.Random(seed).sample(eligible, min(films, len(eligible)))
    scores = []
    for sample in chosen:
        pixels = read_image(sample.image).pixels_HWC
        straight, turned = segmenter.segment_batch(
            [pixels, np.ascontiguousarray(pixels[:, ::-1])], [sample.text, swap_sides(sample.text)], laterality=segmenter.laterality
        )
        scores.append(dice(straight.mask_HW, turned.mask_HW[:, ::-1]))
    return {"n": len(scores), "mean_dice": float(np.mean(scores)), "worst": float(min(scores))}


def siblings(samples: list[Sample]) -> dict[str, list[str]]:
    """Normalised sentence -> the sentences of the same words that name other zones."""
    by_bag: dict[tuple[str, ...], dict[str, str]] = {}
    for sample in samples:
        by_bag.setdefault(word_bag(sample.text), {})[normalise(sample.text)] = sample.text
    return {own: [text for text in group.values() if zones(text) != zones(group[own])] for group in by_bag.values() for own in group}


def word_order(segmenter: Segmenter, samples: list[Sample], known: list[Sample]) -> dict[str, object]:
    others = siblings(known)
    mine: list[CaseScore] = []
    theirs: list[CaseScore] = []
    for sample in samples:
        rivals = others.get(normalise(sample.text), [])
        if not rivals:
            continue
        truth = read_mask(sample.mask)
        answers = segmenter.segment_many(sample.image, [sample.text, *rivals], laterality=segmenter.laterality)
        own, *rest = (score_case(sample.id, sample.patient, answer.mask_HW, truth) for answer in answers)
        mine.append(own)
        theirs.append(replace(own, dice=float(np.mean([other.dice for other in rest]))))
    return {
        "n": len(mine),
        "own_dice": float(np.mean([case.dice for case in mine])),
        "mean_difference": paired_bootstrap(mine, theirs)["dice_mean"],
        "better": float(np.mean([a.dice > b.dice for a, b in zip(mine, theirs, strict=True)])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("manifest")
    parser.add_argument("--split", default="val")
    parser.add_argument("--films", type=int, default=100, help="films for the sides")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    dataset = read_manifest(asked.manifest)
    segmenter, samples = Segmenter.from_pretrained(asked.bundle), dataset.split(asked.split)
    result = {
        "bundle_sha256": segmenter.sha256,
        "split": asked.split,
        "sides": mirrored_sides(segmenter, samples, asked.films, asked.seed),
        "order": word_order(segmenter, samples, list(dataset.samples)),
    }
    finish(result, asked.out)


if __name__ == "__main__":
    main()
