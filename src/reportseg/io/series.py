"""A folder, a DICOMDIR or a zip as films and stacks of slices: series apart, sorted by position, and what is odd about them said."""

from __future__ import annotations

import itertools
import os
import stat
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID, MediaStorageDirectoryStorage

from ..errors import InputError
from ..limits import DEFAULT, VARIABLE, Limits
from ..types import Volume
from .dicom import NO_FILM, modality_of
from .dicom_header import case_id, damaged, flat, guarded, hashed_id, is_dicom, read_header, read_tags
from .dicom_pixels import check_grid, decode
from .dicom_place import affine, directions, position
from .dicom_values import meant, window_of

SAME_MM = 0.01  # slices that are nearer lie at the same place
UNEVEN = 0.02  # share of the usual step by which a step may differ
TILT = 0.01  # of the step between slices, beside the normal: 0.6 degrees
PARALLEL = 0.001
ARCHIVE = b"PK\3\4"
TAGS = [
    *(0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x0020000D, 0x0020000E, 0x00200013, 0x00200032, 0x00200037, 0x00280002, 0x00280004),
    *(0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100, 0x00280101, 0x00281050, 0x00281051, 0x52009229, 0x52009230),
]


@dataclass(frozen=True)
class Series:
    """Files that belong together. `stacked`: slices on one grid, sorted by position, for read_volume; else films, each for itself.

    A multi-frame file with a place for each frame is a stack of its own. `warnings` are codes.
    """

    id: str
    modality: str
    files: tuple[Path, ...]
    stacked: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _File:
    path: Path
    header: Dataset

    @property
    def number(self) -> int:
        try:
            return int(self.header.get("InstanceNumber") or 0)
        except (TypeError, ValueError):
            return 0


@contextmanager
def unpacked(path: Path, limits: Limits = DEFAULT) -> Iterator[Path]:
    """The folder or file itself; of a zip its files, in a private folder that goes away afterwards, under names that say nothing.

    InputError: zip_member (a link, a path that leads out, an archive in the archive, a password), too_large, corrupt.
    """
    if not path.is_file() or path.open("rb").read(4) != ARCHIVE:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="reportseg-") as work:
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(archive, Path(work), str(path), limits)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, OSError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("the zip archive cannot be unpacked", path, "Make it again.", "corrupt") from error
        yield Path(work)


@contextmanager
def films_in(paths: Sequence[Path], limits: Limits = DEFAULT) -> Iterator[tuple[list[Path], list[str], dict[Path, Series]]]:
    """The films behind folders, DICOMDIRs and zips, in the order of their series, other paths as they are; what was found, in words, and
    the stacks of slices by their first file, which stands for all of them among the films.

    Files that cannot be read are among them, so that each can be told. They lie there until the end. InputError: those of find_series.
    """
    with ExitStack() as stack:
        films: list[Path] = []
        found: list[str] = []
        stacks: dict[Path, Series] = {}
        for path in paths:
            if not _holds_films(path):
                films.append(path)
                continue
            series, failed = find_series(stack.enter_context(unpacked(path, limits)), limits)
            for part in series:
                films += part.files[:1] if part.stacked else part.files
                stacks |= {part.files[0]: part} if part.stacked else {}
                kind = "slices" if part.stacked else "films"
                found.append(", ".join([f"{part.id}: {part.modality or 'DICOM'}, {len(part.files)} {kind}", *part.warnings]))
            films += [file for file, _ in failed]
        yield films, found, stacks


def find_series(path: Path, limits: Limits = DEFAULT) -> tuple[list[Series], list[tuple[Path, InputError]]]:
    """The series of a folder, or of the folder that a DICOMDIR describes, and the DICOM files that could not be read.

    Other files, and DICOM without pixels, are passed over. InputError: no_dicom where there is no DICOM film, too_large for more than
    10,000 files.
    """
    files: list[_File] = []
    failed: list[tuple[Path, InputError]] = []
    for file in _walk(path if path.is_dir() else path.parent, limits):
        try:
            header = read_tags(file, TAGS, limits)
            if header is None:
                continue
            with guarded(str(file)):
                for tag in TAGS:
                    header.get(tag)  # converted now, or the file has failed
                kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
                if str(kind or "") in NO_FILM or ("Rows" not in header and kind and "Image Storage" not in UID(kind).name):
                    continue
            check_grid(header, str(file), limits)
        except InputError as error:
            failed.append((file, error))
            continue
        except OSError:
            continue
        files.append(_File(file, header))
    if not files and not failed:
        raise InputError("there is no DICOM film", path, "Give the folder that holds the files.", "no_dicom")
    groups: dict[str, list[_File]] = defaultdict(list)
    for found in files:
        groups[str(found.header.get("SeriesInstanceUID") or found.header.get("SOPInstanceUID") or found.path)].append(found)
    with guarded(str(path)):
        return [series for uid in groups for series in _sorted_out(uid, groups[uid])], failed


