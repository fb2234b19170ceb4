"""What a run promises: it resumes exactly, keeps dev apart, says why it stopped, and its bundle is what dev chose."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from importlib import import_module
from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_pre_hook

from reportseg import checkpoint, optim
from reportseg.bundle import load_bundle
from reportseg.config import load_config, parse_config
from reportseg.data.manifest import write_manifest
from reportseg.errors import InputError
from reportseg.evaluate import evaluate
from reportseg.knowledge.bank import load_bank
from reportseg.runs import LOCK, alone, prepare
from reportseg.schemas.base import read_json
from reportseg.schemas.data import DatasetFile
from reportseg.schemas.training import EnvFile, TrainingFile
from reportseg.text import CONSTANT
from reportseg.twins import config_sha256, parent_twin
from tiny import TGCNET, UNET, write_bundle

training = import_module("reportseg.train")  # `reportseg.train` is the function
fitting = import_module("reportseg.dev")
SIDES = ("left", "right")


def make_films(folder, n=24, laterality="image", name="made-up", both=False):
    """Films of 32 px with a bright patch on the side that the sentence names; two films a patient.

    `both`: every third film has a patch on either side, and every fourth patient is of the test split.
    """
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(n):
        sides = SIDES if both and i % 3 == 0 else (SIDES[i % 2],)
        mask = np.zeros((32, 32), bool)
        for side in sides:
            x = 4 if side == "left" else 20
            mask[8 + i % 5 : 18 + i % 5, x : x + 8] = True
        Image.fromarray((rng.uniform(60, 100, (32, 32)) + 80 * mask).astype(np.uint8)).save(folder / f"f{i}.png")
        Image.fromarray(mask).save(folder / f"m{i}.png")
        text = f"Unilateral infection, one infected area, upper {sides[0]} lung."
        if len(sides) == 2:
            text = "Bilateral infection, two infected areas, upper left lung and upper right lung."
        split = "test" if both and i // 2 % 4 == 0 else "train"
        rows.append({"image": f"f{i}.png", "mask": f"m{i}.png", "text": text, "split": split, "patient": f"p{i // 2}", "flip_safe": "1"})
    return write_manifest(folder, rows, DatasetFile(name=name, laterality=laterality, licence="CC0-1.0"))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films"))


def config(model=None, data=None, **train):
    values = {
        "name": "t",
        "model": model or {"name": "unet", "width": 4},
        "data": {"size_px": [[0.5, 16], [1.0, 32]], **(data or {})},
        "train": {"images": 96, "batch": 8, "precision": "fp32", "ema": 0.9, **train},
    }
    return parse_config(values, "test")


def weights(run):
    return (run / "bundle" / "model.safetensors").read_bytes()


def log(run):
    drop = ("images_per_s",)
    return [{k: v for k, v in json.loads(line).items() if k not in drop} for line in (run / "log.jsonl").read_text().splitlines()]


class Interrupt(Exception):
    pass


def interrupt_after(images):
    def progress(said):
        if said.get("images", 0) >= images:
            raise Interrupt

    return progress


def test_a_run_leaves_its_folder(tmp_path, films):
    run = training.train(config(), manifest=films, out=tmp_path / "r")
    assert {p.name for p in run.iterdir()} == {"config.yaml", "env.json", "log.jsonl", "checkpoints", "bundle", LOCK}
    env = read_json(run / "env.json", EnvFile)
    assert 1 <= len(env.dev_ids) <= 6 and env.seed == 0 and env.threads == torch.get_num_threads()
    bundle = load_bundle(run / "bundle")
    facts = read_json(run / "bundle" / "training.json", TrainingFile)
    assert facts.images == 96 and facts.steps == 12 and not facts.truncated and facts.config["data"]["manifest"] is None
    assert {"total", "lr", "dev_dice_mean", "dev_dice_pooled"} <= set(facts.curves)
    assert bundle.config.text.laterality == "image" and bundle.config.licence == "CC0-1.0"
    assert bundle.config.trained_on[0].split_sha256 == env.split_sha256
    assert all(row["images"] % 8 == 0 and row["step"] * 8 == row["images"] for row in log(run))


def test_dev_is_never_trained_on_and_keeps_patients_whole(tmp_path, films, monkeypatch):
    seen = set()
    step = training.Run._step
    monkeypatch.setattr(training.Run, "_step", lambda self, group, rate: [seen.update(b.ids) for b in group] and step(self, group, rate))
    run = training.train(config(images=240), manifest=films, out=tmp_path / "r")
    dev = set(read_json(run / "env.json", EnvFile).dev_ids)
    assert seen and not seen & dev and len(seen | dev) == 24
    patients = [{int(id[1:]) // 2 for id in ids} for ids in (seen, dev)]
    assert not patients[0] & patients[1]


CLIP, AVERAGE = 1e-3, 0.125


@pytest.fixture(scope="module")
def watched(films, tmp_path_factory):
    """A run that is looked at, with a clip that every gradient exceeds and a weight average that is a number: its folder; the learning
    rate and the norm of all gradients at each step of the optimiser; what dev is scored with, and the weights that are in the model then.
    """
    steps, scored, score = [], [], training.score_dev

    def step(optimiser, *_):
        groups = optimiser.param_groups
        (rate,) = {group["lr"] for group in groups}
        steps.append((rate, float(torch.cat([p.grad.flatten() for group in groups for p in group["params"]]).norm())))

    def average(self, model, t):
        for value in self.state.values():
            if value.is_floating_point():
                value.fill_(AVERAGE)

    def watch(engine, dev, cached, size, text_of):
        state = {name: value.clone() for name, value in engine.model.state_dict().items()}
        scored.append((list(dev), cached, size, [text_of(sample) for sample in dev], state))
        return score(engine, dev, cached, size, text_of)

    with ExitStack() as stack:
        stack.callback(register_optimizer_step_pre_hook(step).remove)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(training, "score_dev", watch)
        patch.setattr(optim.Average, "update", average)
        run = training.train(config(images=48, clip=CLIP), manifest=films, out=tmp_path_factory.mktemp("watched") / "r")
    return run, steps, scored


def test_dev_is_scored_with_its_own_films_masks_and_sentences(watched, films):
    run, _, scored = watched
    ids, rows = read_json(run / "env.json", EnvFile).dev_ids, {row["image"]: row for row in csv.DictReader(films.open())}
    assert [size for _, _, size, *_ in scored] == [16] * 3 + [32] * 3
    for dev, cached, _, texts, _ in scored:
        assert sorted(sample.id for sample in dev) == ids and texts == [rows[f"{sample.id}.png"]["text"] for sample in dev]
        for i, sample in enumerate(dev):
            assert np.array_equal(cached.images_NCHW[i, 0], np.asarray(Image.open(films.parent / f"{sample.id}.png")))
            assert np.array_equal(cached.masks_NHW[i], np.asarray(Image.open(films.parent / f"m{sample.id[1:]}.png")))
        assert len(cached.images_NCHW) == len(cached.masks_NHW) == len(ids)


def test_every_step_has_its_rate_and_a_gradient_that_was_clipped(watched):
    run, steps, _ = watched
    train = load_config(run / "config.yaml").train
    assert [rate for rate, _ in steps] == [optim.learning_rate(k, 6, train) for k in range(6)]
    assert all(row["norm"] > CLIP for row in log(run) if "norm" in row), "before it was clipped"
    assert [norm for _, norm in steps] == pytest.approx([CLIP] * 6, rel=0.01)


def test_what_dev_scores_and_the_bundle_holds_is_the_weight_average(watched):
    run, _, scored = watched
    for state in (*(state for *_, state in scored), load_bundle(run / "bundle").model.state_dict()):
        assert all((value == AVERAGE).all() for value in state.values() if value.is_floating_point())


def test_temperature_and_cut_are_fitted_on_dev_and_nothing_else(tmp_path, monkeypatch):
    """Neither a film that was trained on nor one of the test split is read for it."""
    films = make_films(tmp_path / "films", both=True)
    asked, read, fitted = [], [], []
    decide, read_image, read_mask, fit = training.fit_decision, fitting.read_image, fitting.read_mask, fitting.fit
    monkeypatch.setattr(training, "fit_decision", lambda engine, films, *rest: asked.extend(films) or decide(engine, films, *rest))
    monkeypatch.setattr(fitting, "read_image", lambda path: read.append(path.name) or read_image(path))
    monkeypatch.setattr(fitting, "read_mask", lambda path: read.append(path.name) or read_mask(path))
    monkeypatch.setattr(fitting, "fit", lambda logits, masks, *rest: fitted.append((logits, masks)) or fit(logits, masks, *rest))
    run = training.train(config(images=16), manifest=films, out=tmp_path / "r")
    ids = read_json(run / "env.json", EnvFile).dev_ids
    assert ids and sorted(sample.id for sample in asked) == ids
    assert sorted(read) == sorted(f"{kind}{id[1:]}.png" for id in ids for kind in "fm")
    ((logits, masks),) = fitted
    assert len(logits) == len(masks) == len(ids)
    assert all((mask == np.asarray(Image.open(sample.mask))).all() for mask, sample in zip(masks, asked, strict=True))
    chosen, decision = fit(logits, masks, None)[0], load_bundle(run / "bundle").config.decision
    assert (decision.rule, decision.threshold, decision.temperature) == (chosen.rule, chosen.threshold, chosen.temperature)


def test_flips_belong_to_the_decision_that_dev_fits(tmp_path, films):
    plain = config(images=16)
    flipping = plain.model_copy(update={"eval": plain.eval.model_copy(update={"flips": True})})
    one, two = (training.train(c, manifest=films, out=tmp_path / str(c.eval.flips)) for c in (plain, flipping))
    assert weights(one) == weights(two), "they are no part of training"
    first, second = (load_bundle(run / "bundle").config for run in (one, two))
    assert (first.decision.flips, second.decision.flips) == (False, True)
    assert first.trained_on[0].flip_safe is second.trained_on[0].flip_safe is True
    assert first.decision.temperature != second.decision.temperature
    assert "mirrored film" in (two / "bundle" / "README.md").read_text()
    assert "mirrored film" not in (one / "bundle" / "README.md").read_text()


def test_flips_are_refused_where_the_rows_do_not_allow_them(tmp_path, films):
    manifest = make_films(tmp_path / "organs")
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0], *(line[:-2] + ",0" if i == 3 else line for i, line in enumerate(lines[1:]))]) + "\n")
    values = config(images=16).model_dump(mode="json")
    with pytest.raises(InputError) as caught:
        training.dry_run(parse_config({**values, "eval": {"flips": True}}, "test"), manifest=manifest)
    assert caught.value.code == "flips"
    assert (
        prepare(parse_config({**values, "data": {**values["data"], "manifest": str(manifest)}}, "test")).trained_on[0]["flip_safe"] is False
    )


def test_same_seed_same_weights_other_seed_others(tmp_path, films):
    runs = training.train_seeds(config(), [0, 1], manifest=films, out=tmp_path)
    again = training.train(config(), manifest=films, out=tmp_path / "again")
    assert [run.name for run in runs] == ["t-0", "t-1"]
    assert weights(runs[0]) == weights(again) != weights(runs[1])


def test_the_weights_that_a_run_starts_from_are_those_of_its_seed(tmp_path, films, monkeypatch):
    starts, build = [], training.build

    def built(*given):
        starts.append(build(*given).state_dict())
        raise Interrupt

    monkeypatch.setattr(training, "build", built)
    for i, seed in enumerate((0, 1, 0)):
        with pytest.raises(Interrupt):
            training.train(config().model_copy(update={"seed": seed}), manifest=films, out=tmp_path / str(i))
    drawn = [name for name, value in starts[0].items() if value.ndim > 1 and value.unique().numel() > 1]
    assert drawn and all(torch.equal(starts[0][name], starts[2][name]) for name in drawn)
    assert not any(torch.equal(starts[0][name], starts[1][name]) for name in drawn)


@pytest.mark.parametrize("model", [{"name": "unet", "width": 4}, {"name": "tgcnet", "preset": "tiny"}], ids=["unet", "tgcnet"])
def test_a_resumed_run_ends_with_the_same_bytes(tmp_path, films, model):
    whole = training.train(config(model), manifest=films, out=tmp_path / "whole")
    often = config(model, checkpoint_minutes=1e-9)
    with pytest.raises(Interrupt):
        training.train(often, manifest=films, out=tmp_path / "cut", progress=interrupt_after(40))
    assert checkpoint.load(tmp_path / "cut" / "checkpoints")[1]["step"] == 4
    cut = training.train(often, manifest=films, out=tmp_path / "cut", resume=True)
    assert weights(cut) == weights(whole) and log(cut) == log(whole)


def test_accumulated_runs_resume_exactly_too(tmp_path, films):
    often = config(batch=4, accumulate=3, checkpoint_minutes=1e-9)
    whole = training.train(often, manifest=films, out=tmp_path / "whole")
    with pytest.raises(Interrupt):
        training.train(often, manifest=films, out=tmp_path / "cut", progress=interrupt_after(36))
    assert weights(training.train(often, manifest=films, out=tmp_path / "cut", resume=True)) == weights(whole)


def test_resume_without_a_checkpoint_begins_at_step_0(tmp_path, films):
    with pytest.raises(Interrupt):
        training.train(config(), manifest=films, out=tmp_path / "r", progress=interrupt_after(8))
    assert checkpoint.load(tmp_path / "r" / "checkpoints") is None
    run = training.train(config(), manifest=films, out=tmp_path / "r", resume=True)
    assert weights(run) == weights(training.train(config(), manifest=films, out=tmp_path / "whole"))


def test_resume_of_a_finished_run_changes_nothing(tmp_path, films):
    run = training.train(config(), manifest=films, out=tmp_path / "r")
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    training.train(config(), manifest=films, out=run, resume=True)
    assert before == {p: p.stat().st_mtime_ns for p in run.rglob("*")}


def test_a_folder_in_use_is_refused_and_so_is_a_resume_with_other_settings(tmp_path, films):
    with pytest.raises(Interrupt):
        training.train(config(), manifest=films, out=tmp_path / "r", progress=interrupt_after(8))
    with pytest.raises(InputError, match="exists.*--resume"):
        training.train(config(), manifest=films, out=tmp_path / "r")
    with pytest.raises(InputError, match=r"another train\.lr"):
        training.train(config(lr=0.5), manifest=films, out=tmp_path / "r", resume=True)


def test_a_resume_follows_films_that_moved_and_refuses_others(tmp_path):
    films = make_films(tmp_path / "here")
    with pytest.raises(Interrupt):
        training.train(config(), manifest=films, out=tmp_path / "r", progress=interrupt_after(8))
    (tmp_path / "here").rename(tmp_path / "there")
    more = make_films(tmp_path / "more", n=26)
    with pytest.raises(InputError, match="not the films"):
        training.train(config(), manifest=more, out=tmp_path / "r", resume=True)
    run = training.train(config(), manifest=tmp_path / "there", out=tmp_path / "r", resume=True)
    assert load_config(run / "config.yaml").data.manifest == str(tmp_path / "there")


def test_a_resume_refuses_films_whose_sentences_order_or_masks_changed(tmp_path):
    """The ids are the same, and so are all sentences together: they are exchanged, moved with their rows, or stand beside another mask."""
    films = make_films(tmp_path / "films")
    with pytest.raises(Interrupt):
        training.train(config(images=16), manifest=films, out=tmp_path / "r", progress=interrupt_after(8))

    def refused():
        with pytest.raises(InputError, match="changed since the run was started") as caught:
            training.train(config(images=16), manifest=films, out=tmp_path / "r", resume=True)
        assert caught.value.code == "config" and caught.value.where == str(films) and "another -o" in caught.value.fix
        return caught.value.what

    kept, (head, *rows) = films.read_text(), films.read_text().splitlines()
    exchanged = [row.replace(side, other) for row, side, other in ((rows[0], *SIDES), (rows[1], *SIDES[::-1]))]
    unsafe = rows[0].removesuffix("1") + "0"
    tables = [[head, *exchanged, *rows[2:]], [head, *rows[::-1]], [head, unsafe, *rows[1:]]]
    tables += [[f"{head},{name}", *(f"{row},{value}" for row in rows)] for name, value in (("laterality", "patient"), ("complete", "0"))]
    for changed in tables:
        films.write_text("\n".join(changed) + "\n")
        assert "sentences" in refused()
    films.write_text(kept)
    dev = read_json(tmp_path / "r" / "env.json", EnvFile).dev_ids[0]
    for id in (dev, "f0" if dev != "f0" else "f1"):
        mask = tmp_path / "films" / f"m{id[1:]}.png"
        before = mask.read_bytes()
        Image.open(mask).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mask)
        assert "masks" in refused()
        mask.write_bytes(before)
    films.write_text(kept.replace("Unilateral infection", "unilateral  Infection"))
    assert training.train(config(images=16), manifest=films, out=tmp_path / "r", resume=True), "no model reads case and white space"


def test_a_resume_follows_a_parent_that_moved_and_refuses_another(tmp_path, films):
    parent = write_bundle(tmp_path / "parent", UNET)
    child = config(images=24, init=str(parent), checkpoint_minutes=1e-9)
    with pytest.raises(Interrupt):
        training.train(child, manifest=films, out=tmp_path / "r", progress=interrupt_after(8))
    before = load_bundle(parent).sha256
    assert read_json(tmp_path / "r" / "env.json", EnvFile).sources == {"init": before}
    moved = parent.rename(tmp_path / "moved")
    write_bundle(parent, UNET, seed=1)
    with pytest.raises(InputError, match="bundle to start from changed") as caught:
        training.train(child, manifest=films, out=tmp_path / "r", resume=True)
    assert caught.value.code == "config" and caught.value.where == str(parent) and "another -o" in caught.value.fix
    with pytest.raises(InputError, match=r"another train\.init"):
        training.train(config(images=24, checkpoint_minutes=1e-9), manifest=films, out=tmp_path / "r", resume=True)
    there = config(images=24, init=str(moved), checkpoint_minutes=1e-9)
    run = training.train(there, manifest=films, out=tmp_path / "r", resume=True)
    assert load_bundle(run / "bundle").config.parent == before


def test_a_run_of_an_earlier_version_that_noted_no_hash_goes_on(tmp_path, films):
    with pytest.raises(Interrupt):
        training.train(config(images=16), manifest=films, out=tmp_path / "r", progress=interrupt_after(8))
    noted = json.loads((tmp_path / "r" / "env.json").read_text())
    assert noted.pop("sources") == {} and noted.pop("contents").keys() == {"rows", "masks"}
    (tmp_path / "r" / "env.json").write_text(json.dumps(noted))
    assert (training.train(config(images=16), manifest=films, out=tmp_path / "r", resume=True) / "bundle").is_dir()


def test_seeds_are_checked_before_the_first_run(tmp_path, films):
    (tmp_path / "t-1").mkdir()
    (tmp_path / "t-1" / "notes").touch()
    for seeds, says in (([0, 1], "exists"), ([0, 0], "twice"), ([], "no seed")):
        with pytest.raises(InputError, match=says):
            training.train_seeds(config(), seeds, manifest=films, out=tmp_path)
    assert not (tmp_path / "t-0").exists()


def measures(monkeypatch, *, bf16, slower):
    """What a run measures of this machine: whether bf16 is quicker, and steps of so many seconds, each size's `slower` than the last."""
    speeds = count(1000.0, slower)
    monkeypatch.setattr(training.optim, "bf16_gains", lambda device: next(bf16))
    monkeypatch.setattr(training.optim, "seconds_per_step", lambda step, device: step() and next(speeds))


