"""A teacher's answers as soft targets: its own films, its own sentences, one teacher, and a run that resumes with the same one."""

from __future__ import annotations

import json
from importlib import import_module

import numpy as np
import pytest
from PIL import Image

from reportseg.config import parse_config
from reportseg.data.manifest import read_manifest
from reportseg.errors import InputError
from reportseg.io.png import write_mask, write_probability
from reportseg.predict import Segmenter, predict_files
from reportseg.schemas.base import read_json
from reportseg.schemas.training import EnvFile, TrainingFile
from reportseg.teacher import read_teacher
from reportseg.types import Sample
from test_train import make_films
from tiny import write_bundle

training = import_module("reportseg.train")  # `reportseg.train` is the function


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def samples(films):
    return list(read_manifest(films).samples)


@pytest.fixture
def answers(tmp_path, samples):
    """What a teacher leaves that is sure to 0.8 of every mask."""
    folder = tmp_path / "teacher"
    for sample in samples:
        mask = np.asarray(Image.open(sample.mask)).astype(bool)
        write_mask(folder / f"{sample.id}.mask.png", mask)
        write_probability(folder / f"{sample.id}.prob.png", 0.8 * mask)
        said = {"schema": 1, "id": sample.id, "bundle_sha256": "a" * 64, "area_px": 1, "laterality": "image", "engine": "torch-cpu"}
        said |= {"finding": {"text": sample.text}, "decision": {"rule": "fixed", "threshold": 0.5, "temperature": 1}}
        (folder / f"{sample.id}.json").write_text(json.dumps(said))
    return folder


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def masks_of(samples: list[Sample]) -> np.ndarray:
    return np.stack([np.asarray(Image.open(sample.mask)).astype(np.uint8) for sample in samples])


def test_targets_are_the_weighted_mean_of_mask_and_probability(answers, samples):
    masks = masks_of(samples)
    for weight in (0.25, 1.0):
        targets, bundles = read_teacher(answers, samples, masks, weight)
        assert bundles == ["a" * 64] and targets.dtype == np.uint8
        inside = 255 * (1 - weight + weight * 0.8)
        assert np.abs(targets.astype(float) - inside * masks).max() <= 1