def read_volume(series: Series, limits: Limits = DEFAULT) -> Volume:
    """The slices of a stack, first position first, in the values they mean: float32.

    InputError: those of read_header and decode for its first file that cannot be read; colour (slices are gray), too_large.
    """
    with guarded(str(series.files[0])):
        return _read_volume(series, limits)


def _read_volume(series: Series, limits: Limits) -> Volume:
    where = str(series.files[0])
    slices: list[NDArray[np.float32]] = []
    headers: list[Dataset] = []
    frames: tuple[int, ...] = ()
    for path in series.files:
        with open(path, "rb") as file:
            header, body = read_header(file, str(path), limits)
            count, rows, columns = check_grid(header, str(path), limits)
            if int(header.SamplesPerPixel) != 1:
                raise InputError("a volume is gray, and this file has colours", path, "Give its files one by one.", "colour")
            total = max(count, len(series.files)) * rows * columns * 4
            if total > limits.volume_bytes:
                what = f"the volume takes {total:,} bytes, more than the limit of {limits.volume_bytes:,}"
                raise InputError(what, path, f"Cut it, or allow it: {VARIABLE}=volume_bytes={total}.", "too_large")
            headers.append(header)
            if count > 1:
                order = _frame_order(header, count)
                frames = tuple(number + 1 for number in order)
                slices = [meant(decode(header, body, where, limits, n), flat(header, n), where) for n in order]
            else:
                slices.append(meant(decode(header, body, str(path), limits), flat(header), str(path)))
    if len({part.shape for part in slices}) != 1:
        raise damaged("belongs to a series of slices of several sizes", where)
    first = flat(headers[0], frames[0] - 1 if frames else 0)
    last = flat(headers[0], frames[-1] - 1) if frames else flat(headers[-1])
    start, end = position(first), position(last)
    grid = None if start is None or end is None or len(slices) < 2 else affine(first, (end - start) / (len(slices) - 1))
    if grid is None:
        raise damaged("belongs to a volume and does not say where its slices lie", where)
    return Volume(
        values_DHW=np.stack(slices),
        affine=grid,
        format="dicom",
        id=series.id,
        modality=series.modality,
        window=window_of(first),
        frames=frames,
        warnings=series.warnings,
        headers=tuple(headers),
    )


def _sorted_out(uid: str, files: list[_File]) -> list[Series]:
    """One series as stacks and films: localisers, other orientations and other grids apart."""
    name, modality = hashed_id(uid.encode()), modality_of(files[0].header)
    localisers = [file for file in files if "LOCALIZER" in str(file.header.get("ImageType") or "").upper()]
    rest = [file for file in files if file not in localisers]
    many = [file for file in rest if int(file.header.get("NumberOfFrames") or 1) > 1]
    groups: dict[tuple[object, ...], list[_File]] = defaultdict(list)
    for file in rest:
        if file not in many:
            groups[_grid(file.header)].append(file)
    shared = ["mixed_orientations"] if len({key[:-1] for key in groups if key[-1]}) > 1 else []
    shared += ["localiser"] if localisers and rest else []
    out = [_frames(file, modality, shared) for file in many]
    films = [file for key, group in groups.items() if not key[-1] or len(group) < 2 for file in group] + localisers
    stacks = [group for key, group in groups.items() if key[-1] and len(group) >= 2]
    for place, group in enumerate(stacks):
        files_, warnings = _stacked(group)
        own = name if place == 0 and not films else hashed_id(f"{uid} {place}".encode())
        out.append(Series(own, modality, files_, True, (*shared, *warnings)))
    if films:
        paths = tuple(file.path for file in sorted(films, key=lambda file: (file.number, file.path)))
        out.append(Series(name, modality, paths, False, tuple(shared)))
    return out


def _grid(header: Dataset) -> tuple[object, ...]:
    """What slices of a stack share; last, whether they have a place at all."""
    cosines = directions(header)
    if cosines is None or position(header) is None:
        return (header.get("Rows"), header.get("Columns"), None, False)
    return (header.get("Rows"), header.get("Columns"), tuple(np.rint(cosines.ravel() / PARALLEL / 10).astype(int)), True)


def _stacked(files: Sequence[_File]) -> tuple[tuple[Path, ...], list[str]]:
    """Slices in the order of their positions, one for each position, and what is odd about them."""
    places = _along([file.header for file in files])
    order = sorted(range(len(files)), key=lambda i: (places[i], files[i].number, files[i].path))
    kept: list[int] = []
    for i in order:
        if not kept or places[i] - places[kept[-1]] > SAME_MM:
            kept.append(i)
    warnings = ["duplicate_positions"] if len(kept) < len(order) else []
    return tuple(files[i].path for i in kept), warnings + _oddities([files[i].header for i in kept])


