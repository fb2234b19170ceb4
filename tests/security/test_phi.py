"""Names, ids, birth dates and texts planted in every input: none comes out where it has no business.

Planted values of a patient hold `zqx` or the birth date, what was asked or reported holds `qvj`. What the user typed as an id is his own.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
import warnings
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGExtended12Bit, MediaStorageDirectoryStorage, generate_uid
from typer.testing import CliRunner

from dicom_sources import enhanced, slices
from dicom_sources import film as cr
from reportseg.cli import app
from tiny import film

PERSON = (b"zqx", b"19310217", b"1931-02-17")
SAID = b"qvj"
TEXT = "Infection of the left qvjlung."
REPORT = "Qvjperson has an opacity in the left lower lobe. No effusion in qvjperson. Technique: qvj."
NAME = "Zqxname^Hans 19310217"
EVERY = "png,nifti,dicom-seg,dicom-gsps,dicom-sc"
#: Of the source an object of ours holds these and no other: patient and study module, what makes the film's look and its place.
PATIENT = {"PatientName", "PatientID", "PatientBirthDate", "PatientSex"}
STUDY = {"StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"}


# ---------------------------------------------------------------- inputs


def marked(source: Dataset) -> Dataset:
    """A film in which every text says something of the patient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for element in source:
            if element.VR in ("PN", "LO", "SH", "LT", "ST", "UT") or element.keyword in ("PatientAddress",):
                element.value = f"Zqx{element.keyword}"
        source.PatientName, source.PatientID, source.PatientBirthDate = NAME, "ZQX-77", "19310217"
        source.PatientBirthName, source.OtherPatientNames, source.PatientMotherBirthName = NAME, NAME, NAME
        source.ImageType, source.BodyPartExamined, source.Laterality = ["ORIGINAL", "PRIMARY", "ZQX"], "ZQXCHEST", "ZQX"
        source.RequestedProcedureDescription, source.DerivationDescription = "zqx", "zqx"
        source.CurrentPatientLocation, source.TextComments, source.FrameComments = "zqx", "zqx", "zqx"
        item = Dataset()
        item.ScheduledProcedureStepDescription, item.RequestedProcedureID = "zqx", "zqx"
        source.RequestAttributesSequence = [item]
        source.private_block(0x0099, "planted private")[1].value = "zqx"
        source.add_new(0x60000022, "LO", "zqx overlay")
    source.preamble = b"zqx".ljust(128, b"\0")
    return source


