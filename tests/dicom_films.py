"""DICOM films made for tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT, CR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


def dataset(pixels: np.ndarray, **tags: Any) -> Dataset:
    """A film of these stored values, (H, W) or (H, W, 3) or (N, H, W), MONOCHROME2 of as many bits as their type; `tags` by keyword."""
    ds = Dataset()
    ds.SOPClassUID = CT if tags.get("Modality") == "CT" else CR
    ds.SOPInstanceUID, ds.SeriesInstanceUID, ds.StudyInstanceUID = generate_uid(), generate_uid(), generate_uid()
    ds.Modality = "CR"
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    ds.Rows, ds.Columns = pixels.shape[:2] if colour or pixels.ndim == 2 else pixels.shape[1:]
    if pixels.ndim == 3 and not colour:
        ds.NumberOfFrames = len(pixels)
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for name, value in tags.items():
        setattr(ds, name, value)
    if "BitsStored" in tags:
        ds.HighBit = ds.BitsStored - 1
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def encoded(ds: Dataset, preamble: bytes = b"\0" * 128) -> bytes:
    """The bytes of its file."""
    buffer = io.BytesIO()
    ds.preamble = preamble
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def film(pixels: np.ndarray, **tags: Any) -> bytes:
    """A film as the bytes of its file."""
    return encoded(dataset(pixels, **tags))


AXIAL, CORONAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1)


def frames_of_one_file(
    pixels: np.ndarray, places: list, ways: list | None = None, told: dict[str, list] | None = None, **tags: Any
) -> bytes:
    """An enhanced CT of these frames: where each lies (None for nowhere), their directions, and by keyword a value for each in `told`."""
    shared, measures, value = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, value.RescaleSlope, value.RescaleIntercept = [0.5, 0.7], 1, -1024
    shared.PixelMeasuresSequence, shared.PixelValueTransformationSequence = [measures], [value]
    frames = []
    for number, place in enumerate(places):
        frame, content, way, where = (Dataset() for _ in range(4))
        for keyword, values in (told or {}).items():
            setattr(content, keyword, values[number])
        way.ImageOrientationPatient = list((ways or [AXIAL] * len(places))[number])
        frame.FrameContentSequence, frame.PlaneOrientationSequence = [content], [way]
        if place is not None:
            where.ImagePositionPatient = list(place)
            frame.PlanePositionSequence = [where]
        frames.append(frame)
    groups = {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames}
    return film(pixels, **{"Modality": "CT", "SOPClassUID": ENHANCED_CT} | groups | tags)


def write_stack(folder: Path, slices: np.ndarray, *, step=(0.0, 0.0, 2.0), cosines=(1, 0, 0, 0, 1, 0), **tags: Any) -> list[Path]:
    """CT slices, one file each, named by their number; `step` leads from one to the next."""
    folder.mkdir(parents=True, exist_ok=True)
    uid, paths = generate_uid(), []
    for number, pixels in enumerate(slices):
        place = [float(number * value) for value in step]
        own = {"Modality": "CT", "SeriesInstanceUID": uid, "ImagePositionPatient": place, "ImageOrientationPatient": list(cosines)}
        own |= {"PixelSpacing": [0.5, 0.7], "InstanceNumber": number + 1, "RescaleSlope": 1, "RescaleIntercept": -1024} | tags
        paths.append(folder / f"{number:03d}.dcm")
        paths[-1].write_bytes(film(pixels, **own))
    return paths
