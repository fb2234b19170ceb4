"""Slices are put together again and scored as what they are: volumes."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from reportseg.data.manifest import write_manifest
from reportseg.errors import InputError
from reportseg.evaluate import evaluate
from reportseg.io.png import write_mask
from reportseg.metrics import border, score_case
from reportseg.schemas.base import read_json
from reportseg.schemas.data import DatasetFile
from reportseg.schemas.metrics import Metrics
from reportseg.scoring import MaskSource
from reportseg.types import Sample
from reportseg.volume_scores import Volumes, are_volumes, volume_scores


def cube(shape, corner, sides) -> np.ndarray:
    out = np.zeros(shape, bool)
    out[tuple(slice(c, c + s) for c, s in zip(corner, sides, strict=True))] = True
    return out


def rows(study="s", label="liver", n=6, patient="p", spacing=((2.0, 1.0), 5.0)) -> list[Sample]:
    place = {"spacing_mm": spacing[0], "slice_mm": spacing[1]}
    return [
        Sample(
            f"{study}-{label}-{i}",
            Path("a"),
            Path("b"),
            "",
            patient=patient,
            label=label,
            study=study,
            slice=i,
            **place,
        )
        for i in range(n)
    ]


SPACING = (3.0, 1.0, 0.5)
TRUTH = cube((6, 8, 8), (1, 2, 2), (3, 4, 4))
SHIFTED = cube((6, 8, 8), (2, 2, 2), (3, 4, 4))  # by one slice of 5 mm


def test_a_volume_is_scored_by_hand():
    samples = rows()
    volumes = Volumes(samples)
    for sample, truth, mask in zip(samples, TRUTH, SHIFTED, strict=True):
        volumes.add(sample, truth, mask)
    (one,) = volumes.scored
    assert (one.case.tp, one.case.fp, one.case.fn) == (32, 16, 16)
    assert one.case.dice == pytest.approx(2 / 3)
    assert one.case.hd95 == pytest.approx(5.0)  # a slice, not a pixel
    assert one.volume_ml == one.true_volume_ml == pytest.approx(48 * 10 / 1000)
    (scores,) = volume_scores(volumes.scored, 50).values()
    assert (scores.n_volumes, scores.volume_error_ml) == (1, 0)


def test_distances_agree_with_monai():
    import torch
    from monai.metrics import compute_hausdorff_distance

    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = (cube((9, 12, 12), rng.integers(0, 4, 3), rng.integers(2, 6, 3)) for _ in range(2))
        theirs = compute_hausdorff_distance(
            torch.from_numpy(a)[None, None],
            torch.from_numpy(b)[None, None],
            include_background=True,
            percentile=95,
            spacing=[3.0, 1.0, 0.5],
        )
        assert score_case("x", "", a, b, spacing_mm=SPACING).hd95 == pytest.approx(float(theirs), rel=1e-5)


def test_the_border_of_a_volume_is_its_surface():
    solid = cube((5, 5, 5), (0, 0, 0), (5, 5, 5))
    assert border(solid).sum() == 125 - 27
    assert border(solid[0]).sum() == 16
    assert score_case("x", "", solid, ~solid, spacing_mm=(2.0, 1.0, 1.0)).hd95 == pytest.approx(np.hypot(10, np.hypot(5, 5)))


def test_slices_may_come_in_any_order_and_rows_of_one_slice_are_united():
    samples = rows() + [replace(s, id=s.id + "-b") for s in rows()]
    left, right = TRUTH.copy(), TRUTH.copy()
    left[:, :, 4:], right[:, :, :4] = False, False
    jobs = list(zip(samples, [*left, *right], strict=True))
    volumes = Volumes(samples)
    for place in np.random.default_rng(1).permutation(len(jobs)):
        sample, mask = jobs[place]
        volumes.add(sample, mask, mask)
    (one,) = volumes.scored
    assert (one.case.dice, one.case.tp, one.slices) == (1.0, 48, 6)
    assert not volumes.open, "nothing is held"


def test_studies_and_labels_are_apart_and_gaps_are_said():
    samples = rows("s1") + rows("s2", patient="q") + [s for s in rows("s1", "spleen") if s.slice != 3] + rows("s2", "spleen", patient="q")
    volumes = Volumes(samples)
    for sample in samples:
        volumes.add(sample, TRUTH[sample.slice], TRUTH[sample.slice] & (sample.study == "s1"))
    scores = volume_scores(volumes.scored, 50)
    assert set(scores) == {"all", "liver", "spleen"}
    assert [scores[name].n_volumes for name in ("all", "liver", "spleen")] == [4, 2, 2]
    assert scores["liver"].dice_mean == 0.5
    assert set(scores["liver"].ci95) >= {"dice_mean", "hd95"}
    assert {(v.study, v.label) for v in volumes.scored if v.case.warnings} == {("s1", "spleen")}


@pytest.mark.parametrize(("left", "hd95"), [((0, 1, 3, 4, 5), 10), ((0, 2, 4), 10), (range(6), 5)])
def test_a_slice_that_is_missing_moves_no_other_and_counts_nothing(left, hd95):
    samples = [sample for sample in rows() if sample.slice in left]
    volumes = Volumes(samples)
    for sample in samples:
        volumes.add(sample, TRUTH[sample.slice], SHIFTED[sample.slice])
    (one,) = volumes.scored
    step = 2 if left == (0, 2, 4) else 1  # thinned evenly, each stands for two
    assert one.true_volume_ml == pytest.approx(TRUTH[list(left)].sum() * step * 10 / 1000)
    assert one.case.hd95 == pytest.approx(hd95)
    assert one.case.warnings == (("slice_gaps",) if len(left) == 5 else ())


def test_without_a_distance_of_slices_all_is_in_voxels():
    samples = rows(spacing=((2.0, 1.0), None))
    volumes = Volumes(samples)
    for sample, truth, mask in zip(samples, TRUTH, SHIFTED, strict=True):
        volumes.add(sample, truth, mask)
    assert volumes.scored[0].case.hd95 == 1.0
    assert volumes.scored[0].volume_ml is None
    assert volume_scores(volumes.scored, 50)["all"].volume_error_ml is None
    assert are_volumes(samples)
    assert not are_volumes([replace(samples[0], study="")])


def test_slices_of_several_sizes_are_no_volume():
    volumes = Volumes(rows())
    volumes.add(rows()[0], TRUTH[0], TRUTH[0])
    with pytest.raises(InputError) as caught:
        volumes.add(rows()[1], TRUTH[0, :4], TRUTH[0, :4])
    assert caught.value.code == "size_mismatch"


def manifest_of(folder: Path, labels=("liver",)) -> Path:
    table = []
    for number in range(6):
        for label in labels:
            for kind in ("images", "masks"):
                (folder / kind).mkdir(exist_ok=True)
                write_mask(folder / kind / f"{label}{number}.png", TRUTH[number])
            row = {"image": f"images/{label}{number}.png", "mask": f"masks/{label}{number}.png", "text": label, "split": "test"}
            row |= {"label": label, "study": "a", "slice": str(number), "spacing_mm": "2 1 5", "present": str(int(TRUTH[number].any()))}
            table.append(row)
    write_manifest(folder, table, DatasetFile(name="x"))
    return folder


@pytest.mark.parametrize("axes", ["LPS", "RAS", "SRA"])
def test_a_nifti_file_of_anybody_is_scored_slice_by_slice_whatever_its_orientation(tmp_path, axes):
    """`slice` counts as slices are displayed: from the feet, the front up, the patient's right on the left."""
    mask = nibabel.Nifti1Image(SHIFTED.transpose(2, 1, 0).astype(np.uint8) * 3, np.diag([-1.0, -2, 5, 1]))
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(mask.affine), nibabel.orientations.axcodes2ornt(axes))
    (tmp_path / "answers").mkdir()
    nibabel.save(mask.as_reoriented(turn), tmp_path / "answers/a.nii.gz")
    evaluate(None, manifest_of(tmp_path), masks=tmp_path / "answers", out=tmp_path / "out", n_boot=50)
    scores = read_json(tmp_path / "out/metrics.json", Metrics).volumes["all"]
    assert scores.dice_mean == pytest.approx(2 / 3)
    assert scores.hd95 == pytest.approx(5.0)


