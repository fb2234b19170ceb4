"""Layouts on people's disks become one manifest; what has no partner is reported, and nothing of the source is changed."""

from __future__ import annotations

import csv
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from layouts import LEFT, RIGHT, films, lvit, picture, refused, sheet, table
from reportseg.data.importers import IMPORTERS, OWN_SPLIT, import_data
from reportseg.data.importers.sheets import read_sheet
from reportseg.data.manifest import read_manifest
from reportseg.data.splits import draw_dev, shared_patients
from reportseg.data.verify import verify
from reportseg.errors import InputError
from reportseg.io import read_mask
from reportseg.limits import DEFAULT, Limits
from reportseg.text import normalise


def rows_of(file: Path, limits: Limits = DEFAULT) -> list[tuple[str, str]]:
    return [(line.name, line.text) for line in read_sheet(file, "train", limits)]


# ---------------------------------------------------------------- lvit

SUB = "sub-S{}_ses-E1_run-1_bp-chest_vp-ap_dx"


@pytest.fixture
def qata(tmp_path) -> Path:
    return lvit(
        tmp_path / "QaTa",
        train={"covid_1": LEFT, SUB.format(1): LEFT, SUB.format(2): RIGHT},
        val={"covid_2": RIGHT, SUB.format(1) + "-2": LEFT, SUB.format(3): "Bilateral, lt lung"},
    )


def test_lvit_matches_film_mask_and_sentence_by_stem(qata, tmp_path):
    imported = import_data("lvit", qata, tmp_path / "out")
    assert imported.n == {"train": 3, "val": 3}
    assumed, *others = imported.messages
    assert assumed.startswith("laterality: image is assumed for 6 rows") and "--laterality" in assumed and "qata_cov19" in assumed
    assert others == ["val: 1 of 3 rows are of a patient whom train has too"]
    dataset = read_manifest(imported.manifest)
    assert dataset.laterality == "image"
    assert dataset.name == "QaTa"
    assert "published" in dataset.info.split_source
    for s in dataset.samples:
        assert s.image.is_file()
        assert s.mask.is_file()
        assert s.mask.stem == f"mask_{s.image.stem}"
        assert s.id == s.image.stem
        assert read_mask(s.mask).all()
        assert s.text_source == "lvit"
    assert [s.text for s in dataset.split("train")] == [LEFT, LEFT, RIGHT]


def test_lvit_reads_the_subject_and_marks_the_subsets_of_held_out_films(qata, tmp_path):
    dataset = read_manifest(import_data("lvit", qata, tmp_path / "out").manifest)
    assert [(s.patient, s.subsets) for s in dataset.split("train")] == [("", ()), ("S1", ()), ("S2", ())]
    assert [(s.patient, s.subsets) for s in dataset.split("val")] == [("", ()), ("S1", ("sub",)), ("S3", ("sub", "disjoint"))]


def test_lvit_allows_a_mirror_only_for_chests_whose_side_words_can_be_swapped(tmp_path):
    texts = {"a": LEFT, "b": "lesion of the lt lung", "c": "the liver, right of the image", "d": "The nuclei are evenly distributed."}
    source = lvit(tmp_path / "x", train=texts)
    assert [s.flip_safe for s in read_manifest(import_data("lvit", source, tmp_path / "o").manifest).samples] == [True, False, False, False]
    none = read_manifest(import_data("lvit", source, tmp_path / "n", laterality="none").manifest)
    assert none.laterality == "none"
    assert not any(s.flip_safe for s in none.samples)


@pytest.mark.parametrize("parts", [("train",), ("val",), ("test",), ("train", "test"), ("train", "val", "test")])
def test_lvit_takes_any_subset_of_the_three_folders(tmp_path, parts):
    source = lvit(tmp_path / "x", **{part: {f"{part}_{i}": LEFT for i in range(2)} for part in parts})
    imported = import_data("lvit", source, tmp_path / "o")
    assert imported.n == dict.fromkeys(parts, 2)
    assert any("disjoint" in m for m in imported.messages) == ("train" not in parts)


