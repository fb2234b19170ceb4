"""Peak memory of `predict` on volumes: three times what is decoded, as float32, and 1 GiB. Measured in a child process."""

from __future__ import annotations

import csv
import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from dicom_films import film, write_stack

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

SIDE = 512
CHILD = """
import json, sys
sys.path[:0] = {paths!r}
from reportseg.cli import app
code = app(sys.argv[1:], standalone_mode=False) or 0
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # rusage would count the parent's memory too
print(json.dumps([code, int(peak.split()[1]) * 1024]))
"""


def predict(bundle: Path, images: list[Path], out: Path, *options: str) -> tuple[int, int]:
    """(exit code, peak in bytes) of the command."""
    script = CHILD.format(paths=[p for p in sys.path if p])
    command = [sys.executable, "-c", script, "predict", str(bundle), *map(str, images), "-o", str(out), "--quiet", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    code, peak = json.loads(done.stdout.splitlines()[-1])
    return code, peak


def limit(voxels: int) -> int:
    return 3 * 4 * voxels + 2**30


def slices(count: int) -> np.ndarray:
    """(count, SIDE, SIDE) int16, nowhere flat."""
    y = np.linspace(0, 9, SIDE)
    return (np.sin(y)[None, :, None] * np.cos(y) * 400 + np.arange(count)[:, None, None]).astype(np.int16)


def test_a_nifti_file_of_400_slices(bundle, tmp_path):
    array = slices(400)
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([-0.8, -0.8, 2, 1])), tmp_path / "ct.nii")
    code, peak = predict(bundle, [tmp_path / "ct.nii"], tmp_path / "out", "--text", "left lung")
    assert code == 0
    assert peak < limit(array.size)


def test_a_series_of_200_slices_with_five_findings_as_fractions(bundle, tmp_path):
    array = (slices(200) + 1000).astype(np.uint16)
    write_stack(tmp_path / "ct", array, FrameOfReferenceUID="1.2.3", StudyInstanceUID="1.2.4")
    places = ("left lower lobe", "right lower lobe", "left upper lobe", "right upper lobe")
    (tmp_path / "report.txt").write_text(" ".join(f"Consolidation in the {place}." for place in places) + " Left effusion.")
    options = ["--report", str(tmp_path / "report.txt"), "--format", "dicom-seg,nifti", "--probabilities"]
    code, peak = predict(bundle, [tmp_path / "ct"], tmp_path / "out", *options)
    assert code == 0
    assert peak < limit(array.size)
    assert len(list((tmp_path / "out").glob("*.seg.dcm"))) == 1


def test_headers_that_promise_much(bundle, tmp_path):
    """None of them takes more than the start of the program and a header do."""
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["magic"], header["vox_offset"] = b"n+1", 352
    header.set_sform(np.eye(4), 1)
    for name, shape in (("tera", (16384, 16384, 16384)), ("there", (800, 800, 800))):
        header.set_data_shape(shape)
        (tmp_path / f"{name}.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(4)))
    body = film(np.zeros((8, 8), np.uint8), NumberOfFrames=100_000_000)
    (tmp_path / "frames.dcm").write_bytes(body)
    body = film(np.zeros((1, 2), np.uint8), NumberOfFrames=2)
    place = body.index(b"\xe0\x7f\x10\x00")
    items = b"\xfe\xff\0\xe0\0\0\0\0" * 3_000_000
    (tmp_path / "items.dcm").write_bytes(body[:place] + struct.pack("<HH2sHI", 0x5200, 0x9230, b"SQ", 0, len(items)) + items + body[place:])
    paths = write_stack(tmp_path / "far", np.zeros((3, 64, 64), np.uint16), FrameOfReferenceUID="1.2.3", StudyInstanceUID="1.2.4")
    far = paths[2].read_bytes().replace(b"0.0\\0.0\\4.0 ", b"0.0\\0.0\\9e5 ")
    paths[2].write_bytes(far)
    images = [tmp_path / name for name in ("tera.nii.gz", "there.nii.gz", "frames.dcm", "items.dcm", "far")]
    code, peak = predict(bundle, images, tmp_path / "out", "--text", "left lung")
    assert code == 2
    with open(tmp_path / "out/failures.csv", newline="") as file:
        assert [row["code"] for row in csv.DictReader(file)] == ["too_large", "truncated", "too_large", "too_large", "uneven_slices"]
    assert peak < limit(0)
