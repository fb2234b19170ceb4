"""A chest film as DICOM and a one-line report in, a DICOM SEG out: python scripts/demo_clinic.py FOLDER (made anew).

The film is a phantom of a phantom patient. Where Orthanc is installed, film and answers go through it as through a hospital's PACS. What
comes back is read by highdicom and compared with the mask that was predicted.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import highdicom as hd
import numpy as np
import PIL.Image
from orthanc import orthanc, program
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from reportseg.data.synthetic import phantom
from reportseg.io import read_mask
from reportseg.text import swap_sides

SEED, NUMBER, SIZE = 2026, 3, 512


def write_film(path: Path, image_HW: np.ndarray) -> Dataset:
    """A computed radiograph of 12 bits, seen from the front: the patient's left is on the right."""
    out = Dataset()
    out.SOPClassUID, out.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    out.StudyInstanceUID, out.SeriesInstanceUID = generate_uid(), generate_uid()
    out.PatientName, out.PatientID, out.PatientBirthDate, out.PatientSex = "Phantom^Paula", "PHANTOM-1", "19700101", "O"
    out.StudyDate, out.StudyTime, out.StudyID, out.AccessionNumber = "20260101", "120000", "1", ""
    out.ReferringPhysicianName, out.Manufacturer, out.Modality = "", "reportseg phantom", "CR"
    out.SeriesNumber, out.InstanceNumber = 1, 1
    out.BodyPartExamined, out.ViewPosition, out.PatientOrientation, out.PixelSpacing = "CHEST", "PA", ["L", "F"], [0.7, 0.7]
    out.SamplesPerPixel, out.PhotometricInterpretation, out.PixelRepresentation = 1, "MONOCHROME2", 0
    out.Rows, out.Columns = image_HW.shape
    out.BitsAllocated, out.BitsStored, out.HighBit = 16, 12, 11
    out.WindowCenter, out.WindowWidth = 2048, 4096
    out.PixelData = (image_HW.astype(np.uint16) * 16).tobytes()
    out.file_meta = FileMetaDataset()
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out.save_as(path, enforce_file_format=True)
    return out


def run(folder: Path, *words: str | Path) -> None:
    subprocess.run([Path(sys.executable).parent / "reportseg", *words], cwd=folder, check=True)


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    film = phantom(SEED, NUMBER, SIZE)
    source = write_film(folder / "film.dcm", film.image_HW)
    report = swap_sides(film.sentence)  # the phantom's sentence means sides of the picture, a report those of the patient
    (folder / "report.txt").write_text(report, encoding="utf-8")
    print(f"report: {report}")
    out = folder / "out"
    predict = ["--report", "report.txt", "--format", "png,dicom-seg,dicom-gsps,dicom-sc", "-o", "out"]
    with ExitStack() as stack:
        if program():
            url, credentials = stack.enter_context(orthanc(folder / "pacs"))
            access = ("--credentials", credentials, "--quiet")
            run(folder, "pacs", "store", url, "film.dcm", *access)
            run(folder, "pacs", "fetch", url, source.StudyInstanceUID, "-o", "fetched", *access)
            run(folder, "predict", "demo", "fetched", *predict)
            run(folder, "pacs", "store", url, *(file.relative_to(folder) for file in sorted(out.glob("*.dcm"))), *access)
            run(folder, "pacs", "fetch", url, source.StudyInstanceUID, "-o", "back", *access)
            files = list((folder / "back").rglob("*.dcm"))
        else:
            print("Orthanc and its DICOMweb plugin are not installed: the film does not go through a PACS")
            run(folder, "predict", "demo", "film.dcm", *predict)
            files = list(out.glob("*.dcm"))
    (file,) = (file for file in files if dcmread(file, specific_tags=["Modality"]).Modality == "SEG")
    masks = [read_mask(mask) for mask in sorted(out.glob("*.mask.png"))]
    found = hd.seg.segread(file).get_pixels_by_source_instance([source.SOPInstanceUID])[0].astype(bool)
    if not (found == np.stack(masks, -1)).all():
        raise SystemExit("the SEG does not hold the masks that were predicted")
    both = np.logical_or.reduce(masks)
    dice = 2 * (both & film.mask_HW).sum() / (both.sum() + film.mask_HW.sum())
    print(f"{file}: {found.shape[-1]} segment(s), pixel for pixel the predicted masks; Dice with the phantom's truth {dice:.2f}")
    (capture,) = out.glob("*.sc.dcm")
    PIL.Image.fromarray(hd.imread(capture).pixel_array).save(folder / "clinic.png")
    print(f"{folder / 'clinic.png'}: the picture in {capture.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
