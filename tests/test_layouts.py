"""The layouts of public projects: LanGuideMedSeg, MedVLSM and MosMedData+, and the tables that describe their films."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import openpyxl
import PIL.Image
import pytest

from layouts import LEFT, RIGHT, lvit, picture, refused, sheet, table
from reportseg.data.importers import import_data
from reportseg.data.importers.sheets import read_sheet
from reportseg.data.manifest import read_manifest
from reportseg.data.splits import read_frozen
from reportseg.data.verify import verify
from reportseg.errors import InputError
from reportseg.io import read_mask


def rows(imported) -> dict[str, tuple[str, str]]:
    return {s.id: (s.split, s.text) for s in read_manifest(imported.manifest).samples}


# ---------------------------------------------------------------- languidemedseg


def languidemedseg(root: Path, masks: str = "GTs", **parts: list[str]) -> Path:
    """{split: stems} with QaTa's names: films as PNG, masks as mask_<stem>.png, which the CSV names."""
    for split, stems in parts.items():
        for stem in stems:
            picture(root / split.capitalize() / f"Images/{stem}.png")
            picture(root / split.capitalize() / masks / f"mask_{stem}.png", 255)
        table(root / f"prompt/{split}.csv", "Image,Description", *(f'mask_{stem}.png,"{LEFT}"' for stem in stems))
    return root


def test_languidemedseg_validates_on_the_last_fifth_of_train_as_its_own_code(tmp_path):
    source = languidemedseg(tmp_path / "QaTa", train=[f"f{i}" for i in range(9)], test=["t"])
    imported = import_data("languidemedseg", source, tmp_path / "o")
    assert imported.n == {"train": 7, "val": 2, "test": 1}
    assert [id for id, (split, _) in rows(imported).items() if split == "val"] == ["f7", "f8"]
    cut, assumed = imported.messages
    assert cut == "val is the last fifth of train.csv, as LanGuideMedSeg cuts it: 2 rows"
    assert assumed.startswith("laterality: image is assumed for 10 rows")
    dataset = read_manifest(imported.manifest)
    assert {s.text_source for s in dataset.samples} == {"languidemedseg"}
    assert dataset.laterality == "image" and "published" in dataset.info.split_source
    assert all(s.flip_safe and s.text == LEFT and read_mask(s.mask).all() for s in dataset.samples)


def test_languidemedseg_takes_a_val_folder_and_other_spellings(tmp_path):
    source = languidemedseg(tmp_path / "x", "Ground-truths", train=["a"], val=["b"], test=["c"])
    (source / "Val").rename(source / "val")
    assert import_data("languidemedseg", source, tmp_path / "o").n == {"train": 1, "val": 1, "test": 1}


def test_languidemedseg_reads_patients_and_reports_what_has_no_partner(tmp_path):
    films = ["sub-S1_a", "sub-S2_a", "gone", "sub-S1_b", "covid_1"]
    source = languidemedseg(tmp_path / "x", train=films)
    (source / "Train/GTs/mask_gone.png").unlink()
    imported = import_data("languidemedseg", source, tmp_path / "o")
    assert "train: rows of the sheet without film or mask, left out: 1 (mask_gone.png)" in imported.messages
    assert imported.n == {"train": 3, "val": 1}, "a row that is left out does not move the cut"
    table(source / "prompt/test.csv", "Image,Description", f'mask_sub-S1_c.png,"{LEFT}"')
    for folder, name in (("Images", "sub-S1_c"), ("GTs", "mask_sub-S1_c")):
        picture(source / "Test" / folder / f"{name}.png", 255)
    imported = import_data("languidemedseg", source, tmp_path / "p")
    assert "test: 1 of 1 rows are of a patient whom train has too" in imported.messages
    assert {s.id: s.subsets for s in read_manifest(imported.manifest).split("test")} == {"sub-S1_c": ("sub",)}


def test_languidemedseg_says_what_it_looks_for(tmp_path):
    assert refused("languidemedseg", tmp_path, tmp_path / "o").code == "layout"
    assert refused("languidemedseg", tmp_path / "none", tmp_path / "o").code == "missing"
    source = languidemedseg(tmp_path / "x", train=["a", "b"])
    table(source / "prompt/train.csv", "image,description", "mask_a.png,t")
    assert "nearest: image" in refused("languidemedseg", source, tmp_path / "o").what


