"""DICOM SEG: the masks of all findings of a film or a series as segments of one object, on exactly the source's pixels.

A film without a place in the patient (most X-ray films) gives a SEG without geometry, which the standard allows: a reader matches it by the
source that it names, and by the rows and columns. Shapes: S segments, F frames, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.valuerep import DSfloat

from ..types import INTENDED_USE
from .dicom_codes import Concept
from .dicom_out import (
    COLOURS,
    MAKER,
    Plane,
    Segment,
    add_orientation,
    add_patient,
    building,
    cannot,
    equipment,
    identity,
    numbers,
    our_version,
    planes,
    save,
    series,
    short_text,
)


def write_seg(
    path: str | Path,
    sources: Sequence[Dataset],
    segments: Sequence[Segment],
    bundle_sha256: str,
    *,
    frames: Sequence[int] | None = None,
    probabilities: bool = False,
) -> None:
    """Writes one SEG: BINARY, or with `probabilities` FRACTIONAL in steps of 1/255.

    `sources` are the headers of the film, of the slices in the order of the masks' frames, or of one multi-frame object; there `frames` are
    the numbers, from 1, of the frames that the masks belong to (default: the first ones). A segment may be empty. InputError dicom_source
    where the headers do not allow a SEG, unwritable.
    """
    with building():
        out = _segmentation(list(sources), list(segments), bundle_sha256, frames, probabilities)
        add_patient(out, sources[0])
        save(path, out)


def _segmentation(
    sources: list[Dataset], segments: list[Segment], bundle_sha256: str, frames: Sequence[int] | None, probabilities: bool
) -> Segmentation:
    values_FHWS = np.stack(
        [segment.probability_FHW if probabilities else segment.mask_FHW.astype(np.uint8) for segment in segments], axis=-1
    )
    if values_FHWS.shape[1:3] != (sources[0].Rows, sources[0].Columns):
        raise ValueError(f"masks of {values_FHWS.shape[1:3]} for a source of {(sources[0].Rows, sources[0].Columns)}")
    if sources[0].Rows * sources[0].Columns < 8 and not probabilities:
        raise cannot("the file has fewer than 8 pixels")  # highdicom 0.28 packs several such frames wrongly
    placed = [planes(source) for source in sources]
    number = [1] if len(sources) > 1 else list(frames or range(1, len(values_FHWS) + 1))
    if None not in placed:
        bare = _placed(sources, placed)  # type: ignore[arg-type]
        if len(sources) == 1 and len(placed[0] or ()) > 1:
            whole = np.zeros((len(placed[0] or ()), *values_FHWS.shape[1:]), values_FHWS.dtype)
            whole[np.array(number) - 1] = values_FHWS
            values_FHWS = whole
    elif len(values_FHWS) == len(sources) == 1:
        bare = [_flat(sources[0])]
    else:
        raise cannot("the file does not say where its frames lie in the patient, so that a SEG of several cannot be written")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"):
        if len({source[keyword].value for source in bare}) > 1:
            raise cannot(f"the slices differ in their {keyword}")
    out = Segmentation(
        source_images=bare,
        pixel_array=values_FHWS,
        segmentation_type="FRACTIONAL" if probabilities else "BINARY",
        segment_descriptions=[_description(place, segment, bundle_sha256) for place, segment in enumerate(segments, 1)],
        max_fractional_value=255,
        content_label="RESEARCH_USE",
        content_description="RESEARCH USE ONLY",
        # A segment without any frame is legal, and some readers stumble over it.
        omit_empty_frames=bool(values_FHWS.any(axis=(0, 1, 2)).all()),
        **equipment(bundle_sha256),
        **series("SEG", "segmentation"),
    )
    if None in placed:
        _tidy(out, sources[0], number[0])
    return out


def _description(number: int, segment: Segment, bundle_sha256: str) -> SegmentDescription:
    meaning = segment.meaning
    description = SegmentDescription(
        segment_number=number,
        segment_label=meaning.label,
        segmented_property_category=_code(meaning.category),
        segmented_property_type=_code(meaning.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MAKER,
            family=codes.DCM.ArtificialIntelligence,
            version=our_version(),
            source=MAKER,
            parameters={"bundle_sha256": bundle_sha256},
        ),
        tracking_uid=hd.UID(),
        tracking_id=f"{MAKER} {number}",
        display_color=hd.color.CIELabColor.from_rgb(*COLOURS[(number - 1) % len(COLOURS)]),
    )
    description.SegmentDescription = short_text(INTENDED_USE, segment.text)
    return description


def _code(concept: Concept) -> Code:
    return Code(concept.value, "SCT", concept.meaning)


def _flat(source: Dataset) -> Dataset:
    """A source without a place in the patient, as one frame."""
    bare, shared, measures = identity(source), Dataset(), Dataset()
    measures.PixelSpacing = [1, 1]  # highdicom wants some; `_tidy` takes them away
    shared.PixelMeasuresSequence = [measures]
    bare.SharedFunctionalGroupsSequence, bare.NumberOfFrames = [shared], 1  # highdicom looks there if the class allows several frames
    return bare


def _placed(sources: list[Dataset], placed: list[list[Plane]]) -> list[Dataset]:
    """Sources with a place: slices as such, or one multi-frame object with its functional groups."""
    first = placed[0][0]
    for plane in (plane for found in placed for plane in found):
        if not np.allclose(plane.orientation, first.orientation, atol=1e-4) or not np.allclose(
            plane.spacing_mm, first.spacing_mm, rtol=1e-4
        ):
            raise cannot("the slices differ in their orientation or spacing")
    thickness = first.thickness_mm or _distance_mm([plane for one in placed for plane in one]) or min(first.spacing_mm)
    bare = [identity(source) for source in sources]
    for out, source, found in zip(bare, sources, placed, strict=True):
        out.FrameOfReferenceUID = source.FrameOfReferenceUID
        measures, shared = Dataset(), Dataset()
        for target in (out, measures):
            target.PixelSpacing = _ds(first.spacing_mm)
            target.SliceThickness = DSfloat(thickness, auto_format=True)
        orientation = Dataset()
        orientation.ImageOrientationPatient = out.ImageOrientationPatient = _ds(first.orientation)
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
        out.SharedFunctionalGroupsSequence = [shared]
        if len(found) > 1 or "PerFrameFunctionalGroupsSequence" in source:
            out.NumberOfFrames = len(found)
            out.PerFrameFunctionalGroupsSequence = [_frame(plane) for plane in found]
            del out.ImageOrientationPatient
        else:
            out.ImagePositionPatient = _ds(found[0].position)
    return bare


def _distance_mm(planes_: list[Plane]) -> float:
    """The usual distance of neighbouring planes, 0 for a single one: the thickness of slices that state none."""
    rows, columns = np.array(planes_[0].orientation).reshape(2, 3)
    heights = np.sort([np.cross(rows, columns) @ plane.position for plane in planes_])
    return float(np.median(np.diff(heights))) if len(planes_) > 1 else 0.0


def _frame(plane: Plane) -> Dataset:
    frame, position = Dataset(), Dataset()
    position.ImagePositionPatient = _ds(plane.position)
    frame.PlanePositionSequence = [position]
    return frame


def _tidy(out: Segmentation, source: Dataset, frame: int) -> None:
    """What highdicom leaves to the caller where there is no geometry."""
    add_orientation(out, source)
    out.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence", None)
    # Not in the group for pixel measures: highdicom's reader refuses one without SliceThickness, and a film has none.
    if spacing := numbers(source.get("PixelSpacing"), 2):
        out.PixelSpacing = _ds(spacing)
    if "FrameOfReferenceUID" in source:
        out.FrameOfReferenceUID, out.PositionReferenceIndicator = source.FrameOfReferenceUID, None
    if int(source.get("NumberOfFrames") or 1) > 1:
        for group in out.PerFrameFunctionalGroupsSequence:
            group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = frame


def _ds(numbers: Sequence[Any]) -> list[DSfloat]:
    return [DSfloat(float(number), auto_format=True) for number in numbers]
