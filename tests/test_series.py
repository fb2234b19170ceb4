"""Folders, zips and DICOMDIRs: series apart, slices by position, and what is odd is said."""

from __future__ import annotations

import io
import shutil
import stat
import zipfile
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from dicom_films import AXIAL, CORONAL, ENHANCED_CT, film, frames_of_one_file, write_stack
from dicom_sources import enhanced
from reportseg.errors import InputError
from reportseg.io import read_image
from reportseg.io.cases import is_volume, read_case, source_sha256
from reportseg.io.dicom_codes import meaning_of
from reportseg.io.dicom_out import Segment
from reportseg.io.dicom_seg import write_seg
from reportseg.io.series import films_in, find_series, read_volume, unpacked
from reportseg.limits import Limits

RNG = np.random.default_rng(0)
SLICES = RNG.integers(0, 4096, (6, 4, 5), np.uint16)


def only(folder: Path):
    series, failed = find_series(folder)
    assert not failed and len(series) == 1
    return series[0]


def test_slices_are_sorted_by_position_and_not_by_name_or_number(tmp_path):
    paths = write_stack(tmp_path, SLICES)
    order = [3, 0, 5, 1, 4, 2]
    for name, number in zip("abcdef", order, strict=True):
        paths[number].rename(tmp_path / name)
    series = only(tmp_path)
    assert series.stacked and series.modality == "CT" and series.warnings == () and series.id.startswith("case-")
    volume = read_volume(series)
    np.testing.assert_array_equal(volume.values_DHW, SLICES.astype(np.float32) - 1024)
    assert volume.spacing_mm == pytest.approx((2.0, 0.5, 0.7)) and len(volume.headers) == 6
    np.testing.assert_allclose(np.array(volume.affine) @ (2, 1, 3, 1), (3 * 0.7, 0.5, 4, 1))


def test_feet_first_and_coronal_stacks_keep_their_own_way(tmp_path):
    write_stack(tmp_path, SLICES, step=(0, 1.5, 0), cosines=(1, 0, 0, 0, 0, -1))
    volume = read_volume(only(tmp_path))
    np.testing.assert_array_equal(volume.values_DHW, SLICES.astype(np.float32) - 1024)
    np.testing.assert_allclose(np.array(volume.affine) @ (1, 1, 1, 1), (0.7, 1.5, -0.5, 1))


def test_each_slice_has_its_own_rescale(tmp_path):
    paths = write_stack(tmp_path, SLICES)
    for number, path in enumerate(paths):
        ds = pydicom.dcmread(path)
        ds.RescaleSlope = number + 1
        ds.save_as(path)
    expected = SLICES.astype(np.float32) * np.arange(1, 7, dtype=np.float32)[:, None, None] - 1024
    np.testing.assert_allclose(read_volume(only(tmp_path)).values_DHW, expected)


def test_gaps_duplicates_and_tilt_are_told(tmp_path):
    paths = write_stack(tmp_path / "gap", SLICES)
    paths[2].unlink()
    assert only(tmp_path / "gap").warnings == ("slice_gaps",)

    paths = write_stack(tmp_path / "twice", SLICES)
    again = pydicom.dcmread(paths[3])
    again.SOPInstanceUID, again.InstanceNumber = generate_uid(), 99
    again.save_as(tmp_path / "twice" / "again.dcm")
    (series, film), _ = find_series(tmp_path / "twice")
    assert series.warnings == film.warnings == ("duplicate_positions",) and series.files == tuple(paths)
    assert not film.stacked and [file.name for file in film.files] == ["again.dcm"] and film.id != series.id

    write_stack(tmp_path / "tilt", SLICES, step=(0.0, 0.3, 2.0))
    series = only(tmp_path / "tilt")
    assert series.warnings == ("gantry_tilt",)
    np.testing.assert_allclose(np.array(read_volume(series).affine) @ (2, 0, 0, 1), (0, 0.6, 4, 1))


