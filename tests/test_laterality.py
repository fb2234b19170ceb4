"""The same film stored any way round gets the same mask on the same lung, and its sides are the patient's."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from dicom_films import film
from reportseg.data.synthetic import phantom
from reportseg.segmenter import Segmenter

FILM = phantom(0, 3).image_HW
WAYS = {
    ("L", "F"): lambda a: a,
    ("R", "F"): lambda a: a[:, ::-1],
    ("R", "H"): lambda a: a[::-1, ::-1],
    ("F", "L"): lambda a: a.T,
    ("H", "L"): lambda a: a.T[:, ::-1],
}


@pytest.fixture(scope="module")
def demo() -> Segmenter:
    return Segmenter.from_pretrained("demo", device="cpu")


def stored(way) -> bytes:
    return film(np.ascontiguousarray(WAYS[way](FILM)), PatientOrientation=list(way), PixelSpacing=[0.5, 0.5])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("way", list(WAYS))
def test_the_mask_lies_on_the_same_lung_however_the_film_is_stored(demo, way, side):
    text = f"opacity in the {side} lower zone"
    plain = demo.segment(stored(("L", "F")), text)
    turned = demo.segment(stored(way), text)
    np.testing.assert_array_equal(turned.mask_HW, WAYS[way](plain.mask_HW))
    np.testing.assert_array_equal(turned.probability_HW, WAYS[way](plain.probability_HW))
    assert plain.mask_HW.any() and turned.side == plain.side and turned.laterality == "patient"
    assert turned.area_mm2 == plain.area_px * 0.25


def test_the_patients_left_is_the_right_of_the_displayed_film(demo):
    """The same pixels as a PNG, asked about the image's right, and as DICOM, asked about the patient's left."""
    as_image = demo.segment(FILM, "opacity in the right lower zone", laterality="image")
    as_patient = demo.segment(stored(("L", "F")), "opacity in the left lower zone")
    np.testing.assert_array_equal(as_image.mask_HW, as_patient.mask_HW)
    columns = np.flatnonzero(as_patient.mask_HW.sum(axis=0))
    assert as_patient.side == "left" and columns.mean() > FILM.shape[1] / 2


def test_a_batch_of_films_stored_in_different_ways(demo):
    ways = list(WAYS)
    answers = demo.segment_batch([stored(way) for way in ways], ["opacity in the left lower zone"] * len(ways))
    for way, answer in zip(ways, answers, strict=True):
        assert np.mean(answer.mask_HW != WAYS[way](answers[0].mask_HW)) < 1e-3 and answer.side == "left"
        assert answer.id.startswith("case-")


def test_a_lateral_view_has_no_side(demo):
    answer = demo.segment(film(FILM, PatientOrientation=["A", "F"]), "opacity in the lower zone")
    assert answer.side is None and "view_without_sides" in answer.warnings


def test_without_an_orientation_the_display_is_assumed_and_said(demo):
    answer = demo.segment(film(FILM, ViewPosition="AP"), "opacity in the left lower zone")
    np.testing.assert_array_equal(answer.mask_HW, demo.segment(stored(("L", "F")), "opacity in the left lower zone").mask_HW)
    assert "orientation_assumed" in answer.warnings and "laterality_assumed" not in answer.warnings


SECRETS = ("Mustermann", "PAT4711", "Rue Cachee", "19010203")


def test_predict_takes_folders_of_films_and_no_name_leaves_them(tmp_path):
    folder, out, work = tmp_path / "Mustermann^Max", tmp_path / "out", tmp_path / "tmp"
    folder.mkdir()
    work.mkdir()
    names = {"PatientName": "Mustermann^Max", "PatientID": "PAT4711", "PatientBirthDate": "19010203", "PatientAddress": "Rue Cachee 5"}
    names |= {"StudyDescription": "Mustermann, PAT4711", "WindowCenter": "123456.125", "WindowWidth": "123456.125"}
    for n, way in enumerate(WAYS):
        data = film(np.ascontiguousarray(WAYS[way](FILM)), PatientOrientation=list(way), **names)
        data = data.replace(b"123456.125", b"Mustermann")  # numbers that are none: pydicom would quote them
        (folder / f"Mustermann_{n}.dcm").write_bytes(data)
    (folder / "Mustermann_cut.dcm").write_bytes(film(FILM, **names)[:-2000])
    command = [sys.executable, "-c", "from reportseg.cli import app; app()", "predict", "demo", folder, "-o", out, "--json"]
    command += ["--text", "opacity in the left lower zone", "--device", "cpu"]
    environment = os.environ | {"TMPDIR": str(work)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 3, done.stderr
    with open(out / "predictions.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(WAYS) and all(row["id"].startswith("case-") and row["side"] == "left" for row in rows)
    assert json.loads((out / f"{rows[0]['id']}.json").read_text())["laterality"] == "patient"
    failures = (out / "failures.csv").read_text()
    assert "truncated" in failures and "case-" in failures
    for file in [*out.rglob("*"), *work.rglob("*")]:
        content = file.read_bytes() if file.is_file() else b""
        assert not any(secret in str(file.relative_to(tmp_path)) or secret.encode() in content for secret in SECRETS), file
    told = done.stderr + done.stdout.replace(str(folder), "")  # where the user's own path is told again
    told = told.replace("Mustermann_cut.dcm", "")
    assert not any(secret in told for secret in SECRETS)
