"""What `text.findings` promises: 200 sentences of our own (findings.txt), reports with headings and lists, hostile and real texts."""

from __future__ import annotations

import csv
import importlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportseg.text import findings, is_negated, read_report
from reportseg.types import Finding

SIGN = {"present": "+", "absent": "-", "uncertain": "?"}
TABLE = [
    line.split(" | ") if " | " in line else [line.rstrip(" |"), ""]
    for line in (Path(__file__).parent / "findings.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]


def wanted(cell: str) -> list[tuple[str, str, str | None]]:
    """(sign, words, side) of each finding of a row."""
    parts = [re.fullmatch(r"([+?-])(.+?)(?: @(\w+))?", part.strip()) for part in cell.split(";") if part.strip()]
    return [(part[1], part[2], part[3]) for part in parts if part]


def brief(found: list[Finding]) -> list[str]:
    return [f"{SIGN[f.polarity]}{f.text}" + (f" @{f.side}" if f.side else "") for f in found]


def true_spans(report: str) -> bool:
    reading = read_report(report)
    parts = [*reading.findings, *reading.skipped]
    return all(part.text and report[part.span[0] : part.span[1]] == part.text for part in parts)


def test_there_are_two_hundred_sentences_of_our_own() -> None:
    assert len({sentence for sentence, _ in TABLE}) == len(TABLE)
    assert len(TABLE) >= 200


@pytest.mark.parametrize(("sentence", "expected"), TABLE, ids=[sentence for sentence, _ in TABLE])
def test_a_sentence_gives_its_findings(sentence: str, expected: str) -> None:
    found, expected_parts = findings(sentence), wanted(expected)
    got = [(SIGN[f.polarity], f.side) for f in found]
    assert got == [(sign, side) for sign, _, side in expected_parts], brief(found)
    assert all(part in f.text for f, (_, part, _) in zip(found, expected_parts, strict=True)), brief(found)
    assert true_spans(sentence)


# ---------------------------------------------------------------- reports


REPORT = """INDICATION: Cough, rule out pneumonia. Evaluate for rib fracture
TECHNIQUE: PA and lateral, no nodule marker used.
COMPARISON: None

FINDINGS:
1. Heart size is normal.
2) Small effusion in
the left lower hemithorax.
- No pneumothorax
* Right PICC line

History of lymphoma. Lungs are clear

IMPRESSION: Left effusion. Recommend CT to exclude mass.
"""


def test_a_report_is_read_by_heading_list_and_line() -> None:
    reading = read_report(REPORT)
    assert brief(list(reading.findings)) == [
        "-rule out pneumonia",
        "?Evaluate for rib fracture",
        "-Heart size is normal",
        "+Small effusion in\nthe left lower hemithorax @left",
        "-No pneumothorax",
        "+Right PICC line @right",
        "-Lungs are clear",
        "+Left effusion @left",
    ]
    assert [(part.text.split()[0], part.reason) for part in reading.skipped] == [
        ("PA", "technique"),
        ("None", "technique"),
        ("History", "history"),
        ("Recommend", "recommendation"),
    ]
    assert [finding.polarity for finding in reading.asked] == ["uncertain", "present", "present", "present"]
    assert true_spans(REPORT)


@pytest.mark.parametrize(
    ("answer", "polarity"),
    [
        ("No rib fracture.", "absent"),
        ("Fracture of the left sixth rib.", "uncertain"),
        ("No acute abnormality.", "absent"),
        ("Stable scoliosis.", "uncertain"),
        ("No fracture of the clavicle. Possible rib fracture.", "uncertain"),
    ],
)
def test_a_question_of_the_indication_is_absent_where_the_findings_answer_no(answer: str, polarity: str) -> None:
    first, *_ = findings(f"Indication: rule out rib fracture. Findings: {answer}")
    assert (first.label, first.polarity) == ("fracture", polarity)


@pytest.mark.parametrize(
    ("asked", "answer", "polarity"),
    [
        ("Left effusion?", "No right effusion.", "uncertain"),
        ("Left effusion?", "No left effusion.", "absent"),
        ("Left effusion?", "No effusion.", "absent"),
        ("Left effusion?", "No bilateral effusions.", "absent"),
        ("Effusion?", "No right effusion.", "uncertain"),
        ("Bilateral effusions?", "No right effusion. No left effusion.", "absent"),
        ("Left pneumonia?", "The right lung is clear.", "uncertain"),
        ("Pneumonia?", "The right lung is clear.", "uncertain"),
        ("Bilateral pneumonia?", "The right lung is clear.", "uncertain"),
        ("Right pneumonia?", "The right lung is clear.", "absent"),
        ("Left pneumonia?", "Both lungs are clear.", "absent"),
    ],
)
def test_only_a_denial_of_the_same_side_answers_a_question(asked: str, answer: str, polarity: str) -> None:
    assert findings(f"INDICATION: {asked} FINDINGS: {answer}")[0].polarity == polarity


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_without_their_heading_findings_begin_behind_the_indication_and_the_technique(end: str) -> None:
    asked = ["INDICATION:", "", "Cough, ? pneumonia.", ""]
    report = [*asked, "COMPARISON: None.", "", "PORTABLE CHEST: No pneumonia.", "", "PLEURA: Left effusion."]
    found = findings(end.join(report))
    assert brief(found) == ["-? pneumonia", "-PORTABLE CHEST: No pneumonia", "+PLEURA: Left effusion @left"]
    told = [*asked, "Known emphysema.", "", "FINDINGS: Left effusion."]
    assert brief(findings(end.join(told))) == ["?? pneumonia", "+Left effusion @left"]


def test_a_complaint_of_the_indication_is_no_finding() -> None:
    reading = read_report("INDICATION: Known emphysema, chest pain.\nFINDINGS: Lungs are clear.")
    assert brief(list(reading.findings)) == ["-Lungs are clear"]
    assert [part.reason for part in reading.skipped] == ["indication"]


@pytest.mark.parametrize(
    ("report", "first"),
    [
        ("A nodule of 3.5 cm is seen. No mass.", "A nodule of 3.5 cm is seen"),
        ("Opacity approx. 2 cm wide. No mass.", "Opacity approx. 2 cm wide"),
        ("Left effusion.No mass.", "Left effusion"),
        ("Left effusion\r\n\r\nNo mass.", "Left effusion"),
        ("• Left effusion\n• No mass.", "Left effusion"),
        ("Findings\nLeft effusion; no mass.", "Left effusion"),
        ("ＬＥＦＴ effusion. No mass.", "ＬＥＦＴ effusion"),
    ],
)
def test_sentences_end_where_they_end(report: str, first: str) -> None:
    found = findings(report)
    assert [f.text for f in found[:1]] == [first]
    assert [f.polarity for f in found] == ["present", "absent"]
    assert true_spans(report)


@pytest.mark.parametrize(
    ("text", "label", "zone"),
    [
        ("Left upper lobe nodule.", "nodule", "upper"),
        ("Opacity in the right middle and lower lobes.", "opacity", "middle lower"),
        ("Bibasilar atelectasis.", "atelectasis", "lower"),
        ("The heart is enlarged.", "cardiomegaly", None),
        ("The aorta is enlarged.", "enlargement", None),
        ("Infiltrates at the bases, sparing the apices.", "infiltrate", "lower"),
        ("Infiltrates with subpleural sparing in the lower lobes.", "infiltrate", "lower"),
        ("Calcified granuloma.", "granuloma", None),
        ("Lower thoracic spine fracture.", "fracture", None),
        ("Nodular opacity.", "nodule", None),
        ("No acute bony abnormality.", "bones", None),
        ("No foobar.", None, None),
    ],
)
def test_a_finding_has_a_label_and_the_levels_of_the_lung(text: str, label: str | None, zone: str | None) -> None:
    (finding,) = findings(text)
    assert (finding.label, finding.zone) == (label, zone)


def test_a_prompt_that_only_denies_gives_only_absent_findings() -> None:
    for sentence, cell in TABLE:
        if is_negated(sentence):
            assert {f.polarity for f in findings(sentence)} == {"absent"}, sentence
            assert {sign for sign, _, _ in wanted(cell)} == {"-"}, sentence


def test_each_line_of_a_form_is_answered_by_itself() -> None:
    for end in ("\n", "\r\n"):
        report = end.join(["Pneumothorax: no", "effusion: yes", "Nodule: none", "Mass: no"])
        assert [f.polarity for f in findings(report)] == ["absent", "present", "absent", "absent"]


@pytest.mark.parametrize("text", ["It is not true that there is no effusion.", "The absence of effusion is not confirmed."])
def test_two_denials_deny_nothing(text: str) -> None:
    assert not is_negated(text)


# ---------------------------------------------------------------- hostile and real texts


@given(st.text())
def test_any_text_is_read_with_true_spans(text: str) -> None:
    assert true_spans(text)


@given(
    st.lists(
        st.sampled_from("no not or and , . ; : ? effusion mass heart left normal may which \n FINDINGS: İ ﷺ 左 - history n't".split(" "))
    )
)
def test_any_order_of_telling_words_is_read_with_true_spans(words: list[str]) -> None:
    report = " ".join(words)
    assert true_spans(report)
    spans = [f.span for f in findings(report)]
    assert spans == sorted(spans)


@pytest.mark.parametrize(  # how long each takes: benchmarks/findings.py --speed
    "unit",
    [pytest.param("a" + "?" * 8000 + " ", id="question marks"), pytest.param("a" + " " * 8000, id="white space")]
    + (
        "no|no |no effusion, |no effusion or |effusion and |left lung and |heart and |normal heart, |a|? |. |\n|- |pleural |history of |"
        "recommend |ct |no evidence of: |mass: |if any, |? a|INDICATION: a\n\n|FINDINGS: |findings\n|which |not n't |prominence of the |"
        "scar and scar in the left base, |İ|💀|\u0301"
    ).split("|"),
)
def test_a_text_at_the_limit_is_read(unit: str) -> None:
    text = (unit * (2**15 // len(unit) + 1))[: 2**15]
    assert true_spans(text)
    assert is_negated(text) in {True, False}


@pytest.mark.data
def test_every_real_report_is_read_with_true_spans(data_root: Path) -> None:
    with open(data_root / "reports" / "indiana_reports.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3851
    for row in rows:
        assert true_spans(row["findings"]) and true_spans(row["impression"])
        assert true_spans(f"INDICATION: {row['indication']}\nFINDINGS: {row['findings']}\nIMPRESSION: {row['impression']}")


@pytest.mark.data
def test_an_independent_reader_of_real_sentences_agrees(data_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The development half of labels/; the other half is for the figure in docs/reports.md."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    benchmark = importlib.import_module("findings")
    labels = json.loads((Path(__file__).parent / "labels" / "indiana.json").read_text(encoding="utf-8"))
    with open(data_root / "reports" / "indiana_reports.csv", newline="", encoding="utf-8") as file:
        reports = {row["uid"]: row for row in csv.DictReader(file)}
    figures = benchmark.score([sentence for sentence in labels if sentence["half"] == "dev"], reports)
    assert figures["sentences"] == 150
    assert figures["polarity_micro_f1"] >= 0.90
    assert figures["side_accuracy"] >= 0.90


# ---------------------------------------------------------------- resolved in part


PARTLY = "partially|incompletely|nearly|almost|largely|mostly|substantially|virtually|practically|all but|almost completely|nearly entirely"
PART = "Partial|Incomplete|Near-complete|Near-total|Almost complete|Substantial|Virtual|Some|Gradual|Continued|Further|Ongoing"


@pytest.mark.parametrize("adverb", PARTLY.split("|"))
@pytest.mark.parametrize("form", ["The left effusion is {} resolved.", "The left effusion has {} cleared.", "Left effusion, {} resolved."])
def test_what_is_resolved_in_part_is_still_there(adverb: str, form: str) -> None:
    assert [(f.label, f.polarity, f.side) for f in findings(form.format(adverb))] == [("pleural effusion", "present", "left")]


@pytest.mark.parametrize("part", PART.split("|"))
@pytest.mark.parametrize("form", ["{} resolution of the left effusion.", "{} interval clearing of the left effusion."])
def test_a_resolution_of_a_part_leaves_the_rest(part: str, form: str) -> None:
    assert [(f.label, f.polarity, f.side) for f in findings(form.format(part))] == [("pleural effusion", "present", "left")]
