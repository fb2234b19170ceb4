"""predict with DICOM in and DICOM out: one object a film, the same pixels, resumable, and no name but the patient's."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import PIL.Image
import pydicom
import pytest

from dicom_sources import film, slices
from reportseg.io import read_mask
from reportseg.predict import jobs_from, jobs_from_report, predict_files
from test_predict import ids, refused, rows, segmenter  # noqa: F401 - a fixture
from tiny import LEFT

ALL = ["png", "dicom-seg", "dicom-gsps", "dicom-sc"]
DICOM = ("seg.dcm", "gsps.dcm", "sc.dcm")
REPORT = "There is a left pleural effusion. Possible pneumonia in the right lower lobe. No pneumothorax."


@pytest.fixture
def films(tmp_path):
    """Two films in files that bear a name."""
    paths = []
    for name, source in (("Zyx_Planted_1", film("CR", 32)), ("Zyx_Planted_2", film("DX", 32, wide=9))):
        paths.append(tmp_path / f"{name}.dcm")
        source.save_as(paths[-1], enforce_file_format=True)
    return paths


def test_each_film_gets_its_objects_beside_the_pngs(segmenter, films, tmp_path, caplog, capfd):  # noqa: F811
    out = tmp_path / "out"
    done = predict_files(segmenter, jobs_from(films, LEFT), out, formats=ALL)
    assert (done.done, done.exit_code) == (2, 0)
    for path, case in zip(films, ids(out), strict=True):
        source = pydicom.dcmread(path)
        seg = hd.seg.segread(out / f"{case}.seg.dcm")
        mask = seg.get_pixels_by_source_instance([source.SOPInstanceUID])[0, ..., 0]
        assert (mask == read_mask(out / f"{case}.mask.png")).all()
        assert mask.any()
        assert all((out / f"{case}.{kind}").is_file() for kind in DICOM)
    written = "".join(file.name for file in out.iterdir()) + caplog.text + "".join(capfd.readouterr())
    written += "".join(file.read_text() for file in out.iterdir() if file.suffix in (".json", ".csv"))
    written += "".join(str(pydicom.dcmread(file)[0x00200000:]) for file in out.glob("*.dcm"))
    assert "lanted" not in written.lower().replace("zyx^planted", "")
    assert LEFT not in "".join(str(pydicom.dcmread(file)) for file in out.glob("*.dcm"))


def test_a_reports_findings_are_segments_of_one_object(segmenter, films, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    jobs, reports = jobs_from_report(segmenter, films[:1], REPORT)
    predict_files(segmenter, jobs, out, formats=["dicom-seg", "dicom-gsps"], laterality="patient", reports=reports, keep_text=True)
    film_id = reports[0].id
    seg = pydicom.dcmread(out / f"{film_id}.seg.dcm")
    assert [one.SegmentLabel for one in seg.SegmentSequence] == ["pleural effusion", "possible pneumonia"]
    assert "left pleural effusion" in seg.SegmentSequence[0].SegmentDescription
    assert sorted(file.name for file in out.glob("*.dcm")) == [f"{film_id}.gsps.dcm", f"{film_id}.seg.dcm"]
    assert {row["mask"] for row in rows(out)} == {f"{film_id}.seg.dcm"}
    assert not list(out.glob("*.png"))


def test_probabilities_are_what_the_png_holds(segmenter, films, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    predict_files(segmenter, jobs_from(films[:1], LEFT), out, formats=["png", "dicom-seg"], probabilities=True)
    (case,) = ids(out)
    stored = np.asarray(PIL.Image.open(out / f"{case}.prob.png")) / 65535
    found = hd.seg.segread(out / f"{case}.seg.dcm").get_pixels_by_source_instance([pydicom.dcmread(films[0]).SOPInstanceUID])
    assert np.abs(found[0, ..., 0] - stored).max() < 0.6 / 255


def test_a_denied_prompt_is_an_empty_segment(segmenter, films, tmp_path):  # noqa: F811
    predict_files(segmenter, jobs_from(films[:1], "No pneumothorax."), tmp_path / "out", formats=ALL[1:])
    (file,) = (tmp_path / "out").glob("*.seg.dcm")
    seg = pydicom.dcmread(file)
    assert seg.SegmentSequence[0].SegmentLabel == "pneumothorax"
    assert not seg.pixel_array.any()


def test_what_is_no_dicom_is_refused_and_the_others_go_on(segmenter, films, png, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    done = predict_files(segmenter, jobs_from([png, films[0]], LEFT), out, formats=["dicom-seg"])
    assert (done.done, done.failed, done.exit_code) == (1, 1, 3)
    assert [(row["id"], row["code"]) for row in rows(out, "failures.csv")] == [("film", "not_dicom")]
    assert predict_files(segmenter, jobs_from([png], LEFT), tmp_path / "none", formats=["dicom-seg"]).exit_code == 2


def test_headers_that_do_not_allow_an_object_fail_their_case_alone(segmenter, films, tmp_path):  # noqa: F811
    lost = slices(count=1)[0]
    del lost.FrameOfReferenceUID
    lost.save_as(tmp_path / "lost.dcm", enforce_file_format=True)
    out = tmp_path / "out"
    done = predict_files(segmenter, jobs_from([films[0], tmp_path / "lost.dcm"], LEFT), out, formats=["png", "dicom-seg"])
    assert (done.done, done.failed) == (1, 1)
    (failure,) = rows(out, "failures.csv")
    assert failure["code"] == "dicom_source"
    assert len(ids(out)) == 1
    assert not list(out.glob(f"{failure['id']}*"))


@pytest.mark.parametrize("kind", ["dicom-seg", "dicom-gsps", "dicom-sc"])
def test_a_name_of_an_unknown_kind_of_value_fails_its_film_alone(segmenter, films, tmp_path, kind):  # noqa: F811
    body = films[0].read_bytes()
    place = body.index(b"\x10\0\x10\0PN")
    films[0].write_bytes(body[: place + 4] + b"PM" + body[place + 6 :])
    out = tmp_path / "out"
    done = predict_files(segmenter, jobs_from(films, LEFT), out, formats=["png", kind])
    assert (done.done, done.failed, done.exit_code) == (1, 1, 3)
    (failure,) = rows(out, "failures.csv")
    assert failure["code"] == "dicom_source" and "lanted" not in str(failure)
    assert failure["id"] not in ids(out) and len(ids(out)) == 1
    assert [file.name for file in out.glob("*.dcm")] == [f"{ids(out)[0]}.{kind.removeprefix('dicom-')}.dcm"]


def test_resume_makes_a_film_anew_whose_object_or_one_of_whose_answers_is_missing(segmenter, films, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    jobs, reports = jobs_from_report(segmenter, films, REPORT)
    options = {"formats": ["dicom-seg"], "laterality": "patient", "reports": reports}
    predict_files(segmenter, jobs, out, **options)
    first, second = (out / f"{report.id}.seg.dcm" for report in reports)
    kept = second.read_bytes()
    (out / f"{jobs[0].id}.json").unlink()
    done = predict_files(segmenter, jobs, out, **options, resume=True)
    assert (done.done, done.skipped) == (2, 2)
    assert len(pydicom.dcmread(first).SegmentSequence) == 2
    assert second.read_bytes() == kept
    second.unlink()
    assert predict_files(segmenter, jobs, out, **options, resume=True).done == 2
    assert len(ids(out)) == 4


def test_an_object_that_lies_there_is_not_overwritten(segmenter, films, tmp_path):  # noqa: F811
    jobs = jobs_from(films[:1], LEFT)
    (tmp_path / f"{jobs[0].id}.gsps.dcm").write_text("mine")
    refused("exists", segmenter, jobs, tmp_path, formats=["dicom-gsps"])
    predict_files(segmenter, jobs, tmp_path, formats=["dicom-gsps"], overwrite=True)
    assert (tmp_path / f"{jobs[0].id}.gsps.dcm").read_bytes()[128:132] == b"DICM"