# ---------------------------------------------------------------- medvlsm


def annotation(name: str, mask: str | None = None, bbox=(1, 1, 6, 6), **prompts) -> dict:
    return {"bbox": list(bbox), "cat": 0, "img_name": name, "mask_name": mask or name, "sentences": [], "prompts": {"p0": "", **prompts}}


def medvlsm(root: Path, **parts: list[dict]) -> Path:
    (root / "anns").mkdir(parents=True)
    for split, listed in parts.items():
        (root / f"anns/{split}.json").write_text(json.dumps(listed))
        for one in listed:
            picture(root / "images" / one["img_name"])
            picture(root / "masks" / one["mask_name"], 255 if one["bbox"][2] else 0)
    return root


PHRASINGS = ["polyp which is a lump", "polyp which is a growth", "polyp which is a fold"]


def test_medvlsm_takes_the_prompt_that_is_asked_for_and_keeps_the_others(tmp_path):
    one = annotation("a.jpg", p1="polyp", p6="one polyp, located in top left of the image", p7=PHRASINGS)
    source = medvlsm(tmp_path / "kvasir_polyp", val=[one], train=[annotation("b.jpg", p1="polyp", p6="two polyps", p7=PHRASINGS)])
    imported = import_data("medvlsm", source, tmp_path / "o")
    assert imported.n == {"train": 1, "val": 1}
    dataset = read_manifest(imported.manifest)
    sample = dataset.split("val")[0]
    assert sample.text == one["prompts"]["p6"] and sample.text_source == "medvlsm_p6" and not sample.flip_safe
    assert sample.extra["text_p1"] == "polyp" and sample.extra["text_p0"] == "" and sample.extra["text_p7"] in PHRASINGS
    assert "text_p6" not in sample.extra
    assert dataset.laterality == "image" and "published" in dataset.info.split_source
    other = read_manifest(import_data("medvlsm", source, tmp_path / "p", prompt="p1").manifest)
    assert {s.text for s in other.samples} == {"polyp"} and other.samples[0].extra["text_p6"]
    error = refused("medvlsm", source, tmp_path / "q", prompt="p8")
    assert error.code == "prompt" and "p7" in error.fix
    assert refused("folder", source, tmp_path / "q", prompt="p1").code == "usage"


def test_medvlsm_takes_one_phrasing_a_film_the_same_everywhere_and_all_of_them_over_many(tmp_path):
    source = medvlsm(tmp_path / "x", train=[annotation(f"{i}.png", p7=PHRASINGS) for i in range(30)])
    texts = rows(import_data("medvlsm", source, tmp_path / "o", prompt="p7"))
    assert len(texts) == 30 and {text for _, text in texts.values()} == set(PHRASINGS)
    (source / "anns/train.json").write_text(json.dumps([annotation(f"{i}.png", p7=PHRASINGS) for i in range(29, -1, -1)]))
    assert rows(import_data("medvlsm", source, tmp_path / "p", prompt="p7")) == texts
    assert texts["0"][1] == PHRASINGS[2], "part of the contract: the choice is the same in every version"


def test_medvlsm_declares_an_absent_target_where_the_box_is_empty(tmp_path):
    films = [annotation("1_normal.png", bbox=(560, 468, 0, 0), p6="No tumor."), annotation("2_benign.png", p6="One tumor.")]
    dataset = read_manifest(import_data("medvlsm", medvlsm(tmp_path / "busi", train=films), tmp_path / "o").manifest)
    assert [s.present for s in dataset.samples] == [False, True]
    assert len(verify(dataset)) == 0


def test_medvlsm_reads_several_masks_of_one_film_in_folders_of_their_own(tmp_path):
    names = [f"mask_{i}/patient0050_4CH_ES_gt.png" for i in (1, 2, 3)]
    films = [annotation("patient0050_4CH_ES.png", mask, p6=f"part {mask[5]}") for mask in names]
    del films[0]["bbox"]
    (tmp_path / "camus/anns").mkdir(parents=True)
    for mask in names:
        picture(tmp_path / "camus/masks" / mask, 255)
    picture(tmp_path / "camus/images/patient0050_4CH_ES.png")
    (tmp_path / "camus/anns/train.json").write_text(json.dumps(films))
    (tmp_path / "camus/anns/._train.json").write_bytes(b"what macOS leaves behind")
    samples = read_manifest(import_data("medvlsm", tmp_path / "camus", tmp_path / "o", laterality="none").manifest).samples
    assert [s.id for s in samples] == ["patient0050_4CH_ES", "patient0050_4CH_ES-2", "patient0050_4CH_ES-3"]
    assert [s.mask.parent.name for s in samples] == ["mask_1", "mask_2", "mask_3"]
    assert {s.patient for s in samples} == {"patient0050"}


