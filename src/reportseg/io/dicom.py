"""DICOM films: CR, DX, MG, CT, MR, US, SC and whatever else holds a picture, as it is stored, with its place in the patient.

`dicom_header` reads what stands before the pixels, `dicom_pixels` decodes a frame, `dicom_values` gives it meaning and gray, `dicom_place`
tells where it lies; `series` sorts the files of a study.
"""

from __future__ import annotations

from typing import IO

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import RTDoseStorage, SegmentationStorage

from ..errors import InputError
from ..limits import DEFAULT, Limits
from ..types import Geometry, Image
from .dicom_header import case_id, flat, guarded, hashed_id, hidden, read_header
from .dicom_pixels import GRAY, decode
from .dicom_place import affine, orientation, spacing
from .dicom_values import coloured, shown

MODALITIES = frozenset(
    "BDUS BI BMD CR CT DD DF DG DM DS DX EC ES FA FS GM HC IO IVOCT IVUS LP LS MG MR MS NM OAM OCT OP OPM OPT OPV OT PT PX RF RG RTIMAGE "
    "SC SM ST TG US VF XA XC".split()
)
NO_FILM = {SegmentationStorage: "a segmentation", RTDoseStorage: "a dose grid"}


def read_dicom(file: IO[bytes], where: str = "", limits: Limits = DEFAULT) -> Image:
    """The first frame as float32 in [0, 1], rows and columns as stored; its geometry says how to turn it for looking.

    Warnings: multi_frame, orientation_assumed, view_without_sides, spacing_unknown, spacing_at_detector, no_window, preamble. InputError:
    those of read_header and decode, and no_film for an object whose pixels are no picture of a patient.
    """
    with guarded(where):
        return _read(file, where, limits)


def _read(file: IO[bytes], where: str, limits: Limits) -> Image:
    head = file.read(4096)
    header, body = read_header(file, where, limits)
    kind = NO_FILM.get(str(header.get("SOPClassUID") or ""))  # type: ignore[call-overload]
    if kind:
        raise InputError(f"this is {kind}, not a film", where, "Give the file of the film itself.", "no_film")
    array = decode(header, body, where, limits)
    view = flat(header)
    if str(header.PhotometricInterpretation).strip() in GRAY:
        gray, warnings = shown(array, view, where)
        pixels = gray[:, :, None]
    else:
        pixels, warnings = coloured(array, view, where), ()
    way, (grid, said) = orientation(view), spacing(view)
    geometry = Geometry((array.shape[0], array.shape[1]), grid, way, affine(view))
    several = int(header.get("NumberOfFrames") or 1) > 1
    return Image(
        pixels_HWC=np.ascontiguousarray(pixels),
        geometry=geometry,
        format="dicom",
        laterality="patient",
        warnings=(
            *(["multi_frame"] if several else []),
            *(["orientation_assumed"] if way is None else [] if geometry.has_sides else ["view_without_sides"]),
            *said,
            *warnings,
            *(["preamble"] if hidden(head) else []),
        ),
        id=case_id(header) or hashed_id(head),
        modality=modality_of(header),
        headers=(header,),
    )


def modality_of(header: Dataset) -> str:
    """A term of the standard for what makes pictures, "" for anything else: the value is shown, and a stranger's may be a name."""
    value = str(header.get("Modality") or "").strip().upper()
    return value if value in MODALITIES else ""