@pytest.mark.parametrize(("missing", "planes"), [([2], (0, 1, 3, 4, 5)), ([1, 2], (0, 3, 4, 5))])
@pytest.mark.parametrize("step", [(0.0, 0.0, 2.0), (0.0, 0.5, 2.0), (0.0, 0.0, -2.0)])
def test_a_missing_slice_leaves_an_empty_plane_and_moves_no_other(tmp_path, missing, planes, step):
    paths = write_stack(tmp_path, SLICES, step=step)
    for number in missing:
        paths[number].unlink()
    volume = read_volume(only(tmp_path))
    if step[2] < 0:
        planes = tuple(5 - plane for plane in reversed(planes))
    assert volume.planes == planes
    for header, plane in zip(volume.headers, planes, strict=True):
        there = np.array(volume.affine) @ (plane, 0, 0, 1)
        np.testing.assert_allclose(there[:3], [float(v) for v in header.ImagePositionPatient], atol=1e-6)
    mask = np.ones(volume.values_DHW.shape, bool)
    assert volume.millilitres(mask) == pytest.approx(mask.sum() * 2 * 0.5 * 0.7 / 1000), "the normal tells the thickness"
    whole = volume.on_grid(mask)
    assert whole.shape == (6, 4, 5) and np.flatnonzero(whole.any(axis=(1, 2))).tolist() == list(planes)


@pytest.mark.parametrize(("heights", "ml"), [([0, 2, 4, 7, 10], 12.5), ([0, 1, 2, 200, 201], 5), ([0, 2, 4, 6, 8.5], 10.75)])
def test_slices_that_no_even_grid_holds_have_none(tmp_path, heights, ml):
    for path, height in zip(write_stack(tmp_path, SLICES[:5]), heights, strict=True):
        ds = pydicom.dcmread(path)
        ds.ImagePositionPatient, ds.PixelSpacing = [0, 0, height], [1, 1]
        ds.save_as(path)
    series = only(tmp_path)
    volume = read_volume(series)
    assert series.warnings == ("slice_gaps",) and volume.planes is None
    mask = np.zeros(volume.values_DHW.shape, bool)
    mask[:, 0, 0] = True
    assert volume.millilitres(mask) == pytest.approx(ml / 1000), (
        "a slice counts half the way to each neighbour, and the usual way where one is missing"
    )


def test_slices_shifted_against_each_other_by_more_than_half_a_pixel_have_no_grid(tmp_path):
    paths = write_stack(tmp_path, SLICES)
    ds = pydicom.dcmread(paths[3])
    ds.ImagePositionPatient = [0.5, 0, 6]
    ds.save_as(paths[3])
    assert only(tmp_path).warnings == ("slice_gaps", "gantry_tilt") and read_volume(only(tmp_path)).planes is None


def test_positions_that_were_rounded_are_even(tmp_path):
    for number, path in enumerate(write_stack(tmp_path, SLICES)):
        ds = pydicom.dcmread(path)
        ds.ImagePositionPatient = [0, 0, round(0.625 * number, 1)]
        ds.save_as(path)
    volume = read_volume(only(tmp_path))
    assert volume.warnings == () and volume.planes == tuple(range(6))


def test_directions_and_spacings_that_jitter_in_their_last_digit_are_one_stack(tmp_path):
    for number, path in enumerate(write_stack(tmp_path, SLICES)):
        ds, tilt = pydicom.dcmread(path), 0.12345 + number * 1e-6
        ds.ImageOrientationPatient = [f"{value:.9f}" for value in (1, 0, 0, 0, np.sqrt(1 - tilt**2), tilt)]
        ds.ImagePositionPatient = [f"{2 * number * value:.9f}" for value in (0, -0.12345, np.sqrt(1 - 0.12345**2))]
        ds.PixelSpacing = [f"{0.4994998 + number * 1e-7:.7f}", "0.7"]
        ds.save_as(path)
    assert only(tmp_path).warnings == () and len(only(tmp_path).files) == 6


