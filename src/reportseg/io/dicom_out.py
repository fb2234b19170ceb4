"""What our DICOM objects share: the source stripped to what an object of ours may know of it, who made it, and the file itself.

highdicom copies every patient and study attribute that it finds, and its checks print names that they doubt. So it is given sources
without any, and the patient is put in afterwards: what the standard demands, in UTF-8. Shapes: F frames, H rows, W columns.
"""

from __future__ import annotations

import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ..errors import InputError
from ..limits import atomic_path
from .dicom_codes import Meaning

MAKER = "reportseg"
SERIES = "RESEARCH USE ONLY"
SERIES_NUMBERS = {"SEG": 9001, "PR": 9002, "OT": 9003}  # behind what modalities count
#: One colour a finding, those of Okabe and Ito, the prediction's orange first.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0), (204, 121, 167), (0, 114, 178))
LONGEST_TEXT = 1024  # characters of DICOM's short text

_KEPT_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PATIENT = {"PatientName": "PN", "PatientID": "LO", "PatientBirthDate": "DA", "PatientSex": "CS"}
_STUDY = {"StudyDate": "DA", "StudyTime": "TM", "StudyID": "SH", "AccessionNumber": "SH"}
_VALID = {"DA": r"\d{8}", "TM": r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", "CS": r"[MFO]"}  # what does not fit is left empty


class Packed:
    """Frames (F, H, W) that wait to be written, each packed: the masks of a volume take a hundredth of their size."""

    def __init__(self, array_FHW: NDArray[Any]) -> None:
        self.shape, self.dtype = array_FHW.shape, array_FHW.dtype
        self._frames = [zlib.compress(frame.tobytes(), 1) for frame in array_FHW]

    def __len__(self) -> int:
        return len(self._frames)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[row] for row in range(len(self)))

    def __getitem__(self, row: int) -> NDArray[Any]:
        frame: NDArray[Any] = np.frombuffer(zlib.decompress(self._frames[row]), self.dtype).reshape(self.shape[1:])
        return frame


Frames = NDArray[Any] | Packed


@dataclass(frozen=True)
class Segment:
    """One finding on the grid of its source: `mask_FHW` bool, `probability_FHW` in [0, 1] or uint8 in steps of 1/255, and what it shows.

    `text` is the sentence that asked for it; empty, where the object is not to hold it.
    """

    meaning: Meaning
    mask_FHW: Frames
    probability_FHW: Frames
    text: str = ""


@dataclass(frozen=True)
class Plane:
    """Where a frame lies in the patient: position of the first pixel in mm, direction of rows and columns, (row, column) spacing in mm."""

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    thickness_mm: float | None


def identity(source: Dataset) -> Dataset:
    """A new dataset that names the source by its UIDs, class and grid, and nothing of the patient.

    InputError dicom_source where the source lacks what a reference to it needs.
    """
    out = Dataset()
    for keyword in _KEPT_UIDS:
        value = str(source.get(keyword) or "")
        if not UID(value).is_valid:
            raise cannot(f"the file has no valid {keyword}")
        setattr(out, keyword, UID(value))
    out.Modality = text_of(source, "Modality")[:16] or "OT"
    out.Rows, out.Columns = int(source.Rows), int(source.Columns)
    for keyword in (*_PATIENT, *_STUDY, "ReferringPhysicianName"):
        setattr(out, keyword, None)
    out.PatientBirthDate = out.PatientSex = ""
    return out


def planes(source: Dataset, numbers_: Sequence[int] | None = None) -> list[Plane] | None:
    """One plane a frame, from the root or from the functional groups, of the frames of these numbers (from 1) or of all; None where the
    file does not place their pixels in the patient.
    """
    if not UID(str(source.get("FrameOfReferenceUID") or "")).is_valid:
        return None
    shared = _first(source, "SharedFunctionalGroupsSequence")
    frames = list(source.get("PerFrameFunctionalGroupsSequence") or [Dataset()])
    if numbers_ is not None and len(frames) > 1:
        frames = [frames[number - 1] for number in numbers_]

    def plane(frame: Dataset) -> Plane | None:
        def value(group: str, keyword: str) -> Any:
            for item in (_first(frame, group), _first(shared, group), source):
                if item.get(keyword) not in (None, ""):
                    return item[keyword].value
            return None

        found = [
            numbers(value("PlanePositionSequence", "ImagePositionPatient"), 3),
            numbers(value("PlaneOrientationSequence", "ImageOrientationPatient"), 6),
            numbers(value("PixelMeasuresSequence", "PixelSpacing"), 2),
        ]
        if None in found or not _orthonormal(found[1]) or min(found[2] or ()) <= 0:
            return None
        thickness = numbers(value("PixelMeasuresSequence", "SliceThickness"), 1)
        return Plane(*found, thickness[0] if thickness and thickness[0] > 0 else None)  # type: ignore[arg-type, call-arg]

    all_planes = [plane(frame) for frame in frames]
    return None if None in all_planes else all_planes  # type: ignore[return-value]


