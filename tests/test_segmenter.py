"""A film and a sentence in, a mask out: on the film's own grid, for whoever's left is meant, with a warning for all that was assumed."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reportseg.bundle import load_bundle
from reportseg.decision import calibrate, decide
from reportseg.engines import TorchEngine, native_logits
from reportseg.errors import WARNINGS, InputError
from reportseg.segmenter import Segmenter, side_of
from reportseg.text import CONSTANT, swap_sides
from reportseg.uncertainty import disagreement, expected_dice
from tiny import LEFT, RIGHT, TGCNET, UNET, film, write_bundle

EVERY_TEXT = "Bilateral pulmonary infection, two infected areas, lower lung."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("bundles")
    write_bundle(root / "image")
    write_bundle(root / "patient", laterality="patient", seed=1, size_px=48, temperature=0.8)
    write_bundle(root / "none", laterality="none")
    write_bundle(root / "unet", UNET, laterality="none")
    write_bundle(root / "twin", text="constant")
    write_bundle(root / "adaptive", rule="expected_dice")
    return root


@pytest.fixture(scope="module")
def segmenter(folder):
    return Segmenter.from_pretrained(folder / "image", device="cpu")


def same(a, b, atol=0.0):
    assert np.allclose(a.probability_HW, b.probability_HW, rtol=0, atol=atol)
    if atol == 0:
        assert (a.mask_HW == b.mask_HW).all()


# ---------------------------------------------------------------- the answer


def test_an_answer_is_the_models_logits_resized_calibrated_and_cut(folder, segmenter):
    answer = segmenter.segment(film(), LEFT, id="a", laterality="image")
    bundle = load_bundle(folder / "image")
    image = torch.nn.functional.interpolate(
        torch.from_numpy(film()).permute(2, 0, 1)[None], (32, 32), mode="bilinear", antialias=True, align_corners=False
    ).expand(-1, 3, -1, -1)
    output = TorchEngine(bundle.model, "cpu").run(image, [LEFT])
    expected = calibrate(native_logits(output.logits_B1HW, [(40, 48)])[0], 1.3)
    assert np.allclose(answer.probability_HW, expected, atol=1e-6)
    assert (answer.mask_HW == (answer.probability_HW >= 0.5)).all()
    assert 0 < answer.area_px < 40 * 48
    assert answer.mask_HW.shape == answer.geometry.shape == (40, 48)
    assert (answer.id, answer.text, answer.polarity, answer.laterality) == ("a", LEFT, "present", "image")
    assert answer.engine == "torch-cpu"
    assert answer.bundle_sha256 == bundle.sha256 == segmenter.sha256
    assert answer.decision == {"rule": "fixed", "threshold": 0.5, "temperature": 1.3, "flips": False}
    assert answer.presence is None
    assert answer.warnings == ()
    assert answer.time_s > 0
    assert answer.area_mm2 is None


def test_the_bundles_own_rule_cuts(folder):
    answer = Segmenter.from_pretrained(folder / "adaptive").segment(film(), LEFT)
    assert answer.decision["rule"] == "expected_dice"
    assert (answer.mask_HW == decide(answer.probability_HW, load_bundle(folder / "adaptive").decision)).all()


def test_a_path_bytes_an_array_and_a_pil_image_are_the_same_film(tmp_path, segmenter):
    pixels = (film()[:, :, 0] * 255).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "Jane Doe.png")
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    sources = [tmp_path / "Jane Doe.png", str(tmp_path / "Jane Doe.png"), buffer.getvalue(), pixels, PIL.Image.fromarray(pixels)]
    answers = [segmenter.segment(source, LEFT) for source in sources]
    for answer in answers[1:]:
        same(answers[0], answer)
    assert [answer.id for answer in answers] == ["Jane-Doe", "Jane-Doe", "", "", ""]


def test_gray_and_its_rgb_copy_are_the_same_film(segmenter):
    same(segmenter.segment(film()[:, :, 0], LEFT), segmenter.segment(film().repeat(3, axis=2), LEFT))


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (33, 31), (200, 90)])
def test_any_size_is_answered_on_its_own_grid(segmenter, shape):
    answer = segmenter.segment(film(*shape), LEFT)
    assert answer.mask_HW.shape == answer.probability_HW.shape == shape
    assert answer.mask_HW.dtype == bool
    assert answer.probability_HW.dtype == np.float32
    assert 0 <= answer.probability_HW.min() <= answer.probability_HW.max() <= 1


def test_batch_one_and_batch_eight_agree(segmenter):
    films = [film(30 + i, 50 - i, 1 + 2 * (i % 2), seed=i) for i in range(11)]
    texts = [LEFT, RIGHT, "", "no effusion", EVERY_TEXT, "عتامة في الرئة", "x", LEFT, RIGHT, EVERY_TEXT, LEFT]
    together = segmenter.segment_batch(films, texts, ids=[str(i) for i in range(11)])
    assert [answer.id for answer in together] == [str(i) for i in range(11)]
    for answer, source, text in zip(together, films, texts, strict=True):
        alone = segmenter.segment(source, text)
        same(answer, alone, atol=1e-5)
        assert answer.warnings == alone.warnings
        assert answer.polarity == alone.polarity


def test_a_film_is_encoded_once_for_many_sentences(segmenter, monkeypatch):
    texts, calls = [LEFT, RIGHT, ""], []
    apart = [segmenter.segment(film(), text) for text in texts]
    model = segmenter.bundles[0].model
    monkeypatch.setattr(model, "encode_image", lambda x, real=model.encode_image: calls.append(1) or real(x))
    for one, other in zip(apart, segmenter.segment_many(film(), texts), strict=True):
        same(one, other)
    encoded = segmenter.encode_image(film())
    for one, text in zip(apart, texts, strict=True):
        same(one, segmenter.segment(encoded, text))
    assert len(calls) == 2


def test_what_another_segmenter_encoded_is_refused(folder, segmenter):
    with pytest.raises(ValueError, match="another segmenter"):
        Segmenter.from_pretrained(folder / "twin").segment(segmenter.encode_image(film()), LEFT)


# ---------------------------------------------------------------- whose left


@pytest.mark.parametrize("name", ["image", "patient"])
def test_the_patients_left_is_the_images_right(folder, name):
    segmenter = Segmenter.from_pretrained(folder / name)
    assert segmenter.laterality == name
    for text in (LEFT, RIGHT, "opacity in the RUL and the lingula", EVERY_TEXT):
        patient, image = (
            segmenter.segment(film(), text, laterality="patient"),
            segmenter.segment(film(), swap_sides(text), laterality="image"),
        )
        same(patient, image)
        assert (patient.laterality, image.laterality) == ("patient", "image")
        other = {"left": "right", "right": "left"}
        assert patient.side == other.get(image.side, image.side)


def test_the_text_is_read_in_the_bundles_convention(segmenter):
    assert segmenter.ask(LEFT, "image").prompts == (LEFT,)
    assert segmenter.ask(LEFT, "patient").prompts == (RIGHT,)
    assert segmenter.ask(LEFT).prompts == (LEFT,)
    assert segmenter.ask(LEFT, None, "patient").prompts == (RIGHT,), "a DICOM film implies the patient's side"
    assert segmenter.ask(LEFT, "image", "patient").prompts == (LEFT,), "the caller's word goes before the format's"
    assert segmenter.ask(LEFT, "patient").text == LEFT


def test_where_nobody_says_whose_left_a_side_word_warns(folder, segmenter):
    assert segmenter.segment(film(), LEFT).warnings == ("laterality_assumed",)
    assert segmenter.segment(film(), LEFT).laterality == "image"
    assert "laterality_assumed" in segmenter.ask("opacity in the lt lung").warnings
    assert segmenter.ask(LEFT, "none").warnings == ("laterality_assumed",)
    for text, whose in [(LEFT, "image"), (LEFT, "patient"), (EVERY_TEXT, None)]:
        assert segmenter.ask(text, whose).warnings == ()
    assert Segmenter.from_pretrained(folder / "patient").segment(film(), LEFT).laterality == "patient"


def test_a_bundle_without_sides_gets_the_text_as_it_is_and_names_the_images_side(folder):
    segmenter = Segmenter.from_pretrained(folder / "none")
    assert segmenter.ask(LEFT, "patient").prompts == (LEFT,)
    assert segmenter.ask("opacity in the lt lung", "patient").prompts == ("opacity in the lt lung",)
    assert segmenter.ask(LEFT).laterality == "image"
    assert "laterality_assumed" in segmenter.ask(LEFT).warnings


@pytest.mark.parametrize(("text", "word"), [("opacity in the lt lung", "lt"), ("Trübung links", "links"), ("mass at 3 o'clock", "o'clock")])
def test_a_side_word_that_cannot_be_turned_is_an_error_only_where_it_must_be(segmenter, text, word):
    with pytest.raises(InputError, match=word) as caught:
        segmenter.segment(film(), text, laterality="patient")
    assert caught.value.code == "side_word"
    assert "--laterality image" in caught.value.fix
    assert segmenter.segment(film(), text, laterality="image").area_px >= 0
    assert segmenter.ask("no mass at 3 o'clock", "patient").denied, "what is denied needs no side"


def test_a_laterality_that_does_not_exist(segmenter):
    with pytest.raises(InputError, match="patient, image, none"):
        segmenter.ask(LEFT, "doctor")


def mask_of(*columns: int, width: int = 10) -> np.ndarray:
    mask = np.zeros((4, width), bool)
    mask[:, list(columns)] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "side"),
    [
        (mask_of(0, 1), "left"),
        (mask_of(8), "right"),
        (mask_of(0, 9), "bilateral"),
        (mask_of(), None),
        (mask_of(4, 5), "bilateral"),
        (mask_of(2, width=5), "bilateral"),  # the middle column belongs to both
        (mask_of(0, width=1), "bilateral"),
        (mask_of(*range(10), 10, width=20), "left"),  # 1 of 11 columns lies right: under a tenth
        (mask_of(*range(9), 10, width=20), "bilateral"),  # 1 of 10
    ],
)
def test_a_half_counts_from_a_tenth_of_the_area_on(mask, side):
    assert side_of(mask, "image") == side
    assert side_of(mask[:, ::-1], "patient") == side, "seen from the patient the film is mirrored"
    assert side_of(mask, "none") == side


@settings(deadline=None)  # a busy machine is no fault
@given(st.integers(1, 9), st.integers(0, 2**20))
def test_a_mirrored_mask_lies_on_the_other_side(width, seed):
    mask = np.random.default_rng(seed).random((3, width)) < 0.3
    assert side_of(mask, "image") == side_of(mask[:, ::-1], "patient")


# ---------------------------------------------------------------- what the text may be


def test_a_denial_has_an_empty_mask(segmenter):
    answer = segmenter.segment(film(), "No pleural effusion in the left lung.", laterality="patient")
    assert not answer.mask_HW.any()
    assert not answer.probability_HW.any()
    assert (answer.polarity, answer.warnings, answer.side, answer.area_px) == ("absent", ("negated",), None, 0)
    assert segmenter.segment(film(), "No effusion, but infected area in the lung.").polarity == "present"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("", "empty_text"),
        (" \n\u200b", "empty_text"),
        ("le poumon gauche est infecté", "out_of_vocabulary"),
        (", ".join([EVERY_TEXT] * 12), "text_truncated"),
        ("one two", "no_knowledge"),
    ],
)
def test_what_has_no_effect_is_a_warning(segmenter, text, warning):
    assert warning in segmenter.segment(film(), text, laterality="image").warnings
    assert warning in WARNINGS
    assert warning not in segmenter.ask(EVERY_TEXT).warnings


def test_out_of_vocabulary_begins_above_three_words_in_ten(segmenter):
    known = "one two infected area areas lower lung"
    assert "out_of_vocabulary" not in segmenter.ask(f"{known} x y z").warnings
    assert "out_of_vocabulary" in segmenter.ask(f"{known} x y z q").warnings
    assert "out_of_vocabulary" not in segmenter.ask(f"{known} x x x x x x").warnings, "each word counts once"


def test_the_converted_text_is_what_the_warnings_are_about(tmp_path, monkeypatch):
    segmenter = Segmenter.from_pretrained(write_bundle(tmp_path / "b"))
    object.__setattr__(segmenter.bundles[0], "words", frozenset({"lingula"}))
    assert "out_of_vocabulary" not in segmenter.ask("RML", "patient").warnings
    assert "out_of_vocabulary" in segmenter.ask("RML", "image").warnings


@pytest.mark.parametrize(("name", "prompt"), [("unet", ""), ("twin", CONSTANT)])
def test_a_model_without_text_answers_from_the_film_alone(folder, name, prompt):
    segmenter = Segmenter.from_pretrained(folder / name)
    answers = [
        segmenter.segment(film(), text, laterality="patient") for text in (LEFT, "", "no effusion", "opacity in the lt lung", "x y z")
    ]
    for answer in answers:
        same(answers[0], answer)
        assert answer.warnings == ()
        assert answer.polarity == "present"
    assert segmenter.ask(LEFT).prompts == (prompt,)
    assert segmenter.ask(LEFT).warnings == ()


def test_the_films_warnings_come_along(segmenter):
    rgba = np.full((8, 8, 4), 200, np.uint8)
    assert segmenter.segment(rgba, LEFT).warnings == ("alpha_dropped", "laterality_assumed")


# ---------------------------------------------------------------- several bundles


def test_an_ensemble_is_the_mean_of_calibrated_probabilities_each_in_its_own_convention(folder):
    first, second = (Segmenter.from_pretrained(folder / name) for name in ("image", "patient"))
    both = Segmenter.from_pretrained(folder / "image", with_=[folder / "patient"])
    assert both.ensemble == (second.sha256,)
    assert both.sha256 == first.sha256
    assert len(both.bundles) == 2
    assert both.ask(LEFT, "patient").prompts == (RIGHT, LEFT)
    assert both.ask(LEFT).prompts == (LEFT, RIGHT)  # unsaid it means the first bundle's left, for all of them
    answer = both.segment(film(), LEFT, laterality="patient")
    parts = [s.segment(film(), LEFT, laterality="patient").probability_HW for s in (first, second)]
    assert np.allclose(answer.probability_HW, np.mean(parts, axis=0), atol=1e-6)
    assert (answer.mask_HW == (answer.probability_HW >= first.decision.threshold)).all()
    assert answer.decision == first.segment(film(), LEFT).decision


def test_an_ensemble_takes_the_convention_of_the_first_bundle_that_has_one(folder):
    mixed = Segmenter.from_pretrained(folder / "unet", with_=[folder / "patient"])
    assert mixed.laterality == "patient"
    assert mixed.ask(LEFT, "image").prompts == ("", RIGHT)
    assert mixed.ask("no effusion").denied
    assert mixed.segment(film(), "").warnings == ("empty_text",)


def test_a_bundle_averaged_with_itself_changes_nothing(folder, segmenter):
    double = Segmenter.from_pretrained(folder / "image", with_=[folder / "image"])
    same(double.segment(film(), LEFT), segmenter.segment(film(), LEFT), atol=1e-6)


def test_engines_and_devices_that_are_not_there(folder):
    with pytest.raises(InputError, match="auto, torch"):
        Segmenter.from_pretrained(folder / "image", engine="abacus")
    with pytest.raises(InputError, match="not available"):
        Segmenter.from_pretrained(folder / "image", device="abacus")


# ---------------------------------------------------------------- reports


def test_a_report_is_answered_finding_by_finding_and_its_film_encoded_once(segmenter, monkeypatch):
    films, real = [], segmenter.encode_images
    monkeypatch.setattr(segmenter, "encode_images", lambda sources: films.append(len(sources)) or real(sources))
    report = "Opacity in the left lower lobe, possibly pneumonia. No effusion. Thank you. Heart is enlarged."
    answer = segmenter.segment_report(film(), report, id="a", laterality="image")
    assert films == [1]
    assert [(p.id, p.text, p.polarity) for p in answer.predictions] == [
        ("a-f1", "Opacity in the left lower lobe", "present"),
        ("a-f2", "possibly pneumonia", "uncertain"),
        ("a-f3", "Heart is enlarged", "present"),
    ]
    assert [p.finding for p in answer.predictions] == list(answer.reading.asked)
    assert [f.text for f in answer.reading.findings if f.polarity == "absent"] == ["No effusion"]
    assert [part.text for part in answer.reading.skipped] == ["Thank you."]
    same(answer.predictions[0], segmenter.segment(film(), "Opacity in the left lower lobe", laterality="image"))


def test_a_finding_is_asked_with_the_side_that_grammar_gives_it(folder):
    segmenter = Segmenter.from_pretrained(folder / "image")
    answer = segmenter.segment_report(film(), "Left-sided atelectasis and effusion.", laterality="image")
    effusion = answer.reading.asked[1]
    assert (effusion.text, effusion.side) == ("effusion", "left")
    assert segmenter.ask("effusion", "image", None, effusion).prompts == ("left effusion",)
    assert segmenter.ask("effusion", "patient", None, effusion).prompts == ("right effusion",)
    assert "laterality_assumed" in segmenter.ask("effusion", None, None, effusion).warnings
    assert answer.predictions[1].text == "effusion"


@pytest.mark.parametrize(
    ("report", "warnings", "unknown"),
    [
        ("No effusion. Lungs are clear.", ("negated",), ()),
        ("Der Herzschatten ist normal breit.", ("out_of_vocabulary",), ("der", "herzschatten", "ist", "breit")),
        ("Keine Infiltrate, kein Pneumothorax.", ("out_of_vocabulary",), ("keine", "kein")),
        ("Thank you for the referral.", ("out_of_vocabulary",), ("thank", "you", "for", "the", "referral")),
        ("Opacity in the left lung.", (), ()),
        ("", (), ()),
    ],
)
def test_what_concerns_a_whole_report_is_said_once(segmenter, report, warnings, unknown):
    answer = segmenter.segment_report(film(), report)
    assert (answer.warnings, answer.unknown_words) == (warnings, unknown)
    assert bool(answer.predictions) == (not warnings and bool(report))


def test_a_report_in_another_language_ends_also_where_no_model_reads_text(folder):
    answer = Segmenter.from_pretrained(folder / "unet").segment_report(film(), "Keine Infiltrate")
    assert (answer.predictions, answer.warnings, answer.unknown_words) == ((), ("out_of_vocabulary",), ("keine",))


def test_a_denial_in_another_language_is_named_in_a_prompt_where_all_else_is_known(tmp_path):
    segmenter = Segmenter.from_pretrained(write_bundle(tmp_path / "b"))
    known = "one two infected area areas lower lung"
    asked = segmenter.ask(f"{known} kein")
    assert ("out_of_vocabulary" in asked.warnings, asked.unknown_words, asked.denied) == (True, ("kein",), False)
    object.__setattr__(segmenter.bundles[0], "words", segmenter.bundles[0].words | {"kein"})
    assert "out_of_vocabulary" not in segmenter.ask(f"{known} kein").warnings, "a model of that language knows the word"


def test_unknown_words_are_named_where_they_are_warned_about(segmenter):
    answer = segmenter.segment(film(), "Zebra stripes in the upper lung")
    assert "out_of_vocabulary" in answer.warnings
    assert answer.unknown_words == ("zebra", "stripes", "in", "the")
    assert segmenter.segment(film(), LEFT).unknown_words == ()


def test_a_report_that_cannot_be_read_is_an_input_error(segmenter):
    for report, code in [("a" * 40_000, "text_too_long"), ("a\0", "text_nul"), ("\ud800", "text_encoding")]:
        with pytest.raises(InputError) as caught:
            segmenter.segment_report(film(), report)
        assert caught.value.code == code


# ---------------------------------------------------------------- flips


@pytest.fixture(scope="module")
def turning(folder):
    """Bundles that answer with flips: one that reads text, one of the patient's side with a presence head, a U-Net, a twin."""
    write_bundle(folder / "flips", flips=True, flip_safe=True)
    write_bundle(folder / "flips-patient", {**TGCNET, "presence": True}, flips=True, laterality="patient", seed=1, size_px=48)
    write_bundle(folder / "flips-unet", UNET, flips=True, laterality="none")
    write_bundle(folder / "flips-twin", flips=True, text="constant")
    return folder


