"""DICOM sources drawn from phantoms: films, slices and multi-frame objects as modalities write them, full of names that must not travel."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)
from scipy.spatial import cKDTree

from reportseg.data.synthetic import phantom

PATIENT = {"PatientName": "Zyx^Planted", "PatientID": "PLANTED-77", "PatientBirthDate": "19500102", "PatientSex": "F"}
STUDY = {"StudyDate": "20260102", "StudyTime": "101112", "StudyID": "S1", "AccessionNumber": "A1"}
#: Texts that must be in no file of ours.
PLANTED = {
    "ReferringPhysicianName": "Refer^Planted",
    "StudyDescription": "planted study",
    "SeriesDescription": "planted series",
    "InstitutionName": "planted hospital",
    "OperatorsName": "Oper^Planted",
    "PatientComments": "planted comment",
    "OtherPatientIDs": "planted-other",
    "PatientAddress": "planted street",
    "EthnicGroup": "planted group",
    "ImageComments": "planted remark",
    "ProtocolName": "planted protocol",
    "StationName": "planted station",
    "DeviceSerialNumber": "planted serial",
    "WindowCenterWidthExplanation": "planted window",
}


def _base(sop_class: str, modality: str, pixels: np.ndarray, number: int = 1) -> Dataset:
    out = Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out.SOPClassUID, out.SOPInstanceUID = sop_class, generate_uid()
    out.file_meta.MediaStorageSOPClassUID, out.file_meta.MediaStorageSOPInstanceUID = out.SOPClassUID, out.SOPInstanceUID
    out.StudyInstanceUID, out.SeriesInstanceUID = generate_uid(), generate_uid()
    out.Modality, out.SeriesNumber, out.InstanceNumber = modality, 3, number
    for keyword, value in {**PATIENT, **STUDY, **PLANTED}.items():
        setattr(out, keyword, value)
    out.Manufacturer = "planted maker"
    out.ImageType = ["ORIGINAL", "PRIMARY"]
    out.Rows, out.Columns = pixels.shape[-2:]
    out.SamplesPerPixel, out.PhotometricInterpretation = 1, "MONOCHROME2"
    out.BitsAllocated, out.BitsStored, out.HighBit, out.PixelRepresentation = 16, 12, 11, 0
    out.PixelData = (pixels.astype(np.uint16) * 16).tobytes()
    private = out.private_block(0x0099, "planted private", create=True)
    private.add_new(1, "LO", "planted value")
    return out


def film(kind: str = "CR", size: int = 96, wide: int = 0) -> Dataset:
    """A chest film: CR without any spacing, DX with one, and MONOCHROME1; `wide` columns of black beside it."""
    pixels = np.pad(phantom(5, 0, size).image_HW, ((0, 0), (0, wide)))
    sop_class = ComputedRadiographyImageStorage if kind == "CR" else DigitalXRayImageStorageForPresentation
    out = _base(sop_class, kind, pixels)
    out.PatientOrientation = ["L", "F"]
    out.ViewPosition = "PA"
    out.WindowCenter, out.WindowWidth = 2000, 4000
    if kind == "DX":
        out.PhotometricInterpretation, out.PresentationLUTShape = "MONOCHROME1", "INVERSE"
        out.PixelSpacing = out.ImagerPixelSpacing = [0.2, 0.3]
        out.RescaleSlope, out.RescaleIntercept, out.RescaleType = 1, 0, "US"
    return out


AXIAL, CORONAL, SAGITTAL = ((1.0, 0, 0), (0, 1.0, 0)), ((1.0, 0, 0), (0, 0, -1.0)), ((0, 1.0, 0), (0, 0, -1.0))
OBLIQUE = ((0.8, 0.6, 0), (-0.36, 0.48, 0.8))


def slices(
    kind: str = "CT", count: int = 5, size: int = 32, gap_mm: float = 2.5, oblique: bool = False, plane=AXIAL, wide: int = 0
) -> list[Dataset]:
    """A series in a plane (directions of rows and columns); `oblique` turns it, and leaves out the thickness of the slices."""
    study, serie, place = generate_uid(), generate_uid(), generate_uid()
    rows, columns = np.array(OBLIQUE if oblique else plane)
    out = []
    for number in range(count):
        pixels = phantom(7, number, size).image_HW if size >= 64 else np.full((size, size), 7 * number)
        pixels = np.pad(pixels, ((0, 0), (0, wide)))
        one = _base(CTImageStorage if kind == "CT" else MRImageStorage, kind, pixels, number + 1)
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, serie, place
        one.ImageOrientationPatient = [*rows.tolist(), *columns.tolist()]
        one.ImagePositionPatient = np.round(np.array([-20.0, 11, 5]) + number * gap_mm * np.cross(rows, columns), 6).tolist()
        one.PixelSpacing = [0.7, 0.8]
        one.PositionReferenceIndicator = "planted"
        if not oblique:
            one.SliceThickness = 2.5
        if kind == "CT":
            one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, -1024, "HU"
        out.append(one)
    return out


def enhanced(count: int = 4, size: int = 32) -> Dataset:
    """An enhanced MR: one object, its frames placed by functional groups, the orientation said frame by frame."""
    out = _base(EnhancedMRImageStorage, "MR", np.zeros((count, size, size)))
    out.FrameOfReferenceUID, out.NumberOfFrames = generate_uid(), count
    shared, measures = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.8], 2
    shared.PixelMeasuresSequence = [measures]
    out.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number in range(count):
        frame, position, orientation = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 2 * number]
        orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        frame.PlanePositionSequence, frame.PlaneOrientationSequence = [position], [orientation]
        frames.append(frame)
    out.PerFrameFunctionalGroupsSequence = frames
    return out


def cine(count: int = 3, size: int = 32) -> Dataset:
    """An ultrasound loop: frames without a place."""
    out = _base(UltrasoundMultiFrameImageStorage, "US", np.zeros((count, size, size)))
    out.NumberOfFrames = count
    return out


def voxels(sources: list[Dataset], mask_FHW: np.ndarray) -> np.ndarray:
    """Where the voxels of a mask lie by the headers of its slices or frames: (N, 3), LPS in mm."""
    points = [np.empty((0, 3))]
    for frame, mask_HW in enumerate(mask_FHW):
        head = sources[frame] if len(sources) > 1 or "ImagePositionPatient" in sources[0] else None
        if head is None:
            group = sources[0].PerFrameFunctionalGroupsSequence[frame]
            position, turn = group.PlanePositionSequence[0].ImagePositionPatient, group.PlaneOrientationSequence[0].ImageOrientationPatient
            spacing = sources[0].SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing
        else:
            position, turn, spacing = head.ImagePositionPatient, head.ImageOrientationPatient, head.PixelSpacing
        row, column = np.nonzero(mask_HW)
        steps = np.array(turn, float).reshape(2, 3) * np.array(spacing, float)[::-1, None]
        points.append(np.array(position, float) + column[:, None] * steps[0] + row[:, None] * steps[1])
    return np.concatenate(points)


def same_points(found: np.ndarray, wanted: np.ndarray, apart_mm: float = 1e-3) -> bool:
    """Whether both hold the same points, each once, whatever their order."""
    if len(found) != len(wanted) or not len(wanted):
        return len(found) == len(wanted)
    distance, partner = cKDTree(found).query(wanted)
    return bool(distance.max() <= apart_mm) and len(set(partner)) == len(wanted)
