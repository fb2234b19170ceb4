"""Volumes in the folders, names, labels and number types of three published data sets become slices with prompts. No such data is at hand:
every volume here is made by the test."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import nibabel
import numpy as np
import pytest

from layouts import refused
from reportseg.data.importers import import_data
from reportseg.data.importers.abdomenct1k import ORGANS as ABDOMEN
from reportseg.data.importers.organs import ORGANS, prompt_for, wordings
from reportseg.data.importers.word import ORGANS as WORD
from reportseg.data.manifest import read_manifest
from reportseg.data.splits import shared_patients
from reportseg.data.verify import verify
from reportseg.io import read_image, read_mask
from reportseg.io.slices import WINDOWS
from reportseg.knowledge.bank import load_bank, retrieve

LPS = np.diag([-0.8, -0.8, 2.5, 1.0])  # as WORD stores its volumes: x to the patient's left, y to the back, z to the head


def save(path: Path, array, affine=LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def volume(path: Path, label_path: Path | None, labels, *, seed=0, shape=(12, 10, 8), dtype=np.int16, label_dtype=np.uint8, affine=LPS):
    """CT-like noise with a bright block per label: value v fills slices v-1 and v (modulo depth), in the patient's left front corner."""
    rng = np.random.default_rng(seed)
    array = rng.integers(-900, 300, shape)
    truth = np.zeros(shape, np.int64)
    for value in labels:
        place = (value * 3) % (shape[0] - 2)
        z = value % (shape[2] - 1)
        truth[place : place + 2, 1:4, z : z + 2] = value
    array[truth > 0] = 120 + truth[truth > 0]
    save(path, array.astype(dtype), affine)
    if label_path is not None:
        save(label_path, truth.astype(label_dtype), affine)
    return array, truth


def word(root: Path, parts=(("Tr", 3), ("Val", 1), ("Ts", 2))) -> Path:
    number = 2
    for part, n in parts:
        for _ in range(n):
            name = f"word_{number:04d}.nii.gz"
            volume(root / f"images{part}/{name}", root / f"labels{part}/{name}", range(1, 17), seed=number)
            number += 2
    return root


