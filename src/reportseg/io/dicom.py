"""DICOM films: CR, DX, MG, CT, MR, US, SC and whatever else holds a picture, as it is stored, with its place in the patient.

`dicom_header` reads what stands before the pixels, `dicom_pixels` decodes a frame, `dicom_values` gives it meaning and gray, `dicom_place`
tells where it lies; `series` sorts the files of a study.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from pydicom.uid import RTDoseStorage, SegmentationStorage

from ..errors import InputError
from ..limits import DEFAULT, Limits
from ..types import Geometry, Image
from .dicom_header import case_id, flat, frame_count, guarded, hashed_id, hidden, modality_of, read_header
from .dicom_pixels import GRAY, decode
from .dicom_place import affine, orientation, spacing
from .dicom_values import coloured, shown
from .stacks import sort_frames

NO_FILM = {SegmentationStorage: "a segmentation", RTDoseStorage: "a dose grid"}


def read_dicom(file: IO[bytes], where: str = "", limits: Limits = DEFAULT) -> Image:
    """The first frame as float32 in [0, 1], rows and columns as stored; its geometry says how to turn it for looking.

    Warnings: multi_frame, orientation_assumed, view_without_sides, spacing_unknown, spacing_at_detector, no_window, preamble. InputError:
    those of read_header and decode, no_film for an object whose pixels are no picture of a patient, and volume for one whose frames are
    slices, since its first frame is one end of it.
    """
    with guarded(where):
        return _read(file, where, limits)


def _read(file: IO[bytes], where: str, limits: Limits) -> Image:
    head = file.read(4096)
    header, body = read_header(file, where, limits)
    kind = NO_FILM.get(str(header.get("SOPClassUID") or ""))  # type: ignore[call-overload]
    if kind:
        raise InputError(f"this is {kind}, not a film", where, "Give the file of the film itself.", "no_film")
    count = frame_count(header, where)
    if count > 1 and sort_frames(Path(where), header)[0].stacked:
        what = f"the file is a volume of {count} frames, not a film"
        raise InputError(what, where, "Give it to `predict`; for training, save its slices as files of their own.", "volume")
    array = decode(header, body, where, limits)
    view = flat(header)
    if str(header.PhotometricInterpretation).strip() in GRAY:
        gray, warnings = shown(array, view, where)
        pixels = gray[:, :, None]
    else:
        pixels, warnings = coloured(array, view, where), ()
    way, (grid, said) = orientation(view), spacing(view)
    geometry = Geometry((array.shape[0], array.shape[1]), grid, way, affine(view))
    return Image(
        pixels_HWC=np.ascontiguousarray(pixels),
        geometry=geometry,
        format="dicom",
        laterality="patient",
        warnings=(
            *(["multi_frame"] if count > 1 else []),
            *(["orientation_assumed"] if way is None else [] if geometry.has_sides else ["view_without_sides"]),
            *said,
            *warnings,
            *(["preamble"] if hidden(head) else []),
        ),
        id=case_id(header) or hashed_id(head),
        modality=modality_of(header),
        headers=(header,),
    )
