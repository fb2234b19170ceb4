"""Organs that data sets of volumes label: what they are called in a prompt, and how a slice of one becomes a row.

A row is a slice, an organ and a mask. Names are those of the knowledge bank `abdomen`, so that the prompt finds its statements; a volume is
asked for an organ in one wording throughout, and wordings change from volume to volume.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ...errors import InputError
from ...io.nifti import read_header, read_nifti
from ...io.slices import View, Window, brightness, pixels, view_of, window_for
from ...limits import Limits, safe_id
from ...types import Affine, Sample
from ..splits import split_by_patient
from .found import OWN_SPLIT, Found, Progress

#: Concept of the bank -> what else it is called.
ORGANS: Mapping[str, tuple[str, ...]] = {
    "liver": ("liver", "liver parenchyma"),
    "spleen": ("spleen", "spleen parenchyma"),
    "left kidney": ("left kidney",),
    "right kidney": ("right kidney",),
    "kidney": ("kidneys", "kidney"),
    "stomach": ("stomach",),
    "gallbladder": ("gallbladder", "gall bladder"),
    "esophagus": ("esophagus", "oesophagus", "gullet"),
    "pancreas": ("pancreas",),
    "duodenum": ("duodenum",),
    "colon": ("colon", "large intestine", "large bowel"),
    "small intestine": ("small intestine", "small bowel", "intestine"),
    "adrenal gland": ("adrenal glands", "adrenal gland", "suprarenal gland"),
    "rectum": ("rectum",),
    "bladder": ("bladder", "urinary bladder"),
    "left femoral head": ("left femoral head", "head of left femur", "left femur head"),
    "right femoral head": ("right femoral head", "head of right femur", "right femur head"),
}
PROMPTS = ("{}", "the {}", "segment the {}", "outline of the {}", "{} in this slice")
NEAR = 0.5  # voxels that the corners of a label may lie off those of its volume


@dataclass(frozen=True)
class Case:
    """A volume with its labels, files of the source. `split` is empty where the source has none."""

    study: str
    image: Path
    label: Path
    split: str = ""


def paired(found: Found, images: Mapping[str, Path], labels: Mapping[str, Path], split: str = "") -> list[Case]:
    """Volumes with the labels of the same name; what stands alone is left out, and reported."""
    of = f"{split}: " if split else ""
    found.report(f"{of}volumes without labels, left out", [file.name for name, file in images.items() if name not in labels])
    found.report(f"{of}labels without a volume, left out", [file.name for name, file in labels.items() if name not in images])
    return [Case(safe_id(name), file, labels[name], split) for name, file in images.items() if name in labels]


def wordings(organ: str) -> list[str]:
    """Every prompt that an organ may get, its plain name first."""
    return [prompt.format(name) for name in ORGANS.get(organ, (organ,)) for prompt in PROMPTS]


def prompt_for(organ: str, study: str) -> str:
    """The wording of a volume's prompt, chosen by a hash of both names."""
    said = wordings(organ)
    return said[int.from_bytes(hashlib.sha256(f"{study}\0{organ}".encode()).digest()[:8], "big") % len(said)]


def nifti_files(folder: Path) -> dict[str, Path]:
    """The NIfTI files of a folder by name without .nii or .nii.gz, sorted; none where there is no such folder.

    What macOS leaves beside a file (._name) is none.
    """
    files = sorted(folder.iterdir(), key=lambda f: f.name) if folder.is_dir() else []
    return {stem(f): f for f in files if f.name.lower().endswith((".nii", ".nii.gz")) and not f.name.startswith(".")}


def stem(file: Path) -> str:
    """The name of a NIfTI file without .nii or .nii.gz."""
    name = file.name[: -len(".gz")] if file.name.lower().endswith(".gz") else file.name
    return Path(name).stem


