"""dev, splits that we make, published splits: whole patients, the same on every machine, and hashes that tell them apart."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportseg.data import splits
from reportseg.data.splits import (
    compare_frozen,
    draw_dev,
    mark_disjoint,
    read_frozen,
    rows_known,
    shared_patients,
    split_by_patient,
    split_sha256,
)
from reportseg.errors import InputError
from reportseg.types import Sample


def sample(one: str, patient: str = "", split: str = "", image: str = "") -> Sample:
    return Sample(id=one, image=Path(image or f"{one}.png"), mask=None, text="", patient=patient, split=split)


FILMS = [sample(f"f{i}", f"p{i // 4}" if i % 3 else "") for i in range(200)]


def test_the_hash_of_a_split_is_that_of_its_sorted_ids():
    assert split_sha256(["b", "a"]) == hashlib.sha256(b"a\nb").hexdigest() == split_sha256(iter(["a", "b"]))
    assert split_sha256([]) == hashlib.sha256(b"").hexdigest()


def test_dev_is_a_tenth_sorted_and_never_shares_a_patient():
    dev = draw_dev(FILMS, "toy")
    assert dev == sorted(dev)
    assert len(dev) == 20
    patients = {s.patient for s in FILMS if s.id in dev if s.patient}
    assert patients
    assert all(s.id in dev for s in FILMS if s.patient in patients)


def test_dev_depends_on_the_name_and_not_on_the_order_or_the_folder():
    shuffled = random.Random(0).sample(FILMS, len(FILMS))
    elsewhere = [sample(s.id, s.patient, image=f"/elsewhere/{s.id}.png") for s in shuffled]
    assert draw_dev(FILMS, "toy") == draw_dev(shuffled, "toy") == draw_dev(elsewhere, "toy") != draw_dev(FILMS, "other")


def test_a_drawn_dev_stays_what_it_is():  # runs that are published quote it
    assert split_sha256(draw_dev(FILMS, "toy")) == "1bf02da0984fa12f1671fc23800bcd8900d47a369b5fea7db022738373161394"


def test_rows_of_one_film_stay_together_without_a_patient():
    rows = [sample(f"a-{i}", image="a.png") for i in range(5)] + [sample(f"b-{i}", image="b.png") for i in range(5)]
    assert {one[0] for one in draw_dev(rows, "toy")} in ({"a"}, {"b"})
    assert len(draw_dev(rows, "toy")) == 5


def test_dev_takes_the_smallest_patient_where_all_are_larger_than_a_tenth():
    rows = [sample(f"a{i}", "big") for i in range(8)] + [sample(f"b{i}", "small") for i in range(4)]
    assert draw_dev(rows, "toy") == ["b0", "b1", "b2", "b3"]


@pytest.mark.parametrize("rows", [[], [sample("a")], [sample("a", "p"), sample("b", "p")]])
def test_one_patient_cannot_be_held_out_from_itself(rows):
    with pytest.raises(InputError, match="one patient") as caught:
        draw_dev(rows, "toy")
    assert caught.value.code == "one_patient"
    assert "patient" in caught.value.fix


PATIENTS = st.lists(st.sampled_from(["", "p1", "p2", "p3", "p4", "p5"]), min_size=2, max_size=40)


@settings(deadline=None)
@given(PATIENTS, st.text(max_size=5), st.floats(0.01, 0.9))
def test_dev_is_never_empty_never_all_and_never_splits_a_patient(patients, name, share):
    rows = [sample(f"f{i}", p) for i, p in enumerate(patients)]
    if len({s.patient or s.id for s in rows}) < 2:
        return
    dev = set(draw_dev(rows, name, share))
    assert 0 < len(dev) < len(rows)
    assert not {s.patient for s in rows if s.patient and s.id in dev} & {s.patient for s in rows if s.patient and s.id not in dev}


@settings(deadline=None)
@given(PATIENTS)
def test_a_split_that_we_make_has_disjoint_patients_and_always_films_to_train_on(patients):
    rows = [sample(f"f{i}", p) for i, p in enumerate(patients)]
    made = split_by_patient(rows, "toy")
    assert set(made) == {s.id for s in rows}
    assert "train" in made.values()
    assert shared_patients([sample(s.id, s.patient, made[s.id]) for s in rows]) == {}


def test_a_split_that_we_make_keeps_its_shares():
    assert Counter(split_by_patient(FILMS, "toy").values()) == {"train": 140, "test": 40, "val": 20}


def test_equal_files_stay_together_and_join_the_patients_that_they_stand_for(tmp_path):
    """Else `data verify` would call our own split wrong."""
    rows = []
    for i in range(60):  # 0 to 29 are pairs of equal films without a patient, then come p5 to p9 with six films each
        film = {36: 35, 42: 59, 48: 3}.get(i, i // 2 if i < 30 else i)  # p6 has a film of p5, p7 one of p9, p8 that of 6 and 7
        (tmp_path / f"{i}.png").write_bytes(b"film %02d" % film)
        rows.append(sample(str(i), f"p{i // 6}" if i >= 30 else "", image=str(tmp_path / f"{i}.png")))
    together = [{i, i + 1} for i in range(0, 30, 2)] + [set(range(30, 42)), {*range(42, 48), *range(54, 60)}, {6, 7, *range(48, 54)}]
    for shares in (splits.SHARES, {"train": 0.5, "test": 0.5}, {"a": 0.2, "b": 0.4, "c": 0.4}):
        made = split_by_patient(rows, "toy", shares)
        assert len(set(made.values())) == len(shares)
        assert all(len({made[str(i)] for i in group}) == 1 for group in together)
        assert made == split_by_patient(rows[::-1], "toy", shares)


def test_a_split_of_one_film_in_many_copies_holds_nothing_out(tmp_path):
    for i in range(9):
        (tmp_path / f"{i}.png").write_bytes(b"film")
    rows = [sample(str(i), f"p{i % 2}", image=str(tmp_path / f"{i}.png")) for i in range(9)]
    assert set(split_by_patient(rows, "toy").values()) == {"train"}


def test_shared_patients_are_told_by_pair_of_splits():
    rows = [
        sample("a", "p1", "train"),
        sample("b", "p1", "val"),
        sample("c", "p2", "test"),
        sample("d", "", "val"),
        sample("e", "", "test"),
    ]
    assert shared_patients(rows) == {("train", "val"): ["p1"]}


def test_disjoint_marks_held_out_films_of_a_known_subject_that_train_lacks():
    rows = [
        {"split": "train", "patient": "p1"},
        {"split": "val", "patient": "p1", "subsets": "sub;disjoint"},
        {"split": "val", "patient": "p2", "subsets": "sub"},
        {"split": "test", "patient": ""},
        {"split": "test", "patient": "p3", "subsets": "disjoint"},
    ]
    mark_disjoint(rows)
    assert [row["subsets"] for row in rows] == ["", "sub", "sub;disjoint", "", "disjoint"]


def test_nothing_is_disjoint_from_a_train_split_that_is_not_there():
    rows = [{"split": "val", "patient": "p2", "subsets": "disjoint"}]
    mark_disjoint(rows)
    assert rows[0]["subsets"] == ""


# ---------------------------------------------------------------- published splits


def freeze(folder: Path, name: str = "toy", **stems: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    data = {
        "name": name,
        "source": "made up",
        "counts": {part: len(names) for part, names in stems.items()} | {"test": 3},
        "sha256": {part: split_sha256(names) for part, names in stems.items()},
        "stems": stems,
    }
    (folder / f"{name}.json").write_text(json.dumps(data))
    return folder


def test_an_equal_split_is_said_to_be_equal(tmp_path):
    folder = freeze(tmp_path, train=["a", "b"], val=["c"])
    said = compare_frozen("toy", {"train": ["b", "a"], "val": ["d"], "test": ["x", "y", "z"], "extra": ["q"]}, folder)
    assert said[0] == "train: 2 films, equals the published split of toy"
    assert said[1] == "val: 1 films, differs from the published split of toy: 1 missing, 1 not in it"
    assert "as many as" in said[2]
    assert "without this split" in said[3]
    assert "not the 3 of" in compare_frozen("toy", {"test": ["x"]}, folder)[0]


def test_a_split_under_another_name_is_known_by_its_counts(tmp_path):
    folder = freeze(tmp_path, train=["a", "b"], val=["c"])
    said = compare_frozen("mine", {"train": ["a", "b"], "val": ["c"]}, folder)
    assert said[0].endswith("equals the published split of toy")
    assert "--name toy" in said[-1]
    assert compare_frozen("mine", {"train": ["a", "b"], "val": ["c", "d"]}, folder) == []
    assert compare_frozen("mine", {}, folder) == []


def test_equal_counts_do_not_make_two_data_sets_one(tmp_path):
    folder = freeze(tmp_path, train=["a", "b"], val=["c"])
    assert compare_frozen("mine", {"train": ["x", "y"], "val": ["z"]}, folder) == []
    assert "equals" in compare_frozen("mine", {"train": ["x", "y"], "val": ["c"]}, folder)[1]


def test_rows_known_counts_rows_of_patients_that_the_other_split_has():
    rows = [("train", "a"), ("train", ""), ("test", "a"), ("test", "a"), ("test", "b"), ("test", "")]
    samples = [sample(str(i), patient, split) for i, (split, patient) in enumerate(rows)]
    assert rows_known(samples, "test", "train") == (2, 4)
    assert rows_known(samples, "val", "train") == (0, 0)


def test_an_installed_package_has_no_published_splits_and_says_so(tmp_path):
    assert read_frozen("toy", tmp_path / "none") is None
    assert "not compared" in compare_frozen("toy", {"train": ["a"]}, tmp_path / "none")[0]


def test_a_frozen_split_that_contradicts_itself_is_our_mistake(tmp_path):
    folder = freeze(tmp_path, train=["a", "b"])
    file = folder / "toy.json"
    file.write_text(file.read_text().replace('"b"', '"c"'))
    with pytest.raises(ValueError, match="contradicts"):
        read_frozen("toy", folder)


def test_the_frozen_split_of_qata_covid19():
    if not splits.FROZEN.is_dir():
        pytest.skip("needs a checkout of the sources")
    frozen = read_frozen("qata_cov19")
    assert frozen.counts == {"train": 5716, "val": 1429, "test": 2113}
    assert set(frozen.stems) == {"train", "val"}
    assert not set(frozen.stems["train"]) & set(frozen.stems["val"])
    assert all(list(names) == sorted(names) for names in frozen.stems.values())


FROZEN = {  # counts, and the splits whose names are known whole
    "busi": ((624, 78, 78), ()),
    "kvasir_seg": ((800, 100, 100), ("val",)),
    "monuseg": ((24, 6, 14), ("train", "val", "test")),
    "mosmed": ((2183, 273, 273), ()),
    "qata_cov19": ((5716, 1429, 2113), ("train", "val")),
}


def test_every_published_split_that_is_frozen():
    if not splits.FROZEN.is_dir():
        pytest.skip("needs a checkout of the sources")
    assert sorted(file.stem for file in splits.FROZEN.glob("*.json")) == sorted(FROZEN)
    for name, (counts, whole) in FROZEN.items():
        frozen = read_frozen(name)
        assert tuple(frozen.counts.values()) == counts and frozen.name == name and frozen.source
        assert tuple(frozen.stems) == tuple(frozen.sha256) == whole
        every = [stem for names in frozen.stems.values() for stem in names]
        assert len(every) == len(set(every)) == sum(frozen.counts[part] for part in whole)
