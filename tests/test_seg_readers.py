"""A SEG of ours read by other people's programs: every voxel of every segment is where it was predicted, and no other.

dcmtk reads the file, dcmqi is how 3D Slicer reads a SEG, @cornerstonejs/adapters how OHIF does, dcmjs what is under it. The masks of the
twelve cases have ragged edges, overlap, differ from slice to slice, and have no symmetry that would hide a mirrored or a shifted one.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import highdicom as hd
import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset

from conftest import NODE
from dicom_sources import CORONAL, SAGITTAL, cine, enhanced, film, same_points, slices, voxels
from reportseg.io.dicom_out import Segment
from reportseg.io.dicom_seg import write_seg
from test_dicom_out import SHA, segment

#: Sources that place their pixels in the patient, and the number of frames.
VOLUMES = {
    "axial ct": (lambda: slices("CT"), 5),
    "coronal ct": (lambda: slices("CT", plane=CORONAL), 5),
    "sagittal mr": (lambda: slices("MR", plane=SAGITTAL), 5),
    "oblique mr without thickness": (lambda: slices("MR", oblique=True), 5),
    "ct from the head down": (lambda: slices("CT", gap_mm=-3), 5),
    "ct whose frames end within a byte": (lambda: slices("CT", size=13, wide=8), 5),
    "one slice of a ct": (lambda: slices("CT", count=1), 1),
    "enhanced mr": (lambda: [enhanced()], 4),
}
FILMS = {"cr": lambda: film("CR"), "dx with spacing": lambda: film("DX", wide=7), "ultrasound": cine}
PROBABILITIES = "ct with probabilities"
CASES = [*VOLUMES, *FILMS, PROBABILITIES]
EMPTY = ("coronal ct", "enhanced mr", "cr", PROBABILITIES)  # these have a third finding, which is nowhere


class Case(NamedTuple):
    seg: Path
    sources: list[Dataset]
    files: list[Path]
    segments: list[Segment]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes a case once, its sources as files and their SEG."""
    made: dict[str, Case] = {}

    def write(name: str) -> Case:
        if name not in made:
            made[name] = _write(tmp_path_factory.mktemp("case"), name)
        return made[name]

    return write


def _write(folder: Path, name: str) -> Case:
    make, frames = VOLUMES[name] if name in VOLUMES else (lambda: [FILMS[name]()], 1) if name in FILMS else VOLUMES["axial ct"]
    sources = make()
    segments = [segment(sources[0], frames), segment(sources[0], frames, "left pleural effusion", 1)]
    segments += [segment(sources[0], frames, "left pneumothorax", empty=True)] if name in EMPTY else []
    files = [folder / f"{number}.dcm" for number in range(len(sources))]
    for source, file in zip(sources, files, strict=True):
        source.save_as(file, enforce_file_format=True)
    write_seg(folder / "seg.dcm", sources, segments, SHA, probabilities=name == PROBABILITIES)
    return Case(folder / "seg.dcm", sources, files, segments)


def wanted(case: Case, one: Segment) -> np.ndarray:
    """The voxels of a segment: LPS in mm, of a film (0, row, column)."""
    return voxels(case.sources, one.mask_FHW) if hasattr(case.sources[0], "FrameOfReferenceUID") else np.argwhere(one.mask_FHW)


def check(case: Case, found: dict[int, np.ndarray]) -> None:
    assert set(found) <= set(range(1, len(case.segments) + 1))
    for number, one in enumerate(case.segments, 1):
        assert same_points(found.get(number, np.empty((0, 3))), wanted(case, one)), number


# ---------------------------------------------------------------- dcmtk