@pytest.mark.parametrize(
    "names", [["flips"], ["flips-patient"], ["flips-unet"], ["flips-twin"], ["flips", "flips-patient", "flips-unet", "flips-twin"]]
)
@pytest.mark.parametrize("text", [LEFT, EVERY_TEXT, "", "RML and lingula; left-sided effusion", "ЛЕГКОЕ"])
def test_the_mirrored_film_with_swapped_words_gives_exactly_the_mirrored_answer(turning, names, text):
    segmenter = Segmenter.from_pretrained(turning / names[0], with_=[turning / name for name in names[1:]])
    assert segmenter.flips
    one = segmenter.segment(film(), text, laterality="image")
    two = segmenter.segment(film()[:, ::-1], swap_sides(text), laterality="image")
    assert (one.probability_HW == two.probability_HW[:, ::-1]).all()
    assert (one.mask_HW == two.mask_HW[:, ::-1]).all()
    assert one.presence == two.presence
    assert "not_mirrored" not in one.warnings + two.warnings
    assert one.decision["flips"] is True
    plain = Segmenter.from_pretrained(turning / names[0], with_=[turning / name for name in names[1:]], flips=False)
    assert (plain.segment(film(), text, laterality="image").probability_HW != one.probability_HW).any()


def test_flips_average_the_calibrated_probabilities_and_the_presence(turning):
    both = Segmenter.from_pretrained(turning / "flips-patient")
    alone = Segmenter.from_pretrained(turning / "flips-patient", flips=False)
    answer = both.segment(film(), LEFT, laterality="patient")
    own, turned = alone.segment(film(), LEFT, laterality="patient"), alone.segment(film()[:, ::-1], RIGHT, laterality="patient")
    assert np.allclose(answer.probability_HW, (own.probability_HW + turned.probability_HW[:, ::-1]) / 2, atol=1e-6)
    assert answer.presence == pytest.approx((own.presence + turned.presence) / 2)
    assert own.presence != turned.presence


