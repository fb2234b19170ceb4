"""A bank from a stranger: large, deep, of the wrong types, full of what does not print."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from reportseg.cli import app
from reportseg.errors import InputError
from reportseg.knowledge.bank import from_file, load_bank, retrieve
from reportseg.knowledge.check import check, read_bank
from reportseg.schemas.knowledge import BankFile


def write(path, statements, **fields):
    path.write_text(json.dumps({"schema": 1, "name": "x", "statements": statements} | fields))
    return path


def plain(i, **changes):
    return {"concept": f"concept {i}", "kind": "margin", "statement": f"Its border number {i} is sharp.", "source": "x"} | changes


def refused(path, code):
    with pytest.raises(InputError) as caught:
        load_bank(path)
    assert caught.value.code == code and str(path) in str(caught.value), caught.value
    assert len(str(caught.value)) < 5_000
    result = CliRunner().invoke(app, ["knowledge", "check", str(path)])
    assert result.exit_code == 2
    return result


def test_a_hundred_thousand_statements_are_too_many_and_that_is_all_that_is_said(tmp_path):
    path = write(tmp_path / "b.json", [plain(i) for i in range(100_000)])
    assert "100000 statements are more than 20000" in refused(path, "bad_bank").stdout
    assert len(check(read_bank(path))) == 1


def test_a_bank_of_the_largest_size_is_checked_and_read(tmp_path):
    """Every word shared, every term the same: the index and the search for near duplicates stay near linear."""
    statements = [
        plain(i, terms=["spot"], statement=f"The border of this one, called n{i} or m{i}, is sharp to look at.") for i in range(20_000)
    ]
    bank = load_bank(write(tmp_path / "b.json", statements))
    assert len(retrieve("a spot", bank)) == 8
    assert {f.severity for f in check(bank.file)} <= {"warning"}


def test_json_ten_thousand_levels_deep(tmp_path):
    path = tmp_path / "b.json"
    path.write_text('{"schema": 1, "name": "x", "statements": ' + "[" * 10_000 + "]" * 10_000 + "}")
    refused(path, "too_deep")


@pytest.mark.parametrize(
    "statements",
    [3, "x", None, {}, [3], [None], [[]], [{}], [plain(0, concept=3)], [plain(0, terms="spot")], [plain(0, terms=[None])],
     [plain(0, laterality="both")], [plain(0, date="today")], [plain(0, date=20260101)], [plain(0, kind="A B")], [plain(0, extra=1)],
     [plain(0, statement="")], [plain(0, statement=True)]],
)  # fmt: skip
def test_wrong_types_name_the_key(tmp_path, statements):
    refused(write(tmp_path / "b.json", statements), "bad_field")


@pytest.mark.parametrize("field", ["concept", "statement", "source", "model", "reviewed_by"])
@pytest.mark.parametrize("sign", ["\0", "\x1b[2J", "\x9b"])
def test_what_does_not_print_is_refused(tmp_path, field, sign):
    refused(write(tmp_path / "b.json", [plain(0, **{field: f"a{sign}b"})]), "bad_bank")
    refused(write(tmp_path / "c.json", [plain(0)], description=f"a{sign}b"), "bad_bank")


def test_half_a_surrogate_pair_is_refused(tmp_path):
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"schema": 1, "name": "x", "statements": [plain(0, statement="a\ud800b")]}))
    refused(path, "bad_field")


def test_two_thousand_faults_are_told_in_twenty(tmp_path):
    path = write(tmp_path / "b.json", [plain(0, statement=".")] * 1_000)
    with pytest.raises(InputError, match="and 1979 more"):
        load_bank(path)


def test_a_long_text_and_a_long_statement_take_no_time():
    bank = from_file(BankFile.model_validate({"name": "x", "statements": [plain(0, terms=["a a a a a a b"])]}))
    assert retrieve("a " * 15_000, bank) == []
    with pytest.raises(InputError, match="1000 characters"):
        from_file(BankFile.model_validate({"name": "x", "statements": [plain(0, statement="left " * 20_000)]}))