MEASURED = {"precision": "auto", "minutes": 100}  # of so slow a machine: a few dozen films


def one_method(runs):
    """Whether `compare` takes these runs for the seeds of one method, which has settled what it was asked to measure."""
    told = [read_json(run / "bundle" / "training.json", TrainingFile) for run in runs]
    schedules = [load_config(run / "config.yaml").train for run in runs]
    assert {schedule.minutes for schedule in schedules} == {100} and all(schedule.images < 96 for schedule in schedules)
    return len({config_sha256(one) for one in told}) == 1 and all(one.images == told[0].images for one in told)


def test_seeds_are_one_method_whatever_is_measured_meanwhile(tmp_path, films, monkeypatch):
    measures(monkeypatch, bf16=iter([True, False, False]), slower=100)
    runs = training.train_seeds(config(**MEASURED), [0, 1], manifest=films, out=tmp_path)
    assert one_method(runs) and load_config(runs[1] / "config.yaml").train.precision == "bf16"
    measures(monkeypatch, bf16=iter([False]), slower=200)
    apart = training.train(config(**MEASURED).model_copy(update={"seed": 2}), manifest=films, out=tmp_path / "apart")
    assert not one_method([runs[0], apart]), "a command of its own measures for itself"


@pytest.mark.parametrize("seeds", [[0, 1], [1, 0]])
def test_a_resume_finds_what_the_seed_that_began_first_had_measured(tmp_path, films, monkeypatch, seeds):
    measures(monkeypatch, bf16=iter([True]), slower=100)
    with pytest.raises(Interrupt):
        training.train_seeds(config(**MEASURED), [0, 1], manifest=films, out=tmp_path, progress=interrupt_after(8))
    assert not (tmp_path / "t-1").exists()
    measures(monkeypatch, bf16=iter([]), slower=300)
    assert one_method(training.train_seeds(config(**MEASURED), seeds, manifest=films, out=tmp_path, resume=True))


