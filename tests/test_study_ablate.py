"""Studies that train: a plan that is held to, arms that differ in one thing only, and a resume that ends as if nothing had happened."""

from __future__ import annotations

import csv
import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from reportseg.compare import read_runs
from reportseg.config import dump_config, load_config
from reportseg.data.manifest import read_manifest
from reportseg.data.splits import nested_shares
from reportseg.errors import InputError
from reportseg.models import resolve
from reportseg.schemas.base import read_json
from reportseg.schemas.studies import Ablation, DataStudy, StudyPlan
from reportseg.schemas.training import EnvFile, TrainingFile
from reportseg.stats import holm, wilcoxon_runs
from reportseg.studies.ablate import ablate, verdict
from reportseg.studies.ablate_page import write_page
from reportseg.studies.data import data
from reportseg.studies.training import Trained
from test_compare import N, films, folder
from tiny import SMALL

module = import_module("reportseg.studies.ablate")
CHANGES = ["model.width=8", "model.output_stride=2"]


def ablated(source, phantoms, out, *extra, **options):
    return ablate(source, [*SMALL, *CHANGES, *extra], manifest=phantoms, out=out, **({"n_boot": 20} | options))


@pytest.fixture(scope="module")
def done(source, phantoms, tmp_path_factory) -> tuple[Ablation, Path]:
    out = tmp_path_factory.mktemp("study") / "a"
    return ablated(source, phantoms, out, command="reportseg study ablate t"), out


class Interrupt(Exception):
    pass


# ---------------------------------------------------------------- ablate


def test_it_leaves_a_plan_runs_evaluations_a_page_and_a_file(done):
    study, out = done
    assert {p.name for p in out.iterdir() if not p.name.startswith(".")} == {"plan.json", "runs", "eval", "ablate.html", "ablate.json"}
    assert read_json(out / "ablate.json", Ablation) == study
    plan = read_json(out / "plan.json", StudyPlan)
    assert (plan.metric, plan.smallest, plan.seeds, plan.arms, plan.split) == ("dice_mean", 0.003, [0, 1], CHANGES, "val")
    assert [arm.change for arm in study.arms] == [None, *CHANGES]
    assert len(list((out / "runs").iterdir())) == len(list((out / "eval").iterdir())) == 6
    page = (out / "ablate.html").read_text()
    assert "width=8" in page and "Not a medical device" in page and "plan.json" in page


def test_the_plan_lies_there_before_the_first_training(source, phantoms, tmp_path):
    def stop(said):
        raise Interrupt

    with pytest.raises(Interrupt):
        ablated(source, phantoms, tmp_path / "a", progress=stop)
    assert [p.name for p in (tmp_path / "a").iterdir() if not p.name.startswith(".")] == ["plan.json"]


def test_arms_differ_in_their_change_only(done):
    _, out = done
    configs = {}
    for run in (out / "runs").iterdir():
        training = read_json(run / "bundle" / "training.json", TrainingFile)
        configs.setdefault(training.seed, []).append(training.config)
        assert training.images == 32
    for own in configs.values():
        first, *others = [{k: v for k, v in config.items() if k != "model"} for config in own]
        assert all(other == first for other in others)
        assert len({json.dumps(config["model"], sort_keys=True) for config in own}) == 3
    dev = {tuple(read_json(run / "env.json", EnvFile).dev_ids) for run in (out / "runs").iterdir()}
    assert len(dev) == 1


def test_an_effect_is_full_minus_changed_and_two_seeds_give_no_p(done):
    study, _ = done
    full = study.arms[0]
    assert full.verdict is None and not full.effect
    for arm in study.arms[1:]:
        assert arm.effect["dice_mean"][0] == pytest.approx(full.scores["dice_mean"] - arm.scores["dice_mean"])
        assert set(arm.by_seed) == {0, 1} and arm.p is None and arm.p_holm is None
        for own, other in zip(full.runs, arm.runs, strict=True):
            assert arm.by_seed[own.seed][0] == pytest.approx(own.scores["dice_mean"] - other.scores["dice_mean"])
        assert arm.verdict == verdict(arm.effect["dice_mean"], study.smallest)
    assert any("Two seeds" in warning for warning in study.warnings)
    assert "dev_dice_mean" in full.figures and "lr" not in full.figures