def both(folder: Path, one: dict, other: dict) -> tuple[list, dict[str, list[Path]]]:
    """Two stacks of one series that differ in these elements; the series that are found, and the files of each stack by its value."""
    uid, files = generate_uid(), {}
    for name, tags in (("a", one), ("b", other)):
        files[name] = write_stack(folder / name, SLICES, SeriesInstanceUID=uid, **tags)
    found, failed = find_series(folder)
    assert not failed
    return found, files


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"PixelSpacing": [0.5, 0.5]}, {"PixelSpacing": [0.9, 0.9], "step": (0, 0, 3.0)}),
        ({"FrameOfReferenceUID": "1.2.3"}, {"FrameOfReferenceUID": "1.2.4", "step": (0, 0, 3.0)}),
        ({"PhotometricInterpretation": "MONOCHROME1"}, {"step": (0, 0, 3.0)}),
    ],
)
def test_slices_of_another_spacing_or_frame_are_a_stack_of_their_own(tmp_path, one, other):
    found, files = both(tmp_path, one, other)
    assert [(part.stacked, part.files) for part in found] == [(True, tuple(files[name])) for name in "ab"]
    assert all(part.warnings == ("mixed_grids",) for part in found) and found[0].id != found[1].id
    assert read_volume(found[0]).spacing_mm[0] == pytest.approx(2) and read_volume(found[1]).spacing_mm[0] == pytest.approx(3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"EchoTime": 2.3}, {"EchoTime": 4.6}),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}),
        ({"AcquisitionNumber": 1, "TriggerTime": 5}, {"AcquisitionNumber": 2, "TriggerTime": 6}),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M"]}, {"ImageType": ["ORIGINAL", "PRIMARY", "P"]}),
    ],
)
def test_echoes_and_phases_of_one_place_are_stacks_of_their_own(tmp_path, one, other):
    found, files = both(tmp_path, one, other)
    assert [(part.stacked, part.files) for part in found] == [(True, tuple(files[name])) for name in "ab"]
    assert all(part.warnings == ("several_phases",) for part in found) and found[0].id != found[1].id


def test_slices_that_only_their_numbers_tell_apart_are_stacks_in_that_order(tmp_path):
    found, files = both(tmp_path, {}, {})
    assert all(part.stacked and part.warnings == ("duplicate_positions",) for part in found)
    assert [sorted(part.files) for part in found] == [files["a"], files["b"]]


def test_two_echoes_in_three_phases_are_six_stacks(tmp_path):
    uid = generate_uid()
    for echo in (1, 2):
        for time in (1, 2, 3):
            tags = {"SeriesInstanceUID": uid, "EchoTime": echo, "TemporalPositionIdentifier": time, "TriggerTime": 7 * time + echo}
            write_stack(tmp_path / f"{echo}{time}", SLICES, **tags)
    found, _ = find_series(tmp_path)
    assert [(len(part.files), len({file.parent for file in part.files})) for part in found] == [(6, 1)] * 6


def test_one_slice_that_two_acquisitions_share_does_not_part_them(tmp_path):
    paths = write_stack(tmp_path, SLICES)
    for number, path in enumerate(paths):
        ds = pydicom.dcmread(path)
        ds.AcquisitionNumber = 1 if number < 3 else 2
        ds.save_as(path)
    seam = pydicom.dcmread(paths[2])
    seam.AcquisitionNumber, seam.SOPInstanceUID, seam.InstanceNumber = 2, generate_uid(), 9
    seam.save_as(tmp_path / "seam.dcm")
    found, _ = find_series(tmp_path)
    assert [len(part.files) for part in found] == [6, 1]


@pytest.mark.parametrize("broken", [{1: range(2)}, {1: range(2), 2: range(1)}, {1: range(2, 4)}])
def test_an_acquisition_that_was_broken_off_and_repeated_is_a_stack_of_its_own(tmp_path, broken):
    """However few slices it has: the repetition has every place, and none of its slices is another's."""
    uid, number = generate_uid(), 0
    for acquisition, places in {**broken, 3: range(6)}.items():
        for place in places:
            number += 1
            write_stack(
                tmp_path / str(number),
                SLICES[place : place + 1],
                SeriesInstanceUID=uid,
                InstanceNumber=number,
                AcquisitionNumber=acquisition,
                ImagePositionPatient=[0, 0, 2 * place],
            )
    whole, first, *more = find_series(tmp_path)[0]
    assert (
        whole.stacked and {pydicom.dcmread(file).AcquisitionNumber for file in whole.files} == {3} and whole.warnings == ("several_phases",)
    )
    assert {pydicom.dcmread(file).AcquisitionNumber for file in first.files} == {1} and first.warnings == ("several_phases",)
    assert [len(part.files) for part in more] == [1] * (len(broken) - 1)
    np.testing.assert_array_equal(read_volume(whole).values_DHW, SLICES.astype(np.float32) - 1024)


