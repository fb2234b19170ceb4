"""NIfTI: volumes and films in, masks out, on the grid and in the patient coordinates of the file.

A file's array is numbered i, j, k with i fastest, so read slice by slice it is (k, j, i) = (D, H, W) without a copy. Its affine takes
(i, j, k) to RAS; ours takes (slice, row, column) to LPS. Nothing is turned here: how a volume is looked at is for `slices.py`.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..limits import DEFAULT, Limits, atomic_path, check_file, check_voxels
from ..types import Affine, Volume
from .png import cut_short

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

GZIP = b"\x1f\x8b"
RATIO = 1032  # deflate cannot pack tighter
SIZES = (348, 540)  # of a header, version 1 and 2
PAIRS = (b"ni1\0", b"ni2\0")
TO_MM = {1: 1000.0, 3: 0.001}  # metres and micrometres; any other unit, stated or not, is taken for mm
TURN = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS to LPS, and back
_STEP = 1 << 22


@dataclass(frozen=True)
class Layout:
    """What a header says: `shape` is (D, H, W) of the first volume, of which there are `volumes`; values are stored * slope + inter."""

    shape: tuple[int, int, int]
    volumes: int
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    affine: Affine
    oriented: bool  # whether the file says how it lies in the patient


def is_nifti(head: bytes) -> bool:
    """Whether the first bytes (352 are enough) are those of a NIfTI file, or of a gzip file, which is read as one."""
    return head[:2] == GZIP or _magic(head) != b""


def read_nifti(source: str | Path | bytes, limits: Limits = DEFAULT) -> Volume:
    """The first volume of a file of two to four dimensions, gzipped or not, neither windowed nor turned.

    Integers of 8 and 16 bits without a scale stay as stored; all else becomes float32. Of a fourth dimension the first volume is read
    (warning multi_frame); a file without sform and qform warns orientation_assumed.

    InputError: those of check_file and check_voxels, truncated, corrupt, unsupported_format (two files; no NIfTI), unsupported_mode
    (colour, complex), bad_shape, bad_affine, not_finite (no number among its voxels).
    """
    if isinstance(source, bytes):
        return _read(io.BytesIO(source), len(source), "", limits)
    size = check_file(source).stat().st_size
    with open(source, "rb") as file:
        return _read(file, size, str(source), limits)


def read_header(path: str | Path, limits: Limits = DEFAULT) -> Layout:
    """What a file says of itself; its voxels are not read. InputError as read_nifti."""
    with open(check_file(path), "rb") as file, _unpacked(file, str(path)) as (stream, _):
        return read_layout(stream, str(path), limits)


def write_nifti(path: str | Path, array_DHW: NDArray[Any], affine: Affine, *, placed: bool = True) -> None:
    """A gzipped NIfTI-1 file of an array on a volume's own grid: the same bytes for the same input, and no text in its header.

    Both forms are filled in; the sform is exact where voxels are sheared, which the qform cannot say. Booleans become 0 and 1 of 8 bits.
    `placed=False`: the affine tells sizes only, and the file says that it has no place in the patient.
    """
    from nibabel.nifti1 import Nifti1Image

    stored = array_DHW.view(np.uint8) if array_DHW.dtype == np.bool_ else array_DHW
    ras = TURN @ np.array(affine)[:, [2, 1, 0, 3]]
    image = Nifti1Image(stored.transpose(2, 1, 0), ras)
    image.header.set_xyzt_units("mm")
    image.set_sform(ras, "scanner" if placed else "unknown")
    image.set_qform(ras, "scanner" if placed else "unknown")
    with (
        atomic_path(path) as part,
        open(part, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed,
    ):
        image.to_stream(packed)


def read_layout(stream: IO[bytes], where: str = "", limits: Limits = DEFAULT) -> Layout:
    """The header at the front of an unpacked stream, checked: nothing after it has been read. InputError as read_nifti."""
    import nibabel.nifti1
    import nibabel.nifti2

    head = _exactly(stream, 4, where)
    size, endian = next(
        ((size, sign) for sign in "<>" for size in SIZES if int.from_bytes(head, "little" if sign == "<" else "big") == size),
        (0, "<"),
    )
    if not size:
        raise InputError("the file is no NIfTI file", where, "Export it again, as .nii or .nii.gz.", "unsupported_format")
    head += _exactly(stream, size - 4, where)
    if _magic(head) in PAIRS or not _magic(head):
        what = "the header is apart from its image (.hdr and .img)" if _magic(head) else "the file is of Analyze, the format before NIfTI"
        raise InputError(what, where, "Save it as one file, .nii or .nii.gz.", "unsupported_format")
    kind = nibabel.nifti1.Nifti1Header if size == 348 else nibabel.nifti2.Nifti2Header
    header = kind(head, endian, check=False)
    shape, volumes = _shape(header, where)
    check_voxels(shape, where, limits)
    affine, oriented = _affine(header, where)
    slope, inter = _scale(header)
    return Layout(shape, volumes, _dtype(header, where), _offset(header, size, where, limits), slope, inter, affine, oriented)


def _magic(head: bytes) -> bytes:
    """The magic bytes of a single file or a pair, empty where there are none."""
    if head[344:348] in (b"n+1\0", b"ni1\0"):
        return head[344:348]
    return head[4:8] if head[4:8] in (b"n+2\0", b"ni2\0") else b""


def _read(file: IO[bytes], size: int, where: str, limits: Limits) -> Volume:
    with _unpacked(file, where) as (stream, packed):
        layout = read_layout(stream, where, limits)
        needed = layout.offset + math.prod(layout.shape) * layout.dtype.itemsize
        if needed > (size * RATIO + _STEP if packed else size):  # told before any memory is taken
            raise cut_short(where)
        _skip(stream, layout.offset, where)
        values = _values(stream, layout, where)
        if packed and layout.volumes == 1:
            stream.read(_STEP)  # reaches the end of an honest file, where its checksum stands
    warnings = ["multi_frame"] * (layout.volumes > 1) + ["orientation_assumed"] * (not layout.oriented)
    return Volume(values, layout.affine, "nifti", warnings=tuple(warnings))


@contextmanager
def _unpacked(file: IO[bytes], where: str) -> Iterator[tuple[IO[bytes], bool]]:
    """The file's content, and whether it was packed. What gzip raises on a broken file ends as InputError."""
    packed = file.read(2) == GZIP
    file.seek(0)
    try:
        if packed:
            with gzip.GzipFile(fileobj=file) as stream:
                yield cast(IO[bytes], stream), True
        else:
            yield file, False
    except EOFError as e:
        raise cut_short(where) from e
    except (gzip.BadGzipFile, zlib.error) as e:
        raise InputError("the gzip stream is damaged", where, "Copy or download it again.", "corrupt") from e


