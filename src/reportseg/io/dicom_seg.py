"""DICOM SEG: the masks of all findings of a film or a series as segments of one object, on exactly the source's pixels.

A film without a place in the patient (most X-ray films) gives a SEG without geometry, which the standard allows: a reader matches it by the
source that it names, and by the rows and columns. Shapes: S segments, F frames, H rows, W columns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import CTImageStorage
from pydicom.valuerep import DSfloat

from ..errors import InputError
from ..types import INTENDED_USE
from .dicom_codes import Concept
from .dicom_out import (
    COLOURS,
    MAKER,
    Frames,
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
    with building(), _scratch(path) as buffer:
        out = _segmentation(list(sources), list(segments), bundle_sha256, frames, probabilities, buffer)
        add_patient(out, sources[0])
        save(path, out)


@contextmanager
def _scratch(path: str | Path) -> Iterator[IO[bytes]]:
    """A file without a name beside `path`. InputError unwritable."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=Path(path).parent) as buffer:
            yield buffer
    except OSError as error:
        what = f"the file cannot be written ({error.strerror or error})"
        raise InputError(what, path, "Choose another folder, or make room.", "unwritable") from error


def _segmentation(
    sources: list[Dataset],
    segments: list[Segment],
    bundle_sha256: str,
    frames: Sequence[int] | None,
    probabilities: bool,
    buffer: IO[bytes],
) -> Segmentation:
    pixels = [segment.probability_FHW if probabilities else segment.mask_FHW for segment in segments]
    grid = (int(sources[0].Rows), int(sources[0].Columns))
    if any(one.shape != (len(pixels[0]), *grid) for one in pixels):
        raise ValueError(f"masks of {pixels[0].shape} for a source of {grid}")
    if grid[0] * grid[1] < 8 and not probabilities:
        raise cannot("the file has fewer than 8 pixels")  # highdicom 0.28 packs several such frames wrongly
    shown_FS = np.array([[_steps(frame).any() for frame in one] for one in pixels]).T
    number = list(frames or range(1, len(shown_FS) + 1)) if len(sources) == 1 else [1] * len(sources)
    # Of a multi-frame source highdicom is told of the frames with masks alone, and counts those: other phases may lie at their places.
    placed = [planes(source, number if len(sources) == 1 else None) for source in sources]
    if None not in placed:
        bare = _placed(sources, placed)  # type: ignore[arg-type]
    elif len(shown_FS) == len(sources) == 1:
        bare = [_flat(sources[0])]
    else:
        raise cannot("the file does not say where its frames lie in the patient, so that a SEG of several cannot be written")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"):
        if len({source[keyword].value for source in bare}) > 1:
            raise cannot(f"the slices differ in their {keyword}")
    enhanced = len(sources) > 1 and any("PerFrameFunctionalGroupsSequence" in source for source in sources)
    for source in bare if enhanced else ():
        source.SOPClassUID = CTImageStorage  # of a class that allows several frames highdicom takes one file alone; named right below
    out = Segmentation(
        source_images=bare,
        # One pixel a frame, which tells whether it shows anything: the frames and all that is said of them are highdicom's, and the pixels
        # are put in afterwards, one frame at a time. It would take several copies of all of them as 64-bit numbers.
        pixel_array=shown_FS[:, None, None, :].astype(np.uint8),
        segmentation_type="FRACTIONAL" if probabilities else "BINARY",
        segment_descriptions=[_description(place, segment, bundle_sha256) for place, segment in enumerate(segments, 1)],
        max_fractional_value=255,
        content_label="RESEARCH_USE",
        content_description="RESEARCH USE ONLY",
        # A segment without any frame is legal, and some readers stumble over it.
        omit_empty_frames=bool(shown_FS.any(axis=0).all()),
        **equipment(bundle_sha256),
        **series("SEG", "segmentation"),
    )
    if len(sources) > 1:
        rows = {(str(source.SOPInstanceUID), 1): row for row, source in enumerate(sources)}
    else:
        rows = {(str(sources[0].SOPInstanceUID), row + 1): row for row in range(len(number))}
    if len(rows) < len(number):
        raise cannot("several slices have one and the same SOPInstanceUID")
    for element in out.iterall() if enhanced else ():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = sources[0].SOPClassUID
    _fill(out, pixels, rows, grid, probabilities, buffer)
    if int(sources[0].get("NumberOfFrames") or 1) > 1:
        named = [group.DerivationImageSequence[0].SourceImageSequence[0] for group in out.PerFrameFunctionalGroupsSequence]
        for source in {id(one): one for one in named}.values():  # segments share them
            source.ReferencedFrameNumber = number[int(source.get("ReferencedFrameNumber", 1)) - 1]
    if None in placed:
        _tidy(out, sources[0])
    return out


