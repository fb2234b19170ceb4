"""Manifests that are hostile or damaged end as one InputError with the row; odd but legal ones are read."""

from __future__ import annotations

import csv
import os

import pytest

from reportseg.data.manifest import read_manifest
from reportseg.errors import InputError
from reportseg.limits import Limits


def code_of(path, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        read_manifest(path, **kwargs)
    assert caught.value.fix
    assert str(path) in caught.value.where
    return caught.value.code


def write(folder, body: str | bytes, header: str = "image,mask,text"):
    file = folder / "manifest.csv"
    file.write_bytes(header.encode() + b"\n" + (body if isinstance(body, bytes) else body.encode()))
    return file


@pytest.mark.parametrize(
    "text", ["ذات الرئة في الفص الأيسر", "\u202eabc\u202c left lung", "infiltrac\u0327a\u0303o e\u0301", "肺炎 左", "🫁 left", "a\u200db"]
)
def test_right_to_left_combining_and_foreign_characters_are_read_as_they_are(tmp_path, text):
    (sample,) = read_manifest(write(tmp_path, f"films/{text}.png,m.png,{text}\n")).samples
    assert sample.text == text
    assert sample.image.name == f"{text}.png"
    assert sample.id.isascii()
    assert "/" not in sample.id


def test_absolute_paths_parents_and_links_are_the_owners_own_affair(tmp_path):
    home, films = tmp_path / "home", tmp_path / "films"
    home.mkdir()
    films.mkdir()
    (films / "a.png").write_bytes(b"x")
    (home / "link").symlink_to(films, target_is_directory=True)
    file = write(home, f"{films}/a.png,m,t\n../films/a.png,m,t\nlink/a.png,m,t\n")
    samples = read_manifest(file).samples
    assert [s.image.read_bytes() for s in samples] == [b"x"] * 3
    assert len({s.id for s in samples}) == 3


def test_a_text_of_a_megabyte_is_refused_with_its_row(tmp_path):
    assert code_of(write(tmp_path, "a,a,t\nb,b," + "left " * 200_000 + "\n")) == "text_too_long"
    with pytest.raises(InputError, match="row 2"):
        read_manifest(tmp_path)


def test_the_limit_of_a_text_can_be_raised_past_that_of_the_csv_module(tmp_path):
    file = write(tmp_path, "b,b," + "x" * 200_000 + "\n")
    assert code_of(file) == "text_too_long"
    before = csv.field_size_limit()
    try:
        assert len(read_manifest(file, limits=Limits(text_bytes=2**20)).samples[0].text) == 200_000
    finally:
        csv.field_size_limit(before)


@pytest.mark.parametrize("row", ["a.png,m,left\0lung", "a\0.png,m,t", "a.png,m\0,t"])
def test_a_nul_is_refused_in_every_cell(tmp_path, row):
    file = write(tmp_path, f"z,z,t\n{row}\n")
    assert code_of(file) == "text_nul"
    with pytest.raises(InputError, match="row 2"):
        read_manifest(file)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "cp1251"])
def test_a_table_that_is_not_utf8_is_refused(tmp_path, encoding):
    file = tmp_path / "manifest.csv"
    file.write_bytes("image,mask,text\na,b,é ж\n".encode(encoding, "replace"))
    assert code_of(file) in {"encoding", "missing_column"}
    file.write_bytes(b"image,mask,text\na,b,\xff\xfe\n")
    assert code_of(file) == "encoding"


@pytest.mark.parametrize("body", ['a,b,"left lung\n', 'a,b,"left" lung\n', 'a,b,"' + "x\n" * 100_000])
def test_quotes_that_do_not_close_are_refused(tmp_path, body):
    assert code_of(write(tmp_path, body)) in {"bad_row", "text_too_long"}


def test_files_that_are_no_tables(tmp_path):
    assert code_of(tmp_path / "none.csv") == "missing"
    (tmp_path / "empty.csv").touch()
    assert code_of(tmp_path / "empty.csv") == "empty_file"
    (tmp_path / "loop.csv").symlink_to(tmp_path / "loop.csv")
    assert code_of(tmp_path / "loop.csv") == "symlink_loop"
    os.mkfifo(tmp_path / "pipe.csv")
    assert code_of(tmp_path / "pipe.csv") == "unreadable"
    (tmp_path / "film.csv").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)))
    assert code_of(tmp_path / "film.csv") == "encoding"
    with pytest.raises(InputError):
        read_manifest("a\0b.csv")


def test_the_root_of_dataset_json_may_not_break_the_reader(tmp_path):
    file = write(tmp_path, "a.png,m,t\n")
    for text in ('{"name": ""}', "[]", "{", '{"name": "x", "root": 3}', '{"name": "x", "laterality": "both"}', "[" * 1000):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(InputError, match=r"dataset\.json"):
            read_manifest(file)


def test_errors_can_be_shown_without_the_path(tmp_path):
    file = write(tmp_path, "a,b,t\na,b\n")
    with pytest.raises(InputError) as caught:
        read_manifest(file)
    assert str(tmp_path) not in caught.value.public()
