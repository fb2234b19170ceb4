"""manifest.csv and dataset.json: what a row may say, what is refused and in which row, and that cells survive writing and reading."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportseg.data.manifest import Dataset, parse_flag, parse_spacing, read_manifest, table, write_manifest
from reportseg.errors import InputError
from reportseg.schemas.data import DatasetFile
from reportseg.types import Sample

INFO = DatasetFile(name="toy", laterality="image")


def manifest(folder: Path, text: str, name: str = "manifest.csv", **info) -> Path:
    file = folder / name
    file.write_bytes(text.encode())
    if info:
        (folder / "dataset.json").write_text(json.dumps({"name": "toy", **info}))
    return file


def refused(call, *args, **kwargs) -> InputError:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert caught.value.fix, "every InputError says what to do"
    return caught.value


def one(folder: Path, header: str, row: str) -> Sample:
    return read_manifest(manifest(folder, f"image,mask,text,{header}\na.png,m.png,t,{row}\n")).samples[0]


# ---------------------------------------------------------------- reading


def test_three_columns_are_enough(tmp_path):
    dataset = read_manifest(manifest(tmp_path, "image,mask,text\nfilms/a.png,masks/a.png,left lung\n"))
    (sample,) = dataset.samples
    assert (sample.id, sample.text, sample.row) == ("a", "left lung", 1)
    assert sample.image == tmp_path / "films/a.png"
    assert sample.mask == tmp_path / "masks/a.png"
    assert (sample.laterality, sample.flip_safe, sample.present, sample.split, sample.subsets) == ("none", False, True, "", ())
    assert dataset.name == tmp_path.name
    assert dataset.laterality == "none"


def test_every_column_of_the_contract_is_read(tmp_path):
    header = "image,mask,text,id,split,patient,laterality,flip_safe,text_source,label,present,subsets,slice,study,spacing_mm,scanner"
    row = 'a.png,b.png,"lower, left",case-7,val,P1,patient,1,radiologist,opacity,0,sub;disjoint,12,S9,0.5 0.25,X'
    (sample,) = read_manifest(manifest(tmp_path, f"{header}\n{row}\n", laterality="image")).samples
    assert sample == Sample(
        id="case-7",
        image=tmp_path / "a.png",
        mask=tmp_path / "b.png",
        text="lower, left",
        split="val",
        patient="P1",
        laterality="patient",
        flip_safe=True,
        text_source="radiologist",
        label="opacity",
        present=False,
        subsets=("sub", "disjoint"),
        slice=12,
        study="S9",
        spacing_mm=(0.5, 0.25),
        row=1,
        extra={"scanner": "X"},
    )


def test_a_folder_stands_for_the_manifest_in_it(tmp_path):
    manifest(tmp_path, "image,mask,text\na.png,a.png,t\n")
    assert read_manifest(tmp_path).path == tmp_path / "manifest.csv"
    assert refused(read_manifest, tmp_path / "nowhere").code == "missing"
    (tmp_path / "empty").mkdir()
    assert refused(read_manifest, tmp_path / "empty").code == "missing"


def test_dataset_json_gives_root_name_and_laterality_and_the_column_overrides(tmp_path):
    text = "image,mask,text,laterality\na.png,a.png,t,\nb.png,b.png,t,Patient\n"
    dataset = read_manifest(manifest(tmp_path, text, root="../films", laterality="image"))
    assert [s.laterality for s in dataset.samples] == ["image", "patient"]
    assert dataset.name == "toy"
    assert dataset.root == tmp_path / "../films"
    assert dataset.samples[0].image == tmp_path / "../films/a.png"


def test_offering_dataset_json_points_to_the_manifest(tmp_path):
    manifest(tmp_path, "image,mask,text\na,a,t\n", root=".")
    error = refused(read_manifest, tmp_path / "dataset.json")
    assert error.code == "not_a_manifest"
    assert "manifest.csv" in error.fix


def test_a_broken_dataset_json_is_named(tmp_path):
    file = manifest(tmp_path, "image,mask,text\na,a,t\n", lateralty="image")
    error = refused(read_manifest, file)
    assert error.code == "bad_field"
    assert "laterality" in str(error)
    assert "dataset.json" in error.where


@pytest.mark.parametrize("column", ["image", "mask", "id", "patient", "split", "laterality", "present"])
def test_a_column_that_holds_no_texts_is_not_read_as_one(tmp_path, column):
    file = manifest(tmp_path, "image,mask,text,id,label\na.png,b.png,t,x,opacity\n")
    error = refused(read_manifest, file, text_column=column)
    assert error.code == "text_column" and column in error.what
    assert read_manifest(file, text_column="label").samples[0].text == "opacity"


def test_another_text_column_can_be_read_and_the_own_text_is_kept_beside(tmp_path):
    file = manifest(tmp_path, "image,mask,text,text_long\na.png,a.png,short,much longer\n")
    (sample,) = read_manifest(file, text_column="text_long").samples
    assert sample.text == "much longer"
    assert sample.extra["text"] == "short"
    error = refused(read_manifest, file, text_column="text_lnog")
    assert error.code == "missing_column"
    assert "nearest: text_long" in str(error)


def test_a_jobs_file_needs_no_masks(tmp_path):
    file = manifest(tmp_path, "image,text\na.png,left lung\n", "jobs.csv")
    assert read_manifest(file, need_masks=False).samples[0].mask is None
    assert refused(read_manifest, file).code == "missing_column"
    both = manifest(tmp_path, "image,mask,text\na.png,,t\nb.png,b-mask.png,t\n", "half.csv")
    assert [s.mask for s in read_manifest(both, need_masks=False).samples] == [None, tmp_path / "b-mask.png"]
    error = refused(read_manifest, both)
    assert error.code == "missing_cell"
    assert "mask" in error.what
    assert "row 1" in error.what


def test_ids_come_from_the_stems_and_repeated_rows_are_numbered(tmp_path):
    rows = "x/a.png,m,t\nx/a.png,m,u\ny/a.png,m,t\nb.png,m,t\n"
    assert [s.id for s in read_manifest(manifest(tmp_path, "image,mask,text\n" + rows)).samples] == ["x__a", "x__a-2", "y__a", "b"]


def test_a_given_id_becomes_a_name_for_files(tmp_path):
    assert one(tmp_path, "id", "Müller Ärzte/7").id == "M-ller--rzte-7"
    assert one(tmp_path, "id", "").id == "a"


def test_duplicate_ids_name_both_rows(tmp_path):
    text = "image,mask,text,id\na.png,a.png,t,x\nb.png,b.png,t,y\nc.png,c.png,t,x\n"
    error = refused(read_manifest, manifest(tmp_path, text))
    assert error.code == "duplicate_id"
    assert "row 1" in error.what
    assert "row 3" in error.what
    assert str(tmp_path) in error.where
    assert str(tmp_path) not in error.public()


def test_a_given_id_may_not_take_the_stem_of_another_row(tmp_path):
    assert refused(read_manifest, manifest(tmp_path, "image,mask,text,id\na.png,m,t,b\nb.png,m,t,\n")).code == "duplicate_id"


@pytest.mark.parametrize(
    ("header", "column"), [("image,text", "mask"), ("img,mask,text", "image"), ("image,mask,caption", "text"), ("mask", "image")]
)
def test_a_missing_column_is_named(tmp_path, header, column):
    error = refused(read_manifest, manifest(tmp_path, header + "\n" + ",".join("x" for _ in header.split(",")) + "\n"))
    assert error.code == "missing_column"
    assert f"missing column {column}" in error.what
    assert header.split(",")[0] in error.fix


def test_the_nearest_column_is_offered(tmp_path):
    assert "nearest: Image" in str(refused(read_manifest, manifest(tmp_path, "Image,mask,text\na,b,c\n")))
    assert "nearest: masks" in str(refused(read_manifest, manifest(tmp_path, "image,masks,text\na,b,c\n")))


def test_semicolons_are_recognised(tmp_path):
    assert "commas" in str(refused(read_manifest, manifest(tmp_path, "image;mask;text\na;b;c\n")))


@pytest.mark.parametrize("text", ["image,mask,text\n", "image,mask,text", "image,mask,text\n\n\n"])
def test_a_manifest_without_rows_is_refused(tmp_path, text):
    assert refused(read_manifest, manifest(tmp_path, text)).code == "no_rows"


def test_blank_lines_are_no_rows(tmp_path):
    samples = read_manifest(manifest(tmp_path, "image,mask,text\n\na.png,a.png,t\n\n,,\nb.png,b.png,t\n")).samples
    assert [(s.id, s.row) for s in samples] == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("row", ["a.png,a.png", "a.png,a.png,left, lower lung"])
def test_a_row_of_another_length_is_refused_rather_than_guessed(tmp_path, row):
    error = refused(read_manifest, manifest(tmp_path, f"image,mask,text\nz.png,z.png,t\n{row}\n"))
    assert error.code == "bad_row"
    assert "row 2" in error.what


def test_a_column_that_stands_twice_is_refused(tmp_path):
    assert refused(read_manifest, manifest(tmp_path, "image,mask,text,text\na,b,c,d\n")).code == "duplicate_column"


def test_a_byte_order_mark_and_windows_line_ends_are_tolerated(tmp_path):
    dataset = read_manifest(manifest(tmp_path, "\ufeffimage,mask,text\r\na.png,b.png,left lung\r\n"))
    assert dataset.samples[0].text == "left lung"


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("TRUE", True), ("yes", True), ("0", False), ("False", False), (" 0 ", False), ("", True)]
)
def test_flags(text, value):
    assert parse_flag(text, default=True) is value


@pytest.mark.parametrize("text", ["0.5 0.25", "0.5,0.25", "0.5, 0.25", "0.5 x 0.25", "0.5x0.25", "0.50 × 0.25", " 5e-1;0.25 "])
def test_spacings_are_read_in_the_ways_people_write_them(text):
    assert parse_spacing(text) == ((0.5, 0.25), None)


def test_an_empty_spacing_is_unknown():
    assert parse_spacing("") == (None, None)
    assert parse_spacing(" ") == (None, None)


def test_a_third_distance_is_that_of_slices():
    assert parse_spacing("0.5 x 0.25 x 3") == ((0.5, 0.25), 3.0)


@pytest.mark.parametrize(
    ("column", "cell"),
    [
        ("flip_safe", "maybe"),
        ("present", "2"),
        ("laterality", "left"),
        ("slice", "1.5"),
        ("slice", "9999999999"),
        ("spacing_mm", "0.5"),
        ("spacing_mm", "0 1"),
        ("spacing_mm", "nan 1"),
        ("spacing_mm", "1 2 3 4"),
        ("spacing_mm", "1 2 0"),
        ("spacing_mm", "wide"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named_with_its_row(tmp_path, column, cell):
    error = refused(one, tmp_path, column, cell)
    assert error.code == "bad_cell"
    assert column in error.what
    assert "row 1" in error.what


def test_split_names_the_splits_that_exist(tmp_path):
    dataset = read_manifest(manifest(tmp_path, "image,mask,text,split\na,a,t,train\nb,b,t,val\nc,c,t,train\n"))
    assert [s.id for s in dataset.split("train")] == ["a", "c"]
    error = refused(dataset.split, "test")
    assert error.code == "empty_split"
    assert "train, val" in error.fix
    without = Dataset(
        dataset.path, dataset.info, dataset.root, tuple(read_manifest(manifest(tmp_path, "image,mask,text\na,a,t\n")).samples)
    )
    assert "split" in refused(without.split, "train").fix


# ---------------------------------------------------------------- writing


def test_the_columns_stand_in_the_order_of_the_contract(tmp_path):
    rows = [
        {"zeta": "1", "split": "train", "text": "t", "mask": "m.png", "image": "a.png"},
        {"image": "b", "mask": "b", "text": "", "id": "b"},
    ]
    file = write_manifest(tmp_path / "new", rows, INFO)
    assert file == tmp_path / "new/manifest.csv"
    assert file.read_text().splitlines() == ["image,mask,text,id,split,zeta", "a.png,m.png,t,,train,1", "b,b,,b,,"]
    assert read_manifest(file).info == INFO


def test_cells_that_look_like_formulas_stay_exact(tmp_path):
    file = write_manifest(tmp_path, [{"image": "-1.png", "mask": "m", "text": "=1+1"}], INFO)
    assert "-1.png,m,=1+1" in file.read_text()


CELL = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(CELL, CELL, CELL), max_size=4))
def test_whatever_is_written_is_read_back(tmp_path_factory, cells):
    folder = tmp_path_factory.mktemp("round")
    rows = [{"image": f"{i}.png", "mask": f"m{i}", "text": a, "note": b, "study": c} for i, (a, b, c) in enumerate(cells)]
    if not rows:
        return
    back = read_manifest(write_manifest(folder, rows, INFO)).samples
    assert [(s.text, s.extra["note"], s.study) for s in back] == cells


def test_a_table_without_some_cells_has_them_empty():
    assert table(["a", "b"], [{"a": "1"}, {"b": "x\ry"}]) == '"a","b"\n"1",""\n"","x\ry"\n'


def test_a_name_that_is_not_unicode_is_refused_before_anything_is_written(tmp_path):
    error = refused(write_manifest, tmp_path, [{"image": "a\udcff.png", "mask": "m", "text": "t"}], INFO)
    assert error.code == "text_encoding"
    assert list(tmp_path.iterdir()) == []