def test_each_organ_has_a_nifti_file_of_its_own(tmp_path):
    (tmp_path / "answers").mkdir()
    for label, mask in (("liver", TRUTH), ("left kidney", SHIFTED)):
        image = nibabel.Nifti1Image(mask.transpose(2, 1, 0).astype(np.uint8), np.diag([-1.0, -2, 5, 1]))
        nibabel.save(image, tmp_path / f"answers/a_{label.replace(' ', '-')}.nii.gz")
    evaluate(None, manifest_of(tmp_path, ("liver", "left kidney")), masks=tmp_path / "answers", out=tmp_path / "out", n_boot=50)
    volumes = read_json(tmp_path / "out/metrics.json", Metrics).volumes
    assert (volumes["liver"].dice_mean, volumes["left kidney"].dice_mean) == (1, pytest.approx(2 / 3))


@pytest.mark.parametrize(
    ("labels", "change", "code"),
    [
        (("liver",), lambda array, affine: (array * np.arange(1, 9, dtype=np.uint8)[:, None, None], affine), "mask_values"),
        (("liver",), lambda array, affine: (array[:, :, :3], affine), "size_mismatch"),
        (("liver",), lambda array, affine: (array[:-1], affine), "size_mismatch"),
        (("liver",), lambda array, affine: (array, None), "orientation"),
        (("liver", "spleen"), lambda array, affine: (array, affine), "missing"),
    ],
)
def test_a_nifti_file_that_cannot_be_the_mask_fails_its_slices(tmp_path, labels, change, code):
    (tmp_path / "answers").mkdir()
    array, affine = change(TRUTH.transpose(2, 1, 0).astype(np.uint8), np.diag([-1.0, -2, 5, 1]))
    image = nibabel.Nifti1Image(array, affine)
    if affine is None:
        image.header.set_sform(None, 0), image.header.set_qform(None, 0)
    nibabel.save(image, tmp_path / "answers/a.nii.gz")
    source = MaskSource(tmp_path / "answers", [sample for label in labels for sample in rows("a", label)])
    with pytest.raises(InputError) as caught:
        source.read(rows("a", "liver")[5], (8, 8))
    assert caught.value.code == code


