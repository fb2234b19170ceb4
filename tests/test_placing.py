"""Sentences are placed before films are seen: what that teaches, what it leaves alone, and when there is nothing to teach."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from reportseg import optim
from reportseg.bundle import load_bundle
from reportseg.config import load_config, parse_config
from reportseg.data.cache import FilmCache
from reportseg.data.loader import Steps, batches
from reportseg.errors import InputError
from reportseg.losses import area_average, bce_loss
from reportseg.models import build, resolve
from reportseg.models.encoders import train_tokenizer
from reportseg.placing import GRID, learn_places, sentences_only
from reportseg.run_config import changed
from reportseg.runs import prepare, text_steps
from reportseg.schemas.base import read_json
from reportseg.schemas.training import TrainingFile
from reportseg.train import Run, dry_run, train
from reportseg.types import Sample
from test_train import Interrupt, make_films, weights
from tiny import TGCNET, UNET

#: The same words in another order name other places.
CROSSED = (
    "Bilateral infection, two infected areas, upper left lung and lower right lung.",
    "Bilateral infection, two infected areas, lower left lung and upper right lung.",
)


def config(model=TGCNET, steps=40, **data):
    values = {
        "name": "t",
        "model": model,
        "data": {"size_px": 32, **data},
        "train": {"images": 32, "batch": 8, "precision": "fp32", "text_steps": steps},
    }
    return parse_config(values, "test")


@pytest.fixture(scope="module")
def crossed():
    """Rows and films of 56 px, all of one gray: only the sentence tells which two quarters the mask fills."""
    rows, masks = [], np.zeros((32, 56, 56), np.uint8)
    for i in range(32):
        rows.append(Sample(id=f"f{i}", image="", mask="", text=CROSSED[i % 2], split="train", patient=f"p{i}", flip_safe=True))
        left, right = (slice(0, 28), slice(28, 56)) if i % 2 == 0 else (slice(28, 56), slice(0, 28))
        masks[i, left, :28] = masks[i, right, 28:] = 1
    return rows, FilmCache(np.full((32, 1, 56, 56), 128, np.uint8), masks)


def placed(crossed, steps, **data):
    """A model before and after, and the loss."""
    rows, films = crossed
    torch.manual_seed(0)
    model = build(TGCNET, train_tokenizer(CROSSED), None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    run = config(steps=steps, text_dropout=0.0, **data)
    stream = batches(Steps(rows, films, sentences_only(run)), 0, torch.device("cpu"))
    heard = []
    loss = learn_places(model, stream, steps, 1.0, heard.append)
    assert heard == list(range(1, steps + 1))
    return model, before, loss


def test_the_order_of_words_is_read(crossed):
    _, _, loss = placed(crossed, 120)
    masks = torch.from_numpy(crossed[1].masks_NHW)[:, None].float()
    cells = area_average(masks, (GRID, GRID))
    blind = bce_loss(torch.logit(cells.mean(0, keepdim=True)).expand_as(cells), cells, torch.ones_like(cells))
    assert float(blind) == pytest.approx(np.log(2), abs=1e-3), "without the order of words every cell is as likely as not"
    assert loss < 0.1 * float(blind)


def test_only_what_a_sentence_reaches_is_moved(crossed):
    model, before, _ = placed(crossed, 2)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("date.tower.") for name in moved)
    assert all(name.startswith("date.") for name in moved)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_mirrored_films_go_with_mirrored_sentences_and_nothing_else_moves_them(crossed):
    rows, films = crossed
    batch = next(iter(batches(Steps(rows, films, sentences_only(config(text_dropout=0.0))), 0, torch.device("cpu"))))
    assert len(batch.texts) == 128 and not set(batch.texts) <= set(CROSSED), "some are mirrored"
    for text, mask_1HW in zip(batch.texts, batch.mask_B1HW, strict=True):
        assert mask_1HW[0, 5, 5] == ("upper left" in text) and mask_1HW[0, 5, 50] == ("upper right" in text)
    assert bool(batch.valid_BHW.all())
    straight = sentences_only(config(augment=None))
    assert straight.data.augment is None


def log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films"))


def test_a_run_places_its_sentences_once_and_resumes_exactly(tmp_path, films):
    whole = train(config(steps=5), manifest=films, out=tmp_path / "whole")
    assert [row["step"] for row in log(whole) if "placing" in row] == [0]

    def cut(said):
        if said.get("images", 0) >= 16:
            raise Interrupt

    heard = []
    with pytest.raises(Interrupt):
        train(config(steps=5), manifest=films, out=tmp_path / "cut", progress=cut)
    cut_run = train(config(steps=5), manifest=films, out=tmp_path / "cut", resume=True, progress=heard.append)
    assert weights(whole) == weights(cut_run)
    assert [row["step"] for row in log(cut_run) if "placing" in row] == [0]


def test_a_run_that_was_stopped_while_it_placed_ends_as_one_that_was_not(tmp_path, films, monkeypatch):
    """Precision and rate are measured by the first part alone: nothing that these draw may reach the placing."""
    monkeypatch.setattr(optim, "seconds_per_step", lambda step, device, *_: (step(), 50.0)[1])
    run = changed(config(steps=5), "train", precision="auto", minutes=10)

    def cut(said):
        if said.get("placing") == 3:
            raise Interrupt

    with pytest.raises(Interrupt):
        train(run, manifest=films, out=tmp_path / "cut", progress=cut)
    assert not (tmp_path / "cut" / "log.jsonl").exists()
    cut_run, whole = train(run, manifest=films, out=tmp_path / "cut", resume=True), train(run, manifest=films, out=tmp_path / "whole")
    assert weights(cut_run) == weights(whole)
    assert [row["placing"] for row in log(cut_run) if "placing" in row] == [row["placing"] for row in log(whole) if "placing" in row]


def a_second_to_place_and_half_a_second_to_train(step, device):
    return 1.0 if isinstance(step(), float) else 0.5


def test_the_minutes_of_a_run_hold_the_placing_too(tmp_path, films, monkeypatch):
    monkeypatch.setattr(optim, "seconds_per_step", a_second_to_place_and_half_a_second_to_train)
    run = train(changed(config(steps=5), "train", minutes=0.2), manifest=films, out=tmp_path / "r")
    images = int((0.9 * 12 - 5 * 1.0) * 8 / 0.5)
    assert load_config(run / "config.yaml").train.images == images
    told = changed(config(steps=5), "train", images=images)
    assert weights(run) == weights(train(told, manifest=films, out=tmp_path / "told")), "what was measured leaves no trace"


def test_minutes_that_placing_alone_would_take_are_refused_before_anything_is_written(tmp_path, films, monkeypatch):
    monkeypatch.setattr(optim, "seconds_per_step", a_second_to_place_and_half_a_second_to_train)
    short = changed(config(steps=40), "train", minutes=0.7)
    with pytest.raises(InputError, match=r"takes about 0\.67 of the 0\.7 minutes.*fewer train\.text_steps") as caught:
        train(short, manifest=films, out=tmp_path / "r")
    assert caught.value.code == "minutes"
    with pytest.raises(InputError, match="takes about 150 of the 100 minutes"):
        train(changed(config(steps=9000), "train", minutes=100), manifest=films, out=tmp_path / "r")
    train(changed(short, "train", text_steps=2), manifest=films, out=tmp_path / "r")  # the folder is still free


def test_the_safety_stop_counts_the_placing(tmp_path, films, monkeypatch):
    monkeypatch.setattr(optim, "seconds_per_step", lambda step, device: 50.0)
    monkeypatch.setattr(Run, "_place_sentences", lambda self: setattr(self.state, "placing_s", 751.0))
    run = train(changed(config(steps=5), "train", minutes=10), manifest=films, out=tmp_path / "r")
    facts = read_json(run / "bundle" / "training.json", TrainingFile)
    assert facts.truncated and facts.images == 8


def test_a_resume_from_a_checkpoint_does_not_place_again(tmp_path, films):
    run = changed(config(steps=5), "train", checkpoint_minutes=1e-9)

    def cut(said):
        if said.get("images", 0) >= 24:
            raise Interrupt

    with pytest.raises(Interrupt):
        train(run, manifest=films, out=tmp_path / "r", progress=cut)
    heard = []
    done = train(run, manifest=films, out=tmp_path / "r", resume=True, progress=heard.append)
    assert any("images" in said for said in heard) and not any("placing" in said for said in heard)
    assert [row["step"] for row in log(done) if "placing" in row] == [0]
    assert weights(done) == weights(train(config(steps=5), manifest=films, out=tmp_path / "whole"))


@pytest.mark.parametrize(("model", "data"), [(UNET, {}), (TGCNET, {"text": "constant"})])
def test_what_reads_no_sentence_places_none(tmp_path, films, model, data):
    heard = []
    run = train(config(model, **data), manifest=films, out=tmp_path / "r", progress=heard.append)
    assert not any("placing" in said for said in heard) and not any("placing" in row for row in log(run))


def test_a_model_that_goes_on_from_a_bundle_has_learnt_it(tmp_path, films):
    first = train(config(steps=5), manifest=films, out=tmp_path / "first")
    assert "placing" in load_bundle(first / "bundle").path.joinpath("training.json").read_text()
    more = config(steps=5)
    more = more.model_copy(update={"train": more.train.model_copy(update={"init": str(first / "bundle")})})
    heard = []
    train(more, manifest=films, out=tmp_path / "more", progress=heard.append)
    assert not any("placing" in said for said in heard)


@pytest.mark.parametrize("regime", ["frozen", "lora", "full"])
def test_a_pretrained_text_tower_keeps_what_it_knows(films, regime):
    """A frozen one has nothing to move, and the rate of a random start would undo what another was pretrained for."""

    def planned(tower):
        run = resolve(config({"name": "tmca", "preset": "tiny", "text": tower}))
        return text_steps(run, prepare(changed(run, "data", manifest=str(films))))

    assert planned({"source": "scratch"}) == 40
    assert planned({"source": "towers/bert", "train": regime}) == 0


def test_the_plan_tells_the_steps_before_the_first_film(films):
    assert dry_run(config(), manifest=films)["text_steps"] == 40
    assert dry_run(config(UNET), manifest=films)["text_steps"] == dry_run(config(text="constant"), manifest=films)["text_steps"] == 0
