"""What knowledge buys where it could: Dice by how often a film's sentence was seen in training, and on paraphrases.

    python benchmarks/sentences.py MANIFEST with=BUNDLE without=BUNDLE [neutral=BUNDLE] --split val [--paraphrase text_medclipseg] [--out F]

Groups of films: *common* sentences stand on more than five training films, *rare* ones on one to five, *unseen* ones on none; *paraphrase*
asks every film in the words of another column. Each further bundle is subtracted from the first, paired, with a bootstrap of patients.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from output import finish
from reportseg import Segmenter
from reportseg.data.manifest import Dataset, read_manifest
from reportseg.data.splits import draw_dev
from reportseg.io import read_mask
from reportseg.metrics import score_case, summarise
from reportseg.stats import bootstrap, paired_bootstrap
from reportseg.text import normalise
from reportseg.types import CaseScore, Sample

RARE = 5
SCORES = ("dice_mean", "dice_pooled")


def groups(dataset: Dataset, split: str, train: str) -> dict[str, list[Sample]]:
    """Films of the split by the number of training films, dev left out, that have their sentence."""
    films = dataset.split(train)
    dev = set(draw_dev(films, dataset.name))
    seen = Counter(normalise(s.text) for s in films if s.id not in dev)
    found: dict[str, list[Sample]] = {"common": [], "rare": [], "unseen": []}
    for sample in dataset.split(split):
        n = seen[normalise(sample.text)]
        found["common" if n > RARE else "rare" if n else "unseen"].append(sample)
    return found


def ask(segmenter: Segmenter, samples: list[Sample]) -> list[CaseScore]:
    answers = segmenter.segment_batch([s.image for s in samples], [s.text for s in samples], laterality=segmenter.laterality)
    return [score_case(s.id, s.patient, a.mask_HW, read_mask(s.mask)) for s, a in zip(samples, answers, strict=True)]


def row(cases: list[CaseScore], first: list[CaseScore] | None) -> dict[str, object]:
    values, ci = summarise(cases), bootstrap(cases)
    out: dict[str, object] = {name: [values[name], *ci[name]] for name in SCORES}
    if first is not None:
        difference = paired_bootstrap(first, cases)
        out |= {f"first_minus_this_{name}": difference[name] for name in SCORES}
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("manifest")
    parser.add_argument("bundles", nargs="+", metavar="NAME=BUNDLE")
    parser.add_argument("--split", default="val")
    parser.add_argument("--train", default="train")
    parser.add_argument("--paraphrase", metavar="COLUMN")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    films = groups(read_manifest(asked.manifest), asked.split, asked.train)
    if asked.paraphrase:
        films["paraphrase"] = read_manifest(asked.manifest, text_column=asked.paraphrase).split(asked.split)
    films = {name: samples for name, samples in films.items() if samples}
    result: dict[str, object] = {"split": asked.split, "n": {name: len(samples) for name, samples in films.items()}, "bundles": {}}
    first: dict[str, list[CaseScore]] = {}
    for item in asked.bundles:
        name, _, path = item.partition("=")
        segmenter = Segmenter.from_pretrained(path)
        cases = {group: ask(segmenter, samples) for group, samples in films.items()}
        rows = {group: row(scored, first.get(group)) for group, scored in cases.items()}
        result["bundles"][name] = {"sha256": segmenter.sha256, **rows}
        first = first or cases
    finish(result, asked.out)


if __name__ == "__main__":
    main()