def test_a_further_seed_is_trained_as_the_first_or_refused(tmp_path, films):
    first = config(images=32, precision="fp32")
    training.train_seeds(first, [0], manifest=films, out=tmp_path)
    for other in (config(images=64), config(images=32, precision="bf16"), config(images=32, minutes=1)):
        with pytest.raises(InputError, match="first seed") as caught:
            training.train_seeds(other, [0, 1], manifest=films, out=tmp_path, resume=True)
        assert caught.value.code == "config" and not (tmp_path / "t-1").exists()
    runs = training.train_seeds(first, [0, 1], manifest=films, out=tmp_path, resume=True)
    assert load_config(runs[1] / "config.yaml").train.images == 32


SCRIPT = """
import sys
from reportseg.config import load_config
from reportseg.train import train
train(load_config(sys.argv[1]), manifest=sys.argv[2], out=sys.argv[3], resume=True)
"""


def test_kill_9_at_a_random_moment_then_resume(tmp_path, films):
    from reportseg.config import dump_config

    given = config(images=480, checkpoint_minutes=1e-9, workers=1)
    (tmp_path / "c.yaml").write_text(dump_config(given))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "c.yaml"), str(films), str(tmp_path / "cut")]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())})
    deadline = time.monotonic() + 120
    while not checkpoint.path_of(tmp_path / "cut" / "checkpoints", "last").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(InputError, match="another process.*--resume") as caught:
        training.train(given, manifest=films, out=tmp_path / "cut", resume=True)
    assert caught.value.code == "in_use"
    process.send_signal(signal.SIGCONT)
    time.sleep(np.random.default_rng().uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.wait()
    cut = training.train(load_config(tmp_path / "c.yaml"), manifest=films, out=tmp_path / "cut", resume=True)
    whole = training.train(given, manifest=films, out=tmp_path / "whole")
    assert weights(cut) == weights(whole) and log(cut) == log(whole)


def test_a_run_that_fails_before_its_first_step_leaves_the_folder_free(tmp_path, films, monkeypatch):
    monkeypatch.setattr(training.Run, "start", lambda self, resume: (_ for _ in ()).throw(InputError("no")))
    with pytest.raises(InputError, match="no"):
        training.train(config(), manifest=films, out=tmp_path / "r")
    monkeypatch.undo()
    training.train(config(images=8), manifest=films, out=tmp_path / "r")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_readers_that_outlive_a_run_do_not_hold_its_folder(tmp_path):
    """A killed run can be gone on with at once."""
    ours, theirs = os.pipe()
    owner = os.fork()
    if owner == 0:
        with alone(tmp_path):
            reader = os.fork()
            if reader == 0:
                time.sleep(60)
                os._exit(0)
            os.write(theirs, str(reader).encode())
            time.sleep(60)
            os._exit(0)
    reader = int(os.read(ours, 20))
    with pytest.raises(InputError, match="another process"), alone(tmp_path):
        pass
    os.kill(owner, signal.SIGKILL)
    os.waitpid(owner, 0)
    with alone(tmp_path):
        os.kill(reader, 0)  # it is still there
    os.kill(reader, signal.SIGKILL)


def test_the_number_of_workers_changes_nothing(tmp_path, films):
    alone = training.train(config(images=32), manifest=films, out=tmp_path / "0")
    assert weights(training.train(config(images=32, workers=2), manifest=films, out=tmp_path / "2")) == weights(alone)


def test_accumulation_equals_the_larger_batch(tmp_path, films):
    data = {"augment": None, "text_dropout": 0, "size_px": 32}
    one = training.train(config(data=data, images=48, batch=8), manifest=films, out=tmp_path / "8")
    two = training.train(config(data=data, images=48, batch=4, accumulate=2), manifest=films, out=tmp_path / "4x2")
    a, b = (load_bundle(run / "bundle").model.state_dict() for run in (one, two))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 2e-3


def test_divergence_stops_with_step_batch_and_last_good_checkpoint(tmp_path, films, monkeypatch):
    step = training.Run._step

    def poisoned(self, group, rate):
        if self.state.step == 5:
            next(iter(self.model.parameters())).data.fill_(float("nan"))
        return step(self, group, rate)

    monkeypatch.setattr(training.Run, "_step", poisoned)
    with pytest.raises(InputError, match=r"diverged at step 5.*f\d+.*last good checkpoint is") as caught:
        training.train(config(checkpoint_minutes=1e-9), manifest=films, out=tmp_path / "r")
    assert caught.value.code == "diverged"
    assert checkpoint.load(tmp_path / "r" / "checkpoints")[1]["step"] == 5
    assert not (tmp_path / "r" / "bundle").exists()


def test_minutes_fix_the_number_of_images_once(tmp_path, films, monkeypatch):
    monkeypatch.setattr(training.optim, "seconds_per_step", lambda step, device: step() and 50)
    run = training.train(config(minutes=20), manifest=films, out=tmp_path / "r")  # so many that a busy machine does not cut it short
    assert load_config(run / "config.yaml").train.images == int(1200 * 0.9 * 8 / 50)
    assert weights(run) == weights(training.train(config(images=172), manifest=films, out=tmp_path / "same"))


def test_a_run_far_slower_than_measured_is_cut_and_still_gives_a_bundle(tmp_path, films, monkeypatch):
    monkeypatch.setattr(training.optim, "seconds_per_step", lambda step, device: 1e-6)
    run = training.train(config(minutes=0.002), manifest=films, out=tmp_path / "r")
    facts = read_json(run / "bundle" / "training.json", TrainingFile)
    assert facts.truncated and 0 < facts.images < load_config(run / "config.yaml").train.images
    assert "cut short" in (run / "bundle" / "README.md").read_text()
    assert load_bundle(run / "bundle").config.preprocess.size_px == 16  # the size that it had reached


def test_precision_is_chosen_once_and_written_down(tmp_path, films, monkeypatch):
    monkeypatch.setattr(training.optim, "bf16_gains", lambda device: True)
    run = training.train(config(images=16, precision="auto"), manifest=films, out=tmp_path / "r")
    assert load_config(run / "config.yaml").train.precision == "bf16"
    assert read_json(run / "bundle" / "training.json", TrainingFile).precision == "bf16"


def test_negatives_bring_the_presence_head_and_resume_exactly(tmp_path, films):
    given = config(TGCNET, {"negatives": 0.3}, images=48, checkpoint_minutes=1e-9)
    whole = training.train(given, manifest=films, out=tmp_path / "whole")
    bundle = load_bundle(whole / "bundle")
    assert bundle.config.presence and bundle.config.model["presence"] and load_config(whole / "config.yaml").model["presence"]
    assert "presence" in read_json(whole / "bundle" / "training.json", TrainingFile).curves
    with pytest.raises(Interrupt):
        training.train(given, manifest=films, out=tmp_path / "cut", progress=interrupt_after(24))
    assert weights(training.train(given, manifest=films, out=tmp_path / "cut", resume=True)) == weights(whole)


def test_without_absent_prompts_no_presence_is_claimed(tmp_path, films):
    run = training.train(config(TGCNET | {"presence": True}, images=8), manifest=films, out=tmp_path / "r")
    bundle = load_bundle(run / "bundle")
    assert not bundle.config.presence and not any(name.startswith("presence.") for name in bundle.model.state_dict())


@pytest.mark.parametrize(("model", "data"), [(TGCNET, {"text": "constant"}), ({"name": "unet", "width": 4}, {})], ids=["twin", "unet"])
def test_what_reads_no_text_trains_without_negatives(tmp_path, films, model, data):
    with_, without = (
        training.train(config(model, data | {"negatives": share}, images=16), manifest=films, out=tmp_path / str(share))
        for share in (0.5, 0)
    )
    assert weights(with_) == weights(without) and not load_bundle(with_ / "bundle").config.presence
    assert load_config(with_ / "config.yaml").data.negatives == 0


def test_rows_with_an_absent_target_bring_the_head_too_and_must_say_that_they_are_absent(tmp_path):
    folder = tmp_path / "films"
    rows = list(csv.DictReader(make_films(folder, 12).open()))
    Image.fromarray(np.zeros((32, 32), bool)).save(folder / "empty.png")
    absent = [row | {"mask": "empty.png", "text": "cavity", "present": "0"} for row in rows[::2]]
    info = DatasetFile(name="made-up", laterality="image")
    forgotten = write_manifest(folder, [*rows, *(row | {"present": ""} for row in absent)], info)
    with pytest.raises(InputError, match="the mask is empty") as caught:
        training.train(config(TGCNET, images=8), manifest=forgotten, out=tmp_path / "no")
    assert caught.value.code == "empty_mask"
    run = training.train(config(TGCNET, images=8), manifest=write_manifest(folder, [*rows, *absent], info), out=tmp_path / "r")
    assert load_bundle(run / "bundle").config.presence


@pytest.mark.slow
def test_trained_with_negatives_a_model_tells_what_is_not_there(tmp_path):
    """Films of one patch or two: asked for the side without a patch, only a model that has met such prompts leaves it empty and says so."""
    manifest = make_films(tmp_path / "films", 120, both=True)
    figures = {}
    for share in (0.5, 0):
        data = {"size_px": 32, "negatives": share, "augment": None}
        run = training.train(
            config(TGCNET | {"output_stride": 2}, data, images=1600, lr=5e-3), manifest=manifest, out=tmp_path / str(share)
        )
        figures[share] = evaluate(run / "bundle", manifest, split="test", out=run / "test", images=False, n_boot=20, controls=[])
    assert figures[0].n_absent == figures[0.5].n_absent > 10
    assert figures[0.5].presence_auroc > 0.9 and figures[0].presence_auroc is None
    assert figures[0.5].absent_correct > figures[0].absent_correct + 0.5
    assert figures[0.5].dice_mean > 0.7


def test_the_twin_reads_one_sentence(tmp_path, films):
    run = training.train(config({"name": "tgcnet", "preset": "tiny"}, {"text": "constant"}, images=16), manifest=films, out=tmp_path / "r")
    assert load_bundle(run / "bundle").words == {CONSTANT}


def test_init_starts_from_a_bundle_and_records_it(tmp_path, films):
    tgcnet = {"name": "tgcnet", "preset": "tiny"}
    parent = training.train(config(tgcnet, images=32), manifest=films, out=tmp_path / "parent") / "bundle"
    child = training.train(config(tgcnet, images=8, lr=1e-9, init=str(parent)), manifest=films, out=tmp_path / "child") / "bundle"
    one, two = load_bundle(parent), load_bundle(child)
    assert two.config.parent == one.sha256 and two.tokenizer_json == one.tokenizer_json
    known, after = (read_json(path / "training.json", TrainingFile) for path in (parent, child))
    assert known.parent_twin is None and after.parent_twin == parent_twin(known, one.config, reads=True, constant=False) is not None
    a, b = one.model.state_dict(), two.model.state_dict()
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-3


def test_init_takes_a_bundle_from_before_a_key_of_the_model_was_there(tmp_path, films):
    tgcnet = {"name": "tgcnet", "preset": "tiny"}
    parent = training.train(config(tgcnet, images=8), manifest=films, out=tmp_path / "parent") / "bundle"
    card = json.loads((parent / "config.json").read_text())
    del card["model"]["date"]["statements"], card["model"]["presence"]
    (parent / "config.json").write_text(json.dumps(card))
    child = training.train(config(tgcnet, images=8, init=str(parent)), manifest=films, out=tmp_path / "child") / "bundle"
    assert load_bundle(child).bank.sha256 == load_bundle(parent).bank.sha256


def test_a_bundle_learns_presence_later_and_does_not_lose_it_unsaid(tmp_path, films):
    tgcnet, absent = {"name": "tgcnet", "preset": "tiny"}, {"negatives": 0.2}
    parent = training.train(config(tgcnet, images=8), manifest=films, out=tmp_path / "parent") / "bundle"
    child = training.train(config(tgcnet, absent, images=8, lr=1e-9, init=str(parent)), manifest=films, out=tmp_path / "child") / "bundle"
    a, b = load_bundle(parent).model.state_dict(), load_bundle(child).model.state_dict()
    assert {key.split(".")[0] for key in b.keys() - a.keys()} == {"presence"} and not a.keys() - b.keys()
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-3
    with pytest.raises(InputError, match="another model.*presence.*data.negatives"):
        training.train(config(tgcnet, images=8, init=str(child)), manifest=films, out=tmp_path / "no")


def test_init_refuses_another_model_and_another_left(tmp_path, films):
    parent = training.train(config(images=8), manifest=films, out=tmp_path / "parent") / "bundle"
    with pytest.raises(InputError, match="holds another model.*width"):
        training.train(config({"name": "unet", "width": 8}, init=str(parent)), manifest=films, out=tmp_path / "wide")
    patients = make_films(tmp_path / "patients", laterality="patient")
    with pytest.raises(InputError, match="the image's left, the manifest the patient's"):
        training.train(config(init=str(parent)), manifest=patients, out=tmp_path / "sides")


def test_a_model_reads_the_arm_of_the_bank_that_its_config_names(tmp_path, films):
    """With knowledge, without, and with neutral statements: one key each, and the bundle holds what was read."""
    banks = {}
    for arm in ({}, {"statements": "neutral"}, {"knowledge": False}):
        run = training.train(
            config({"name": "tgcnet", "preset": "tiny", "date": arm}, images=8), manifest=films, out=tmp_path / str(len(banks))
        )
        banks[str(arm)] = load_bundle(run / "bundle").bank
    told, neutral, none = banks.values()
    assert none is None and (told.name, neutral.name) == ("chest", "chest-neutral")
    assert told.sha256 == load_bank("chest").fitting().sha256 and neutral.sha256 == load_bank("chest").control().sha256


def test_knowledge_follows_the_sides_of_the_data_and_a_changed_bank_stops_a_resume(tmp_path, films):
    """The films mean the image's left, the bank the patient's."""
    bank = tmp_path / "bank.json"
    row = {"concept": "lung", "kind": "anatomy", "statement": "The heart points to the left.", "laterality": "patient"}
    bank.write_text(json.dumps({"schema": 1, "name": "b", "statements": [row]}))
    settings = config({"name": "tgcnet", "preset": "tiny", "date": {"bank": str(bank)}}, checkpoint_minutes=1e-9)
    with pytest.raises(Interrupt):
        training.train(settings, manifest=films, out=tmp_path / "r", progress=interrupt_after(48))
    bank.write_text(bank.read_text().replace("points", "leans"))
    with pytest.raises(InputError, match="have changed since the run began"):
        training.train(settings, manifest=films, out=tmp_path / "r", resume=True)
    bank.write_text(bank.read_text().replace("leans", "points"))
    run = training.train(settings, manifest=films, out=tmp_path / "r", resume=True)
    assert load_bundle(run / "bundle").bank.texts() == ["The heart points to the right."]


def test_two_manifests_train_together_each_as_if_it_were_alone(tmp_path, films):
    """The same ids and the same patients in both: dev, ids and what the bundle says of a data set do not mix."""
    other = make_films(tmp_path / "other", name="other")
    run = training.train(config(images=16), manifest=[films, other], out=tmp_path / "r")
    alone = [prepare(config(data={"manifest": str(path)})) for path in (films, other)]
    env, bundle = read_json(run / "env.json", EnvFile), load_bundle(run / "bundle")
    names = ("made-up", "other")
    assert env.dev_ids == sorted(f"{name}__{s.id}" for name, one in zip(names, alone, strict=True) for s in one.dev)
    assert [d.name for d in bundle.config.trained_on] == list(names)
    assert [d.split_sha256 for d in bundle.config.trained_on] == [one.trained_on[0]["split_sha256"] for one in alone]
    both = prepare(config(data={"manifest": [str(films), str(other)]}))
    assert len({s.id for s in [*both.train, *both.dev]}) == 48
    assert {s.patient for s in both.dev if s.id.startswith("other__")}.isdisjoint(
        s.patient for s in both.train if s.id.startswith("other__")
    )
    assert load_config(run / "config.yaml").data.manifest == [str(films), str(other)]
    assert training.train(config(images=16), manifest=[films, other], out=run, resume=True) == run


def test_sentences_that_mean_the_other_left_are_turned(tmp_path, films):
    patients = make_films(tmp_path / "patients", laterality="patient", name="p")
    both = prepare(config(data={"manifest": [str(films), str(patients)]}))
    assert both.laterality == "image" and {s.laterality for s in both.train} == {"image"}
    texts = {s.id: s.text for s in [*both.train, *both.dev]}
    assert "upper left lung" in texts["made-up__f0"] and "upper right lung" in texts["p__f0"]
    turned = prepare(config(data={"manifest": [str(patients), str(films)]}))
    assert turned.laterality == "patient", "the first data set says whose left the run means"
    assert {s.id: s.text for s in [*turned.train, *turned.dev]}["p__f0"] == texts["made-up__f0"]


def test_a_side_that_cannot_be_turned_and_a_name_that_stands_twice_are_refused(tmp_path, films):
    patients = make_films(tmp_path / "patients", laterality="patient", name="p")
    patients.write_text(patients.read_text().replace("upper right lung.", "upper rt lung."))
    with pytest.raises(InputError) as caught:
        training.train(config(data={"manifest": [str(films), str(patients)]}), out=tmp_path / "no")
    assert caught.value.code == "side_word" and "row 2" in caught.value.what
    assert prepare(config(data={"manifest": str(patients)})).laterality == "patient"
    with pytest.raises(InputError, match="same name") as caught:
        training.train(config(), manifest=[films, films], out=tmp_path / "no")
    assert caught.value.code == "same_name" and not (tmp_path / "no").exists()


def test_dry_run_says_what_would_happen_and_writes_nothing(tmp_path, films, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = training.dry_run(config(), manifest=films)
    assert said["steps"] == 12 and said["train_films"] + said["dev_films"] == 24 and said["params"]["total"] > 0
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_built_is_refused_before_the_data_is_read(tmp_path):
    with pytest.raises(InputError, match="there is no tower"):
        training.train(config({"name": "tgcnet", "vision": {"source": "./clip"}}), manifest=tmp_path / "none", out=tmp_path / "r")


def test_no_data_is_said_plainly(tmp_path):
    with pytest.raises(InputError, match="--data"):
        training.train(config(), out=tmp_path / "r")


def test_it_learns_to_use_the_sentence(tmp_path, films):
    """Noise apart the patch is bright, so a tiny net finds it; the loss falls and dev follows."""
    run = training.train(config(images=800, lr=5e-3, data={"size_px": 32, "augment": None}), manifest=films, out=tmp_path / "r")
    rows = [row for row in log(run) if "total" in row]
    assert rows[-1]["total"] < 0.5 * rows[0]["total"]
    assert read_json(run / "bundle" / "training.json", TrainingFile).dev["dice_mean"] > 0.8


def test_what_was_averaged_or_scored_at_another_size_does_not_count(films, tmp_path, monkeypatch):
    """6 of 12 steps at each size: the average begins anew with the second, and the best weights are of the second, whatever came before."""
    steps, falling = [], iter(range(100, 0, -1))
    update = optim.Average.update
    monkeypatch.setattr(optim.Average, "update", lambda self, model, t: (steps.append(t), update(self, model, t))[1])
    monkeypatch.setattr(training, "score_dev", lambda *_: {"dice_mean": next(falling) / 100, "dice_pooled": 0.0})
    run = training.train(config(), manifest=films, out=tmp_path / "run")
    assert steps == [*range(1, 7), *range(1, 7)]
    assert checkpoint.load(run / "checkpoints", checkpoint.BEST)[1]["step"] == 7
