"""What models cost: counted where it can be counted, timed beside the U-Net, and scores set beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pretrained import save_bert, save_clip
from reportseg.bundle import load_bundle
from reportseg.config import load_config
from reportseg.errors import InputError
from reportseg.models import MODELS, bank_of, build, count_parameters, make_tokenizer, section_sha256
from reportseg.models.encoders import SentenceTokenizer
from reportseg.models.text_towers import PretrainedText
from reportseg.models.tgcnet import unit_spans
from reportseg.schemas.base import read_json
from reportseg.schemas.studies import CostStudy
from reportseg.schemas.training import TrainingFile
from reportseg.studies import cost as module
from reportseg.studies import cost_child
from reportseg.studies.cost import REFERENCE, cost
from reportseg.studies.cost_page import answer
from reportseg.studies.shown import cost_lines
from reportseg.twins import config_sha256, twin_sha256
from test_compare import films, folder
from tiny import TGCNET, UNET, write_bundle

JOB = {"size_px": 32, "batch": 2, "device": "cpu", "precision": "fp32", "turns": 1, "bundle": None, "reads": True, "flips": False}
PRETRAINED = {
    "name": "tgcnet",
    "preset": "tiny",
    "vision": {"source": "somebody/clip", "train": "lora"},
    "text": {"source": "somebody/clip", "train": "frozen"},
}
TINY = [{"name": name, **({"width": 4} if name == "unet" else {"preset": "tiny"})} for name in MODELS]


@pytest.fixture
def here(monkeypatch):
    """Measures in this process, beside a small U-Net; the tasks that were asked for."""
    asked = []

    def child(task, job, name):
        asked.append((name, task))
        return cost_child.measure(task, {**job, "turns": 1})

    monkeypatch.setattr(module, "_child", child)
    monkeypatch.setattr(module, "UNET", UNET)
    monkeypatch.setattr(cost_child, "UNET", UNET)
    return asked


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ndata: {size_px: 32}\nmodel: {name: unet, width: 8}\n")
    return str(file)


def scored(path, cases, width=8, **changes):
    """An evaluation of the configuration `mine`, as evaluate writes it now."""
    return folder(
        path, cases, **({"name": "mine", "text": "constant", "model_sha256": section_sha256({"name": "unet", "width": width})} | changes)
    )


def measured(named, tmp_path, **options):
    return cost(named, **({"out": tmp_path / "c", "size_px": 32, "batch": 2, "device": "cpu", "turns": 1, "n_boot": 20} | options))


@pytest.mark.parametrize("section", [*TINY, PRETRAINED], ids=lambda s: s["name"] + "+" * ("vision" in s))
def test_every_model_is_laid_out_as_it_is_counted_and_can_be_trained(section):
    model = cost_child.lay_out({**JOB, "section": section})
    counted = count_parameters(section)
    assert sum(p.numel() for p in model.parameters()) == counted["total"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == counted["trainable"]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    cost_child.training(model, {**JOB, "section": section})()
    moved = {name for name, p in model.named_parameters() if name in before and not torch.equal(p, before[name])}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert moved and not moved & frozen


def test_operations_are_those_of_the_convolutions():
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 5, 3, padding=1)

        def encode_image(self, image):
            return self.layer(image)

        def encode_text(self, texts):
            return texts

        def decode(self, features, texts):
            return features

    assert cost_child.flops(One(), JOB) == 2 * 32 * 32 * 3 * 5 * 9
    assert cost_child.flops(One(), JOB | {"flips": True}) == 2 * 2 * 32 * 32 * 3 * 5 * 9


def test_low_rank_changes_are_merged_in_what_answers_and_apart_in_what_learns(here):
    job = JOB | {"section": PRETRAINED}
    learns, merged = cost_child.lay_out(job), cost_child.lay_out(job, merged=True)
    plain = cost_child.lay_out(job | {"section": PRETRAINED | {"vision": PRETRAINED["vision"] | {"train": "frozen"}}})
    assert cost_child.flops(merged, job) == cost_child.flops(plain, job) < cost_child.flops(learns, job)
    told = cost_child.times(job)
    assert told["params"] == count_parameters(PRETRAINED) and told["flops"]["own"] == cost_child.flops(plain, job)


@pytest.mark.parametrize(("device", "waits"), [("cpu", 0), ("cuda:0", 3), ("mps", 3)])
def test_a_time_ends_when_the_accelerator_is_done(monkeypatch, device, waits):
    done = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda which: done.append("waited") if which == device else None)
    cost_child.in_turns({"own": lambda: done.append("asked")}, 1, device)
    assert done == (["asked", "waited"] if waits else ["asked"]) * (1 + cost_child.DISCARDED) and done.count("waited") == waits


WORK = """
import torch
from reportseg.studies.cost_child import peak_bytes
mib = lambda n: torch.ones(n * 2**18)
before = mib(512)
del before
kept = []

