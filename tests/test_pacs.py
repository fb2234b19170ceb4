"""Studies found, fetched and stored: against a small DICOMweb service on this machine, and against Orthanc where it is installed."""

from __future__ import annotations

import io
import json

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, RLELossless
from typer.testing import CliRunner

import dicom_sources
from dicom_films import dataset, encoded, write_stack
from pacs_server import Archive, hang_up, parts, rows, send
from reportseg.cli import app
from reportseg.errors import InputError
from reportseg.io.dicom_gsps import write_gsps
from reportseg.io.dicom_sc import write_sc
from reportseg.io.dicom_seg import write_seg
from reportseg.io.series import find_series, read_volume
from reportseg.limits import Limits
from reportseg.pacs import Pacs, fetch, series_of, store, studies
from reportseg.pacs_http import PASSWORD, USER, Wire
from test_dicom_out import SHA, segment
from test_scripts import script

STUDY = "1.2.3"


def film(number: int = 1, series: str = "1.2.3.4", value: int = 7, **tags) -> bytes:
    uids = {"StudyInstanceUID": STUDY, "SeriesInstanceUID": series, "SOPInstanceUID": f"{series}.{number}"}
    return encoded(dataset(np.full((8, 9), value, np.uint16), **uids | tags))


@pytest.fixture
def serve(serve):
    """Starts a PACS of these replies."""

    def start(*replies, **options) -> Pacs:
        server = serve(*replies)
        pacs = Pacs(Wire(server.url, timeout_s=5, tries=2, backoff_s=0.01), **options)
        pacs.server = server
        return pacs

    return start


