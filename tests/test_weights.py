"""The trained bundles of weights/: each loads as it is, is small, names its data and their terms, and answers a film and a sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reportseg.bundle import load_bundle
from reportseg.data.importers import import_data
from reportseg.data.manifest import read_manifest
from reportseg.data.synthetic import synthesise
from reportseg.io import read_mask
from reportseg.metrics import score_case, summarise
from reportseg.segmenter import Segmenter
from reportseg.text import swap_sides

WEIGHTS = Path(__file__).parents[1] / "weights"
BUNDLES = sorted(path.parent for path in WEIGHTS.glob("*/config.json"))
MEGABYTES = {"tgcnet-qata": 15, "tmca-qata": 15, "tgcnet-qata-large": 25, "tmca-qata-large": 25}
#: Bundles known to mark the opacity that they see where the sentence names the free side. They follow it on 10 and 35 of 64 phantoms.
FOLLOWS_THE_FILM = {"tgcnet-qata", "tmca-qata"}
FLOOR = 0.85  # pooled Dice over a few films: far above another sentence's answer, below what a sample of 64 can fall to by chance


@pytest.fixture(scope="module", params=BUNDLES, ids=lambda path: path.name)
def bundle(request):
    return request.param


@pytest.fixture(scope="module")
def segmenter(bundle):
    return Segmenter.from_pretrained(bundle, device="cpu")


def scores(segmenter, samples, texts=None):
    answers = segmenter.segment_batch([s.image for s in samples], texts or [s.text for s in samples], laterality="image")
    return summarise([score_case(s.id, s.patient, a.mask_HW, read_mask(s.mask)) for s, a in zip(samples, answers, strict=True)])


def test_there_is_a_bundle_and_each_has_a_limit():
    assert BUNDLES
    assert {path.name for path in BUNDLES} <= set(MEGABYTES)


def test_a_bundle_is_small_and_states_its_terms(bundle):
    assert sum(file.stat().st_size for file in bundle.iterdir()) <= MEGABYTES[bundle.name] * 10**6
    config = load_bundle(bundle).config
    assert [source.name for source in config.trained_on] == ["qata_cov19"]
    assert "research" in config.licence.lower()
    for name in ("LICENSE", "NOTICE"):
        text = (bundle / name).read_text(encoding="utf-8")
        assert "QaTa-COV19" in text
        assert "research" in text.lower()
    assert "Research use only. Not a medical device: not for diagnosis or treatment." in (bundle / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """One-sided phantoms: drawn, not filmed, so only sides are asked of them. Of eight, the share that is right varies by a third."""
    films = read_manifest(synthesise(tmp_path_factory.mktemp("phantoms"), 160, seed=3)).samples
    return [film for film in films if film.text.startswith("Unilateral")]


def on_the_named_side(segmenter, films, texts) -> float:
    """The share of the answers that lie wholly on the side that the text names."""
    answers = segmenter.segment_batch([film.image for film in films], texts, laterality="image")
    named = ["left" if "left" in text.lower() else "right" for text in texts]
    return float(np.mean([answer.side == side for answer, side in zip(answers, named, strict=True)]))


def test_a_phantom_gets_a_mask_on_the_side_that_its_sentence_names(segmenter, phantoms):
    assert len(phantoms) == 64
    assert on_the_named_side(segmenter, phantoms, [film.text for film in phantoms]) >= 0.75


def test_the_answer_to_a_phantom_follows_the_sentence_to_the_other_side(request, bundle, segmenter, phantoms):
    if bundle.name in FOLLOWS_THE_FILM:
        request.applymarker(pytest.mark.xfail(strict=True, reason="it marks what it sees, docs/results.md"))
    assert on_the_named_side(segmenter, phantoms, [swap_sides(film.text) for film in phantoms]) >= 0.75


@pytest.mark.data
def test_real_films_get_the_masks_that_their_sentences_tell(segmenter, data_root, tmp_path):
    dataset = read_manifest(import_data("lvit", data_root / "qata_cov19", tmp_path / "qata", name="qata_cov19").manifest)
    val = dataset.split("val")
    samples = [val[i] for i in np.random.default_rng(0).choice(len(val), 64, replace=False)]
    assert scores(segmenter, samples)["dice_pooled"] > FLOOR
    assert scores(segmenter, samples, [s.text for s in samples[1:] + samples[:1]])["dice_pooled"] < FLOOR - 0.05