def test_lvit_reads_png_films_plain_mask_names_and_rgb_masks(tmp_path):
    folder = tmp_path / "Mos/Test_Folder"
    picture(folder / "img/slice_1.5.png")
    picture(folder / "labelcol/slice_1.5.PNG", 255, "RGB")
    sheet(folder / "Test_text.xlsx", [("slice_1.5.png", "left lung")])
    (sample,) = read_manifest(import_data("lvit", tmp_path / "Mos", tmp_path / "o").manifest).samples
    assert sample.text == "left lung"
    assert read_mask(sample.mask).all()
    assert sample.id == "slice_1.5"


def test_lvit_reports_what_has_no_partner(tmp_path):
    source = lvit(tmp_path / "x", train={"a": LEFT, "b": LEFT, "c": "", "d": LEFT})
    folder = source / "Train_Folder"
    picture(folder / "img/lonely.jpg")
    (folder / "labelcol/mask_b.png").unlink()
    (folder / "img/d.jpg").unlink()
    picture(folder / "img/a.png")
    sheet(folder / "Train_text.xlsx", [(f"mask_{s}.png", LEFT if s != "c" else None) for s in ("a", "b", "c", "d", "ghost")])
    imported = import_data("lvit", source, tmp_path / "o")
    said = "\n".join(imported.messages)
    assert imported.n == {"train": 2}
    assert "3 (mask_b.png, mask_d.png, mask_ghost.png)" in said  # rows without film or mask
    assert "without a row in the sheet, left out: 1 (lonely.jpg)" in said
    assert "films without a mask, left out: 2 (b.jpg, lonely.jpg)" in said
    assert "rows without a sentence: 1 (c.jpg)" in said
    assert "a.png has the stem of a.jpg" in said


def test_lvit_keeps_two_sentences_for_one_film_and_one_of_two_equal_rows(tmp_path):
    source = lvit(tmp_path / "x", train={"a": LEFT})
    sheet(source / "Train_Folder/Train_text.xlsx", [("a.jpg", LEFT), ("a.jpg", LEFT), ("mask_a.png", RIGHT)])
    samples = read_manifest(import_data("lvit", source, tmp_path / "o").manifest).samples
    assert [(s.id, s.text) for s in samples] == [("a", LEFT), ("a-2", RIGHT)]


def test_lvit_keeps_the_sentence_as_it_was_written(tmp_path):
    odd = "  Bilateral  pulmonary infection,\nupper midddle lift lung , é "
    source = lvit(tmp_path / "x", train={"a": odd})
    assert read_manifest(import_data("lvit", source, tmp_path / "o").manifest).samples[0].text == odd


@pytest.mark.parametrize("name", ["", "img", "Train_Folder"])
def test_lvit_says_which_folder_it_wants(tmp_path, name):
    lvit(tmp_path / "x", train={"a": LEFT})
    place = tmp_path if not name else tmp_path / "x/Train_Folder/img" if name == "img" else tmp_path / "x/Train_Folder"
    error = refused("lvit", place, tmp_path / "o")
    assert error.code == "layout"
    assert "Train_Folder" in error.fix
    assert refused("lvit", tmp_path / "nowhere", tmp_path / "o").code == "missing"


def test_lvit_needs_one_sheet_and_its_two_columns(tmp_path):
    source = lvit(tmp_path / "x", train={"a": LEFT})
    folder = source / "Train_Folder"
    (folder / "~$Train_text.xlsx").write_bytes(b"lock file of an open sheet")
    sheet(folder / "notes.xlsx", [("x", "y")])
    assert import_data("lvit", source, tmp_path / "o").n == {"train": 1}
    sheet(folder / "Train_text.xlsx", [("a.jpg", LEFT)], ("Image", "Descripton"))
    error = refused("lvit", source, tmp_path / "o")
    assert error.code == "missing_column"
    assert "nearest: descripton" in error.what
    sheet(folder / "Other_text.xlsx", [])
    assert "2 sheets" in refused("lvit", source, tmp_path / "o").what
    for file in folder.glob("*.xlsx"):
        file.unlink()
    assert refused("lvit", source, tmp_path / "o").code == "sheet"


def test_numbers_in_a_sheet_name_films_without_a_decimal_point(tmp_path):
    file = sheet(tmp_path / "s.xlsx", [(7, 3), (), (8.0, None), (0,), (None, "nothing"), ("  ", "blank")])
    assert rows_of(file) == [("7", "3"), ("8", ""), ("0", "")]


