"""What the studies that train share: a plan that holds its sources still, and arms that fail without stopping the others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reportseg.data.manifest import read_manifest
from reportseg.data.splits import draw_dev
from reportseg.data.synthetic import synthesise
from reportseg.errors import InputError
from reportseg.io.png import write_probability
from reportseg.schemas import StudyPlan, read_json
from reportseg.studies.ablate import ablate
from reportseg.studies.data import data
from tiny import UNET, write_bundle

SMALL = ["data.size_px=16", "train.images=32", "train.batch=8", "train.precision=fp32", "eval.controls=[]"]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    return synthesise(tmp_path_factory.mktemp("phantoms") / "data", 40, size=32)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("config") / "t.yaml"
    file.write_text("name: t\nmodel: {name: unet, width: 4}\n")
    return file


class Begun(Exception):
    """The plan lies there and the first training begins."""


def begun(said):
    raise Begun


# ---------------------------------------------------------------- what the plan holds still


@pytest.fixture
def teacher(tmp_path, phantoms) -> Path:
    """Answers to the training films that no dev of the whole takes."""
    films = read_manifest(phantoms).split("train")
    for sample in (s for s in films if s.id not in set(draw_dev(films, "phantoms"))):
        write_probability(tmp_path / "teacher" / f"{sample.id}.prob.png", 0.8 * np.asarray(Image.open(sample.mask)).astype(bool))
        said = {"schema": 1, "id": sample.id, "bundle_sha256": "a" * 64, "area_px": 1, "laterality": "image", "engine": "torch-cpu"}
        said |= {"finding": {"text": sample.text}, "decision": {"rule": "fixed", "threshold": 0.5, "temperature": 1}}
        (tmp_path / "teacher" / f"{sample.id}.json").write_text(json.dumps(said))
    return tmp_path / "teacher"


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def answer_otherwise(folder: Path) -> None:
    write_probability(min(folder.glob("*.prob.png")), np.zeros((32, 32)))


def be_another_bundle(folder: Path) -> None:
    for file in folder.glob("*.json"):
        change(file, bundle_sha256="b" * 64)


def go(source, phantoms, out, *extra, resume=False, progress=begun):
    return ablate(
        source, [*SMALL, "model.width=8", *extra], manifest=phantoms, out=out, seeds=[0], n_boot=20, resume=resume, progress=progress
    )


@pytest.mark.parametrize("alter", [answer_otherwise, be_another_bundle])
def test_a_teacher_that_changed_since_the_plan_is_noticed(source, phantoms, teacher, tmp_path, alter):
    taught = f"data.teacher={teacher}"
    for resume in (False, True):
        with pytest.raises(Begun):
            go(source, phantoms, tmp_path / "a", taught, resume=resume)
    assert read_json(tmp_path / "a" / "plan.json", StudyPlan).sources.keys() == {"teacher"}
    alter(teacher)
    for extra in ([taught], []):
        with pytest.raises(InputError) as caught:
            go(source, phantoms, tmp_path / "a", *extra, resume=True)
        assert caught.value.code == "plan" and "sources.teacher" in caught.value.what


def test_a_teacher_is_asked_for_what_is_trained_on_and_before_the_plan_is_written(source, phantoms, teacher, tmp_path):
    taught = [*SMALL, f"data.teacher={teacher}"]
    with pytest.raises(InputError) as caught:  # the half sets others aside than the whole does
        data(source, taught, manifest=phantoms, out=tmp_path / "d", shares=[0.5, 1.0], progress=begun)
    assert caught.value.code == "teacher" and not (tmp_path / "d").exists()
    min(teacher.glob("*.prob.png")).unlink()
    with pytest.raises(InputError) as caught:
        go(source, phantoms, tmp_path / "a", taught[-1])
    assert caught.value.code == "teacher" and not (tmp_path / "a").exists()


def test_a_bundle_to_start_from_that_changed_since_the_plan_is_noticed(source, phantoms, tmp_path):
    write_bundle(tmp_path / "parent", UNET, seed=0)
    init = f"train.init={tmp_path / 'parent'}"
    with pytest.raises(Begun):
        go(source, phantoms, tmp_path / "a", init)
    (tmp_path / "parent").rename(tmp_path / "before")
    write_bundle(tmp_path / "parent", UNET, seed=1)
    with pytest.raises(InputError) as caught:
        go(source, phantoms, tmp_path / "a", init, resume=True)
    assert caught.value.code == "plan" and "sources.init" in caught.value.what
    with pytest.raises(Begun):  # it may lie elsewhere by now
        go(source, phantoms, tmp_path / "a", f"train.init={tmp_path / 'before'}", resume=True)