def test_films_that_claim_one_place_are_films_of_their_own(tmp_path):
    tags = {"SeriesInstanceUID": generate_uid(), "PixelSpacing": [1, 1]}
    tags |= {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    for number in (2, 1):
        (tmp_path / f"{3 - number}").write_bytes(film(SLICES[0], InstanceNumber=number, **tags))
    series = only(tmp_path)
    assert not series.stacked and series.warnings == ("duplicate_positions",)
    assert [file.name for file in series.files] == ["2", "1"]


def test_a_file_that_lies_there_twice_is_read_once(tmp_path):
    paths = write_stack(tmp_path, SLICES)
    shutil.copy(paths[1], tmp_path / "copy.dcm")
    series = only(tmp_path)
    assert series.files == tuple(paths) and series.warnings == ("duplicate_files",)


def test_slices_in_colour_and_slices_without_a_spacing_are_films(tmp_path):
    write_stack(tmp_path / "colour", np.zeros((3, 4, 5, 3), np.uint8), PhotometricInterpretation="RGB")
    write_stack(tmp_path / "unknown", SLICES, PixelSpacing=None)
    found, _ = find_series(tmp_path)
    assert [(part.stacked, len(part.files)) for part in found] == [(False, 3), (False, 6)]


def test_a_patient_who_lies_a_kilometre_away_has_no_place(tmp_path):
    write_stack(tmp_path, SLICES, step=(0, 0, 1e300))
    assert not only(tmp_path).stacked or len(only(tmp_path).files) == 1


def test_localisers_and_other_orientations_are_kept_apart(tmp_path):
    paths = write_stack(tmp_path, SLICES)
    uid = pydicom.dcmread(paths[0]).SeriesInstanceUID
    other = {"SeriesInstanceUID": uid, "Modality": "CT", "PixelSpacing": [1, 1]}
    scout = other | {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImagePositionPatient": [0, 0, 0]}
    (tmp_path / "scout").write_bytes(film(SLICES[0], ImageOrientationPatient=[1, 0, 0, 0, 0, -1], **scout))
    for n in range(2):
        place = {"ImagePositionPatient": [0, n, 0], "ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
        (tmp_path / f"coronal{n}").write_bytes(film(SLICES[n], **place, **other))
    found, _ = find_series(tmp_path)
    assert sorted((part.stacked, len(part.files)) for part in found) == [(False, 1), (True, 2), (True, 6)]
    assert all({"mixed_orientations", "localiser"} <= set(part.warnings) for part in found)
    assert len({part.id for part in found}) == 3


def test_series_are_told_apart_and_other_files_passed_over(tmp_path):
    write_stack(tmp_path / "a", SLICES)
    write_stack(tmp_path / "b", SLICES[:3])
    (tmp_path / "c").write_bytes(film(SLICES[0]))
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "loop").symlink_to(tmp_path)
    found, failed = find_series(tmp_path)
    assert sorted(len(part.files) for part in found) == [1, 3, 6] and not failed
    assert [part.stacked for part in found if len(part.files) == 1] == [False]


def test_a_damaged_file_is_named_and_the_others_are_read(tmp_path):
    paths = write_stack(tmp_path, SLICES)
    paths[5].write_bytes(paths[5].read_bytes()[:300])
    bad = pydicom.dcmread(paths[4])
    bad.Rows = 0
    bad.save_as(paths[4])
    found, failed = find_series(tmp_path)
    assert len(found[0].files) == 4
    assert [file for file, _ in failed] == paths[4:]


def test_an_enhanced_file_is_a_stack_of_its_own(tmp_path):
    heights = [4, 0, 6, 2, 10, 8]
    (tmp_path / "enhanced").write_bytes(frames_of_one_file(SLICES, [(0, 0, height) for height in heights]))
    series = only(tmp_path)
    volume = read_volume(series)
    order = np.argsort(heights)
    assert series.stacked and volume.frames == tuple(order + 1) and volume.spacing_mm == pytest.approx((2, 0.5, 0.7))
    np.testing.assert_array_equal(volume.values_DHW, SLICES[order].astype(np.float32) - 1024)


def test_enhanced_files_of_one_frame_each_are_one_stack(tmp_path):
    uids = {"SeriesInstanceUID": generate_uid(), "StudyInstanceUID": generate_uid(), "FrameOfReferenceUID": generate_uid()}
    heights = [4, 0, 6, 2, 10, 8]
    for number, height in enumerate(heights):
        body = frames_of_one_file(SLICES[number : number + 1], [(0, 0, height)], InstanceNumber=number + 1, **uids)
        (tmp_path / f"{number}").write_bytes(body)
    series, order = only(tmp_path), np.argsort(heights)
    volume = read_volume(series)
    assert series.stacked and series.warnings == () and volume.frames == () and volume.spacing_mm == pytest.approx((2, 0.5, 0.7))
    np.testing.assert_array_equal(volume.values_DHW, SLICES[order].astype(np.float32) - 1024)
    masks = SLICES[order] > 2000
    write_seg(tmp_path / "a.seg.dcm", volume.headers, [Segment(meaning_of("spleen"), masks, masks)], "ab" * 32)
    seg = hd.seg.segread(tmp_path / "a.seg.dcm")
    found = seg.get_pixels_by_source_instance([header.SOPInstanceUID for header in volume.headers])
    np.testing.assert_array_equal(found[..., 0], masks)
    assert {str(element.value) for element in seg.iterall() if element.keyword == "ReferencedSOPClassUID"} == {ENHANCED_CT}


ONCE, TWICE = [(0, 0, 0), (0, 0, 2), (0, 0, 4)], [(0, 0, 0), (0, 0, 2), (0, 0, 4)] * 2
FRAMES = {
    "phases": (TWICE, None, {"TemporalPositionIdentifier": [1, 1, 1, 2, 2, 2]}),
    "phases that take turns": (sorted(TWICE), None, {"EchoTime": [3, 9, 3, 9, 3, 9]}),
    "numbers alone": (TWICE, None, {}),
    "orientations": (ONCE + [(0, 0, 0), (0, 3, 0), (0, 6, 0)], [AXIAL] * 3 + [CORONAL] * 3, {}),
    "a frame without a place": ([*ONCE, (0, 0, 6), (0, 0, 8), None], None, {}),
    "a first frame without a place": ([None, *ONCE, (0, 0, 6), (0, 0, 8)], None, {}),
    "a localiser": (
        [*ONCE, (0, 0, 6), (0, 0, 8), (0, 0, 4)],
        [AXIAL] * 5 + [CORONAL],
        {"ImageType": [["ORIGINAL", "PRIMARY", "AXIAL"]] * 5 + [["LOCALIZER"]]},
    ),
    "one place": ([(0, 0, 0)] * 6, None, {"TemporalPositionIdentifier": [1, 2, 3, 4, 5, 6]}),
    "a gap": ([*ONCE, (0, 0, 8), (0, 0, 10), (0, 0, 12)], None, {}),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_one_file_are_sorted_by_the_rule_for_single_files(tmp_path, name):
    places, ways, told = FRAMES[name]
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "file").write_bytes(frames_of_one_file(SLICES, places, ways, told))
    uid = generate_uid()
    (tmp_path / "many").mkdir()
    for number, place in enumerate(places):
        own = {keyword: values[number] for keyword, values in told.items()} | ({"ImagePositionPatient": list(place)} if place else {})
        own |= {"ImageOrientationPatient": list(ways[number] if ways else AXIAL), "PixelSpacing": [0.5, 0.7], "InstanceNumber": number}
        own |= {"Modality": "CT", "SeriesInstanceUID": uid, "RescaleSlope": 1, "RescaleIntercept": -1024}
        (tmp_path / "many" / str(number)).write_bytes(film(SLICES[number], **own))
    one, many = (find_series(tmp_path / folder)[0] for folder in ("one", "many"))
    stacks, wanted = ([series for series in found if series.stacked] for found in (one, many))
    assert len(stacks) == len(wanted) and len({series.id for series in stacks}) == len(stacks)
    films = any(not series.stacked for series in many)
    for series, other in zip(stacks, wanted, strict=True):
        assert series.warnings == (*other.warnings, *(["loose_frames"] if films else []))
        np.testing.assert_array_equal(read_volume(series).values_DHW, read_volume(other).values_DHW)
        assert read_volume(series).affine == read_volume(other).affine
    if not stacks:
        assert [(series.stacked, series.warnings) for series in one] == [(False, many[0].warnings)]


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("TemporalPositionIndex", [1, 1, 1, 2, 2, 2]),
        ("EffectiveEchoTime", [2.5, 2.5, 2.5, 4.5, 4.5, 4.5]),
        ("DiffusionBValue", [0, 0, 0, 800, 800, 800]),
        ("FrameType", [["ORIGINAL", "PRIMARY", "M"]] * 3 + [["ORIGINAL", "PRIMARY", "P"]] * 3),
        ("FrameAcquisitionNumber", [1, 1, 1, 2, 2, 2]),
        ("NominalCardiacTriggerDelayTime", [0, 0, 0, 70, 70, 70]),
    ],
)
def test_phases_in_one_file_are_told_by_the_names_that_frames_give_them(tmp_path, keyword, values):
    order = [3, 1, 5, 0, 4, 2]
    told = {keyword: [values[place] for place in order]}
    (tmp_path / "file").write_bytes(frames_of_one_file(SLICES, [TWICE[place] for place in order], told=told))
    stacks, _ = find_series(tmp_path)
    assert sorted(series.frames for series in stacks) == [(3, 1, 5), (0, 4, 2)][::-1]
    assert all(series.warnings == ("several_phases",) and series.stacked for series in stacks)