def load():
    passing = mib(384)
    kept.append(mib(128))
    return lambda: mib(64)

print(peak_bytes(load, 2, "cpu"))
"""


def test_memory_is_what_the_work_takes():
    """What is loaded, 128 MiB, and one turn, 64, but nothing that was given back before the turns. In a process of its own, as the study
    does it: this one may take again what an earlier test gave back.
    """
    told = subprocess.run([sys.executable, "-c", WORK], capture_output=True, text=True, check=True)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        forgets = True
    except OSError:
        forgets = False
    assert 180 * 2**20 < int(told.stdout) < (220 if forgets else 800) * 2**20


def test_costs_are_multiples_of_the_reference(here, config, tmp_path):
    study = measured([config], tmp_path, command="reportseg study cost mine.yaml")
    assert read_json(tmp_path / "c" / "cost.json", CostStudy) == study
    unet, mine = study.rows
    assert (unet.name, mine.name, mine.model) == (REFERENCE, "mine", "unet")
    assert set(unet.ratios.values()) == {1.0}
    assert mine.params == count_parameters({"name": "unet", "width": 8})
    assert mine.ratios["params"] == pytest.approx(mine.params["total"] / unet.params["total"])
    assert 3 < mine.ratios["flops"] < 4, "twice the width is four times the operations, but for the first and the last layer"
    assert mine.ratios["flops"] == pytest.approx(mine.flops / unet.flops)
    page = (tmp_path / "c" / "cost.html").read_text()
    assert "mine" in page and "Score for cost" not in page and "Not a medical device" in page
    tasks = len(here)
    assert measured([config], tmp_path, resume=True, command="reportseg study cost mine.yaml") == study and len(here) == tasks
    with pytest.raises(InputError) as caught:
        measured([config], tmp_path, resume=True, size_px=64)
    assert caught.value.code == "plan" and "settings.size_px" in caught.value.what


def test_each_figure_is_set_against_its_own_of_the_reference():
    """Twice to nine times: all ratios differ, and a step of 2 s at batch 8 is four films a second."""
    unet = {"times": {}, "predict": 10, "train": 10}
    own = {
        "times": {
            "params": {"total": 60, "trainable": 30, "frozen": 30},
            "unet_params": 10,
            "flops": {"own": 400, "unet": 100},
            "latency_1_s": {"own": 2.5, "unet": 0.5},
            "latency_8_s": {"own": 7.0, "unet": 1.0},
            "step_s": {"own": 2.0, "unet": 1.0},
        },
        "predict": 80,
        "train": 90,
    }
    one = module.Subject("mine", {"name": "unet"}, reads=False, flips=True)
    row = module._row(one, own, unet, 8, {"scores": {"dice_mean": 0.5}, "seeds": [3], "flips": True})
    assert row.ratios == {
        "params": 6, "trainable": 3, "flops": 4, "predict_bytes": 8, "train_bytes": 9, "latency_1_s": 5, "latency_8_s": 7, "train_time": 2
    }  # fmt: skip
    assert (row.name, row.model, row.flips, row.params) == ("mine", "unet", True, own["times"]["params"])
    assert (row.flops, row.predict_bytes, row.train_bytes) == (400, 80, 90)
    assert (row.latency_1_s, row.latency_8_s, row.train_images_per_s) == (2.5, 7.0, 4.0)
    assert (row.scores, row.ci95, row.seeds) == ({"dice_mean": 0.5}, {}, [3])


def test_an_interrupted_study_measures_the_rest_only(here, config, tmp_path, monkeypatch):
    child = module._child

    def stopped(task, job, name):
        if name == "mine":
            raise KeyboardInterrupt
        return child(task, job, name)

    with monkeypatch.context() as patch:
        patch.setattr(module, "_child", stopped)
        with pytest.raises(KeyboardInterrupt):
            measured([config], tmp_path)
    here.clear()
    measured([config], tmp_path, resume=True)
    assert {name for name, _ in here} == {"mine"}


def test_a_bundle_is_measured_as_it_is(here, bundle, tmp_path):
    (row,) = measured([str(bundle)], tmp_path).rows[1:]
    assert (row.name, row.model) == ("bundle", TGCNET["name"]) and row.params["frozen"] == 0 and row.flops > 0


def test_scores_stand_beside_the_costs_and_draw_the_front(here, config, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text("name: other\ndata: {size_px: 32}\nmodel: {name: unet, width: 16}\n")
    evaluations = [
        scored(tmp_path / "a0", films(60, 62, 64), seed=0),
        scored(tmp_path / "a1", films(62, 64, 66), seed=1),
        scored(tmp_path / "b", films(40, 42, 44), 16, name="other"),
    ]
    study = measured([config, str(other)], tmp_path, scores=evaluations)
    rows = {row.name: row for row in study.rows}
    assert rows["mine"].scores["dice_mean"] == pytest.approx(0.63) and rows["mine"].seeds == [0, 1]
    assert rows["other"].scores["dice_mean"] == pytest.approx(0.42) and not rows[REFERENCE].scores
    assert (study.metric, study.split, study.warnings) == ("dice_mean", "val", [])
    slow = rows["other"].model_copy(update={"ratios": rows["other"].ratios | {"latency_1_s": 9.0}})
    said = answer(study.model_copy(update={"rows": [rows["mine"], slow]}))
    assert said.startswith("No other mean Dice is higher than that of mine, and no other answer quicker.") and "compare" in said
    quick = rows["other"].model_copy(update={"ratios": rows["other"].ratios | {"latency_1_s": 0.001}})
    said = answer(study.model_copy(update={"rows": [rows["mine"], quick]}))
    assert "than these: other, mine." in said and "more than chance is for `reportseg compare`" in said and "ahead" not in said
    assert "Score for cost" in (tmp_path / "c" / "cost.html").read_text()


def test_a_score_of_films_of_another_size_than_those_measured_is_warned_of(here, config, tmp_path):
    study = measured([config], tmp_path, size_px=48, scores=[scored(tmp_path / "a", films(60, 62))])
    assert study.warnings == ["Films of 48 px were measured, and these scores are of another size: mine (32 px)."]


def test_a_configuration_of_the_very_reference_takes_its_place_and_has_its_score(here, config, tmp_path):
    same = tmp_path / "same.yaml"
    same.write_text("name: same\ndata: {size_px: 32}\nmodel: {name: unet, width: 4, output_stride: 1}\n")
    scores = [scored(tmp_path / "a", films(60, 62)), scored(tmp_path / "b", films(40, 42), 4, name="same")]
    study = measured([config, str(same)], tmp_path, scores=scores)
    assert [(row.name, row.scores["dice_mean"]) for row in study.rows] == [("same", pytest.approx(0.41)), ("mine", pytest.approx(0.61))]
    assert set(study.rows[0].ratios.values()) == {1.0} and study.warnings == [] and {name for name, _ in here} == {"same", "mine"}
    same.write_text(same.read_text() + "eval: {flips: true}\n")
    rows = measured([str(same)], tmp_path, out=tmp_path / "d").rows
    assert [(row.name, row.flips) for row in rows] == [(REFERENCE, False), ("same", True)], "twice the reference's answers"


@pytest.mark.parametrize(
    ("named", "options", "code"),
    [
        (["nothing"], {}, "unknown"),
        (["unet_qata", "unet_qata"], {}, "twice"),
        (["unet_qata"], {"size_px": 8}, "size"),
        (["unet_qata"], {"batch": 0}, "size"),
        (["unet_qata"], {"device": "abacus"}, "device"),
        (["unet_qata"], {"metric": "speed"}, "metric"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_written(here, tmp_path, named, options, code):
    with pytest.raises(InputError) as caught:
        measured(named, tmp_path, **options)
    assert caught.value.code == code and not (tmp_path / "c").exists() and not here


@pytest.mark.parametrize(
    ("evaluations", "code", "says"),
    [
        ([{"name": "elsewhere"}], "score", "of elsewhere, which is not measured"),
        ([{"name": None, "bundle_sha256": None, "config_sha256": None}], "score", "of masks of other code"),
        ([{"width": 16}], "score", "another model section"),
        ([{"text": "text"}], "score", "it reads, and mine is text-free"),
        ([{"ensemble": ["e" * 64]}], "score", "an ensemble of 2 bundles"),
        ([{}, {}], "seed_twice", "the seed 0 of"),
        ([{}, {"seed": 1, "config_sha256": "7" * 64}], "score", "of another configuration"),
        ([{}, {"decision": {"rule": "fixed", "threshold": 0.5, "temperature": 1, "flips": True}}], "score", "flips"),
    ],
)
def test_an_evaluation_of_another_model_or_of_two_methods_is_refused(here, config, tmp_path, evaluations, code, says):
    folders = [scored(tmp_path / f"e{i}", films(60, 62), **changes) for i, changes in enumerate(evaluations)]
    with pytest.raises(InputError) as caught:
        measured([config], tmp_path, scores=folders)
    assert caught.value.code == code and says in caught.value.what and str(folders[-1]) == str(caught.value.where) and caught.value.fix
    assert not here and not (tmp_path / "c").exists()


def test_a_model_and_its_twin_of_one_name_have_their_own_scores(here, tmp_path):
    """Both are of the configuration `bundle`; only the hash and what was asked tell them apart."""
    model, twin = (write_bundle(tmp_path / text / "bundle", text=text) for text in ("as_written", "constant"))
    one, two = (load_bundle(path).sha256 for path in (model, twin))
    own = folder(tmp_path / "own", films(80, 82), name="bundle", bundle_sha256=one)
    free = folder(tmp_path / "free", films(60, 62), name="bundle", bundle_sha256=two, text="constant")
    rows = measured([str(model), str(twin)], tmp_path, scores=[own, free]).rows[1:]
    assert [(row.name, row.scores["dice_mean"], row.seeds) for row in rows] == [
        (f"bundle ({one[:8]})", pytest.approx(0.81), [0]),
        (f"bundle ({two[:8]})", pytest.approx(0.61), [0]),
    ]
    both = folder(tmp_path / "both", films(90, 92), name="bundle", bundle_sha256=one, ensemble=[two])
    with pytest.raises(InputError) as caught:
        measured([str(model)], tmp_path, out=tmp_path / "d", scores=[both])
    assert caught.value.code == "score" and "an ensemble of 2 bundles" in caught.value.what


def test_other_seeds_of_a_bundle_are_those_of_its_configuration(here, bundle, tmp_path):
    loaded, training = load_bundle(bundle), read_json(bundle / "training.json", TrainingFile)
    told = {"name": "bundle", "config_sha256": config_sha256(training), "twin_sha256": twin_sha256(training, loaded.config)}
    own = folder(tmp_path / "0", films(80, 82), bundle_sha256=loaded.sha256, **told)
    other = folder(tmp_path / "1", films(82, 84), seed=1, **told)
    (row,) = measured([str(bundle)], tmp_path, scores=[own, other]).rows[1:]
    assert row.scores["dice_mean"] == pytest.approx(0.82) and row.seeds == [0, 1]
    for i, changes in enumerate(({"name": "bundle", "seed": 2}, told | {"seed": 2, "twin_sha256": "8" * 64}, told | {"seed": 0})):
        foreign = folder(tmp_path / f"foreign-{i}", films(20, 22), **changes)  # a namesake, other films, trained anew
        with pytest.raises(InputError) as caught:
            measured([str(bundle)], tmp_path, out=tmp_path / "d", scores=[own, foreign])
        assert caught.value.code == "score" and "of another training" in caught.value.what
    two = write_bundle(tmp_path / "again" / "bundle", seed=5)
    with pytest.raises(InputError) as caught:
        measured([str(bundle), str(two)], tmp_path, out=tmp_path / "d", scores=[other])
    assert caught.value.code == "score" and "may be of each of these: bundle (" in caught.value.what


@pytest.mark.parametrize(
    ("name", "save", "reading"), [("tgcnet", save_clip, "read"), ("tmca", save_bert, "read_tokens")], ids=["clip", "bert"]
)
def test_a_frozen_tower_reads_the_sentence_of_each_answer_and_constants_once(tmp_path, monkeypatch, name, save, reading):
    save(tmp_path / "tower")
    section = {"name": name, "preset": "tiny", "text": {"source": str(tmp_path / "tower"), "train": "frozen"}}
    bank = bank_of(section)
    model = build(section, make_tokenizer(section, []), bank)
    (tower,) = (part for part in model.modules() if isinstance(part, PretrainedText))
    (tokenizer,) = {id(t): t for part in model.modules() for t in vars(part).values() if isinstance(t, SentenceTokenizer)}.values()
    read, method = [], getattr(tower, reading)

    def spied(ids_BL, mask_BL):
        read.append(tuple(ids_BL[0].tolist()))
        return method(ids_BL, mask_BL)

    def rows(texts):
        ids_BL, mask_BL = tokenizer(list(texts), torch.device("cpu"))
        return sorted({tuple(row[:n]) for row, n in zip(ids_BL.tolist(), mask_BL.sum(1).tolist(), strict=True)})

    def asked(work):
        read.clear()
        work()
        return sorted(read)

    def units(*texts):
        return {text[a:b] for text in texts for a, b in (unit_spans(text) if bank else [(0, len(text))])}

    monkeypatch.setattr(tower, reading, spied)
    sentence = cost_child.SENTENCES[0]
    once = cost_child.answering(model, 1, JOB)
    assert bool(read) == bool(bank), "statements are read before any film is asked of"
    assert asked(once) == asked(once) == rows(units(sentence))
    twice = cost_child.answering(model, 1, JOB | {"flips": True})
    assert asked(twice) == asked(twice) == rows(units(sentence, sentence.replace("left", "right")))
    counted = cost_child.flops(model, JOB)
    assert counted == cost_child.flops(model, JOB), "whatever was asked before"
    free = cost_child.answering(model, 1, JOB | {"reads": False})
    assert asked(free) == [] and cost_child.flops(model, JOB | {"reads": False}) < counted
    step = cost_child.training(model, JOB)
    assert asked(step) and not asked(step), "the films of a data set come again"


def test_with_flips_the_mirrored_films_are_asked_for_the_other_side():
    asked = []

    class Spy(torch.nn.Module):
        def encode_image(self, image):
            return image

        def encode_text(self, texts):
            return texts

        def decode(self, features, texts):
            asked.append((features, texts))

    cost_child.answering(Spy(), 2, JOB | {"flips": True})()
    (film, texts), (mirror, swapped) = asked
    assert torch.equal(mirror, film.flip(-1)) and [text.replace("left", "right") for text in texts] == swapped != texts
    cost_child.answering(Spy(), 2, JOB | {"reads": False})()
    assert asked[2][1] == ["image", "image"] and len(asked) == 3


def test_what_was_scored_is_paid_for(here, tmp_path):
    """With flips for a bundle that answers so, and for one that was scored so; without for one that was scored without."""
    flips, plain = (write_bundle(tmp_path / name / "bundle", UNET, flips=flips) for name, flips in (("f", True), ("p", False)))
    study = measured([str(flips), str(plain)], tmp_path)
    unet, two, one = study.rows
    assert (unet.flips, two.flips, one.flips) == (False, True, False)
    assert two.flops == 2 * one.flops and two.ratios["flops"] == pytest.approx(two.flops / unet.flops)
    assert two.params == one.params and "with flips" in (tmp_path / "c" / "cost.html").read_text()
    assert [line.partition("  ")[0] for line in cost_lines(study)[2:4]] == [f"{two.name}, with flips", one.name]

    def evaluation(bundle, flips):
        rule = {"rule": "fixed", "threshold": 0.5, "temperature": 1, "flips": flips}
        hashed = load_bundle(bundle).sha256
        return folder(tmp_path / hashed, films(60, 62), name="bundle", bundle_sha256=hashed, decision=rule)

    scores = [evaluation(flips, False), evaluation(plain, True)]
    rows = measured([str(flips), str(plain)], tmp_path, out=tmp_path / "d", scores=scores).rows
    assert [row.flips for row in rows] == [False, False, True]
    assert [row.flops for row in rows[1:]] == [one.flops, two.flops]
    with pytest.raises(InputError) as caught:
        measured([str(flips), str(plain)], tmp_path, scores=scores, resume=True)
    assert caught.value.code == "plan" and "settings.flips" in caught.value.what


def test_evaluations_of_earlier_versions_are_matched_by_name_and_that_is_said(here, config, tmp_path):
    study = measured([config], tmp_path, scores=[scored(tmp_path / "a", films(60, 62), 16, model_sha256=None)])
    assert study.rows[1].scores and "mine are of an earlier version" in study.warnings[0] and "Evaluate again" in study.warnings[0]


@pytest.mark.slow
def test_the_figures_of_a_process_of_its_own(tmp_path):
    study = measured(["demo"], tmp_path, size_px=64)
    unet, demo = study.rows
    assert unet.params["total"] == count_parameters({"name": "unet", "width": 64})["total"] > 30e6
    assert demo.ratios["flops"] < 1 and demo.predict_bytes < unet.predict_bytes and demo.train_bytes < unet.train_bytes
    assert demo.params["trainable"] > 0 and load_config("demo").model["name"] == "tgcnet"
