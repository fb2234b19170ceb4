"""One exception for the user's input: three things said, one code, and a public form without the path."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from reportseg.errors import WARNINGS, InputError


def test_it_says_what_where_and_how_to_mend_it():
    error = InputError("has no column 'mask'", Path("films/manifest.csv"), "Add it, or use --jobs.", "missing_column")
    assert str(error) == "films/manifest.csv: has no column 'mask'. Add it, or use --jobs."
    assert (error.what, error.where, error.fix, error.code) == (
        "has no column 'mask'",
        "films/manifest.csv",
        "Add it, or use --jobs.",
        "missing_column",
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("is empty",), "is empty."),
        (("is empty.",), "is empty."),
        (("is empty", "a.png"), "a.png: is empty."),
        (("is empty", "", "Fetch it again."), "is empty. Fetch it again."),
    ],
)
def test_parts_may_be_left_out(arguments, text):
    assert str(InputError(*arguments)) == text
    assert InputError(*arguments).code == "input"


def test_the_public_form_has_no_path():
    """Names of files may hold names of people."""
    error = InputError("cannot be decoded", "/home/doe/Doe_Jane_1970.png", "Save it again.", "bad_image")
    assert error.public() == "cannot be decoded. Save it again."


def test_it_is_a_value_error_so_that_a_library_user_may_catch_what_he_knows():
    with pytest.raises(ValueError, match="is empty"):
        raise InputError("is empty")


@pytest.mark.parametrize("through", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy])
def test_it_comes_back_whole_from_another_process(through):
    error = InputError("is empty", Path("a.png"), "Fetch it again.", "empty_file")
    again = through(error)
    assert (str(again), again.public(), again.code, again.where) == (str(error), error.public(), "empty_file", "a.png")


def test_warnings_are_sentences_under_short_stable_codes():
    assert WARNINGS.keys() >= {"laterality_assumed", "negated", "out_of_vocabulary", "text_truncated", "empty_text"}
    for code, sentence in WARNINGS.items():
        assert code.replace("_", "").isalpha() and code == code.lower()
        assert sentence and sentence[0].islower() and not sentence.endswith(".")
