"""A folder, a DICOMDIR or a zip as films and stacks of slices: series apart, sorted by position, and what is odd about them said."""

from __future__ import annotations

import os
import stat
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID, MediaStorageDirectoryStorage

from ..errors import InputError
from ..limits import DEFAULT, VARIABLE, Limits, check_voxels
from ..types import Volume
from .dicom import NO_FILM
from .dicom_header import damaged, flat, flat_frames, frame_count, guarded, is_dicom, is_zip, modality_of, read_header, read_tags
from .dicom_pixels import GRAY, check_grid, decode
from .dicom_place import affine
from .dicom_values import meant, window_of
from .stacks import PHASE_TAGS, Part, Series, layout_of, part_of, sort_frames, sort_series

#: What tells which files are slices of one stack; a file where one of these cannot be read has failed.
GRID_TAGS = [
    *(0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x0020000D, 0x0020000E, 0x00200013, 0x00200032, 0x00200037, 0x00200052, 0x00280002),
    *(0x00280004, 0x00280008, 0x00280010, 0x00280011, 0x00280030, 0x00280100, 0x00280101, 0x00281050, 0x00281051, 0x52009229, 0x52009230),
]
TAGS = [*GRID_TAGS, *PHASE_TAGS]
#: What pixels, their meaning and a SEG of them need besides. The rest of thousands of headers is not held.
VOLUME_TAGS = [
    *TAGS,
    *(0x00080020, 0x00080030, 0x00080050, 0x00100010, 0x00100020, 0x00100030, 0x00100040, 0x00180050, 0x00200010, 0x00200020, 0x00280006),
    *(0x00280102, 0x00280103, 0x00281052, 0x00281053, 0x00281054, 0x00281056, 0x00283000, 0x7FE00001, 0x7FE00002),
]
Stacks = Mapping[Path, Series | InputError]
"""A name below the first file of a stack of slices, where nothing can lie, or a file that is one stack -> the stack, as `films_in` found
it; or a path that holds none -> why. The first file itself may be a film too, where it was given beside its folder.
"""