def test_flips_are_the_bundles_own_unless_said_otherwise(turning, segmenter):
    assert not segmenter.flips and not Segmenter.from_pretrained(turning / "flips", flips=False).flips
    assert Segmenter.from_pretrained(turning / "image", flips=True).segment(film(), LEFT).decision["flips"] is True
    same(Segmenter.from_pretrained(turning / "flips", flips=False).segment(film(), LEFT), segmenter.segment(film(), LEFT))


def test_without_flips_nothing_is_computed_twice(turning, segmenter, monkeypatch):
    model, calls = segmenter.bundles[0].model, []
    monkeypatch.setattr(model, "encode_image", lambda x, real=model.encode_image: calls.append(1) or real(x))
    monkeypatch.setattr(model, "decode", lambda *args, real=model.decode: calls.append(1) or real(*args))
    segmenter.segment(film(), LEFT)
    assert len(calls) == 2


def test_with_flips_film_and_mirror_are_encoded_once_for_many_sentences(turning, monkeypatch):
    segmenter = Segmenter.from_pretrained(turning / "flips")
    apart = [segmenter.segment(film(), text) for text in (LEFT, RIGHT)]
    model, calls = segmenter.bundles[0].model, []
    monkeypatch.setattr(model, "encode_image", lambda x, real=model.encode_image: calls.append(1) or real(x))
    for one, other in zip(apart, segmenter.segment_many(film(), [LEFT, RIGHT]), strict=True):
        same(one, other)
    assert len(calls) == 2


