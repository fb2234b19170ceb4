"""A volume is answered slice by slice, and the answer lies on its own voxels whatever way it is stored."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import nibabel
import numpy as np
import pydicom
import pytest

from dicom_films import frames_of_one_file, write_stack
from dicom_sources import cine, enhanced
from reportseg.bundle import load_bundle
from reportseg.errors import InputError
from reportseg.io import read_image, read_mask
from reportseg.io.cases import read_case
from reportseg.io.nifti import read_nifti
from reportseg.io.series import films_in
from reportseg.io.slices import WINDOWS, brightness, film_of, pixels, view_of, window_for
from reportseg.predict import Segmenter, jobs_from, jobs_from_report, predict_files
from reportseg.types import Volume
from reportseg.volumes import segment_volume
from tiny import LEFT, RIGHT, film

LPS = np.diag([-0.8, -0.8, 2.5, 1.0])
PLACED = {"FrameOfReferenceUID": "1.2.3.4", "StudyInstanceUID": "1.2.3.5"}


@pytest.fixture(scope="module")
def segmenter(bundle):
    return Segmenter.from_pretrained(bundle)


@pytest.fixture
def ct(tmp_path):
    """A small CT: films as slices, x to the patient's left, y to the back, z to the head."""
    slices = np.stack([film(20, 24, seed=n)[:, :, 0] for n in range(5)])
    array = (slices * 400 - 160).astype(np.int16)
    array[0, 0, 0] = -1000  # air
    return nifti(tmp_path / "ct.nii.gz", array.transpose(2, 1, 0), LPS)


def nifti(path, array_ijk, affine):
    nibabel.save(nibabel.Nifti1Image(array_ijk, affine), path)
    return path


def reoriented(path, source, axes):
    image = nibabel.load(source)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes))
    moved = image.as_reoriented(turn)
    return nifti(path, np.asarray(moved.dataobj), moved.affine)


def test_slices_are_answered_as_films_would_be(segmenter, ct):
    volume = read_nifti(ct)
    question = segmenter.ask(RIGHT, "patient")
    told = []
    (answer,) = segment_volume(segmenter, volume, [question], ["a"], 2, lambda n, of: told.append((n, of)))
    for row in range(5):
        pixels = (volume.values_DHW[row] + 1350.0) / 1500  # the window of what is pulmonary
        pixels = pixels.clip(0, 1).astype(np.float32)
        assert np.array_equal(answer.mask_DHW[row], segmenter.segment(pixels, RIGHT, laterality="patient").mask_HW)
    assert answer.mask_DHW.any()
    assert not answer.mask_DHW.all()
    assert answer.voxels == answer.mask_DHW.sum()
    assert answer.volume_ml == pytest.approx(answer.voxels * 0.8 * 0.8 * 2.5 / 1000)
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_a_bundle_that_was_trained_on_films_alone_says_so_of_a_volume(bundle, ct):
    loaded = load_bundle(bundle)
    shown = loaded.config.preprocess.model_copy(update={"windows": {"liver": (60.0, 200.0)}})  # as importers of volumes leave them
    of_slices = replace(loaded, config=loaded.config.model_copy(update={"preprocess": shown}))
    for one, warnings in ((loaded, ("no_volume_training",)), (of_slices, ())):
        segmenter = Segmenter([one])
        (answer,) = segment_volume(segmenter, read_nifti(ct), [segmenter.ask(RIGHT, "patient")], ["a"])
        assert answer.warnings == warnings


@pytest.mark.parametrize("axes", ["RAS", "LPI", "PIR", "ASL", "SRA"])
def test_the_same_volume_stored_another_way_has_the_same_answer_in_the_patient(segmenter, ct, tmp_path, axes):
    other = reoriented(tmp_path / "other.nii.gz", ct, axes)
    done = predict_files(segmenter, jobs_from([ct, other], LEFT), tmp_path / "out")
    assert done.exit_code == 0
    one, two = nibabel.load(tmp_path / "out/ct.nii.gz"), nibabel.load(tmp_path / "out/other.nii.gz")
    assert np.allclose(two.affine, nibabel.load(other).affine)
    assert np.array_equal(*(np.asarray(nibabel.as_closest_canonical(image).dataobj) for image in (one, two)))
    answers = [json.loads((tmp_path / f"out/{name}.json").read_text()) for name in ("ct", "other")]
    assert answers[0]["side"] == answers[1]["side"]
    assert answers[0]["volume_ml"] == pytest.approx(answers[1]["volume_ml"])


