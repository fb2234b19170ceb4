"""DICOM objects of ours: the same pixels, the right words, no word too many, and refusals that tell what to do."""

from __future__ import annotations

import warnings

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.uid import generate_uid

from dicom_sources import PATIENT, PLANTED, cine, enhanced, film, slices
from reportseg.errors import InputError
from reportseg.io import dicom_codes
from reportseg.io.contours import contours, enclosed
from reportseg.io.dicom_codes import Concept, meaning_of
from reportseg.io.dicom_gsps import POINTS, write_gsps
from reportseg.io.dicom_out import LONGEST_TEXT, Packed, Segment, planes, short_text
from reportseg.io.dicom_sc import write_sc
from reportseg.io.dicom_seg import write_seg
from reportseg.types import INTENDED_USE

SHA = "ab" * 32
TEXT = "Opacity in the left lower zone of Mr Quux"


def segment(source, frames: int = 1, prompt: str = "spleen", seed: int = 0, empty: bool = False, text: str = "") -> Segment:
    """A blob with a ragged edge, another one in every frame; not symmetric in any direction."""
    rng = np.random.default_rng(seed)
    height, width = source.Rows, source.Columns
    mask = np.zeros((frames, height, width), bool)
    if not empty:
        mask[:, height // 8 : height // 2, width // 5 : width // 3] = True
        mask &= rng.random(mask.shape) > 0.2
    return Segment(meaning_of(prompt), mask, np.where(mask, rng.random(mask.shape), 0).astype(np.float32), text)


# ---------------------------------------------------------------- SEG

CASES = {
    "cr": (lambda: [film("CR")], 1),
    "dx with spacing": (lambda: [film("DX", wide=7)], 1),
    "ct": (lambda: slices("CT"), 5),
    "oblique mr without thickness": (lambda: slices("MR", oblique=True), 5),
    "one slice": (lambda: slices("CT", count=1), 1),
    "enhanced mr": (lambda: [enhanced()], 4),
    "ultrasound": (lambda: [cine()], 1),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    make, frames = CASES[request.param]
    return make(), frames


def read_back(path, sources, frames: int) -> np.ndarray:
    """The masks (F, H, W, S) as highdicom finds them for the sources."""
    seg = hd.seg.segread(path)
    if "NumberOfFrames" in sources[0]:
        return seg.get_pixels_by_source_frame(sources[0].SOPInstanceUID, list(range(1, frames + 1)))
    return seg.get_pixels_by_source_instance([source.SOPInstanceUID for source in sources])


@pytest.mark.parametrize("probabilities", [False, True])
def test_a_seg_has_the_masks_on_the_pixels_of_its_sources(tmp_path, case, probabilities):
    sources, frames = case
    segments = [segment(sources[0], frames), segment(sources[0], frames, "right pleural effusion", 1)]
    write_seg(tmp_path / "a.dcm", sources, segments, SHA, probabilities=probabilities)
    back = read_back(tmp_path / "a.dcm", sources, frames)
    wanted = np.stack([one.probability_FHW if probabilities else one.mask_FHW for one in segments], -1)
    assert back.shape == wanted.shape
    assert np.abs(back - wanted).max() <= (0.5 / 255 + 1e-6 if probabilities else 0)
    assert pydicom.dcmread(tmp_path / "a.dcm").SegmentationType == ("FRACTIONAL" if probabilities else "BINARY")


def test_empty_segments_are_kept_beside_others_and_alone(tmp_path, case):
    sources, frames = case
    empty = segment(sources[0], frames, "left pneumothorax", empty=True)
    for segments in ([empty], [segment(sources[0], frames), empty]):
        write_seg(tmp_path / "a.dcm", sources, segments, SHA)
        back = read_back(tmp_path / "a.dcm", sources, frames)
        assert (back == np.stack([one.mask_FHW for one in segments], -1)).all()
        assert not back[..., -1].any()


def test_each_voxel_of_a_volume_lies_where_its_slice_does(tmp_path):
    for sources in (slices("CT"), slices("MR", oblique=True), slices("CT", gap_mm=-3)):
        write_seg(tmp_path / "a.dcm", sources, [segment(sources[0], len(sources))], SHA)
        out = pydicom.dcmread(tmp_path / "a.dcm")
        shared = out.SharedFunctionalGroupsSequence[0]
        assert out.FrameOfReferenceUID == sources[0].FrameOfReferenceUID
        assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == sources[0].ImageOrientationPatient
        assert shared.PixelMeasuresSequence[0].PixelSpacing == [0.7, 0.8]
        place = {source.SOPInstanceUID: source.ImagePositionPatient for source in sources}
        for group in out.PerFrameFunctionalGroupsSequence:
            source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
            assert np.allclose(group.PlanePositionSequence[0].ImagePositionPatient, place[source], atol=1e-6)


def test_frames_of_a_multi_frame_file_in_another_order_go_back_to_their_own(tmp_path):
    source, found = enhanced(4), segment(enhanced(4), 4)
    order = [3, 1, 4, 2]
    turned = Segment(found.meaning, found.mask_FHW[np.array(order) - 1], found.probability_FHW)
    write_seg(tmp_path / "a.dcm", [source], [turned], SHA, frames=order)
    assert (read_back(tmp_path / "a.dcm", [source], 4)[..., 0] == found.mask_FHW).all()


@pytest.mark.parametrize("probabilities", [False, True])
def test_some_frames_of_a_multi_frame_file_have_masks_and_the_others_none(tmp_path, probabilities):
    for source, frames in ((enhanced(5), [4, 2]), (cine(3), [3])):
        found = [segment(source, len(frames), seed=n) for n in range(2)]
        write_seg(tmp_path / "a.dcm", [source], found, SHA, frames=frames, probabilities=probabilities)
        out = pydicom.dcmread(tmp_path / "a.dcm")
        seen = {}
        for pixels, group in zip(out.pixel_array.reshape(-1, 32, 32), out.PerFrameFunctionalGroupsSequence, strict=True):
            number = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
            seen[number, group.SegmentIdentificationSequence[0].ReferencedSegmentNumber] = pixels
        assert {number for number, _ in seen} == set(frames)
        for row, number in enumerate(frames):
            for place, one in enumerate(found, 1):
                wanted = np.rint(one.probability_FHW[row] * 255) if probabilities else one.mask_FHW[row]
                assert (seen[number, place] == wanted).all()


def test_frames_of_one_phase_have_masks_though_another_phase_lies_at_their_places(tmp_path):
    source = enhanced(6)
    for number, group in enumerate(source.PerFrameFunctionalGroupsSequence):
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 2 * (number // 2)]
    source.PerFrameFunctionalGroupsSequence[5].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]  # a localiser
    found, empty = segment(source, 3), segment(source, 3, "left pneumothorax", empty=True)
    write_seg(tmp_path / "a.dcm", [source], [found, empty], SHA, frames=[1, 3, 5])
    out = pydicom.dcmread(tmp_path / "a.dcm")
    seen = {}
    for pixels, group in zip(out.pixel_array, out.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        seen[number, group.SegmentIdentificationSequence[0].ReferencedSegmentNumber] = pixels
        assert group.PlanePositionSequence[0].ImagePositionPatient == [0, 0, 2 * ((number - 1) // 2)]
    assert set(seen) == {(number, place) for number in (1, 3, 5) for place in (1, 2)}
    assert all((seen[number, 1] == found.mask_FHW[row]).all() for row, number in enumerate((1, 3, 5)))


def test_frames_whose_bits_end_inside_a_byte_and_masks_that_overlap(tmp_path):
    sources = slices("CT", count=11, size=5)
    rng = np.random.default_rng(0)
    masks = [rng.random((11, 5, 5)) > 0.5 for _ in range(2)]
    for pair, overlap in ((masks, "YES"), ([masks[0], masks[1] & ~masks[0]], "NO")):
        segments = [Segment(meaning_of("spleen"), Packed(mask), Packed(mask.astype(np.uint8))) for mask in pair]
        write_seg(tmp_path / "a.dcm", sources, segments, SHA)
        assert (read_back(tmp_path / "a.dcm", sources, 11) == np.stack(pair, -1)).all()
        assert pydicom.dcmread(tmp_path / "a.dcm").SegmentsOverlap == overlap


def test_a_film_without_a_place_keeps_its_orientation_and_spacing_and_gets_no_geometry(tmp_path):
    source = film("DX", wide=7)
    write_seg(tmp_path / "a.dcm", [source], [segment(source)], SHA)
    out = pydicom.dcmread(tmp_path / "a.dcm")
    assert out.PatientOrientation == ["L", "F"]
    assert out.PixelSpacing == [0.2, 0.3]
    assert "FrameOfReferenceUID" not in out
    assert not {"PlaneOrientationSequence", "PixelMeasuresSequence"} & set(out.SharedFunctionalGroupsSequence[0].dir())
    source.FrameOfReferenceUID, source.PatientOrientation = generate_uid(), ["ROTATED", ""]
    write_seg(tmp_path / "a.dcm", [source], [segment(source)], SHA)
    out = pydicom.dcmread(tmp_path / "a.dcm")
    assert out.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert not out.PatientOrientation  # not a legal one


def test_a_seg_says_what_it_is_and_who_made_it(tmp_path):
    source = film()
    write_seg(tmp_path / "a.dcm", [source], [segment(source), segment(source, prompt="left pleural effusion")], SHA)
    out = pydicom.dcmread(tmp_path / "a.dcm")
    assert out.SeriesDescription.startswith("RESEARCH USE ONLY")
    assert [one.SegmentDescription for one in out.SegmentSequence] == [INTENDED_USE, INTENDED_USE]
    assert [one.SegmentLabel for one in out.SegmentSequence] == ["spleen", "pleural effusion"]
    assert [one.SegmentedPropertyTypeCodeSequence[0].CodeValue for one in out.SegmentSequence] == ["78961009", "60046008"]
    assert out.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert SHA in out.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmParameters
    assert out.StudyInstanceUID == source.StudyInstanceUID
    assert out.SeriesInstanceUID != source.SeriesInstanceUID


# ---------------------------------------------------------------- presentation state


def graphics(out) -> list[np.ndarray]:
    """Lines of all findings, pieces joined."""
    lines: list[np.ndarray] = []
    for annotation in out.GraphicAnnotationSequence:
        for item in annotation.get("GraphicObjectSequence", []):
            part = np.array(item.GraphicData).reshape(-1, 2)
            assert len(part) == item.NumberOfGraphicPoints <= POINTS
            goes_on = lines and (lines[-1][0] != lines[-1][-1]).any()
            lines = [*lines[:-1], np.concatenate([lines[-1], part[1:]])] if goes_on else [*lines, part]
    return lines


@pytest.mark.parametrize("source", [film("CR"), film("DX", wide=7), slices(count=1)[0], cine()], ids=["cr", "dx", "ct", "us"])
def test_contours_of_a_presentation_state_enclose_the_mask(tmp_path, source):
    found = segment(source)
    write_gsps(tmp_path / "a.dcm", source, [found], SHA)
    out = pydicom.dcmread(tmp_path / "a.dcm")
    assert (enclosed(graphics(out), found.mask_FHW[0].shape) == found.mask_FHW[0]).all()
    assert out.ReferencedSeriesSequence[0].ReferencedImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID


def test_a_line_longer_than_an_element_holds_goes_on_in_the_next(tmp_path):
    source = film(size=256)
    comb = np.zeros((1, 256, 256), bool)
    comb[:, 2:-2, 2:-2:2] = True
    comb[:, 2, 2:-2] = True
    comb[:, :, ::4] &= np.arange(256)[:, None] % 3 > 0  # ragged teeth: many bends
    comb[:, 2, 2:-2] = True
    assert max(len(line) for line in contours(comb[0])) < POINTS < 3 * 10**4  # so the limit is lowered for the test
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reportseg.io.dicom_gsps.POINTS", 50)
        write_gsps(tmp_path / "a.dcm", source, [Segment(meaning_of("spleen"), comb, comb.astype(np.float32))], SHA)
    out = pydicom.dcmread(tmp_path / "a.dcm")
    assert max(item.NumberOfGraphicPoints for item in out.GraphicAnnotationSequence[0].GraphicObjectSequence) == 50
    assert (enclosed(graphics(out), (256, 256)) == comb[0]).all()


def test_a_presentation_state_has_a_layer_a_finding_and_the_intended_use(tmp_path):
    source = film("DX")
    write_gsps(tmp_path / "a.dcm", source, [segment(source), segment(source, prompt="left pneumothorax", empty=True)], SHA)
    out = pydicom.dcmread(tmp_path / "a.dcm")
    texts = [item.UnformattedTextValue for one in out.GraphicAnnotationSequence for item in one.TextObjectSequence]
    assert texts == ["1 spleen", f"{INTENDED_USE} 2 pneumothorax: no area."]
    assert [layer.GraphicLayer for layer in out.GraphicLayerSequence] == ["FINDING1", "NOTICE"]
    assert out.SeriesDescription.startswith("RESEARCH USE ONLY")


def test_a_presentation_state_keeps_the_look_of_the_film(tmp_path):
    for kind, shape in (("CR", "IDENTITY"), ("DX", "INVERSE")):
        source = film(kind)
        write_gsps(tmp_path / "a.dcm", source, [segment(source)], SHA)
        out = pydicom.dcmread(tmp_path / "a.dcm")
        assert out.PresentationLUTShape == shape
        window = out.SoftcopyVOILUTSequence[0]
        assert (window.WindowCenter, window.WindowWidth) == (2000, 4000)
    assert out.DisplayedAreaSelectionSequence[0].PresentationPixelSpacing == [0.2, 0.3]
    assert out.RescaleSlope == 1


def frames_of(count: int) -> Dataset:
    """An enhanced MR whose frames lie all at one place, or which has one frame, with its look in functional groups."""
    source = enhanced(count)
    shared, window, values = source.SharedFunctionalGroupsSequence[0], Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 300, 700
    values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 2, -5, "US"
    shared.FrameVOILUTSequence, shared.PixelValueTransformationSequence = [window], [values]
    for group in source.PerFrameFunctionalGroupsSequence:
        group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]
    return source


@pytest.mark.parametrize("count", [1, 3])
def test_an_enhanced_file_that_is_no_volume_has_a_presentation_state_of_its_first_frame(tmp_path, count):
    source = frames_of(count)
    write_gsps(tmp_path / "a.dcm", source, [segment(source)], SHA)
    out = pydicom.dcmread(tmp_path / "a.dcm")
    window = out.SoftcopyVOILUTSequence[0]
    assert (window.WindowCenter, window.WindowWidth, out.RescaleSlope, out.RescaleIntercept) == (300, 700, 2, -5)
    assert out.DisplayedAreaSelectionSequence[0].PresentationPixelSpacing == [0.7, 0.8]
    for annotation in out.GraphicAnnotationSequence:
        (image,) = annotation.ReferencedImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.get("ReferencedFrameNumber") == (1 if count > 1 else None)
    (drawn,) = (one for one in out.GraphicAnnotationSequence if "GraphicObjectSequence" in one)
    assert drawn.GraphicObjectSequence
    assert out.PatientName == source.PatientName


# ---------------------------------------------------------------- secondary capture


def test_a_capture_is_a_copy_with_the_findings_drawn_in_and_says_so(tmp_path):
    source = film("CR")
    found = segment(source)
    image = np.full((source.Rows, source.Columns, 1), 0.5, np.float32)
    write_sc(tmp_path / "a.dcm", source, image, [found], SHA)
    out = pydicom.dcmread(tmp_path / "a.dcm")
    colourful = np.ptp(out.pixel_array.astype(int), axis=2) > 0
    assert (colourful == found.mask_FHW[0]).all()
    assert np.ptp(out.pixel_array[-20:]) > 100  # the words along the lower edge
    assert list(out.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert out.BurnedInAnnotation == "YES"
    assert out.ImageComments == INTENDED_USE
    assert out.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert out.SeriesDescription.startswith("RESEARCH USE ONLY")
    assert out.PatientOrientation == ["L", "F"]


# ---------------------------------------------------------------- who, and what not


def write_all(folder, source, **options):
    found = segment(source, **options)
    write_seg(folder / "seg.dcm", [source], [found], SHA)
    write_gsps(folder / "gsps.dcm", source, [found], SHA)
    write_sc(folder / "sc.dcm", source, np.zeros((source.Rows, source.Columns, 1)), [found], SHA)
    return [pydicom.dcmread(folder / f"{name}.dcm") for name in ("seg", "gsps", "sc")]


def test_only_the_patient_and_the_study_travel(tmp_path, caplog, capfd):
    source = film("DX")
    for out in write_all(tmp_path, source):
        for keyword, value in PATIENT.items():
            assert out[keyword].value == value
            del out[keyword]
        assert (out.AccessionNumber, out.StudyDate) == ("A1", "20260102")
        assert out.ReferringPhysicianName == ""
        assert not [word for word in (*PLANTED, "planted", "Planted", "PLANTED") if word in str(out) and word not in KEPT]
    assert "lanted" not in caplog.text.lower() + "".join(capfd.readouterr())


#: Attributes of ours that have the name of a planted one.
KEPT = {"ReferringPhysicianName", "SeriesDescription", "ImageComments", "DeviceSerialNumber"}


def test_broken_patient_data_is_left_empty_and_never_quoted(tmp_path, caplog, capfd):
    source = film("CR")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword, vr, value in (
            ("PatientName", "PN", "<script>../Quux" + "x" * 90),
            ("PatientBirthDate", "DA", "Quux 1950"),
            ("PatientSex", "CS", "QUUX"),
            ("StudyTime", "TM", "Quux"),
            ("PatientID", "LO", "Quux\\7"),
        ):
            source.add_new(keyword, vr, None)
            source[keyword]._value = value  # as read from a file: not checked
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        outs = write_all(tmp_path, source)
    assert not [one for one in said if "Quux" in str(one.message)]
    assert "Quux" not in caplog.text + "".join(capfd.readouterr())
    for out in outs:
        assert str(out.PatientName) == "<script>../Quux" + "x" * 90
        assert (out.PatientBirthDate, out.PatientSex, out.StudyTime) == ("", "", None) or not out.StudyTime


def test_names_in_any_charset_arrive_in_utf8(tmp_path):
    source = film("CR")
    source.SpecificCharacterSet = ["ISO 2022 IR 6", "ISO 2022 IR 87"]
    source.PatientName = "Yamada^Tarou=山田^太郎"
    source.save_as(tmp_path / "in.dcm", enforce_file_format=True)
    for out in write_all(tmp_path, pydicom.dcmread(tmp_path / "in.dcm", stop_before_pixels=True)):
        assert out.SpecificCharacterSet == "ISO_IR 192"
        assert str(out.PatientName) == "Yamada^Tarou=山田^太郎"


def test_the_text_stays_out_unless_it_is_kept(tmp_path):
    source = film("CR")
    for out in write_all(tmp_path, source, prompt=TEXT):
        assert "Quux" not in str(out)
    seg, gsps, _ = write_all(tmp_path, source, prompt=TEXT, text=TEXT)
    assert seg.SegmentSequence[0].SegmentDescription == f"{INTENDED_USE} {TEXT}"
    assert TEXT in str(gsps)


def test_a_long_text_is_cut_visibly():
    assert short_text("a", "b\nc\\d") == "a b c d"
    long = short_text(INTENDED_USE, "word " * 400)
    assert len(long) <= LONGEST_TEXT
    assert long.endswith("[...]")


# ---------------------------------------------------------------- codes


def test_every_code_is_one_of_the_standard():
    known = {value for codes in concepts["SCT"].values() for value in codes}
    tables = (dicom_codes.ABNORMALITIES, dicom_codes.OBJECTS, dicom_codes.ORGANS)
    singles = [value for value in vars(dicom_codes).values() if isinstance(value, Concept)]
    for concept in [*singles, *(one for table in tables for one in table.values())]:
        assert concept.value in known, concept


@pytest.mark.parametrize(
    ("text", "label", "type_"),
    [
        ("spleen", "spleen", "Spleen"),
        ("The right kidney in this CT.", "kidney", "Kidney"),
        ("lesion in the liver", "lesion", "Lesion"),
        ("Small left pleural effusion.", "pleural effusion", "Pleural effusion"),
        ("Bilateral pulmonary infection, two infected areas.", "infection", "Lesion"),
        ("something green", "answer", "Tissue"),
    ],
)
def test_a_prompt_has_a_label_of_ours_and_a_code(text, label, type_):
    meaning = meaning_of(text)
    assert (meaning.label, meaning.type.meaning) == (label, type_)


def test_a_findings_own_label_is_taken():
    assert meaning_of("the line ends in the right atrium", "catheter").category.meaning == "Physical object"


# ---------------------------------------------------------------- refusals


def refused(call, *args, **options) -> InputError:
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert caught.value.code == "dicom_source"
    assert caught.value.fix
    assert "lanted" not in str(caught.value)
    return caught.value


def test_what_the_headers_do_not_allow_is_refused_and_leaves_no_file(tmp_path):
    path = tmp_path / "a.dcm"
    colour = film()
    colour.SamplesPerPixel, colour.PhotometricInterpretation = 3, "RGB"
    assert "dicom-sc" in refused(write_gsps, path, colour, [segment(colour)], SHA).fix
    assert "volume" in refused(write_gsps, path, enhanced(), [segment(enhanced())], SHA).what
    nameless = film()
    del nameless.StudyInstanceUID
    assert "StudyInstanceUID" in refused(write_seg, path, [nameless], [segment(nameless)], SHA).what
    refused(write_seg, path, [cine()], [segment(cine(), 3)], SHA)  # frames without a place
    homeless = slices()
    del homeless[2].ImagePositionPatient
    refused(write_seg, path, homeless, [segment(homeless[0], 5)], SHA)
    mixed = slices()
    mixed[1].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    assert "orientation" in refused(write_seg, path, mixed, [segment(mixed[0], 5)], SHA).what
    refused(write_seg, path, slices(size=2), [segment(slices(size=2)[0], 5)], SHA)
    lost = slices(count=1)[0]
    del lost.FrameOfReferenceUID  # which the standard demands of CT
    refused(write_seg, path, [lost], [segment(lost)], SHA)
    alike = slices()
    alike[1].SOPInstanceUID = alike[0].SOPInstanceUID
    assert "SOPInstanceUID" in refused(write_seg, path, alike, [segment(alike[0], 5)], SHA).what
    assert list(tmp_path.iterdir()) == []


def test_planes_need_numbers_that_make_sense():
    for keyword, value in (("PixelSpacing", [0, 1]), ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), ("FrameOfReferenceUID", "")):
        source = slices(count=1)[0]
        assert planes(source)
        setattr(source, keyword, value)
        assert planes(source) is None
