"""The nouns: frozen, plain, and light to import."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path

import numpy as np
import pytest

from reportseg.types import INTENDED_USE, CaseScore, Finding, Geometry, Image, Prediction, Sample

GEOMETRY = Geometry((4, 6), (0.5, 0.25))
MASK = np.zeros((4, 6), bool)
MASK[1:3, 2:5] = True
PREDICTION = Prediction(
    "a", MASK, MASK.astype(np.float32), GEOMETRY, "left", None, "left", "image", {"rule": "fixed"}, "torch-cpu", "0" * 64
)
NOUNS = [
    GEOMETRY,
    Image(np.zeros((4, 6, 1), np.float32), GEOMETRY, "png"),
    Sample("a", Path("a.png"), None, "left"),
    Finding("no effusion", (0, 11), "absent"),
    PREDICTION,
    CaseScore("a", "", "", 1, 0, 0, 1.0, 1.0, 0.0, 1.0, None, True, 1),
]


@pytest.mark.parametrize("noun", NOUNS, ids=lambda n: type(n).__name__)
def test_a_noun_is_frozen_and_changed_by_replacing(noun):
    name = fields(noun)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(noun, name, None)
    assert getattr(replace(noun, **{name: "new"}), name) == "new"


def test_areas_are_in_pixels_and_in_square_millimetres_where_the_spacing_is_known():
    assert GEOMETRY.pixel_area_mm2 == 0.125
    assert PREDICTION.area_px == 6 and type(PREDICTION.area_px) is int
    assert PREDICTION.area_mm2 == 0.75
    unknown = replace(PREDICTION, geometry=Geometry((4, 6)))
    assert unknown.geometry.pixel_area_mm2 is None and unknown.area_mm2 is None and unknown.area_px == 6


def test_an_empty_mask_has_no_area():
    assert replace(PREDICTION, mask_HW=MASK & False).area_mm2 == 0


def test_a_finding_is_the_clause_that_was_read():
    report = "No effusion. Opacity in the left lower zone."
    finding = Finding("Opacity in the left lower zone", (13, 43), "present", side="left", zone="lower")
    assert report[finding.span[0] : finding.span[1]] == finding.text


def test_the_defaults_of_a_sample_claim_nothing():
    sample = Sample("a", Path("a.png"), Path("a.mask.png"), "left")
    assert sample.laterality == "none" and not sample.flip_safe and sample.present and sample.spacing_mm is None and sample.subsets == ()
    assert sample.extra == {} and sample.extra is not Sample("b", Path("b.png"), None, "").extra


def test_nothing_heavy_is_loaded_with_them():
    heavy = "torch pydantic yaml scipy PIL tokenizers"
    code = f"import sys, reportseg.types, reportseg.errors; sys.exit(any(name in sys.modules for name in {heavy.split()}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_intended_use_is_the_sentence_that_every_output_carries():
    assert INTENDED_USE == "Research use only. Not a medical device: not for diagnosis or treatment."