def _values(stream: IO[bytes], layout: Layout, where: str) -> NDArray[Any]:
    """(D, H, W), read in pieces, so that a file of 64-bit numbers never stands in memory whole."""
    scaled = (layout.slope, layout.inter) != (1.0, 0.0)
    small = layout.dtype.kind in "iu" and layout.dtype.itemsize <= 2 and not scaled
    values = np.empty(layout.shape, layout.dtype.newbyteorder("=") if small else np.float32)
    flat, some = values.reshape(-1), small
    for first in range(0, flat.size, _STEP):
        block = flat[first : first + _STEP]
        raw = np.frombuffer(_exactly(stream, block.size * layout.dtype.itemsize, where), layout.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large becomes infinite
            block[:] = raw.astype(np.float64) * layout.slope + layout.inter if scaled else raw
        some = some or bool(np.isfinite(block).any())
    if not some:
        raise InputError("there is no finite number among the voxels", where, "Export it again.", "not_finite")
    return values


def _shape(header: Nifti1Header, where: str) -> tuple[tuple[int, int, int], int]:
    """(D, H, W) and the number of volumes. A missing dimension is 1."""
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]):
        raise InputError("the header states impossible dimensions", where, "Export it again.", "corrupt")
    sides = dims[1 : dims[0] + 1]
    while len(sides) > 2 and sides[-1] == 1:
        sides.pop()
    if not 2 <= len(sides) <= 4:
        raise InputError(f"the file has {len(sides)} dimensions", where, "Save a volume, or a series of volumes.", "bad_shape")
    i, j, k, volumes = [*sides, 1, 1][:4]
    return (k, j, i), volumes


def _dtype(header: Nifti1Header, where: str) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
    except Exception as e:  # nibabel raises several kinds
        raise InputError("the header states an unknown type of numbers", where, "Export it again.", "corrupt") from e
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError("colour and complex numbers cannot be read", where, "Save one number a voxel.", "unsupported_mode")
    return dtype


def _offset(header: Nifti1Header, size: int, where: str, limits: Limits) -> int:
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or not 0 <= offset <= limits.volume_bytes:
        raise InputError("the header states an impossible place for its voxels", where, "Export it again.", "corrupt")
    return max(int(offset), size + 4) if offset >= size else size + 4  # 0 means: right after the header


def _scale(header: Nifti1Header) -> tuple[float, float]:
    """A slope of 0, or one that is no number, means: as stored."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(inter):
        return 1.0, 0.0
    return slope, inter


def _affine(header: Nifti1Header, where: str) -> tuple[Affine, bool]:
    """The affine of (slice, row, column) to LPS in mm, from the sform, else the qform, else the voxel sizes; whether a form was there."""
    bad = InputError("the file's affine is no grid in space", where, "Write its orientation again.", "bad_affine")
    try:
        ras = np.array(header.get_best_affine(), np.float64)
    except Exception as e:  # nibabel raises several kinds
        raise bad from e
    ras[:3] *= TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)  # the bits themselves: nibabel fails on a time unit that it does not know
    sizes = np.linalg.norm(ras[:3, :3], axis=0)
    if not np.isfinite(ras).all() or not (sizes > 0).all() or abs(np.linalg.det(ras[:3, :3] / sizes)) < 1e-3:
        raise bad
    lps = (TURN @ ras)[:, [2, 1, 0, 3]]
    oriented = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    return tuple(tuple(float(v) for v in row) for row in lps), oriented


def _skip(stream: IO[bytes], offset: int, where: str) -> None:
    """Reads on to `offset`: header extensions, which may hold names, are not looked at."""
    while (left := offset - stream.tell()) > 0:
        _exactly(stream, min(left, _STEP), where)


def _exactly(stream: IO[bytes], length: int, where: str) -> bytes:
    body = stream.read(length)
    if len(body) < length:
        raise cut_short(where)
    return body