def test_with_flips_batch_one_and_batch_eight_agree(turning):
    segmenter = Segmenter.from_pretrained(turning / "flips")
    films = [film(30 + i, 50 - i, 1 + 2 * (i % 2), seed=i) for i in range(8)]
    texts = [LEFT, RIGHT, "", "no effusion", EVERY_TEXT, "opacity in the lt lung", "x", LEFT]
    for answer, source, text in zip(segmenter.segment_batch(films, texts), films, texts, strict=True):
        alone = segmenter.segment(source, text)
        same(answer, alone, atol=1e-5)
        assert answer.warnings == alone.warnings


def test_a_text_that_cannot_be_swapped_is_answered_without_the_mirror_and_says_so(turning, segmenter):
    text = "opacity in the lt lung"
    answer = Segmenter.from_pretrained(turning / "flips").segment(film(), text)
    assert "not_mirrored" in answer.warnings
    same(answer, segmenter.segment(film(), text))
    assert "not_mirrored" not in segmenter.segment(film(), text).warnings
    twin = Segmenter.from_pretrained(turning / "flips-twin").segment(film(), text)  # it reads no text, so nothing is in the way
    assert "not_mirrored" not in twin.warnings


def test_a_view_without_sides_is_answered_without_its_mirror(turning, segmenter):
    frontal = segmenter.read(film())
    lateral = replace(frontal, geometry=replace(frontal.geometry, orientation=("A", "F")))
    flipping = Segmenter.from_pretrained(turning / "flips")
    assert not lateral.geometry.has_sides
    answer, plain = flipping.segment(lateral, LEFT), segmenter.segment(lateral, LEFT)
    same(answer, plain)
    assert answer.warnings == (*plain.warnings, "not_mirrored")
    both = flipping.segment_batch([lateral, frontal], [LEFT, LEFT])
    assert ["not_mirrored" in one.warnings for one in both] == [True, False]


