"""DICOM presentation states: contours and labels that a PACS viewer draws on the film, which itself stays as it is.

The film keeps its own look: rescale, windows and tables are copied, and MONOCHROME1 stays turned round, since a presentation state decides
over the polarity of its image. Graphics are in pixels of the film, from the corner of the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
from highdicom.pr import GraphicAnnotation, GraphicLayer, GraphicObject, GrayscaleSoftcopyPresentationState, TextObject
from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from ..types import INTENDED_USE
from .contours import contours
from .dicom_header import flat
from .dicom_out import COLOURS, Segment, add_patient, building, cannot, equipment, identity, numbers, save, series, short_text, text_of
from .stacks import sort_frames

POINTS = 8191  # of one graphic object: its 32-bit numbers must fit the 64 KiB of an element
NOTICE = "NOTICE"
NOTICE_BOX = (0.02, 0.93, 0.98, 0.99)  # left, top, right, bottom of the display


def write_gsps(path: str | Path, source: Dataset, segments: Sequence[Segment], bundle_sha256: str) -> None:
    """Writes one presentation state for a gray film (of several frames: the first), a layer for each finding and one for the intended use.

    InputError dicom_source where the film is in colour, the file is a volume or its headers do not allow it, unwritable.
    """
    with building():
        save(path, _state(source, segments, bundle_sha256))


def _state(source: Dataset, segments: Sequence[Segment], bundle_sha256: str) -> Dataset:
    if source.get("SamplesPerPixel") != 1 or text_of(source, "PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2"):
        raise cannot("a presentation state is for gray films, and this one is in colour", fix="Choose --format dicom-sc.")
    several = int(source.get("NumberOfFrames") or 1) > 1
    if several and sort_frames(Path(), source)[0].stacked:
        raise cannot("a presentation state is for single films, and this file holds a volume", fix="Choose --format dicom-seg.")
    look = flat(source)  # of an enhanced file the groups of its first frame say what it looks like
    film = _film(look)
    frame = 1 if several else None
    layers, annotations, absent = [], [], []
    for place, segment in enumerate(segments, 1):
        lines = contours(segment.mask_FHW[0])
        label = short_text(segment.meaning.label if len(segments) == 1 else f"{place} {segment.meaning.label}", segment.text)
        if not lines:
            absent.append(f"{label}: no area.")
            continue
        top = min((tuple(point) for line in lines for point in line), key=lambda point: (point[1], point[0]))
        layer = GraphicLayer(
            layer_name=f"FINDING{place}",
            order=place,
            display_color=hd.color.CIELabColor.from_rgb(*COLOURS[(place - 1) % len(COLOURS)]),
        )
        layers.append(layer)
        annotations.append(
            GraphicAnnotation(
                referenced_images=[film],
                referenced_frame_number=frame,
                graphic_layer=layer,
                graphic_objects=[
                    GraphicObject(graphic_type="POLYLINE", graphic_data=part, units="PIXEL")
                    for line in lines
                    for part in (line[start : start + POINTS] for start in range(0, len(line) - 1, POINTS - 1))
                ],
                text_objects=[TextObject(text_value=label, units="PIXEL", anchor_point=top)],
            )
        )
    notice = GraphicLayer(layer_name=NOTICE, order=len(segments) + 1)
    text = TextObject(
        text_value=short_text(INTENDED_USE, " ".join(absent)), units="DISPLAY", bounding_box=NOTICE_BOX, text_justification="LEFT"
    )
    annotations.append(
        GraphicAnnotation(referenced_images=[film], referenced_frame_number=frame, graphic_layer=notice, text_objects=[text])
    )
    out = GrayscaleSoftcopyPresentationState(
        referenced_images=[film],
        content_label="RESEARCH_USE",
        content_description="RESEARCH USE ONLY",
        graphic_annotations=annotations,
        graphic_layers=[*layers, notice],
        presentation_lut_transformation=hd.PresentationLUTTransformation(
            presentation_lut_shape="INVERSE" if source.PhotometricInterpretation == "MONOCHROME1" else "IDENTITY"
        ),
        **equipment(bundle_sha256),
        **series("PR", "contours"),
    )
    laterality = text_of(source, "Laterality")
    out.Laterality = laterality if laterality in ("L", "R") else None
    _set_area(out, look)
    add_patient(out, source)
    return out


def _film(source: Dataset) -> Dataset:
    """The film as highdicom reads it: one frame, with the numbers that make its look and no explanations, which are free text."""
    film, shared = identity(source), Dataset()
    film.SamplesPerPixel = 1
    slope, intercept = numbers(source.get("RescaleSlope"), 1), numbers(source.get("RescaleIntercept"), 1)
    if slope or intercept:
        film.RescaleSlope, film.RescaleIntercept = _ds(slope or (1,))[0], _ds(intercept or (0,))[0]
        film.RescaleType = "HU" if text_of(source, "RescaleType") == "HU" else "US"
    for keyword in ("ModalityLUTSequence", "VOILUTSequence"):
        for table in list(source.get(keyword) or [])[:1]:
            copy = Dataset()
            copy.add(table["LUTDescriptor"])
            copy.add(table["LUTData"])
            if keyword == "ModalityLUTSequence":
                copy.ModalityLUTType = "US"
            setattr(film, keyword, [copy])
    centre, width = (_list(source, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    if centre and len(centre) == len(width) and min(width) > 0:
        film.WindowCenter, film.WindowWidth = _ds(centre), _ds(width)
        function = text_of(source, "VOILUTFunction")
        if function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            film.VOILUTFunction = function
        shared.FrameVOILUTSequence = [_subset(film, "WindowCenter", "WindowWidth", "VOILUTFunction")]
    if "RescaleSlope" in film:
        shared.PixelValueTransformationSequence = [_subset(film, "RescaleSlope", "RescaleIntercept", "RescaleType")]
    # Where the class allows several frames, highdicom looks into functional groups.
    film.NumberOfFrames = int(source.get("NumberOfFrames") or 1)
    film.SharedFunctionalGroupsSequence, film.PerFrameFunctionalGroupsSequence = [shared], []
    return film


def _subset(dataset: Dataset, *keywords: str) -> Dataset:
    out = Dataset()
    for keyword in keywords:
        if keyword in dataset:
            out.add(dataset[keyword])
    return out


def _set_area(out: Dataset, source: Dataset) -> None:
    """The whole film, in the shape of its pixels. What highdicom says of the origin is for tiled slides."""
    area = out.DisplayedAreaSelectionSequence[0]
    del area.PixelOriginInterpretation
    spacing = numbers(source.get("PixelSpacing") or source.get("ImagerPixelSpacing"), 2)
    if spacing and min(spacing) > 0:
        del area.PresentationPixelAspectRatio
        area.PresentationPixelSpacing = _ds(spacing)


def _list(source: Dataset, keyword: str) -> list[float]:
    """Finite numbers, or none at all."""
    parts = [part for part in text_of(source, keyword).split("\\") if part]
    found = [numbers(part, 1) for part in parts]
    return [] if None in found else [float(number[0]) for number in found if number]


def _ds(values: Sequence[float]) -> list[DSfloat]:
    return [DSfloat(float(value), auto_format=True) for value in values]