def saved(source: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    source.save_as(path, enforce_file_format=True)
    return path


def one_film(folder: Path) -> Path:
    return saved(marked(cr("CR", 32)), folder / f"{NAME}.dcm")


def without_suffix(folder: Path) -> Path:
    return saved(marked(cr("DX", 32)), folder / "zqx" / "Zqxname")


def in_folders(folder: Path) -> Path:
    saved(marked(cr("CR", 32)), folder / "study" / NAME / "zqx.dcm")
    (folder / "study" / NAME / "zqx.txt").write_text("zqx")
    return folder / "study"


def in_a_zip(folder: Path) -> Path:
    source = one_film(folder)
    with zipfile.ZipFile(folder / "study.zip", "w") as archive:
        archive.write(source, f"{NAME}/zqx.dcm")
        archive.comment = b"zqx"
    return folder / "study.zip"


def a_series(folder: Path) -> Path:
    for number, one in enumerate(slices("CT", 3)):
        saved(marked(one), folder / "study" / NAME / f"zqx{number}")
    return folder / "study"


def two_phases(folder: Path) -> Path:
    source = enhanced(6)
    for number, group in enumerate(source.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, number // 2]
    return saved(marked(source), folder / f"{NAME}.dcm")


def a_volume(folder: Path, depth: int = 3) -> Path:
    image = nibabel.Nifti1Image((film(20, 24)[..., 0].T[..., None] * np.full(depth, 900)).astype(np.int16), np.diag([-1, -1, 2, 1.0]))
    for field in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[field] = b"zqx 19310217"
    image.header.set_intent("vector", name="zqx")
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Zqxname 19310217"))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("dicom", b"Zqxname 19310217"))
    with gzip.GzipFile(folder / "zqx.nii", "wb", fileobj=open(folder / "ct.nii.gz", "wb")) as packed:
        packed.write(image.to_bytes())
    return folder / "ct.nii.gz"


def a_slice(folder: Path) -> Path:
    return a_volume(folder, 1)


def a_png(folder: Path) -> Path:
    info = PngInfo()
    info.add_text("Zqxname", "19310217")
    info.add_itxt("Comment", "zqx")
    image, exif = PIL.Image.fromarray((film()[..., 0] * 255).astype(np.uint8)), PIL.Image.Exif()
    exif[0x010E], exif[0x013B] = "zqx 19310217", "zqx"
    image.save(folder / "photo.png", pnginfo=info, exif=exif)
    return folder / "photo.png"


def a_tiff(folder: Path) -> Path:
    image = PIL.Image.fromarray((film()[..., 0] * 255).astype(np.uint8))
    image.save(folder / "film.tif", tiffinfo={270: "zqx 19310217", 315: "zqx", 305: "zqx"})
    return folder / "film.tif"


GROUPS = {
    "films": ([one_film, without_suffix, in_folders, in_a_zip], EVERY),
    "series": ([a_series, two_phases], "nifti,dicom-seg"),
    "others": ([a_volume, a_slice, a_png, a_tiff], "png,nifti"),
}


def truncated(folder: Path) -> Path:
    path = one_film(folder)
    path.write_bytes(path.read_bytes()[:-500])
    return path


def cut_header(folder: Path) -> Path:
    path = one_film(folder)
    path.write_bytes(path.read_bytes()[:900])
    return path


def no_pixels(folder: Path) -> Path:
    source = marked(cr("CR", 32))
    del source.PixelData
    return saved(source, folder / "study" / "zqx.dcm").parent


def no_codec(folder: Path) -> Path:
    source = marked(cr("CR", 32))
    source.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xe1\0\x0azqxname19310217"])
    source.file_meta.TransferSyntaxUID = JPEGExtended12Bit
    return saved(source, folder / "study" / "zqx.dcm").parent


def words_for_numbers(folder: Path) -> Path:
    path = one_film(folder)
    body = path.read_bytes().replace(b"MONOCHROME2", b"ZQXOCHROME2").replace(b"2000", b"Zqx ")
    path.write_bytes(body.replace(b"1.2.840.10008.1.2.1\0", b"1.2.zqx.19310217.1\0\0"))
    return path


def lying_grid(folder: Path) -> Path:
    source = marked(cr("CR", 32))
    source.Rows = 64
    return saved(source, folder / "study" / f"{NAME}.dcm").parent


def called_dicom(folder: Path) -> Path:
    (folder / f"{NAME}.dcm").write_bytes(b"Zqxname 19310217 is no DICOM file")
    return folder / f"{NAME}.dcm"


def not_there(folder: Path) -> Path:
    return folder / f"{NAME}.dcm"


def lost_slice(folder: Path) -> Path:
    study = a_series(folder)
    path = study / NAME / "zqx1"
    path.write_bytes(path.read_bytes()[:-100])
    return study


def lost_medium(folder: Path) -> Path:
    saved(marked(cr("CR", 32)), folder / "ZQXNAME" / "IM1")
    out, record = Dataset(), Dataset()
    out.file_meta = FileMetaDataset()
    out.file_meta.MediaStorageSOPClassUID, out.file_meta.MediaStorageSOPInstanceUID = MediaStorageDirectoryStorage, generate_uid()
    out.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    record.DirectoryRecordType, record.ReferencedFileID, record.PatientName = "IMAGE", ["ZQXNAME", "IM2"], NAME
    out.FileSetID, out.DirectoryRecordSequence = "ZQX", [record]
    return saved(out, folder / "DICOMDIR")


def cut_zip(folder: Path) -> Path:
    path = folder / f"{NAME}.zip"
    path.write_bytes(in_a_zip(folder).read_bytes()[:-60])
    return path


def cut_zip_of_another_name(folder: Path) -> Path:
    return cut_zip(folder).rename(folder / f"{NAME}.export")


def cut_zip_called_picture(folder: Path) -> Path:
    return cut_zip(folder).rename(folder / f"{NAME}.png")


def empty_file(folder: Path) -> Path:
    (folder / "Hans.Zqxname").touch()
    return folder / "Hans.Zqxname"


def cut_before_it_is_dicom(folder: Path) -> Path:
    path = one_film(folder).rename(folder / f"{NAME}.1")
    path.write_bytes(path.read_bytes()[:100])
    return path


def broken_nifti(folder: Path) -> Path:
    path = a_volume(folder)
    body = bytearray(gzip.decompress(path.read_bytes()))
    body[280:328] = bytes(48)  # the sform's rows
    path.write_bytes(gzip.compress(bytes(body)))
    return path


def cut_nifti(folder: Path) -> Path:
    path = a_volume(folder)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-300]))
    return path