def test_evaluate_scores_the_volumes_of_a_manifest(tmp_path):
    table = []
    for study, answer in (("a", TRUTH), ("b", SHIFTED)):
        for number in range(6):
            name = f"{study}{number}"
            for folder, mask in (("images", TRUTH), ("masks", TRUTH), ("answers", answer)):
                (tmp_path / folder).mkdir(exist_ok=True)
                write_mask(tmp_path / folder / f"{name}.png", mask[number])
            row = {"image": f"images/{name}.png", "mask": f"masks/{name}.png", "text": "liver", "split": "test", "patient": study}
            row |= {"label": "liver", "study": study, "slice": str(number), "spacing_mm": "2 1 5", "present": str(int(TRUTH[number].any()))}
            table.append(row)
    write_manifest(tmp_path, table, DatasetFile(name="x"))
    evaluate(None, tmp_path, masks=tmp_path / "answers", out=tmp_path / "out", n_boot=50)
    metrics = read_json(tmp_path / "out/metrics.json", Metrics)
    assert metrics.volume_hd95_unit == "mm"
    assert set(metrics.volumes) == {"all"}
    assert metrics.volumes["all"].dice_mean == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.volumes["all"].hd95 == pytest.approx(2.5)
    with open(tmp_path / "out/volumes.csv", newline="") as file:
        assert [(row["study"], row["label"], row["slices"]) for row in csv.DictReader(file)] == [("a", "liver", "6"), ("b", "liver", "6")]
    assert "Scores of volumes in three dimensions" in (tmp_path / "out/report.html").read_text()
