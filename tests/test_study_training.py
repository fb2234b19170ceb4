"""What the studies that train share: a plan that holds its sources still, and arms that fail without stopping the others."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from reportseg.cli import app
from reportseg.data.manifest import read_manifest, read_table, table
from reportseg.data.splits import draw_dev
from reportseg.errors import InputError
from reportseg.io.png import write_probability
from reportseg.schemas.base import read_json
from reportseg.schemas.studies import Ablation, StudyPlan
from reportseg.studies.ablate import ablate
from reportseg.studies.data import data
from reportseg.studies.shown import ablation_lines, data_lines
from tiny import SMALL, UNET, write_bundle


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


@pytest.fixture
def films(tmp_path, phantoms) -> Path:
    """A copy of the films that a test may change."""
    shutil.copytree(phantoms.parent, tmp_path / "films")
    return tmp_path / "films" / "manifest.csv"


def say_otherwise(films: Path, split: str, column: str = "text", says=lambda text: f"{text} Also above.") -> None:
    """Another sentence in the first row of this split."""
    rows = list(read_table(films, ()))
    first = next(row for row in rows if row["split"] == split)
    first[column] = says(first[column])
    films.write_text(table(list(rows[0]), rows))


def draw_otherwise(films: Path, split: str) -> None:
    """Another pixel in the first true mask of this split."""
    mask = read_manifest(films).split(split)[0].mask
    drawn = np.asarray(Image.open(mask)).astype(bool)
    drawn[0, 0] = ~drawn[0, 0]
    Image.fromarray(drawn).save(mask)


CONTENTS = {
    "a sentence of train": (lambda films: say_otherwise(films, "train"), "sentences of column text"),
    "a scored sentence": (lambda films: say_otherwise(films, "val"), "sentences of column text"),
    "a mask of train": (lambda films: draw_otherwise(films, "train"), "masks of train"),
    "a scored mask": (lambda films: draw_otherwise(films, "val"), "masks of scored"),
}


@pytest.mark.parametrize("kind", ["ablate", "data"])
@pytest.mark.parametrize("what", CONTENTS)
def test_a_sentence_or_a_mask_that_changed_since_the_plan_is_noticed(source, films, tmp_path, kind, what):
    def run(resume):
        if kind == "ablate":
            go(source, films, tmp_path / "s", resume=resume)
        else:
            data(source, SMALL, manifest=films, out=tmp_path / "s", shares=[0.5, 1.0], resume=resume, progress=begun)

    with pytest.raises(Begun):
        run(False)
    alter, named = CONTENTS[what]
    alter(films)
    with pytest.raises(InputError) as caught:
        run(True)
    assert caught.value.code == "plan" and caught.value.what.endswith(f"it differs in {named}") and "Put back" in caught.value.fix


def test_a_plan_of_an_earlier_version_that_noted_no_contents_goes_on(source, films, tmp_path):
    with pytest.raises(Begun):
        go(source, films, tmp_path / "a")
    plan = json.loads((tmp_path / "a" / "plan.json").read_text())
    assert plan.pop("contents").keys() == {"sentences of column text", "masks of train", "masks of scored"}
    (tmp_path / "a" / "plan.json").write_text(json.dumps(plan))
    say_otherwise(films, "train")
    with pytest.raises(Begun):
        go(source, films, tmp_path / "a", resume=True)


# ---------------------------------------------------------------- what is one for all arms

training = import_module("reportseg.studies.training")


@pytest.mark.parametrize("kind", ["ablate", "data"])
def test_precision_is_measured_once_for_all_arms_and_seeds_and_a_resume_finds_it(source, phantoms, tmp_path, monkeypatch, kind):
    trained, measured = [], iter([True])

    def train(config, **_):
        trained.append(config.train)
        raise InputError("training diverged", "", "", "diverged")

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "bf16_gains", lambda _: next(measured))
    keys = [*SMALL, "train.precision=auto"]
    for resume in (False, True):
        options = {"manifest": phantoms, "out": tmp_path / "s", "seeds": [0, 1], "resume": resume}
        with pytest.raises(InputError, match="all 4 trainings diverged"):
            if kind == "ablate":
                ablate(source, [*keys, "model.width=8"], **options)
            else:
                data(source, keys, shares=[0.5, 1.0], **options)
    assert len(trained) == 8 and all(one == trained[0] for one in trained) and trained[0].precision == "bf16"


# ---------------------------------------------------------------- arms that fail


def diverge(monkeypatch, which) -> None:
    """Runs of whose configuration and manifest `which` says so end as a training that diverges."""
    real = training.train

    def train(config, *, manifest, **options):
        if which(config, manifest):
            raise InputError("training diverged at step 3: loss or gradient is not finite", options["out"], "Lower train.lr.", "diverged")
        return real(config, manifest=manifest, **options)

    monkeypatch.setattr(training, "train", train)


def study(source, phantoms, out, **options):
    return ablate(source, [*SMALL, "model.width=8", "model.width=6"], manifest=phantoms, out=out, n_boot=20, **options)


def test_an_arm_that_diverges_is_told_and_the_others_go_on_and_a_resume_tries_it_again(source, phantoms, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        diverge(patch, lambda config, _: config.model["width"] == 8 and config.seed == 0)
        done = study(source, phantoms, tmp_path / "a")
    assert read_json(tmp_path / "a" / "ablate.json", Ablation) == done
    full, eight, six = done.arms
    assert eight.failed.keys() == {0} and "step 3" in eight.failed[0] and [run.seed for run in eight.runs] == [1]
    assert eight.verdict is None and not eight.effect and eight.by_seed.keys() == {1} and eight.scores["dice_mean"] > 0
    assert not full.failed and not six.failed and six.verdict is not None and six.by_seed.keys() == {0, 1}
    page = (tmp_path / "a" / "ablate.html").read_text()
    assert "model.width=8, seed 0: training diverged at step 3" in page and "seed 0 failed" in page and "--resume tries these again" in page
    assert "1 failed" in page
    assert "failed" in ablation_lines(done)[1] and "failed" not in ablation_lines(done)[2]

    again = study(source, phantoms, tmp_path / "a", resume=True)
    assert not again.arms[1].failed and again.arms[1].verdict is not None and again.arms[2] == six


def test_without_the_full_configuration_there_is_no_verdict(source, phantoms, tmp_path, monkeypatch):
    diverge(monkeypatch, lambda config, _: config.model["width"] == 4)
    done = study(source, phantoms, tmp_path / "a", seeds=[0])
    assert done.arms[0].failed and not done.arms[0].runs and not done.arms[0].scores
    assert all(arm.runs and not arm.failed and arm.verdict is None for arm in done.arms[1:]) and done.n_cases > 0
    assert ablation_lines(done)[0].startswith("dice_mean of the full configuration –")


def test_a_share_that_diverges_leaves_the_rest_of_the_curve(source, phantoms, tmp_path, monkeypatch):
    diverge(monkeypatch, lambda _, manifest: "0.2" in str(manifest))
    done = data(source, SMALL, manifest=phantoms, out=tmp_path / "d", shares=[0.2, 0.5, 1.0], n_boot=20)
    assert [bool(share.failed) for share in done.shares] == [True, False, False] and done.shares[1].gap and not done.shares[0].gap
    assert "failed" in data_lines(done)[0] and "seed 0 failed" in (tmp_path / "d" / "data.html").read_text()


def test_if_all_diverge_there_is_nothing_to_tell(source, phantoms, tmp_path):
    with pytest.raises(InputError, match=r"all 2 trainings diverged, the first so: training diverged at step") as caught:
        go(source, phantoms, tmp_path / "a", "train.lr=1e30", "train.warmup=0", progress=None)
    assert caught.value.code == "diverged" and not (tmp_path / "a" / "ablate.json").exists()


def test_other_errors_are_the_users_to_mend_and_stop_the_study(source, phantoms, tmp_path, monkeypatch):
    def train(*_, **__):
        raise InputError("the disk is full", "", "Make room.", "unwritable")

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(InputError, match="full"):
        study(source, phantoms, tmp_path / "a")


def test_the_command_ends_with_3_where_an_arm_failed(source, phantoms, tmp_path, monkeypatch):
    diverge(monkeypatch, lambda config, manifest: config.model["width"] == 8 or "0.5" in str(manifest))
    shared = [part for key in SMALL for part in ("-s", key)] + ["--data", str(phantoms), "--seeds", "0", "--json", "--quiet"]
    arms = ["-s", "model.width=8", "-s", "model.width=6"]
    done = CliRunner().invoke(app, ["study", "ablate", str(source), *shared, *arms, "-o", str(tmp_path / "a")])
    assert done.exit_code == 3 and json.loads(done.stdout)["arms"][1]["failed"].keys() == {"0"}
    done = CliRunner().invoke(app, ["study", "data", str(source), *shared, "--shares", "0.5,1", "-o", str(tmp_path / "d")])
    assert done.exit_code == 3 and json.loads(done.stdout)["shares"][0]["failed"]