def test_a_film_that_lies_on_its_side_is_mirrored_as_it_is_shown(turning):
    """Stored turned, with head and feet across: what is examined lies on the stored pixels too."""
    segmenter = Segmenter.from_pretrained(turning / "flips")
    upright = segmenter.read(film())
    lying = replace(
        upright,
        pixels_HWC=np.ascontiguousarray(upright.pixels_HWC.swapaxes(0, 1)),
        geometry=replace(upright.geometry, shape=upright.geometry.shape[::-1], orientation=("F", "L")),
    )
    question = segmenter.ask(LEFT, "image")
    one, two = (segmenter.answer(segmenter.encode_image(x), [question], ["a"], examine=True)[0] for x in (upright, lying))
    for name in ("probability_HW", "spread_HW", "raw_HW"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name).T)
    assert one.disagreement == two.disagreement


def test_a_denied_text_stays_empty_with_flips(turning):
    answer = Segmenter.from_pretrained(turning / "flips").segment(film(), "no effusion")
    assert not answer.mask_HW.any() and not answer.probability_HW.any() and answer.warnings == ("negated",)


def test_an_answer_that_was_examined_tells_where_its_parts_differ(turning):
    names = [turning / "flips", turning / "flips-patient"]
    segmenter = Segmenter.from_pretrained(names[0], with_=names[1:])
    encoded, question = segmenter.encode_image(film()), segmenter.ask(LEFT, "image")
    answer = segmenter.answer(encoded, [question], ["a"], examine=True)[0]
    plain = segmenter.segment(film(), LEFT, laterality="image")
    same(answer, plain)
    views = []
    for name in names:
        alone = Segmenter.from_pretrained(name, flips=False)
        views.append(alone.segment(film(), LEFT, laterality="image").probability_HW)
        views.append(alone.segment(film()[:, ::-1], RIGHT, laterality="image").probability_HW[:, ::-1])
    assert np.allclose(answer.spread_HW, np.std(views, axis=0), atol=1e-6)
    assert answer.disagreement == pytest.approx(disagreement([decide(view, segmenter.decision) for view in views], answer.mask_HW))
    assert 0 < answer.uncertainty == plain.uncertainty == 1 - expected_dice(answer.probability_HW, answer.mask_HW) < 1
    assert answer.raw_HW.shape == answer.probability_HW.shape and (answer.raw_HW != answer.probability_HW).any()
    assert plain.spread_HW is plain.disagreement is plain.raw_HW is None