def test_a_sheet_that_is_none_is_refused(tmp_path):
    file = tmp_path / "s.xlsx"
    for content in (b"Image,Description\n", b"PK\x03\x04 cut off", b"\xd0\xcf\x11\xe0 an old .xls"):
        file.write_bytes(content)
        with pytest.raises(InputError) as caught:
            rows_of(file)
        assert caught.value.code == "bad_sheet"
        assert caught.value.fix
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello.txt", "no sheet")
    with pytest.raises(InputError, match="cannot be read"):
        rows_of(file)


def test_a_sheet_that_would_fill_the_memory_is_refused_before_it_is_unpacked(tmp_path):
    file = sheet(tmp_path / "s.xlsx", [("a", LEFT)])
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings2.xml", b" " * (8 << 20))
    with pytest.raises(InputError) as caught:
        rows_of(file)
    assert caught.value.code == "archive_bomb"
    assert rows_of(file, Limits(ratio=10**6))
    for limits in (Limits(ratio=10**6, members=3), Limits(ratio=10**6, volume_bytes=1 << 20)):
        with pytest.raises(InputError):
            rows_of(file, limits)


def rewritten(file: Path, change) -> Path:
    """The same workbook with the XML of its first sheet changed."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, change(part) if name == "xl/worksheets/sheet1.xml" else part)
    return file


LAUGHS = b'<!DOCTYPE x [<!ENTITY a "ha">' + b"".join(b'<!ENTITY %c "%b">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(10)) + b"]>"
FOREIGN = b'<!DOCTYPE x [<!ENTITY k SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("entities", [LAUGHS, FOREIGN], ids=["laughs", "foreign"])
def test_a_sheet_with_entities_is_refused(tmp_path, entities):
    file = sheet(tmp_path / "s.xlsx", [("a", "marker")])
    rewritten(file, lambda xml: entities + xml.split(b"?>", 1)[-1].replace(b"marker", b"&k;"))
    with pytest.raises(InputError) as caught:
        rows_of(file)
    assert caught.value.code == "bad_sheet"


def test_a_sheet_whose_cells_lie_far_apart_is_not_filled_up(tmp_path):
    file = sheet(tmp_path / "s.xlsx", [("a", LEFT)])
    far = b"".join(b'<row r="%d"><c r="XFD%d"><v>1</v></c></row>' % (n, n) for n in range(10, 10_000, 10))
    rewritten(file, lambda xml: xml.replace(b"</sheetData>", far + b'<row r="999999999999"><c r="A1"><v>1</v></c></row></sheetData>'))
    assert rows_of(file) == [("a", LEFT)]


def test_a_sentence_over_the_limit_in_a_sheet_is_refused_with_its_row(tmp_path):
    source = lvit(tmp_path / "x", train={"a": LEFT, "b": "é" * 20_000})
    error = refused("lvit", source, tmp_path / "o")
    assert error.code == "text_too_long"
    assert "row 3" in error.where
    assert not (tmp_path / "o").exists()


# ---------------------------------------------------------------- what all layouts share


def test_an_unknown_layout_names_the_nearest(tmp_path):
    error = refused("lvitt", tmp_path, tmp_path / "o")
    assert error.code == "unknown_layout"
    assert "nearest: lvit" in error.what
    assert all(name in error.fix for name in IMPORTERS)


def test_the_manifest_refers_to_the_files_by_an_absolute_root(qata, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = import_data("lvit", "QaTa", "out").manifest
    assert json.loads((tmp_path / "out/dataset.json").read_text())["root"] == str(qata.resolve())
    assert not (tmp_path / "out/images").exists()
    monkeypatch.chdir("/")
    assert all(s.image.is_file() for s in read_manifest(tmp_path / manifest).samples)


def test_a_manifest_around_its_films_can_be_moved_with_them(qata, tmp_path):
    import_data("lvit", qata, tmp_path)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("QaTa", "manifest.csv", "dataset.json"):
        (tmp_path / name).rename(moved / name)
    assert read_manifest(moved).info.root == "QaTa"
    assert all(s.image.is_file() for s in read_manifest(moved).samples)


def test_copy_makes_the_folder_self_contained(qata, tmp_path):
    manifest = import_data("lvit", qata, tmp_path / "out", copy=True).manifest
    qata.rename(tmp_path / "gone")
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    dataset = read_manifest(tmp_path / "elsewhere" / manifest.name)
    assert dataset.info.root == "."
    assert all(read_mask(s.mask).all() for s in dataset.samples)
    assert {s.image.parent for s in dataset.samples} == {tmp_path / "elsewhere/images"}
    assert dataset.samples[0].image.read_bytes() == (tmp_path / "gone/Train_Folder/img/covid_1.jpg").read_bytes()


def test_copy_copies_a_film_once_for_all_of_its_rows(tmp_path):
    picture(tmp_path / "x/a.png")
    picture(tmp_path / "x/m.png")
    table(tmp_path / "x/texts.csv", "image,mask,text,split", "a.png,m.png,one,train", "a.png,m.png,two,train")
    samples = read_manifest(import_data("folder", tmp_path / "x", tmp_path / "o", copy=True).manifest).samples
    assert [s.id for s in samples] == ["a", "a-2"]
    assert samples[0].image == samples[1].image
    assert sorted(p.name for p in (tmp_path / "o").rglob("*.png")) == ["a.png", "a.png"]


def test_an_id_of_the_source_cannot_lead_a_copy_out_of_its_folder(tmp_path):
    source = films(tmp_path / "x", "a", "b")
    rows = ("images/a.png,masks/a.png,t,../../gone", "images/b.png,masks/b.png,t,")
    table(source / "texts.csv", "image,mask,text,id", *rows)
    dataset = read_manifest(import_data("folder", source, tmp_path / "o", copy=True).manifest)
    assert [s.id for s in dataset.samples] == ["..-..-gone", "b"]
    assert sorted(p.name for p in (tmp_path / "o/images").iterdir()) == ["..-..-gone.png", "b.png"]


def test_copy_never_mixes_with_files_that_are_there(tmp_path):
    picture(tmp_path / "images/a.png", 1)
    picture(tmp_path / "masks/a.png", 1)
    table(tmp_path / "texts.csv", "image,mask,text,id", "images/a.png,masks/a.png,t,b")
    assert refused("folder", tmp_path, tmp_path, copy=True).code == "would_overwrite"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "masks", "texts.csv"]


def test_a_copy_that_fails_leaves_nothing(tmp_path, monkeypatch):
    source = lvit(tmp_path / "x", train={"a": LEFT})
    monkeypatch.setattr("shutil.copyfile", lambda a, b: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    error = refused("lvit", source, tmp_path / "o", copy=True)
    assert error.code == "unwritable"
    assert "No space" in error.what
    assert not (tmp_path / "o/manifest.csv").exists()
    monkeypatch.undo()
    import_data("lvit", source, tmp_path / "o", copy=True)  # nothing stands in the way of the next try


def test_a_known_data_set_brings_its_licence(qata, tmp_path):
    info = read_manifest(import_data("lvit", qata, tmp_path / "o", name="qata_cov19").manifest).info
    assert info.name == "qata_cov19"
    assert "research use only" in info.licence
    assert "LViT" in info.citation


def test_import_says_whether_the_split_is_the_published_one(qata, tmp_path):
    said = import_data("lvit", qata, tmp_path / "o", name="qata_cov19").messages
    assert any("differs from the published split" in m or "not compared" in m for m in said)


# ---------------------------------------------------------------- join


def test_join_adds_columns_by_stem_and_subject_becomes_patient(qata, tmp_path):
    joined = table(tmp_path / "subjects.csv", "image,subject,view", "covid_1.jpg,S9,ap", "covid_2.png,S8,pa", "other.jpg,S7,ap")
    imported = import_data("lvit", qata, tmp_path / "o", join=[joined])
    by = {s.id: s for s in read_manifest(imported.manifest).samples}
    assert by["covid_1"].patient == "S9"
    assert by["covid_1"].extra == {"view": "ap"}
    assert by[SUB.format(1)].patient == "S1"
    assert by[SUB.format(1)].extra == {"view": ""}
    assert "subjects.csv: films without a row in it: 4" in imported.messages[0]
    assert imported.messages[1] == "subjects.csv: rows without a film, left out: 1 (other)"


def test_join_recomputes_who_is_disjoint(qata, tmp_path):
    stems = ["covid_1", "covid_2", *(s.stem for s in qata.glob("*/img/sub-*"))]
    same = table(tmp_path / "same.csv", "image,subject", *(f"{s}.jpg,{'S3' if s == 'covid_1' else ''}" for s in stems))
    by = {s.id: s for s in read_manifest(import_data("lvit", qata, tmp_path / "o", join=[same]).manifest).samples}
    assert by[SUB.format(3)].subsets == ("sub",)  # its subject is in train after all


def test_join_keeps_cells_that_are_filled_and_says_so(qata, tmp_path):
    joined = table(tmp_path / "j.csv", "image,split,patient,text", f"{SUB.format(1)}.jpg,test,S1,new", "covid_1.jpg,train,,")
    imported = import_data("lvit", qata, tmp_path / "o", join=[joined])
    sample = next(s for s in read_manifest(imported.manifest).samples if s.id == SUB.format(1))
    assert (sample.split, sample.patient, sample.text) == ("train", "S1", LEFT)
    assert [m for m in imported.messages if "differs" in m] == [
        "j.csv: split stays as it was in 1 rows where the joined value differs",
        "j.csv: text stays as it was in 1 rows where the joined value differs",
    ]


def test_join_twice_adds_both(qata, tmp_path):
    a = table(tmp_path / "a.csv", "image,x", "covid_1.jpg,1")
    b = table(tmp_path / "b.csv", "image,y", r"films\covid_1.jpg,2")
    dataset = read_manifest(import_data("lvit", qata, tmp_path / "o", join=[a, b]).manifest)
    assert dataset.samples[0].extra == {"x": "1", "y": "2"}


def test_join_refuses_a_table_that_says_two_things_of_one_film(qata, tmp_path):
    joined = table(tmp_path / "j.csv", "image,subject", "covid_1.jpg,S1", "covid_1.png,S2")
    assert refused("lvit", qata, tmp_path / "o", join=[joined]).code == "ambiguous_join"
    assert refused("lvit", qata, tmp_path / "o", join=[table(tmp_path / "k.csv", "file,subject", "a,b")]).code == "missing_column"
    assert not (tmp_path / "o").exists()


# ---------------------------------------------------------------- folder


def test_folder_reads_texts_csv_and_keeps_its_split_and_columns(tmp_path):
    source = films(tmp_path / "polyps", "a", "b")
    rows = ("images/a.png,masks/a.png,a polyp,train,p1", "images/b.png,masks/b.png,two polyps,val,p2")
    table(source / "texts.csv", "image,mask,text,split,text_p1", *rows)
    imported = import_data("folder", source, tmp_path / "o")
    dataset = read_manifest(imported.manifest)
    assert imported.n == {"train": 1, "val": 1}
    assert dataset.name == "polyps"
    assert dataset.laterality == "none"
    assert [s.extra["text_p1"] for s in dataset.samples] == ["p1", "p2"]
    assert not any(s.flip_safe for s in dataset.samples)
    assert dataset.info.split_source == "column split of texts.csv"


def test_folder_prefers_manifest_csv_and_what_its_dataset_json_says(tmp_path):
    source = films(tmp_path / "x/films", "a").parent
    table(source / "texts.csv", "image,mask,text", "none,none,none")
    table(source / "manifest.csv", "image,mask,text,id,split", "images/a.png,masks/a.png,left lung,case-1,test")
    info = {
        "name": "mine",
        "root": "films",
        "laterality": "patient",
        "licence": "CC0",
        "citation": "me",
        "split_source": "published in 2020",
        "windows": {"liver": (60.0, 200.0)},
    }
    (source / "dataset.json").write_text(json.dumps(info))
    dataset = read_manifest(import_data("folder", source, tmp_path / "o").manifest)
    own = {"root": str(source.resolve() / "films"), "laterality_source": "dataset.json beside manifest.csv"}
    assert dataset.info.model_dump() == info | own
    assert dataset.samples[0].id == "case-1"
    again = read_manifest(import_data("folder", source, tmp_path / "p", laterality="image", name="other").manifest)
    assert again.laterality == "image"
    assert again.name == "other"


def test_folder_may_be_given_the_table_itself(tmp_path):
    source = films(tmp_path / "x", "a")
    table(source / "texts.csv", "image,mask,text", "images/a.png,masks/a.png,one")
    other = table(source / "classes.csv", "image,mask,text", "images/a.png,masks/a.png,two")
    assert read_manifest(import_data("folder", other, tmp_path / "o").manifest).samples[0].text == "two"


def test_folder_pairs_images_masks_and_texts(tmp_path):
    source = films(tmp_path / "x", "a", "b", "c", "d")
    for stem, text in (("a", "\ufeffone opacity \n"), ("b", ""), ("d", "lost")):
        (source / "texts").mkdir(exist_ok=True)
        (source / f"texts/{stem}.txt").write_text(text, encoding="utf-8")
    (source / "masks/d.png").unlink()
    picture(source / "masks/e.png")
    imported = import_data("folder", source, tmp_path / "o")
    assert {s.id: s.text for s in read_manifest(imported.manifest).samples} == {"a": "one opacity", "b": ""}
    assert imported.messages[:3] == [
        "films without a mask, left out: 1 (d.png)",
        "films without a text, left out: 1 (c.png)",
        "masks without a film, left out: 1 (e.png)",
    ]


def test_folder_leaves_out_rows_whose_files_are_not_there(tmp_path):
    source = films(tmp_path / "x", "a")
    table(source / "texts.csv", "image,mask,text", "images/a.png,masks/a.png,t", "images/b.png,masks/a.png,t", "images/a.png,,t")
    imported = import_data("folder", source, tmp_path / "o")
    assert sum(imported.n.values()) == 1
    assert "2 (images/b.png, images/a.png)" in imported.messages[0]
    table(source / "texts.csv", "image,mask,text", "images/b.png,masks/a.png,t")
    assert refused("folder", source, tmp_path / "p").code == "no_rows"


@pytest.mark.parametrize("column", ["text", "text_long"])
def test_folder_needs_laterality_where_a_text_names_a_side(tmp_path, column):
    source = films(tmp_path / "x", "a", "b")
    cells = {"text": "t", "text_long": "t"} | {column: "polyp, left of the image"}
    table(
        source / "texts.csv",
        "image,mask,text,text_long",
        *(f'images/{s}.png,masks/{s}.png,"{cells["text"]}","{cells["text_long"]}"' for s in "ab"),
    )
    error = refused("folder", source, tmp_path / "o")
    assert error.code == "laterality_needed"
    assert "--laterality" in error.fix
    assert column in error.what
    assert "row 1" in error.what
    for whose in ("image", "patient", "none"):
        assert read_manifest(import_data("folder", source, tmp_path / whose, laterality=whose).manifest).laterality == whose


def test_a_laterality_column_answers_too(tmp_path):
    source = films(tmp_path / "x", "a")
    table(source / "texts.csv", "image,mask,text,laterality", "images/a.png,masks/a.png,left lung,patient")
    assert read_manifest(import_data("folder", source, tmp_path / "o").manifest).samples[0].laterality == "patient"


def test_a_source_without_a_split_gets_one_with_whole_patients(tmp_path):
    stems = [f"f{i:02}" for i in range(40)]
    source = films(tmp_path / "x", *stems)
    for gray, stem in enumerate(stems):  # equal films would stay together
        picture(source / f"images/{stem}.png", gray)
    table(source / "texts.csv", "image,mask,text,patient", *(f"images/{s}.png,masks/{s}.png,t,p{i // 2}" for i, s in enumerate(stems)))
    imported = import_data("folder", source, tmp_path / "o")
    dataset = read_manifest(imported.manifest)
    assert imported.n == {"train": 28, "val": 4, "test": 8}
    assert shared_patients(dataset.samples) == {}
    assert dataset.info.split_source == OWN_SPLIT
    assert OWN_SPLIT in imported.messages[0]
    assert "published" not in OWN_SPLIT


def test_a_split_that_we_make_passes_our_own_check(tmp_path):
    source = tmp_path / "x"
    for i in range(30):  # three films in ten copies
        picture(source / f"images/{i}.png", 10 + i % 3)
        picture(source / f"masks/{i}.png", 255)
    table(source / "texts.csv", "image,mask,text", *(f"images/{i}.png,masks/{i}.png,t" for i in range(30)))
    imported = import_data("folder", source, tmp_path / "o")
    assert len(imported.n) > 1
    assert verify(read_manifest(imported.manifest)).errors == []


def test_a_joined_split_is_used(tmp_path):
    source = films(tmp_path / "x", "a", "b")
    table(source / "texts.csv", "image,mask,text", "images/a.png,masks/a.png,t", "images/b.png,masks/b.png,t")
    joined = table(tmp_path / "j.csv", "image,split", "a.png,train", "b.png,val")
    imported = import_data("folder", source, tmp_path / "o", join=[joined])
    assert imported.n == {"train": 1, "val": 1}
    assert read_manifest(imported.manifest).info.split_source == "column split of j.csv"


def test_folder_does_not_write_over_the_manifest_it_reads(tmp_path):
    source = films(tmp_path / "x", "a")
    file = table(source / "manifest.csv", "image,mask,text", "images/a.png,masks/a.png,t")
    before = file.read_bytes()
    assert refused("folder", source, source).code == "would_overwrite"
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["manifest.csv", "dataset.json"])
def test_an_import_is_written_over_another_only_where_that_is_said(tmp_path, name):
    """A manifest may hold a day's work on patients, splits or sentences."""
    source = lvit(tmp_path / "x", train={"a": LEFT})
    mine = table(tmp_path / "o" / name, "image,mask,text")
    error = refused("lvit", source, tmp_path / "o")
    assert (error.code, error.where) == ("exists", str(mine)) and "--overwrite" in error.fix
    assert [p.name for p in (tmp_path / "o").iterdir()] == [name] and mine.read_text() == "image,mask,text\n"
    assert import_data("lvit", source, tmp_path / "o", overwrite=True).n == {"train": 1}
    assert refused("folder", tmp_path / "o", tmp_path / "o", overwrite=True).code == "would_overwrite"  # it is the source itself


