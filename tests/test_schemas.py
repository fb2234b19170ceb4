"""Every file that we write has a schema, and a file that does not fit is refused by key."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from reportseg.errors import InputError
from reportseg.schemas.base import load_json, parse, read_json, to_json, write_json
from reportseg.schemas.bundle import BundleConfig, DecisionConfig
from reportseg.schemas.data import DatasetFile
from reportseg.schemas.files import CSV_COLUMNS, FILES, all_schemas
from reportseg.schemas.knowledge import BankFile
from reportseg.schemas.metrics import Metrics
from reportseg.schemas.prediction import PredictionFile
from reportseg.schemas.training import TrainingFile
from reportseg.types import INTENDED_USE

SHA = "0" * 64
DECISION = {"rule": "fixed", "threshold": 0.4, "temperature": 1.1}
SCORES = {"dice_pooled": 0.87, "iou_pooled": 0.77, "dice_mean": 0.8, "iou_mean": 0.7}
METRICS = SCORES | {
    "command": "reportseg evaluate b m --split val -o e",
    "bundle_sha256": SHA,
    "seed": 0,
    "cases_sha256": SHA,
    "split": "val",
    "n_cases": 2,
    "n_patients": 1,
    "decision": DECISION,
    "text": "text",
    "hd95_unit": "px",
    "nsd_tolerance": 2,
    "counts": {"failed": 1},
    "ci95": {"dice_pooled": [0.8, 0.9]},
    "controls": {"shuffled": SCORES | {"n_changed": 2}},
    "subsets": {"sub": SCORES | {"n_cases": 1}},
    "twin": {"bundle_sha256": SHA, "difference": {"dice_pooled": [0.05, 0.04, 0.06]}},
}
BUNDLE = {
    "model_type": "tgcnet",
    "model": {"preset": "tiny"},
    "preprocess": {"size_px": 224, "mean": [0.5] * 3, "std": [0.25] * 3},
    "text": {"laterality": "image", "max_tokens": 77},
    "decision": DECISION,
    "licence": "Apache-2.0",
    "files": {"model.safetensors": SHA},
}
PREDICTION = {"id": "a", "bundle_sha256": SHA, "area_px": 3, "laterality": "image", "decision": DECISION, "engine": "torch-cpu"}


def refused(data, model) -> InputError:
    with pytest.raises(InputError) as caught:
        parse(data, model, "file.json")
    assert caught.value.where == "file.json"
    return caught.value


@pytest.mark.parametrize("name", FILES)
def test_every_field_of_every_file_is_described(name):
    schema = FILES[name].model_json_schema()
    for part in [schema, *schema.get("$defs", {}).values()]:
        assert part["additionalProperties"] is False
        for key, field in part["properties"].items():
            assert field.get("description"), f"{part['title']}.{key}"


def test_the_schemas_of_all_files_are_plain_json():
    assert set(json.loads(json.dumps(all_schemas()))) == {*FILES, *CSV_COLUMNS}


def test_metrics_have_the_keys_that_other_programs_read():
    written = json.loads(to_json(parse(METRICS, Metrics)))
    promised = """schema command bundle_sha256 config_sha256 seed cases_sha256 split n_cases n_patients decision text dice_pooled iou_pooled
    dice_mean iou_mean hd95 hd95_unit nsd nsd_tolerance ece ece_border presence_auroc absent_correct empty_policy counts ci95 ci controls
    subsets twin images_per_s"""
    assert set(promised.split()) <= set(written)
    assert set(written["counts"]) == {"both_empty", "truth_only", "pred_only", "failed"}
    assert written["schema"] == 1 and written["hd95"] is None


def test_scores_are_fractions_never_percent():
    assert "dice_pooled" in str(refused(METRICS | {"dice_pooled": 86.75}, Metrics))
    assert "controls.shuffled.iou_mean" in str(
        refused(METRICS | {"controls": {"shuffled": SCORES | {"n_changed": 1, "iou_mean": 70}}}, Metrics)
    )


def test_nan_is_refused_where_it_is_made_and_where_it_is_written():
    with pytest.raises(ValidationError):
        Metrics.model_validate(METRICS | {"hd95": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json(parse(BUNDLE | {"model": {"lr": float("nan")}}, BundleConfig))


def test_what_is_written_is_read_back_and_written_alike(tmp_path):
    for data, model in ((METRICS, Metrics), (BUNDLE, BundleConfig), (PREDICTION, PredictionFile)):
        one, two = tmp_path / "1.json", tmp_path / "2.json"
        write_json(one, parse(data, model))
        write_json(two, read_json(one, model))
        assert one.read_bytes() == two.read_bytes()
        assert one.read_text().endswith("}\n") and list(json.loads(one.read_text())) == sorted(json.loads(one.read_text()))


def test_letters_of_all_languages_stay_readable(tmp_path):
    write_json(tmp_path / "d.json", DatasetFile(name="رئة"))
    assert "رئة" in (tmp_path / "d.json").read_text(encoding="utf-8")


def test_the_intended_use_stands_in_what_goes_out():
    for data, model in ((METRICS, Metrics), (BUNDLE, BundleConfig), (PREDICTION, PredictionFile)):
        assert json.loads(to_json(parse(data, model)))["intended_use"] == INTENDED_USE


def test_presence_without_a_trained_head_is_said_to_be_unavailable():
    assert parse(PREDICTION, PredictionFile).presence == "unavailable"
    assert parse(PREDICTION | {"presence": None}, PredictionFile).presence == "unavailable"
    assert parse(PREDICTION | {"presence": 0.2}, PredictionFile).presence == 0.2


def test_a_contract_cannot_be_changed_in_place():
    decision = DecisionConfig(**DECISION)
    with pytest.raises(ValidationError):
        decision.threshold = 0.9  # type: ignore[misc]


def test_an_unknown_key_names_the_nearest_legal_one():
    error = refused(BUNDLE | {"decison": DECISION}, BundleConfig)
    assert error.code == "bad_field" and "did you mean decision?" in error.what


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"threshold": 0.5}, "threshold: unknown key"),  # legal elsewhere; to name it again would help nobody
        ({"decision": DECISION | {"licence": "x"}}, "decision.licence: unknown key"),
        ({"decision": DECISION | {"treshold": 1}}, "decision.treshold: unknown key (did you mean threshold?)"),
        (
            {"trained_on": [{"name": "a", "licence": "", "split_sha256": SHA, "nam": ""}]},
            "trained_on.0.nam: unknown key (did you mean name?)",
        ),
    ],
)
def test_a_suggestion_is_a_key_that_is_legal_in_that_place(change, says):
    assert refused(BUNDLE | change, BundleConfig).what == says


def test_a_suggestion_is_spelt_as_in_the_file():
    assert "did you mean schema?" in refused(PREDICTION | {"schem": 1}, PredictionFile).what
    changed = METRICS | {"controls": {"shuffled": SCORES | {"n_changed": 2, "n_change": 2}}}
    assert "controls.shuffled.n_change: unknown key (did you mean n_changed?)" in refused(changed, Metrics).what


def test_all_faults_are_told_at_once():
    text = str(refused({"model_type": 3, "files": {"a": "not a hash"}}, BundleConfig))
    for key in ("model_type", "model: missing", "files.a", "licence: missing"):
        assert key in text


def test_a_curve_has_at_most_200_points():
    point = {"images": 1, "steps": 1, "seconds": 1.0}
    parse(point | {"curves": {"loss": [[i, 0.5] for i in range(200)]}}, TrainingFile)
    refused(point | {"curves": {"loss": [[i, 0.5] for i in range(201)]}}, TrainingFile)


def test_a_bank_names_the_statement_that_is_wrong():
    good = {"concept": "opacity", "kind": "appearance", "statement": "An opacity is white.", "date": "2026-11-23"}
    parse({"name": "chest", "statements": [good]}, BankFile)
    assert "statements.1.concept" in str(refused({"name": "chest", "statements": [good, {"kind": "x", "statement": "y"}]}, BankFile))
    refused({"name": "chest", "statements": [good | {"date": "yesterday"}]}, BankFile)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"{", "bad_json"),
        (b"\xff\xfe\x00", "bad_json"),
        (b'{"name": NaN}', "bad_json"),
        (b'{"name": ' + b"9" * 5000 + b"}", "bad_json"),
        (b"[" * 200 + b"]" * 200, "too_deep"),
        (b"[" * 200_000, "too_deep"),
        (b'{"a":' * 200_000, "too_deep"),
        (b"[]", "bad_field"),
    ],
)
def test_hostile_json_is_refused_with_its_name(tmp_path, content, code):
    file = tmp_path / "dataset.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"dataset\.json") as caught:
        read_json(file, DatasetFile)
    assert caught.value.code == code


def test_a_file_too_large_is_not_read(tmp_path):
    file = tmp_path / "big.json"
    with open(file, "wb") as f:
        f.truncate(65 * 2**20)
    with pytest.raises(InputError) as caught:
        load_json(file)
    assert caught.value.code == "too_large_file"


def test_a_byte_order_mark_does_no_harm(tmp_path):
    (tmp_path / "d.json").write_bytes(b'\xef\xbb\xbf{"name": "x"}')
    assert read_json(tmp_path / "d.json", DatasetFile).name == "x"
