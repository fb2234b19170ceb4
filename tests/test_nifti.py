"""A volume is read, looked at in slices and answered, and the mask lies on the same voxels, at the same place in the patient."""

from __future__ import annotations

import gzip
import itertools
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportseg.errors import WARNINGS, InputError
from reportseg.io.nifti import read_nifti, write_nifti
from reportseg.io.slices import view_of
from reportseg.limits import DEFAULT, Limits

TURN = np.diag([-1.0, -1.0, 1.0, 1.0])
ORIENTATIONS = [(order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]
DTYPES = [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64]


def aligned(order, signs, sizes=(1.0, 1.0, 1.0), origin=(-90.0, 40.5, 7.25)) -> np.ndarray:
    """RAS affine where the file's axis n lies along the patient's axis order[n], with that sign."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (place, sign) in enumerate(zip(order, signs, strict=True)):
        affine[place, axis] = sign * sizes[axis]
    affine[:3, 3] = origin
    return affine


def save(path, array_ijk, affine, *, form="sform"):
    image = nibabel.Nifti1Image(array_ijk, affine)
    image.set_sform(affine if form == "sform" else None, 1 if form == "sform" else 0)
    image.set_qform(affine, 0 if form != "qform" else 1)
    nibabel.save(image, path)
    return path


def random_array(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    low, high = (0, 255) if dtype == np.uint8 else (-128, 127) if dtype == np.int8 else (0, 4000)
    return rng.integers(low, high, shape).astype(dtype)


def roundtrip(tmp, array_ijk, affine, form="sform", suffix=".nii.gz"):
    """Reads the file, answers slice by slice in the order of display, writes the mask; both readers find it where it was predicted."""
    source = save(tmp / f"a{suffix}", array_ijk, affine, form=form)
    volume = read_nifti(source)
    level = np.median(array_ijk)
    view = view_of(volume.affine)
    shown = view.shown(volume.values_DHW)
    mask = np.zeros(volume.values_DHW.shape, bool)
    answers = view.shown(mask)
    for number in range(len(shown)):
        answers[number] = shown[number] > level
    write_nifti(tmp / "mask.nii.gz", mask, volume.affine)
    theirs, before = nibabel.load(tmp / "mask.nii.gz"), nibabel.load(source)
    assert np.array_equal(np.asarray(theirs.dataobj), (np.asarray(before.dataobj) > level).astype(np.uint8))
    assert np.allclose(theirs.affine, before.affine, rtol=1e-6, atol=1e-4)
    ours = read_nifti(tmp / "mask.nii.gz")
    assert np.array_equal(ours.values_DHW, mask)
    assert np.allclose(ours.affine, volume.affine, rtol=1e-6, atol=1e-4)
    return volume, view


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nifti")


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
@settings(max_examples=2)
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), dtype=st.sampled_from(DTYPES), form=st.sampled_from(["sform", "qform"]))
def test_a_mask_comes_back_on_the_same_voxels_in_each_of_48_orientations(folder, order, signs, shape, dtype, form):
    roundtrip(folder, random_array(shape, dtype), aligned(order, signs, (0.7, 0.8, 0.9)), form)


@settings(max_examples=100)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    sizes=st.tuples(*[st.floats(0.3, 8.0)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    mirrored=st.booleans(),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    dtype=st.sampled_from(DTYPES),
    form=st.sampled_from(["sform", "qform"]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_a_mask_comes_back_on_the_same_voxels_under_100_oblique_affines(
    folder, angles, sizes, origin, mirrored, shape, dtype, form, suffix
):
    affine = np.eye(4)
    affine[:3, :3] = nibabel.eulerangles.euler2mat(*angles) @ np.diag([-sizes[0] if mirrored else sizes[0], *sizes[1:]])
    affine[:3, 3] = origin
    roundtrip(folder, random_array(shape, dtype), affine, form, suffix)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_axial_slices_are_shown_alike_whatever_the_orientation_of_the_file(tmp_path, order, signs):
    source = save(tmp_path / "a.nii", random_array((4, 5, 6), np.int16), aligned(order, signs))
    volume = read_nifti(source)
    canonical = np.asarray(nibabel.as_closest_canonical(nibabel.load(source)).dataobj)  # x to the right, y to the front, z to the head
    shown = view_of(volume.affine).shown(volume.values_DHW)
    assert np.array_equal(shown, canonical.transpose(2, 1, 0)[:, ::-1, ::-1])  # from the feet; front up; the patient's right on the left


@pytest.mark.parametrize(
    ("thick", "shown"),
    [
        (0, lambda c: c.transpose(0, 2, 1)[::-1, ::-1, ::-1]),  # sagittal, from the right; head up; facing left
        (1, lambda c: c.transpose(1, 2, 0)[::-1, ::-1, ::-1]),  # coronal, from the front; head up; the patient's right on the left
        (2, lambda c: c.transpose(2, 1, 0)[:, ::-1, ::-1]),
    ],
)
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5])
def test_thick_slices_are_looked_at_as_they_were_acquired(tmp_path, thick, shown, order, signs):
    sizes = [6.0 if place == thick else 0.5 for place in order]
    source = save(tmp_path / "a.nii", random_array((4, 5, 6), np.int16), aligned(order, signs, sizes))
    volume = read_nifti(source)
    view = view_of(volume.affine)
    canonical = np.asarray(nibabel.as_closest_canonical(nibabel.load(source)).dataobj)
    assert np.array_equal(view.shown(volume.values_DHW), shown(canonical))
    assert view.spacing_mm == pytest.approx((6.0, 0.5, 0.5))
    assert view.across == thick
    assert view.has_sides == (thick != 0)


# ---------------------------------------------------------------- what a file may be


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 3), (4, 5, 1, 2)])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_two_to_four_dimensions_of_both_versions_and_byte_orders(tmp_path, shape, kind, endian):
    array = random_array(shape, np.int16)
    header = kind.header_class(endianness=endian)
    header.set_data_dtype(np.dtype(np.int16).newbyteorder(endian))
    nibabel.save(kind(array, np.eye(4), header), tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    first = array.reshape(*shape, *[1] * (4 - len(shape)))[..., 0]
    assert np.array_equal(volume.values_DHW, first.transpose(2, 1, 0))
    assert volume.warnings == (("multi_frame",) if len(shape) == 4 and shape[3] > 1 else ())
    assert read_nifti((tmp_path / "a.nii.gz").read_bytes()).values_DHW.tolist() == volume.values_DHW.tolist()


def test_stored_numbers_become_values_and_small_integers_stay_small(tmp_path):
    array = random_array((3, 4, 5), np.int16)
    assert read_nifti(save(tmp_path / "a.nii", array, np.eye(4))).values_DHW.dtype == np.int16
    raw = bytearray(save(tmp_path / "b.nii", array, np.eye(4)).read_bytes())
    raw[112:120] = struct.pack("<ff", 2.0, -1024.0)
    (tmp_path / "b.nii").write_bytes(raw)
    values = read_nifti(tmp_path / "b.nii").values_DHW
    assert values.dtype == np.float32
    assert np.array_equal(values.transpose(2, 1, 0), nibabel.load(tmp_path / "b.nii").get_fdata().astype(np.float32))
    assert read_nifti(save(tmp_path / "c.nii", array.astype(np.float64), np.eye(4))).values_DHW.dtype == np.float32


@pytest.mark.parametrize(("value", "slope"), [(np.nan, 0), (-np.inf, 0), (1e30, 3e38)])
def test_a_file_without_any_finite_number_is_refused(tmp_path, value, slope):
    raw = bytearray(save(tmp_path / "a.nii", np.full((3, 4, 5), value, np.float32), np.eye(4)).read_bytes())
    raw[112:120] = struct.pack("<ff", slope, 0)
    (tmp_path / "a.nii").write_bytes(raw)
    assert refused(tmp_path / "a.nii") == "not_finite"


def test_a_file_that_says_nothing_of_its_place_warns(tmp_path):
    volume = read_nifti(save(tmp_path / "a.nii", random_array((3, 4, 5), np.uint8), np.eye(4), form="none"))
    assert volume.warnings == ("orientation_assumed",)
    assert set(volume.warnings) <= set(WARNINGS)


def test_the_format_is_told_by_its_bytes_and_the_written_header_names_nobody(tmp_path):
    image = nibabel.Nifti1Image(random_array((3, 4, 5), np.int16), np.eye(4))
    image.header["descrip"] = b"DOE^JANE"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    nibabel.save(image, tmp_path / "a.nii")
    (tmp_path / "a.nii").rename(tmp_path / "a.txt")
    volume = read_nifti(tmp_path / "a.txt")
    assert volume.values_DHW.shape == (5, 4, 3)
    for name in ("x.nii.gz", "y.nii.gz"):
        write_nifti(tmp_path / name, volume.values_DHW > 0, volume.affine)
    assert (tmp_path / "x.nii.gz").read_bytes() == (tmp_path / "y.nii.gz").read_bytes()
    assert b"DOE" not in gzip.decompress((tmp_path / "x.nii.gz").read_bytes())


def test_metres_and_microns_become_millimetres(tmp_path):
    for unit, factor in (("meter", 1000.0), ("micron", 0.001), ("mm", 1.0)):
        image = nibabel.Nifti1Image(random_array((3, 4, 5), np.uint8), np.diag([2.0, 3.0, 4.0, 1.0]))
        image.header.set_xyzt_units(unit)
        nibabel.save(image, tmp_path / "a.nii")
        assert read_nifti(tmp_path / "a.nii").spacing_mm == pytest.approx((4 * factor, 3 * factor, 2 * factor))


@pytest.mark.parametrize("units", [130, 58, 66, 2, 0, 7])
def test_a_unit_of_time_that_nobody_knows_does_no_harm(tmp_path, units):
    nibabel.save(nibabel.Nifti1Image(random_array((3, 4, 5), np.uint8), np.diag([2.0, 3.0, 4.0, 1.0])), tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[123] = units
    (tmp_path / "a.nii").write_bytes(raw)
    assert read_nifti(tmp_path / "a.nii").spacing_mm == pytest.approx((4, 3, 2))


# ---------------------------------------------------------------- hostile files


def refused(path, limits=DEFAULT) -> str:
    with pytest.raises(InputError) as caught:
        read_nifti(path, limits)
    assert caught.value.fix
    return caught.value.code


def header_of(shape, dtype=np.int16) -> bytearray:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    header.set_sform(np.eye(4), 1)
    return bytearray(header.binaryblock + bytes(4))


def test_a_header_of_352_bytes_that_declares_4_teravoxels_is_refused_before_memory_is_taken(tmp_path):
    for name, pack in (("a.nii", bytes), ("a.nii.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(bytes(header_of((16384, 16384, 16384)))))
        assert refused(tmp_path / name) == "too_large"
        (tmp_path / name).write_bytes(pack(bytes(header_of((800, 800, 800), np.uint8))))  # within the budget, and not there
        tracemalloc.start()
        assert refused(tmp_path / name) == "truncated"
        assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
        tracemalloc.stop()


def test_a_gzip_bomb_unpacks_no_further_than_its_header_says(tmp_path):
    honest = bytes(header_of((10, 10, 10), np.uint8)) + bytes(1000)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(honest + bytes(200 * 2**20), 9))
    tracemalloc.start()
    assert read_nifti(tmp_path / "a.nii.gz").values_DHW.shape == (10, 10, 10)
    assert tracemalloc.get_traced_memory()[1] < 50 * 2**20
    tracemalloc.stop()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(200 * 2**20), 9))
    assert refused(tmp_path / "b.nii.gz") == "unsupported_format"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a * np.nan,
        lambda a: a * 0,
        lambda a: np.where(a == 1, np.inf, a),
        lambda a: np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ],
)
def test_an_affine_that_is_no_grid_is_refused(tmp_path, spoil):
    raw = header_of((2, 2, 2), np.uint8) + bytes(8)
    raw[280:328] = spoil(np.eye(4))[:3].astype("<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    assert refused(tmp_path / "a.nii") == "bad_affine"


@pytest.mark.parametrize("quaternion", [(np.nan, 0, 0), (1, 1, 1), (np.inf, 0, 0)])
def test_a_qform_that_is_no_rotation_is_refused(tmp_path, quaternion):
    raw = header_of((2, 2, 2), np.uint8) + bytes(8)
    raw[252:256] = struct.pack("<hh", 1, 0)
    raw[256:268] = struct.pack("<fff", *quaternion)
    (tmp_path / "a.nii").write_bytes(raw)
    assert refused(tmp_path / "a.nii") == "bad_affine"


def test_files_cut_at_every_tenth_are_truncated(tmp_path):
    save(tmp_path / "a.nii.gz", random_array((9, 9, 9), np.int16), np.eye(4))
    save(tmp_path / "a.nii", random_array((9, 9, 9), np.int16), np.eye(4))
    for name in ("a.nii", "a.nii.gz"):
        whole = (tmp_path / name).read_bytes()
        for tenth in range(1, 10):
            (tmp_path / f"cut-{name}").write_bytes(whole[: len(whole) * tenth // 10])
            assert refused(tmp_path / f"cut-{name}") == "truncated"
    damaged = bytearray((tmp_path / "a.nii.gz").read_bytes())
    damaged[len(damaged) // 2] ^= 255
    (tmp_path / "d.nii.gz").write_bytes(damaged)
    assert refused(tmp_path / "d.nii.gz") in ("corrupt", "truncated")


@pytest.mark.parametrize(
    ("place", "value", "code"),
    [
        (slice(40, 42), struct.pack("<h", 0), "corrupt"),  # dimensions
        (slice(40, 42), struct.pack("<h", 99), "corrupt"),
        (slice(42, 44), struct.pack("<h", -5), "corrupt"),
        (slice(42, 44), struct.pack("<h", 0), "corrupt"),
        (slice(70, 72), struct.pack("<h", 12345), "corrupt"),  # type of numbers
        (slice(70, 72), struct.pack("<h", 128), "unsupported_mode"),  # colour
        (slice(70, 72), struct.pack("<h", 32), "unsupported_mode"),  # complex
        (slice(108, 112), struct.pack("<f", np.nan), "corrupt"),  # place of the voxels
        (slice(108, 112), struct.pack("<f", -1e30), "corrupt"),
        (slice(108, 112), struct.pack("<f", 1e9), "truncated"),
        (slice(344, 348), b"ni1\0", "unsupported_format"),
        (slice(344, 348), b"\0\0\0\0", "unsupported_format"),
        (slice(0, 4), b"\0\0\0\0", "unsupported_format"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, place, value, code):
    raw = header_of((2, 2, 2), np.uint8) + bytes(8)
    raw[place] = value
    (tmp_path / "a.nii").write_bytes(raw)
    assert refused(tmp_path / "a.nii") == code


def test_five_dimensions_are_refused(tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 1, 3), np.uint8), np.eye(4)), tmp_path / "a.nii")
    assert refused(tmp_path / "a.nii") == "bad_shape"


def test_a_budget_can_be_raised(tmp_path):
    save(tmp_path / "a.nii", random_array((10, 10, 10), np.uint8), np.eye(4))
    assert refused(tmp_path / "a.nii", Limits(volume_bytes=3999)) == "too_large"
    assert read_nifti(tmp_path / "a.nii", Limits(volume_bytes=4000)).values_DHW.size == 1000