def _fill(
    out: Segmentation,
    pixels: Sequence[Frames],
    rows: Mapping[tuple[str, int], int],
    grid: tuple[int, int],
    probabilities: bool,
    buffer: IO[bytes],
) -> None:
    """The pixels of each frame of the object: of those at `rows`, by the source's UID and its frame number; other frames are empty.

    They go into a file, since all findings of a volume as fractions take several times its memory. Bits are packed eight frames at a time,
    which always end at a byte.
    """
    waiting: list[NDArray[np.uint8]] = []
    groups, shared = list(out.PerFrameFunctionalGroupsSequence), out.SharedFunctionalGroupsSequence[0]
    for number, group in enumerate(groups, 1):
        source, segment = (
            (group.get(name) or shared[name].value)[0] for name in ("DerivationImageSequence", "SegmentIdentificationSequence")
        )
        source = source.SourceImageSequence[0]
        key = (str(source.ReferencedSOPInstanceUID), int(source.get("ReferencedFrameNumber", 1)))
        one = pixels[int(segment.ReferencedSegmentNumber) - 1]
        waiting.append(_steps(one[rows[key]]) if key in rows else np.zeros(grid, np.uint8))
        if len(waiting) == 8 or number == len(groups):
            stored = np.stack(waiting)
            buffer.write((stored if probabilities else np.packbits(stored, axis=None, bitorder="little")).tobytes())
            waiting.clear()
    buffer.write(bytes(buffer.tell() % 2))
    buffer.seek(0)
    out.Rows, out.Columns = grid
    out.PixelData = buffer  # type: ignore[assignment]
    if len(pixels) > 1:
        out.SegmentsOverlap = "UNDEFINED" if probabilities else "YES" if _overlap(pixels) else "NO"


def _steps(frame_HW: NDArray[Any]) -> NDArray[np.uint8]:
    """A frame as it is stored: masks as 0 and 1, probabilities in steps of 1/255."""
    if frame_HW.dtype == np.float32:
        frame_HW = np.rint(frame_HW * 255).astype(np.uint8)
    stored: NDArray[np.uint8] = frame_HW.view(np.uint8)
    return stored


def _overlap(masks: Sequence[Frames]) -> bool:
    """Whether two masks have a pixel in common."""
    for row in range(len(masks[0])):
        taken = np.zeros(masks[0].shape[1:], np.bool_)
        for one in masks:
            if (taken & one[row]).any():
                return True
            taken |= one[row]
    return False


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


def _one_pixel(source: Dataset) -> Dataset:
    out = identity(source)
    out.Rows = out.Columns = 1
    return out


def _flat(source: Dataset) -> Dataset:
    """A source without a place in the patient, as one frame."""
    bare, shared, measures = _one_pixel(source), Dataset(), Dataset()
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
    bare = [_one_pixel(source) for source in sources]
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
        if len(found) > 1 or ("PerFrameFunctionalGroupsSequence" in source and len(sources) == 1):
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


def _tidy(out: Segmentation, source: Dataset) -> None:
    """What highdicom leaves to the caller where there is no geometry."""
    add_orientation(out, source)
    out.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence", None)
    # Not in the group for pixel measures: highdicom's reader refuses one without SliceThickness, and a film has none.
    if spacing := numbers(source.get("PixelSpacing"), 2):
        out.PixelSpacing = _ds(spacing)
    if "FrameOfReferenceUID" in source:
        out.FrameOfReferenceUID, out.PositionReferenceIndicator = source.FrameOfReferenceUID, None


def _ds(numbers: Sequence[Any]) -> list[DSfloat]:
    return [DSfloat(float(number), auto_format=True) for number in numbers]
