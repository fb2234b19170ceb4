"""Layouts that people have on disk: one function each reads rows; what all of them share is done here once."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...io import case_ids, dicom_name
from ...io.slices import WINDOWS, Window
from ...limits import DEFAULT, Limits, safe_id
from ...schemas.data import DatasetFile
from ...text import has_side
from ...types import Laterality
from ..manifest import DATASET, MANIFEST, near, read_table, samples_of, write_manifest
from ..splits import compare_frozen, mark_disjoint, read_frozen, rows_known, split_by_patient, split_sha256
from .abdomenct1k import read_abdomenct1k
from .folder import read_folder
from .found import OWN_SPLIT, Found, Progress, some
from .languidemedseg import read_languidemedseg
from .lvit import read_lvit
from .medvlsm import read_medvlsm
from .mosmed import read_mosmed
from .msd import read_msd
from .word import read_word

IMPORTERS: dict[str, Callable[..., Found]] = {
    "lvit": read_lvit,
    "mosmed": read_mosmed,
    "languidemedseg": read_languidemedseg,
    "medvlsm": read_medvlsm,
    "folder": read_folder,
    "msd": read_msd,
    "word": read_word,
    "abdomenct1k": read_abdomenct1k,
}
VOLUMES = ("msd", "word", "abdomenct1k")
FILMS = ("images", "masks")  # folders that an import fills

_LVIT = "sentences: Li et al., LViT, IEEE TMI 2023"
_MEDVLSM = "prompts: Poudel et al., MIDL 2024"
#: Licence and citation of data sets that are known by name.
KNOWN = {
    "qata_cov19": ("research use only, not for redistribution", f"QaTa-COV19: Degerli et al., OSegNet, ICIP 2022; {_LVIT}"),
    "mosmed": (
        "research use only, not for redistribution: four sources, MosMedData under CC BY-NC-ND 3.0",
        f"Morozov et al., MosMedData, 2020; Ma et al., Medical Physics 2021; collected by Maftouni et al., IISE 2021; {_LVIT}",
    ),
    "monuseg": ("CC BY-NC-SA 4.0", f"MoNuSeg: Kumar et al., IEEE TMI 2020; {_LVIT}"),
    "kvasir_seg": ("research and education only", f"Kvasir-SEG: Jha et al., MMM 2020; {_MEDVLSM}"),
    "busi": ("CC0 1.0", f"BUSI: Al-Dhabyani et al., Data in Brief 2020; {_MEDVLSM}"),
    "word": ("academic research only", "WORD: Luo et al., Medical Image Analysis 2022"),
    "abdomenct1k": (
        "as stated on Zenodo (record 5903099 and those it names); the sets that it was made of have their own",
        "AbdomenCT-1K: Ma et al., IEEE TPAMI 2022",
    ),
}
#: Data sets whose sentences were counted against their masks (docs/data.md) and mean the left of the image.
IMAGE_SIDED = ("qata_cov19", "monuseg", "kvasir_seg", "busi")


@dataclass(frozen=True)
class Imported:
    """The manifest that was written, its rows per split, what its owner should know, whose left its sentences mean and what says so."""

    manifest: Path
    n: dict[str, int]
    messages: list[str]
    laterality: Laterality
    laterality_source: str


def import_data(
    layout: str,
    src: str | Path,
    out: str | Path,
    *,
    copy: bool = False,
    join: Sequence[str | Path] = (),
    laterality: Laterality | None = None,
    name: str | None = None,
    prompt: str | None = None,
    windows: Mapping[str, Window] | None = None,
    overwrite: bool = False,
    limits: Limits = DEFAULT,
    progress: Progress = None,
) -> Imported:
    """Writes manifest.csv and dataset.json into `out`; they refer to the files of `src`, or with `copy` to copies in `out`.

    `join` names CSV files whose columns are added by the stem of their column image. A source without a split gets one with whole patients.
    `prompt` chooses the text of medvlsm. Slices of volumes are written into `out`, in the window that `windows`, else WINDOWS, has for
    their organ; `progress(done, all)` counts each volume twice, once for its labels. `overwrite` replaces the two files of an earlier
    import, never a film.
    InputError: unknown_layout, usage, laterality_needed, would_overwrite, exists, and those of the layout, of the joined tables and of
    samples_of.
    """
    if layout not in IMPORTERS:
        fix = f"Layouts: {', '.join(IMPORTERS)}."
        raise InputError(f"the layout {layout!r} is not known{near(layout, list(IMPORTERS))}", "", fix, "unknown_layout")
    if prompt is not None and layout != "medvlsm":
        raise InputError(f"the layout {layout} has no prompts to choose from", "--prompt", "Leave it out.", "usage")
    if windows is not None and layout not in VOLUMES:
        raise InputError(f"the layout {layout} has no Hounsfield units", "--windows", "Leave it out.", "usage")
    target = Path(out)
    options: dict[str, Any] = {"prompt": prompt} if prompt else {}
    if layout in VOLUMES:
        options = {"windows": {**WINDOWS, **(windows or {})}, "progress": progress}
        if laterality not in (None, "patient"):
            what = "the slices are turned to the standard display, where left is known to be the patient's"
            raise InputError(what, "--laterality", "Leave it out.", "usage")
        _check_new(target)  # told before volumes are read for an hour
        _check_free(target, overwrite)
    found = IMPORTERS[layout](Path(src), laterality, limits, **options)
    if found.source.resolve() == (target / MANIFEST).resolve():
        raise InputError("the manifest would be written over the one that is read", target, "Choose another folder.", "would_overwrite")
    _check_free(target, overwrite)
    patients_joined = False
    for path in join:
        patients_joined |= _join(found, Path(path), limits)
        if not found.split_source and any(row.get("split") for row in found.rows):
            found.split_source = f"column split of {Path(path).name}"
    told = name  # any folder may have the name of a data set: its licence and its left are not taken from that
    name = name or found.name or safe_id(found.root.resolve().name)
    known = name if told or found.name or _published(found, name) else ""
    _whose_left(found, known, laterality)
    _give_ids(found.rows, found.root)
    licence, citation = KNOWN.get(known, ("", ""))
    info = DatasetFile(
        name=name,
        root="." if copy or found.write else _root(found.root, target),
        laterality=found.laterality or "none",
        laterality_source=found.laterality_source,
        licence=found.licence or licence,
        citation=found.citation or citation,
        split_source=found.split_source or OWN_SPLIT,
        windows=found.windows,
    )
    samples = samples_of(found.rows, found.source, found.root, info)  # all rows are checked before anything is written
    if found.split_source:
        if patients_joined:
            mark_disjoint(found.rows)
        parts = dict.fromkeys(s.split for s in samples if s.split)
        found.messages += compare_frozen(name, {part: sorted({s.image.stem for s in samples if s.split == part}) for part in parts})
        for part in [part for part in parts if part != "train"]:
            shared, n = rows_known(samples, part, "train")
            if shared:
                found.messages.append(f"{part}: {shared} of {n} rows are of a patient whom train has too")
    else:
        split = split_by_patient(samples, name)
        for row in found.rows:
            row["split"] = split[row["id"]]
        found.messages.append(f"the source has no split; {OWN_SPLIT}")
    if found.write or copy:
        _fill(found, target)
    manifest, counts = write_manifest(target, found.rows, info), dict(Counter(row["split"] for row in found.rows))
    return Imported(manifest, counts, found.messages, info.laterality, info.laterality_source)


def _join(found: Found, path: Path, limits: Limits) -> bool:
    """Adds the columns of a table by the stem of its column image, in place; a cell that is filled stays. Whether patients came with it.

    InputError ambiguous_join where the table says two things of one stem.
    """
    table: dict[str, dict[str, str]] = {}
    images: dict[str, str] = {}

    def shown(stem: str) -> str:
        """The name for messages: hospitals name DICOM files after people."""
        return dicom_name(path.parent / images[stem]) or stem

    for row in read_table(path, ("image",), limits):
        image = row.pop("image")
        stem = _stem(image)
        images[stem] = image
        if "subject" in row and "patient" not in row:
            row["patient"] = row.pop("subject")
        if table.setdefault(stem, row) != row:
            raise InputError(f"two different rows stand for {shown(stem)}", path, "Leave one row for each film.", "ambiguous_join")
    columns = list(next(iter(table.values()), {}))
    unknown, differs = [], Counter[str]()
    patients = False
    for row in found.rows:
        stem = _stem(row["image"])
        if stem not in table:
            unknown.append(dicom_name(found.root / row["image"]) or stem)
        for column in columns:
            new, old = table.get(stem, {}).get(column, ""), row.get(column, "")
            row[column] = old or new
            differs[column] += bool(old and new and old != new)
            patients = patients or (column == "patient" and bool(new and not old))
    if unknown:
        found.messages.append(f"{path.name}: films without a row in it: {some(unknown)}")
    strangers = set(table) - {_stem(row["image"]) for row in found.rows}
    if strangers:
        found.messages.append(f"{path.name}: rows without a film, left out: {some(sorted(map(shown, strangers)))}")
    for column, n in differs.items():
        if n:
            found.messages.append(f"{path.name}: {column} stays as it was in {n} rows where the joined value differs")
    return patients


def _stem(name: str) -> str:
    """The stem of a path as it stands in a table, with either kind of slash."""
    return Path(name.replace("\\", "/")).stem


def _published(found: Found, name: str) -> bool:
    """Whether the films are those of the published split of this name: no part that it lacks, and one that equals it stem by stem."""
    frozen = read_frozen(name)
    stems: dict[str, set[str]] = {}
    for row in found.rows:
        stems.setdefault(row.get("split", ""), set()).add(_stem(row["image"]))
    if frozen is None or not stems.keys() <= frozen.counts.keys():
        return False
    return any(frozen.sha256.get(part) == split_sha256(films) for part, films in stems.items())


def _whose_left(found: Found, name: str, told: Laterality | None) -> None:
    """Notes what says whose left the texts mean, and warns where it is only assumed. `name` is that of a known data set, "" for any other.

    InputError laterality_needed where a text names a side and its layout gives no reason to assume one: a guess would mirror half of the
    answers.
    """
    sided = _sided(found)
    if told is not None:
        found.laterality_source = "--laterality"
    elif found.laterality is None and sided:
        number, column = sided[0]
        raise InputError(
            f"{column} of row {number} names a side, and nothing says whose left is meant",
            found.source,
            "Give --laterality image (left half of the picture), patient (as a radiologist writes), or none.",
            "laterality_needed",
        )
    elif found.assumed and name in IMAGE_SIDED and found.laterality == "image":
        found.laterality_source = f"{name} is known: its sentences were counted against its masks"
    elif found.assumed:
        found.laterality_source = f"assumed: {found.assumed}"
        if sided:
            found.messages.append(
                f"laterality: {found.laterality} is assumed for {len(sided)} rows that name a side: {found.assumed}. If these texts are "
                "others, say --laterality patient, image or none; `reportseg data verify` counts how many masks agree. "
                f"Known by --name: {', '.join(IMAGE_SIDED)}"
            )


def _sided(found: Found) -> list[tuple[int, str]]:
    """(number of the row, its first column) of texts that name a side, where the row itself does not say whose."""
    rows = [(number, row) for number, row in enumerate(found.rows, 1) if not row.get("laterality")]
    texts = {
        number: [c for c in row if (c == "text" or c.startswith("text_")) and c != "text_source" and has_side(row[c])]
        for number, row in rows
    }
    return [(number, columns[0]) for number, columns in texts.items() if columns]


def _give_ids(rows: list[dict[str, str]], root: Path) -> None:
    """Fills the column id where it is empty; an id of the source becomes a name for files."""
    for row, made in zip(rows, case_ids([root / row["image"] for row in rows]), strict=True):
        row["id"] = safe_id(row["id"]) if row.get("id") else made


def _root(root: Path, target: Path) -> str:
    """The root as dataset.json says it: relative where it lies in the manifest's folder, which can then be moved; else absolute."""
    source, home = root.resolve(), target.resolve()
    return os.path.relpath(source, home).replace(os.sep, "/") if source.is_relative_to(home) else str(source)


