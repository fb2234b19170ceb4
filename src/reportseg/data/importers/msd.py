"""The Medical Segmentation Decathlon: a task's folder with imagesTr/, labelsTr/ and dataset.json, which names the labels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...io.slices import WINDOWS, Window
from ...limits import DEFAULT, Limits, safe_id
from ...schemas.base import load_json
from ...types import Laterality
from .found import Found, Progress
from .organs import add_volumes, nifti_files, paired

CITATION = "Medical Segmentation Decathlon: Antonelli et al., Nature Communications 2022"


def read_msd(
    src: Path,
    laterality: Laterality | None = None,
    limits: Limits = DEFAULT,
    windows: Mapping[str, Window] = WINDOWS,
    progress: Progress = None,
) -> Found:
    """All volumes with labels, one patient each; imagesTs has none and is left out. Of several channels the first is read.

    dataset.json may list its labels as value: name or as name: value. InputError: layout, labels, those of add_volumes and of load_json.
    """
    if not ((src / "imagesTr").is_dir() and (src / "labelsTr").is_dir() and (src / "dataset.json").is_file()):
        fix = "Give the folder of one task, such as Task09_Spleen, with imagesTr, labelsTr and dataset.json."
        raise InputError("this is not a layout of the Decathlon", src, fix, "layout")
    info = load_json(src / "dataset.json")
    organs = _organs(info, src / "dataset.json")
    name, licence = (str(info.get(key) or "") for key in ("name", "licence"))
    found = Found([], src, src, name=safe_id(f"msd_{name or src.name}".lower()), licence=licence, citation=CITATION, windows=dict(windows))
    images = {stem.removesuffix("_0000"): file for stem, file in nifti_files(src / "imagesTr").items()}
    labels = nifti_files(src / "labelsTr")
    add_volumes(found, paired(found, images, labels), organs, windows, limits, progress)
    return found


def _organs(info: Any, where: Path) -> dict[int, str]:
    """Label value -> name in plain words, without the background. InputError labels."""
    given = info.get("labels") if isinstance(info, dict) else None
    try:
        pairs = [(int(a), str(b)) if str(a).isdecimal() else (int(b), str(a)) for a, b in dict(given or {}).items()]
    except (TypeError, ValueError) as e:
        raise InputError("the labels are not pairs of a number and a name", where, "Restore dataset.json.", "labels") from e
    organs = {value: " ".join(name.replace("_", " ").split()).lower() for value, name in pairs if value != 0}
    if not organs:
        raise InputError("no labels are named", where, "Restore dataset.json.", "labels")
    return organs