def test_an_answer_is_brought_to_the_grid_of_the_run(answers, samples):
    targets, _ = read_teacher(answers, samples, np.zeros((len(samples), 16, 16), np.uint8), 1.0)
    assert targets.shape == (len(samples), 16, 16)
    assert np.abs(targets.mean((1, 2)) - 255 * 0.8 * masks_of(samples).mean((1, 2))).max() < 4


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder, id: (folder / f"{id}.json").unlink(), "has no answer"),
        (lambda folder, id: (folder / f"{id}.prob.png").unlink(), "has no answer"),
        (lambda folder, id: change(folder / f"{id}.json", finding={"text": "effusion"}), "another sentence"),
        (lambda folder, id: change(folder / f"{id}.json", laterality="patient"), "another sentence"),
        (lambda folder, id: change(folder / f"{id}.json", bundle_sha256="b" * 64), "different bundles"),
        (lambda folder, id: change(folder / f"{id}.json", ensemble=["b" * 64]), "different bundles"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_by_the_name_of_its_film(answers, samples, spoil, says):
    spoil(answers, samples[3].id)
    with pytest.raises(InputError, match=says) as error:
        read_teacher(answers, samples, masks_of(samples), 0.5)
    assert samples[3].id in error.value.what and error.value.code == "teacher"


def test_a_student_that_reads_one_sentence_takes_a_teacher_that_read_each_films_own(answers, samples):
    change(answers / f"{samples[3].id}.json", finding={"text": "effusion"})
    assert read_teacher(answers, samples, masks_of(samples), 0.5, constant=True)[1] == ["a" * 64]


def test_an_answer_for_the_patients_left_fits_the_same_sentence_turned(answers, samples):
    turned = samples[3].text.replace("left", "?").replace("right", "left").replace("?", "right")
    change(answers / f"{samples[3].id}.json", laterality="patient", finding={"text": turned})
    assert read_teacher(answers, samples, masks_of(samples), 0.5)[1] == ["a" * 64]


def config(teacher, **train):
    values = {
        "name": "student",
        "model": {"name": "unet", "width": 4},
        "data": {"size_px": 32, "teacher": teacher and str(teacher)},
        "train": {"images": 96, "batch": 8, "precision": "fp32", "ema": 0.9, **train},
    }
    return parse_config(values, "test")


def test_a_student_learns_from_what_predict_wrote_and_says_so(tmp_path, films, samples):
    bundle = write_bundle(tmp_path / "bundle")
    segmenter = Segmenter.from_pretrained(bundle)
    predict_files(segmenter, samples, tmp_path / "answers")
    student = training.train(config(tmp_path / "answers"), manifest=films, out=tmp_path / "student")
    alone = training.train(config(None), manifest=films, out=tmp_path / "alone")
    facts = read_json(student / "bundle" / "training.json", TrainingFile)
    assert facts.teacher == read_json(student / "env.json", EnvFile).teacher == [segmenter.sha256]
    assert facts.config["data"]["teacher"] is None  # a path
    assert segmenter.sha256[:12] in (student / "bundle" / "README.md").read_text()
    weights = [(run / "bundle" / "model.safetensors").read_bytes() for run in (student, alone)]
    assert weights[0] != weights[1]


def test_a_run_goes_on_with_its_teacher_and_with_no_other(tmp_path, films, answers, samples):
    class Interrupt(Exception):
        pass

    def stop(said):
        if said.get("images", 0) >= 48:
            raise Interrupt

    whole = training.train(config(answers, checkpoint_minutes=1e-6), manifest=films, out=tmp_path / "whole")
    with pytest.raises(Interrupt):
        training.train(config(answers, checkpoint_minutes=1e-6), manifest=films, out=tmp_path / "cut", progress=stop)
    for file in answers.glob("*.json"):
        change(file, bundle_sha256="b" * 64)
    with pytest.raises(InputError, match="not the teacher"):
        training.train(config(answers, checkpoint_minutes=1e-6), manifest=films, out=tmp_path / "cut", resume=True)
    for file in answers.glob("*.json"):
        change(file, bundle_sha256="a" * 64)
    dev = read_json(tmp_path / "cut" / "env.json", EnvFile).dev_ids
    asked = next(sample.id for sample in samples if sample.id not in dev)
    kept = (answers / f"{asked}.prob.png").read_bytes()
    write_probability(answers / f"{asked}.prob.png", np.zeros((32, 32)))
    with pytest.raises(InputError, match="answers of the teacher changed") as caught:
        training.train(config(answers, checkpoint_minutes=1e-6), manifest=films, out=tmp_path / "cut", resume=True)
    assert caught.value.code == "config" and caught.value.where == str(answers)
    (answers / f"{asked}.prob.png").write_bytes(kept)
    moved = answers.rename(tmp_path / "moved")
    resumed = training.train(config(moved, checkpoint_minutes=1e-6), manifest=films, out=tmp_path / "cut", resume=True)
    assert (resumed / "bundle" / "model.safetensors").read_bytes() == (whole / "bundle" / "model.safetensors").read_bytes()


def test_lovasz_is_added_for_its_share_of_the_steps_the_last_ones(tmp_path, films, monkeypatch):
    now, seen = [], []
    step, plain = training.Run._step, training.lovasz_hinge_loss
    monkeypatch.setattr(training.Run, "_step", lambda self, *a: now.append(self.state.step) or step(self, *a))
    monkeypatch.setattr(training, "lovasz_hinge_loss", lambda *a: seen.append(now[-1]) or plain(*a))
    for share, steps in ((0, 0), (0.25, 3), (1, 12)):
        seen.clear()
        training.train(config(None, lovasz=share), manifest=films, out=tmp_path / f"r{steps}")
        assert seen == list(range(12 - steps, 12))