def _check_free(target: Path, overwrite: bool) -> None:
    there = next((target / name for name in (MANIFEST, DATASET) if (target / name).exists()), None)
    if there is not None and not overwrite:
        raise InputError("a data set lies there already", there, "Choose another folder, or add --overwrite.", "exists")


def _check_new(target: Path) -> None:
    """InputError would_overwrite where `target` has folders of films already: they may be those of the source."""
    there = next((target / name for name in FILMS if (target / name).exists()), None)
    if there is not None:
        raise InputError("the films would mix with files that are there", there, "Choose a new folder.", "would_overwrite")


def _fill(found: Found, target: Path) -> None:
    """Makes the films, or copies them. InputError would_overwrite, unwritable.

    Files of an import that was stopped half way do not stay: they would stand in the way of the next try.
    """
    _check_new(target)
    try:
        if found.write:
            found.write(target)
        else:
            _copy_all(found, target)
    except BaseException:
        for name in FILMS:
            shutil.rmtree(target / name, ignore_errors=True)
        raise


def _copy_all(found: Found, target: Path) -> None:
    """Copies every film and mask once, named by the id of its first row, and points the rows to the copies."""
    copies: dict[Path, str] = {}
    for row in found.rows:
        for column, folder in (("image", "images"), ("mask", "masks")):
            file = found.root / row[column]
            if file not in copies:
                copies[file] = f"{folder}/{row['id']}{file.suffix.lower()}"
                try:
                    (target / folder).mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, target / copies[file])
                except OSError as e:
                    what = f"the file cannot be copied ({e.strerror})"
                    raise InputError(what, file, "Check that it can be read, choose another folder, or make room.", "unwritable") from e
            row[column] = copies[file]