@pytest.fixture(scope="module")
def tmca(tmp_path_factory) -> Path:
    """The configuration of a tiny TMCA."""
    file = tmp_path_factory.mktemp("config") / "tmca.yaml"
    file.write_text("name: t\nmodel: {name: tmca, preset: tiny}\n")
    return file


def test_an_arm_that_takes_away_the_pixel_term_with_the_enhancement_says_so(tmca, phantoms, tmp_path):
    """On the page and in the file, whose warnings the terminal shows, and before the first training."""
    said = []
    options = {"manifest": phantoms, "out": tmp_path / "a", "seeds": [0], "n_boot": 20}
    study = ablate(tmca, [*SMALL, "model.ltem.enabled=false"], progress=said.append, **options)
    assert study.warnings[0].startswith("model.ltem.enabled=false takes the pixel term away too")
    assert said[0] == {"remark": f"warning: {study.warnings[0]}"}
    assert "model.ltem.pixel_loss=false &gt; base.yaml" in (tmp_path / "a" / "ablate.html").read_text()


def test_where_no_arm_has_the_pixel_term_there_is_nothing_to_warn_of(tmca, phantoms, tmp_path):
    without = tmp_path / "base.yaml"
    without.write_text(dump_config(resolve(load_config(tmca, ["model.ltem.pixel_loss=false"]))))  # as `config show` prints it
    for i, (base, change) in enumerate(((without, "model.ltem.enabled=false"), (tmca, "model.ltem.pixel_loss=false"))):
        said = []

        def stop(line, said=said):
            said.append(line)
            raise Interrupt

        with pytest.raises(Interrupt):
            ablate(base, [*SMALL, change], manifest=phantoms, out=tmp_path / str(i), seeds=[0], progress=stop)
        assert said == [{"remark": "full, seed 0: 1 of 2"}]


@pytest.mark.parametrize(
    ("effect", "says"),
    [
        ((0.004, 0.001, 0.008), "helps"),
        ((0.001, 0.0005, 0.002), "helps"),
        ((0.0, -0.002, 0.0029), "does not help"),
        ((-0.01, -0.02, -0.005), "does not help"),
        ((0.002, -0.001, 0.003), "undecided"),
        ((0.01, 0.0, 0.02), "undecided"),
        (None, None),
    ],
)
def test_the_verdict_is_read_from_the_interval(effect, says):
    assert verdict(effect, 0.003) == says


def test_after_an_interrupt_it_ends_as_if_there_had_been_none(source, phantoms, tmp_path, done):
    seen = []

    def stop(said):
        seen.extend([said["remark"]] if "remark" in said else [])
        if len(seen) == 3 and said.get("images", 0) >= 16:
            raise Interrupt

    with pytest.raises(Interrupt):
        ablated(source, phantoms, tmp_path / "a", progress=stop)
    assert len(list((tmp_path / "a" / "eval").iterdir())) == 2 and not (tmp_path / "a" / "ablate.json").exists()
    before = (tmp_path / "a" / "eval" / "0-full-0" / "metrics.json").stat().st_mtime_ns
    study = ablated(source, phantoms, tmp_path / "a", resume=True, command="reportseg study ablate t")
    assert (tmp_path / "a" / "eval" / "0-full-0" / "metrics.json").stat().st_mtime_ns == before
    assert without_hashes(study) == without_hashes(done[0])


def without_hashes(study: Ablation) -> dict:
    """A bundle holds how long its training took, so its hash is another in each run."""
    values = study.model_dump()
    for run in (run for arm in values["arms"] for run in arm["runs"]):
        del run["bundle_sha256"]
    return values


def test_one_seed_has_a_p_about_these_weights_and_a_pooled_score_has_none(source, phantoms, tmp_path):
    study = ablated(source, phantoms, tmp_path / "a", seeds=[3])
    assert all(0 <= arm.p <= arm.p_holm <= 1 for arm in study.arms[1:])
    assert any("One seed" in warning for warning in study.warnings)
    with pytest.raises(InputError) as caught:
        ablated(source, phantoms, tmp_path / "a", seeds=[3], metric="dice_pooled", resume=True)
    assert caught.value.code == "plan" and "metric" in caught.value.what