def cut_png(folder: Path) -> Path:
    path = a_png(folder)
    path.write_bytes(path.read_bytes()[:-300])
    return path


def placed(folder: Path, makers: list) -> list[Path]:
    """Each in a folder of its own."""
    for number in range(len(makers)):
        (folder / f"in{number}").mkdir()
    return [make(folder / f"in{number}") for number, make in enumerate(makers)]


BROKEN = [truncated, cut_header, no_pixels, no_codec, words_for_numbers, lying_grid, called_dicom, not_there, lost_slice, lost_medium]
BROKEN += [cut_zip, cut_zip_of_another_name, cut_zip_called_picture, empty_file, cut_before_it_is_dicom]
BROKEN += [broken_nifti, cut_nifti, cut_png]


# ---------------------------------------------------------------- what comes out

made: list[str] = []
watching = False


def _watch(event: str, args: tuple) -> None:
    """Every name that the process gives a file or a folder."""
    if watching and event in ("os.mkdir", "os.rename", "os.symlink", "os.link", "tempfile.mkstemp", "tempfile.mkdtemp"):
        made.extend(str(arg) for arg in args)
    elif watching and event == "open" and isinstance(args[2], int) and args[2] & 0o3:  # for writing
        made.append(str(args[0]))


sys.addaudithook(_watch)


@pytest.fixture
def run(capfd, caplog, tmp_path):
    """A command; gives its exit code and all that it said, to whomever: both streams, logs, warnings, and names of files it made."""

    def call(*arguments, words: str = "") -> tuple[int, bytes]:
        global watching
        made.clear()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            watching = True
            try:
                result = CliRunner().invoke(app, [str(argument) for argument in arguments])
            finally:
                watching = False
        said = [result.stdout, result.stderr, *capfd.readouterr(), caplog.text, *(str(one.message) for one in warned), *made]
        return result.exit_code, "\n".join(said).replace(str(tmp_path), "").encode("utf-8", "backslashreplace").lower()

    return call


def content(path: Path) -> bytes:
    """A file's name and what can be read in it, unpacked, in lower case; of a DICOM object without what it must hold of the patient."""
    body = path.read_bytes()
    body = gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
    if path.suffix == ".png":
        body = b""  # its chunks are looked at: none can hold a text
    if path.suffix == ".html":
        body = re.sub(rb"base64,[A-Za-z0-9+/=]+", b"", body)
    if path.suffix == ".dcm":
        out, buffer = pydicom.dcmread(path), io.BytesIO()
        for keyword in (*PATIENT, *STUDY, "PixelData"):
            out.pop(keyword, None)
        out.save_as(buffer)
        body = buffer.getvalue()
    return path.name.encode().lower() + body.lower() + body.replace(b"\0", b"").lower()  # UTF-16 too


def chunks(path: Path) -> set[bytes]:
    """The kinds of chunks of a PNG."""
    body, place, found = path.read_bytes(), 8, set()
    while place < len(body):
        found.add(body[place + 4 : place + 8])
        place += 12 + int.from_bytes(body[place : place + 4], "big")
    return found


