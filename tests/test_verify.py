"""verify finds everything at once: each test plants one fault and finds it by its code, beside rows that are fine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from dicom_films import dataset, encoded, frames_of_one_file
from reportseg.data.importers import import_data
from reportseg.data.manifest import read_manifest, write_manifest
from reportseg.data.verify import MAX_WORDS, Verified, verify
from reportseg.limits import Limits
from reportseg.schemas.data import DatasetFile
from reportseg.types import Geometry

SIDE = 16


def picture(path: Path, array) -> Path:
    PIL.Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


def blob(left: bool = True, value: int = 255) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:10, 2 : 7 if left else 6] = value
    return mask if left else mask[:, ::-1] // value * value


def data(folder: Path, rows: list[dict], *, split_source: str = "", laterality: str = "image") -> Path:
    """Each row a film of its own (seeded by its number) and a mask on the left, unless the row brings others."""
    folder.mkdir(exist_ok=True)
    cells = []
    for i, row in enumerate(rows):
        row = {"text": "opacity of the lower left lung", "split": "train"} | row
        film = row.pop("film", np.random.default_rng(i).integers(0, 256, (SIDE, SIDE)))
        mask = row.pop("drawn", blob())
        picture(folder / f"f{i}.png", film)
        picture(folder / f"m{i}.png", mask)
        cells.append({"image": f"f{i}.png", "mask": f"m{i}.png"} | row)
    return write_manifest(folder, cells, DatasetFile(name="toy", laterality=laterality, split_source=split_source))


def found(folder: Path, rows: list[dict], **info) -> Verified:
    return verify(read_manifest(data(folder, rows, **info)))


def codes(result: Verified) -> list[tuple[str, str, str]]:
    return [(i.severity, i.code, i.id) for i in result]


def test_a_sound_data_set_has_no_issue(tmp_path):
    result = found(tmp_path, [{"patient": "p1"}, {"patient": "p2", "split": "val"}, {"present": "0", "drawn": blob() * 0}])
    assert codes(result) == []
    assert len(result) == 0
    assert result.errors == result.warnings == []
    assert result.summary[0] == "toy: 3 rows, 3 films (2 train, 1 val)"
    assert result.summary[1] == "2 patients known, 1 rows without; 1 distinct texts"
    assert result.summary[-2:] == ("errors: none", "warnings: none")


def test_all_faults_are_found_at_once_and_each_names_its_row(tmp_path):
    file = data(tmp_path, [{} for _ in range(6)])
    (tmp_path / "f1.png").unlink()
    (tmp_path / "f2.png").write_bytes((tmp_path / "f2.png").read_bytes()[:60])
    (tmp_path / "m3.png").write_bytes(b"")
    (tmp_path / "m4.png").unlink()
    (tmp_path / "m4.png").mkdir()
    result = verify(read_manifest(file))
    assert codes(result) == [
        ("error", "missing", "f1"),
        ("error", "truncated", "f2"),
        ("error", "empty_file", "f3"),
        ("error", "directory", "f4"),
    ]
    assert [i.row for i in result] == [2, 3, 4, 5]
    assert all(i.fix for i in result)
    assert str(result.issues[0]).startswith("row 2 (f1): image:")
    assert "errors: 1 directory, 1 empty_file, 1 missing, 1 truncated" in result.summary


def test_film_and_mask_must_have_one_size(tmp_path):
    result = found(tmp_path, [{"drawn": np.full((8, 4), 255)}, {}])
    assert codes(result) == [("error", "size_mismatch", "f0")]
    assert "4 x 8" in result.issues[0].what
    assert "16 x 16" in result.issues[0].what


def test_a_mask_says_the_same_as_present(tmp_path):
    result = found(tmp_path, [{"drawn": blob() * 0}, {"present": "0"}, {"present": "0", "drawn": blob() * 0}])
    assert codes(result) == [("error", "empty_mask", "f0"), ("error", "absent_with_mask", "f1")]


LABELS = np.kron(np.array([[0, 1], [2, 3]]), np.ones((8, 8)))
COLOURS = np.stack([LABELS == 1, LABELS == 2, LABELS == 3], axis=2) * 255


def test_a_mask_of_several_labels_is_found_however_it_is_stored(tmp_path):
    result = found(tmp_path, [{"drawn": LABELS}, {"drawn": LABELS * 85}, {"drawn": COLOURS}])
    assert codes(result) == [("error", "mask_values", "f0"), ("warning", "several_labels", "f1"), ("warning", "several_labels", "f2")]


def test_a_film_of_several_frames_is_told_and_a_volume_is_no_film(tmp_path):
    file = data(tmp_path, [{}, {}])
    (tmp_path / "f0.png").write_bytes(encoded(dataset(np.stack([blob(), blob() * 0]), PatientOrientation=["L", "F"])))
    (tmp_path / "f1.png").write_bytes(frames_of_one_file(np.zeros((3, SIDE, SIDE), np.uint16), [(0, 0, n) for n in range(3)]))
    result = verify(read_manifest(file))
    assert [(i.severity, i.code, i.row) for i in result] == [("warning", "multi_frame", 1), ("error", "volume", 2)]


def test_masks_of_one_label_are_fine_in_any_dress(tmp_path):
    soft = np.asarray(PIL.Image.fromarray(blob()).resize((32, 32), PIL.Image.Resampling.BILINEAR).resize((SIDE, SIDE)))
    red = np.stack([blob(), blob() * 0, blob() * 0], axis=2)
    rgb = np.repeat(blob()[:, :, None], 3, axis=2)
    assert codes(found(tmp_path, [{"drawn": d} for d in (blob(value=1), blob(value=128), soft, red, rgb, blob() * 0 + 255)])) == []


def test_a_jpeg_mask_is_one_label(tmp_path):
    file = data(tmp_path, [{}])
    big = np.kron(blob(), np.ones((4, 4), np.uint8))
    picture(tmp_path / "f0.png", big)
    PIL.Image.fromarray(big).save(tmp_path / "m0.png", "JPEG", quality=75)
    assert codes(verify(read_manifest(file))) == []


def test_a_film_over_the_limit_is_an_error(tmp_path):
    file = data(tmp_path, [{}])
    assert [i.code for i in verify(read_manifest(file), limits=Limits(pixels=100))] == ["too_large", "too_large"]


# ---------------------------------------------------------------- splits


def test_the_same_film_in_two_splits_is_an_error(tmp_path):
    film = np.zeros((SIDE, SIDE))
    rows = [{"film": film}, {"film": film}, {"film": film, "split": "val"}, {"split": "val"}]
    result = found(tmp_path, rows)
    assert codes(result) == [("error", "duplicate_image", "f2")]
    assert "row 1 (f0)" in result.issues[0].what


def test_one_file_named_in_two_splits_is_the_same_film(tmp_path):
    rows = [{"image": "f0.png"}, {"image": "f0.png", "split": "test", "mask": "m0.png"}]
    assert [i.code for i in found(tmp_path, rows)] == ["duplicate_image"]


@pytest.mark.parametrize(("source", "severity"), [("", "error"), ("made by us", "error"), ("Published with the data", "warning")])
def test_shared_patients_are_an_error_unless_the_split_was_published(tmp_path, source, severity):
    film = np.zeros((SIDE, SIDE))
    rows = [{"patient": "p1", "film": film}, {"patient": "p1", "split": "val"}, {"patient": "p2", "split": "test", "film": film}]
    result = found(tmp_path, rows, split_source=source)
    assert codes(result) == [(severity, "shared_patients", ""), (severity, "duplicate_image", "f2")]
    assert "train and val share 1 patients" in result.issues[0].what
    assert result.issues[0].row is None


# ---------------------------------------------------------------- texts and sides


def test_texts_that_are_empty_long_or_strange_are_warnings(tmp_path):
    long = "left lung " * MAX_WORDS
    rows = [{"text": " "}, {"text": long}, {"text": "opacity of the lt lung, and links"}, {"text": "opacity"}]
    result = found(tmp_path, rows)
    assert codes(result) == [("warning", "empty_text", "f0"), ("warning", "long_text", "f1"), ("warning", "unknown_side", "f2")]
    assert "lt, links" in result.issues[2].what


def test_a_side_word_that_nobody_owns_is_a_warning(tmp_path):
    rows = [{}, {"text": "bilateral"}, {"laterality": "patient"}]
    assert codes(found(tmp_path, rows, laterality="none"))[0] == ("warning", "laterality_none", "f0")


def sided(n_left: int, n_right: int) -> list[dict]:
    """Sentences that say left, with masks on the left of the image and on the right."""
    return [{"drawn": blob(left=i < n_left)} for i in range(n_left + n_right)]


def test_agreement_is_told_under_both_conventions(tmp_path):
    result = found(tmp_path, [*sided(6, 2), {"text": "both lungs", "drawn": blob(False)}, {"drawn": np.full((SIDE, SIDE), 255)}])
    assert codes(result) == []
    line = "sides: of 8 one-sided sentences 75.0% agree with the mask under image, 25.0% under patient; declared: image"
    assert line in result.summary


@pytest.mark.parametrize(("declared", "masks"), [("image", (1, 9)), ("patient", (9, 1))])
def test_a_contradicted_laterality_is_a_warning_that_names_the_other(tmp_path, declared, masks):
    result = found(tmp_path, sided(*masks), laterality=declared)
    other = "patient" if declared == "image" else "image"
    assert codes(result) == [("warning", "laterality_contradicted", "")]
    assert "1 of 10" in result.issues[0].what
    assert f"--laterality {other}" in result.issues[0].fix


@pytest.mark.parametrize("masks", [(0, 3), (3, 5), (5, 5)])
def test_chance_is_no_contradiction(tmp_path, masks):
    assert codes(found(tmp_path, sided(*masks))) == []


def test_rows_are_judged_by_their_own_laterality(tmp_path):
    rows = [row | {"laterality": "patient"} for row in sided(0, 6)] + sided(6, 0)
    assert codes(found(tmp_path, rows)) == []


@pytest.mark.parametrize("way", ["RF", "LH", "RH", "FL", "HR"])
def test_sides_are_those_of_the_film_as_it_is_displayed(tmp_path, way):
    """A film is stored in many ways, and its mask lies on its pixels."""
    grid = Geometry((SIDE, SIDE + 3), orientation=tuple(way))
    wide = np.pad(blob(), ((0, 0), (0, 3)))
    stored = grid.stored(wide if grid.displayed_shape == wide.shape else wide.T)
    shown = grid.displayed(stored)
    left = shown[:, : shown.shape[1] // 2].sum() > shown.sum() / 2
    data(tmp_path, [{"text": f"opacity of the lower {'left' if left else 'right'} lung", "drawn": stored, "film": stored}])
    film = dataset(stored, PatientOrientation=list(way))
    (tmp_path / "f0.png").write_bytes(encoded(film))
    summary = verify(read_manifest(tmp_path)).summary
    assert "sides: of 1 one-sided sentences 100.0% agree with the mask under image, 0.0% under patient; declared: image" in summary


def test_a_view_without_sides_has_none(tmp_path):
    data(tmp_path, [{}])
    (tmp_path / "f0.png").write_bytes(encoded(dataset(blob(), PatientOrientation=["A", "F"])))
    assert not any(line.startswith("sides") for line in verify(read_manifest(tmp_path)).summary)


def test_the_middle_column_is_on_no_side(tmp_path):
    middle = np.zeros((SIDE + 1, SIDE + 1))
    middle[:, SIDE // 2] = 255
    assert not any(line.startswith("sides") for line in found(tmp_path, [{"drawn": middle, "film": middle}]).summary)


# ---------------------------------------------------------------- use


def test_a_jobs_file_has_no_masks_to_check(tmp_path):
    data(tmp_path, [{}])
    (tmp_path / "jobs.csv").write_text("image,text\nf0.png,left lung\n")
    assert codes(verify(read_manifest(tmp_path / "jobs.csv", need_masks=False))) == []


def test_progress_counts_every_file_once(tmp_path):
    seen = []
    verify(read_manifest(data(tmp_path, [{}, {"image": "f0.png"}])), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_issue_is_plain_data(tmp_path):
    (issue,) = found(tmp_path, [{"text": ""}])
    assert json.loads(json.dumps(vars(issue)))["code"] == "empty_text"


# ---------------------------------------------------------------- real data


@pytest.mark.data
def test_qata_names_the_side_of_the_image(data_root, tmp_path):
    dataset = read_manifest(import_data("lvit", data_root / "qata_cov19", tmp_path, name="qata_cov19").manifest)
    result = verify(replace(dataset, samples=dataset.samples[::20]))
    assert result.errors == []
    assert {i.code for i in result.warnings} == {"shared_patients"}
    share = float(next(line for line in result.summary if line.startswith("sides")).split("sentences ")[1].split("%")[0])
    assert share > 94


@pytest.mark.data
@pytest.mark.parametrize(("declared", "contradicted"), [("patient", False), ("image", True)])
def test_ct_slices_name_the_side_of_the_patient(data_root, tmp_path, declared, contradicted):
    result = verify(read_manifest(import_data("folder", data_root / "covid_ct", tmp_path, laterality=declared).manifest))
    assert result.errors == []
    assert [i.code for i in result.warnings] == ["laterality_contradicted"] * contradicted
