"""A DICOM series or film in, a mask out as SEG and NIfTI: each voxel lies in the patient where the pixel lay that it was predicted for.

What is wanted is computed from the numbers that were written, never by our reader. NIfTI in and out has its own such test in test_nifti.py.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dicom_films
from dicom_films import write_stack
from dicom_sources import same_points, voxels
from reportseg.io import read_image
from reportseg.io.dicom_codes import meaning_of
from reportseg.io.dicom_out import Segment
from reportseg.io.dicom_seg import write_seg
from reportseg.io.nifti import read_nifti, write_nifti
from reportseg.io.series import find_series, read_volume
from reportseg.io.slices import view_of

SHA = "ab" * 32
PLACED = {"FrameOfReferenceUID": "1.2.3.4", "StudyInstanceUID": "1.2.3.5"}
#: Directions of rows, of columns and from slice to slice: every way in which the axes of a grid can lie along those of the patient.
ORIENTATIONS = [
    np.diag(signs)[list(order)] for order in itertools.permutations(range(3)) for signs in itertools.product((1.0, -1.0), repeat=3)
]
DEPTHS = st.sampled_from([(np.uint8, 8), (np.uint8, 5), (np.uint16, 10), (np.uint16, 12), (np.uint16, 16), (np.int16, 12), (np.int16, 16)])
FLAT = st.tuples(st.integers(1, 17), st.integers(1, 17)).filter(lambda shape: shape[0] * shape[1] >= 8)  # what a SEG needs
SHAPES = st.tuples(st.integers(2, 5), FLAT).map(lambda parts: (parts[0], *parts[1]))
SIZES = st.tuples(*[st.floats(0.2, 6.0)] * 3)
SEEDS = st.integers(0, 2**32 - 1)


def stored(shape, depth, seed) -> np.ndarray:
    """Random values of so many bits, signed where the type is."""
    dtype, bits = depth
    low = -(2 ** (bits - 1)) if np.dtype(dtype).kind == "i" else 0
    return np.random.default_rng(seed).integers(low, low + 2**bits, shape).astype(dtype)


def segment(mask_FHW: np.ndarray) -> Segment:
    return Segment(meaning_of("spleen"), mask_FHW, mask_FHW.astype(np.float32))


def round_trip(folder: Path, directions: np.ndarray, sizes, shape, depth, seed) -> None:
    """Reads the series, answers slice by slice in the order of display, writes the mask, reads it thrice."""
    shutil.rmtree(folder / "in", ignore_errors=True)
    pixels = stored(shape, depth, seed)
    level = np.median(pixels)
    step = (directions[2] * sizes[0]).round(6).tolist()
    cosines = [*directions[0].round(9).tolist(), *directions[1].round(9).tolist()]
    tags = {"PixelSpacing": [round(size, 6) for size in sizes[1:]], "BitsStored": depth[1], "Modality": "MR" if seed % 2 else "CT"}
    files = write_stack(folder / "in", pixels, step=step, cosines=cosines, **tags, **PLACED)
    wanted = voxels([pydicom.dcmread(file) for file in files], pixels > level)

    (series,), failed = find_series(folder / "in")
    assert series.stacked and not failed and not series.warnings
    volume = read_volume(series)
    mask_DHW = np.zeros(volume.values_DHW.shape, bool)
    view = view_of(volume.affine)
    for answer, film in zip(view.shown(mask_DHW), view.shown(volume.values_DHW), strict=True):
        answer[:] = film > level - 1024  # the rescale of write_stack
    write_seg(folder / "mask.dcm", volume.headers, [segment(mask_DHW)], SHA)
    write_nifti(folder / "mask.nii.gz", mask_DHW, volume.affine)

    seg = hd.seg.segread(folder / "mask.dcm")
    by_source = seg.get_pixels_by_source_instance([header.SOPInstanceUID for header in volume.headers])[..., 0]
    assert np.array_equal(by_source, mask_DHW)
    if mask_DHW.any():  # else there is no frame that could have a place
        grid = seg.get_volume(segment_numbers=[1])
        assert same_points(grid.map_indices_to_reference(np.argwhere(grid.array[..., 0])), wanted)
    theirs = nibabel.load(folder / "mask.nii.gz")
    lps = nibabel.affines.apply_affine(theirs.affine, np.argwhere(np.asarray(theirs.dataobj))) * (-1, -1, 1)
    assert same_points(lps, wanted)
    ours = read_nifti(folder / "mask.nii.gz")
    assert same_points(nibabel.affines.apply_affine(np.array(ours.affine), np.argwhere(ours.values_DHW)), wanted)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("series")


@pytest.mark.parametrize("number", range(len(ORIENTATIONS)))
@settings(max_examples=1)
@given(sizes=SIZES, shape=SHAPES, depth=DEPTHS, seed=SEEDS)
def test_a_mask_lies_on_the_voxels_of_its_series_in_each_of_48_orientations(folder, number, sizes, shape, depth, seed):
    round_trip(folder, ORIENTATIONS[number], sizes, shape, depth, seed)


@pytest.mark.slow
@settings(max_examples=100)
@given(angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3), down=st.booleans(), sizes=SIZES, shape=SHAPES, depth=DEPTHS, seed=SEEDS)
def test_a_mask_lies_on_the_voxels_of_its_series_under_100_oblique_ways(folder, angles, down, sizes, shape, depth, seed):
    directions = nibabel.eulerangles.euler2mat(*angles).T
    round_trip(folder, directions * [[1], [1], [-1 if down else 1]], sizes, shape, depth, seed)


@settings(max_examples=30)
@given(shape=FLAT, depth=DEPTHS, seed=SEEDS, inverse=st.booleans())
def test_a_mask_lies_on_the_pixels_of_its_film(folder, shape, depth, seed, inverse):
    pixels = stored(shape, depth, seed)
    level, sign = np.median(pixels), -1 if inverse else 1
    middle, span = float(level), 2.0 ** depth[1]
    tags = {"BitsStored": depth[1], "WindowCenter": middle, "WindowWidth": span, "VOILUTFunction": "LINEAR_EXACT"}
    tags["PhotometricInterpretation"] = "MONOCHROME1" if inverse else "MONOCHROME2"
    (folder / "film.dcm").write_bytes(dicom_films.film(pixels, **tags))
    image = read_image(folder / "film.dcm")
    mask_HW = image.pixels_HWC[:, :, 0] > 0.5
    assert np.array_equal(mask_HW, sign * pixels.astype(float) > sign * level)
    write_seg(folder / "film.seg.dcm", image.headers, [segment(mask_HW[None])], SHA)
    back = hd.seg.segread(folder / "film.seg.dcm").get_pixels_by_source_instance([image.headers[0].SOPInstanceUID])
    assert np.array_equal(back[0, ..., 0], mask_HW)
