"""What the banks inside the package hold."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from reportseg.bundle import load_bundle
from reportseg.knowledge.bank import load_bank, retrieve, shipped_banks, skeleton
from reportseg.knowledge.check import check
from reportseg.text import has_side, words

QATA = "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."
WORD = (
    "liver", "spleen", "left kidney", "right kidney", "stomach", "gallbladder", "esophagus", "pancreas", "duodenum", "colon", "intestine",
    "adrenal", "rectum", "bladder", "head of femur left", "head of femur right",
)  # fmt: skip


def concepts(text: str, bank: str) -> list[str]:
    return [hit.statement.concept for hit in retrieve(text, load_bank(bank))]


def test_the_shipped_banks() -> None:
    assert shipped_banks() == ["abdomen", "breast", "chest", "nuclei", "polyp"]
    with pytest.raises(Exception, match="abdomen, breast, chest, nuclei, polyp"):
        load_bank("liver")


@pytest.mark.parametrize("name", shipped_banks())
def test_a_shipped_bank_keeps_every_rule_and_is_honest_about_its_origin(name: str) -> None:
    bank = load_bank(name)
    assert check(bank.file) == []
    assert all(s.source == "drafted by a language model" and s.model and s.date and s.reviewed_by is None for s in bank.statements)
    assert "not reviewed by a clinician" in bank.file.description and bank.file.licence == "Apache-2.0"
    assert all(len(words(s.statement)) <= 30 for s in bank.statements)


@pytest.mark.parametrize("name", shipped_banks())
def test_every_statement_is_called_for_by_each_of_its_terms(name: str) -> None:
    bank = load_bank(name).fitting()
    for i, s in enumerate(bank.statements):
        for term in (s.concept, *s.terms):
            assert i in [hit.index for hit in retrieve(term, bank, top_k=len(bank.statements))], term


# ---------------------------------------------------------------- chest


def test_chest_holds_eighty_statements_and_fifty_of_them_are_no_template() -> None:
    bank = load_bank("chest").fitting()
    assert len(bank.statements) >= 80
    assert len({skeleton(s.statement) for s in bank.statements}) >= 50
    assert {s.kind for s in bank.statements} == {"density", "margin", "appearance", "distribution", "anatomy", "mimic"}


def test_chest_holds_for_mirrored_films() -> None:
    assert not any(has_side(s.statement) for s in load_bank("chest").statements)


def test_the_neutral_statements_of_chest_are_as_many_and_as_long_and_say_nothing_of_a_chest() -> None:
    bank = load_bank("chest")
    fitting, control = bank.fitting().statements, bank.control().statements
    assert [(s.concept, s.terms, len(words(s.statement))) for s in control] == [
        (s.concept, s.terms, len(words(s.statement))) for s in fitting
    ]
    neutral = [s.statement for s in bank.statements if s.kind == "neutral"]
    assert Counter(s.statement for s in control) == Counter(neutral) and len(set(neutral)) == len(neutral) == len(fitting)


def test_a_qata_sentence_calls_for_what_it_says() -> None:
    found = concepts(QATA, "chest")
    assert {"pulmonary infection", "infected area", "bilateral", "upper zone", "lower zone", "two infected areas"} <= set(found)
    assert "middle zone" not in found and "unilateral" not in found


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Right pleural effusions with blunting of the costophrenic angle", "pleural effusion"),
        ("ground-glass opacities", "ground glass"),
        ("patchy infiltrates", "infiltrate"),
        ("cardiomegaly", "cardiomegaly"),
        ("The lungs are clear.", "normal lung"),
        ("No pneumothorax.", "pneumothorax"),
        ("Calcified granulomas", "calcified granuloma"),
        ("Subsegmental atelectasis", "atelectasis"),
        ("Acute rib fractures", "rib fracture"),
        ("Right PICC", "central venous catheter"),
        ("Hyperexpanded, consistent with emphysema", "emphysema"),
        ("Reticular interstitial markings", "interstitial pattern"),
        ("Dual-lead pacemaker", "pacemaker"),
        ("Low lung volumes with bronchovascular crowding", "low lung volumes"),
        ("Masses", "mass"),
    ],
)
def test_report_words_find_their_concept_first(text: str, first: str) -> None:
    assert concepts(text, "chest")[0] == first


@pytest.mark.data
def test_chest_knows_the_words_of_real_reports(data_root: Path) -> None:
    """Nineteen of twenty sentences of findings call for a statement; every eighth report is read."""
    bank = load_bank("chest")
    with (data_root / "reports" / "indiana_reports.csv").open(encoding="utf-8") as file:
        reports = [row["findings"] for row in csv.DictReader(file)][::8]
    sentences = [s for report in reports for s in re.split(r"\.\s+", report) if words(s)]
    assert len(sentences) > 1_500
    assert sum(bool(retrieve(s, bank)) for s in sentences) > 0.95 * len(sentences)


def test_a_bundle_keeps_the_bank_that_it_was_trained_with() -> None:
    bank = load_bundle("demo").bank
    assert bank is not None and len(bank.statements) == 32 and bank.sha256 != load_bank("chest").sha256
    assert retrieve(QATA, bank)


# ---------------------------------------------------------------- the others


@pytest.mark.parametrize("organ", [*WORD, "liver", "kidney", "spleen", "pancreas"])
def test_abdomen_knows_the_organs_of_word_and_abdomenct_1k(organ: str) -> None:
    head, side = organ.split()[-1], re.search("left|right", organ)
    found = concepts(organ, "abdomen")
    assert found
    if side:
        assert side.group() in found[0] and (head in found[0] or "femoral head" in found[0])
    assert concepts(organ.upper().replace(" ", "_"), "abdomen") == found


def test_abdomen_means_the_patients_side_and_turns_for_images() -> None:
    bank = load_bank("abdomen")
    assert {s.laterality for s in bank.statements} == {"patient", "none"}
    (liver,) = (s for s in bank.facing("image").statements if s.concept == "liver" and s.kind == "anatomy")
    assert "beneath the diaphragm on the left" in liver.statement
    (hit, *_) = retrieve("right kidney", bank.facing("image"))
    assert "right kidney lies beside the spine behind the spleen" in hit.statement.statement


@pytest.mark.parametrize(
    ("bank", "text", "called"),
    [
        (
            "polyp",
            "one medium white polyp which is oval in shape located in top left of the image",
            "medium polyp, white polyp, oval polyp",
        ),
        ("polyp", "two small pink round polyps", "polyp, several polyps, small polyp, pink polyp, round polyp"),
        ("nuclei", "Crowded purple nuclei of malignant epithelial cells", "nucleus, crowded nuclei, tumor cell, epithelial cell"),
        ("breast", "One small irregular-shaped malignant tumor at the center", "malignant mass, small mass, irregular, place in the image"),
        ("breast", "benign oval mass with circumscribed margin", "benign mass, oval, regular margin, breast mass"),
    ],
)
def test_prompts_of_other_data_sets_call_for_what_they_say(bank: str, text: str, called: str) -> None:
    assert set(called.split(", ")) <= set(concepts(text, bank))
