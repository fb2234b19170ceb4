"""What `make train-large` trains: small enough to ship, long enough, and one that trains, on a CPU too."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reportseg.bundle import read_config
from reportseg.cli import app
from reportseg.config import load_config
from reportseg.data.synthetic import synthesise
from reportseg.evaluate import evaluate
from reportseg.models import count_parameters, resolve
from reportseg.schemas.base import read_json
from reportseg.schemas.training import TrainingFile
from reportseg.train import train

ROOT = Path(__file__).parents[1]
LARGE = ("tgcnet_qata_large", "tmca_qata_large")
NAMES = ("tgcnet_qata_large-1", "tgcnet_qata_large-2", "tmca_qata_large-1")  # the teachers' runs
TRAIN_FILMS = 5_145  # of QaTa-COV19, without dev


@pytest.mark.parametrize("name", LARGE)
def test_a_large_model_is_small_enough_to_ship_and_trains_for_sixty_epochs_or_more(name):
    config = resolve(load_config(name))
    assert 10_000_000 < count_parameters(config.model)["total"] <= 12_000_000
    assert config.train.images >= 60 * TRAIN_FILMS and config.train.precision == "bf16"
    assert config.data.sizes() == [(1.0, 224)]


def steps() -> list[list[str]]:
    """The words of each command of `make train-large`, after `reportseg`, as make would run it with DATA=qata."""
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("\ntrain-large:")[2].partition("\n\n")[0].replace("\\\n", " ")
    variables = {"DATA": "qata"} | dict(re.findall(r"^(LARGE|SOFT) = (.*)$", makefile, re.MULTILINE))
    for name in ("LARGE", "SOFT", "DATA"):
        recipe = recipe.replace(f"$({name})", variables[name])
    return [shlex.split(line.strip().removeprefix("$(BIN)/reportseg ")) for line in recipe.splitlines()[1:]]


def after(words: list[str], option: str) -> list[str]:
    """The values of an option, in order."""
    return [value for name, value in pairwise(words) if name == option]


def test_the_target_trains_three_teachers_a_student_of_all_three_and_its_twin():
    *teachers, teacher, student, twin = steps()
    bundles = [
        f"{folder}/{words[1]}-{seed}/bundle"
        for words in teachers
        for folder in after(words, "-o")
        for seed in after(words, "--seeds")[0].split(",")
    ]
    assert {words[1] for words in teachers} == set(LARGE) and len(bundles) == 3
    assert load_config(student[1]).seed not in {int(bundle.split("-")[-1].split("/")[0]) for bundle in bundles}
    assert teacher[0] == "predict" and [teacher[1], *after(teacher, "--with")] == bundles  # all of them, and nothing else
    assert after(teacher, "--jobs") == ["qata"] and after(teacher, "--split") == ["train"] and "--flips" in teacher
    answers = after(teacher, "-o")[0]
    assert student[:2] == twin[:2] == ["train", LARGE[0]]
    assert after(student, "-s") == [f"data.teacher={answers}"]
    assert after(twin, "-s") == [f"data.teacher={answers}", "data.text=constant"]  # a twin is the same but for its text
    assert all("--resume" in words for words in steps()) and not any("data.teacher" in word for words in teachers for word in words)
    assert all(after(words, "--data") == ["qata"] for words in (*teachers, student, twin))


@pytest.mark.slow
def test_all_steps_of_the_target_are_rehearsed_on_64_films_and_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    synthesise("qata", 64, size=64)
    tiny = ["data.size_px=64", "train.images=16", "train.batch=8", "train.text_steps=2", "train.workers=0", "train.precision=fp32"]
    small = [word for change in tiny for word in ("-s", change)]
    for words in [*steps(), *steps()]:  # the second round finds all done
        result = CliRunner().invoke(app, [*words, "--device", "cpu", "--quiet", *(small if words[0] == "train" else [])])
        assert result.exit_code == 0, (words, result.output, result.exception)
    runs = Path("runs/large")
    facts = [read_json(runs / name / "bundle" / "training.json", TrainingFile) for name in ("student", "twin", *NAMES)]
    hashes = [read_config(runs / name / "bundle")[1] for name in NAMES]
    assert len(set(hashes)) == 3
    assert [one.teacher for one in facts] == [hashes, hashes, [], [], []]


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_the_large_configuration_is_rehearsed_on_64_films(name, tmp_path):
    films = synthesise(tmp_path / "films", 64, size=64)
    config = load_config(name, ["data.size_px=64", "train.images=32", "train.batch=8", "train.text_steps=2", "train.workers=0"])
    bundle = train(config, manifest=films, out=tmp_path / "run", device="cpu") / "bundle"
    assert sum(file.stat().st_size for file in bundle.iterdir()) <= 25 * 10**6
    metrics = evaluate(bundle, films, split="val", controls=["original"], out=tmp_path / "eval", images=False, n_boot=50)
    assert metrics.counts.failed == 0 and metrics.name == name