def test_each_phase_of_a_file_is_a_case_and_in_a_table_the_file_is_none(tmp_path):
    file, single = tmp_path / "Doe^Jane.dcm", tmp_path / "film.dcm"
    file.write_bytes(frames_of_one_file(SLICES, TWICE, told={"TemporalPositionIndex": [1, 1, 1, 2, 2, 2]}))
    single.write_bytes(film(SLICES[0]))
    with films_in([file, single]) as (films, found, stacks):
        assert len(set(films)) == 3 and films[0].parent == films[1].parent == file and films[2] == single
        assert [read_case(film, stacks).frames for film in films[:2]] == [(1, 2, 3), (4, 5, 6)]
        assert source_sha256(films[0], stacks) == source_sha256(films[1], stacks)
        assert len(found) == 2 and all("3 slices, several_phases" in line for line in found)
    assert is_volume(file, {})
    with pytest.raises(InputError) as caught:
        read_case(file, {})
    assert caught.value.code == "several_series" and "2 volumes" in caught.value.what


def test_a_volume_in_one_file_is_no_film(tmp_path):
    for name, places in (("one", [(0, 0, height) for height in range(6)]), ("two", TWICE)):
        (tmp_path / name).write_bytes(frames_of_one_file(SLICES, places))
        for source in (tmp_path / name, (tmp_path / name).read_bytes()):
            with pytest.raises(InputError) as caught:
                read_image(source)
            assert caught.value.code == "volume" and "predict" in caught.value.fix
    (tmp_path / "three").write_bytes(frames_of_one_file(SLICES, [None, *ONCE, (0, 0, 6), (0, 0, 8)]))
    with pytest.raises(InputError) as caught:
        read_image(tmp_path / "three")
    assert caught.value.code == "volume"
    loop = read_image(frames_of_one_file(SLICES, [(0, 0, 0)] * 6))  # of one place: a loop
    assert "multi_frame" in loop.warnings


