"""Budgets, safe names, and writes that are whole or absent."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from reportseg import limits
from reportseg.errors import InputError
from reportseg.limits import (
    Limits,
    atomic_path,
    atomic_write,
    check_file,
    check_pixels,
    check_text,
    csv_cell,
    parse_limits,
    safe_id,
    unique_ids,
)


def code_of(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    assert caught.value.fix, "every InputError says what to do"
    return caught.value.code


def test_a_budget_is_spent_on_pixels_not_on_sides():
    check_pixels(1, 100_000_000, "strip.png")
    with pytest.raises(InputError, match="REPORTSEG_LIMITS=pixels=144000000") as caught:
        check_pixels(12_000, 12_000, "big.png")
    assert caught.value.code == "too_large" and caught.value.where == "big.png"
    check_pixels(12_000, 12_000, "big.png", Limits(pixels=200_000_000))


def test_limits_are_set_by_name():
    assert parse_limits("") == Limits()
    assert parse_limits("pixels=400000000, text_bytes=65536,") == Limits(pixels=400_000_000, text_bytes=65536)
    for wrong in ("pixel=1", "pixels", "pixels=0", "pixels=-1", "pixels=1e9", "pixels=", "=5", "pixels=1;ratio=2", "pixels=\u00b2"):
        with pytest.raises(InputError, match="text_bytes") as caught:  # the fix lists them
            parse_limits(wrong)
        assert (caught.value.code, caught.value.where) == ("limits", "REPORTSEG_LIMITS")


READ = """
import sys
from reportseg.data.manifest import read_manifest
from reportseg.data.verify import verify
print(len(verify(read_manifest(sys.argv[1])).errors))
"""


def test_what_a_refusal_says_is_what_helps(tmp_path):
    """In every command alike: the variable is read once, where a process starts."""
    Image.new("L", (60, 50)).save(tmp_path / "a.png")
    (tmp_path / "manifest.csv").write_text(f"image,mask,text,present\na.png,a.png,{'left ' * 8000},0\n")

    def read(allowed: str) -> tuple[str, str]:
        environment = {**os.environ, "REPORTSEG_LIMITS": allowed}
        done = subprocess.run([sys.executable, "-c", READ, tmp_path], env=environment, capture_output=True, text=True, check=False)
        return done.stdout.strip(), done.stderr

    need = re.search(r"REPORTSEG_LIMITS=(text_bytes=[0-9]+)", read("pixels=100")[1])[1]
    assert read(f"pixels=2999,{need}")[0] == "2"  # film and mask
    assert read(f"pixels=3000,{need}")[0] == "0"
    assert "'much' is not a limit" in read("much")[1]


def test_an_image_that_the_memory_cannot_hold_is_refused_whatever_the_variable_says(monkeypatch):
    monkeypatch.setattr(limits, "_memory_bytes", lambda: 4 * limits.GIB)
    check_pixels(9_000, 9_000, "film.png", Limits(pixels=10**9))
    with pytest.raises(InputError, match="memory"):
        check_pixels(12_000, 12_000, "film.png", Limits(pixels=10**9))


def test_a_text_is_returned_as_it_is_or_refused_never_cut():
    for text in ("", "ذات الرئة اليسرى", "infiltração e\u0301", "x" * 32 * 1024):
        assert check_text(text) == text
    assert code_of(check_text, "x" * (32 * 1024 + 1)) == "text_too_long"
    assert code_of(check_text, "é" * 20_000) == "text_too_long"  # bytes count, not characters
    assert code_of(check_text, "left\0lung") == "text_nul"
    assert code_of(check_text, "\ud800") == "text_encoding"


@given(st.text(max_size=300))
def test_an_id_is_a_file_name_on_every_system(stem):
    name = safe_id(stem)
    assert 0 < len(name) <= 100 and name not in {".", ".."}
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in name)
    assert safe_id(name) == name and csv_cell(name) == name  # neither an option of a shell nor a formula of a spreadsheet


def test_ids_keep_what_they_can_and_stay_apart():
    assert safe_id("sub-S09340_ses-E18_run-1") == "sub-S09340_ses-E18_run-1"
    assert safe_id("chest film (2)") == "chest-film--2-"
    assert safe_id("صورة") != safe_id("فيلم")
    assert safe_id("a" * 200 + "1") != safe_id("a" * 200 + "2")


def test_repeated_stems_take_their_folder_and_repeated_rows_a_number():
    assert unique_ids(["x/1.png", "x/2.png"]) == ["1", "2"]
    assert unique_ids(["a/1.png", "b/1.png", "a/2.png"]) == ["a__1", "b__1", "2"]
    assert unique_ids(["a/1.png", "a/1.png", "a/1.png"]) == ["1", "1-2", "1-3"]
    assert unique_ids(["p/a/1.png", "q/a/1.png"]) == ["a__1", "a__1-2"]
    assert unique_ids(["1.png", "1.png", "1-2.png"]) == ["1", "1-3", "1-2"]
    assert unique_ids(["a/F.png", "b/f.png"]) == ["a__F", "b__f"] and unique_ids(["a/F.png", "a/f.png"]) == ["a__F", "a__f-2"]


@given(st.lists(st.sampled_from(["a/1.png", "b/1.png", "a/1-2.png", "c/a__1.png", "a/1 2.png", "b/1.jpg", "C/A__1.png"]), max_size=12))
def test_ids_never_repeat(paths):
    assert len({id.lower() for id in unique_ids(paths)}) == len(paths)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_text_cell_becomes_a_formula(text):
    assert csv_cell(text) == "'" + text


def test_other_cells_stay():
    assert csv_cell("left lung = white") == "left lung = white"
    assert csv_cell("") == ""


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / "out.json"
    atomic_write(target, "old\n")
    with pytest.raises(RuntimeError), atomic_path(target) as part:
        part.write_text("half of the n")
        assert part.parent == tmp_path and "out" not in part.name  # names of files may hold names of people
        raise RuntimeError
    assert target.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [target]


def test_a_write_makes_the_folder_and_keeps_bytes(tmp_path):
    atomic_write(tmp_path / "new" / "x", "a\nb\r\n\u0301")
    assert (tmp_path / "new" / "x").read_bytes() == "a\nb\r\n\u0301".encode()


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("x")
    assert code_of(atomic_write, tmp_path / "file" / "out", "x") == "unwritable"


def test_a_file_is_taken_by_any_path_the_user_gives(tmp_path, monkeypatch):
    file = tmp_path / "ذات-e\u0301.png"
    file.write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert check_file(file) == file
    assert check_file(file.name) == Path(file.name)