def spleen(root: Path, n=6) -> Path:
    names = [f"spleen_{i}.nii.gz" for i in range(2, 2 + n)]
    for i, name in enumerate(names):
        volume(root / "imagesTr" / name, root / "labelsTr" / name, [1] if i else [], seed=i, dtype=np.float32)
    volume(root / "imagesTs/spleen_1.nii.gz", None, [])
    (root / "imagesTr/._spleen_2.nii.gz").write_bytes(b"what macOS leaves")
    info = {
        "name": "Spleen",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "spleen"},
        "licence": "CC-BY-SA 4.0",
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
        "test": ["./imagesTs/spleen_1.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(info))
    return root


def abdomen(root: Path, n=6) -> Path:
    for i in range(1, n + 1):
        part = root / f"AbdomenCT-1K-ImagePart{1 + i % 3}" / f"AbdomenCT-1K-ImagePart{1 + i % 3}"
        volume(part / f"Case_{i:05d}_0000.nii.gz", root / f"Mask/Case_{i:05d}.nii.gz", [1, 2, 3, 4], seed=i)
    return root


@pytest.mark.parametrize(
    ("layout", "make", "organs", "splits"),
    [
        ("word", word, set(WORD.values()), {"train": 3, "val": 1, "test": 2}),
        ("msd", spleen, {"spleen"}, None),
        ("abdomenct1k", abdomen, set(ABDOMEN.values()), None),
    ],
)
def test_a_published_layout_becomes_slices_with_prompts_by_patient(tmp_path, layout, make, organs, splits):
    source = make(tmp_path / "source")
    told = []
    done = import_data(layout, source, tmp_path / "out", progress=lambda n, of: told.append((n, of)))
    dataset = read_manifest(done.manifest)
    assert dataset.laterality == "patient"
    assert {s.label for s in dataset.samples} == organs
    assert all(s.patient == s.study and s.text == prompt_for(s.label, s.study) for s in dataset.samples)
    assert not shared_patients(dataset.samples)
    assert not any(s.flip_safe for s in dataset.samples)
    found = Counter(split for _, split in {(s.study, s.split) for s in dataset.samples})
    assert splits is None or found == splits
    assert set(found) == {"train", "val", "test"}
    verified = verify(dataset)
    assert not verified.errors, list(map(str, verified.errors))
    assert told[-1][0] == told[-1][1]
    assert dataset.info.windows == {name: tuple(pair) for name, pair in WINDOWS.items()}
    held_out = defaultdict(list)
    for s in dataset.samples:
        assert s.present == bool(read_mask(s.mask).any())
        assert s.spacing_mm == pytest.approx((0.8, 0.8))
        assert s.slice_mm == pytest.approx(2.5)
        if s.split != "train":
            held_out[s.study, s.label].append(s.slice)
    assert all(slices == list(range(8)) for slices in held_out.values()), "held-out volumes can be scored whole"


def test_slices_and_masks_hold_the_volume_in_the_standard_display_and_the_organs_window(tmp_path):
    array, truth = volume(tmp_path / "s/imagesTs/word_0001.nii.gz", tmp_path / "s/labelsTs/word_0001.nii.gz", range(1, 17))
    dataset = read_manifest(import_data("word", tmp_path / "s", tmp_path / "out").manifest)
    values = {name: value for value, name in WORD.items()}
    for s in dataset.samples:
        # the patient's right is stored first and shown on the left, the front is stored first and shown on top
        assert np.array_equal(read_mask(s.mask), (truth[:, :, s.slice] == values[s.label]).T)
        centre, width = WINDOWS["femoral head"] if "femoral" in s.label else WINDOWS["default"]
        shown = ((array[:, :, s.slice].T - (centre - width / 2)) / width).clip(0, 1)
        assert np.abs(read_image(s.image).pixels_HWC[:, :, 0] - shown).max() < 0.51 / 255


def test_the_same_volume_stored_in_another_orientation_gives_the_same_slices(tmp_path):
    for name, axes in (("a", "LPS"), ("b", "RAS"), ("c", "PIR"), ("d", "ASL")):
        volume(tmp_path / name / "imagesTs/word_1.nii.gz", tmp_path / name / "labelsTs/word_1.nii.gz", range(1, 17))
        for file in (tmp_path / name).rglob("*.gz"):
            image = nibabel.load(file)
            turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes))
            moved = image.as_reoriented(turn)
            nibabel.save(nibabel.Nifti1Image(np.asarray(moved.dataobj), moved.affine), tmp_path / "moved.nii.gz")
            (tmp_path / "moved.nii.gz").replace(file)
        import_data("word", tmp_path / name, tmp_path / f"{name}-out")
    for file in (tmp_path / "a-out").rglob("*.*"):
        for name in "bcd":
            other = tmp_path / f"{name}-out" / file.relative_to(tmp_path / "a-out")
            assert other.read_bytes() == file.read_bytes(), other


def test_train_has_every_slice_of_an_organ_and_as_many_without_it(tmp_path):
    volume(tmp_path / "s/imagesTr/a.nii.gz", tmp_path / "s/labelsTr/a.nii.gz", [1], shape=(12, 10, 40))
    samples = read_manifest(import_data("word", tmp_path / "s", tmp_path / "out").manifest).samples
    counts = {organ: Counter(s.present for s in samples if s.label == organ) for organ in WORD.values()}
    assert counts["liver"] == {True: 2, False: 2}
    assert counts["spleen"] == {False: 1}, "an organ that a volume lacks is asked for once"


def test_each_wording_finds_its_organ_in_the_knowledge_bank():
    bank = load_bank("abdomen")
    concepts = {s.concept for s in bank.statements}
    for organ in (*WORD.values(), *ABDOMEN.values()):
        assert organ in concepts
        assert organ in ORGANS
        assert wordings(organ)[0]
        for said in wordings(organ):
            assert organ in {hit.statement.concept for hit in retrieve(said, bank)}, said
    assert len({prompt_for("liver", f"case {i}") for i in range(100)}) > 5


