"""Phantom films: what the sentence says is what the mask holds, and a film depends on (seed, index) alone."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
from scipy import ndimage

from reportseg.data.chest import Area
from reportseg.data.manifest import read_manifest
from reportseg.data.synthetic import Phantom, describe, phantom, synthesise
from reportseg.errors import InputError
from reportseg.io import read_mask
from reportseg.text import LEVELS, SIDES, can_swap, swap_sides, word_bag, zones

ZONES = [(side, level) for side in SIDES for level in LEVELS]
SINGLE = [(level,) for level in LEVELS]
RUNS = [*SINGLE, LEVELS[:2], LEVELS[1:], LEVELS]
CASES = [
    *[[Area(side, levels)] for side in SIDES for levels in RUNS],
    *[[Area(a, x), Area(b, y)] for a, b in (SIDES, SIDES[::-1]) for x in RUNS for y in RUNS],
    *[[Area(side, ("upper",)), Area(side, ("lower",))] for side in SIDES],
    *[[Area("left", ("upper",)), Area("left", ("lower",)), Area("right", x)] for x in RUNS],
    *[[Area("left", x), Area("right", ("lower",)), Area("right", ("upper",))] for x in RUNS],
]


@pytest.fixture(scope="module")
def films() -> list[Phantom]:
    return [phantom(0, i, 96) for i in range(120)]


@pytest.fixture(scope="module")
def two(films) -> list[Phantom]:
    """The films of which one finding is left out."""
    return [f for f in films if f.meta.other]


def held(film, mask_HW) -> frozenset[tuple[str, str]]:
    """The zones that the pixels of a mask lie in."""
    return frozenset(ZONES[z - 1] for z in np.unique(film.meta.zone_HW[mask_HW]))


def contrast(film, mask_HW) -> float:
    """Gray levels by which the pixels of a mask are brighter than the clear lung around them."""
    clear = (film.meta.zone_HW > 0) & ~ndimage.binary_dilation(film.mask_HW | film.meta.other_HW, iterations=2)
    around = clear & ndimage.binary_dilation(mask_HW, iterations=10)
    return float(film.image_HW[mask_HW].mean()) - float(film.image_HW[around].mean())


def test_the_sentence_names_the_zones_that_hold_the_mask(films):
    for film in films:
        assert zones(film.sentence) == film.meta.zones == held(film, film.mask_HW), film.sentence


def test_the_sentence_tells_the_number_of_areas_and_each_is_in_one_piece(films):
    for film in films:
        number = len(film.meta.areas)
        assert ndimage.label(film.mask_HW)[1] == number
        said = {"one": 1, "two": 2, "three": 3}
        low = film.sentence.lower().replace(",", " ").split()
        assert [said[w] for w in low if w in said] in ([number], [] if number == 1 else [number])


@pytest.mark.parametrize("areas", CASES, ids=lambda areas: "+".join(f"{a.side[0]}{''.join(v[0] for v in a.levels)}" for a in areas))
def test_every_wording_of_every_finding_reads_back(areas):
    wanted = frozenset().union(*(a.zones for a in areas))
    mirrored = {(SIDES[1 - SIDES.index(side)], level) for side, level in wanted}
    sentences = {describe(areas, np.random.default_rng(seed)) for seed in range(40)}
    assert len(sentences) == 5
    for sentence in sentences:
        assert zones(sentence) == wanted, sentence
        assert can_swap(sentence) and zones(swap_sides(sentence)) == mirrored, sentence


def test_the_wording_of_the_public_data_set_is_among_them():
    def wordings(*areas):
        return {describe(areas, np.random.default_rng(seed)) for seed in range(40)}

    left, right = Area("left", ("upper",)), Area("right", ("lower",))
    assert "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung." in wordings(left, right)
    assert "Unilateral pulmonary infection, one infected area, lower right lung." in wordings(right)
    assert "Right lower zone opacity." in wordings(right)


def test_sentences_of_equal_words_mean_different_zones():
    meanings: dict[tuple[str, ...], set] = {}
    for i in range(400):
        film = phantom(0, i, 32)
        meanings.setdefault(word_bag(film.sentence), set()).add(film.meta.zones)
    assert sum(len(m) > 1 for m in meanings.values()) >= 5


def test_two_films_in_five_hold_a_finding_that_the_sentence_leaves_out(films, two):
    assert 0.3 < len(two) / len(films) < 0.5
    for film in two:
        assert film.meta.other_HW.any() and not (film.meta.other_HW & film.mask_HW).any()
        assert held(film, film.meta.other_HW) == film.meta.other.zones
        assert not film.meta.other.zones & zones(film.sentence)


def test_the_finding_left_out_is_as_visible_as_the_one_described(two):
    own, other = [
        np.array([contrast(f, m) for f, m in pairs]) for pairs in ([(f, f.mask_HW) for f in two], [(f, f.meta.other_HW) for f in two])
    ]
    assert own.min() > 4 and other.min() > 4
    assert abs(own.mean() - other.mean()) < 6


def test_side_and_level_of_the_finding_left_out_vary(two):
    same_side = [f for f in two if f.meta.other.side == f.meta.areas[0].side]
    assert 0.1 < len(same_side) / len(two) < 0.7
    assert {f.meta.other.side for f in two} == set(SIDES)
    assert {level for f in two for level in f.meta.other.levels} == set(LEVELS)


def test_masks_are_neither_specks_nor_whole_lungs(films):
    area = [f.mask_HW.mean() for f in films]
    assert min(area) > 0.005 and max(area) < 0.25


def test_the_chest_has_dark_lungs_a_heart_to_the_right_and_air_beside_the_neck(films):
    for film in films[:20]:
        image, lungs = film.image_HW.astype(float), film.meta.zone_HW > 0
        clear = lungs & ~ndimage.binary_dilation(film.mask_HW | film.meta.other_HW, iterations=5)
        rows = slice(20, 70)
        assert image[clear].mean() < image[rows, 44:52].mean() - 40  # darker than the spine
        assert 0.2 < lungs.mean() < 0.5
        lower_left, lower_right = (film.meta.zone_HW == 1 + ZONES.index((side, "lower")) for side in SIDES)
        assert lower_left.sum() > lower_right.sum()  # the heart takes its room from the right
        assert image[:4, :6].mean() < 60 or image[:4, -6:].mean() < 60


def test_exposure_varies(films):
    means = [f.image_HW.mean() for f in films]
    assert max(means) - min(means) > 30


def test_a_film_depends_on_seed_and_index_alone():
    first, again = phantom(3, 7, 64), phantom(3, 7, 64)
    np.testing.assert_array_equal(first.image_HW, again.image_HW)
    np.testing.assert_array_equal(first.mask_HW, again.mask_HW)
    assert first.sentence == again.sentence and first.meta.patient == again.meta.patient
    for other in (phantom(4, 7, 64), phantom(3, 8, 64)):
        assert (other.image_HW != first.image_HW).mean() > 0.5


def test_a_film_is_the_same_at_another_size():
    for i in range(10):
        small, large = phantom(0, i, 64), phantom(0, i, 128)
        assert small.sentence == large.sentence
        coarse = large.mask_HW.reshape(64, 2, 64, 2).mean((1, 3)) >= 0.5
        assert 2 * (coarse & small.mask_HW).sum() / (coarse.sum() + small.mask_HW.sum()) > 0.93
        averaged = large.image_HW.reshape(64, 2, 64, 2).mean((1, 3))
        assert np.abs(averaged - small.image_HW).mean() < 12  # grain


def test_films_of_a_patient_share_the_chest_and_the_split(films):
    patients: dict[str, list] = {}
    for film in films:
        patients.setdefault(film.meta.patient, []).append(film)
    assert {len(own) for own in patients.values()} == {1, 2, 3}
    assert all(len({f.meta.split for f in own}) == 1 for own in patients.values())

    def unlike(a, b):
        return ((a.meta.zone_HW > 0) != (b.meta.zone_HW > 0)).mean()

    own = [unlike(f[0], f[1]) for f in patients.values() if len(f) > 1]
    strangers = [unlike(a, b) for a, b in zip(films, films[30:], strict=False)]
    assert np.mean(own) < np.mean(strangers)


def test_splits_are_seventy_ten_twenty_by_patient():
    patients = {}
    for i in range(140):  # ten blocks of ten patients
        film = phantom(5, i, 32)
        patients[film.meta.patient] = film.meta.split
    counts = {s: list(patients.values()).count(s) for s in ("train", "val", "test")}
    assert counts == {"train": 70, "val": 10, "test": 20}


# ---------------------------------------------------------------- the set on disk


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return synthesise(tmp_path_factory.mktemp("phantoms") / "set", 30, seed=1, size=64)


def test_the_folder_is_a_data_set(small):
    dataset = read_manifest(small)
    assert small.name == "manifest.csv"
    assert sorted(p.name for p in small.parent.iterdir()) == ["dataset.json", "images", "manifest.csv", "masks"]
    assert (dataset.name, dataset.laterality, dataset.info.licence) == ("phantoms", "image", "CC0-1.0")
    assert dataset.info.split_source == "made by reportseg, patient-disjoint"
    assert len(dataset.samples) == 30 and {s.split for s in dataset.samples} == {"train", "val", "test"}
    for i, sample in enumerate(dataset.samples):
        film = phantom(1, i, 64)
        assert (sample.text, sample.patient, sample.split) == (film.sentence, film.meta.patient, film.meta.split)
        assert sample.flip_safe and sample.present and sample.laterality == "image" and sample.text_source == "template"
        assert sample.subsets == (("two-findings",) if film.meta.other else ())


def test_files_are_8_bit_gray(small):
    for i, sample in enumerate(read_manifest(small).samples[:5]):
        image, mask = PIL.Image.open(sample.image), PIL.Image.open(sample.mask)
        assert image.mode == mask.mode == "L" and image.size == mask.size == (64, 64)
        film = phantom(1, i, 64)
        np.testing.assert_array_equal(np.asarray(image), film.image_HW)
        assert set(np.unique(np.asarray(mask))) == {0, 255}
        np.testing.assert_array_equal(read_mask(sample.mask), film.mask_HW)


def test_a_smaller_set_is_the_beginning_of_a_larger_one(small, tmp_path):
    part = synthesise(tmp_path / "part", 8, seed=1, size=64)
    assert part.read_text().splitlines() == small.read_text().splitlines()[:9]
    for name in ("images/phantom-00007.png", "masks/phantom-00007.png"):
        assert (part.parent / name).read_bytes() == (small.parent / name).read_bytes()


def test_an_empty_folder_is_filled(tmp_path):
    assert synthesise(tmp_path, 1, size=32) == tmp_path / "manifest.csv"


def test_a_folder_that_holds_something_is_left_alone(small, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "mine.txt", small.parent):
        with pytest.raises(InputError, match="folder") as caught:
            synthesise(out, 1, size=32)
        assert caught.value.code == "exists" and caught.value.where == str(out) and caught.value.fix
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": -1}, {"size": 8}, {"size": 4096}, {"seed": -1}])
def test_numbers_that_make_no_films_are_refused(wrong, tmp_path):
    with pytest.raises(InputError) as caught:
        synthesise(tmp_path / "out", **({"n": 1} | wrong))
    assert caught.value.code == "bad_number"
    assert not (tmp_path / "out").exists()


def test_an_interrupted_set_leaves_nothing_behind(tmp_path):
    def stop(done, total):
        assert total == 5
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesise(tmp_path / "out", 5, size=32, progress=stop)
    assert list((tmp_path / "out").iterdir()) == []
    assert synthesise(tmp_path / "out", 5, size=32).exists()


def test_a_place_that_cannot_be_written_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        synthesise(tmp_path / "file" / "out", 1, size=32)
    assert caught.value.code == "unwritable"
