"""Prompts for the other side and for one of two: where sentence and mask leave no doubt, in the data's own words, drawn like all draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reportseg.config import parse_config
from reportseg.data.cache import FilmCache
from reportseg.data.loader import Steps, batches
from reportseg.data.negatives import about, check_negatives, opposite, opposites, prompts, tells_all
from reportseg.data.synthetic import phantom
from reportseg.errors import InputError
from reportseg.text import CONSTANT, normalise, swap_sides, words, zones
from reportseg.types import Sample

CPU = torch.device("cpu")
LEFT = "Unilateral pulmonary infection, one infected area, lower left lung."
RIGHT = "Unilateral pulmonary infection, one infected area, lower right lung."
BOTH = "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."


def sample(text=LEFT, **changes) -> Sample:
    given = {"id": "a", "image": Path("a.png"), "mask": Path("m.png"), "text": text, "laterality": "image", "flip_safe": True}
    return Sample(**given | changes)


def mask(*columns, width=16):
    """A mask of 16 rows; each (first, last) is a blob over these columns."""
    drawn = np.zeros((16, width), bool)
    for number, (first, last) in enumerate(columns):
        drawn[2 + 4 * number : 5 + 4 * number, first : last + 1] = True
    return drawn


def asked(text, drawn, **changes) -> dict[str, np.ndarray]:
    return {prompt.text: prompt.mask_HW for prompt in prompts(sample(text, **changes), drawn)}


# ---------------------------------------------------------------- one side


def test_a_report_of_one_side_is_asked_for_the_other_in_two_wordings_and_for_its_own():
    drawn = mask((1, 5))
    got = asked(LEFT, drawn)
    assert list(got) == [RIGHT, "lower right lung", "lower left lung"]
    assert not got[RIGHT].any() and not got["lower right lung"].any()
    assert np.array_equal(got["lower left lung"], drawn)


@pytest.mark.parametrize(
    ("laterality", "columns", "allowed"),
    [
        ("image", (1, 7), True),  # up to the middle
        ("image", (1, 8), False),  # one column past it
        ("image", (9, 14), False),  # on the other side than the sentence says
        ("patient", (9, 14), True),  # the patient's left is the right of the image
        ("patient", (1, 5), False),
        ("none", (1, 5), False),
    ],
)
def test_the_data_sets_laterality_decides_which_half_is_meant(laterality, columns, allowed):
    got = opposite(sample(LEFT, laterality=laterality), mask(columns))
    assert got == (RIGHT if allowed else None)
    assert bool(asked(LEFT, mask(columns), laterality=laterality)) == allowed


def test_the_middle_column_of_an_odd_width_is_on_no_side():
    assert opposite(sample(), mask((1, 7), width=17)) == RIGHT
    assert opposite(sample(), mask((1, 8), width=17)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"text": "no opacity in the left lung"},
        {"text": "opacity in the lt lung, left"},  # a side word that cannot be swapped
        {"text": "opacity"},
        {"text": ""},
        {"text": "located in top left, center of the image"},
        {"present": False},
    ],
)
def test_in_doubt_nothing_else_is_asked(changes):
    drawn = mask() if changes.get("present") is False else mask((1, 5))
    assert prompts(sample(**changes), drawn) == [] and opposite(sample(**changes), drawn) is None


def test_an_empty_mask_of_an_absent_target_is_no_evidence_about_a_side():
    assert opposite(sample(LEFT), mask()) is None


# ---------------------------------------------------------------- both sides


def test_a_report_of_both_sides_asked_for_one_keeps_what_lies_there():
    drawn = mask((1, 5), (10, 14), (2, 3))
    got = asked(BOTH, drawn)
    assert list(got) == ["upper left lung", "lower right lung"]
    assert np.array_equal(got["upper left lung"], mask((1, 5), (20, 20), (2, 3)))
    assert np.array_equal(got["lower right lung"], drawn & ~got["upper left lung"])


def test_for_the_patients_side_the_halves_change_places():
    got = asked(BOTH, mask((1, 5), (10, 14)), laterality="patient")
    assert got["upper left lung"][:, 8:].any() and not got["upper left lung"][:, :8].any()


@pytest.mark.parametrize("columns", [[(1, 5), (6, 9)], [(1, 5)], [(1, 14)]], ids=["one crosses", "one side only", "all crosses"])
def test_a_mask_that_does_not_fall_into_two_halves_is_not_taken_apart(columns):
    assert asked(BOTH, mask(*columns)) == {}


def test_parts_that_touch_at_a_corner_only_are_two():
    drawn = np.zeros((16, 16), bool)
    drawn[3, 7] = drawn[4, 8] = True
    assert [int(part.sum()) for part in asked(BOTH, drawn).values()] == [1, 1]


# ---------------------------------------------------------------- what the text leaves out


def test_a_text_that_leaves_findings_out_says_nothing_about_the_other_side():
    one, partial, twice = sample(image=Path("a")), sample(image=Path("b"), complete=False), sample(image=Path("c"))
    assert tells_all([one, partial, twice, replace(twice, id="c-2", text=RIGHT)]) == [True, False, False, False]


def test_opposites_reads_only_the_masks_that_may_matter():
    rows = [sample(image=Path(str(i)), text=text) for i, text in enumerate((LEFT, BOTH, "opacity", RIGHT))]
    read = []
    assert opposites(rows, lambda row: read.append(row.text) or mask((1, 5))) == [RIGHT, None, None, None]
    assert read == [LEFT, RIGHT]


def test_negatives_that_no_film_allows_are_refused_with_the_likely_reason():
    masks = np.stack([mask((1, 5))]).astype(np.uint8)
    check_negatives([sample()], masks, 0.15)
    check_negatives([sample(BOTH)], masks, 0)
    for rows in ([sample(BOTH)], [sample(laterality="patient")], [sample(complete=False)]):
        with pytest.raises(InputError, match="laterality") as caught:
            check_negatives(rows, masks, 0.15)
        assert caught.value.code == "no_negatives"


# ---------------------------------------------------------------- the words


@pytest.mark.parametrize(
    ("text", "side", "piece"),
    [
        (BOTH, "left", "upper left lung"),
        (BOTH, "right", "lower right lung"),
        (LEFT, "right", None),
        ("Two opacities, left upper and middle zones and right lower zone.", "left", "left upper and middle zones"),
        ("Two opacities, left upper and middle zones and right lower zone.", "right", "right lower zone"),
        ("Bilateral pulmonary infection, all left and lower right lung.", "left", "all left"),
        ("Bilateral opacities.", "left", None),  # no clause speaks of the left alone
        ("RUL and LLL opacities", "right", "RUL"),
        ("lower left and right lung", "right", None),  # the level of the right stands beside the left
    ],
)
def test_the_piece_of_a_sentence_that_speaks_of_one_side(text, side, piece):
    assert about(text, side) == piece


def test_every_prompt_is_made_of_words_of_the_sentence_and_says_what_it_says():
    """On phantoms: both wordings, five styles. A piece names the zones of its side, no more and no fewer."""
    seen = 0
    for index in range(80):
        film = phantom(0, index, 32)
        for prompt in prompts(sample(film.sentence, complete=film.meta.other is None), film.mask_HW):
            seen += 1
            own = zones(film.sentence)
            assert set(words(prompt.text)) <= {*words(film.sentence), *words(swap_sides(film.sentence))}
            assert zones(prompt.text) <= own or zones(prompt.text) == zones(swap_sides(film.sentence))
            assert prompt.mask_HW.any() == (zones(prompt.text) <= own)
            assert normalise(prompt.text)
    assert seen > 60


# ---------------------------------------------------------------- in training


def steps(texts, masks, *, negatives=0.5, images=400, seed=0, flip=False, **data) -> Steps:
    augment = {"flip": flip, "rotate_deg": 0, "scale": 0, "shift": 0, "intensity": 0}
    values = {
        "name": "t",
        "seed": seed,
        "data": {"size_px": 16, "text_dropout": 0, "negatives": negatives, "augment": augment, **data},
        "train": {"images": images, "batch": 8},
        "model": {"name": "tgcnet", "preset": "tiny"},
    }
    samples = [sample(text, id=f"f{i}", image=Path(f"f{i}")) for i, text in enumerate(texts)]
    films = FilmCache(np.full((len(texts), 1, 16, 16), 90, np.uint8), np.stack(masks).astype(np.uint8))
    return Steps(samples, films, parse_config(values, "t"))


TEXTS, MASKS = [LEFT, BOTH, "opacity"], [mask((1, 5)), mask((1, 5), (10, 14)), mask((3, 12))]


def seen(made):
    return [(text, drawn[0].numpy()) for batch in batches(made, 0, CPU) for text, drawn in zip(batch.texts, batch.mask_B1HW, strict=True)]


def test_the_share_of_the_films_that_allow_it_is_asked_otherwise():
    got = [text for text, _ in seen(steps(TEXTS, MASKS, negatives=0.3, images=1500))]
    assert got.count("opacity") == 500
    assert abs(got.count(LEFT) / 500 - 0.7) < 0.07 and abs(got.count(BOTH) / 500 - 0.7) < 0.07
    for text in (RIGHT, "lower right lung", "lower left lung", "upper left lung"):
        assert got.count(text) > 20


def test_text_mask_and_flip_belong_together():
    """Whatever was drawn, a film that is asked for an image side has its mask there or nowhere."""
    drawn = seen(steps(TEXTS, MASKS, flip=True))
    assert {bool(m.any()) for text, m in drawn if normalise(text) in (normalise(LEFT), normalise(RIGHT))} == {True, False}
    for text, found in drawn:
        sides = {side for side, _ in zones(text)}
        halves = {side for side, part in (("left", found[:, :8]), ("right", found[:, 8:])) if part.any()}
        assert text == "opacity" or halves in (sides, set())
        assert halves or sides != {"left", "right"}


def test_negatives_move_no_other_draw():
    plain, other = steps(TEXTS, MASKS, negatives=0, flip=True), steps(TEXTS, MASKS, negatives=0.5, flip=True)
    for k in range(len(plain)):
        assert plain[k].ids == other[k].ids and plain[k].params == other[k].params
    assert {text for text, _ in seen(plain)} <= {LEFT, RIGHT, BOTH, swap_sides(BOTH), "opacity"}


def test_they_are_a_function_of_seed_step_and_index():
    one, again, seeded = steps(TEXTS, MASKS), steps(TEXTS, MASKS), steps(TEXTS, MASKS, seed=1)
    np.random.seed(3)
    again[7], again[2]
    assert [one[k].texts for k in range(20)] == [again[k].texts for k in range(20)] != [seeded[k].texts for k in range(20)]
    assert all(torch.equal(one[k].mask_B1HW, again[k].mask_B1HW) for k in range(20))


def test_a_film_whose_text_is_dropped_keeps_its_mask():
    dropped = [drawn for text, drawn in seen(steps(TEXTS, MASKS, negatives=0.9, text_dropout=0.5)) if not text]
    assert len(dropped) > 100 and all(drawn.any() for drawn in dropped)


def test_the_twin_is_asked_its_one_question():
    assert all(text == CONSTANT and drawn.any() for text, drawn in seen(steps(TEXTS, MASKS, negatives=0.9, text="constant")))


def test_the_cache_is_not_written_to():
    made = steps(TEXTS, MASKS, negatives=0.9)
    before = made.films.masks_NHW.copy()
    seen(made)
    assert np.array_equal(made.films.masks_NHW, before)
