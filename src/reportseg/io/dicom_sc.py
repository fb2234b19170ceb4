"""DICOM secondary capture: a picture of the film with the findings drawn into it, for viewers that draw neither SEG nor contours.

The pixels are no longer those of the film: the object says so (DERIVED, burnt in), names the film it was made from, and bears the intended
use in its picture as well as in its comments.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from highdicom.sc import SCImage
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ..types import INTENDED_USE
from .dicom_out import COLOURS, SERIES, Segment, add_orientation, add_patient, building, equipment, identity, save, series, text_of
from .png import draw_area


def write_sc(path: str | Path, source: Dataset, image_HWC: NDArray[Any], segments: Sequence[Segment], bundle_sha256: str) -> None:
    """Writes one RGB picture: the film as it was read, `image_HWC` in [0, 1], each finding in its colour.

    InputError dicom_source where the headers do not allow it, unwritable.
    """
    with building():
        save(path, _capture(source, image_HWC, segments, bundle_sha256))


def _capture(source: Dataset, image_HWC: NDArray[Any], segments: Sequence[Segment], bundle_sha256: str) -> Dataset:
    film = identity(source)
    out = SCImage(
        pixel_array=burnt(image_HWC, segments),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # highdicom wants one; that of the film takes its place below
        study_instance_uid=film.StudyInstanceUID,
        **equipment(bundle_sha256),
        **series("OT", "overlay"),
    )
    out.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    out.ConversionType = "WSD"
    out.BurnedInAnnotation = "YES"
    out.ImageComments = INTENDED_USE
    out.DerivationDescription = f"{SERIES}: findings drawn over a copy of the film"
    reference, purpose = Dataset(), hd.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = film.SOPClassUID, film.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = [purpose]
    if int(source.get("NumberOfFrames") or 1) > 1:
        reference.ReferencedFrameNumber = 1
    out.SourceImageSequence = [reference]
    laterality = text_of(source, "Laterality")
    out.Laterality = laterality if laterality in ("L", "R") else None  # type: ignore[assignment]
    add_orientation(out, source)
    add_patient(out, source)
    return out


def burnt(image_HWC: NDArray[Any], segments: Sequence[Segment]) -> NDArray[np.uint8]:
    """The film with every finding drawn in and the intended use along its lower edge: uint8 (H, W, 3)."""
    gray = np.asarray(image_HWC, np.float32)
    rgb = np.rint(np.clip(np.broadcast_to(gray, (*gray.shape[:2], 3)), 0, 1) * 255).astype(np.uint8)
    for number, segment in enumerate(segments):
        rgb = draw_area(rgb, segment.mask_FHW[0], COLOURS[number % len(COLOURS)])
    picture = PIL.Image.fromarray(rgb)
    width, height = picture.size
    size = max(8, width // 40)
    pen, font = PIL.ImageDraw.Draw(picture), PIL.ImageFont.load_default(size)
    pen.text(
        (size // 2, height - 2 * size), SERIES, fill=(255, 255, 255), font=font, stroke_width=max(1, size // 12), stroke_fill=(0, 0, 0)
    )
    return np.asarray(picture)
