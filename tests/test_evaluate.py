"""What an evaluation promises, with a segmenter of a few lines that paints what it is told."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest

import tiny
from reportseg.cases import read_cases, write_cases
from reportseg.config import parse_config
from reportseg.data.manifest import read_manifest, write_manifest
from reportseg.data.splits import draw_dev, split_sha256
from reportseg.errors import InputError
from reportseg.evaluate import control_texts, evaluate
from reportseg.io import image_from_array, read_image
from reportseg.io.png import PREDICTION_RGB, TRUTH_RGB
from reportseg.metrics import cases_sha256, score_case
from reportseg.models import section_sha256
from reportseg.pictures import choose, overlay_png
from reportseg.predict import Question, Segmenter, predict_files
from reportseg.runs import prepare
from reportseg.schemas.base import read_json, write_json
from reportseg.schemas.bundle import Base, DecisionConfig, TrainedOn
from reportseg.schemas.data import DatasetFile
from reportseg.schemas.files import CSV_COLUMNS
from reportseg.schemas.metrics import Metrics
from reportseg.schemas.training import TrainingFile
from reportseg.text import CONSTANT
from reportseg.types import INTENDED_USE, Prediction

SIZE = 32
LEFT, RIGHT = "opacity in the left lung", "opacity in the right lung"


class Painter:
    """Paints the half of the film that the text names, both for no side; presence is the share of the film that is painted."""

    sha256, ensemble = "a" * 64, ()

    def __init__(self, folder, *, reads_text=True, config=None, trained_on=()):
        training = TrainingFile(
            images=1, steps=1, seconds=1, seed=7, config=config if config is not None else {"seed": 7, "name": "painter"}
        )
        write_json(folder / "training.json", training)
        self.rule = DecisionConfig(rule="fixed", threshold=0.5, temperature=1)
        self.bundles = [
            SimpleNamespace(
                path=folder,
                model=SimpleNamespace(reads_text=reads_text),
                config=SimpleNamespace(trained_on=trained_on, parent=None, base=Base()),
            )
        ]
        self.encoded, self.asked = [], []

    def read(self, source):
        return read_image(source)

    def ask(self, text, laterality=None, implied=None):
        if "unturnable" in text:
            raise InputError("the side word cannot be turned", "text", "Word it anew.", "side_word")
        return Question(text, (text,), laterality or "image")

    def encode_images(self, images):
        self.encoded.append(len(images))
        return list(images)

    def answer_each(self, encoded, questions, ids, started=None, *, examine=False):
        return self.answer(encoded, questions, ids, started, examine=examine)

    def answer(self, encoded, questions, ids, started=None, *, examine=False):
        assert len(encoded) == len(questions) == len(ids)
        out = []
        for image, question, id in zip(encoded, questions, ids, strict=True):
            self.asked.append((id, question.text, question.laterality))
            prob = np.full(image.geometry.shape, 0.1, np.float32)
            half = image.geometry.shape[1] // 2
            prob[:, {True: slice(0, half), False: slice(half, None)}["left" in question.text]] = 0.9
            if "left" not in question.text and "right" not in question.text:
                prob[:] = 0.9
            warnings = () if question.text else ("empty_text",)
            mask = prob >= 0.5
            out.append(
                Prediction(
                    id,
                    mask,
                    prob,
                    image.geometry,
                    question.text,
                    float(mask.mean()),
                    None,
                    "image",
                    {},
                    "fake",
                    self.sha256,
                    warnings,
                    uncertainty=0.1 * len(id),
                    raw_HW=np.sqrt(prob) if examine else None,
                )
            )
        return out


def make_data(folder, rows, *, laterality="image"):
    """Rows of (text, true side or None for no target, extra columns); films are gray ramps of SIZE x SIZE."""
    folder.mkdir(parents=True, exist_ok=True)
    table = []
    for i, (text, side, extra) in enumerate(rows):
        truth = np.zeros((SIZE, SIZE), np.uint8)
        if side:
            truth[8:24, slice(4, 16) if side == "left" else slice(16, 28)] = 255
        PIL.Image.fromarray(truth).save(folder / f"mask{i}.png")
        PIL.Image.fromarray(np.full((SIZE, SIZE), 8 * i % 256, np.uint8)).save(folder / f"film{i}.png")
        row = {"id": f"c{i}", "image": f"film{i}.png", "mask": f"mask{i}.png", "text": text, "split": "test", "patient": f"p{i // 2}"}
        table.append(row | {"present": "1" if side else "0"} | extra)
    columns = {key for row in table for key in row}
    return write_manifest(
        folder, [{key: row.get(key, "") for key in columns} for row in table], DatasetFile(name="ramps", laterality=laterality)
    )


@pytest.fixture
def data(tmp_path):
    rows = [(LEFT if i % 2 else RIGHT, "left" if i % 2 else "right", {}) for i in range(8)]
    return make_data(tmp_path / "data", rows)


@pytest.fixture
def painter(tmp_path):
    return painter_in(tmp_path / "bundle")


def painter_in(folder, **options):
    folder.mkdir()
    return Painter(folder, **options)


def run(bundle, manifest, out, **options):
    return evaluate(bundle, manifest, out=out, **({"n_boot": 50, "images": False, "command": "reportseg evaluate ..."} | options))


# ---------------------------------------------------------------- the files


def test_three_files_that_agree(painter, data, tmp_path):
    out = tmp_path / "eval"
    metrics = run(painter, data, out, command="reportseg evaluate bundle data")
    assert sorted(f.name for f in out.iterdir()) == ["cases.csv", "metrics.json", "report.html"]
    assert read_json(out / "metrics.json", Metrics) == metrics
    cases = read_cases(out / "cases.csv")
    assert [case.id for case in cases] == [f"c{i}" for i in range(8)]
    assert np.mean([case.dice for case in cases]) == metrics.dice_mean
    assert (metrics.n_cases, metrics.n_patients, metrics.ci.clusters, metrics.ci.n_boot) == (8, 4, 4, 50)
    assert (metrics.split, metrics.text, metrics.seed, metrics.bundle_sha256) == ("test", "text", 7, "a" * 64)
    assert metrics.command == "reportseg evaluate bundle data"
    assert metrics.name == "painter"
    assert metrics.decision.threshold == 0.5
    assert metrics.dice_pooled == metrics.dice_mean == pytest.approx(2 * 192 / (192 + 512))
    assert metrics.ci95["dice_mean"] == pytest.approx((metrics.dice_mean, metrics.dice_mean))
    assert metrics.ece == pytest.approx((0.1 * 512 + (0.9 - 192 / 512) * 512) / 1024, abs=1e-6)
    assert metrics.images_per_s > 0
    assert metrics.intended_use == INTENDED_USE
    assert INTENDED_USE in (out / "report.html").read_text()


def test_neither_text_nor_path_is_in_the_table(painter, data, tmp_path):
    run(painter, data, tmp_path / "eval")
    table = (tmp_path / "eval" / "cases.csv").read_text()
    assert tuple(next(csv.reader(io.StringIO(table)))) == CSV_COLUMNS["cases.csv"]
    assert "opacity" not in table
    assert str(tmp_path) not in table


def test_an_evaluation_is_not_replaced_unless_asked(painter, data, tmp_path):
    run(painter, data, tmp_path / "eval")
    with pytest.raises(InputError) as caught:
        run(painter, data, tmp_path / "eval")
    assert caught.value.code == "exists"
    assert run(painter, data, tmp_path / "eval", overwrite=True, limit=2).n_cases == 2
    assert read_json(tmp_path / "eval" / "metrics.json", Metrics).n_cases == 2


def test_nothing_of_a_replaced_evaluation_stays(painter, data, tmp_path):
    """A mask of a case that fails now would pass for its answer, a table of volumes for that of these films. Files of others are left."""
    sliced = [(LEFT, "left", {"study": "a", "slice": str(i)}) for i in range(4)]
    out = tmp_path / "eval"
    run(painter, make_data(tmp_path / "slices", sliced), out, save_masks=True)
    (out / "masks" / "mine.png").write_bytes(b"mine")
    (out / "masks" / "c1.txt").write_text("mine")
    (tmp_path / "data" / "film1.png").write_bytes(b"not a film")
    run(painter, data, out, save_masks=True, overwrite=True, limit=3)
    assert {file.name for file in (out / "masks").iterdir()} == {"c0.png", "c2.png", "mine.png", "c1.txt"}
    assert not (out / "volumes.csv").exists() and (out / "failures.csv").exists()
    run(painter, data, out, overwrite=True)  # saves none, and removes none: somebody may have mended them
    assert {file.name for file in (out / "masks").iterdir()} == {"c0.png", "c2.png", "mine.png", "c1.txt"}


def test_an_evaluation_stays_until_another_has_something_to_write_and_is_none_where_that_broke_off(painter, data, tmp_path):
    out, film = tmp_path / "eval", tmp_path / "data" / "film0.png"
    run(painter, data, out, save_masks=True)
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    readable = film.read_bytes()
    film.write_bytes(b"")
    with pytest.raises(InputError, match="none of the 1 cases"):
        run(painter, data, out, save_masks=True, overwrite=True, limit=1)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before
    film.write_bytes(readable)

    def stop(done, of):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(painter, data, out, save_masks=True, overwrite=True, batch=2, progress=stop)
    assert not (out / "metrics.json").exists() and {file.name for file in (out / "masks").iterdir()} == {"c0.png", "c1.png"}


def test_masks_that_are_scored_where_they_were_saved_stay_there(painter, data, tmp_path):
    own = run(painter, data, tmp_path / "eval", save_masks=True)
    again = run(None, data, tmp_path / "eval", masks=tmp_path / "eval" / "masks", overwrite=True)
    assert again.dice_mean == own.dice_mean and len(list((tmp_path / "eval" / "masks").iterdir())) == 8
    run(painter, data, tmp_path / "eval", overwrite=True)  # reads none of them
    assert len(list((tmp_path / "eval" / "masks").iterdir())) == 8


def test_an_output_that_cannot_be_made_is_refused_before_the_work(painter, data, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError) as caught:
        run(painter, data, tmp_path / "file" / "eval")
    assert caught.value.code == "unwritable"
    assert painter.encoded == []


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(painter, data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "masks").write_text("x")
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0o555)
    root = os.access(tmp_path / "closed", os.W_OK)  # who is held by no mode, and makes no file in /proc either
    for out, options in (
        (tmp_path / "mine", {"save_masks": True}),
        (Path("/proc") if root else tmp_path / "closed", {}),
    ):
        with pytest.raises(InputError) as caught:
            run(painter, data, out, **options)
        assert caught.value.code == "unwritable" and str(out) in caught.value.where
        assert painter.encoded == []


def test_the_hash_of_the_cases_is_that_of_ids_and_true_masks(painter, data, tmp_path):
    truths = [(f"c{i}", np.asarray(PIL.Image.open(tmp_path / "data" / f"mask{i}.png")) > 0) for i in range(8)]
    assert run(painter, data, tmp_path / "eval").cases_sha256 == cases_sha256(truths)


def test_seeds_of_one_configuration_have_one_hash(data, tmp_path):
    hashes = {}
    for name, config in {
        "a": {"seed": 1, "x": {"y": 2}},
        "b": {"seed": 2, "x": {"y": 2}},
        "c": {"seed": 1, "x": {"y": 3}},
        "d": {},
    }.items():
        hashes[name] = run(painter_in(tmp_path / name, config=config), data, tmp_path / f"eval-{name}").config_sha256
    assert hashes["a"] == hashes["b"] != hashes["c"]
    assert hashes["d"] is None


def test_a_model_section_has_a_hash_where_the_training_tells_it(data, tmp_path):
    for name, model in {"told": {"name": "unet", "width": 8}, "not": None, "wrong": {"name": "unet", "depth": 3}}.items():
        config = {"name": "mine"} | ({"model": model} if model else {})
        told = run(painter_in(tmp_path / name, config=config), data, tmp_path / f"eval-{name}").model_sha256
        assert told == (section_sha256({"name": "unet", "width": 8}) if name == "told" else None), name


def test_every_bundle_of_an_ensemble_is_listed(painter, data, tmp_path):
    painter.ensemble, painter.bundles = ("b" * 64,), painter.bundles * 2
    metrics = run(painter, data, tmp_path / "eval")
    assert (metrics.bundle_sha256, metrics.ensemble) == ("a" * 64, ["b" * 64])


def test_progress_and_limit(painter, data, tmp_path):
    seen = []
    metrics = run(painter, data, tmp_path / "eval", limit=5, batch=2, progress=lambda done, of: seen.append((done, of)))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert metrics.n_cases == 5
    assert "Only the first 5 of the 8 cases" in " ".join(metrics.warnings)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_one_case_or_more(painter, data, tmp_path, limit):
    with pytest.raises(InputError, match="--limit") as caught:
        run(painter, data, tmp_path / "eval", limit=limit)
    assert caught.value.code == "options" and not (tmp_path / "eval").exists()


def test_the_split_must_exist(painter, data, tmp_path):
    with pytest.raises(InputError, match="test") as caught:
        run(painter, data, tmp_path / "eval", split="val")
    assert caught.value.code == "empty_split"


def test_the_text_comes_from_the_column_that_was_named(painter, tmp_path):
    rows = [(LEFT, "right", {"better": RIGHT}), (RIGHT, "left", {"better": LEFT})]
    manifest = make_data(tmp_path / "data", rows)
    assert run(painter, manifest, tmp_path / "a").dice_mean == 0
    metrics = run(painter, manifest, tmp_path / "b", text_column="better")
    assert metrics.dice_mean > 0.5
    assert metrics.text == "better"
    assert {case.text_name for case in read_cases(tmp_path / "b")} == {"better"}


def test_distances_are_in_mm_only_where_every_row_has_a_spacing(painter, tmp_path):
    rows = [(LEFT, "left", {"spacing_mm": "0.5 0.5"}), (RIGHT, "right", {"spacing_mm": "0.5 0.5"})]
    mm = run(painter, make_data(tmp_path / "mm", rows), tmp_path / "a")
    px = run(painter, make_data(tmp_path / "px", [rows[0], (RIGHT, "right", {})]), tmp_path / "b")
    assert (mm.hd95_unit, px.hd95_unit) == ("mm", "px")
    assert mm.hd95 == pytest.approx(px.hd95 / 2)
    assert any("in 1 of 2 rows only" in warning for warning in px.warnings)


def test_a_prediction_is_brought_to_the_grid_of_the_true_mask(painter, tmp_path):
    manifest = make_data(tmp_path / "data", [(LEFT, "left", {}), (RIGHT, "right", {})])
    PIL.Image.open(tmp_path / "data" / "mask0.png").resize((64, 48), 0).save(tmp_path / "data" / "mask0.png")
    metrics = run(painter, manifest, tmp_path / "eval")
    assert read_cases(tmp_path / "eval")[0].area_px == 48 * 32
    assert any("another grid than their film: 1 of 2" in warning for warning in metrics.warnings)


def test_the_conventions_of_the_rows_reach_the_segmenter(painter, tmp_path):
    rows = [(LEFT, "left", {"laterality": "patient"}), (RIGHT, "right", {"laterality": "image"})]
    run(painter, make_data(tmp_path / "data", rows), tmp_path / "eval", controls=[])
    assert painter.asked[:2] == [("c0", LEFT, "patient"), ("c1", RIGHT, "image")]


# ---------------------------------------------------------------- controls


def test_the_controls_tell_that_the_text_is_read(painter, data, tmp_path):
    metrics = run(painter, data, tmp_path / "eval")
    assert list(metrics.controls) == ["original", "empty", "shuffled", "swapped-side"]
    original, empty, shuffled, swapped = metrics.controls.values()
    assert original.dice_mean == metrics.dice_mean
    assert (original.n_changed, empty.n_changed, shuffled.n_changed, swapped.n_changed) == (0, 8, 8, 8)
    assert empty.dice_mean == pytest.approx(2 * 192 / (192 + 1024))
    assert shuffled.dice_mean == swapped.dice_mean == 0  # the other side is all that a shuffled row can get here
    assert swapped.ece > metrics.ece
    for name, control in metrics.controls.items():
        value, low, high = control.difference["dice_pooled"]
        assert low <= value <= high
        assert value == pytest.approx(metrics.dice_pooled - control.dice_pooled), name


def test_a_film_is_encoded_once_and_asked_each_sentence_once(painter, data, tmp_path):
    run(painter, data, tmp_path / "eval", batch=3)
    assert painter.encoded == [3, 3, 2]
    distinct = 3  # its own sentence, none, and the other side, which serves the five permutations and the swap
    assert len(painter.asked) == 8 * distinct


def test_scores_do_not_depend_on_the_controls_nor_on_the_batch(painter, data, tmp_path):
    alone = run(painter, data, tmp_path / "a", controls=[])
    assert alone.controls == {}
    for i, options in enumerate(({}, {"batch": 1}, {"batch": 5, "controls": ["shuffled"]})):
        other = run(painter, data, tmp_path / f"b{i}", **options)
        assert other.model_copy(update={"controls": {}, "images_per_s": None}) == alone.model_copy(update={"images_per_s": None})


def test_swapped_side_scores_only_rows_whose_zones_change(painter, tmp_path):
    rows = [(LEFT, "left", {}), ("bilateral opacities", "left", {}), ("a lesion", "right", {}), (RIGHT, "right", {})]
    metrics = run(painter, make_data(tmp_path / "data", rows), tmp_path / "eval", controls=["swapped-side"])
    control = metrics.controls["swapped-side"]
    assert (control.n_cases, control.n_changed) == (2, 2)
    own = [case.dice for case in read_cases(tmp_path / "eval") if case.id in ("c0", "c3")]
    assert control.difference["dice_mean"][0] == pytest.approx(np.mean(own))


def test_rows_that_no_permutation_can_serve_are_left_out_and_counted(painter, tmp_path):
    rows = [(LEFT, "left", {})] * 5 + [(RIGHT, "right", {})] * 2
    metrics = run(painter, make_data(tmp_path / "data", rows), tmp_path / "eval", controls=["shuffled"])
    assert (metrics.controls["shuffled"].n_cases, metrics.controls["shuffled"].n_changed) == (4, 4)
    assert any("leaves out 3 of 7 cases" in warning for warning in metrics.warnings)


def test_a_single_sentence_cannot_be_shuffled(painter, tmp_path):
    metrics = run(painter, make_data(tmp_path / "data", [(LEFT, "left", {})] * 3), tmp_path / "eval")
    control = metrics.controls["shuffled"]
    assert (control.n_cases, control.dice_pooled, control.difference) == (0, None, {})


def test_the_columns_of_the_controls():
    texts = [LEFT, RIGHT, "a lesion"]
    assert control_texts("original", texts) == [texts]
    assert control_texts("empty", texts) == [["", "", ""]]
    assert control_texts("swapped-side", texts) == [[RIGHT, LEFT, None]]
    permutations = control_texts("shuffled", texts)
    assert len(permutations) == 5
    assert all(sorted(column) == sorted(texts) and all(a != b for a, b in zip(column, texts, strict=True)) for column in permutations)
    assert permutations == control_texts("shuffled", texts)


def test_an_unknown_control_is_named_with_the_nearest(painter, data, tmp_path):
    with pytest.raises(InputError, match="Did you mean shuffled") as caught:
        run(painter, data, tmp_path / "eval", controls=["shufled"])
    assert caught.value.code == "control"


def test_the_controls_of_the_training_are_the_default(data, tmp_path):
    bundle = painter_in(tmp_path / "bundle", config={"eval": {"controls": ["original", "empty"]}})
    assert list(run(bundle, data, tmp_path / "a").controls) == ["original", "empty"]
    assert list(run(bundle, data, tmp_path / "b", controls=["shuffled"]).controls) == ["shuffled"]


@pytest.mark.parametrize("options", [{"reads_text": False}, {"config": {"data": {"text": "constant"}}}])
def test_text_free_models_get_the_constant_sentence_and_no_controls(data, tmp_path, options):
    bundle = painter_in(tmp_path / "bundle", **options)
    metrics = run(bundle, data, tmp_path / "eval", controls=["original", "shuffled"])
    assert metrics.controls == {}
    assert metrics.text == "constant"
    assert {text for _, text, _ in bundle.asked} == {CONSTANT}


# ---------------------------------------------------------------- subsets and patients


def test_subsets_are_scored_side_by_side(painter, tmp_path):
    rows = [(LEFT, "left", {"subsets": "sub;disjoint"}), (LEFT, "right", {"subsets": "sub", "patient": "q"}), (RIGHT, "right", {})]
    metrics = run(painter, make_data(tmp_path / "data", rows), tmp_path / "eval")
    assert {name: subset.n_cases for name, subset in metrics.subsets.items()} == {"disjoint": 1, "sub": 2}
    assert metrics.subsets["sub"].dice_mean == pytest.approx(metrics.subsets["disjoint"].dice_mean / 2)
    assert set(metrics.subsets["sub"].ci95) >= {"dice_pooled", "dice_mean", "iou_pooled", "iou_mean"}
    assert metrics.subsets["disjoint"].ci95 == {}  # one patient
    assert metrics.subsets["disjoint"].ece < metrics.ece


def test_patients_of_the_training_split_are_a_warning_in_metrics_and_report(painter, tmp_path):
    rows = [
        (LEFT, "left", {"patient": p, "split": s}) for p, s in (("a", "train"), ("a", "test"), ("a", "test"), ("b", "test"), ("", "test"))
    ]
    metrics = run(painter, make_data(tmp_path / "data", rows), tmp_path / "eval")
    (warning,) = [w for w in metrics.warnings if w.startswith("Patients shared with the split train")]
    assert "1, with 2 of the 4 cases" in warning
    assert warning in (tmp_path / "eval" / "report.html").read_text()
    assert (metrics.n_patients, metrics.ci.clusters, metrics.ci.without_patient) == (2, 3, 1)
    strange = painter_in(tmp_path / "strange", trained_on=[TrainedOn(name="elsewhere", licence="", split_sha256="a" * 64)])
    warnings = run(strange, tmp_path / "data", tmp_path / "eval2").warnings
    assert not [w for w in warnings if w.startswith("Patients shared")]  # it never saw the training split of this data set


def test_scores_on_the_training_split_say_so_and_no_others(data, tmp_path):
    """A split called train is not the training's in every manifest, and the training's may be called otherwise."""

    def said(name, sha256, *, train="test", limit=None, split="test", manifest=data):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        source = TrainedOn(name=name, licence="", split_sha256=sha256)
        painter = painter_in(folder, config={"data": {"train": train, "limit": limit}}, trained_on=[source])
        warnings = run(painter, manifest, folder / "eval", split=split, controls=[]).warnings
        return [warning for warning in warnings if "trained on" in warning]

    def kept(n):
        films = read_manifest(data).samples[:n]
        return split_sha256({film.id for film in films} - set(draw_dev(films, "ramps")))

    for limit in (None, 6):
        assert said("ramps", kept(limit), limit=limit) == said("ramps", kept(limit), limit=limit, train="other")
        assert "say nothing about new films" in said("ramps", kept(limit), limit=limit)[0]
    (warning,) = said("ramps", "0" * 64)
    assert "the same name, ramps" in warning and "may have seen" in warning
    assert said("others", kept(8)) == said("ramps", "0" * 64, train="train") == []
    one_patient = make_data(tmp_path / "one", [(LEFT, "left", {"patient": "p"})] * 3)
    assert len(said("ramps", "0" * 64, manifest=one_patient)) == 1


def test_the_split_that_a_run_trains_on_is_the_one_that_is_looked_for(tmp_path):
    manifest = make_data(tmp_path / "data", [(LEFT, "left", {"split": "train" if i < 8 else "val"}) for i in range(10)])
    values = {"name": "t", "model": {"name": "unet"}, "data": {"manifest": str(manifest), "limit": 6}}
    sources = [TrainedOn(**source) for source in prepare(parse_config(values, "test")).trained_on]
    painter = painter_in(tmp_path / "bundle", config=values, trained_on=sources)
    assert any("say nothing about new films" in w for w in run(painter, manifest, tmp_path / "a", split="train").warnings)
    assert not any("trained on" in w for w in run(painter, manifest, tmp_path / "b", split="val").warnings)


def test_absent_targets(painter, tmp_path):
    rows = [(LEFT, "left", {}), (RIGHT, None, {})]
    metrics = run(painter, make_data(tmp_path / "data", rows), tmp_path / "eval")
    assert metrics.absent_correct == 0
    assert metrics.presence_auroc == 0.5  # half of either film is painted
    assert (metrics.counts.pred_only, metrics.counts.both_empty) == (1, 0)


def sided(**extra):
    """Two films of one side each, one of both, one whose mask lies on the side that its sentence does not name."""
    rows = [(LEFT, "left"), (RIGHT, "right"), ("opacity in the left lung and in the right lung", "left"), (LEFT, "right")]
    return [(*row, {"id": f"c{i}", "patient": f"p{i}"} | extra) for i, row in enumerate(rows)]


def test_presence_is_told_from_one_affirmed_and_one_absent_prompt_of_each_film_that_allows_it(painter, tmp_path):
    metrics = run(painter, make_data(tmp_path / "data", sided()), tmp_path / "eval", controls=[])
    assert {(id, text) for id, text, _ in painter.asked if (id, text) not in {(f"c{i}", row[0]) for i, row in enumerate(sided())}} >= {
        ("c0", RIGHT),
        ("c1", LEFT),
    }
    assert metrics.n_absent == 2
    assert metrics.absent_correct == 0  # it paints whatever side is named
    assert metrics.presence_auroc == 0.5 and metrics.ci95["presence_auroc"] == (0.5, 0.5)


class Sceptic(Painter):
    """Knows the films: says and paints nothing where the mask is not."""

    truth = {"c0": "left", "c1": "right", "c2": "left", "c3": "right"}

    def answer(self, encoded, questions, ids, started=None, *, examine=False):
        out = super().answer(encoded, questions, ids, started)
        there = [self.truth[id] in question.text for id, question in zip(ids, questions, strict=True)]
        return [p if yes else replace(p, mask_HW=np.zeros_like(p.mask_HW), presence=0.1) for p, yes in zip(out, there, strict=True)]


def test_absent_prompts_enter_the_scores_of_presence_and_no_other(tmp_path):
    (tmp_path / "bundle").mkdir()
    manifest = make_data(tmp_path / "data", sided(subsets="two"))
    metrics = run(Sceptic(tmp_path / "bundle"), manifest, tmp_path / "eval", controls=["swapped-side"])
    assert (metrics.n_absent, metrics.absent_correct, metrics.presence_auroc) == (2, 1.0, 1.0)
    assert (metrics.n_cases, len(read_cases(tmp_path / "eval"))) == (4, 4)
    assert metrics.dice_mean == pytest.approx(np.mean([case.dice for case in read_cases(tmp_path / "eval")]))
    assert metrics.counts.both_empty == 0 and metrics.counts.truth_only == 1  # c3, whose sentence is wrong
    assert metrics.subsets["two"].presence_auroc == 1.0 and metrics.subsets["two"].ci95["absent_correct"] == (1.0, 1.0)
    assert metrics.controls["swapped-side"].absent_correct is None
    assert "2 absent prompts" in (tmp_path / "eval" / "report.html").read_text()


@pytest.mark.parametrize("extra", [{"complete": "0"}, {"laterality": "none"}, {"laterality": "patient"}, {"present": ""}])
def test_films_that_do_not_allow_it_are_asked_nothing_else(painter, tmp_path, extra):
    rows = sided(**extra)[:2]
    metrics = run(painter, make_data(tmp_path / "data", rows), tmp_path / "eval", controls=[])
    asked = "present" in extra
    assert metrics.n_absent == 2 * asked and len(painter.asked) == 2 + 2 * asked
    assert (metrics.presence_auroc is None) == (not asked)


def test_a_model_that_reads_no_text_is_asked_for_no_side(tmp_path):
    painter = painter_in(tmp_path / "bundle", reads_text=False)
    metrics = run(painter, make_data(tmp_path / "data", sided()), tmp_path / "eval")
    assert (metrics.n_absent, metrics.absent_correct, metrics.presence_auroc) == (0, None, None)
    assert {text for _, text, _ in painter.asked} == {CONSTANT}


# ---------------------------------------------------------------- failures


def test_a_film_that_cannot_be_read_counts_as_an_empty_prediction(painter, data, tmp_path):
    (tmp_path / "data" / "film3.png").write_bytes(b"not an image")
    (tmp_path / "data" / "film5.png").unlink()
    metrics = run(painter, data, tmp_path / "eval", images=True)
    assert (metrics.n_cases, metrics.counts.failed, metrics.counts.truth_only) == (8, 2, 2)
    cases = {case.id: case for case in read_cases(tmp_path / "eval")}
    assert (cases["c3"].dice, cases["c3"].fn, cases["c3"].warnings) == (0.0, 192, ("failed",))
    (why,) = (warning for warning in metrics.warnings if "since they failed" in warning)
    assert re.search(r"c3 \(\w[^()]+; unsupported_format\), c5 \(\w[^()]+; missing\)\. See failures\.csv\.", why)
    assert str(tmp_path) not in why
    rows = list(csv.DictReader((tmp_path / "eval" / "failures.csv").open()))
    assert [(row["id"], row["code"]) for row in rows] == [("c3", "unsupported_format"), ("c5", "missing")]
    assert str(tmp_path) not in (tmp_path / "eval" / "failures.csv").read_text()
    assert metrics.controls["empty"].n_cases == 8
    (tmp_path / "data" / "film3.png").write_bytes((tmp_path / "data" / "film1.png").read_bytes())
    (tmp_path / "data" / "film5.png").write_bytes((tmp_path / "data" / "film1.png").read_bytes())
    assert run(painter, data, tmp_path / "eval", overwrite=True).counts.failed == 0
    assert not (tmp_path / "eval" / "failures.csv").exists()


def test_a_sentence_that_cannot_be_asked_fails_its_case_alone(painter, tmp_path):
    rows = [(LEFT, "left", {}), ("unturnable lung", "left", {}), (RIGHT, "right", {})]
    metrics = run(painter, make_data(tmp_path / "data", rows), tmp_path / "eval")
    assert metrics.counts.failed == 1
    assert [case.warnings for case in read_cases(tmp_path / "eval")] == [(), ("failed",), ()]
    assert metrics.controls["shuffled"].n_cases == 3


def test_if_nothing_can_be_read_nothing_is_written(painter, data, tmp_path):
    for film in (tmp_path / "data").glob("film*"):
        film.write_bytes(b"")
    with pytest.raises(InputError, match="none of the 8 cases") as caught:
        run(painter, data, tmp_path / "eval")
    assert caught.value.code == "empty_file"
    assert list((tmp_path / "eval").iterdir()) == []


def test_a_true_mask_that_cannot_be_read_stops_the_evaluation_before_it_begins(painter, data, tmp_path):
    (tmp_path / "data" / "mask6.png").write_bytes(b"not a mask")
    with pytest.raises(InputError) as caught:
        run(painter, data, tmp_path / "eval")
    assert caught.value.where.endswith("mask6.png")
    assert painter.encoded == []


# ---------------------------------------------------------------- the twin


MODEL = {"name": "p", "model": {"name": "tgcnet", "preset": "tiny"}}


def twins(tmp_path, manifest, **options):
    twin = painter_in(tmp_path / "twin-bundle", config=MODEL | {"data": {"text": "constant"}})
    run(twin, manifest, tmp_path / "twin")
    return run(painter_in(tmp_path / "bundle", config=MODEL), manifest, tmp_path / "eval", twin=tmp_path / "twin", **options)


def test_what_the_text_bought(data, tmp_path):
    metrics = twins(tmp_path, data)
    twin = read_json(tmp_path / "twin" / "metrics.json", Metrics)
    assert metrics.twin.bundle_sha256 == twin.bundle_sha256
    for name in ("dice_pooled", "iou_pooled", "dice_mean", "iou_mean", "hd95", "nsd"):
        value, low, high = metrics.twin.difference[name]
        assert value == pytest.approx(getattr(metrics, name) - getattr(twin, name)), name
        assert low <= value <= high
    assert metrics.twin.difference["dice_mean"][1] > 0
    assert not any("twin" in warning.lower() for warning in metrics.warnings)


def test_a_twin_of_other_cases_is_refused_before_the_work(data, tmp_path):
    painter = painter_in(tmp_path / "bundle", config=MODEL)
    twin = painter_in(tmp_path / "twin-bundle", config=MODEL | {"data": {"text": "constant"}})
    run(twin, data, tmp_path / "twin", limit=4)
    painter.encoded.clear()
    with pytest.raises(InputError) as caught:
        run(painter, data, tmp_path / "eval", twin=tmp_path / "twin")
    assert caught.value.code == "cases_differ"
    run(twin, data, tmp_path / "whole")
    table = tmp_path / "whole" / "cases.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    painter.encoded.clear()
    with pytest.raises(InputError, match=r"cases\.csv") as caught:
        run(painter, data, tmp_path / "eval", twin=tmp_path / "whole")
    assert caught.value.code == "cases_differ"
    assert painter.encoded == []


def test_another_model_is_no_twin_and_is_refused_before_the_work(data, tmp_path):
    painter = painter_in(tmp_path / "bundle", config=MODEL)
    unet = {"name": "u", "model": {"name": "unet", "width": 4}}
    others = {"itself": MODEL, "unet": unet, "other rate": MODEL | {"data": {"text": "constant"}, "train": {"lr": 3e-4}}}
    for name, config in others.items():
        run(painter_in(tmp_path / name, config=config, reads_text=name != "unet"), data, tmp_path / f"eval-{name}")
        painter.encoded.clear()
        with pytest.raises(InputError) as caught:
            run(painter, data, tmp_path / "eval", twin=tmp_path / f"eval-{name}")
        assert caught.value.code == "twin" and "data.text=constant" in caught.value.fix and painter.encoded == []
    assert not (tmp_path / "eval").exists()


def test_what_has_no_twin_is_refused_one(data, tmp_path):
    twins(tmp_path, data)
    textless = painter_in(tmp_path / "textless", config=MODEL | {"data": {"text": "constant"}})
    several = painter_in(tmp_path / "several", config=MODEL)
    several.ensemble, several.bundles = ("b" * 64,), several.bundles * 2
    for bundle, masks, says in ((textless, None, "reads no text"), (several, None, "ensemble"), (None, tmp_path, "masks")):
        with pytest.raises(InputError, match=says) as caught:
            run(bundle, data, tmp_path / "other", masks=masks, twin=tmp_path / "twin")
        assert caught.value.code == "twin" and not (tmp_path / "other").exists()


# ---------------------------------------------------------------- masks made by other code


def test_masks_of_other_code_get_the_same_scores(painter, data, tmp_path):
    own = run(painter, data, tmp_path / "own")
    (tmp_path / "masks").mkdir()
    for i in range(8):
        mask = np.zeros((SIZE, SIZE), np.uint8)
        mask[:, slice(0, 16) if i % 2 else slice(16, None)] = 1 + 254 * (i % 3 > 0)  # 0/1 and 0/255 alike
        PIL.Image.fromarray(mask).save(tmp_path / "masks" / f"c{i}.png")
    metrics = run(None, data, tmp_path / "eval", masks=tmp_path / "masks", images=True)
    for name in ("dice_pooled", "iou_pooled", "dice_mean", "iou_mean", "hd95", "nsd", "cases_sha256", "n_cases"):
        assert getattr(metrics, name) == getattr(own, name), name
    assert (metrics.bundle_sha256, metrics.decision, metrics.ece, metrics.presence_auroc, metrics.images_per_s) == (None,) * 5
    assert metrics.controls == {}
    assert (tmp_path / "eval" / "report.html").read_text().count("data:image/png") == 6


def test_masks_are_taken_as_predict_names_them_too(painter, data, tmp_path):
    own = run(painter, data, tmp_path / "own", save_masks=True)
    masks = tmp_path / "own" / "masks"
    (masks / "c0.png").rename(masks / "c0.mask.png")
    assert run(None, data, tmp_path / "eval", masks=masks).dice_mean == own.dice_mean
    PIL.Image.fromarray(np.zeros((SIZE, SIZE), np.uint8)).save(masks / "c0.png")  # goes first
    assert run(None, data, tmp_path / "again", masks=masks).dice_mean < own.dice_mean


def test_missing_masks_and_masks_of_another_size_fail(data, tmp_path):
    (tmp_path / "masks").mkdir()
    PIL.Image.fromarray(np.full((SIZE, SIZE), 255, np.uint8)).save(tmp_path / "masks" / "c0.png")
    PIL.Image.fromarray(np.full((SIZE, SIZE + 1), 255, np.uint8)).save(tmp_path / "masks" / "c1.png")
    metrics = run(None, data, tmp_path / "eval", masks=tmp_path / "masks")
    assert (metrics.counts.failed, metrics.counts.truth_only) == (7, 7)
    codes = [row["code"] for row in csv.DictReader((tmp_path / "eval" / "failures.csv").open())]
    assert codes == ["size_mismatch"] + ["missing"] * 6


def test_a_folder_without_a_single_fitting_mask_is_refused(data, tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match="none of the 8 cases") as caught:
        run(None, data, tmp_path / "eval", masks=tmp_path / "masks")
    assert caught.value.where.endswith("c0.png")
    with pytest.raises(InputError, match="no such folder"):
        run(None, data, tmp_path / "eval", masks=tmp_path / "nowhere")


def test_the_device_is_the_users_choice(bundle, data, tmp_path):
    with pytest.raises(InputError) as caught:
        run(bundle, data, tmp_path / "eval", device="meta")  # none that anybody computes on
    assert caught.value.code == "device" and not (tmp_path / "eval").exists()
    assert run(bundle, data, tmp_path / "eval", device="cpu").counts.failed == 0


def test_a_bundle_or_masks_not_both_nor_neither(painter, data, tmp_path):
    for bundle, masks in ((None, None), (painter, tmp_path)):
        with pytest.raises(InputError) as caught:
            run(bundle, data, tmp_path / "eval", masks=masks)
        assert caught.value.code == "options"


def test_saved_masks_are_those_that_were_scored(painter, data, tmp_path):
    own = run(painter, data, tmp_path / "own", save_masks=True)
    masks = tmp_path / "own" / "masks"
    assert sorted(file.name for file in masks.iterdir()) == [f"c{i}.png" for i in range(8)]
    again = run(None, data, tmp_path / "again", masks=masks, save_masks=True)
    assert (again.dice_pooled, again.dice_mean, again.hd95) == (own.dice_pooled, own.dice_mean, own.hd95)
    assert (tmp_path / "again" / "masks" / "c3.png").read_bytes() == (masks / "c3.png").read_bytes()


def test_no_mask_is_saved_of_a_case_that_failed(painter, tmp_path):
    manifest = make_data(tmp_path / "data", [(LEFT, "left", {}), ("unturnable", "left", {})])
    run(painter, manifest, tmp_path / "eval", save_masks=True)
    assert [file.name for file in (tmp_path / "eval" / "masks").iterdir()] == ["c0.png"]


def test_masks_are_not_copied_onto_themselves(painter, data, tmp_path):
    run(painter, data, tmp_path / "eval", save_masks=True)
    with pytest.raises(InputError, match="already") as caught:
        run(None, data, tmp_path / "eval", masks=tmp_path / "eval" / "masks", save_masks=True, overwrite=True)
    assert caught.value.code == "options"


def test_answers_are_not_kept_in_the_place_of_the_true_masks(painter, tmp_path):
    """In the folder of many a data set they are masks/ID.png too."""
    folder = tmp_path / "data"
    table = [{"id": "c0", "image": "film0.png", "mask": "masks/c0.png", "text": LEFT, "split": "test", "present": "1"}]
    make_data(folder, [(LEFT, "left", {})])
    (folder / "masks").mkdir()
    (folder / "mask0.png").rename(folder / "masks" / "c0.png")
    manifest = write_manifest(folder, table, DatasetFile(name="ramps", laterality="image"))
    true = (folder / "masks" / "c0.png").read_bytes()
    with pytest.raises(InputError, match="already") as caught:
        run(painter, manifest, folder, save_masks=True)
    assert caught.value.code == "options" and "-o" in caught.value.fix and painter.encoded == []
    for overwrite in (False, True):
        assert run(painter, manifest, folder, overwrite=overwrite).n_cases == 1
    assert (folder / "masks" / "c0.png").read_bytes() == true


# ---------------------------------------------------------------- uncertainty


def test_calibration_is_told_before_and_after_the_fit(painter, data, tmp_path):
    """Painted pixels say 0.9 and the others 0.1; before the fit they said the roots of these."""
    metrics = run(painter, data, tmp_path / "eval", controls=[])
    share = 16 * 12 / (SIZE * SIZE // 2)  # of the painted half that is true
    assert metrics.ece == pytest.approx(((0.9 - share) + 0.1) / 2, abs=1e-6)
    assert metrics.ece_raw == pytest.approx(((np.sqrt(0.9) - share) + np.sqrt(0.1)) / 2, abs=1e-6)
    assert metrics.ece_border_raw > metrics.ece_border > 0


def test_risk_and_coverage_are_those_of_the_cases(painter, tmp_path):
    rows = [(LEFT, "left", {"id": "a"}), (LEFT, "right", {"id": "bbb"}), (RIGHT, "right", {"id": "cc"}), (RIGHT, None, {"id": "dddd"})]
    rows = [(text, side, extra | {"patient": f"p{i}"}) for i, (text, side, extra) in enumerate(rows)]
    found = run(painter, make_data(tmp_path / "data", rows), tmp_path / "eval", controls=[]).risk_coverage
    cases = {case.id: case for case in read_cases(tmp_path / "eval" / "cases.csv")}
    assert {id: case.uncertainty for id, case in cases.items()} == pytest.approx({"a": 0.1, "bbb": 0.3, "cc": 0.2, "dddd": 0.4})
    risk = 1 - cases["a"].dice
    assert (cases["cc"].dice, cases["bbb"].dice, cases["dddd"].dice) == (1 - risk, 0, 0)
    assert found.aurc["uncertainty"] == pytest.approx((risk + risk + (2 * risk + 1) / 3 + (2 * risk + 2) / 4) / 4)
    assert found.aurc["uncertainty"] == pytest.approx(found.aurc["oracle"])
    assert found.aurc["random"] == found.aurc["area"] == pytest.approx((2 * risk + 2) / 4), "all masks are of one size"
    assert (found.n_cases, set(found.gain_over_area)) == (4, {"uncertainty"})
    value, low, high = found.gain_over_area["uncertainty"]
    assert low <= value == found.aurc["area"] - found.aurc["uncertainty"] <= high
    assert found.ci95["uncertainty"][0] <= found.aurc["uncertainty"] <= found.ci95["uncertainty"][1]


def test_masks_of_other_code_say_nothing_of_how_sure_they_are(painter, data, tmp_path):
    run(painter, data, tmp_path / "own", controls=[], save_masks=True)
    metrics = run(None, data, tmp_path / "eval", masks=tmp_path / "own" / "masks")
    assert metrics.risk_coverage is metrics.ece_raw is None
    assert 'id="uncertainty"' not in (tmp_path / "eval" / "report.html").read_text()
    assert 'id="uncertainty"' in (tmp_path / "own" / "report.html").read_text()


def test_flips_reach_the_answers_and_are_recorded(tmp_path):
    bundle = tiny.write_bundle(tmp_path / "bundle")
    manifest = make_data(tmp_path / "data", [(text, "left", {}) for text in tiny.SENTENCES])
    for i in range(3):
        PIL.Image.fromarray((tiny.film(SIZE, SIZE, seed=i)[:, :, 0] * 255).astype(np.uint8)).save(tmp_path / "data" / f"film{i}.png")
    plain = run(bundle, manifest, tmp_path / "plain", controls=[])
    flipped = run(bundle, manifest, tmp_path / "flipped", controls=[], flips=True)
    assert (plain.decision.flips, flipped.decision.flips) == (False, True)
    assert plain.ece != flipped.ece
    assert "disagreement" in flipped.risk_coverage.aurc and "disagreement" not in plain.risk_coverage.aurc
    assert "averaged with the mirrored film" in (tmp_path / "flipped" / "report.html").read_text()
    assert plain.config_sha256 == flipped.config_sha256


def test_a_configuration_from_before_flips_has_the_same_hash(tmp_path, data):
    hashes = []
    for i, section in enumerate(({"controls": []}, {"controls": [], "flips": False}, {"controls": [], "flips": True})):
        painter = painter_in(tmp_path / str(i), config={"seed": 1, "eval": section})
        hashes.append(run(painter, data, tmp_path / f"eval{i}").config_sha256)
    assert hashes[0] == hashes[1] != hashes[2]


# ---------------------------------------------------------------- with a real, tiny model


@pytest.mark.parametrize("section", [tiny.TGCNET, tiny.UNET])
def test_what_predict_writes_scores_as_what_evaluate_says(tmp_path, section):
    bundle = tiny.write_bundle(tmp_path / "bundle", section)
    manifest = make_data(tmp_path / "data", [(text, "left", {}) for text in tiny.SENTENCES])
    for i in range(3):
        PIL.Image.fromarray((tiny.film(SIZE, SIZE, seed=i)[:, :, 0] * 255).astype(np.uint8)).save(tmp_path / "data" / f"film{i}.png")
    own = run(bundle, manifest, tmp_path / "own", images=True)
    predict_files(Segmenter.from_pretrained(bundle), read_manifest(manifest).samples, tmp_path / "out", batch=1)
    (tmp_path / "masks").mkdir()
    for file in (tmp_path / "out").glob("*.mask.png"):
        file.rename(tmp_path / "masks" / file.name.replace(".mask", ""))
    assert 0 < run(None, manifest, tmp_path / "eval", masks=tmp_path / "masks").dice_pooled == own.dice_pooled < 1
    assert own.bundle_sha256 == Segmenter.from_pretrained(bundle).sha256
    assert own.text == ("text" if section is tiny.TGCNET else "constant")
    assert bool(own.controls) == (section is tiny.TGCNET)


# ---------------------------------------------------------------- cases.csv


def test_cases_are_read_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    cases = [
        score_case("a", "p 1", rng.random((9, 9)) < 0.5, rng.random((9, 9)) < 0.5, text_name="text", presence=1 / 3, warnings=("a", "b")),
        score_case("-b", "=1+1", np.zeros((9, 9), bool), np.ones((9, 9), bool), text_name="@text"),
        replace(score_case("c", 'quoted "x", y', np.zeros((9, 9), bool), np.zeros((9, 9), bool)), uncertainty=1 / 3, disagreement=0.0),
    ]
    write_cases(tmp_path / "cases.csv", cases)
    assert read_cases(tmp_path / "cases.csv") == read_cases(tmp_path) == cases
    cells = [cell for row in csv.reader((tmp_path / "cases.csv").open()) for cell in row]
    assert "'=1+1" in cells
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


def test_a_table_from_before_uncertainty_is_read(tmp_path):
    case = score_case("a", "", np.ones((4, 4), bool), np.ones((4, 4), bool), presence=0.5)
    write_cases(tmp_path / "cases.csv", [case])
    rows = list(csv.DictReader((tmp_path / "cases.csv").open()))
    names = [name for name in rows[0] if name not in ("uncertainty", "disagreement")]
    (tmp_path / "cases.csv").write_text("\n".join([",".join(names), ",".join(rows[0][name] for name in names)]) + "\n")
    assert read_cases(tmp_path) == [case]


@pytest.mark.parametrize(
    ("change", "code"), [(("0.5,", "high,"), "bad_cell"), (("0.5,", "nan,"), "bad_cell"), (("hd95", "hd"), "missing_column")]
)
def test_a_damaged_table_is_refused(tmp_path, change, code):
    half = np.zeros((10, 10), bool)
    half[:, :5] = True
    write_cases(tmp_path / "cases.csv", [replace(score_case("a", "", half, half), dice=0.5)])
    text = (tmp_path / "cases.csv").read_text()
    assert change[0] in text
    (tmp_path / "cases.csv").write_text(text.replace(*change, 1))
    with pytest.raises(InputError) as caught:
        read_cases(tmp_path / "cases.csv")
    assert caught.value.code == code


def test_a_case_twice_is_refused(tmp_path):
    case = score_case("a", "", np.zeros((4, 4), bool), np.zeros((4, 4), bool))
    write_cases(tmp_path / "cases.csv", [case, case])
    with pytest.raises(InputError) as caught:
        read_cases(tmp_path)
    assert caught.value.code == "duplicate_id"


# ---------------------------------------------------------------- pictures


def graded(n):
    return [replace(score_case(f"{i:02}", "", np.zeros((4, 4), bool), np.zeros((4, 4), bool)), dice=i / 100) for i in range(n)]


def test_four_of_the_best_the_median_and_the_worst():
    chosen = [(kind, int(case.id)) for kind, case in choose(graded(21)[::-1])]
    assert chosen == (
        [("best", i) for i in (20, 19, 18, 17)] + [("median", i) for i in (8, 9, 10, 11)] + [("worst", i) for i in (0, 1, 2, 3)]
    )


@pytest.mark.parametrize("n", range(14))
def test_no_case_is_shown_twice(n):
    ids = [case.id for _, case in choose(graded(n))]
    assert len(ids) == len(set(ids)) == min(12, n if n < 3 else n // 3 * 3)


def test_cases_that_failed_have_no_picture():
    assert choose([replace(case, warnings=("failed",)) for case in graded(5)]) == []


@pytest.mark.parametrize("shape", [(32, 64), (700, 350), (1, 1)])
def test_a_picture_has_320_pixels_on_its_longer_side(shape):
    image = image_from_array(np.full(shape, 0.5, np.float32)).pixels_HWC
    mask, truth = np.zeros((2, *shape), bool)
    mask[: shape[0] // 4] = truth[-(shape[0] // 4) :] = True
    picture = PIL.Image.open(io.BytesIO(overlay_png(image, mask, truth)))
    assert max(picture.size) == 320
    assert picture.size[0] / picture.size[1] == pytest.approx(shape[1] / shape[0])
    colours = {colour for _, colour in picture.getcolors(10_000)}
    assert {PREDICTION_RGB, TRUTH_RGB} <= colours or shape == (1, 1)


def test_pictures_and_sentences_only_if_wanted(painter, data, tmp_path):
    run(painter, data, tmp_path / "with", images=True)
    run(painter, data, tmp_path / "without", images=False)
    shown, bare = ((tmp_path / name / "report.html").read_text() for name in ("with", "without"))
    assert shown.count("data:image/png") == 6  # two of each kind where there are eight cases
    assert LEFT in shown
    assert "data:image/png" not in bare
    assert LEFT not in bare
    assert json.loads((tmp_path / "with" / "metrics.json").read_text())["controls"].keys() == {
        "original",
        "empty",
        "shuffled",
        "swapped-side",
    }
