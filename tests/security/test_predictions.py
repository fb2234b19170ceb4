"""Prediction from strangers' films, texts and folders: what is harmless succeeds, the rest fails alone, and nobody's name gets out."""

from __future__ import annotations

import csv
import errno
import io
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from reportseg.errors import InputError
from reportseg.io.png import PNG_SIGNATURE
from reportseg.limits import Limits
from reportseg.predict import Segmenter, jobs_from, load_report, predict_files
from reportseg.types import INTENDED_USE
from tiny import LEFT, film, write_bundle

FILM = (film(16, 16)[:, :, 0] * 255).astype(np.uint8)
PATIENT = "Erika_Mustermann_1970-01-01"


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    return Segmenter.from_pretrained(write_bundle(tmp_path_factory.mktemp("bundle") / "b"), device="cpu")


def png(array: np.ndarray = FILM) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def announced(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header announces a film of this size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG_SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


def table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- what succeeds


@pytest.mark.parametrize(
    "text",
    [
        "عتامة في الرئة اليسرى",
        "opacite\u0301 du poumon \u202egauche\u202c",
        "o\u0335\u0327\u0308pacity",
        "肺の陰影",
        "🫁 opacity 🫁",
        "\u200b",
        "opacity\r\nin the lung\n",
        '"; DROP TABLE findings; --',
        "../../etc/passwd",
        "${HOME} `id` %s {0}",
        "<script>alert(1)</script>",
    ],
)
def test_any_text_is_only_a_text(tmp_path, segmenter, text):
    (tmp_path / "a.png").write_bytes(png())
    assert predict_files(segmenter, jobs_from([tmp_path / "a.png"], text), tmp_path / "out").exit_code == 0
    (row,) = table(tmp_path / "out" / "predictions.csv")
    assert row["finding"] == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out"]


@pytest.mark.parametrize("text", ["=HYPERLINK(1)", "+1", "-opacity", "@cmd", "\t=1"])
def test_a_table_cell_is_no_formula(tmp_path, segmenter, text):
    (tmp_path / "a.png").write_bytes(png())
    predict_files(segmenter, jobs_from([tmp_path / "a.png"], text), tmp_path / "out")
    assert table(tmp_path / "out" / "predictions.csv")[0]["finding"] == "'" + text
    predict_files(segmenter, jobs_from([tmp_path / "a.png"], text), tmp_path / "out", resume=True)
    assert table(tmp_path / "out" / "predictions.csv")[0]["finding"] == "'" + text


@pytest.mark.parametrize(
    "name", ["film.exe", "film.dcm", "film", "film.jpg.exe", ".hidden", "-o", "=1+1.png", "a b\tc.png", "ü" * 80 + ".png"]
)
def test_the_extension_and_odd_names_do_not_matter(tmp_path, segmenter, monkeypatch, name):
    (tmp_path / name).write_bytes(png())
    assert predict_files(segmenter, jobs_from([(tmp_path / name).resolve()], LEFT), tmp_path / "out").exit_code == 0, "an absolute path"
    monkeypatch.chdir(tmp_path)
    assert predict_files(segmenter, jobs_from([name], LEFT), "relative").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(p.name for p in (tmp_path / "relative").iterdir())


def test_one_pixel_is_a_film(tmp_path, segmenter):
    (tmp_path / "dot.png").write_bytes(png(FILM[:1, :1]))
    assert predict_files(segmenter, jobs_from([tmp_path / "dot.png"], LEFT), tmp_path / "out").done == 1
    assert PIL.Image.open(tmp_path / "out" / "dot.mask.png").size == (1, 1)


# ---------------------------------------------------------------- what fails alone


def hostile(folder: Path) -> dict[str, Path]:
    """A broken film of each kind, all with the name of a person, and the code that each gets."""
    found = {}

    def put(code: str, content: bytes) -> None:
        path = folder / f"{PATIENT}-{len(found)}.png"
        path.write_bytes(content)
        found[f"{code}-{len(found)}"] = path

    whole = png()
    for tenth in range(1, 10):
        put("truncated", whole[: len(whole) * tenth // 10])
    put("empty_file", b"")
    put("too_large", announced(12_000, 12_000))
    put("truncated", announced(500, 500))
    put("unsupported_format", b"%PDF-1.4 " + bytes(400))
    put("no_pixels", bytes(128) + b"DICM" + bytes(400))
    put("corrupt", whole.replace(b"IHDR", b"IHDX"))
    nan = io.BytesIO()
    PIL.Image.fromarray(np.full((4, 4), np.nan, np.float32)).save(nan, "TIFF")
    put("not_finite", nan.getvalue())
    for code in ("no_dicom", "symlink_loop", "missing"):  # a folder is asked for its series
        path = folder / f"{PATIENT}-{code}.png"
        if code == "no_dicom":
            path.mkdir()
        if code == "symlink_loop":
            path.symlink_to(path)
        found[code] = path
    return found


def test_hostile_films_are_listed_by_code_and_the_good_one_is_answered(tmp_path, segmenter):
    (tmp_path / "films").mkdir()
    bad = hostile(tmp_path / "films")
    (tmp_path / "films" / "good.png").write_bytes(png())
    jobs = [replace(job, id=f"case-{job.row}") for job in jobs_from([*bad.values(), tmp_path / "films" / "good.png"], LEFT)]
    report = predict_files(segmenter, jobs, tmp_path / "out")
    assert (report.done, report.failed, report.exit_code) == (1, len(bad), 3)
    lines = table(tmp_path / "out" / "failures.csv")
    assert [line["code"] for line in lines] == [key.split("-")[0] for key in bad]
    assert all(line["what"] and line["fix"] for line in lines)
    told = dict(report.failures)
    for job in jobs[:-1]:
        named = f"row {job.row} ({job.id})" if told[job.id].code in ("no_pixels", "no_dicom") else str(job.image)  # DICOM and folders
        assert named in str(told[job.id]), "the user sees which file it was"
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes().decode("utf-8", "replace")
        assert not [secret for secret in (PATIENT, str(tmp_path)) if secret in content], f"a name or a path is in {path.name}"


@pytest.mark.parametrize(("text", "code"), [("opacity " * 5000, "text_too_long"), ("a\0b", "text_nul"), ("\ud800", "text_encoding")])
def test_a_text_that_cannot_be_read_stops_one_prompt_for_all_and_fails_alone_in_a_jobs_file(tmp_path, segmenter, text, code):
    (tmp_path / "a.png").write_bytes(png())
    with pytest.raises(InputError) as caught:
        jobs_from([tmp_path / "a.png"], text)
    assert caught.value.code == code
    with pytest.raises(InputError) as caught:
        segmenter.segment(FILM, text)
    assert caught.value.code == code
    good, bad = jobs_from([tmp_path / "a.png"] * 2, LEFT)
    report = predict_files(segmenter, [good, replace(bad, text=text)], tmp_path / "out")
    assert report.exit_code == 3
    assert [line["code"] for line in table(tmp_path / "out" / "failures.csv")] == [code]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty_file"),
        (b"opacity " * 5000, "text_too_long"),
        (b"Mass\0", "text_nul"),
        (b"\xff\xfeM\0a\0", "text_encoding"),
        (None, "missing"),
    ],
)
def test_a_report_file_that_cannot_be_read_is_named_and_its_text_is_not(tmp_path, content, code):
    path = tmp_path / "report.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        load_report(path)
    assert caught.value.code == code
    assert str(path) in str(caught.value)
    assert "Mass" not in str(caught.value) and "opacity" not in str(caught.value)
    path.write_bytes(b"\xef\xbb\xbfMass.")
    assert load_report(path) == "Mass."


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_arrays_that_are_not_finite(segmenter, value):
    array = film(8, 8)
    array[3, 3] = value
    with pytest.raises(InputError) as caught:
        segmenter.segment(array, LEFT)
    assert caught.value.code == "not_finite"


@pytest.mark.parametrize("shape", [(0, 0), (8,), (8, 8, 2), (2, 8, 8, 3)])
def test_arrays_of_no_film(segmenter, shape):
    with pytest.raises(InputError) as caught:
        segmenter.segment(np.zeros(shape, np.float32), LEFT)
    assert caught.value.code == "bad_shape"


def test_the_callers_limits_hold_everywhere(tmp_path, segmenter):
    (tmp_path / "a.png").write_bytes(png())
    strict = Segmenter(segmenter.bundles, device="cpu", limits=Limits(pixels=100, text_bytes=20))
    for source in (tmp_path / "a.png", png(), PIL.Image.fromarray(FILM)):
        with pytest.raises(InputError) as caught:
            strict.read(source)
        assert caught.value.code == "too_large"
    with pytest.raises(InputError) as caught:
        strict.segment(FILM[:8, :8], LEFT)
    assert caught.value.code == "text_too_long"


# ---------------------------------------------------------------- where it writes


@pytest.mark.parametrize("id", ["../escape", "/tmp/escape", "a/b", "..", "", "a\0b", "con:", "x" * 101, "ü", "a\nb"])
def test_an_id_that_is_no_name_of_a_file_is_refused(tmp_path, segmenter, id):
    (tmp_path / "a.png").write_bytes(png())
    job = replace(jobs_from([tmp_path / "a.png"], LEFT)[0], id=id)
    with pytest.raises(InputError) as caught:
        predict_files(segmenter, [job], tmp_path / "out")
    assert caught.value.code == "bad_id"
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_link_in_the_output_is_replaced_and_never_followed(tmp_path, segmenter):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "precious.txt").write_text("keep")
    (tmp_path / "out").mkdir()
    for name in ("a.mask.png", "a.json", "predictions.csv"):
        (tmp_path / "out" / name).symlink_to(tmp_path / "precious.txt")
    with pytest.raises(InputError, match="exists already"):
        predict_files(segmenter, jobs_from([tmp_path / "a.png"], LEFT), tmp_path / "out")
    predict_files(segmenter, jobs_from([tmp_path / "a.png"], LEFT), tmp_path / "out", overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "keep"
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())


