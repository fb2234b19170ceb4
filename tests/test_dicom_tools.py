"""What other people's programs say of our DICOM objects: dciodvfy and dcmtk's dcmpschk. Who reads the masks back: test_seg_readers.py."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from dicom_sources import cine, enhanced, film, slices
from reportseg.io.dicom_gsps import write_gsps
from reportseg.io.dicom_sc import write_sc
from reportseg.io.dicom_seg import write_seg
from test_dicom_out import SHA, frames_of, segment

#: Warnings that are meant; docs/clinical.md gives the reasons.
EXPECTED = ("PixelSpacing(0028,0030)> - Attribute is not present in standard DICOM IOD", "Laterality(0020,0060)> - is only permitted")

FILMS = {"cr": film("CR"), "dx": film("DX", wide=7), "us": cine(), "enhanced frame": frames_of(1), "enhanced loop": frames_of(3)}
VOLUMES = {"ct": slices("CT"), "mr": slices("MR", oblique=True), "enhanced": [enhanced()]}


def dciodvfy(path) -> list[str]:
    """Errors, and warnings that are not expected."""
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith(("Error", "Warning"))]
    return [line for line in lines if not any(reason in line for reason in EXPECTED)]


def pair(source, frames: int = 1):
    return [segment(source, frames), segment(source, frames, "left pneumothorax", empty=True)]


@pytest.mark.slow
@pytest.mark.dicom3tools
@pytest.mark.parametrize("probabilities", [False, True])
@pytest.mark.parametrize("name", [*FILMS, *VOLUMES])
def test_dciodvfy_finds_no_error_in_a_seg(tmp_path, name, probabilities):
    sources = VOLUMES.get(name) or [FILMS[name]]
    frames = len(sources) if len(sources) > 1 else 4 if name == "enhanced" else 1
    for number, segments in enumerate((pair(sources[0], frames)[:1], pair(sources[0], frames), pair(sources[0], frames)[1:])):
        write_seg(tmp_path / f"{number}.dcm", sources, segments, SHA, probabilities=probabilities)
        assert dciodvfy(tmp_path / f"{number}.dcm") == []


@pytest.mark.slow
@pytest.mark.dicom3tools
@pytest.mark.parametrize("name", FILMS)
def test_dciodvfy_finds_no_error_in_a_presentation_state_and_a_capture(tmp_path, name):
    source = FILMS[name]
    for number, segments in enumerate((pair(source)[:1], pair(source), pair(source)[1:])):
        write_gsps(tmp_path / f"{number}.gsps.dcm", source, segments, SHA)
        write_sc(tmp_path / f"{number}.sc.dcm", source, np.zeros((source.Rows, source.Columns, 1)), segments, SHA)
        assert dciodvfy(tmp_path / f"{number}.gsps.dcm") == []
        assert dciodvfy(tmp_path / f"{number}.sc.dcm") == []


@pytest.mark.slow
@pytest.mark.dcmtk
@pytest.mark.parametrize("name", FILMS)
def test_dcmpschk_passes_a_presentation_state(tmp_path, name):
    for number, segments in enumerate((pair(FILMS[name])[:1], pair(FILMS[name]), pair(FILMS[name])[1:])):
        write_gsps(tmp_path / f"{number}.dcm", FILMS[name], segments, SHA)
        done = subprocess.run(["dcmpschk", tmp_path / f"{number}.dcm"], capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert "Test passed" in done.stdout + done.stderr