def test_holm_counts_every_arm_in_its_order(source, phantoms, tmp_path, monkeypatch):
    """Three arms of three seeds, the smallest p in the middle; each test is on the films' mean Dice over the seeds."""
    noise = np.random.default_rng(0).integers(-3, 4, (4, 3, N))
    of_full, *of_arms = (
        [films(*(60 + shift + i % 5 + int(extra[i]) for i in range(N)), iou=0.5, hd95=1.0, nsd=0.5) for extra in own]
        for shift, own in zip((0, -1, -3, -2), noise, strict=True)
    )

    def made(arms, seeds, *_, **__):
        places = [
            folder(tmp_path / f"{arm.folder}-{seed}", cases, name=arm.folder, seed=seed)
            for arm, own in zip(arms, (of_full, *of_arms), strict=True)
            for seed, cases in zip(seeds, own, strict=True)
        ]
        runs = read_runs(places)
        return [Trained(runs[i : i + len(seeds)], {}) for i in range(0, len(runs), len(seeds))]

    monkeypatch.setattr(module, "run_arms", made)
    monkeypatch.setattr(module, "_figures", lambda runs: {})
    study = ablated(source, phantoms, tmp_path / "a", "model.width=6", seeds=[0, 1, 2])
    ps = [wilcoxon_runs(of_full, own) for own in of_arms]
    assert 0 < ps[1] < min(ps[0], ps[2]) and ps[0] != ps[2] and max(holm(ps)) < 1
    assert [arm.p for arm in study.arms] == [None, *ps]
    assert [arm.p_holm for arm in study.arms] == [None, *holm(ps)]


@pytest.mark.parametrize(
    ("extra", "options", "key"),
    [
        ((), {"smallest": 0.001}, "smallest"),
        ((), {"seeds": [0, 2]}, "seeds"),
        (("model.width=16",), {}, "arms"),
        (("train.lr=1e-4",), {}, "config.train.lr"),
    ],
)
def test_another_plan_is_refused_and_says_where_it_differs(source, phantoms, done, extra, options, key):
    _, out = done
    with pytest.raises(InputError) as caught:
        ablated(source, phantoms, out, *extra, resume=True, **options)
    assert caught.value.code == "plan" and key in caught.value.what
    with pytest.raises(InputError) as caught:
        ablated(source, phantoms, out)
    assert caught.value.code == "exists"


