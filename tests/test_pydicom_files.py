"""Files that pydicom carries are read or refused as pydicom_files.txt has it; where pydicom or dcmtk renders one too, the pixels agree."""

from __future__ import annotations

import subprocess
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pydicom
import pytest
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

from reportseg.errors import InputError
from reportseg.io import read_image

ROOT = Path(pydicom.__file__).parent / "data"
TABLE = [line.split("\t") for line in Path(__file__).with_name("pydicom_files.txt").read_text().splitlines()]
EXPECTED: dict[str, str] = dict(TABLE)
READ = [name for name, verdict in TABLE if not verdict.startswith("refused")]


def verdict(path: Path) -> str:
    """What becomes of a file, in a line."""
    try:
        image = read_image(path)
    except InputError as error:
        return f"refused: {error.code}: {error.what}"
    height, width, channels = image.pixels_HWC.shape
    way = "\\".join(image.geometry.orientation or ("?",))
    return " ".join([f"{width} x {height}", "gray" if channels == 1 else "colour", image.modality or "-", way, *image.warnings])


@pytest.mark.parametrize("name", list(EXPECTED))
def test_file(name):
    pytest.importorskip("gdcm")
    pytest.importorskip("openjpeg")
    assert verdict(ROOT / name) == EXPECTED[name]


def test_no_file_is_left_out():
    assert {str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")} == set(EXPECTED)


@pytest.mark.parametrize("name", READ)
def test_pixels_agree_with_those_of_pydicom(name):
    pytest.importorskip("gdcm")
    pytest.importorskip("openjpeg")
    image = read_image(ROOT / name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = pydicom.dcmread(ROOT / name)
        stored = pixel_array(ds, index=0)  # as RGB where it has colours
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            shown, (low, high) = apply_color_lut(stored, ds), (0, 2 ** ds.RedPaletteColorLookupTableDescriptor[2] - 1)
        elif stored.ndim == 3:
            shown, (low, high) = stored, (0, 2**ds.BitsStored - 1)
        else:
            values = apply_modality_lut(stored, ds)
            shown, (low, high) = (apply_voi_lut(each, ds) for each in (values.astype(float), np.array([-1e9, 1e9])))
            if "WindowCenter" not in ds:  # then bytes are taken as they are, and of more the least and the largest value
                low, high = (values.min(), values.max()) if "no_window" in image.warnings else (0, 255)
    unit = (shown.reshape(*shown.shape[:2], -1).astype(float) - low) / (high - low)
    unit = 1 - unit if ds.PhotometricInterpretation == "MONOCHROME1" else unit
    assert np.abs(unit - image.pixels_HWC).max() <= 1e-5


@pytest.mark.dcmtk
@pytest.mark.parametrize("name", READ)
def test_pixels_agree_with_those_of_dcmtk(name, tmp_path):
    image = read_image(ROOT / name)
    window = ["+Wm"] if "no_window" in image.warnings else ["+Wi", "1"]
    if image.pixels_HWC.shape[2] == 3:
        window = []
    done = subprocess.run(["dcm2pnm", "+F", "1", "-O", *window, ROOT / name, tmp_path / "out.ppm"], capture_output=True, check=False)
    if done.returncode or not (tmp_path / "out.ppm").exists():
        if window:  # a file that states no window and needs none
            command = ["dcm2pnm", "+F", "1", "-O", "-W", ROOT / name, tmp_path / "out.ppm"]
            done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode or not (tmp_path / "out.ppm").exists():
            return  # dcmtk does not render it: there is nothing to compare with
    theirs = np.asarray(PIL.Image.open(tmp_path / "out.ppm").convert("RGB"), dtype=np.float32) / 255
    lossy = pydicom.dcmread(ROOT / name, stop_before_pixels=True).file_meta.TransferSyntaxUID.is_compressed
    assert theirs.shape[:2] == image.pixels_HWC.shape[:2]
    assert np.abs(theirs - image.pixels_HWC).max() <= (3 if lossy else 1.01) / 255