def refused(call, *args, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert caught.value.fix
    return caught.value


# ---------------------------------------------------------------- query


def test_pages_are_asked_for_until_one_brings_nothing_new(serve):
    hits = [{"0020000D": f"1.2.{n}", "00080020": "20260101"} for n in range(5)]
    pacs = serve(rows(*hits[:2]), rows(*hits[2:4]), rows(*hits[3:]), rows(*hits[4:]))
    found, more = studies(pacs, {}, 100)
    assert [row["study"] for row in found] == [f"1.2.{n}" for n in range(5)]
    assert not more
    assert found[0]["date"] == "20260101"
    assert found[0]["description"] == ""


def test_no_more_rows_than_asked_for_and_the_rest_is_told(serve):
    endless = serve(rows(*({"0020000D": f"1.2.{n}"} for n in range(50))))
    found, more = studies(endless, {}, 10)
    assert (len(found), more) == (10, True)


def test_filters_and_what_is_no_date_or_uid(serve):
    pacs = serve(send(204))
    studies(pacs, {"accession": "A1", "modality": "CR", "date": "20260101-20260131"}, 10)
    series_of(pacs, STUDY, "CT", 10)
    first, second = (request["path"] for request in pacs.server.seen)
    assert all(part in first for part in ("AccessionNumber=A1", "ModalitiesInStudy=CR", "StudyDate=20260101-20260131"))
    assert second.startswith(f"/dicom-web/studies/{STUDY}/series?Modality=CT")
    assert refused(studies, pacs, {"date": "2026-01-31"}, 10).code == "bad_date"
    for uid in ("../1", "1.2/3", "", "1" * 65, "1.2\n"):
        assert refused(series_of, pacs, uid, "", 10).code == "bad_uid"


# ---------------------------------------------------------------- fetch


def test_a_study_lies_in_folders_that_the_reader_takes(serve, tmp_path):
    stack = [
        path.read_bytes()
        for path in write_stack(tmp_path / "in", np.arange(600, dtype=np.uint16).reshape(3, 10, 20), StudyInstanceUID=STUDY)
    ]
    pacs = serve(Archive(*stack, film()))
    steps = []
    done = fetch(pacs, STUDY, None, tmp_path / "out", progress=lambda *step: steps.append(step))
    assert (done.fetched, done.kept, done.failed, sorted(done.series.values())) == (4, 0, [], [1, 3])
    assert done.bytes == sum(map(len, stack)) + len(film())
    assert steps[-1] == (4, 4)
    assert (tmp_path / "out/1.2.3.4/1.2.3.4.1.dcm").read_bytes() == film()
    stacked = next(series for series in find_series(tmp_path / "out")[0] if series.stacked)
    assert read_volume(stacked).values_DHW.shape == (3, 10, 20)


def test_one_series_alone(serve, tmp_path):
    pacs = serve(Archive(film(), film(series="1.2.3.5")))
    assert fetch(pacs, STUDY, "1.2.3.5", tmp_path).series == {"1.2.3.5": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["1.2.3.5"]


def test_files_that_exist_are_refused_and_kept_by_resume(serve, tmp_path):
    pacs = serve(Archive(film(1), film(2)))
    fetch(pacs, STUDY, None, tmp_path)
    (tmp_path / "1.2.3.4/1.2.3.4.2.dcm").unlink()
    assert refused(fetch, pacs, STUDY, None, tmp_path).code == "exists"
    done = fetch(pacs, STUDY, None, tmp_path, resume=True)
    assert (done.fetched, done.kept, done.series) == (1, 1, {"1.2.3.4": 2})


def test_the_other_objects_are_fetched_where_some_fail(serve, tmp_path):
    """Cut, another object, no DICOM, gone, forbidden."""
    other = {
        "1": lambda file: send(200, file[:50], 'multipart/related; boundary="x"'),
        "2": lambda _: parts(film(9)),
        "3": lambda _: parts(b"x" * 500),
        "4": lambda _: send(404),
        "5": lambda _: send(403),
    }

    def alter(handler, instance, file) -> bool:
        reply = other.get(instance[-1])
        if reply:
            reply(file)(handler)
        return bool(reply)

    done = fetch(serve(Archive(*(film(n) for n in range(1, 8)), alter=alter)), STUDY, None, tmp_path)
    assert done.fetched == 2
    codes = ["pacs_cut", "pacs_other", "pacs_other", "pacs_missing", "pacs_forbidden"]
    assert [(one.name, one.code) for one in done.failed] == [(f"1.2.3.4.{n}", code) for n, code in enumerate(codes, 1)]
    assert not list(tmp_path.rglob(".part-*"))


def test_a_pacs_that_goes_down_ends_the_work_and_the_rest_is_listed(serve, tmp_path):
    def alter(handler, instance, file) -> bool:
        if instance.endswith(".1"):
            return False
        hang_up(handler)
        return True

    done = fetch(serve(Archive(*(film(n) for n in range(1, 8)), alter=alter)), STUDY, None, tmp_path)
    assert done.fetched == 1
    assert [one.code for one in done.failed] == ["pacs_down"] * 6
    assert [one.what.startswith("not tried") for one in done.failed] == [False] * 3 + [True] * 3
    pacs = serve(Archive(film(), alter=lambda handler, *_: (hang_up(handler), True)[1]))
    assert refused(fetch, pacs, STUDY, None, tmp_path / "b").code == "pacs_down"


@pytest.mark.parametrize("uid", ["../../evil", "/etc/passwd", "", "1.2\x00", ".."])
def test_a_uid_of_the_pacs_that_is_a_path_becomes_no_file(serve, tmp_path, uid):
    assert refused(fetch, serve(rows({"0020000E": uid})), STUDY, None, tmp_path / "a").code == "pacs_answer"
    assert refused(fetch, serve(rows({"00080018": uid})), STUDY, "1.2", tmp_path / "a").code == "pacs_answer"
    assert not list(tmp_path.iterdir())


def test_budgets_for_count_and_size(serve, tmp_path):
    archive = Archive(*(film(n) for n in range(1, 5)))
    assert refused(fetch, serve(archive, limits=Limits(members=3)), STUDY, None, tmp_path).code == "too_large"
    assert not list(tmp_path.iterdir())
    done = fetch(serve(archive, limits=Limits(fetch_bytes=len(film()) + 1)), STUDY, None, tmp_path / "a")
    assert (done.fetched, {one.code for one in done.failed}) == (2, {"too_large"})
    done = fetch(serve(archive, limits=Limits(volume_bytes=500)), STUDY, None, tmp_path / "b")
    assert (done.fetched, {one.code for one in done.failed}) == (0, {"pacs_huge"})


def test_a_study_that_is_not_there(serve, tmp_path):
    assert refused(fetch, serve(send(204)), STUDY, None, tmp_path).code == "pacs_missing"
    assert refused(fetch, serve(send(404)), STUDY, None, tmp_path).code == "pacs_missing"


# ---------------------------------------------------------------- store


def answers(folder) -> list:
    """A SEG, a presentation state and a capture of a film, with a name in the source that must not travel into messages."""
    source = dicom_sources.film("CR")
    found = [segment(source), segment(source, prompt="left pneumothorax", empty=True)]
    write_seg(folder / "a.seg.dcm", [source], found, SHA)
    write_gsps(folder / "a.gsps.dcm", source, found, SHA)
    write_sc(folder / "a.sc.dcm", source, np.zeros((source.Rows, source.Columns, 1)), found, SHA)
    return sorted(folder.glob("*.dcm"))


def written_anew(file: bytes, syntax=None, **changes) -> bytes:
    """As a PACS may do: other file meta, a corrected patient, another encoding."""
    ds = pydicom.dcmread(io.BytesIO(file))
    ds.PatientName, ds.PatientID, ds.InstitutionName = "Corrected^Name", "NEW", "Here"
    for name, value in changes.items():
        setattr(ds, name, value)
    if syntax == RLELossless:
        ds.compress(syntax, generate_instance_uid=False)
    elif syntax:
        ds.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    how = {"implicit_vr": True, "little_endian": True} if syntax == ImplicitVRLittleEndian else {}
    ds.save_as(buffer, enforce_file_format=True, **how)
    return buffer.getvalue()


def test_what_was_stored_comes_back_with_the_same_bytes(serve, tmp_path):
    files, archive = answers(tmp_path), Archive()
    pacs = serve(archive)
    for _ in range(2):  # a second time changes nothing
        stored, failed = store(pacs, files)
        assert ([one.confirmed for one in stored], failed) == (["bytes"] * 3, [])
    assert [archive.objects[one.instance] for one in stored] == [file.read_bytes() for file in files]


def anew(syntax=None):
    """An `alter` that gives each object back written anew."""
    return lambda handler, _, file: bool(file) and (parts(written_anew(file, syntax))(handler), True)[1]


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
def test_a_pacs_may_write_it_anew_but_not_change_what_it_shows(serve, tmp_path, syntax):
    stored, failed = store(serve(Archive(alter=anew(syntax))), answers(tmp_path))
    assert ([one.confirmed for one in stored], failed) == (["content"] * 3, [])


def test_a_pacs_may_pack_pixels_in_another_way(serve, tmp_path):
    files = [tmp_path / "gray.dcm", next(file for file in answers(tmp_path) if ".sc." in file.name)]
    files[0].write_bytes(film())
    stored, failed = store(serve(Archive(alter=anew(RLELossless))), files)
    assert ([one.confirmed for one in stored], failed) == (["content"] * 2, [])


def test_another_picture_under_the_same_uid_is_not_confirmed(serve, tmp_path):
    for harm in ({"PixelData": b"\1" * 144}, {"Rows": 9, "Columns": 8}, {"PhotometricInterpretation": "MONOCHROME1"}):
        (tmp_path / "a.dcm").write_bytes(film())
        pacs = serve(Archive(written_anew(film(), **harm)))
        stored, failed = store(pacs, [tmp_path / "a.dcm"])
        assert (stored, [one.code for one in failed]) == ([], ["not_confirmed"])
    source = answers(tmp_path)[1]
    state = pydicom.dcmread(source)
    del state.GraphicAnnotationSequence[0].GraphicObjectSequence[0]
    state.save_as(tmp_path / "less.dcm")
    stored, failed = store(serve(Archive((tmp_path / "less.dcm").read_bytes())), [source])
    assert [one.code for one in failed] == ["not_confirmed"]


@pytest.mark.parametrize(
    ("reason", "word"),
    [(0xA700, "no room"), (0x0122, "class"), (0xC123, "read"), (0x4711, "0x4711"), (float("inf"), "not say why")],
)
def test_a_refusal_has_its_reason(serve, tmp_path, reason, word):
    archive = Archive()
    archive.refuse = reason
    (tmp_path / "a.dcm").write_bytes(film())
    _, (failed,) = store(serve(archive), [tmp_path / "a.dcm"])
    assert failed.code == "pacs_refused"
    assert word in failed.what


def test_an_object_that_the_pacs_has_already_is_stored_whatever_it_answers(serve, tmp_path):
    archive = Archive(film())
    archive.refuse = 0x0111
    (tmp_path / "a.dcm").write_bytes(film())
    (stored,), failed = store(serve(archive), [tmp_path / "a.dcm"])
    assert (stored.confirmed, failed) == ("bytes", [])


def test_a_pacs_that_says_yes_and_keeps_nothing(serve, tmp_path):
    (tmp_path / "a.dcm").write_bytes(film())
    for answer in (send(200, "{}"), send(202, "<xml/>", "application/dicom+xml"), send(200, "{")):
        pacs = serve(answer, send(404))
        _, (failed,) = store(pacs, [tmp_path / "a.dcm"])
        assert failed.code == "pacs_refused"
    assert len(pacs.server.seen) == 4, "some PACS index it a moment later"


def test_storing_is_tried_again_when_the_connection_breaks(serve, tmp_path):
    (tmp_path / "a.dcm").write_bytes(film())
    pacs = serve(hang_up, send(503), send(200, "{}"))
    pacs.wire.tries = 3
    pacs.server.replies.append(parts(film()))
    (stored,), _ = store(pacs, [tmp_path / "a.dcm"])
    assert stored.confirmed == "bytes"
    sent = [request["body"] for request in pacs.server.seen[:3]]
    assert [film() in body for body in sent] == [True] * 3


def test_files_that_cannot_be_stored_are_listed(serve, tmp_path):
    (tmp_path / "a.dcm").write_bytes(film())
    (tmp_path / "b.dcm").write_bytes(film()[:330])
    (tmp_path / "c.txt").write_text("hello")
    (tmp_path / "d.dcm").write_bytes(film(SeriesInstanceUID=""))
    files = [tmp_path / name for name in ("a.dcm", "b.dcm", "c.txt", "d.dcm", "none.dcm")]
    stored, failed = store(serve(Archive()), files)
    assert [one.file for one in stored] == [str(files[0])]
    assert [one.code for one in failed] == ["not_dicom", "not_dicom", "not_dicom", "missing"]


# ---------------------------------------------------------------- the command line


def run(*words, code: int = 0):
    done = CliRunner().invoke(app, ["pacs", *map(str, words)])
    assert done.exit_code == code, (done.exit_code, done.output, done.exception)
    return done


def test_commands_find_fetch_and_store(serve, tmp_path):
    url = serve(Archive(film(1), film(2))).url
    assert json.loads(run("query", url, "--json").stdout)["studies"][0]["study"] == STUDY
    assert run("query", url, "--study", STUDY).stdout.splitlines()[1].startswith("1.2.3.4 ")
    fetched = json.loads(run("fetch", url, STUDY, "-o", tmp_path / "out", "--json", "-q").stdout)
    assert (fetched["fetched"], fetched["series"]) == (2, {"1.2.3.4": 2})
    file = tmp_path / "out/1.2.3.4/1.2.3.4.1.dcm"
    assert run("store", url, file, "-q").stdout == f"{file}: stored, read back, equal by bytes\n1 stored, 0 failed\n"
    (tmp_path / "x").write_text("x")
    both = run("store", url, file, tmp_path / "x", "-q", code=3)
    assert both.stderr.startswith(f"error: {tmp_path / 'x'}: the file is no DICOM.")
    assert json.loads(run("fetch", url, "1.9", "-o", tmp_path / "b", "--json", code=2).stdout)["error"]["code"] == "pacs_missing"


def test_a_strange_value_moves_no_cursor(serve):
    url = serve(rows({"0020000D": "1.2", "00081030": "a\x1b[2Jb"}), send(204)).url
    assert "a?[2Jb" in run("query", url).stdout


def test_what_is_unsafe_is_said_unless_quiet():
    url = "http://pacs.invalid/dicom-web"
    options = ("--timeout", "0.1", "--study", "x")  # the UID is refused before anything is sent
    assert "warning: the way to this PACS is not encrypted" in run("query", url, *options, code=2).stderr
    assert "warning" not in run("query", url, *options, "--quiet", code=2).stderr


# ---------------------------------------------------------------- a real PACS


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """(address, credentials) of Orthanc, started for this module."""
    with script("orthanc").orthanc(tmp_path_factory.mktemp("orthanc")) as found:
        yield found


@pytest.mark.slow
@pytest.mark.orthanc
class TestOrthanc:
    def test_it_asks_for_credentials(self, orthanc, tmp_path, monkeypatch):
        url, credentials = orthanc
        assert "asks for credentials" in run("query", url, code=2).stderr
        monkeypatch.setenv(USER, "radiologist")
        monkeypatch.setenv(PASSWORD, "wrong")
        assert "does not accept" in run("query", url, code=2).stderr
        monkeypatch.setenv(PASSWORD, json.loads(credentials.read_text())["password"])
        assert run("query", url).exit_code == 0

    def test_a_ct_is_stored_found_and_fetched_voxel_for_voxel(self, orthanc, tmp_path):
        url, credentials = orthanc
        pixels = np.random.default_rng(0).integers(0, 4096, (12, 40, 30)).astype(np.uint16)
        tags = {"StudyInstanceUID": "1.2.77", "PatientID": "PHANTOM-77", "StudyDate": "20260103", "AccessionNumber": "ACC77"}
        stack = write_stack(tmp_path / "in", pixels, **tags)
        stored = json.loads(run("store", url, *stack, "--credentials", credentials, "--json", "-q").stdout)
        assert [one["confirmed"] for one in stored["stored"]] == ["bytes"] * 12
        for words in (("--patient-id", "PHANTOM-77"), ("--accession", "ACC77", "--modality", "CT"), ("--date", "20260103-20260104")):
            found = json.loads(run("query", url, *words, "--credentials", credentials, "--json").stdout)
            assert [(row["study"], row["modalities"], row["instances"]) for row in found["studies"]] == [("1.2.77", "CT", "12")]
        assert "0 studies" in run("query", url, "--patient-id", "PHANTOM-77", "--modality", "MR", "--credentials", credentials).stdout
        run("fetch", url, "1.2.77", "-o", tmp_path / "out", "--credentials", credentials, "-q")
        (series,), _ = find_series(tmp_path / "out")
        (original,), _ = find_series(tmp_path / "in")
        assert (read_volume(series).values_DHW == read_volume(original).values_DHW).all()

    def test_seg_presentation_state_and_capture_come_back_as_they_were_sent(self, orthanc, tmp_path):
        url, credentials = orthanc
        files = answers(tmp_path)
        for _ in range(2):
            stored = json.loads(run("store", url, *files, "--credentials", credentials, "--json", "-q").stdout)
            assert [one["confirmed"] for one in stored["stored"]] == ["bytes"] * 3
        study = str(pydicom.dcmread(files[0]).StudyInstanceUID)
        run("fetch", url, study, "-o", tmp_path / "out", "--credentials", credentials, "-q")
        back = {path.read_bytes() for path in (tmp_path / "out").rglob("*.dcm")}
        assert back == {file.read_bytes() for file in files}

    def test_another_picture_under_the_same_uid_is_told(self, orthanc, tmp_path):
        url, credentials = orthanc
        (tmp_path / "a.dcm").write_bytes(film())
        run("store", url, tmp_path / "a.dcm", "--credentials", credentials)
        (tmp_path / "a.dcm").write_bytes(film(value=8))
        assert "other content" in run("store", url, tmp_path / "a.dcm", "--credentials", credentials, code=3).stderr

    def test_an_unknown_study_is_told(self, orthanc, tmp_path):
        url, credentials = orthanc
        assert "no such study" in run("fetch", url, "1.2.3.99", "-o", tmp_path / "x", "--credentials", credentials, code=2).stderr