@pytest.mark.parametrize(
    ("overrides", "options", "code"),
    [
        ([], {}, "change"),
        (["model.width=4"], {}, "change"),
        (["model.width=8", "model.width=8"], {}, "twice"),
        (["model.widht=8"], {}, "config"),
        (["model.width=8"], {"seeds": []}, "options"),
        (["model.width=8"], {"seeds": [1, 1]}, "twice"),
        (["model.width=8"], {"metric": "dice"}, "metric"),
        (["model.width=8"], {"smallest": 0}, "options"),
        (["model.width=8"], {"smallest": float("nan")}, "options"),
        (["model.width=8"], {"split": "train"}, "split"),
        (["model.width=8"], {"split": "nowhere"}, "empty_split"),
        (["model.width=8", "train.minutes=3"], {}, "minutes"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_anything_is_written(source, phantoms, tmp_path, overrides, options, code):
    with pytest.raises(InputError) as caught:
        ablate(source, [*SMALL, *overrides], manifest=phantoms, out=tmp_path / "a", **options)
    assert caught.value.code == code and caught.value.fix
    assert not (tmp_path / "a").exists()


def test_a_folder_of_somebody_else_is_left_alone(source, phantoms, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError) as caught:
            ablated(source, phantoms, tmp_path, resume=resume)
        assert caught.value.code == "exists"
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_dev_is_a_tenth_of_the_training_films_that_no_run_sees(source, phantoms, tmp_path):
    study = ablate(source, [*SMALL, CHANGES[0]], manifest=phantoms, out=tmp_path / "a", seeds=[0], split="dev", n_boot=20)
    films = read_manifest(tmp_path / "a" / "data")
    held = {sample.id for sample in films.split("dev")}
    original = {sample.id: sample for sample in read_manifest(phantoms).samples}
    assert study.n_cases == len(held) and all(original[id].split == "train" for id in held)
    assert all(sample.image == original[sample.id].image.resolve() for sample in films.samples)
    for run in (tmp_path / "a" / "runs").iterdir():
        assert not held & set(read_json(run / "env.json", EnvFile).dev_ids)
    trained = {sample.patient for sample in films.split("train")}
    assert not trained & {sample.patient for sample in films.split("dev")}


def test_a_verdict_that_the_seeds_do_not_share_says_so(done, tmp_path):
    study, _ = done
    said = {}
    for name, second in (("same", 0.02), ("apart", -0.02)):
        arm = study.arms[1].model_copy(update={"by_seed": {0: (0.1, 0.05, 0.2), 1: (second, -0.05, 0.03)}})
        write_page(tmp_path / "p.html", study.model_copy(update={"arms": [study.arms[0], arm]}))
        said[name] = (tmp_path / "p.html").read_text().partition('class="plain verdicts"')[2].partition("</ul>")[0]
    assert "the seeds disagree on its sign" in said["apart"] and "disagree" not in said["same"]


def test_a_hostile_change_stays_text(done, tmp_path):
    study, _ = done
    bad = study.arms[1].model_copy(update={"change": "model.x=</code><script>alert(1)</script>"})
    write_page(tmp_path / "p.html", study.model_copy(update={"arms": [study.arms[0], bad], "name": "<b>x</b>"}))
    page = (tmp_path / "p.html").read_text()
    assert "<script>alert" not in page and "<b>x</b>" not in page


# ---------------------------------------------------------------- data


def test_shares_are_nested_and_keep_patients_whole(phantoms):
    samples = read_manifest(phantoms).split("train")
    small, half, whole = nested_shares(samples, "x", [0.2, 0.5, 1.0])
    assert set(small) < set(half) < set(whole) == {s.id for s in samples}
    patient = {s.id: s.patient for s in samples}
    for ids in (small, half):
        assert not {patient[id] for id in ids} & {patient[id] for id in set(patient) - set(ids)}
    assert len(half) <= round(0.5 * len(samples))
    assert nested_shares(list(reversed(samples)), "x", [0.2, 0.5, 1.0]) == [small, half, whole]
    assert nested_shares(samples, "y", [0.5, 1.0])[0] != half
    with pytest.raises(InputError) as caught:
        nested_shares(samples, "x", [0.01, 0.02])
    assert caught.value.code == "shares"


def test_each_share_trains_on_its_films_only(source, phantoms, tmp_path):
    options = {"manifest": phantoms, "out": tmp_path / "d", "shares": [1.0, 0.5], "n_boot": 20}
    study = data(source, SMALL, **options)
    assert read_json(tmp_path / "d" / "data.json", DataStudy) == study
    assert [share.share for share in study.shares] == [0.5, 1.0] and study.images == 32
    half, whole = study.shares
    assert half.gap["dice_mean"][0] == pytest.approx(half.scores["dice_mean"] - whole.scores["dice_mean"]) and not whole.gap
    with open(tmp_path / "d" / "data" / "0.5" / "manifest.csv", newline="") as file:
        splits = [row["split"] for row in csv.DictReader(file)]
    assert splits.count("train") == half.n_films < whole.n_films and "left-out" in splits
    assert splits.count("val") == study.n_cases
    assert "training films" in (tmp_path / "d" / "data.html").read_text()
    assert data(source, SMALL, **options, resume=True) == study


@pytest.mark.parametrize(
    ("shares", "overrides", "code"),
    [
        ([1.0], [], "shares"),
        ([0.0, 1.0], [], "shares"),
        ([0.5, 1.5], [], "shares"),
        ([0.5, 0.5], [], "twice"),
        ([0.5, 1], ["data.limit=9"], "limit"),
    ],
)
def test_shares_that_cannot_be_are_refused(source, phantoms, tmp_path, shares, overrides, code):
    with pytest.raises(InputError) as caught:
        data(source, [*SMALL, *overrides], manifest=phantoms, out=tmp_path / "d", shares=shares)
    assert caught.value.code == code and not (tmp_path / "d").exists()
