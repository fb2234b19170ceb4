"""What the text bought is told by the model's own twin: the same configuration, seed, films and schedule, with one sentence for all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from reportseg.cases import CASES, write_cases
from reportseg.config import load_config
from reportseg.errors import InputError
from reportseg.models import resolve
from reportseg.runs import without_paths
from reportseg.schemas.base import read_json, write_json
from reportseg.schemas.bundle import BundleConfig
from reportseg.schemas.metrics import Metrics
from reportseg.schemas.training import TrainingFile
from reportseg.twins import config_sha256, parent_twin, read_twin, twin_sha256

ROOT = Path(__file__).parents[1]
QATA = ROOT / "results" / "qata"
SHA = "a" * 64


def training(*overrides, recipe="tgcnet_qata_small", **fields) -> TrainingFile:
    config = resolve(load_config(recipe, ["train.precision=fp32", *overrides]))
    known = {"images": config.train.images, "steps": 1, "seconds": 1, "seed": config.seed, "config": without_paths(config)}
    return TrainingFile(**(known | fields))


def bundle(**fields) -> BundleConfig:
    values = read_json(ROOT / "weights" / "tgcnet-qata" / "config.json", BundleConfig).model_dump()
    return BundleConfig.model_validate(values | {"parent": None} | fields)


def evaluation(folder: Path, of: TrainingFile, config: BundleConfig | None = None, **fields) -> Path:
    """As `evaluate` leaves it, without a case."""
    config = config or bundle()
    known = read_json(QATA / "tgcnet_qata_small-twin" / "metrics.json", Metrics)
    told = {"seed": of.seed, "config_sha256": config_sha256(of, config.parent), "twin_sha256": twin_sha256(of, config)}
    folder.mkdir()
    write_json(folder / "metrics.json", known.model_copy(update=told | {"name": of.config["name"]} | fields))
    write_cases(folder / CASES, [])
    return folder


def read(folder: Path, of: TrainingFile, config: BundleConfig | None = None, flips: bool = False) -> Metrics:
    config = config or bundle()
    sha = read_json(folder / "metrics.json", Metrics).cases_sha256
    return read_twin(folder, sha, set(), of, config, config.decision.model_copy(update={"flips": flips}))[0]


TWIN = ["data.text=constant"]


@pytest.mark.parametrize(
    ("model", "twin"),
    [
        ([], []),
        (["data.negatives=0.15"], []),
        (["train.text_steps=0"], ["train.text_steps=400"]),
        (["train.text_steps=400"], ["train.text_steps=0"]),
        (
            [],
            [
                "name=twin",
                "train.workers=4",
                "train.checkpoint_minutes=1",
                "data.text_dropout=0",
                "train.precision=bf16",
                "eval.controls=[]",
            ],
        ),
        (["train.minutes=30", "train.images=9000"], ["train.images=9000"]),
        (["seed=3", "train.lr=3e-4"], ["seed=3", "train.lr=3e-4"]),
    ],
)
def test_the_same_configuration_with_one_sentence_is_the_twin(tmp_path, model, twin):
    folder = evaluation(tmp_path / "twin", training(*TWIN, *twin))
    assert read(folder, training(*model)).text == "constant"


OTHERS = {
    "a U-Net": (training(recipe="unet_qata_small"), {}),
    "rate": (training(*TWIN, "train.lr=3e-4"), {}),
    "images": (training(*TWIN, "train.images=9000"), {}),
    "cut short": (training(*TWIN, images=9000), {}),
    "seed": (training(*TWIN, "seed=1"), {}),
    "size": (training(*TWIN, "data.size_px=112"), {}),
    "a module": (training(*TWIN, "model.vlcm.enabled=false"), {}),
    "teacher": (training(*TWIN, teacher=[SHA]), {}),
    "parent": (training(*TWIN), {"parent": SHA}),
    "films": (training(*TWIN), {"trained_on": [{"name": "qata", "licence": "", "split_sha256": SHA}]}),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_model_is_refused_with_the_command_that_trains_the_twin(tmp_path, other):
    of, fields = OTHERS[other]
    with pytest.raises(InputError) as caught:
        read(evaluation(tmp_path / "other", of, bundle(**fields)), training())
    assert caught.value.code == "twin"
    command = "reportseg train tgcnet_qata_small -s data.text=constant -s seed=0 -s train.images=110000 -s train.precision=fp32"
    assert command in caught.value.fix


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"text": "text"}, "read the column text"),
        ({"bundle_sha256": None}, "scored masks"),
        ({"ensemble": [SHA]}, "ensemble"),
        ({"twin_sha256": None}, "evaluate that bundle again"),
    ],
)
def test_what_is_no_evaluation_of_one_constant_bundle_is_refused(tmp_path, fields, says):
    with pytest.raises(InputError, match=says) as caught:
        read(evaluation(tmp_path / "other", training(*TWIN), **fields), training())
    assert caught.value.code == "twin"


def test_both_answer_with_flips_or_both_without(tmp_path):
    folder = evaluation(tmp_path / "twin", training(*TWIN))
    with pytest.raises(InputError, match="--flips") as caught:
        read(folder, training(), flips=True)
    assert caught.value.code == "twin"


def test_a_bundle_that_does_not_tell_its_configuration_has_no_twin(tmp_path):
    bare = TrainingFile(images=1, steps=1, seconds=1)
    assert (
        twin_sha256(bare, bundle()) is None and twin_sha256(bare.model_copy(update={"config": {"model": {"name": "x"}}}), bundle()) is None
    )
    with pytest.raises(InputError) as caught:
        read(evaluation(tmp_path / "twin", bare.model_copy(update={"config": {"name": "x"}})), bare)
    assert caught.value.code == "twin" and "CONFIG" in caught.value.fix


def test_a_key_that_came_later_leaves_the_hash_as_it_was():
    whole = training()
    older = {section: dict(values) if isinstance(values, dict) else values for section, values in whole.config.items()}
    for section, key in (("train", "lovasz"), ("data", "teacher_weight"), ("model", "presence")):
        del older[section][key]
    assert twin_sha256(whole.model_copy(update={"config": older}), bundle()) == twin_sha256(whole, bundle())


def test_seeds_from_before_a_key_group_with_those_that_have_it_at_its_default():
    whole = training("train.text_steps=0")
    older = whole.config | {"train": {key: value for key, value in whole.config["train"].items() if key not in ("lovasz", "text_steps")}}
    assert config_sha256(whole.model_copy(update={"config": older})) == config_sha256(whole) != config_sha256(training())


def test_what_no_result_depends_on_parts_no_seeds():
    """And leaves the hash of those that have it at its default, or that do not tell it, as it was."""
    plain, other = training(), training("train.workers=4", "train.checkpoint_minutes=1")
    assert config_sha256(other) == config_sha256(plain) != config_sha256(training("train.precision=bf16"))
    assert other.config["train"]["workers"] == 4, "it is hashed at its default, and stays in the configuration"
    told = {"name": "t", "train": {"lr": 0.1}}
    asked = hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert config_sha256(plain.model_copy(update={"config": told})) == asked


def test_another_tower_at_the_same_path_makes_no_twin_and_none_leaves_the_hash_as_it_was(tmp_path):
    def on(sha256):
        return bundle(base={"text": {"id": "towers/bert", "sha256": sha256}})

    of, twin = training("model.text.source=towers/bert"), training(*TWIN, "model.text.source=towers/bert")
    assert read(evaluation(tmp_path / "same", twin, on(SHA)), of, on(SHA)).text == "constant"
    with pytest.raises(InputError, match="architecture") as caught:
        read(evaluation(tmp_path / "other", twin, on("b" * 64)), of, on(SHA))
    assert caught.value.code == "twin"
    assert twin_sha256(of, on(None)) == twin_sha256(of, bundle())


# ---- models that went on from a bundle

NEXT = ["train.lr=3e-4"]  # of the second training


def went_on(parent: TrainingFile, *overrides, of: BundleConfig | None = None, **fields) -> TrainingFile:
    """The second training, as `train` notes it where `parent` is at train.init."""
    reads = parent.config["data"]["text"] != "constant"
    after = training(*NEXT, *overrides)
    known = parent_twin(parent, of or bundle(), reads=reads, constant=after.config["data"]["text"] == "constant")
    return after.model_copy(update={"parent_twin": known} | fields)


ONE, ONE_TWIN = "1" * 64, "2" * 64  # hashes of the two parents


def test_the_twin_of_a_model_that_went_on_went_on_from_the_twin_of_its_parent(tmp_path):
    model, twin = went_on(training()), went_on(training(*TWIN, "train.precision=bf16"), *TWIN)
    folder = evaluation(tmp_path / "twin", twin, bundle(parent=ONE_TWIN))
    assert read(folder, model, bundle(parent=ONE)).text == "constant"


def test_so_it_is_through_all_parents(tmp_path):
    model, twin = training(), training(*TWIN)
    for step in range(3):
        above = bundle(parent=ONE if step else None), bundle(parent=ONE_TWIN if step else None)
        model, twin = went_on(model, of=above[0]), went_on(twin, *TWIN, of=above[1])
    assert twin_sha256(model, bundle(parent=ONE)) == twin_sha256(twin, bundle(parent=ONE_TWIN))
    cut = went_on(went_on(training(*TWIN), *TWIN), *TWIN, of=bundle(parent=ONE_TWIN))
    assert twin_sha256(model, bundle(parent=ONE)) != twin_sha256(cut, bundle(parent=ONE_TWIN)), "a parent less"


FALSE_TWINS = {
    "of the reading parent": (went_on(training(), *TWIN), ONE),
    "through a reading grandparent": (went_on(went_on(training(), *TWIN), *TWIN, of=bundle(parent=ONE)), ONE_TWIN),
    "of another parent": (went_on(training(*TWIN, "train.images=9000"), *TWIN), ONE_TWIN),
    "of a parent with another seed": (went_on(training(*TWIN, "seed=1"), *TWIN), ONE_TWIN),
    "of no parent": (training(*TWIN, *NEXT), None),
}


@pytest.mark.parametrize("other", FALSE_TWINS)
def test_a_twin_of_other_parents_is_refused_with_the_command(tmp_path, other):
    of, parent = FALSE_TWINS[other]
    with pytest.raises(InputError, match="parent are others") as caught:
        read(evaluation(tmp_path / "other", of, bundle(parent=parent)), went_on(training()), bundle(parent=ONE))
    assert caught.value.code == "twin" and "-s train.init=TWIN_OF_THE_PARENT" in caught.value.fix


def test_what_begins_text_free_and_then_reads_has_the_twin_that_goes_on_without_reading():
    first = training(*TWIN)
    assert twin_sha256(went_on(first), bundle(parent=ONE)) == twin_sha256(went_on(first, *TWIN), bundle(parent=ONE))


def test_a_bundle_that_does_not_tell_its_parents_twin_is_held_to_the_parent_itself(tmp_path):
    """One from an earlier version, or whose parent does not tell its configuration."""
    model, twin = training(*NEXT), training(*TWIN, *NEXT)
    assert read(evaluation(tmp_path / "same", twin, bundle(parent=ONE)), model, bundle(parent=ONE)).text == "constant"
    with pytest.raises(InputError) as caught:
        read(evaluation(tmp_path / "other", twin, bundle(parent=ONE_TWIN)), model, bundle(parent=ONE))
    assert caught.value.code == "twin" and "-s train.init=PARENT" in caught.value.fix
    bare = TrainingFile(images=1, steps=1, seconds=1)
    assert parent_twin(bare, bundle(), reads=True, constant=False) is None


# ---- what is published


def test_the_published_twin_is_the_published_configuration_with_one_sentence_and_the_published_unet_is_not():
    """Made before twins had a hash of their own and before sentences were placed; the model is from before `presence`, and each was trained
    in the quicker precision.
    """
    published = {
        name: read_json(QATA / name / "metrics.json", Metrics) for name in ("tgcnet_qata_small", "tgcnet_qata_small-twin", "unet_width16")
    }
    model, twin = training("train.precision=bf16", "train.text_steps=0"), training(*TWIN, "train.text_steps=0")
    del model.config["model"]["presence"]
    assert config_sha256(model) == published["tgcnet_qata_small"].config_sha256
    assert config_sha256(twin) == published["tgcnet_qata_small-twin"].config_sha256 != published["unet_width16"].config_sha256
    assert twin_sha256(twin, bundle()) == twin_sha256(model, bundle())


@pytest.mark.parametrize("name", sorted(path.parent.name for path in (ROOT / "weights").glob("*/training.json")))
def test_a_published_bundle_has_a_twin_whether_it_went_on_from_a_parent_or_not(name):
    shipped = read_json(ROOT / "weights" / name / "training.json", TrainingFile)
    card = read_json(ROOT / "weights" / name / "config.json", BundleConfig)
    config = shipped.config | {"data": shipped.config["data"] | {"text": "constant", "negatives": 0.0}}
    twin, theirs = shipped.model_copy(update={"config": config}), card.model_copy(update={"presence": False})
    assert twin_sha256(shipped, card) == twin_sha256(twin, theirs) is not None