def test_frames_by_the_hundred_keep_their_places_in_a_sequence_of_defined_length(tmp_path):
    count = 3000
    source = enhanced(count, 2)
    for name, undefined in (("defined", False), ("undefined", True)):
        source["PerFrameFunctionalGroupsSequence"].is_undefined_length = undefined
        (tmp_path / name).mkdir()
        source.save_as(tmp_path / name / "mr", enforce_file_format=True)
        series = only(tmp_path / name)
        assert series.stacked and read_volume(series).spacing_mm == pytest.approx((2, 0.7, 0.8))
    assert len((tmp_path / "defined" / "mr").read_bytes()) > 2**18 + 1000


def test_a_segmentation_beside_its_films_is_no_film(tmp_path):
    write_stack(tmp_path, SLICES, Modality="MR")
    (tmp_path / "seg").write_bytes(film(SLICES[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG"))
    assert only(tmp_path).modality == "MR"


def test_a_folder_without_films_says_so(tmp_path):
    with pytest.raises(InputError) as caught:
        find_series(tmp_path)
    assert caught.value.code == "no_dicom"


def test_a_volume_above_the_limit_is_refused_before_it_is_decoded(tmp_path):
    write_stack(tmp_path, SLICES)
    with pytest.raises(InputError) as caught:
        read_volume(only(tmp_path), Limits(volume_bytes=SLICES.size * 4 - 1))
    assert caught.value.code == "too_large"


# ---- archives


def packed(path: Path, members: dict[str, bytes], **options) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, body in members.items():
            archive.writestr(name, body)
    return path


def test_a_zip_is_read_like_its_folder_and_leaves_nothing_behind(tmp_path):
    paths = write_stack(tmp_path / "in", SLICES)
    archive = packed(tmp_path / "all.zip", {f"Mustermann^Max/{p.name}": p.read_bytes() for p in paths})
    with films_in([archive, tmp_path / "film.png"]) as (films, found, stacks):
        assert len(films) == 2 and films[-1] == tmp_path / "film.png" and len(found) == 1 and "6 slices" in found[0]
        assert list(stacks) == films[:1]
        assert [f.read_bytes() for f in stacks[films[0]].files] == [p.read_bytes() for p in paths]
        assert not any("Mustermann" in str(f) for f in films)
    assert not films[0].parent.exists()


@pytest.mark.parametrize("name", ["../out.dcm", "/etc/out.dcm", "a/../../out.dcm", "C:\\out.dcm", "..\\out.dcm"])
def test_a_path_that_leads_out_is_refused(tmp_path, name):
    check_refused(packed(tmp_path / "bad.zip", {name: film(SLICES[0])}), "zip_member")


def test_links_archives_and_bombs_in_an_archive_are_refused(tmp_path):
    inner = io.BytesIO()
    packed(inner, {"a": b"x"})
    check_refused(packed(tmp_path / "nested.zip", {"inner.zip": inner.getvalue()}), "zip_member")
    check_refused(packed(tmp_path / "bomb.zip", {"bomb": bytes(50 * 2**20)}), "too_large")
    check_refused(packed(tmp_path / "many.zip", {str(n): b"" for n in range(30)}), "too_large", Limits(members=20))
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    check_refused(tmp_path / "link.zip", "zip_member")
    whole = packed(tmp_path / "whole.zip", {"a": film(SLICES[0])}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[:-40])
    check_refused(tmp_path / "cut.zip", "corrupt")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_with_bytes_changed_is_refused_and_stops_no_other(tmp_path, method):
    paths = write_stack(tmp_path / "ct", SLICES)
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", method) as archive:
        archive.writestr("a", film(RNG.integers(0, 50, (64, 64), np.uint16)))
    whole = (tmp_path / "bad.zip").read_bytes()
    for start in (60, 80, 200):  # within the packed stream
        harm = bytes(value ^ 0xA5 for value in whole[start : start + 40])
        (tmp_path / "bad.zip").write_bytes(whole[:start] + harm + whole[start + 40 :])
        check_refused(tmp_path / "bad.zip", "corrupt")
        with films_in([tmp_path / "bad.zip", paths[0]]) as (films, _, _):
            assert films == [tmp_path / "bad.zip", paths[0]]


def test_an_archive_with_a_byte_flipped_anywhere_never_crashes(tmp_path):
    whole = packed(tmp_path / "a.zip", {"a": film(SLICES[0, :2, :2])}).read_bytes()
    refused = 0
    for place in range(4, len(whole)):
        (tmp_path / "a.zip").write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        try:
            with unpacked(tmp_path / "a.zip"):
                pass
        except InputError:
            refused += 1
    assert refused > len(whole) / 2


def test_what_cannot_be_opened_stands_among_the_films_and_stops_no_other(tmp_path):
    paths = write_stack(tmp_path / "ct", SLICES)
    (tmp_path / "empty").mkdir()
    cut = packed(tmp_path / "cut.zip", {"a": film(SLICES[0])})
    cut.write_bytes(cut.read_bytes()[:-40])
    with films_in([tmp_path / "empty", cut, tmp_path / "ct", tmp_path / "gone"]) as (films, found, stacks):
        assert films == [tmp_path / "empty", cut, films[2], tmp_path / "gone"] and len(found) == 1
        assert [stacks[file].code for file in films[:2]] == ["no_dicom", "corrupt"]
        assert stacks[films[2]].files == tuple(paths)


@pytest.mark.parametrize("given", [["ct", "ct/000.dcm"], ["ct/000.dcm", "ct"], ["ct/000.dcm", "ct", "ct"]])
def test_a_folder_is_a_volume_and_its_first_file_beside_it_a_film(tmp_path, given):
    write_stack(tmp_path / "ct", SLICES)
    with films_in([tmp_path / name for name in given]) as (films, _, stacks):
        assert len(set(films)) == len(given)
        for name, path in zip(given, films, strict=True):
            assert (path in stacks) == (name == "ct") == is_volume(path, stacks)
            if name == "ct":
                assert read_case(path, stacks).values_DHW.shape == SLICES.shape
            else:
                assert read_image(path).pixels_HWC.shape == (4, 5, 1)


def check_refused(path: Path, code: str, limits: Limits | None = None) -> None:
    with pytest.raises(InputError) as caught, unpacked(path, limits or Limits()):
        pass
    assert caught.value.code == code


DICOMDIRS = Path(pydicom.__file__).parent / "data" / "test_files" / "dicomdirtests"


@pytest.mark.parametrize("lost", [[], ["98892003"]])
def test_pydicoms_dicomdir_leads_to_its_films_and_tells_what_is_not_there(tmp_path, lost):
    shutil.copy(DICOMDIRS / "DICOMDIR", tmp_path / "DICOMDIR")
    for name in ("77654033", "98892001", "98892003"):
        if name not in lost:
            shutil.copytree(DICOMDIRS / name, tmp_path / name)
    with films_in([tmp_path / "DICOMDIR"]) as (films, found, stacks):
        if lost:
            error = stacks[films.pop()]
            assert error.code == "missing" and error.what == "the DICOMDIR names 17 files that are not there, of 31"
        assert sum(len(stacks[film].files) if film in stacks else 1 for film in films) == (14 if lost else 31) and len(found) >= 4


def test_a_record_that_is_out_of_use_misses_no_file(tmp_path):
    medium = pydicom.dcmread(DICOMDIRS / "DICOMDIR")
    for record in medium.DirectoryRecordSequence:
        if "98892003" in (record.get("ReferencedFileID") or ""):
            record.RecordInUseFlag = 0
    medium.save_as(tmp_path / "DICOMDIR")
    for name in ("77654033", "98892001"):
        shutil.copytree(DICOMDIRS / name, tmp_path / name)
    with films_in([tmp_path / "DICOMDIR"]) as (films, _, _):
        assert tmp_path / "DICOMDIR" not in films


def test_a_dicomdir_in_capitals_beside_small_letters_misses_nothing(tmp_path):
    shutil.copy(DICOMDIRS / "DICOMDIR", tmp_path / "dicomdir")
    for folder in ("77654033", "98892001", "98892003"):
        for file in (DICOMDIRS / folder).rglob("*"):
            if file.is_file():
                copy = tmp_path / str(file.relative_to(DICOMDIRS)).lower()
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
    with films_in([tmp_path / "dicomdir"]) as (films, _, _):
        assert tmp_path / "dicomdir" not in films


def test_a_dicomdir_whose_records_cannot_be_read_fails_and_its_films_do_not(tmp_path):
    paths = write_stack(tmp_path / "ct", SLICES)
    body = (DICOMDIRS / "DICOMDIR").read_bytes()
    place = body.index(b"\x04\0\x20\x12SQ")
    (tmp_path / "DICOMDIR").write_bytes(body[: place + 4] + b"OB" + body[place + 6 :])
    with films_in([tmp_path / "DICOMDIR"]) as (films, _, stacks):
        assert stacks[films[0]].files == tuple(paths)
        assert films[1:] == [tmp_path / "DICOMDIR"] and isinstance(stacks[films[1]], InputError)


def test_a_preamble_that_looks_like_a_zip_makes_none(tmp_path):
    """Neither of a DICOMDIR nor of a film in an archive."""
    write_stack(tmp_path / "cd" / "ct", SLICES)
    (tmp_path / "cd" / "DICOMDIR").write_bytes(b"PK\3\4".ljust(128, b"\0") + (DICOMDIRS / "DICOMDIR").read_bytes()[128:])
    with films_in([tmp_path / "cd" / "DICOMDIR"]) as (films, _, stacks):
        assert len(stacks[films[0]].files) == 6
    one = b"PK\3\4".ljust(128, b"\0") + film(SLICES[0])[128:]
    with films_in([packed(tmp_path / "a.zip", {"one": one, "two": film(SLICES[1])})]) as (films, _, _):
        assert len(films) == 2


def test_the_header_of_a_volume_in_one_file_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(frames_of_one_file(SLICES, [(0, 0, height) for height in range(6)]))
    with films_in([tmp_path / "file"]) as (films, _, stacks):
        monkeypatch.setattr("reportseg.io.cases.stacks_in", None)
        assert films == [tmp_path / "file"] and is_volume(films[0], stacks)
        assert read_case(films[0], stacks).values_DHW.shape == SLICES.shape