def check_folder(out: Path, *text_in: str) -> list[str]:
    """Names of the files, none of which tells of the patient; what was said stands in those alone whose names end in `text_in`."""
    files = sorted(path for path in out.rglob("*") if path.is_file())
    for path in files:
        body = content(path)
        assert not [word for word in PERSON if word in body], path.name
        assert SAID not in body or path.name.endswith(text_in), path.name
        if path.suffix == ".png":
            assert chunks(path) <= {b"IHDR", b"IDAT", b"IEND"}
        if path.name.endswith(".nii.gz"):
            header = nibabel.load(path).header
            assert not header.extensions
            assert not any(header[field].item().strip(b"\0") for field in ("descrip", "aux_file", "db_name", "intent_name"))
    return [path.name for path in files]


def silent(said: bytes) -> bool:
    return not [word for word in (*PERSON, SAID) if word in said]


MODES = pytest.mark.parametrize("mode", [[], ["-q"], ["--json"]], ids=lambda mode: "".join(mode) or "plain")
ANSWERS = ("predictions.csv", ".json")


@MODES
@pytest.mark.parametrize("group", GROUPS)
def test_an_answer_tells_nothing_of_the_patient(bundle, tmp_path, run, group, mode):
    makers, formats = GROUPS[group]
    sources, out = placed(tmp_path, makers), tmp_path / "out"
    code, said = run("predict", bundle, *sources, "--text", TEXT, "--format", formats, "-o", out, *mode)
    assert code == 0, said
    assert silent(said), said
    assert b"/.part-" in said and (group != "films" or b"reportseg-" in said), "names of temporary files are among what is looked at"
    names = check_folder(out, *ANSWERS)
    assert len(names) >= 3 * len(sources) + 2
    assert group == "others" or all(name.startswith(("case-", "predictions.", "failures.")) for name in names)


@MODES
def test_films_that_fail_are_told_without_their_patient(bundle, png, tmp_path, run, mode):
    sources, out = placed(tmp_path, BROKEN), tmp_path / "out"
    code, said = run("predict", bundle, png, *sources, "--text", TEXT, "-o", out, *mode)
    assert code == 3, said
    assert silent(said), said
    check_folder(out, *ANSWERS)
    failures = list(csv.DictReader((out / "failures.csv").open(encoding="utf-8")))
    assert len(failures) == len(BROKEN)
    for failure in failures:
        assert failure["what"] and failure["fix"]
        assert failure["id"].encode() in said or not failure["id"].startswith("case-"), "the terminal names it as the table does"


@pytest.mark.parametrize("kept", [False, True])
def test_an_object_holds_the_patient_module_and_the_text_only_if_told_to(bundle, tmp_path, run, kept):
    source, out = one_film(tmp_path), tmp_path / "out"
    (tmp_path / "report.txt").write_text(REPORT)
    options = ["--report", tmp_path / "report.txt", "--format", EVERY, *(["--keep-text"] if kept else [])]
    code, said = run("predict", bundle, source, *options, "-o", out)
    assert code == 0, said
    assert silent(said), said
    check_folder(out, *ANSWERS, *([".seg.dcm", ".gsps.dcm"] if kept else []))
    given = pydicom.dcmread(source)
    for name in ("seg", "gsps", "sc"):
        (path,) = out.glob(f"*.{name}.dcm")
        made = pydicom.dcmread(path)
        assert {element.keyword for element in made if element.tag.group == 0x0010} == PATIENT
        assert all(made[keyword].value == given[keyword].value for keyword in PATIENT)
        assert {element.keyword for element in made} >= STUDY and made.ReferringPhysicianName == ""
        assert (SAID in content(path)) == (kept and name != "sc")


# ---------------------------------------------------------------- tables and data sets