def add_volumes(
    found: Found,
    cases: Sequence[Case],
    organs: Mapping[int, str],
    windows: Mapping[str, Window],
    limits: Limits,
    progress: Progress = None,
) -> None:
    """Rows for every organ of `organs` (label value -> name) in every slice of every case, and the way to write their pictures.

    val, test and other held-out splits have a row for each slice and organ, so that a volume can be scored whole; train has the slices
    that show the organ and at most as many that do not, spread evenly. Cases without a split get one of whole volumes. A case that cannot
    be read, or whose labels are on another grid, is left out and reported; labels that `organs` does not name are reported.

    InputError no_rows if nothing is left.
    """
    found.laterality, found.laterality_source = (
        "patient",
        "slices are turned to the standard display, and organs are named as anatomists do",
    )
    cases = _with_split(found, cases)
    broken, strange = [], set[int]()
    for done, case in enumerate(cases, 1):
        if progress:
            progress(done, 2 * len(cases))
        try:
            shape, view, present = _present(case, limits)
        except InputError as error:
            broken.append(f"{case.image.name}: {error.what}")
            continue
        strange |= set(present) - set(organs) - {0}
        found.rows += _rows(case, shape, view, present, organs, windows)
    found.report("volumes left out", broken)
    found.report("label values that have no name, left out", [str(value) for value in sorted(strange)])
    if not found.rows:
        raise InputError("no volume and its labels could be read", found.source, "Look for files that are missing.", "no_rows")
    there = {row["study"] for row in found.rows}
    readable = [case for case in cases if case.study in there]
    found.write = lambda target: _write(found, readable, organs, windows, limits, target, progress)


def _with_split(found: Found, cases: Sequence[Case]) -> list[Case]:
    """The cases with a split: that of the source, else one of whole volumes."""
    if found.split_source:
        return list(cases)
    found.split_source = OWN_SPLIT
    found.messages.append(f"the source has no split; {OWN_SPLIT}")
    volumes = [Sample(id=case.study, image=case.image, mask=None, text="", patient=case.study) for case in cases]
    split = split_by_patient(volumes, found.name)
    return [Case(case.study, case.image, case.label, split[case.study]) for case in cases]


def _present(case: Case, limits: Limits) -> tuple[tuple[int, int, int], View, dict[int, list[int]]]:
    """The volume's shape, the view that its slices are numbered in, and those that show each label; the background, 0, has all of them.

    InputError: those of read_nifti, other_grid.
    """
    layout = read_header(case.image, limits)
    labels = read_nifti(case.label, limits)
    if labels.values_DHW.shape != layout.shape or not _same_place(labels.affine, layout.affine, layout.shape):
        raise InputError("the labels are on another grid than the volume", case.label, "Export them on its grid.", "other_grid")
    view = view_of(layout.affine)
    shown = view.shown(labels.values_DHW)
    present: dict[int, list[int]] = {0: list(range(len(shown)))}
    for number, label_HW in enumerate(shown):
        for value in np.unique(np.rint(label_HW)).astype(int).tolist():
            if value:
                present.setdefault(value, []).append(number)
    return layout.shape, view, present


def _same_place(a: Affine, b: Affine, shape: tuple[int, int, int]) -> bool:
    """Whether the corners of two grids of one shape lie within half a voxel of each other."""
    corners = np.array([[d, h, w, 1] for d in (0, shape[0] - 1) for h in (0, shape[1] - 1) for w in (0, shape[2] - 1)])
    apart = np.linalg.norm((corners @ (np.array(a) - np.array(b)).T)[:, :3], axis=1)
    return bool((apart <= NEAR * np.linalg.norm(np.array(b)[:3, :3], axis=0).min()).all())


def _rows(
    case: Case,
    shape: tuple[int, int, int],
    view: View,
    present: Mapping[int, Sequence[int]],
    organs: Mapping[int, str],
    windows: Mapping[str, Window],
) -> Iterator[dict[str, str]]:
    across, row, column = view.spacing_mm
    height, width = (shape[axis] for axis in view.order[1:])
    for value, organ in organs.items():
        shown = set(present.get(value, ()))
        window = window_for(organ, windows)
        for number in present[0] if case.split != "train" else _thinned(shown, present[0]):
            name = f"{case.study}_{number:04d}"
            id = safe_id(f"{name}_{organ}")
            yield {
                "image": _image(case.study, number, window),
                "mask": f"masks/{id}.png" if number in shown else f"masks/absent_{height}x{width}.png",
                "text": prompt_for(organ, case.study),
                "id": id,
                "split": case.split,
                "patient": case.study,
                "text_source": "names of organs",
                "label": organ,
                "present": "1" if number in shown else "0",
                "slice": str(number),
                "study": case.study,
                "spacing_mm": f"{row:g} {column:g} {across:g}",
            }