def test_medvlsm_finds_files_of_another_ending_and_reports_those_that_are_not_there(tmp_path):
    source = medvlsm(tmp_path / "x", train=[annotation("a.jpg", p6="t")], test=[annotation("b.jpg", p6="t")])
    (source / "masks/a.jpg").rename(source / "masks/a.png")
    (source / "images/b.jpg").unlink()
    imported = import_data("medvlsm", source, tmp_path / "o")
    assert imported.n == {"train": 1}
    assert imported.messages == ["test: annotations without film or mask, left out: 1 (b.jpg)"]


@pytest.mark.parametrize("name", ["../../etc/passwd.png", "/etc/passwd.png", "..\\..\\x.png", "a/../../x.png", "a\0.png"])
def test_a_name_in_an_annotation_may_not_lead_out_of_its_folder(tmp_path, name):
    source = medvlsm(tmp_path / "x", train=[annotation("a.png", p6="t")])
    for one in (annotation(name, "a.png", p6="t"), annotation("a.png", name, p6="t")):
        (source / "anns/train.json").write_text(json.dumps([one]))
        assert refused("medvlsm", source, tmp_path / "o").code == "unsafe_path"


HOSTILE = {
    "deep list": b"[" * 10_000 + b"]" * 10_000,
    "deep map": b'{"prompts":' * 10_000 + b"1" + b"}" * 10_000,
    "deep prompt": b'[{"img_name": "a", "mask_name": "a", "prompts": {"p6": ' + b"[" * 10_000 + b"]" * 10_000 + b"}}]",
    "not JSON": b"{'img_name'}",
    "NaN": b'[{"bbox": NaN}]',
    "no list": b"7",
    "a number": b"[7]",
    "no prompts": b'[{"img_name": "a", "mask_name": "a"}]',
    "names are numbers": b'[{"img_name": 1, "mask_name": "a", "prompts": {"p6": "t"}}]',
    "prompts are a list": b'[{"img_name": "a", "mask_name": "a", "prompts": ["t"]}]',
    "a prompt is a number": b'[{"img_name": "a", "mask_name": "a", "prompts": {"p6": 5}}]',
    "no phrasing": b'[{"img_name": "a", "mask_name": "a", "prompts": {"p6": []}}]',
    "a phrasing is a map": b'[{"img_name": "a", "mask_name": "a", "prompts": {"p6": [{}]}}]',
    "a prompt that is no column": b'[{"img_name": "a", "mask_name": "a", "prompts": {"p6": "t", "a,b\\n": "t"}}]',
    "a box of text": b'[{"img_name": "a", "mask_name": "a", "bbox": 5, "prompts": {"p6": "t"}}]',
    "NUL": b'[{"img_name": "a", "mask_name": "a", "prompts": {"p6": "left\\u0000lung"}}]',
    "half a surrogate": b'[{"img_name": "a", "mask_name": "a", "prompts": {"p6": "\\ud800"}}]',
    "a megabyte": b'[{"img_name": "a", "mask_name": "a", "prompts": {"p6": "' + b"x" * 2**20 + b'"}}]',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_annotations_that_are_none_are_refused(tmp_path, content):
    source = medvlsm(tmp_path / "x", train=[annotation("a.png", p6="t")])
    (source / "anns/train.json").write_bytes(content)
    error = refused("medvlsm", source, tmp_path / "o")
    assert error.code in {"too_deep", "bad_json", "annotation", "text_nul", "text_encoding", "text_too_long"}
    assert "train.json" in error.where
    assert not (tmp_path / "o").exists()


def test_medvlsm_says_what_it_looks_for(tmp_path):
    assert "anns" in refused("medvlsm", tmp_path, tmp_path / "o").fix
    assert refused("medvlsm", tmp_path / "none", tmp_path / "o").code == "layout"


# ---------------------------------------------------------------- mosmed

CTS = {
    "Morozov_study_0255_11": "Morozov_study_0255",
    "Jun_coronacases_case1_119": "Jun_coronacases_case1",
    "Jun_radiopaedia_10_85902_3_case12_107": "Jun_radiopaedia_10_85902_3_case12",
    "bjorke_8": "",
}


def test_mosmed_reads_the_ct_from_the_name_and_says_what_the_published_split_leaks(tmp_path):
    test = {"Morozov_study_0255_12": RIGHT, "Morozov_study_0300_1": LEFT, "bjorke_9": LEFT}
    source = lvit(tmp_path / "MosMed", train=dict.fromkeys(CTS, LEFT), test=test)
    imported = import_data("mosmed", source, tmp_path / "o")
    dataset = read_manifest(imported.manifest)
    assert {s.id: s.patient for s in dataset.split("train")} == CTS
    assert "test: 1 of 3 rows are of a patient whom train has too" in imported.messages
    assert any(message.startswith("2 slices whose names tell no CT") for message in imported.messages)
    assert {s.id: s.subsets for s in dataset.split("test")} == dict.fromkeys(test, ()) | {"Morozov_study_0300_1": ("disjoint",)}
    assert dataset.name == "mosmed" and "CC BY-NC-ND" in dataset.info.licence
    (issue,) = verify(dataset).warnings[:1]
    assert issue.code == "shared_patients" and "1 of 3 rows of test" in issue.what


def test_mosmed_reads_slices_of_512_px_and_masks_in_colour(tmp_path):
    folder = tmp_path / "x/Train_Folder"
    picture(folder / "img/bjorke_1.png", 80, "RGB", side=512)
    mask = picture(folder / "labelcol/bjorke_1.png", 0, "RGB", side=512)
    with PIL.Image.open(mask) as image:
        image.paste((255, 255, 255), (40, 200, 120, 300))
        image.save(mask)
    sheet(folder / "Train_text.xlsx", [("bjorke_1.png", LEFT)])
    dataset = read_manifest(import_data("mosmed", tmp_path / "x", tmp_path / "o").manifest)
    assert read_mask(dataset.samples[0].mask).sum() == 80 * 100
    assert len(verify(dataset)) == 0


def test_mosmed_mirrors_slices_as_lvit_mirrors_films(tmp_path):
    source = lvit(tmp_path / "x", train={"bjorke_1": LEFT, "bjorke_2": "lesion of the lt lung"})
    assert [s.flip_safe for s in read_manifest(import_data("mosmed", source, tmp_path / "o").manifest).samples] == [True, False]


def test_mosmed_says_whose_left_it_assumes_unless_told(tmp_path):
    source = lvit(tmp_path / "x", train={"bjorke_1": LEFT})
    assert any("laterality: image" in m for m in import_data("mosmed", source, tmp_path / "o").messages)
    imported = import_data("mosmed", source, tmp_path / "p", laterality="patient")
    assert read_manifest(imported.manifest).laterality == "patient"
    assert not any("laterality" in m for m in imported.messages)


@pytest.mark.parametrize("frames", ["frames", "images"])
def test_mosmed_takes_the_downloads_as_they_come(tmp_path, frames):
    """The pictures in two folders, the sheets beside them under the names that LViT gives them; CSV is as good as a workbook."""
    for stem in (*CTS, "extra"):
        picture(tmp_path / f"x/{frames}/{stem}.png")
        picture(tmp_path / f"x/masks/{stem}.png", 255)
    names = [f"{stem}.png" for stem in CTS]
    sheet(tmp_path / "x/Train_text_MosMedData+ 1.xlsx", [(name, LEFT) for name in names[:2]])
    table(tmp_path / "x/Val_text_MosMedData+ 1.csv", "Image,Description", f'{names[2]},"{LEFT}"')
    sheet(tmp_path / "x/Test_text_MosMedData+.xlsx", [(names[3], LEFT), (names[0], LEFT), ("ghost.png", LEFT)])
    imported = import_data("mosmed", tmp_path / "x", tmp_path / "o")
    assert imported.n == {"train": 2, "val": 1, "test": 2}, "a slice of two sheets is a leak, not one row"
    assert "rows of the sheet without film or mask, left out: 1 (ghost.png)" in imported.messages
    assert "films without a row in the sheet, left out: 1 (extra.png)" in imported.messages
    sheet(tmp_path / "x/train_text_2.xlsx", [])
    assert "2 sheets for train" in refused("mosmed", tmp_path / "x", tmp_path / "p").what


def test_mosmed_reads_the_layout_of_languidemedseg_too(tmp_path):
    source = languidemedseg(tmp_path / "x", train=["Morozov_study_0255_11"], val=["Morozov_study_0255_12"])
    samples = read_manifest(import_data("mosmed", source, tmp_path / "o").manifest).samples
    assert [(s.split, s.patient) for s in samples] == [("train", "Morozov_study_0255"), ("val", "Morozov_study_0255")]


def test_mosmed_says_what_it_looks_for(tmp_path):
    picture(tmp_path / "x/frames/a.png")
    for source in (tmp_path, tmp_path / "x"):
        error = refused("mosmed", source, tmp_path / "o")
        assert error.code == "layout" and "Train_text" in error.fix


# ---------------------------------------------------------------- whose left

ONE_SIDED = {
    "lvit": lambda root: lvit(root, train={"a": LEFT}),
    "languidemedseg": lambda root: languidemedseg(root, train=["a", "b"]),
    "medvlsm": lambda root: medvlsm(root, train=[annotation("a.png", p6="one polyp in the top left")]),
    "mosmed": lambda root: lvit(root, train={"bjorke_1": LEFT}),
}


def whose_left(imported) -> tuple[str, str, list[str]]:
    """As the manifest and the summary have it, which agree; and the warnings about it."""
    info = read_manifest(imported.manifest).info
    assert (info.laterality, info.laterality_source) == (imported.laterality, imported.laterality_source)
    return info.laterality, info.laterality_source, [m for m in imported.messages if "laterality" in m]


@pytest.mark.parametrize("layout", ONE_SIDED)
def test_an_unknown_set_says_that_its_side_is_assumed_and_the_user_has_the_last_word(tmp_path, layout):
    source = ONE_SIDED[layout](tmp_path / "hospital")
    whose, why, (warning,) = whose_left(import_data(layout, source, tmp_path / "o"))
    assert whose == "image" and why.startswith("assumed: ") and why.removeprefix("assumed: ") in warning and "--laterality" in warning
    for told in ("patient", "image", "none"):
        assert whose_left(import_data(layout, source, tmp_path / told, laterality=told)) == (told, "--laterality", [])


@pytest.mark.parametrize(("layout", "name"), [("lvit", "qata_cov19"), ("languidemedseg", "qata_cov19"), ("medvlsm", "kvasir_seg")])
def test_a_set_that_is_known_by_name_says_how_its_side_is_known(tmp_path, layout, name):
    whose, why, warnings = whose_left(import_data(layout, ONE_SIDED[layout](tmp_path / "x"), tmp_path / "o", name=name))
    assert whose == "image" and why.startswith(f"{name} is known") and not warnings


@pytest.mark.parametrize("name", ["qata_cov19", "busi", "kvasir_seg", "monuseg"])
def test_a_folder_of_ones_own_with_the_name_of_a_known_set_is_not_that_set(tmp_path, name):
    """A radiologist's left would be mirrored, and the licence of another's data written."""
    imported = import_data("lvit", ONE_SIDED["lvit"](tmp_path / name), tmp_path / "o")
    whose, why, (warning,) = whose_left(imported)
    assert whose == "image" and why.startswith("assumed: ") and "--laterality patient" in warning
    info = read_manifest(imported.manifest).info
    assert (info.name, info.licence, info.citation) == (name, "", "")


def test_a_folder_with_the_films_of_a_published_split_is_that_set(tmp_path):
    stems = read_frozen("monuseg").stems["val"]
    imported = import_data("lvit", lvit(tmp_path / "monuseg", val=dict.fromkeys(stems, LEFT)), tmp_path / "o")
    whose, why, warnings = whose_left(imported)
    assert whose == "image" and why.startswith("monuseg is known") and not warnings
    assert read_manifest(imported.manifest).info.licence == "CC BY-NC-SA 4.0"


def test_texts_without_a_side_need_no_warning(tmp_path):
    imported = import_data("medvlsm", medvlsm(tmp_path / "x", train=[annotation("a.png", p6="two polyps")]), tmp_path / "o")
    assert whose_left(imported)[1:] == ("assumed: MedVLSM computes the places in its prompts from the masks", [])


def test_a_manifest_that_is_imported_again_keeps_the_reason_and_an_older_one_has_none(tmp_path):
    import_data("lvit", ONE_SIDED["lvit"](tmp_path / "x"), tmp_path / "o")
    assert whose_left(import_data("folder", tmp_path / "o", tmp_path / "p"))[1].startswith("assumed: ")
    info = json.loads((tmp_path / "o/dataset.json").read_text())
    del info["laterality_source"]
    (tmp_path / "o/dataset.json").write_text(json.dumps(info))
    assert read_manifest(tmp_path / "o").info.laterality_source == ""
    assert whose_left(import_data("folder", tmp_path / "o", tmp_path / "q")) == ("image", "dataset.json beside manifest.csv", [])


# ---------------------------------------------------------------- sheets: formulas and archives


def with_results(file: Path, results: dict[str, str]) -> Path:
    """The workbook as a spreadsheet program saves it: each formula with the text that it came to."""
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    page = parts["xl/worksheets/sheet1.xml"].decode()
    for formula, result in results.items():
        page, n = re.subn(rf"(<f>{re.escape(formula)}</f>)<v ?/?>(</v>)?", rf"\1<v>{result}</v>", page)
        assert n == 1
    parts["xl/worksheets/sheet1.xml"] = page.encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return file


@pytest.mark.parametrize("row", [("a.png", '=WEBSERVICE("http://x")'), ('=HYPERLINK("x")', LEFT), ("=A9", "=B9")])
def test_a_formula_without_its_result_is_refused_not_read_as_nothing(tmp_path, row):
    file = sheet(tmp_path / "s.xlsx", [("b.png", RIGHT), row])
    with pytest.raises(InputError) as caught:
        read_sheet(file, "train")
    assert caught.value.code == "formula" and caught.value.where.endswith("row 3") and "values" in caught.value.fix


def test_a_formula_that_fills_several_cells_is_refused_too(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(("Image", "Description"))
    book.active.append(("a.png", LEFT))
    book.active["B2"] = openpyxl.worksheet.formula.ArrayFormula("B2:B3", "=C2:C3")
    book.save(tmp_path / "s.xlsx")
    with pytest.raises(InputError, match="formula"):
        read_sheet(tmp_path / "s.xlsx", "train")


def test_the_stored_result_of_a_formula_is_its_text(tmp_path):
    file = with_results(sheet(tmp_path / "s.xlsx", [("a.png", "=1+1")]), {"1+1": "2"})
    assert [(line.name, line.text) for line in read_sheet(file, "train")] == [("a.png", "2")]


def test_a_text_that_looks_like_a_formula_is_a_text(tmp_path):
    """In CSV there are no formulas: the cell comes through as it is, and no program of ours computes it."""
    odd = ["=cmd|'/c calc'!A1", "@SUM(1)", "+1", "-1", "\t=1"]
    names = [f"f{i}" for i in range(len(odd))]
    source = languidemedseg(tmp_path / "x", train=[*names, "last"])
    table(
        source / "prompt/train.csv",
        "Image,Description",
        *(f'mask_{n}.png,"{text}"' for n, text in zip(names, odd, strict=True)),
        "mask_last.png,t",
    )
    assert [text for _, text in rows(import_data("languidemedseg", source, tmp_path / "o")).values()] == [*odd, "t"]
    copied = import_data("folder", tmp_path / "o/manifest.csv", tmp_path / "p")
    assert [text for _, text in rows(copied).values()] == [*odd, "t"], "a manifest stays exact"


def test_an_archive_that_lies_about_its_size_unpacks_no_further_than_it_says(tmp_path):
    file = sheet(tmp_path / "s.xlsx", [("a.png", "x")])
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    page = parts["xl/worksheets/sheet1.xml"]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, part + b" " * (4 << 20) if name == "xl/worksheets/sheet1.xml" else part)
    honest = file.read_bytes()
    large, small = (len(page) + (4 << 20)).to_bytes(4, "little"), len(page).to_bytes(4, "little")
    assert honest.count(large) == 2  # in the member's own header and in the directory
    with pytest.raises(InputError) as caught:
        read_sheet(file, "train")
    assert caught.value.code == "archive_bomb"
    file.write_bytes(honest.replace(large, small))
    with pytest.raises(InputError) as caught:
        read_sheet(file, "train")
    assert caught.value.code == "bad_sheet"