def test_folder_in_place_writes_a_manifest_that_can_be_moved(tmp_path):
    source = films(tmp_path / "x", "a")
    table(source / "texts.csv", "image,mask,text", "images/a.png,masks/a.png,t")
    assert read_manifest(import_data("folder", source, source).manifest).info.root == "."


def test_folder_says_what_it_looks_for(tmp_path):
    assert "texts.csv" in refused("folder", tmp_path, tmp_path / "o").fix
    films(tmp_path, "a")
    assert refused("folder", tmp_path, tmp_path / "o").code == "no_rows"


@pytest.mark.parametrize("content", [b"left\0lung", b"\xff\xfe", b"x" * 40_000, b" " * 200_000], ids=["nul", "utf16", "long", "huge"])
def test_folder_refuses_a_text_file_that_is_none(tmp_path, content):
    source = films(tmp_path / "x", "a")
    (source / "texts").mkdir()
    (source / "texts/a.txt").write_bytes(content)
    error = refused("folder", source, tmp_path / "o", laterality="image")
    assert error.code in {"text_nul", "encoding", "text_too_long"}
    assert "a.txt" in error.where


def test_duplicate_ids_are_found_before_anything_is_written(tmp_path):
    source = films(tmp_path / "x", "a", "b")
    table(source / "texts.csv", "image,mask,text,id", "images/a.png,masks/a.png,t,z", "images/b.png,masks/b.png,t,z")
    assert refused("folder", source, tmp_path / "o").code == "duplicate_id"
    assert not (tmp_path / "o").exists()