def equipment(bundle_sha256: str) -> dict[str, Any]:
    """Who made it, as highdicom's constructors take it. The serial number of the device is the start of the bundle's hash."""
    return {
        "manufacturer": MAKER,
        "manufacturer_model_name": MAKER,
        "software_versions": our_version(),
        "device_serial_number": bundle_sha256[:16],
    }


def our_version() -> str:
    """The version of the installed package; of a source tree that is not installed there is none."""
    try:
        return version(MAKER)
    except PackageNotFoundError:
        return "unknown"


def series(modality: str, what: str) -> dict[str, Any]:
    """A series of its own, whose description begins with the intended use."""
    return {
        "series_instance_uid": highdicom.UID(),
        "series_number": SERIES_NUMBERS[modality],
        "sop_instance_uid": highdicom.UID(),
        "instance_number": 1,
        "series_description": f"{SERIES}: {what}",
        "specific_character_set": "ISO_IR 192",
    }


def add_patient(out: Dataset, source: Dataset) -> None:
    """What the patient and the study module must hold, whatever charset the source has. The physicians' names stay out."""
    for keyword, vr in {**_PATIENT, **_STUDY}.items():
        value = text_of(source, keyword)
        if vr in _VALID and not re.fullmatch(_VALID[vr], value):
            value = ""
        out.add_new(keyword, vr, value.split("\\") if "\\" in value else value)
    out.ReferringPhysicianName = ""


def add_orientation(out: Dataset, source: Dataset) -> None:
    """PatientOrientation, copied where the source states a legal one, else empty."""
    value = [part.strip() for part in text_of(source, "PatientOrientation").split("\\")]
    legal = len(value) == 2 and all(re.fullmatch(r"(?!.*(.).*\1)[LRAPHF]{1,3}", part) for part in value)
    out.PatientOrientation = value if legal else None


def text_of(source: Dataset, keyword: str) -> str:
    """A value as text, several separated by backslashes; empty where there is none. Control characters and broken Unicode go."""
    value = source.get(keyword)
    parts = [value] if value is None or isinstance(value, str) or not isinstance(value, Sequence) else value
    text = "\\".join("" if part is None else str(part) for part in parts)
    return re.sub(r"[\x00-\x1f\x7f]", "", text).encode("utf-8", "replace").decode("utf-8").strip()


def numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, or None."""
    try:
        numbers = tuple(float(part) for part in ([value] if isinstance(value, str) or not hasattr(value, "__len__") else value))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(np.isfinite(numbers)) else None


def short_text(first: str, text: str) -> str:
    """Both, in DICOM's short text: a text that does not fit ends in [...], and is whole in the answer's JSON."""
    whole = " ".join(re.sub(r"[\x00-\x1f\x7f\\]", " ", f"{first} {text}").split())
    return whole if len(whole) <= LONGEST_TEXT else f"{whole[: LONGEST_TEXT - 6]} [...]"


def save(path: str | Path, out: Dataset) -> None:
    """The whole file or nothing. InputError unwritable."""
    with atomic_path(path) as part:
        out.save_as(part, enforce_file_format=True)


@contextmanager
def building() -> Iterator[None]:
    """Around the work on a source's headers: no warning, as those quote values, and whatever goes wrong is one InputError dicom_source."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (InputError, MemoryError, OSError):
            raise
        except Exception as error:  # pydicom raises what its parts raise: NotImplementedError for a kind of value that it does not know
            raise cannot("the headers of the file do not allow this DICOM object") from error


cannot = partial(InputError, fix="Choose --format png.", code="dicom_source")


def _first(dataset: Dataset, keyword: str) -> Dataset:
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else Dataset()


def _orthonormal(orientation: tuple[float, ...] | None) -> bool:
    rows, columns = np.array(orientation or [0] * 6).reshape(2, 3)
    return bool(np.allclose([rows @ rows, columns @ columns, rows @ columns], [1, 1, 0], atol=1e-3))