@pytest.mark.dcmtk
@pytest.mark.parametrize("name", CASES)
def test_dcmtk_finds_every_voxel_of_the_twelve_cases(written, name):
    case = written(name)
    done = subprocess.run(["dcm2json", "-fc", case.seg], capture_output=True, check=True)
    out = json.loads(done.stdout)
    (frames,), (rows,), (columns,), (bits,) = (out[tag]["Value"] for tag in ("00280008", "00280010", "00280011", "00280100"))
    data = np.frombuffer(base64.b64decode(out["7FE00010"]["InlineBinary"]), np.uint8)
    data = np.unpackbits(data, bitorder="little") if bits == 1 else data
    values_FHW = data[: int(frames) * rows * columns].reshape(-1, rows, columns)
    shared = out["52009229"]["Value"][0]
    found: dict[int, list[np.ndarray]] = {}
    for frame, mask_HW in zip(out["52009230"]["Value"], values_FHW, strict=True):
        (number,) = item(frame, "0062000A")["0062000B"]["Value"]
        source = item(item(frame, "00089124"), "00082112")
        place = [one.SOPInstanceUID for one in case.sources].index(source["00081155"]["Value"][0])
        if len(case.sources) == 1:
            place = int(source.get("00081160", {"Value": [1]})["Value"][0]) - 1
        if bits == 8:  # the probabilities are right, so that what is left to see is where they lie
            assert np.abs(mask_HW / 255 - case.segments[number - 1].probability_FHW[place]).max() <= 0.5 / 255 + 1e-6
            mask_HW = case.segments[number - 1].mask_FHW[place]
        if "00209116" in shared or "00209116" in frame:
            head = Dataset()
            head.ImagePositionPatient = item(frame, "00209113")["00200032"]["Value"]
            head.ImageOrientationPatient = (item(shared, "00209116") or item(frame, "00209116"))["00200037"]["Value"]
            head.PixelSpacing = item(shared, "00289110")["00280030"]["Value"]
            points = voxels([head], mask_HW[None])
        else:
            points = np.argwhere(mask_HW[None])
        found.setdefault(number, []).append(points)
    check(case, {number: np.concatenate(points) for number, points in found.items()})


def item(of: dict, tag: str) -> dict:
    """The first item of a sequence, {} where there is none."""
    return of.get(tag, {"Value": [{}]})["Value"][0]


# ---------------------------------------------------------------- highdicom, dcmqi, node


@pytest.mark.parametrize("name", FILMS)
def test_highdicom_finds_the_segments_of_a_film(written, name):
    case = written(name)
    seg, uid = hd.seg.segread(case.seg), case.sources[0].SOPInstanceUID
    many = "NumberOfFrames" in case.sources[0]
    back_FHWS = seg.get_pixels_by_source_frame(uid, [1]) if many else seg.get_pixels_by_source_instance([uid])
    assert (back_FHWS == np.stack([one.mask_FHW for one in case.segments], -1)).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", VOLUMES)
def test_slicers_reader_finds_every_voxel_where_the_slices_lie(written, tmp_path, name):
    case = written(name)
    program = Path(sys.executable).parent / "segimage2itkimage"
    command = [program, "--inputDICOM", case.seg, "--outputDirectory", tmp_path, "-t", "nii", "-p", "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for number in range(1, len(case.segments) + 1):
        out = nibabel.load(tmp_path / f"out-{number}.nii.gz")
        found[number] = nibabel.affines.apply_affine(out.affine, np.argwhere(out.get_fdata() > 0)) * (-1, -1, 1)
    check(case, found)
    labels = [one[0]["SegmentLabel"] for one in json.loads((tmp_path / "out-meta.json").read_text())["segmentAttributes"]]
    assert labels == [one.meaning.label for one in case.segments]


def node(reader: str, case: Case) -> dict[int, np.ndarray]:
    command = ["node", NODE / "read_seg.mjs", reader, case.seg, *case.files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {int(number): np.array(points) for number, points in json.loads(done.stdout).items()}


@pytest.mark.node
@pytest.mark.parametrize("name", VOLUMES)
def test_ohifs_reader_finds_every_voxel_where_the_slices_lie(written, name):
    check(written(name), node("cornerstone", written(name)))


@pytest.mark.node
@pytest.mark.parametrize("name", FILMS)
def test_dcmjs_finds_every_pixel_of_a_film(written, name):
    check(written(name), node("dcmjs", written(name)))
