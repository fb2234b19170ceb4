"""A bank: its retrieval, its sides, its control, and the files it is read from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportseg.errors import InputError
from reportseg.knowledge.bank import Bank, from_file, load_bank, retrieve, stem, union
from reportseg.schemas.base import parse
from reportseg.schemas.knowledge import BankFile

QATA = "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."


def statement(concept: str, sentence: str, *terms: str, kind: str = "appearance", laterality: str = "none") -> dict[str, Any]:
    return {"concept": concept, "kind": kind, "statement": sentence, "terms": list(terms), "laterality": laterality}


def bank_of(*statements: dict[str, Any]) -> Bank:
    return from_file(parse({"schema": 1, "name": "test", "statements": list(statements)}, BankFile))


def concepts(text: str, bank: Bank, top_k: int = 8) -> list[str]:
    return [hit.statement.concept for hit in retrieve(text, bank, top_k)]


# ---------------------------------------------------------------- retrieval


def test_text_without_a_term_finds_nothing() -> None:
    assert retrieve("one medium white polyp", load_bank("chest")) == []
    assert retrieve("", load_bank("chest")) == []


def test_a_hit_says_which_terms_it_was_found_by() -> None:
    bank = bank_of(statement("effusion", "Fluid is white.", "pleural fluid"), statement("nodule", "A nodule is round."))
    (hit,) = retrieve("Pleural fluid, effusions.", bank)
    assert (hit.index, set(hit.why)) == (0, {"effusion", "pleural fluid"})


def test_terms_are_whole_words_and_phrases_are_contiguous() -> None:
    bank = bank_of(statement("mass", "A mass is large."), statement("pleural effusion", "Fluid is white."))
    assert concepts("massive effusion of the pleural space", bank) == []
    assert concepts("masses", bank) == ["mass"]


def test_rare_and_longer_terms_rank_higher_and_ties_keep_the_order_of_the_bank() -> None:
    bank = bank_of(
        statement("a", "First.", "lung"),
        statement("b", "Second.", "lung"),
        statement("c", "Third.", "lung base"),
        statement("d", "Fourth.", "base"),
    )
    assert concepts("lung base", bank) == ["c", "d", "a", "b"]
    assert concepts("lung base", bank, top_k=1) == ["c"]
    assert concepts("lung base", bank, top_k=0) == []


def test_neutral_statements_are_never_retrieved() -> None:
    bank = bank_of(statement("lung", "Films are stored in files.", kind="neutral"), statement("effusion", "Fluid is white."))
    assert concepts("lung effusion", bank) == ["effusion"]


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("areas", "area"),
        ("opacities", "opacity"),
        ("masses", "mass"),
        ("bases", "base"),
        ("apices", "apex"),
        ("lungs", "lung"),
        ("atelectasis", "atelectasis"),
    ],
)
def test_plurals_are_one_word_with_their_singular(plural: str, singular: str) -> None:
    assert stem(plural) == stem(singular) == singular


@settings(deadline=None)  # the first call builds the index
@given(st.lists(st.sampled_from([QATA, "lower left lung", "effusion", "polyp", ""]), max_size=6))
def test_union_is_what_a_batch_needs(texts: list[str]) -> None:
    bank = load_bank("chest")
    indices, per_text = union(texts, bank, top_k=4)
    assert per_text == [[hit.index for hit in retrieve(text, bank, 4)] for text in texts]
    assert indices == sorted({i for row in per_text for i in row})


def test_concepts_take_turns() -> None:
    """A concept with many statements does not crowd out the others."""
    bank = bank_of(
        statement("rare disease", "First."),
        statement("rare disease", "Second."),
        statement("rare disease", "Third."),
        statement("lung", "Fourth."),
        statement("base", "Fifth.", "lung"),
    )
    assert concepts("rare disease of the lung", bank, top_k=4) == ["rare disease", "lung", "base", "rare disease"]
    assert [hit.index for hit in retrieve("rare disease of the lung", bank)] == [0, 3, 4, 1, 2]


def test_hyphens_part_the_words_of_terms_as_they_do_those_of_texts() -> None:
    bank = bank_of(statement("ground glass", "First.", "left-sided"))
    assert concepts("Left sided veil", bank) == concepts("ground-glass", bank) == ["ground glass"]


# ---------------------------------------------------------------- sides


SIDED = statement("left kidney", "It lies on the left, the liver on the right.", "renal left", laterality="patient")


def test_statements_that_name_a_side_follow_the_asked_convention() -> None:
    bank = bank_of(SIDED, statement("lung", "Dark.", "left lung", "right lung"))
    assert bank.facing("patient") is bank.facing("none") is bank
    turned = bank.facing("image")
    assert turned.texts() == ["It lies on the right, the liver on the left.", "Dark."]
    assert turned.facing("image") is turned
    assert turned.facing("patient").sha256 == bank.sha256 != turned.sha256


def test_a_turned_statement_is_called_for_by_the_turned_words() -> None:
    """Where sentences mean the image's side, "right kidney" is the patient's left one."""
    turned = bank_of(SIDED).facing("image")
    assert concepts("right kidney", turned) == ["right kidney"] and concepts("left kidney", turned) == []
    assert concepts("renal right", turned) == ["right kidney"]
    assert load_bank("chest").facing("image") is load_bank("chest").facing("patient")


# ---------------------------------------------------------------- the neutral control


def test_the_control_calls_for_the_same_statements_and_says_nothing() -> None:
    bank = bank_of(
        statement("n", "Trains run late.", kind="neutral"),
        statement("effusion", "Fluid is quite white.", "fluid"),
        statement("mass", "Masses are round."),
        statement("n", "Bread is baked daily.", kind="neutral"),
    )
    control = bank.control()
    assert control.texts() == ["Bread is baked daily.", "Trains run late."] and control.name == "test-neutral"
    for text in ("effusion and mass", "fluid", "tooth"):
        told, neutral = retrieve(text, bank.fitting()), retrieve(text, control)
        assert [(hit.index, hit.score, hit.why) for hit in told] == [(hit.index, hit.score, hit.why) for hit in neutral]
    assert bank.fitting().texts() == ["Fluid is quite white.", "Masses are round."]


def test_a_control_needs_a_sentence_of_the_same_length_for_every_statement() -> None:
    bank = bank_of(
        statement("n", "Trains run late.", kind="neutral"), statement("mass", "Masses are round."), statement("nodule", "It is round.")
    )
    with pytest.raises(InputError, match="no neutral statement of 3 words left for 'nodule'") as caught:
        bank.control()
    assert caught.value.code == "no_control"


def test_neutral_statements_change_neither_order_nor_score() -> None:
    bank = bank_of(statement("n", "Trains run late.", kind="neutral"), statement("mass", "Masses are round."))
    assert retrieve("mass", bank)[0].score == retrieve("mass", bank.fitting())[0].score


# ---------------------------------------------------------------- files


def test_a_bank_reads_back_equal_whatever_the_layout(tmp_path: Path) -> None:
    bank = load_bank("chest")
    compact, spread = tmp_path / "compact.json", tmp_path / "spread.json"
    compact.write_text(bank.to_json(), encoding="utf-8")
    spread.write_text(json.dumps(json.loads(bank.to_json()), indent=3), encoding="utf-8")
    assert load_bank(compact).sha256 == load_bank(str(spread)).sha256 == bank.sha256
    assert load_bank(compact).statements == bank.statements


def test_the_hash_changes_with_a_letter() -> None:
    assert bank_of(statement("a", "One.")).sha256 != bank_of(statement("a", "one.")).sha256


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ([], "no statement"),
        ([statement("a", "Same."), statement("b", "same .")], "statement 1 repeats statement 0"),
        ([statement("a", "word " * 61)], "statement 0 has more than 60 words"),
        ([statement("a", "On the left.")], "names a side but not whose"),
        ([statement("a", "On the lt side.", laterality="patient")], "cannot be swapped"),
        ([statement("a", "...")], "no words"),
    ],
)
def test_a_faulty_bank_is_named_statement_by_statement(statements: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        bank_of(*statements)
    assert caught.value.code == "bad_bank"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("{", "bad_json"),
        ("", "empty_file"),
        ('{"schema": 1, "name": "x"}', "bad_field"),
        ('{"schema": 1, "name": "x", "statements": [{"concept": 3}]}', "bad_field"),
    ],
)
def test_a_file_that_is_no_bank_is_the_users_error(tmp_path: Path, content: str, code: str) -> None:
    path = tmp_path / "bank.json"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        load_bank(path)
    assert caught.value.code == code and "bank.json" in str(caught.value)


def test_an_unknown_name_lists_the_shipped_banks() -> None:
    with pytest.raises(InputError, match="chest") as caught:
        load_bank("chset")
    assert caught.value.code == "unknown_bank"
    with pytest.raises(InputError) as caught:
        load_bank("folder/none.json")
    assert caught.value.code == "missing"
