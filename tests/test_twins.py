"""What the text bought is told by the model's own twin: the same configuration, seed, films and schedule, with one sentence for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from reportseg.cases import CASES, write_cases
from reportseg.config import load_config
from reportseg.errors import InputError
from reportseg.models import resolve
from reportseg.runs import without_paths
from reportseg.schemas import BundleConfig, Metrics, TrainingFile, read_json, write_json
from reportseg.twins import config_sha256, read_twin, twin_sha256

ROOT = Path(__file__).parents[1]
QATA = ROOT / "results" / "qata"
SHA = "a" * 64


def training(*overrides, recipe="tgcnet_qata_small", **fields) -> TrainingFile:
    config = resolve(load_config(recipe, ["train.precision=fp32", *overrides]))
    known = {"images": config.train.images, "steps": 1, "seconds": 1, "seed": config.seed, "config": without_paths(config)}
    return TrainingFile(**(known | fields))


def bundle(**fields) -> BundleConfig:
    values = read_json(ROOT / "weights" / "tgcnet-qata" / "config.json", BundleConfig).model_dump()
    return BundleConfig.model_validate(values | fields)


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


def test_the_published_twin_is_the_shipped_configuration_with_one_sentence_and_the_published_unet_is_not():
    """Made before twins had a hash of their own, in fp32, which was quicker where it was trained."""
    shipped = read_json(ROOT / "weights" / "tgcnet-qata" / "training.json", TrainingFile)
    published = {
        name: read_json(QATA / name / "metrics.json", Metrics) for name in ("tgcnet_qata_small", "tgcnet_qata_small-twin", "unet_width16")
    }
    config = {section: dict(values) if isinstance(values, dict) else values for section, values in shipped.config.items()}
    assert config_sha256(shipped) == published["tgcnet_qata_small"].config_sha256
    config["data"] |= {"text": "constant", "negatives": 0.0}
    config["model"] |= {"presence": False}
    config["train"] |= {"precision": "fp32"}
    twin = shipped.model_copy(update={"config": config})
    assert config_sha256(twin) == published["tgcnet_qata_small-twin"].config_sha256 != published["unet_width16"].config_sha256
    assert twin_sha256(twin, bundle()) == twin_sha256(shipped, bundle())