def _thinned(shown: set[int], numbers: Sequence[int]) -> list[int]:
    """The slices that show an organ, and evenly spread as many that do not; one at least."""
    absent = [number for number in numbers if number not in shown]
    step = max(1, math.ceil(len(absent) / max(1, len(shown))))
    return sorted(shown | set(absent[step // 2 :: step]))


def _image(study: str, number: int, window: Window) -> str:
    return f"images/{study}_{number:04d}_c{window[0]:g}w{window[1]:g}.png"


def _write(
    found: Found,
    cases: Sequence[Case],
    organs: Mapping[int, str],
    windows: Mapping[str, Window],
    limits: Limits,
    target: Path,
    progress: Progress,
) -> None:
    """Writes the pictures of all rows into `target`, volume by volume; rows whose film cannot be read, or shows nothing, are dropped.

    InputError unwritable, no_rows.
    """
    values = {organ: value for value, organ in organs.items()}
    rows: dict[str, list[dict[str, str]]] = {}
    for row in found.rows:
        rows.setdefault(row["study"], []).append(row)
    broken, blank = [], []
    kept: list[dict[str, str]] = []
    for done, case in enumerate(cases, 1):
        try:
            dark = _write_case(case, rows[case.study], values, windows, limits, target)
            blank += sorted(dark)
            kept += [row for row in rows[case.study] if row["image"] not in dark]
        except InputError as error:
            broken.append(f"{case.image.name}: {error.what}")
        except OSError as error:
            what = f"the slices cannot be written ({error.strerror or error})"
            raise InputError(what, target, "Choose another folder, or make room.", "unwritable") from error
        if progress:
            progress(len(cases) + done, 2 * len(cases))
    found.report("volumes left out", broken)
    found.report("slices of one brightness, left out", [Path(name).stem for name in blank])
    found.rows = kept
    if not kept:
        raise InputError("no volume could be read", found.source, "Look for files that are cut short.", "no_rows")


def _write_case(
    case: Case,
    rows: Sequence[Mapping[str, str]],
    values: Mapping[str, int],
    windows: Mapping[str, Window],
    limits: Limits,
    target: Path,
) -> set[str]:
    """The pictures of one volume. Returns those of one brightness throughout that show no organ: they are not written.

    OSError; InputError: those of read_nifti.
    """
    volume, labels = read_nifti(case.image, limits), read_nifti(case.label, limits)
    view = view_of(volume.affine)
    films, truth = view.shown(volume.values_DHW), view.shown(labels.values_DHW)
    needed = {row["image"] for row in rows if row["present"] == "1"}
    dark, done = set[str](), set[str]()
    for row in rows:
        number = int(row["slice"])
        if row["image"] not in done:
            done.add(row["image"])
            low, high = brightness(volume, window_for(row["label"], windows))
            film_HW = np.rint(pixels(films[number], low, high) * 255).astype(np.uint8)
            if film_HW.min() == film_HW.max() and row["image"] not in needed:
                dark.add(row["image"])
            else:
                _save(target / row["image"], film_HW)
        if row["mask"] not in done:
            if row["present"] == "0":  # one empty mask for all absent organs of a size
                done.add(row["mask"])
            mask_HW = np.rint(truth[number]) == values[row["label"]]
            _save(target / row["mask"], np.where(mask_HW, 255, 0).astype(np.uint8))
    return dark


def _save(path: Path, array_HW: NDArray[Any]) -> None:
    """A PNG. The manifest, which is written last, is what makes an import whole, so no file waits for the disk here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(array_HW).save(path, format="PNG")
