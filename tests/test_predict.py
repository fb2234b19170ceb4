"""Many films into one folder: which files, tables and exit codes; what stays, what goes on and what is never overwritten."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from safetensors.torch import load_file, save_file

from reportseg import predict as module
from reportseg import predictions
from reportseg.data.manifest import read_manifest
from reportseg.engines import TorchEngine
from reportseg.errors import InputError
from reportseg.io import read_image, read_mask
from reportseg.io.nifti import write_nifti
from reportseg.predict import Segmenter, jobs_from, jobs_from_report, predict_files
from reportseg.schemas.base import read_json, write_json
from reportseg.schemas.files import CSV_COLUMNS
from reportseg.schemas.prediction import PredictionFile
from reportseg.types import INTENDED_USE
from tiny import LEFT, RIGHT, TGCNET, film, write_bundle

KINDS = ("mask.png", "prob.png", "overlay.png", "json")
GRAY = (film(24, 30)[:, :, 0] * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return Segmenter.from_pretrained(write_bundle(tmp_path_factory.mktemp("bundle") / "b"), device="cpu")


@pytest.fixture
def films(tmp_path):
    """Five small films, a.png to e.png."""
    (tmp_path / "films").mkdir()
    paths = [tmp_path / "films" / f"{name}.png" for name in "abcde"]
    for seed, path in enumerate(paths):
        PIL.Image.fromarray((film(8, 8, seed=seed)[:, :, 0] * 255).astype(np.uint8)).save(path)
    return paths


def rows(folder: Path, name: str = "predictions.csv") -> list[dict[str, str]]:
    with open(folder / name, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        found = list(reader)
    assert tuple(reader.fieldnames) == CSV_COLUMNS[name]
    return found


def ids(folder: Path, name: str = "predictions.csv") -> list[str]:
    return [row["id"] for row in rows(folder, name)]


def refused(code: str, *args, **options) -> str:
    with pytest.raises(InputError) as caught:
        predict_files(*args, **options)
    assert caught.value.code == code, str(caught.value)
    assert caught.value.fix
    return str(caught.value)


def too_large(path: Path) -> Path:
    """The bundle with finite weights that fp32 cannot compute with."""
    weights = load_file(path / "model.safetensors")
    large = {key: (value.float() * 1e20).clamp(-1e38, 1e38) if value.is_floating_point() else value for key, value in weights.items()}
    save_file(large, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    config["files"]["model.safetensors"] = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    (path / "config.json").write_text(json.dumps(config))
    return path


def test_weights_that_are_finite_and_too_large_are_told_of_each_case(tmp_path, films):
    segmenter = Segmenter.from_pretrained(too_large(write_bundle(tmp_path / "b")), device="cpu")
    report = predict_files(segmenter, jobs_from(films, LEFT), tmp_path / "out")
    assert (report.done, report.failed, report.exit_code) == (0, 5, 2)
    assert {row["code"] for row in rows(tmp_path / "out", "failures.csv")} == {"not_finite"} and not rows(tmp_path / "out")


def test_a_film_without_a_finite_answer_fails_alone(tmp_path, segmenter, films, monkeypatch):
    bad, decode = films[2], TorchEngine.decode
    at = {}

    def spoilt(self, features, text, mask=None):
        output = decode(self, features, text, mask)
        logits = output.logits_B1HW.clone()
        logits[at["rows"]] = float("nan")
        return replace(output, logits_B1HW=logits)

    encode = Segmenter.encode_images

    def noted(self, sources):
        images = [self.read(source) for source in sources]
        at["rows"] = [row for row, image in enumerate(images) if (image.pixels_HWC == self.read(bad).pixels_HWC).all()]
        return encode(self, images)

    monkeypatch.setattr(TorchEngine, "decode", spoilt)
    monkeypatch.setattr(Segmenter, "encode_images", noted)
    report = predict_files(segmenter, jobs_from(films, LEFT), tmp_path / "out")
    assert (report.done, report.failed, report.exit_code) == (4, 1, 3)
    assert ids(tmp_path / "out") == ["a", "b", "d", "e"] and ids(tmp_path / "out", "failures.csv") == ["c"]


def test_a_volume_without_a_finite_answer_fails_alone(tmp_path, films):
    write_nifti(tmp_path / "v.nii", np.zeros((3, 8, 8), np.uint8), tuple(map(tuple, np.eye(4))))
    segmenter = Segmenter.from_pretrained(too_large(write_bundle(tmp_path / "b")), device="cpu")
    report = predict_files(segmenter, jobs_from([*films[:1], tmp_path / "v.nii"], LEFT), tmp_path / "out")
    assert (report.done, report.failed) == (0, 2)
    assert [row["code"] for row in rows(tmp_path / "out", "failures.csv")] == ["not_finite"] * 2


# ---------------------------------------------------------------- what is written


SAVED = {
    "gray.png": PIL.Image.fromarray(GRAY),
    "rgb.png": PIL.Image.fromarray(GRAY).convert("RGB"),
    "rgba.png": PIL.Image.fromarray(GRAY).convert("RGBA"),
    "palette.png": PIL.Image.fromarray(GRAY).convert("P"),
    "deep.png": PIL.Image.fromarray(GRAY.astype(np.uint16) * 257),
    "onebit.png": PIL.Image.fromarray(GRAY).convert("1"),
    "photo.jpg": PIL.Image.fromarray(GRAY),
    "gray.tiff": PIL.Image.fromarray(GRAY),
    "deep.tif": PIL.Image.fromarray(GRAY.astype(np.uint16) * 257),
}


def test_every_kind_of_film_gets_its_four_files(tmp_path, segmenter):
    for name, image in SAVED.items():
        image.save(tmp_path / name)
    (tmp_path / "png_in_truth.jpg").write_bytes((tmp_path / "gray.png").read_bytes())
    (tmp_path / "noextension").write_bytes((tmp_path / "photo.jpg").read_bytes())
    paths = [tmp_path / name for name in [*SAVED, "png_in_truth.jpg", "noextension"]]
    report = predict_files(segmenter, jobs_from(paths, LEFT), tmp_path / "out")
    assert (report.done, report.failed, report.skipped, report.exit_code, report.failures) == (11, 0, 0, 0, ())
    assert not rows(tmp_path / "out", "failures.csv")
    for job in jobs_from(paths, LEFT):
        mask, prob, overlay, answer = (tmp_path / "out" / f"{job.id}.{kind}" for kind in KINDS)
        expected = segmenter.segment(job.image, LEFT)
        with PIL.Image.open(mask) as image:
            assert (image.mode, image.size) == ("L", (30, 24))
            assert set(np.unique(image)) <= {0, 255}
        with PIL.Image.open(prob) as image:
            assert image.mode == "I;16"
            assert image.size == (30, 24)
            assert np.abs(np.asarray(image) / 65535 - expected.probability_HW).max() < 1e-4
        with PIL.Image.open(overlay) as image:
            assert (image.mode, image.size) == ("RGB", (30, 24))
        assert read_json(answer, PredictionFile).area_px == (read_mask(mask)).sum()
    same = [
        (tmp_path / "out" / f"{id}.mask.png").read_bytes() for id in (f"{tmp_path.name}__gray", "rgb", "rgba", "png_in_truth", "onebit")
    ]
    assert len(set(same[:4])) == 1, "the same film under another format is the same film"
    assert same[4] != same[0]


def test_the_json_says_what_was_asked_and_how_it_was_answered(tmp_path, segmenter, films):
    predict_files(segmenter, jobs_from(films[:1], LEFT), tmp_path / "out", laterality="patient")
    answer, expected = json.loads((tmp_path / "out" / "a.json").read_text()), segmenter.segment(films[0], LEFT, laterality="patient")
    assert 0 < answer["time_s"] < 60
    assert answer | {"time_s": 0} == {
        "schema": 1,
        "id": "a",
        "bundle_sha256": segmenter.sha256,
        "ensemble": [],
        "finding": {"text": LEFT, "span": None, "side": None, "zone": None, "label": None},
        "asked": {
            "source_sha256": hashlib.sha256(films[0].read_bytes()).hexdigest(),
            "laterality": "patient",
            "spacing_mm": None,
            "formats": ["png"],
            "keep_text": False,
            "probabilities": False,
            "uncertainty": False,
        },
        "polarity": "present",
        "presence": "unavailable",
        "area_px": expected.area_px,
        "area_mm2": None,
        "voxels": None,
        "volume_ml": None,
        "side": expected.side,
        "laterality": "patient",
        "decision": {"rule": "fixed", "threshold": 0.5, "temperature": 1.3, "flips": False},
        "uncertainty": expected.uncertainty,
        "disagreement": None,
        "engine": "torch-cpu",
        "warnings": [],
        "unknown_words": [],
        "time_s": 0,
        "intended_use": INTENDED_USE,
    }


def test_a_bundle_with_the_head_states_the_presence_and_the_others_say_that_they_cannot(tmp_path, films, segmenter):
    headed = Segmenter.from_pretrained(write_bundle(tmp_path / "headed", TGCNET | {"presence": True}))
    predict_files(headed, jobs_from(films[:1], LEFT), tmp_path / "out")
    told = read_json(tmp_path / "out" / "a.json", PredictionFile).presence
    assert 0 < told < 1 and told == headed.segment(films[0], LEFT).presence != headed.segment(films[0], RIGHT).presence
    assert rows(tmp_path / "out")[0]["presence"] == f"{told:.6g}"
    assert "Presence: own head." in (tmp_path / "headed" / "README.md").read_text()
    assert "Presence: unavailable" in (segmenter.bundles[0].path / "README.md").read_text()
    both = Segmenter.from_pretrained(headed.bundles[0].path, with_=[segmenter.bundles[0].path])
    assert both.segment(films[0], LEFT).presence == pytest.approx(told)  # told by those that can


def test_the_table_has_one_row_a_case(tmp_path, segmenter, films):
    predict_files(segmenter, jobs_from(films[:1], LEFT), tmp_path / "out")
    area = int(read_mask(tmp_path / "out" / "a.mask.png").sum())
    assert rows(tmp_path / "out") == [
        {
            "id": "a",
            "row": "1",
            "finding": LEFT,
            "polarity": "present",
            "status": "done",
            "mask": "a.mask.png",
            "presence": "unavailable",
            "area_px": str(area),
            "volume_ml": "",
            "side": segmenter.segment(films[0], LEFT).side,
            "laterality": "image",
            "uncertainty": f"{segmenter.segment(films[0], LEFT).uncertainty:.6g}",
            "disagreement": "",
            "warnings": "laterality_assumed",
        }
    ]


def test_a_denial_is_an_answer(tmp_path, segmenter, films):
    report = predict_files(segmenter, jobs_from(films[:1], "No pneumothorax."), tmp_path / "out")
    (row,) = rows(tmp_path / "out")
    assert report.exit_code == 0
    assert (row["status"], row["area_px"], row["side"], row["warnings"]) == ("negated", "0", "", "negated")
    assert not read_mask(tmp_path / "out" / "a.mask.png").any()
    assert read_json(tmp_path / "out" / "a.json", PredictionFile).polarity == "absent"


def test_the_answers_do_not_depend_on_the_batch(tmp_path, segmenter, films):
    for batch in (1, 8):
        predict_files(segmenter, jobs_from(films, LEFT), tmp_path / str(batch), batch=batch)
    for id in "abcde":
        one, eight = (np.asarray(PIL.Image.open(tmp_path / n / f"{id}.prob.png"), np.int64) for n in "18")
        assert np.abs(one - eight).max() <= 1  # of 65535


def test_a_film_too_large_to_wait_is_answered_alone(tmp_path, segmenter, films, monkeypatch):
    PIL.Image.fromarray(GRAY).resize((60, 60)).save(films[2])
    monkeypatch.setattr(module, "HELD_VALUES", 4 * 64)
    sizes, real = [], segmenter.encode_images
    monkeypatch.setattr(segmenter, "encode_images", lambda images: sizes.append(len(images)) or real(images))
    assert predict_files(segmenter, jobs_from(films, LEFT), tmp_path / "out").done == 5
    assert sizes == [3, 2]


def test_one_film_may_have_many_sentences_and_same_names_stay_apart(tmp_path, segmenter, films):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes(films[0].read_bytes())
    jobs = jobs_from([films[0], tmp_path / "more" / "a.png", films[0]], LEFT)
    assert [(job.id, job.row) for job in jobs] == [("films__a", 1), ("more__a", 2), ("films__a-2", 3)]
    assert predict_files(segmenter, jobs, tmp_path / "out").done == 3
    assert ids(tmp_path / "out") == ["films__a", "more__a", "films__a-2"]


def test_a_jobs_file_brings_texts_sides_and_spacing(tmp_path, segmenter, films):
    table = (
        "image,text,laterality,spacing_mm\n"
        + f"films/a.png,{RIGHT.replace(',', '')},patient,0.5 0.5\nfilms/b.png,{LEFT.replace(',', '')},,\n"
    )
    (tmp_path / "jobs.csv").write_text(table)
    jobs = read_manifest(tmp_path / "jobs.csv", need_masks=False).samples
    predict_files(segmenter, jobs, tmp_path / "out")
    a, b = (read_json(tmp_path / "out" / f"{id}.json", PredictionFile) for id in "ab")
    assert (a.laterality, a.warnings, b.laterality, b.warnings) == ("patient", [], "image", ["laterality_assumed"])
    assert a.area_mm2 == a.area_px * 0.25
    assert b.area_mm2 is None
    assert [row["row"] for row in rows(tmp_path / "out")] == ["1", "2"]
    predict_files(segmenter, jobs, tmp_path / "image", laterality="image")
    assert read_json(tmp_path / "image" / "a.json", PredictionFile).laterality == "image", "the option goes before the column"


def test_an_ensemble_lists_every_hash(tmp_path, films):
    write_bundle(tmp_path / "b"), write_bundle(tmp_path / "c", seed=1)
    both = Segmenter.from_pretrained(tmp_path / "b", with_=[tmp_path / "c"])
    predict_files(both, jobs_from(films[:1], LEFT), tmp_path / "out")
    stored = read_json(tmp_path / "out" / "a.json", PredictionFile)
    assert [stored.bundle_sha256, *stored.ensemble] == [bundle.sha256 for bundle in both.bundles]


def test_progress_counts_every_job_to_the_end(tmp_path, segmenter, films):
    films[1].write_bytes(b"not a film")
    seen = []
    predict_files(segmenter, jobs_from(films, LEFT), tmp_path / "out", batch=2, progress=lambda *count: seen.append(count))
    assert seen[-1] == (5, 5)
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {5}


# ---------------------------------------------------------------- what fails


def test_one_bad_file_among_a_hundred_leaves_ninety_nine_masks_and_one_line(tmp_path, segmenter):
    (tmp_path / "films").mkdir()
    paths = [tmp_path / "films" / f"{i:03}.png" for i in range(100)]
    for i, path in enumerate(paths):
        PIL.Image.fromarray(np.full((8, 8), i, np.uint8)).save(path)
    paths[41].write_bytes(paths[41].read_bytes()[:50])
    report = predict_files(segmenter, jobs_from(paths, LEFT), tmp_path / "out")
    assert (report.done, report.failed, report.exit_code) == (99, 1, 3)
    assert len(list((tmp_path / "out").glob("*.mask.png"))) == len(rows(tmp_path / "out")) == 99
    (line,) = rows(tmp_path / "out", "failures.csv")
    assert line["id"] == "041"
    assert line["code"] == "truncated"
    assert "ends before" in line["what"]
    assert line["fix"]
    assert ids(tmp_path / "out") == [f"{i:03}" for i in range(100) if i != 41]


def test_a_missing_film_and_a_text_that_cannot_be_turned_fail_alone(tmp_path, segmenter, films):
    films[0].unlink()
    jobs = jobs_from(films, "mass in the lt lung")
    report = predict_files(segmenter, jobs[:2], tmp_path / "out")
    assert report.exit_code == 3
    assert [(id, e.code) for id, e in report.failures] == [("a", "missing")]
    report = predict_files(segmenter, jobs[:2], tmp_path / "none", laterality="patient")
    assert report.exit_code == 2, "nothing could be done"
    assert [row["code"] for row in rows(tmp_path / "none", "failures.csv")] == ["missing", "side_word"]
    assert str(films[0]) in str(report.failures[0][1]), "on the user's own terminal his path may appear"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"formats": ["png", "jpeg"]}, "format"),
        ({"formats": []}, "format"),
        ({"laterality": "doctor"}, "laterality"),
        ({"overwrite": True, "resume": True}, "options"),
    ],
)
def test_an_option_that_cannot_be_met_is_said_before_anything_is_done(tmp_path, segmenter, films, options, code):
    message = refused(code, segmenter, jobs_from(films, LEFT), tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
    assert code != "format" or "This version writes png" in message


def test_nothing_to_do_and_ids_twice(tmp_path, segmenter, films):
    refused("no_jobs", segmenter, [], tmp_path / "out")
    assert "'a'" in refused("duplicate_id", segmenter, jobs_from(films[:1], LEFT) * 2, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- what is there already


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["a.mask.png", "e.json", "predictions.csv", "failures.csv"])
def test_a_file_that_exists_is_not_touched(tmp_path, segmenter, films, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    assert name in refused("exists", segmenter, jobs_from(films, LEFT), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_other_files_in_the_folder_do_not_matter(tmp_path, segmenter, films):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    assert predict_files(segmenter, jobs_from(films, LEFT), tmp_path / "out").done == 5
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_overwrite_answers_anew_and_leaves_no_old_mask_beside_a_failure(tmp_path, segmenter, films):
    out = tmp_path / "out"
    predict_files(segmenter, jobs_from(films, LEFT), out)
    films[1].write_bytes(b"damaged since")
    report = predict_files(segmenter, jobs_from(films[:3], "No effusion."), out, overwrite=True)
    assert (report.done, report.failed, report.skipped) == (2, 1, 0)
    assert ids(out) == ["a", "c"]
    assert ids(out, "failures.csv") == ["b"]
    assert not list(out.glob("b.*"))
    assert not read_mask(out / "a.mask.png").any()


def test_resume_skips_what_is_done_and_adds_the_rest(tmp_path, segmenter, films):
    out = tmp_path / "out"
    bad = films[3].read_bytes()
    films[3].write_bytes(b"damaged")
    predict_files(segmenter, jobs_from(films[:4], LEFT), out)
    first = rows(out)
    before = snapshot(out)
    films[3].write_bytes(bad)
    (out / "b.json").unlink()  # as if killed while it was written
    (out / "c.prob.png").unlink()
    report = predict_files(segmenter, jobs_from(films, LEFT), out, resume=True)
    assert (report.done, report.failed, report.skipped, report.exit_code) == (4, 0, 1, 0)
    assert all(snapshot(out)[f"a.{kind}"] == before[f"a.{kind}"] for kind in KINDS)
    assert ids(out) == list("abcde")
    assert rows(out)[:3] == first
    assert not rows(out, "failures.csv")
    assert predict_files(segmenter, jobs_from(films, LEFT), out, resume=True).skipped == 5


def test_resume_with_other_films_adds_to_the_tables(tmp_path, segmenter, films):
    out = tmp_path / "out"
    films[0].write_bytes(b"damaged")
    predict_files(segmenter, jobs_from(films[:2], LEFT), out)
    report = predict_files(segmenter, jobs_from(films[2:], RIGHT), out, resume=True)
    assert (report.done, report.skipped) == (3, 0)
    assert ids(out) == list("bcde")
    assert ids(out, "failures.csv") == ["a"]
    assert [row["finding"] for row in rows(out)] == [LEFT, RIGHT, RIGHT, RIGHT]


def test_resume_with_no_folder_begins(tmp_path, segmenter, films):
    assert predict_files(segmenter, jobs_from(films, LEFT), tmp_path / "out", resume=True).done == 5


def test_uncertainty_is_written_where_several_answers_were_averaged(tmp_path, segmenter, films):
    flipping, out = Segmenter(segmenter.bundles, flips=True, device="cpu"), tmp_path / "out"
    texts = (LEFT, "opacity in the lt lung", "no effusion")
    jobs = [replace(job, text=text) for job, text in zip(jobs_from(films[:3], LEFT), texts, strict=True)]
    predict_files(flipping, jobs, out, uncertainty=True)
    assert [path.name for path in out.glob("*.uncertainty.png")] == ["a.uncertainty.png"]
    with PIL.Image.open(out / "a.uncertainty.png") as image:
        assert (image.mode, image.size) == ("I;16", (8, 8))
        spread = np.asarray(image) / 65535
    assert 0 < spread.max() <= 0.5
    table = rows(out)
    stored = [read_json(out / f"{id}.json", PredictionFile) for id in "abc"]
    assert float(table[0]["disagreement"]) == pytest.approx(stored[0].disagreement, rel=1e-5)
    assert [answer.disagreement is None for answer in stored] == [False, True, True]
    assert [answer.uncertainty is None for answer in stored] == [False, False, True]
    assert (table[1]["disagreement"], table[2]["uncertainty"]) == ("", "")
    assert predict_files(flipping, jobs, out, uncertainty=True, resume=True).skipped == 3, "a single answer has no map to miss"
    predict_files(flipping, jobs, out, overwrite=True)
    assert not list(out.glob("*.uncertainty.png")), "no map of an earlier run stays beside a new answer"


def test_uncertainty_needs_a_second_answer(tmp_path, segmenter, films):
    assert "--flips" in refused("uncertainty", segmenter, jobs_from(films, LEFT), tmp_path / "out", uncertainty=True)
    assert not (tmp_path / "out").exists()


def test_resume_never_keeps_the_answer_to_another_film_of_the_same_name(tmp_path, segmenter, films):
    """Another patient's film where the first one's was: nothing is kept, and nothing of what was done is lost."""
    out = tmp_path / "out"
    predict_files(segmenter, jobs_from(films[:3], LEFT), out)
    before, first = snapshot(out), films[1].read_bytes()
    films[1].write_bytes(films[4].read_bytes())
    message = refused("resume", segmenter, jobs_from(films, LEFT), out, resume=True)
    assert "another film" in message and "b.json" in message
    films[1].unlink()
    assert "cannot be read" in refused("resume", segmenter, jobs_from(films, LEFT), out, resume=True)
    assert snapshot(out) == before
    films[1].write_bytes(films[4].read_bytes())
    (out / "b.json").unlink()  # the way out that the message names
    report = predict_files(segmenter, jobs_from(films[:3], LEFT), out, resume=True)
    assert (report.done, report.skipped) == (1, 2)
    assert (read_mask(out / "b.mask.png") == segmenter.segment(films[4], LEFT).mask_HW).all()
    assert films[1].read_bytes() != first


def test_resume_refuses_an_answer_that_names_no_film(tmp_path, segmenter, films):
    out = tmp_path / "out"
    predict_files(segmenter, jobs_from(films[:1], LEFT), out)
    write_json(out / "a.json", read_json(out / "a.json", PredictionFile).model_copy(update={"asked": None}))
    assert "does not say which film" in refused("resume", segmenter, jobs_from(films, LEFT), out, resume=True)


ASKED = {"formats": ["png"], "laterality": "patient"}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"laterality": "image"}, "for sides of the patient, not for sides of the image"),
        ({"laterality": None}, "for sides of the patient, not without a --laterality"),
        ({"formats": ["png", "nifti"]}, "was written as png"),
        ({"formats": ["nifti"]}, "was written as png"),
        ({"keep_text": True}, "without --keep-text"),
        ({"probabilities": True}, "without --probabilities"),
    ],
    ids=str,
)
def test_resume_refuses_other_options(tmp_path, segmenter, films, changed, says):
    out = tmp_path / "out"
    predict_files(segmenter, jobs_from(films[:1], "opacity"), out, **ASKED)
    before = snapshot(out)
    assert says in refused("resume", segmenter, jobs_from(films, "opacity"), out, resume=True, **ASKED | changed)
    assert snapshot(out) == before
    assert predict_files(segmenter, jobs_from(films, "opacity"), out, resume=True, **ASKED).skipped == 1


def test_resume_refuses_another_spacing_of_the_jobs_file(tmp_path, segmenter, films):
    (job,) = jobs_from(films[:1], LEFT)
    predict_files(segmenter, [replace(job, spacing_mm=(0.5, 0.5))], tmp_path / "out")
    assert "another spacing" in refused("resume", segmenter, [replace(job, spacing_mm=(0.5, 1.0))], tmp_path / "out", resume=True)
    assert predict_files(segmenter, [replace(job, spacing_mm=(0.5, 0.5))], tmp_path / "out", resume=True).skipped == 1


def test_a_new_answer_leaves_no_other_format_of_the_old_one(tmp_path, segmenter, films):
    out = tmp_path / "out"
    predict_files(segmenter, jobs_from(films[:1], LEFT), out, formats=["png", "nifti"])
    (out / "a.seg.dcm").write_bytes(b"of an earlier run")
    predict_files(segmenter, jobs_from(films[:1], RIGHT), out, overwrite=True)
    assert sorted(path.name for path in out.glob("a.*")) == sorted(f"a.{kind}" for kind in KINDS)


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}], ids=str)
def test_no_answer_is_written_over_a_film(tmp_path, segmenter, options):
    path = tmp_path / "a.nii.gz"
    write_nifti(path, np.zeros((1, 8, 8), np.uint8), tuple(map(tuple, np.eye(4))))
    before = path.read_bytes()
    assert "over its film" in refused("exists", segmenter, jobs_from([path], LEFT), tmp_path, formats=["nifti"], **options)
    predict_files(segmenter, jobs_from([path], LEFT), tmp_path, **options)
    assert predict_files(segmenter, jobs_from([path], LEFT), tmp_path, overwrite=True).done == 1
    assert path.read_bytes() == before


def test_resume_never_mixes_bundles_texts_or_sides(tmp_path, segmenter, films):
    out, other = tmp_path / "out", Segmenter.from_pretrained(write_bundle(tmp_path / "b", threshold=0.4))
    predict_files(segmenter, jobs_from(films[:2], LEFT), out, laterality="image")
    assert "another bundle" in refused("resume", other, jobs_from(films, LEFT), out, resume=True, laterality="image")
    assert "another text" in refused("resume", segmenter, jobs_from(films, RIGHT), out, resume=True, laterality="image")
    flipping = Segmenter(segmenter.bundles, flips=True, device="cpu")
    assert "without --flips" in refused("resume", flipping, jobs_from(films, LEFT), out, resume=True, laterality="image")
    assert predict_files(segmenter, jobs_from(films, LEFT), out, resume=True, laterality="image").skipped == 2


@pytest.mark.parametrize(
    "content", [b"name,age\nJane,40\n", b"\xff\xfe", b"id,row,finding,status,mask,presence,area_px,side,warnings\na,1\n"]
)
def test_resume_takes_no_table_for_its_own_that_is_not(tmp_path, segmenter, films, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.csv").write_bytes(content)
    refused("resume", segmenter, jobs_from(films, LEFT), tmp_path / "out", resume=True)
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == content


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_loses_nothing_that_was_done(tmp_path, segmenter, films, monkeypatch, error):
    real, out = predictions.write_overlay, tmp_path / "out"

    def stop_at_d(path, *args):
        if path.name == "d.overlay.png":
            raise error
        real(path, *args)

    monkeypatch.setattr(predictions, "write_overlay", stop_at_d)
    with pytest.raises(error):
        predict_files(segmenter, jobs_from(films, LEFT), out, batch=2)
    assert ids(out) == list("abc")
    assert not (out / "d.json").exists()
    monkeypatch.undo()
    (out / "predictions.csv").unlink()  # as after a kill before the table was written
    report = predict_files(segmenter, jobs_from(films, LEFT), out, batch=2, resume=True)
    assert (report.done, report.skipped) == (2, 3)
    assert ids(out) == list("abcde")


def test_the_tables_grow_while_the_work_goes_on(tmp_path, segmenter, films, monkeypatch):
    monkeypatch.setattr(predictions, "SAVE_SECONDS", 0)
    seen = []
    predict_files(
        segmenter, jobs_from(films, LEFT), tmp_path / "out", batch=2, progress=lambda *_: seen.append(len(rows(tmp_path / "out")))
    )
    assert seen == [0, 2, 2, 4, 4, 5]


def test_a_full_disk_stops_cleanly_and_a_resume_goes_on(tmp_path, segmenter, films, monkeypatch):
    real, out = predictions.write_mask, tmp_path / "out"

    def full(path, mask):
        if path.name == "c.mask.png":
            raise InputError("the file cannot be written (No space left on device)", path, "Make room.", "unwritable")
        real(path, mask)

    monkeypatch.setattr(predictions, "write_mask", full)
    report = predict_files(segmenter, jobs_from(films, LEFT), out)
    assert (report.done, report.failed, report.exit_code) == (2, 3, 3)
    assert {(id, error.code) for id, error in report.failures} == {(id, "unwritable") for id in "cde"}
    assert (ids(out), ids(out, "failures.csv")) == (["a", "b"], ["c", "d", "e"])
    assert not list(out.glob(".part-*"))
    monkeypatch.undo()
    assert predict_files(segmenter, jobs_from(films, LEFT), out, resume=True).skipped == 2


def test_a_disk_that_fills_up_with_the_last_case_leaves_it_done(tmp_path, segmenter, films, monkeypatch):
    real, out = predictions.atomic_write, tmp_path / "out"

    def full(path, content):
        if (out / "e.json").exists():
            raise InputError("the file cannot be written (No space left on device)", path, "Make room.", "unwritable")
        real(path, content)

    monkeypatch.setattr(predictions, "atomic_write", full)
    report = predict_files(segmenter, jobs_from(films, LEFT), out)
    assert (report.done, report.exit_code) == (5, 3)
    assert "predictions.csv" in str(report.failures[0][1])
    monkeypatch.undo()
    assert predict_files(segmenter, jobs_from(films, LEFT), out, resume=True).exit_code == 0
    assert ids(out) == list("abcde")


def test_an_output_that_is_a_file_or_lies_under_one(tmp_path, segmenter, films):
    refused("exists", segmenter, jobs_from(films, LEFT), films[0])
    refused("unwritable", segmenter, jobs_from(films, LEFT), films[0] / "out")
    assert read_image(films[0]).geometry.shape == (8, 8)


# ---------------------------------------------------------------- reports

REPORT = "Opacity in the left lower lobe. No effusion. Possible nodule.\nTechnique: two views."


def asked(segmenter, paths, out, report=REPORT, **options):
    jobs, reports = jobs_from_report(segmenter, paths, report)
    return predict_files(segmenter, jobs, out, reports=reports, **options)


def test_a_report_gives_a_mask_for_each_finding_that_it_affirms_or_doubts(tmp_path, segmenter, films, monkeypatch):
    encoded, real = [], segmenter.encode_images
    monkeypatch.setattr(segmenter, "encode_images", lambda images: encoded.append(len(images)) or real(images))
    done = asked(segmenter, films[:2], tmp_path / "out", laterality="image")
    assert (done.done, done.exit_code) == (4, 0)
    assert encoded == [1, 1], "each film once"
    assert ids(tmp_path / "out") == ["a-f1", "a-f2", "b-f1", "b-f2"]
    table = rows(tmp_path / "out")
    assert [(row["finding"], row["polarity"], row["status"], row["row"]) for row in table[:2]] == [
        ("Opacity in the left lower lobe", "present", "done", "1"),
        ("Possible nodule", "uncertain", "done", "1"),
    ]
    stored = read_json(tmp_path / "out" / "a-f1.json", PredictionFile)
    assert stored.finding.model_dump() == {
        "text": "Opacity in the left lower lobe",
        "span": (0, 30),
        "side": "left",
        "zone": "lower",
        "label": "opacity",
    }
    alone = segmenter.segment(films[0], "Opacity in the left lower lobe", laterality="image")
    assert stored.area_px == alone.area_px


def test_the_file_of_a_report_lists_what_was_denied_and_what_gave_no_finding(tmp_path, segmenter, films):
    asked(segmenter, films[:1], tmp_path / "out")
    told = json.loads((tmp_path / "out" / "a.report.json").read_text())
    assert [(f["id"], f["polarity"], f["text"], f["span"]) for f in told["findings"]] == [
        ("a-f1", "present", "Opacity in the left lower lobe", [0, 30]),
        (None, "absent", "No effusion", [32, 43]),
        ("a-f2", "uncertain", "Possible nodule", [45, 60]),
    ]
    assert told["skipped"] == [{"text": "two views.", "span": [73, 83], "reason": "technique"}]
    assert told["intended_use"] == INTENDED_USE


@pytest.mark.parametrize(
    ("report", "warning"),
    [("No effusion.", ["negated"]), ("Keine Ergüsse.", ["out_of_vocabulary"]), ("Keine Infiltrate", ["out_of_vocabulary"])],
)
def test_a_report_that_asks_nothing_leaves_its_file_and_no_mask(tmp_path, segmenter, films, report, warning):
    done = asked(segmenter, films[:1], tmp_path / "out", report)
    assert (done.done, done.exit_code) == (0, 0)
    assert json.loads((tmp_path / "out" / "a.report.json").read_text())["warnings"] == warning
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.report.json", "failures.csv", "predictions.csv"]
    assert not rows(tmp_path / "out")


def test_a_film_that_cannot_be_read_fails_for_each_of_its_findings(tmp_path, segmenter, films):
    films[0].write_bytes(b"not a film")
    done = asked(segmenter, films[:2], tmp_path / "out")
    assert (done.done, done.failed, done.exit_code) == (2, 2, 3)
    assert ids(tmp_path / "out", "failures.csv") == ["a-f1", "a-f2"]


def test_a_report_resumes_and_is_never_mixed_with_another(tmp_path, segmenter, films):
    out = tmp_path / "out"
    asked(segmenter, films[:1], out)
    (out / "a-f2.json").unlink()
    again = asked(segmenter, films[:1], out, resume=True)
    assert (again.done, again.skipped) == (1, 1)
    with pytest.raises(InputError, match="another report"):
        asked(segmenter, films[:1], out, "Opacity in the left lower lobe.", resume=True)
    with pytest.raises(InputError, match="exists already"):
        asked(segmenter, films[:1], out)
    asked(segmenter, films[:1], out, "Mass.", overwrite=True)
    assert ids(out) == ["a-f1"]


def test_long_names_keep_their_findings_apart(tmp_path, segmenter):
    paths = [tmp_path / f"{'x' * 96}{end}.png" for end in "ab"]
    jobs, _ = jobs_from_report(segmenter, paths, REPORT)
    assert len({job.id for job in jobs}) == 4
    assert all(len(job.id) <= 100 and job.id.endswith(("-f1", "-f2")) for job in jobs)