def test_probabilities_at_temperature_1_are_the_sigmoid_of_the_logits(segmenter):
    answer = segmenter.answer(segmenter.encode_image(film()), [segmenter.ask(LEFT)], ["a"], examine=True)[0]
    logits = np.log(answer.probability_HW / (1 - answer.probability_HW)) * 1.3
    assert np.allclose(answer.raw_HW, calibrate(logits), atol=1e-3)


def test_one_answer_alone_has_an_uncertainty_and_nothing_to_differ_from(segmenter):
    answer = segmenter.answer(segmenter.encode_image(film()), [segmenter.ask(LEFT)], ["a"], examine=True)[0]
    assert answer.spread_HW is answer.disagreement is None
    assert answer.uncertainty == 1 - expected_dice(answer.probability_HW, answer.mask_HW)
    assert segmenter.segment(film(), "no effusion").uncertainty is None, "the text settled it, not the film"


def test_flips_are_refused_where_mirrored_anatomy_is_not_as_true(folder):
    write_bundle(folder / "organ", flip_safe=False)
    assert not Segmenter.from_pretrained(folder / "organ").flips
    for names in (["organ"], ["image", "organ"]):
        with pytest.raises(InputError, match="mirrored films") as caught:
            Segmenter.from_pretrained(folder / names[0], with_=[folder / name for name in names[1:]], flips=True)
        assert caught.value.code == "flips" and "--no-flips" in caught.value.fix