def test_films_and_volumes_go_into_one_folder(segmenter, ct, png, tmp_path):
    told = []
    done = predict_files(segmenter, jobs_from([ct, png], LEFT), tmp_path / "out", progress=lambda n, of: told.append((n, of)))
    assert (done.done, done.failed) == (2, 0)
    assert told[-1] == (2, 2)
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"ct.nii.gz", "ct.json", "film.mask.png"} <= names
    assert not any(name.startswith("ct") and "png" in name for name in names), "a volume has no picture"
    with open(tmp_path / "out/predictions.csv", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    answer = json.loads((tmp_path / "out/ct.json").read_text())
    assert (answer["area_px"], answer["voxels"]) == (None, np.asarray(nibabel.load(tmp_path / "out/ct.nii.gz").dataobj).sum())
    assert float(rows["ct"]["volume_ml"]) == pytest.approx(answer["volume_ml"], rel=1e-4)
    assert rows["ct"]["mask"] == "ct.nii.gz"
    assert rows["film"]["volume_ml"] == ""
    again = predict_files(segmenter, jobs_from([ct, png], LEFT), tmp_path / "out", resume=True)
    assert (again.done, again.skipped) == (0, 2)


def test_a_film_can_be_answered_as_nifti_on_its_own_grid(segmenter, tmp_path, png):
    array = (film(20, 24)[:, :, 0] * 255).astype(np.uint8)
    source = nifti(tmp_path / "flat.nii", array.T[:, ::-1], np.diag([-0.5, 0.7, 1, 1]))
    done = predict_files(segmenter, jobs_from([source, png], LEFT), tmp_path / "out", formats=["nifti"])
    assert done.exit_code == 0
    ours = nibabel.load(tmp_path / "out/flat.nii.gz")
    assert np.allclose(ours.affine, nibabel.load(source).affine)
    upright = segmenter.segment(array, LEFT, laterality="patient").mask_HW
    assert np.array_equal(np.asarray(ours.dataobj)[:, :, 0], upright.T[:, ::-1])
    plain = nibabel.load(tmp_path / "out/film.nii.gz")
    assert (int(plain.header["sform_code"]), int(plain.header["qform_code"])) == (0, 0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_file_that_is_flat_in_any_direction_is_a_film_and_is_answered_on_its_own_grid(segmenter, tmp_path, axis):
    array = np.expand_dims((film(20, 24)[:, :, 0] * 255).astype(np.uint8), axis)
    source = nifti(tmp_path / "flat.nii", array, np.diag([-0.5, -0.7, 2, 1]) + np.eye(4, k=1) * [0, 0.01, 0, 0])
    image = read_image(source)
    assert image.pixels_HWC.shape == (24, 20, 1)
    np.testing.assert_allclose(image.pixels_HWC[:, :, 0] * 255, np.squeeze(array).T, atol=1e-4)
    done = predict_files(segmenter, jobs_from([source], LEFT), tmp_path / "out", formats=["nifti", "png"])
    assert done.exit_code == 0
    ours = nibabel.load(tmp_path / "out/flat.nii.gz")
    assert ours.shape == array.shape
    assert np.allclose(ours.affine, nibabel.load(source).affine)
    assert np.array_equal(np.squeeze(np.asarray(ours.dataobj)).T, read_mask(tmp_path / "out/flat.mask.png"))


def test_a_volume_in_monochrome1_is_turned_as_films_are(segmenter, tmp_path):
    slices = np.stack([(film(20, 24, seed=n)[:, :, 0] * 4000).astype(np.uint16) for n in range(3)])
    tags = {"Modality": "MR", "RescaleSlope": None, "RescaleIntercept": None, "BitsStored": 12}
    write_stack(tmp_path / "one", 4095 - slices, PhotometricInterpretation="MONOCHROME1", **tags, WindowCenter=2095, WindowWidth=4000)
    write_stack(tmp_path / "two", slices, **tags, WindowCenter=2000, WindowWidth=4000)
    masks = []
    for name in ("one", "two"):
        volume = read_case(tmp_path / name, {})
        masks.append(next(segment_volume(segmenter, volume, [segmenter.ask(RIGHT, "patient")], ["a"])).mask_DHW)
    assert np.array_equal(*masks)
    assert masks[0].any()


def test_an_enhanced_file_is_a_volume_by_its_path_alone(segmenter, tmp_path):
    enhanced(5, 32).save_as(tmp_path / "Doe^Jane.dcm", enforce_file_format=True)
    cine(5).save_as(tmp_path / "cine.dcm", enforce_file_format=True)
    jobs = jobs_from([tmp_path / "Doe^Jane.dcm", tmp_path / "cine.dcm"], LEFT)
    done = predict_files(segmenter, jobs, tmp_path / "out", formats=["png", "dicom-seg"])
    volume, loop = (json.loads((tmp_path / f"out/{job.id}.json").read_text()) for job in jobs)
    assert done.exit_code == 0
    assert volume["voxels"] is not None
    assert nibabel.load(tmp_path / f"out/{jobs[0].id}.nii.gz").shape == (32, 32, 5)
    assert loop["area_px"] is not None
    assert "multi_frame" in loop["warnings"]
    with films_in([tmp_path]) as (films, _, stacks):
        assert [job.id for job in jobs_from(films, LEFT, stacks=stacks)] == [job.id for job in jobs]


def test_each_phase_in_one_file_is_a_volume_with_a_seg_on_its_own_frames(segmenter, tmp_path):
    values = np.stack([film(20, 24, seed=n)[:, :, 0] * 400 + 900 for n in range(6)]).astype(np.uint16)
    places = [(0, 0, 2 * (n // 2)) for n in range(6)]
    told = {"TemporalPositionIndex": [1, 2] * 3}
    (tmp_path / "Doe^Jane.dcm").write_bytes(frames_of_one_file(values, places, told=told, **PLACED))
    with films_in([tmp_path / "Doe^Jane.dcm"]) as (films, _, stacks):
        jobs = jobs_from(films, LEFT, stacks=stacks)
        done = predict_files(segmenter, jobs, tmp_path / "out", formats=["nifti", "dicom-seg"], stacks=stacks)
        again = predict_files(segmenter, jobs, tmp_path / "out", formats=["nifti", "dicom-seg"], stacks=stacks, resume=True)
    assert (done.done, again.skipped, done.failures) == (2, 2, ())
    for phase, job in enumerate(jobs):
        assert json.loads((tmp_path / f"out/{job.id}.json").read_text())["warnings"] == ["several_phases", "no_volume_training"]
        mask = np.asarray(nibabel.load(tmp_path / f"out/{job.id}.nii.gz").dataobj).transpose(2, 1, 0)
        seg = pydicom.dcmread(tmp_path / f"out/{job.id}.seg.dcm")
        found = {}
        for frame, group in zip(seg.pixel_array.reshape(-1, 20, 24), seg.PerFrameFunctionalGroupsSequence, strict=True):
            source = group.DerivationImageSequence[0].SourceImageSequence[0]
            assert group.PlanePositionSequence[0].ImagePositionPatient == list(places[source.ReferencedFrameNumber - 1])
            found[source.ReferencedFrameNumber] = frame
        assert set(found) <= {phase + 1, phase + 3, phase + 5} and found
        for row, number in enumerate((phase + 1, phase + 3, phase + 5)):
            assert np.array_equal(found.get(number, np.zeros((20, 24))), mask[row])


def test_a_phase_that_cannot_be_read_is_named_by_its_id_alone(segmenter, tmp_path):
    body = frames_of_one_file(np.zeros((4, 20, 24), np.uint16), [(0, 0, 0), (0, 0, 2)] * 2, told={"EffectiveEchoTime": [1, 1, 2, 2]})
    (tmp_path / "Doe^Jane.dcm").write_bytes(body[:-100])
    with films_in([tmp_path / "Doe^Jane.dcm"]) as (films, _, stacks):
        jobs = jobs_from(films, LEFT, stacks=stacks)
        done = predict_files(segmenter, jobs, tmp_path / "out", stacks=stacks)
    assert done.exit_code == 2 and [error.code for _, error in done.failures] == ["truncated"] * 2
    assert not any("Doe" in str(error) or "Doe" in error.what for _, error in done.failures)
    alone = predict_files(segmenter, jobs_from([tmp_path / "Doe^Jane.dcm"], LEFT), tmp_path / "table")
    assert [error.code for _, error in alone.failures] == ["several_series"] and "Doe" not in str(alone.failures)


def test_a_missing_slice_is_an_empty_plane_and_its_neighbours_count_as_they_are(segmenter, tmp_path):
    values = np.stack([(film(20, 24, seed=n)[:, :, 0] * 400 - 160).astype(np.int16) + 1024 for n in range(6)])
    paths = write_stack(tmp_path / "ct", values, **PLACED)
    whole = predict_files(segmenter, jobs_from([tmp_path / "ct"], LEFT), tmp_path / "whole")
    paths[2].unlink()
    jobs = jobs_from([tmp_path / "ct"], LEFT)
    assert predict_files(segmenter, jobs, tmp_path / "out", formats=["nifti", "dicom-seg"]).exit_code == whole.exit_code == 0
    (before,) = (nibabel.load(file) for file in (tmp_path / "whole").glob("*.nii.gz"))
    after = nibabel.load(tmp_path / f"out/{jobs[0].id}.nii.gz")
    assert np.allclose(after.affine, before.affine)
    expected = np.asarray(before.dataobj).copy()
    expected[:, :, 2] = 0
    assert np.array_equal(np.asarray(after.dataobj), expected)
    answer = json.loads((tmp_path / f"out/{jobs[0].id}.json").read_text())
    assert answer["volume_ml"] == pytest.approx(expected.sum() * 0.5 * 0.7 * 2 / 1000)
    assert answer["warnings"] == ["slice_gaps", "no_volume_training"]
    heights = [float(one.ImagePositionPatient[2]) for one in read_case(tmp_path / "ct", {}).headers]
    assert heights == [0, 2, 6, 8, 10]


def test_probabilities_of_a_volume_are_the_fractions_of_its_seg(segmenter, tmp_path):
    values = np.stack([(film(20, 24, seed=n)[:, :, 0] * 400 - 160).astype(np.int16) + 1024 for n in range(4)])
    write_stack(tmp_path / "ct", values, **PLACED)
    report = "Left pleural effusion. Pneumonia in the right lower lobe. No pneumothorax."
    jobs, reports = jobs_from_report(segmenter, [tmp_path / "ct"], report)
    options = {"formats": ["dicom-seg"], "reports": reports, "laterality": "patient"}
    assert predict_files(segmenter, jobs, tmp_path / "out", probabilities=True, **options).exit_code == 0
    seg = pydicom.dcmread(tmp_path / f"out/{reports[0].id}.seg.dcm")
    assert (seg.SegmentationType, len(seg.SegmentSequence)) == ("FRACTIONAL", 2)
    volume = read_case(tmp_path / "ct", {})
    questions = [segmenter.ask(job.text, "patient", "patient", job.finding) for job in jobs]
    answers = list(segment_volume(segmenter, volume, questions, ["a", "b"], probabilities=True))
    uids = [header.SOPInstanceUID for header in volume.headers]
    for frame, group in zip(seg.pixel_array, seg.PerFrameFunctionalGroupsSequence, strict=True):
        row = uids.index(group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)
        answer = answers[group.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1]
        assert np.array_equal(frame, answer.probability_DHW[row])
    middle = view_of(volume.affine).shown(answers[0].probability_DHW)[2] / 255
    gray = pixels_of(volume, 2)
    assert np.abs(middle - segmenter.segment(gray, jobs[0].text, laterality="patient").probability_HW).max() < 0.51 / 255


def pixels_of(volume, row):
    """A slice as it is shown, in the window of what is pulmonary or the default one."""
    low, high = brightness(volume, WINDOWS["default"])
    return pixels(view_of(volume.affine).shown(volume.values_DHW)[row], low, high)


def test_uneven_slices_have_no_nifti_file_and_a_seg_that_holds_their_places(segmenter, tmp_path):
    paths = write_stack(tmp_path / "ct", np.full((4, 20, 24), 1024, np.int16), **PLACED)
    moved = pydicom.dcmread(paths[3])
    moved.ImagePositionPatient = [0, 0, 7.1]
    moved.save_as(paths[3])
    jobs = jobs_from([tmp_path / "ct"], LEFT)
    assert predict_files(segmenter, jobs, tmp_path / "none").exit_code == 2
    with open(tmp_path / "none/failures.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["code"] == "uneven_slices"
    assert "dicom-seg" in row["fix"]
    assert predict_files(segmenter, jobs, tmp_path / "out", formats=["dicom-seg"]).exit_code == 0
    assert json.loads((tmp_path / f"out/{jobs[0].id}.json").read_text())["warnings"] == ["slice_gaps", "no_volume_training"]


def test_a_denied_text_has_an_empty_volume_and_a_report_an_answer_each(segmenter, ct):
    volume = read_nifti(ct)
    asked = [segmenter.ask(text, "patient") for text in ("No effusion.", LEFT, "femoral head", RIGHT)]
    answers = list(segment_volume(segmenter, volume, asked, list("abcd")))
    assert [a.id for a in answers] == list("abcd")
    assert not answers[0].mask_DHW.any()
    assert answers[0].side is None
    assert [a.text for a in answers] == [q.text for q in asked]
    alone = next(segment_volume(segmenter, volume, [asked[3]], ["d"]))
    assert np.array_equal(alone.mask_DHW, answers[3].mask_DHW)


def test_answers_to_volumes_say_whether_they_were_averaged_with_mirrors(bundle, ct, tmp_path):
    mirrored = Segmenter.from_pretrained(bundle, flips=True)
    predict_files(mirrored, jobs_from([ct], RIGHT), tmp_path / "o")
    assert json.loads((tmp_path / "o" / "ct.json").read_text())["decision"]["flips"] is True
    assert predict_files(mirrored, jobs_from([ct], RIGHT), tmp_path / "o", resume=True).skipped == 1


def test_slices_without_left_and_right_are_not_mirrored(bundle, tmp_path):
    array = np.random.default_rng(0).integers(-200, 200, (2, 24, 20)).astype(np.int16)  # two slices from the right to the left
    volume = read_nifti(nifti(tmp_path / "s.nii", array, np.diag([-5.0, -1.0, 1.0, 1.0])))
    masks = [
        next(iter(segment_volume(one, volume, [one.ask(RIGHT, "patient")], ["a"], 2, lambda n, of: None))).mask_DHW
        for one in (Segmenter.from_pretrained(bundle, flips=flips) for flips in (True, False))
    ]
    assert np.array_equal(*masks)


@pytest.mark.parametrize(
    ("text", "window"), [("liver", "default"), ("Head of left FEMUR", "femur"), ("both lungs", "lung"), ("", "default")]
)
def test_a_prompt_has_the_window_of_its_organ(text, window):
    assert window_for(text) == WINDOWS[window]
    assert window_for("the liver", {"liver": (60.0, 200.0)}) == (60.0, 200.0)
    assert window_for("the deliverance", {"liver": (60.0, 200.0)}) == WINDOWS["default"]


def test_only_ct_is_shown_in_hounsfield_units():
    def volume(values, **more):
        return Volume(np.asarray(values).reshape(1, 1, -1), tuple(map(tuple, np.eye(4))), "nifti", **more)

    window = (40.0, 400.0)
    assert brightness(volume([-1000, 0, 50]), window) == (-160, 240)
    for hole in (np.nan, np.inf, -np.inf):  # one voxel that is no number tells nothing
        assert brightness(volume([-1000, 0, 50, hole]), window) == (-160, 240)
        assert brightness(volume([300, 300, 300, hole]), window) == (300, 300)
    assert brightness(volume([0, 50], modality="CT"), window) == (-160, 240)
    assert brightness(volume([0, 50], modality="MR", window=(20, 10)), window) == (15, 25)
    assert brightness(volume(np.arange(1001.0)), window) == pytest.approx((5, 995))
    assert brightness(volume(np.uint8([3, 7])), window) == (0, 255)
    assert brightness(volume([np.nan, np.nan]), window) == (0, 1)


def test_what_cannot_be_answered_is_told_case_by_case(segmenter, ct, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.nii.gz").write_bytes(ct.read_bytes()[:-200])
    paths = [ct, tmp_path / "empty", tmp_path / "cut.nii.gz", tmp_path / "none.nii"]
    done = predict_files(segmenter, jobs_from(paths, LEFT), tmp_path / "out")
    assert done.exit_code == 3
    assert [error.code for _, error in done.failures] == ["missing", "no_dicom", "truncated"]
    for format in ("dicom-seg", "dicom-gsps"):
        refused = predict_files(segmenter, jobs_from([ct], LEFT), tmp_path / format, formats=[format])
        assert refused.exit_code == 2
    with pytest.raises(InputError, match="not a film"):
        read_image(ct)


def test_a_folder_of_dicom_slices_is_one_case_and_gets_a_seg_on_its_frames(segmenter, ct, tmp_path):
    values = read_nifti(ct).values_DHW
    write_stack(tmp_path / "Doe.Jane", (values + 1024).astype(np.uint16), Modality="CT", RescaleSlope=1, RescaleIntercept=-1024, **PLACED)
    with films_in([tmp_path / "Doe.Jane"]) as (films, _, stacks):
        assert len(films) == 1
        jobs = jobs_from(films, LEFT, stacks=stacks)
        done = predict_files(segmenter, jobs, tmp_path / "out", formats=["nifti", "dicom-seg"], stacks=stacks)
        volume = read_case(films[0], stacks)
    assert done.exit_code == 0, done.failures
    mask = read_nifti(tmp_path / f"out/{jobs[0].id}.nii.gz")
    assert np.allclose(mask.affine, volume.affine)
    assert np.array_equal(volume.values_DHW, values)
    asked = segmenter.ask(LEFT, "patient")
    assert np.array_equal(mask.values_DHW, next(segment_volume(segmenter, volume, [asked], ["x"])).mask_DHW)
    seg = pydicom.dcmread(tmp_path / f"out/{jobs[0].id}.seg.dcm")
    pixels = seg.pixel_array.reshape(-1, *values.shape[1:])
    places = [float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in seg.PerFrameFunctionalGroupsSequence]
    for place, frame in zip(places, pixels, strict=True):
        number = [float(h.ImagePositionPatient[2]) for h in volume.headers].index(place)
        assert np.array_equal(frame, mask.values_DHW[number])
    assert pixels.sum() == mask.values_DHW.sum()
    assert not any("Doe" in file.name for file in (tmp_path / "out").iterdir())
    by_folder = predict_files(segmenter, jobs_from([tmp_path / "Doe.Jane"], LEFT), tmp_path / "again")
    assert by_folder.exit_code == 0
    assert not any("Doe" in file.name for file in (tmp_path / "again").iterdir())


@pytest.mark.parametrize("change", ["replaced", "missing", "moved"])
def test_a_resume_knows_a_series_by_all_of_its_slices(segmenter, tmp_path, change):
    paths = write_stack(tmp_path / "study", (np.stack([film(16, 16, seed=n)[:, :, 0] for n in range(4)]) * 900).astype(np.uint16), **PLACED)

    def again(**options):
        with films_in([tmp_path / "study"]) as (films, _, stacks):
            return predict_files(segmenter, jobs_from(films, LEFT, stacks=stacks), tmp_path / "out", stacks=stacks, **options)

    assert again().done == 1
    if change == "moved":
        paths[1].rename(tmp_path / "study" / "9.dcm")
        assert again(resume=True).skipped == 1, "a slice may have another name"
        return
    if change == "replaced":
        body = bytearray(paths[2].read_bytes())
        body[-1] ^= 1
        paths[2].write_bytes(body)
    else:
        paths[3].unlink()
    with pytest.raises(InputError, match="another film"):
        again(resume=True)


def test_a_flat_file_of_any_orientation_is_shown_the_same_way(tmp_path):
    array = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    shown = []
    for name, affine in (("a", np.diag([-1.0, -1, 1, 1])), ("b", np.diag([1.0, -1, 1, 1])), ("c", np.diag([-1.0, 1, 1, 1]))):
        turned = array[:: -1 if affine[0, 0] > 0 else 1, :: -1 if affine[1, 1] > 0 else 1]
        image = film_of(read_nifti(nifti(tmp_path / f"{name}.nii", turned, affine)))
        shown.append(image.geometry.displayed(image.pixels_HWC))
        assert image.laterality == "patient"
        assert image.geometry.spacing_mm == (1, 1)
        view_of(image.geometry.affine)
    assert all(np.array_equal(one, shown[0]) for one in shown)
    assert np.array_equal(shown[0][:, :, 0] * 255, array[:, :, 0].T)
