"""What `knowledge check` finds: each fault of a bank that was written to hold it, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from reportseg.knowledge.check import check
from reportseg.schemas.base import parse
from reportseg.schemas.knowledge import BankFile

GOOD = "A nodule is a round spot with an outline that can be followed."


def bank_of(*rows: dict[str, Any]) -> BankFile:
    base = {"concept": "nodule", "kind": "margin", "statement": GOOD, "source": "a person"}
    return parse({"schema": 1, "name": "test", "statements": [base | row for row in rows]}, BankFile)


def found(*rows: dict[str, Any], concepts: tuple[str, ...] = ()) -> list[tuple[str, str, int | None]]:
    return [(f.severity, f.code, f.index) for f in check(bank_of(*rows), concepts)]


def test_a_good_bank_has_no_finding() -> None:
    assert found({}, {"statement": "Fluid is evenly white and hides the diaphragm.", "concept": "effusion"}) == []


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"statement": GOOD.upper()}, "duplicate"),
        ({"statement": "word " * 61}, "too_long"),
        ({"statement": "w" * 1001}, "too_long"),
        ({"statement": "..."}, "no_words"),
        ({"concept": "..."}, "no_words"),
        ({"statement": "Fluid lies on the left."}, "side_unnamed"),
        ({"statement": "Fluid lies on the lt side.", "laterality": "patient"}, "side_unknown"),
        ({"statement": "Fluid is white.\0"}, "control_character"),
        ({"statement": "Fluid is white.", "terms": ["\x1b[2J"]}, "control_character"),
    ],
)
def test_what_keeps_a_bank_from_being_read_is_an_error(row: dict[str, Any], code: str) -> None:
    first = {"statement": GOOD} if code == "duplicate" else {"statement": "Air is black."}
    assert ("error", code, 1) in found(first, row)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"statement": "A nodule is a round spot with an outline that can be traced."}, "near_duplicate"),
        ({"statement": "word " * 41}, "long"),
        ({"statement": "Fluid is white.", "laterality": "patient"}, "no_side"),
        ({"statement": "It lies on the right.", "concept": "left kidney", "laterality": "patient"}, "side_contradicts"),
        ({"statement": "Fluid is white.", "source": ""}, "no_source"),
    ],
)
def test_what_its_author_should_look_at_is_a_warning(row: dict[str, Any], code: str) -> None:
    assert found({}, row) == [("warning", code, 1)]


@pytest.mark.parametrize(
    ("statement", "laterality"),
    [
        ("It lies in the left half of the picture.", "patient"),
        ("It lies on the right side of the image.", "patient"),
        ("It lies on the image's left.", "patient"),
        ("It lies on the patient's right.", "image"),
        ("It lies on the patient\N{RIGHT SINGLE QUOTATION MARK}s own left side.", "image"),
        ("It lies in the right lung of the patient.", "image"),
    ],
)
def test_a_side_of_the_other_convention_is_a_warning_and_in_its_own_it_is_none(statement: str, laterality: str) -> None:
    other = {"patient": "image", "image": "patient"}[laterality]
    assert found({"statement": statement, "laterality": laterality}) == [("warning", "side_contradicts", 0)]
    assert found({"statement": statement, "laterality": other}) == []


def test_statements_that_differ_in_zone_side_or_number_only_are_one_template() -> None:
    rows = (
        {"statement": f"In the {zone} zone {n} patches are brighter than the lung."} for zone, n in (("upper", "two"), ("lower", "three"))
    )
    assert found(*rows) == [("warning", "near_duplicate", 1)]


def test_a_term_with_a_side_is_a_side() -> None:
    assert found({"statement": "Fluid is white.", "concept": "left kidney", "laterality": "patient"}) == []


def test_concepts_without_a_statement_are_listed_in_either_convention() -> None:
    left = {"concept": "left kidney", "statement": "It lies on the left.", "laterality": "patient"}
    neutral = {"concept": "tooth", "kind": "neutral", "statement": "Trains that go to the sea run late in the dark winter months."}
    missing = found(left, {}, neutral, concepts=("Nodule", "tooth", "left kidney", "right kidney"))
    assert [(code, index) for _, code, index in missing] == [("no_statement", None), ("no_control", None)]


def test_two_conventions_in_one_bank_and_half_a_control_are_remarked() -> None:
    sides = [
        {"statement": f"{what} lies on the left.", "laterality": whose}
        for what, whose in (("Air", "patient"), ("Fluid that is old", "image"))
    ]
    assert ("warning", "two_conventions", None) in found(*sides)
    assert ("warning", "no_control", None) in found({}, {"kind": "neutral", "statement": "Trains run late."})


def test_all_findings_come_at_once_errors_first() -> None:
    codes = found({"source": ""}, {"statement": "Fluid lies on the left."}, {"statement": "..."}, concepts=("mass",))
    assert codes == [("error", "side_unnamed", 1), ("error", "no_words", 2), ("warning", "no_source", 0), ("warning", "no_statement", None)]


def test_every_near_duplicate_is_found_among_many() -> None:
    """The look-up by rare words finds what comparing all pairs finds."""
    import random

    rng = random.Random(0)
    pool = [f"word{i}" for i in range(40)]
    rows = [[*rng.sample(pool, 8)] for _ in range(150)]
    rows += [[*row[:7], "other"] for row in rows[:20]] + [[*row, "more"] for row in rows[20:40]]
    near = {
        i
        for i, a in enumerate(rows)
        for b in rows[:i]
        if len(set(a) & set(b)) >= 0.8 * len(set(a) | set(b))
    }  # fmt: skip
    assert len(near) > 15
    assert {index for _, code, index in found(*({"statement": " ".join(row)} for row in rows)) if code == "near_duplicate"} == near
