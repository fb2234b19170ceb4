"""MMI-UNet: image and words matched after each stage. What it shares with every model is in test_models_contract.py."""

from __future__ import annotations

import pytest
import torch

from pretrained import save_bert, save_convnext, save_resnet
from reportseg.errors import InputError
from reportseg.models import build, count_parameters, make_tokenizer
from reportseg.models.encoders import train_tokenizer
from reportseg.models.mmiunet import Matching

TINY = {"name": "mmiunet", "preset": "tiny"}
ONE, OTHER = "upper left lung and lower right lung", "upper right lung and lower left lung"


def tiny(**section):
    torch.manual_seed(0)
    return build(TINY | section, train_tokenizer([ONE]))


def test_parameters_beside_the_text_tower_at_both_sizes():
    with torch.device("meta"):
        model = build({"name": "mmiunet", "preset": "published"}, train_tokenizer([]))
    assert sum(p.numel() for name, p in model.named_parameters() if not name.startswith("words.")) == 49_467_321
    assert count_parameters({"name": "mmiunet", "preset": "cpu"})["total"] <= 7_000_000


def test_only_the_first_stage_is_free_of_the_text():
    image = tiny().encode_image(torch.rand(1, 3, 64, 96))
    assert image.map_BChw.shape == (1, 16, 16, 24)


def test_of_112_px_no_film_is_padded_and_seven_places_become_four():
    model, sizes = tiny(), []
    for match in model.match:
        match.register_forward_hook(lambda m, given, out: sizes.append(out[0].shape[-1]))
    assert model(torch.rand(1, 3, 112, 112), [ONE]).logits_B1HW.shape[-1] == 112
    assert sizes == [28, 14, 7, 4]


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (4, 6), (3, 8)])
def test_matching_keeps_the_size_of_any_map_and_changes_both(size):
    torch.manual_seed(0)
    match, words, mask = Matching(16, 32, 20, answers=True), torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.bool)
    x = torch.randn(2, 16, *size)
    seen, heard = match(x, words, mask)
    assert seen.shape == x.shape and heard.shape == words.shape
    assert not torch.allclose(seen, x, atol=1e-3) and not torch.allclose(heard, words, atol=1e-3)


def test_masked_words_are_not_heard():
    torch.manual_seed(0)
    match, words, x = Matching(16, 32, 20, answers=True), torch.randn(1, 5, 32), torch.randn(1, 16, 4, 4)
    mask = torch.tensor([[True, True, True, False, False]])
    other = words.clone()
    other[:, 3:] = 9.0
    (seen, heard), (again, heard_again) = match(x, words, mask), match(x, other, mask)
    assert torch.allclose(seen, again, atol=1e-6) and torch.allclose(heard[:, :3], heard_again[:, :3], atol=1e-6)


def test_after_the_last_stage_nobody_hears_the_words_so_they_are_not_changed():
    model = tiny()
    assert [match.answers for match in model.match] == [True, True, True, False]
    match, words, mask = model.match[3], torch.randn(1, 5, 32), torch.ones(1, 5, dtype=torch.bool)
    assert torch.equal(match(torch.randn(1, 64, 2, 2), words, mask)[1], words)


def test_a_text_and_the_order_of_its_words_change_the_answer():
    model, image = tiny(), torch.rand(1, 3, 32, 32)
    one, other, none = (model(image, [text]).logits_B1HW for text in (ONE, OTHER, ""))
    assert not torch.equal(one, other) and not torch.equal(one, none)


def test_pretrained_towers_are_gone_through_stage_by_stage(tmp_path):
    save_bert(tmp_path / "bert")
    expected = save_convnext(tmp_path / "convnext")
    section = TINY | {
        "vision": {"source": str(tmp_path / "convnext"), "train": "full"},
        "text": {"source": str(tmp_path / "bert"), "train": "frozen"},
    }
    model = build(section, make_tokenizer(section, []))
    image = torch.rand(1, 3, 64, 64)
    states = expected((image - model.mean) / model.std, output_hidden_states=True).hidden_states
    assert torch.allclose(model.encode_image(image).map_BChw, states[1], atol=1e-4)
    model(image, ["lung a"], torch.ones(1, 1, 64, 64, dtype=torch.bool)).losses["mask"].backward()
    assert all(p.grad is None for p in model.words.tower.parameters())
    assert all(p.grad is not None for p in model.vision.parameters())


def test_only_a_convnext_has_stages_to_meet_after(tmp_path):
    save_resnet(tmp_path / "resnet")
    with pytest.raises(InputError, match="Name a source of type convnext") as caught:
        build(TINY | {"vision": {"source": str(tmp_path / "resnet"), "train": "full"}}, train_tokenizer([ONE]))
    assert caught.value.code == "family"