def test_what_cannot_be_read_is_left_out_and_said(tmp_path):
    source = spleen(tmp_path / "s")
    (source / "labelsTr/spleen_4.nii.gz").unlink()
    cut = source / "imagesTr/spleen_3.nii.gz"
    cut.write_bytes(cut.read_bytes()[:600])  # its header is whole
    volume(source / "imagesTr/spleen_5.nii.gz", None, [], shape=(9, 9, 9))
    done = import_data("msd", source, tmp_path / "out")
    said = "\n".join(done.messages)
    assert "volumes without labels, left out: 1 (spleen_4.nii.gz)" in said
    assert "spleen_5.nii.gz: the labels are on another grid than the volume" in said
    assert "spleen_3.nii.gz: the file ends before the image does" in said
    dataset = read_manifest(done.manifest)
    assert {s.study for s in dataset.samples} == {"spleen_2", "spleen_6", "spleen_7"}
    assert dataset.name == "msd_spleen"
    assert dataset.info.licence == "CC-BY-SA 4.0"
    assert {file.stem.split("_c")[0][:8] for file in (tmp_path / "out/images").iterdir()} == {"spleen_2", "spleen_6", "spleen_7"}


def test_labels_without_a_name_are_said_and_slices_that_show_nothing_are_left_out(tmp_path):
    array, truth = volume(tmp_path / "s/imagesTs/a.nii.gz", None, [])
    array[:, :, 0] = -1024
    truth[0, 0, 3] = 99
    save(tmp_path / "s/imagesTs/a.nii.gz", array.astype(np.int16))
    save(tmp_path / "s/labelsTs/a.nii.gz", truth.astype(np.float64))
    done = import_data("word", tmp_path / "s", tmp_path / "out")
    assert any("label values that have no name, left out: 1 (99)" in m for m in done.messages)
    assert any("slices of one brightness, left out: 2" in m for m in done.messages)  # in both windows
    assert {s.slice for s in read_manifest(done.manifest).samples} == set(range(1, 8))


def test_other_windows_are_kept_beside_the_manifest(tmp_path):
    source = spleen(tmp_path / "s", 3)
    done = import_data("msd", source, tmp_path / "out", windows={"spleen": (50.0, 150.0)})
    assert read_manifest(done.manifest).info.windows == {**WINDOWS, "spleen": (50.0, 150.0)}
    assert all("c50w150" in s.image.name for s in read_manifest(done.manifest).samples)


def test_the_decathlon_may_list_its_labels_either_way_round(tmp_path):
    source = spleen(tmp_path / "s", 3)
    (source / "dataset.json").write_text(json.dumps({"name": "Liver", "labels": {"background": 0, "Liver_tumour": 1}}))
    assert {s.label for s in read_manifest(import_data("msd", source, tmp_path / "out").manifest).samples} == {"liver tumour"}
    for labels in ({"0": "background"}, {"a": "b"}, [1], None):
        (source / "dataset.json").write_text(json.dumps({"labels": labels}))
        assert refused("msd", source, tmp_path / "x").code == "labels"


def test_refusals(tmp_path):
    for layout in ("word", "msd", "abdomenct1k"):
        assert refused(layout, tmp_path, tmp_path / "out").code == "layout"
        assert refused(layout, tmp_path, tmp_path / "out", laterality="image").code == "usage"
    assert refused("folder", tmp_path, tmp_path / "out", windows={"liver": (60.0, 200.0)}).code == "usage"
    source = spleen(tmp_path / "s", 3)
    (tmp_path / "out/images").mkdir(parents=True)
    assert refused("msd", source, tmp_path / "out").code == "would_overwrite"
    for file in (source / "imagesTr").iterdir():
        file.write_bytes(b"no volume")
    assert refused("msd", source, tmp_path / "none").code == "no_rows"
    assert not (tmp_path / "none").exists()