def data_set(folder: Path, image: Path, header: str = "image,mask,text,split,patient,name,born") -> Path:
    """A manifest of one film and the same again as a damaged one."""
    image.with_name(f"{NAME} 2.dcm").write_bytes(image.read_bytes()[:-500])
    shape = pydicom.dcmread(image).Rows, pydicom.dcmread(image).Columns
    PIL.Image.fromarray(np.pad(np.full((9, 9), 255, np.uint8), ((0, shape[0] - 9), (0, shape[1] - 9)))).save(folder / "mask.png")
    rows = [f"{path},mask.png,{TEXT},test,P1,Zqxname,19310217" for path in (image, image.with_name(f"{NAME} 2.dcm"))]
    (folder / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder / "manifest.csv"


@MODES
def test_a_jobs_file_is_answered_without_its_other_columns(bundle, tmp_path, run, mode):
    jobs, out = data_set(tmp_path, one_film(tmp_path)), tmp_path / "out"
    code, said = run("predict", bundle, "--jobs", jobs, "-o", out, *mode)
    assert code == 3, said
    assert silent(said), said
    check_folder(out, *ANSWERS)


@pytest.mark.parametrize("shown", [True, False])
def test_an_evaluation_tells_nothing_of_the_patient(bundle, tmp_path, run, shown):
    manifest, out = data_set(tmp_path, one_film(tmp_path)), tmp_path / "out"
    code, said = run("evaluate", bundle, manifest, "--save-masks", "-o", out, *([] if shown else ["--no-images"]))
    assert code == 3, said
    assert silent(said), said
    names = check_folder(out, *(["report.html"] if shown else []))
    assert {"report.html", "metrics.json", "cases.csv", "failures.csv"} <= set(names)


@MODES
def test_the_data_commands_say_ids(tmp_path, run, mode):
    """The manifest itself names the files that it refers to; a copied data set has names of its own."""
    manifest = data_set(tmp_path, one_film(tmp_path))
    manifest.write_text(manifest.read_text() + f"{NAME} 3.dcm,mask.png,{TEXT},test,P1,Zqxname,19310217\n")
    (tmp_path / "more.csv").write_text(f"image,label\n{NAME} 4.dcm,opacity\n")
    options = ["--laterality", "patient", "--copy", "--join", tmp_path / "more.csv"]
    code, said = run("data", "import", "folder", manifest, "-o", tmp_path / "copy", *options, *mode)
    assert code == 0, said
    assert silent(said), said
    assert all(path.stem.startswith("case-") for path in (tmp_path / "copy" / "images").iterdir())
    code, said = run("data", "verify", tmp_path / "copy", *mode)
    assert code == 2 and silent(said), said
    manifest.write_text(manifest.read_text().rsplit(f"{NAME} 3", 1)[0])
    code, said = run("data", "verify", manifest, *mode)
    assert code == 2 and b"case-" in said and silent(said), said


@pytest.mark.parametrize(
    "table",
    [
        f"a.png,{TEXT},Zqxname,19310217\n",
        f"image,text,laterality\na.png,{TEXT},Zqxname\n",
        f"image,text,spacing_mm\na.png,{TEXT},19310217 zqx\n",
        f"image,text,slice\na.png,{TEXT},zqx\n",
        f"image,text,present\na.png,{TEXT},zqx\n",
        f"image,text\na.png,{TEXT},Zqxname,19310217\n",
        f'image,text\na.png,"Zqxname {TEXT}\n',
        f"image,text,name\n,{TEXT},Zqxname\n",
        f"image;text;name\na.png;{TEXT};Zqxname\n",
        f"image,text\na.png,{TEXT}\0\n",
    ],
)
@pytest.mark.parametrize("mode", [[], ["--json"]], ids=str)
def test_a_jobs_file_that_cannot_be_read_is_not_quoted(bundle, tmp_path, run, table, mode):
    (tmp_path / "jobs.csv").write_text(table)
    code, said = run("predict", bundle, "--jobs", tmp_path / "jobs.csv", "-o", tmp_path / "out", *mode)
    assert code == 2, said
    assert b"jobs.csv" in said and silent(said), said


def test_an_error_about_a_dicom_film_gives_its_id(tmp_path, run):
    """Where no case is at hand, as in training: the path would be named."""
    manifest = data_set(tmp_path, one_film(tmp_path))
    code, said = run("train", "demo", "--data", manifest, "-o", tmp_path / "run", "-q")
    assert code == 2 and silent(said), said