def test_a_link_that_leads_nowhere_counts_as_a_file_that_exists(tmp_path, segmenter):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.mask.png").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists already"):
        predict_files(segmenter, jobs_from([tmp_path / "a.png"], LEFT), tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"schema": 1}', b"[" * 5000, b"\xff\xfe"])
def test_a_damaged_answer_is_answered_anew_on_resume(tmp_path, segmenter, content):
    (tmp_path / "a.png").write_bytes(png())
    jobs = jobs_from([tmp_path / "a.png"], LEFT)
    predict_files(segmenter, jobs, tmp_path / "out")
    (tmp_path / "out" / "a.json").write_bytes(content)
    report = predict_files(segmenter, jobs, tmp_path / "out", resume=True)
    assert (report.done, report.skipped) == (1, 0)


@pytest.mark.parametrize("stops_at", range(4))
def test_a_disk_that_is_full_stops_with_one_error(tmp_path, segmenter, monkeypatch, stops_at):
    """The disk takes the empty tables and some of the first case's four files, then refuses every further one."""
    (tmp_path / "a.png").write_bytes(png())
    real, written = os.replace, []

    def replace_file(source, target):
        if len(written) >= 2 + stops_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(target)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace_file)
    with pytest.raises(InputError, match="No space left") as caught:
        predict_files(segmenter, jobs_from([tmp_path / "a.png"], LEFT), tmp_path / "out")
    assert caught.value.code == "unwritable"
    assert ".csv" not in caught.value.where, "the first error is the one that is told"
    assert len(list((tmp_path / "out").iterdir())) == 2 + stops_at, "no temporary file stays"
    assert not (tmp_path / "out" / "a.json").exists()
    assert not table(tmp_path / "out" / "predictions.csv")
    monkeypatch.undo()
    assert predict_files(segmenter, jobs_from([tmp_path / "a.png"], LEFT), tmp_path / "out", resume=True).done == 1


def test_every_answer_says_what_it_may_be_used_for(tmp_path, segmenter):
    (tmp_path / "a.png").write_bytes(png())
    predict_files(segmenter, jobs_from([tmp_path / "a.png"], LEFT), tmp_path / "out")
    assert INTENDED_USE in (tmp_path / "out" / "a.json").read_text()