def _frames(file: _File, modality: str, shared: list[str]) -> Series:
    """A multi-frame file: a stack where each frame has its own place, else a film."""
    name = case_id(file.header) or hashed_id(str(file.path).encode())
    count = int(file.header.get("NumberOfFrames") or 1)
    views = [flat(file.header, n) for n in range(min(count, len(file.header.get("PerFrameFunctionalGroupsSequence") or [])))]
    if len(views) < count or any(position(view) is None or directions(view) is None for view in views):
        return Series(name, modality, (file.path,), False, tuple(shared))
    if len({_grid(view) for view in views}) > 1:
        return Series(name, modality, (file.path,), False, (*shared, "mixed_orientations"))
    places = sorted(_along(views))
    twice = any(after - before <= SAME_MM for before, after in itertools.pairwise(places))
    if twice:  # times, echoes or phases of the same place: which one is meant cannot be told
        return Series(name, modality, (file.path,), False, (*shared, "duplicate_positions"))
    ordered = [views[i] for i in np.argsort(_along(views), kind="stable")]
    return Series(name, modality, (file.path,), True, (*shared, *_oddities(ordered)))


def _frame_order(header: Dataset, count: int) -> list[int]:
    return [int(i) for i in np.argsort(_along([flat(header, n) for n in range(count)]), kind="stable")]


def _along(headers: Sequence[Dataset]) -> list[float]:
    """Positions along the normal of the first slice, in mm."""
    cosines = directions(headers[0])
    if cosines is None:
        raise ValueError("slices of a stack have a place")
    normal = np.cross(*cosines)
    return [float(place @ normal) if (place := position(header)) is not None else 0.0 for header in headers]


def _oddities(headers: Sequence[Dataset]) -> list[str]:
    """slice_gaps where steps differ, gantry_tilt where they do not follow the normal."""
    points = np.array([position(header) for header in headers], dtype=np.float64)
    cosines = directions(headers[0])
    if len(points) < 2 or cosines is None:
        return []
    steps = np.diff(points, axis=0)
    normal = np.cross(*cosines)
    heights = steps @ normal
    usual = float(np.median(heights))
    beside = steps - heights[:, None] * normal
    tilted = bool((np.linalg.norm(beside, axis=1) > TILT * np.abs(heights)).any())
    uneven = bool((np.abs(heights - usual) > max(SAME_MM, UNEVEN * usual)).any())
    return ["slice_gaps"] * uneven + ["gantry_tilt"] * tilted


def _holds_films(path: Path) -> bool:
    """Whether a path is a folder, a zip archive or a DICOMDIR."""
    if not path.is_file():
        return path.is_dir()
    with open(path, "rb") as file:
        head = file.read(136)
    if not is_dicom(head):
        return head.startswith(ARCHIVE)
    header = read_tags(path, [0x00080018])
    return header is not None and header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage


def _walk(root: Path, limits: Limits) -> Iterator[Path]:
    """Regular files below a folder, sorted; links are not followed. InputError too_large."""
    count = 0
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            file = Path(folder) / name
            if file.is_symlink() or not file.is_file():
                continue
            count += 1
            if count > limits.members:
                fix = f"Give a smaller folder, or allow it: {VARIABLE}=members=1000000."
                raise InputError(f"the folder holds more than {limits.members:,} files", root, fix, "too_large")
            yield file


def _extract(archive: zipfile.ZipFile, work: Path, where: str, limits: Limits) -> None:
    """The members as numbered files, counted while they are unpacked: what an archive says of itself may be a lie."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > limits.members:
        raise InputError(f"the archive holds more than {limits.members:,} files", where, "Pack fewer.", "too_large")
    left = limits.volume_bytes
    for number, member in enumerate(members):
        parts = member.filename.replace("\\", "/").split("/")
        mode = member.external_attr >> 16
        if parts[0] == "" or ".." in parts or ":" in parts[0] or stat.S_ISLNK(mode) or member.flag_bits & 1:
            raise InputError("the archive holds a link, a password or a path that leads out of it", where, "Pack it again.", "zip_member")
        budget = min(left, max(2**20, limits.ratio * max(1, member.compress_size)))
        with archive.open(member) as source, open(work / f"{number:05d}", "xb") as target:
            head = source.read(2**16)
            if head[:4] == ARCHIVE:
                raise InputError("the archive holds another archive", where, "Unpack it first.", "zip_member")
            while head:
                budget, left = budget - len(head), left - len(head)
                if budget < 0:
                    raise InputError("the archive unpacks to more than its limit", where, "Unpack it by hand.", "too_large")
                target.write(head)
                head = source.read(2**16)
