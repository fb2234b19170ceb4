"""What `make train-large` trains: small enough to ship, long enough, and one that trains, on a CPU too."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from reportseg.config import load_config
from reportseg.data.synthetic import synthesise
from reportseg.evaluate import evaluate
from reportseg.models import count_parameters, resolve
from reportseg.train import train

ROOT = Path(__file__).parents[1]
LARGE = ("tgcnet_qata_large", "tmca_qata_large")
TRAIN_FILMS = 5_145  # of QaTa-COV19, without dev


@pytest.mark.parametrize("name", LARGE)
def test_a_large_model_is_small_enough_to_ship_and_trains_for_sixty_epochs_or_more(name):
    config = resolve(load_config(name))
    assert 10_000_000 < count_parameters(config.model)["total"] <= 12_000_000
    assert config.train.images >= 60 * TRAIN_FILMS and config.train.precision == "bf16"
    assert config.data.sizes() == [(1.0, 224)]


def test_the_target_trains_three_teachers_a_model_and_its_twin():
    recipe = (ROOT / "Makefile").read_text().partition("\ntrain-large:")[2].partition("\n\n")[0]
    lines = re.findall(r"reportseg train (\S+).*", recipe)
    assert sorted(lines) == sorted([*LARGE, LARGE[0], LARGE[0]])
    seeds = re.findall(r"--seeds (\S+)", recipe)
    assert sum(len(one.split(",")) for one in seeds) == 3 and "0" not in ",".join(seeds).split(",")  # the student's own seed
    assert "data.text=constant" in recipe


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_the_large_configuration_is_rehearsed_on_64_films(name, tmp_path):
    films = synthesise(tmp_path / "films", 64, size=64)
    config = load_config(name, ["data.size_px=64", "train.images=32", "train.batch=8", "train.workers=0"])
    bundle = train(config, manifest=films, out=tmp_path / "run", device="cpu") / "bundle"
    assert sum(file.stat().st_size for file in bundle.iterdir()) <= 25 * 10**6
    metrics = evaluate(bundle, films, split="val", controls=["original"], out=tmp_path / "eval", images=False, n_boot=50)
    assert metrics.counts.failed == 0 and metrics.name == name
