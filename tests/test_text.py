"""What reportseg.text promises about sentences. Examples of slips are sentences of QaTa-COV19."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportseg.text import (
    can_swap,
    clauses,
    has_side,
    is_negated,
    normalise,
    shuffled,
    swap_sides,
    swapped_rows,
    unknown_sides,
    word_bag,
    words,
    zones,
)

MIRROR = {"left": "right", "right": "left", "center": "center"}
ALL = ("lower", "middle", "upper")


def mirrored(text: str) -> frozenset[tuple[str, str]]:
    return frozenset((MIRROR[side], level) for side, level in zones(text))


def read_zones(text: str) -> str:
    """ "left: lower upper; right: middle": easier to read than a set of pairs."""
    by_side = {side: sorted(level for s, level in zones(text) if s == side) for side in ("left", "center", "right")}
    return "; ".join(f"{side}: {' '.join(levels)}" for side, levels in by_side.items() if levels)


# ---------------------------------------------------------------- one spelling


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("Bilateral  infection,two areas, all LEFT lung.", "bilateral infection , two areas , all left lung ."),
        (" a\tb\n c ", "a b c"),
        ("3.5 cm; (seen)", "3.5 cm ; ( seen )"),
        ("ﬁne ＬＥＦＴ lu\u00adng", "fine left lung"),
        ("midddle stays", "midddle stays"),
        ("", ""),
    ],
)
def test_normalise_writes_a_sentence_in_one_way(written: str, normal: str) -> None:
    assert normalise(written) == normal


@given(st.text())
def test_normalise_is_idempotent(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_words_keep_hyphens_and_drop_punctuation() -> None:
    assert words("Left-sided opacity, 3 areas.") == ["left-sided", "opacity", "3", "areas"]


def test_word_bag_ignores_order_only() -> None:
    one, other = "upper left lung and lower right lung", "lower left lung and upper right lung"
    assert word_bag(one) == word_bag(other) and zones(one) != zones(other)
    assert word_bag(one) != word_bag("upper left lung and upper right lung")


# ---------------------------------------------------------------- sides


@pytest.mark.parametrize(
    ("text", "swapped"),
    [
        ("upper left lung and lower right lung", "upper right lung and lower left lung"),
        ("Left-sided and RIGHT", "Right-sided and LEFT"),
        ("RUL, RLL; LUL LLL", "LUL, LLL; RUL RLL"),
        ("opacity in the RML", "opacity in the lingula"),
        ("Lingula collapse", "RML collapse"),
        ("on the left of the image", "on the right of the image"),
        ("middle lowerright lung", "middle lowerleft lung"),
        ("lower rightlung", "lower leftlung"),
        ("leftsided effusion", "rightsided effusion"),
        ("bilateral opacities", "bilateral opacities"),
        ("leftover rights upright brightness", "leftover rights upright brightness"),
        ("", ""),
    ],
)
def test_swap_exchanges_side_words_and_nothing_else(text: str, swapped: str) -> None:
    assert swap_sides(text) == swapped
    assert normalise(swap_sides(swapped)) == normalise(text)


@pytest.mark.parametrize("text", ["lower lift lung", "middle lower leflung"])
def test_known_side_slips_swap_too(text: str) -> None:
    assert can_swap(text)
    assert swap_sides(text) != text and swap_sides(swap_sides(text)) == text
    assert zones(swap_sides(text)) == mirrored(text) == {("right", level) for _, level in zones(text)}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("opacity in lt lung", ["lt"]),
        ("rt. base, lt. apex", ["rt", "lt"]),
        ("L-sided effusion", ["l"]),
        ("r. lung", ["r"]),
        ("Pain to R back", ["r"]),
        ("linke Lunge", ["linke"]),
        ("poumon gauche et droit", ["gauche", "droit"]),
        ("pulmo sinister", ["sinister"]),
        ("左肺", ["左"]),
        ("polyp at 3 o'clock", ["3 o'clock"]),
        ("mild dextroscoliosis", ["dextroscoliosis"]),
        ("lingular opacity", ["lingular"]),
        ("lower rihgt lung", ["rihgt"]),
        ("middle lower l right lung", []),
        ("L-spine and L1 are normal", []),
        ("the light film shows eight areas", []),
        ("left lung", []),
    ],
)
def test_side_words_outside_the_lexicon_are_named(text: str, found: list[str]) -> None:
    assert unknown_sides(text) == found
    assert can_swap(text) == (not found)


@pytest.mark.parametrize(
    ("text", "side"), [("left lung", True), ("RUL", True), ("lt lung", True), ("bilateral opacities", False), ("image", False)]
)
def test_has_side_sees_known_and_unknown_sides(text: str, side: bool) -> None:
    assert has_side(text) is side


PARTS = (
    "left right Left RIGHT upper middle lower all lung lungs lobe RUL LLL RML lingula leflung rightlung lowerleft and , . "
    "bilateral left-sided lift"
).split()


@given(st.lists(st.sampled_from(PARTS), max_size=14).map(" ".join))
def test_swapping_twice_gives_a_template_sentence_back(text: str) -> None:
    assert normalise(swap_sides(swap_sides(text))) == normalise(text)
    assert can_swap(text) == can_swap(swap_sides(text))


@given(st.text(alphabet="leftrighLEFTRIGHun .-\u0301'ＬﬁTLR左"))
def test_swapping_twice_gives_any_covered_text_back(text: str) -> None:
    if can_swap(text):
        assert normalise(swap_sides(swap_sides(text))) == normalise(text)


# ---------------------------------------------------------------- clauses


def test_clauses_are_cut_at_commas_full_stops_and_and() -> None:
    text = "Bilateral infection, two areas of 3.5 cm; upper left AND lower right lung. "
    assert [text[a:b] for a, b in clauses(text)] == ["Bilateral infection", "two areas of 3.5 cm", "upper left", "lower right lung"]


@given(st.text(alphabet="ab and,;. 3\n"))
def test_clauses_are_true_spans_in_order(text: str) -> None:
    spans = clauses(text)
    assert all(text[a:b] and text[a:b] == text[a:b].strip() for a, b in spans)
    assert all(spans[i][1] <= spans[i + 1][0] for i in range(len(spans) - 1))


@pytest.mark.parametrize("text", ["", "  ", "..., and", ","])
def test_a_text_without_content_has_no_clause(text: str) -> None:
    assert clauses(text) == []


# ---------------------------------------------------------------- zones


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two infected areas, upper left lung and middle lower right lung", "left: upper; right: lower middle"),
        ("all left lung", "left: lower middle upper"),
        ("left lung and lower right lung", "left: lower middle upper; right: lower"),
        ("all left and upper lower right lung", "left: lower middle upper; right: lower upper"),
        ("bilateral opacities", "left: lower middle upper; right: lower middle upper"),
        ("bilateral infection, lower left lung", "left: lower"),
        ("bibasilar atelectasis", "left: lower; right: lower"),
        ("opacity in the left upper lobe and right lower lobe", "left: upper; right: lower"),
        ("left upper and lower lobes", "left: lower upper"),
        ("left and right lower lobes", "left: lower; right: lower"),
        ("lower left and right lung", "left: lower; right: lower"),
        ("upper and lower left lung", "left: lower upper"),
        ("Left upper, middle and lower zone opacity", "left: lower middle upper"),
        ("left upper, middle and lower zone and whole right lung", "left: lower middle upper; right: lower middle upper"),
        ("upper left zone and entire right lung", "left: upper; right: lower middle upper"),
        ("RUL and lingula", "left: middle; right: upper"),
        ("pulmonary infection", ""),
        ("", ""),
    ],
)
def test_zones_of_template_sentences(text: str, expected: str) -> None:
    assert read_zones(text) == expected
    assert zones(swap_sides(text)) == mirrored(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("middlelower left lung and middle right lung", "left: lower middle; right: middle"),
        ("upper midddle lower right lung", "right: lower middle upper"),
        ("higher left lung and higher lower right lung", "left: upper; right: lower upper"),
        ("uooer middle left lung", "left: middle upper"),
        ("lupper ower left lung and all right lung", "left: lower upper; right: lower middle upper"),
        ("middle lwoer left lung", "left: lower middle"),
        ("upper left lung andupper right lung", "left: upper; right: upper"),
        ("lowerall left lung", "left: lower"),
        ("middle lowerright lung", "right: lower middle"),
        ("middle right ung", "right: middle"),
        ("middle lower leflung", "left: lower middle"),
        ("lower rihgt lung", "right: lower"),
        ("middle right left lung", "left: middle; right: middle"),
        ("Bilateral infection, all left lung and upper lower lung", "left: lower middle upper; right: lower upper"),
        ("Bilateral infection, all lung and middle lower right lung", "left: lower middle upper; right: lower middle"),
        ("Unilateral infection, upper lower and right lung", "right: lower upper"),
    ],
)
def test_zones_tolerate_slips(text: str, expected: str) -> None:
    assert read_zones(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one polyp, located in top left of the image", "left: upper"),
        ("one polyp, located in top, right of the image", "center: upper; right: middle"),
        ("one polyp, located in center of the image", "center: middle"),
        ("one middle of ear polyp, located in bottom of the image", "center: lower"),
        ("one tumor at the right in the breast ultrasound image.", "right: middle"),
        ("opacity in the left lung in the image", "left: lower middle upper"),
    ],
)
def test_places_in_a_picture_lie_on_a_grid(text: str, expected: str) -> None:
    assert read_zones(text) == expected


@given(st.lists(st.sampled_from(PARTS), max_size=14).map(" ".join))
def test_zones_follow_the_swap_whatever_the_order_of_words(text: str) -> None:
    assert zones(swap_sides(text)) == mirrored(text)
    assert {level for _, level in zones(text)} <= set(ALL)


# ---------------------------------------------------------------- denial


@pytest.mark.parametrize(
    "text",
    [
        "no pleural effusion",
        "No evidence of consolidation.",
        "without consolidation",
        "negative for pneumothorax",
        "lungs are free of opacity",
        "absence of effusion",
        "there is no focal opacity in the left lung",
        "effusion is not seen",
        "pneumothorax not present.",
        "The lungs are clear.",
        "no effusion, nodule or mass",
        "no effusion and no pneumothorax",
        "Lungs are clear. No effusion.",
        "left lung without consolidation",
    ],
)
def test_a_wholly_negated_prompt_is_seen(text: str) -> None:
    assert is_negated(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "image",
        "left lower lobe opacity",
        "no change in opacity",
        "no significant interval change",
        "without change",
        "no new opacity",
        "effusion cannot be excluded",
        "consolidation without effusion",
        "no effusion, left lower lobe opacity",
        "no effusion but consolidation on the left",
        "no effusion. Opacity in the right lung.",
        "no opacity other than in the left lung",
        "opacity unchanged",
        "not only the left lung",
        "densities in the right lung which were not present in the prior film",
        "nodule in the left lung",
        "normal liver",
        "infiltrates at day 5 that cleared later",
        "the left kidney is intact",
        "no effusion, something else",
        "the heart and lungs",
    ],
)
def test_a_mixed_or_affirmed_prompt_is_not_negated(text: str) -> None:
    assert not is_negated(text)


# ---------------------------------------------------------------- the text controls


@given(st.lists(st.sampled_from(["a", "A ", "b", "c", "d", "e"]), max_size=40), st.integers(0, 5))
def test_shuffled_keeps_the_multiset_and_gives_no_row_its_own_sentence(texts: list[str], seed: int) -> None:
    donors = shuffled(texts, seed)
    pairs = [(row, donor) for row, donor in enumerate(donors) if donor is not None]
    assert sorted(row for row, _ in pairs) == sorted(donor for _, donor in pairs)
    assert all(normalise(texts[row]) != normalise(texts[donor]) for row, donor in pairs)
    most = max(Counter(map(normalise, texts)).values(), default=0)
    assert donors.count(None) == max(0, 2 * most - len(texts))
    assert donors == shuffled(texts, seed)


def test_shuffled_differs_between_seeds_and_spreads_donors() -> None:
    texts = [f"sentence {i % 7}" for i in range(210)]
    assert shuffled(texts, 0) != shuffled(texts, 1)
    donors_of_a_group = {texts[d] for i, d in enumerate(shuffled(texts, 0)) if d is not None and i % 7 == 0}
    assert len(donors_of_a_group) == 6  # not one neighbour's sentence for the whole group


def test_swapped_rows_are_those_whose_zones_change() -> None:
    texts = [
        "upper left lung",
        "all left lung and all right lung",
        "lower left lung and upper right lung",
        "lt lung",
        "upper left and lt lung",
        "image",
    ]
    assert swapped_rows(texts) == [0, 2]


# ---------------------------------------------------------------- real sentences


def qata(data_root: Path, split: str) -> list[str]:
    import openpyxl

    (sheet,) = (data_root / "qata_cov19" / f"{split}_Folder").glob("*.xlsx")
    rows = openpyxl.load_workbook(sheet, read_only=True).active.iter_rows(min_row=2, values_only=True)
    return [str(row[1]) for row in rows if row[1]]


@pytest.mark.data
def test_every_sentence_of_qata_is_read_and_mirrored(data_root: Path) -> None:
    train, val = qata(data_root, "Train"), qata(data_root, "Val")
    assert (len(train), len(val), len(set(map(normalise, train)))) == (5716, 1429, 239)
    for text in sorted(set(train + val)):
        assert zones(text), text
        assert can_swap(text), text
        assert normalise(swap_sides(swap_sides(text))) == normalise(text)
        assert zones(swap_sides(text)) == mirrored(text), text
    assert 0.43 < len(swapped_rows(val)) / len(val) < 0.45


@pytest.mark.data
def test_shuffled_moves_nearly_every_film_of_qata_to_other_zones(data_root: Path) -> None:
    val = qata(data_root, "Val")
    donors = shuffled(val, 0)
    assert None not in donors
    assert sum(zones(val[d]) != zones(val[i]) for i, d in enumerate(donors) if d is not None) / len(val) > 0.9


@pytest.mark.data
def test_places_of_kvasir_are_read(data_root: Path) -> None:
    with open(data_root / "kvasir_seg" / "texts.csv", newline="", encoding="utf-8") as f:
        texts = sorted({row["text"] for row in csv.DictReader(f)})
    assert all(zones(text) and can_swap(text) for text in texts)


@pytest.mark.data
def test_free_reports_break_nothing(data_root: Path) -> None:
    with open(data_root / "reports" / "indiana_reports.csv", newline="", encoding="utf-8") as f:
        reports = [f"{row['findings']} {row['impression']}" for row in csv.DictReader(f)]
    for report in reports:
        assert all(report[a:b] and report[a:b] == report[a:b].strip() for a, b in clauses(report))
        zones(report), is_negated(report)
        if can_swap(report):
            assert normalise(swap_sides(swap_sides(report))) == normalise(report)
    assert Counter(word for report in reports for word in unknown_sides(report)).keys() >= {"lingular", "dextroscoliosis", "lt"}
    assert sum(map(can_swap, reports)) / len(reports) > 0.97