# ---------------------------------------------------------------- real data


@pytest.mark.data
def test_qata_covid19_is_the_published_split(data_root, tmp_path):
    source = data_root / "qata_cov19"
    imported = import_data("lvit", source, tmp_path, name="qata_cov19", join=[source / "subjects.csv"])
    dataset = read_manifest(imported.manifest)
    assert [m for m in imported.messages if "published" in m] == [
        "train: 5716 films, equals the published split of qata_cov19",
        "val: 1429 films, equals the published split of qata_cov19",
    ]
    assert Counter(name for s in dataset.split("val") for name in s.subsets) == {"sub": 832, "disjoint": 176}
    assert not any(s.subsets for s in dataset.split("train"))
    assert all(s.flip_safe for s in dataset.samples)
    assert {pair: len(both) for pair, both in shared_patients(dataset.samples).items()} == {("train", "val"): 434}
    assert len({normalise(s.text) for s in dataset.split("train")}) == 239
    assert len(draw_dev(dataset.split("train"), dataset.name)) == 572
    with open(source / "subjects.csv", newline="") as f:
        assert {row["image"]: row["subject"] for row in csv.DictReader(f)} == {s.image.name: s.patient for s in dataset.samples}


# Counts as docs/data.md has them: rows, films, patients, and what verify finds.
SETS = [
    ("kvasir_seg/texts.csv", "image", {"train": 798, "val": 100}, 898, 0, {}),
    ("busi/texts.csv", "image", {"train": 60, "val": 8}, 68, 0, {}),
    ("monuseg/texts.csv", "image", {"train": 24, "val": 6, "test": 14}, 44, 44, {}),
    ("covid_ct/texts.csv", "patient", {"train": 40, "val": 10}, 50, 0, {}),
    ("covid_ct/texts_classes.csv", "patient", {"train": 71, "val": 16}, 50, 0, {}),
    ("covid_cxr_regions/texts.csv", "patient", {"train": 33, "val": 7, "test": 11}, 51, 38, {"empty_mask": 2, "unknown_side": 1}),
    ("covid_cxr_regions/texts_regions.csv", "patient", {"train": 191, "val": 44, "test": 59}, 51, 38, {}),
]