@contextmanager
def unpacked(path: Path, limits: Limits = DEFAULT) -> Iterator[Path]:
    """The folder or file itself; of a zip its files, in a private folder that goes away afterwards, under names that say nothing.

    InputError: zip_member (a link, a path that leads out, an archive in the archive, a password), too_large, corrupt.
    """
    if not path.is_file() or not is_zip(_head(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="reportseg-") as work:
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(archive, Path(work), str(path), limits)
        except InputError:
            raise
        except Exception as error:  # the unpackers raise what they like: zlib.error, LZMAError, BadZipFile, IndexError and others
            raise InputError("the zip archive cannot be unpacked", path, "Make it again.", "corrupt") from error
        yield Path(work)


@contextmanager
def films_in(paths: Sequence[Path], limits: Limits = DEFAULT) -> Iterator[tuple[list[Path], list[str], Stacks]]:
    """The films behind folders, DICOMDIRs, zips and files of several stacks, in the order of their series, other paths as they are; what
    was found, in words, and the stacks of slices by the name that stands for all of them among the films.

    What cannot be read, a whole folder or archive too, is among them, so that each can be told. They lie there until the end.
    """
    with ExitStack() as stack:
        films: list[Path] = []
        found: list[str] = []
        stacks: dict[Path, Series | InputError] = {}
        for path in paths:
            try:
                if _holds_films(path):
                    series, failed = find_series(stack.enter_context(unpacked(path, limits)), limits)
                    if lost := _lost(path, limits):
                        failed.append((path, lost))
                        stacks[path] = lost
                elif len(series := _several(path, limits)) > 1:
                    failed = []
                else:
                    films.append(path)
                    if series:
                        stacks[path] = series[0]  # so that its header is not read again
                    continue
            except (InputError, OSError) as error:
                films.append(path)
                if isinstance(error, InputError):  # named as it was given, not where it was unpacked; others tell whoever opens the file
                    stacks[path] = InputError(error.what, path, error.fix, error.code)
                continue
            for part in series:
                if part.stacked:
                    films.append(part.files[0] / str(len(stacks)))
                    stacks[films[-1]] = part
                else:
                    films += part.files
                kind = f"{len(part.frames or part.files)} {'slices' if part.stacked else 'films'}"
                found.append(", ".join([f"{part.id}: {part.modality or 'DICOM'}, {kind}", *part.warnings]))
            films += [file for file, _ in failed]
        yield films, found, stacks


def find_series(path: Path, limits: Limits = DEFAULT) -> tuple[list[Series], list[tuple[Path, InputError]]]:
    """The series of a folder, or of the folder that a DICOMDIR describes, and the DICOM files that could not be read.

    Other files, and DICOM without pixels, are passed over. InputError: no_dicom where there is no DICOM film, too_large for more than
    10,000 files.
    """
    groups: dict[str, list[Part]] = defaultdict(list)
    out: list[Series] = []
    failed: list[tuple[Path, InputError]] = []
    for file in _walk(path if path.is_dir() else path.parent, limits):
        try:
            header = read_tags(file, TAGS, limits)
            if header is None:
                continue
            with guarded(str(file)):
                for tag in GRID_TAGS:
                    header.get(tag)  # converted now, or the file has failed
                kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
                if str(kind or "") in NO_FILM or ("Rows" not in header and kind and "Image Storage" not in UID(kind).name):
                    continue
                check_grid(header, str(file), limits)
                if frame_count(header, str(file)) > 1:
                    out += sort_frames(file, header)
                else:
                    uid = str(header.get("SeriesInstanceUID") or header.get("SOPInstanceUID") or file)
                    groups[uid].append(part_of(file, flat(header)))  # enhanced files may hold one frame each
        except InputError as error:
            failed.append((file, error))
        except OSError:
            continue
    if not out and not groups and not failed:
        raise InputError("there is no DICOM film", path, "Give the folder that holds the files.", "no_dicom")
    with guarded(str(path)):
        return out + [series for uid, parts in groups.items() for series in sort_series(uid, parts)], failed


def stacks_in(path: Path, limits: Limits = DEFAULT) -> list[Series]:
    """The stacks of slices in a multi-frame file, none in any other file. InputError: those of read_header and check_grid."""
    header = read_tags(path, TAGS, limits)
    with guarded(str(path)):
        if header is None or frame_count(header, str(path)) < 2:
            return []
        check_grid(header, str(path), limits)
        return [series for series in sort_frames(path, header) if series.stacked]


def read_volume(series: Series, limits: Limits = DEFAULT) -> Volume:
    """The slices of a stack, first position first, in the values they mean: float32.

    InputError: those of read_header and decode for its first file that cannot be read; colour (slices are gray), too_large.
    """
    with guarded(str(series.files[0])):
        return _read_volume(series, limits)


def _read_volume(series: Series, limits: Limits) -> Volume:
    where = str(series.files[0])
    values_DHW = np.empty((0, 0, 0), np.float32)
    headers: list[Dataset] = []
    parts: list[Part] = []
    order = series.frames or (0,)
    for path in series.files:
        with open(path, "rb") as file:
            header, body = read_header(file, str(path), limits, VOLUME_TAGS)
            count, rows, columns = check_grid(header, str(path), limits)
            if str(header.PhotometricInterpretation).strip() not in GRAY:
                raise InputError("a volume is gray, and this file has colours", path, "Give its files one by one.", "colour")
            if not headers:
                shape = (max(len(order), len(series.files)), rows, columns)
                check_voxels(shape, path, limits)
                values_DHW = np.empty(shape, np.float32)
            if (rows, columns) != values_DHW.shape[1:] or count <= max(order):
                raise damaged("belongs to a series of slices of several sizes", str(path))
            headers.append(header)
            for n, view in zip(order, flat_frames(header, order), strict=True):
                values_DHW[len(parts)] = meant(decode(header, body, str(path), limits, n), view, str(path))
                parts.append(part_of(path, view, n))
    if len(parts) < 2 or any(part.place is None for part in parts):
        raise damaged("belongs to a volume and does not say where its slices lie", where)
    layout, first = layout_of(parts), flat(headers[0], order[0])
    grid = affine(first, layout.step)
    if grid is None:
        raise damaged("belongs to a volume and does not say where its slices lie", where)
    return Volume(
        values_DHW=values_DHW,
        affine=grid,
        format="dicom",
        id=series.id,
        modality=modality_of(headers[0]),
        window=window_of(first),
        frames=tuple(n + 1 for n in order) if len(order) > 1 else (),
        planes=layout.planes,
        thickness_mm=layout.thickness_mm if layout.planes is None else (),
        inverted=str(first.PhotometricInterpretation).strip() == "MONOCHROME1",
        warnings=series.warnings,
        headers=tuple(headers),
    )


def _head(path: Path) -> bytes:
    """The first bytes. A file that is left to be closed by the collector would be named, with its patient, in a warning of Python."""
    with open(path, "rb") as file:
        return file.read(136)


def _several(path: Path, limits: Limits) -> list[Series]:
    """The stacks in a file; [] for one that cannot be read: whoever opens it will tell."""
    try:
        return stacks_in(path, limits) if path.is_file() else []
    except (InputError, OSError):
        return []


def _holds_films(path: Path) -> bool:
    """Whether a path is a folder, a zip archive or a DICOMDIR."""
    if not path.is_file():
        return path.is_dir()
    head = _head(path)
    if not is_dicom(head):
        return is_zip(head)
    header = read_tags(path, [0x00080018])
    with guarded(str(path)):
        return header is not None and header.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage


def _lost(path: Path, limits: Limits) -> InputError | None:
    """What is to be said of a DICOMDIR that names files which are not there. Media have names in capitals, copies of them often not."""
    try:
        header = read_tags(path, [0x00041220], limits) if path.is_file() else None
        if header is None:
            return None
        with guarded(str(path)):
            records = header.get("DirectoryRecordSequence") or []
            ids = [record.get("ReferencedFileID") for record in records if record.get("RecordInUseFlag") != 0]  # 0: deleted
            named = {(id if isinstance(id, str) else "/".join(id)).lower() for id in ids if id}
    except InputError as error:
        return error
    lost = named - {file.relative_to(path.parent).as_posix().lower() for file in _walk(path.parent, limits)}
    what = f"the DICOMDIR names {len(lost)} files that are not there, of {len(named)}"
    return InputError(what, path, "Copy the whole medium again.", "missing") if lost else None


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
            if is_zip(head):
                raise InputError("the archive holds another archive", where, "Unpack it first.", "zip_member")
            while head:
                budget, left = budget - len(head), left - len(head)
                if budget < 0:
                    raise InputError("the archive unpacks to more than its limit", where, "Unpack it by hand.", "too_large")
                target.write(head)
                head = source.read(2**16)