@pytest.mark.data
@pytest.mark.parametrize(("table", "laterality", "n", "films", "patients", "issues"), SETS, ids=[s[0] for s in SETS])
def test_the_other_sets_come_in_through_folder(data_root, tmp_path, table, laterality, n, films, patients, issues):
    source = data_root / table
    if table != "covid_ct/texts_classes.csv":  # which names no side
        assert refused("folder", source, tmp_path).code == "laterality_needed"
    imported = import_data("folder", source, tmp_path, laterality=laterality)
    dataset = read_manifest(tmp_path)
    assert imported.n == n
    assert not any("left out" in message for message in imported.messages)
    assert len({s.image for s in dataset.samples}) == films
    assert len({s.patient for s in dataset.samples} - {""}) == patients
    assert all(s.image.is_file() and s.mask.is_file() and s.laterality == laterality for s in dataset.samples)
    assert not any(s.flip_safe for s in dataset.samples)
    assert Counter(issue.code for issue in verify(dataset)) == issues


@pytest.mark.data
def test_absent_targets_of_the_chest_films_are_declared_by_a_joined_table(data_root, tmp_path):
    source = data_root / "covid_cxr_regions"
    with open(source / "texts.csv", newline="", encoding="utf-8") as f:
        absent = [Path(row["image"]).name for row in csv.DictReader(f) if row["has_infection"] == "0"]
    joined = table(tmp_path / "absent.csv", "image,present", *(f"{name},0" for name in absent))
    imported = import_data("folder", source, tmp_path / "o", laterality="patient", join=[joined])
    assert len(absent) == 2
    assert verify(read_manifest(imported.manifest)).errors == []


@pytest.mark.data
def test_the_published_splits_that_are_whole_are_equal_and_the_others_are_not(data_root, tmp_path):
    def said(name):
        messages = import_data("folder", data_root / name, tmp_path / name, laterality="image").messages
        return [m.removesuffix(f" the published split of {name}") for m in messages]

    assert said("monuseg") == ["train: 24 films, equals", "val: 6 films, equals", "test: 14 films, equals"]
    assert said("kvasir_seg") == [
        "train: 798 films, not the 800 of the published split of kvasir_seg; their names are not on record",
        "val: 100 films, equals",
    ]
    assert [m.split(" of ")[0] for m in said("busi")] == ["train: 60 films, not the 624", "val: 8 films, not the 78"]
