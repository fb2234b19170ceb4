"""LanGuideMedSeg: words guide the decoder. What it shares with every model is in test_models_contract.py."""

from __future__ import annotations

import pytest
import torch

from pretrained import save_bert, save_convnext
from reportseg.losses import dice_bce_loss
from reportseg.models import build, count_parameters, make_tokenizer
from reportseg.models.encoders import train_tokenizer
from reportseg.models.languidemedseg import GuideDecoder, GuideLayer, sinusoids
from reportseg.models.output import TextBatch

TINY = {"name": "languidemedseg", "preset": "tiny"}
ONE, OTHER = "upper left lung and lower right lung", "upper right lung and lower left lung"


def tiny(**section):
    torch.manual_seed(0)
    return build(TINY | section, train_tokenizer([ONE]))


def words(n=5, width=32):
    tokens = torch.randn(2, n, width, generator=torch.Generator().manual_seed(1))
    return TextBatch(tokens, torch.ones(2, n, dtype=torch.bool), tokens[:, 0], ((None,) * n,) * 2)


def test_parameters_beside_the_text_tower_at_both_sizes():
    def counted(preset):
        with torch.device("meta"):
            model = build({"name": "languidemedseg", "preset": preset}, train_tokenizer([]))
        return {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children() if name != "words"}

    published = counted("published")
    assert published == {"vision": 27_818_592, "guided": 14_410_371, "head": 332_185}
    assert sum(published.values()) == pytest.approx(44.0e6, rel=0.035)  # others count two projections that no mask depends on
    assert count_parameters({"name": "languidemedseg", "preset": "cpu"})["total"] <= 7_000_000


def test_the_guide_starts_almost_silent_and_lifts_to_the_skip():
    decoder = GuideDecoder(16, 8, 32, grid=7)
    assert decoder.guide.scale.item() == pytest.approx(0.01)
    assert decoder(torch.randn(2, 16, 3, 5), torch.randn(2, 8, 6, 10), words()).shape == (2, 8, 6, 10)


def test_places_are_the_papers_at_its_own_grid_and_interpolated_elsewhere():
    layer = GuideLayer(16, 32, grid=7)
    assert torch.equal(layer.places_NC, sinusoids(49, 16))
    assert sinusoids(3, 4)[2].tolist() == pytest.approx(
        [0.909297, -0.416147, 0.019999, 0.999800], abs=1e-5
    )  # sin 2, cos 2, sin .02, cos .02
    assert layer(torch.randn(2, 16, 1, 1), words().tokens_BLD, words().mask_BL).shape == (2, 16, 1, 1)


def test_the_order_of_the_words_reaches_the_map():
    """Their states alone are a bag to attention: what tells their order here is added to the keys."""
    torch.manual_seed(0)
    layer, text, x = GuideLayer(16, 32, grid=7), words(), torch.randn(2, 16, 4, 4)
    with torch.no_grad():
        layer.scale.fill_(1.0)
    turned = layer(x, text.tokens_BLD.flip(1), text.mask_BL)
    assert not torch.allclose(layer(x, text.tokens_BLD, text.mask_BL), turned, atol=1e-4)
    image = torch.rand(1, 3, 32, 32)
    model = tiny()
    assert not torch.equal(model(image, [ONE]).logits_B1HW, model(image, [OTHER]).logits_B1HW)


def test_the_loss_is_dice_and_cross_entropy_on_logits():
    model, image, mask = tiny(), torch.rand(2, 3, 32, 32), torch.rand(2, 1, 32, 32) > 0.5
    output = model(image, [ONE, OTHER], mask)
    assert torch.equal(output.losses["mask"], dice_bce_loss(output.logits_B1HW, mask, torch.ones_like(output.logits_B1HW)))
    assert list(output.losses) == ["mask"]


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_head_spreads_a_place_over_as_many_pixels_as_the_stride_leaves(stride):
    model, sizes = tiny(output_stride=stride), []
    model.head.register_forward_hook(lambda m, i, out: sizes.append(out.shape[-1]))
    assert model(torch.rand(1, 3, 64, 64), [ONE]).logits_B1HW.shape[-1] == 64
    assert sizes == [64 // stride]


def test_of_112_px_no_film_is_padded_and_seven_places_become_four():
    image = tiny().encode_image(torch.rand(1, 3, 112, 112))
    assert [m.shape[-1] for m in image.maps] == [28, 14, 7, 4] and image.padded == (112, 112)


def test_pretrained_towers_stand_under_the_same_decoder(tmp_path):
    save_bert(tmp_path / "bert")
    expected = save_convnext(tmp_path / "convnext")
    section = TINY | {
        "vision": {"source": str(tmp_path / "convnext"), "train": "full"},
        "text": {"source": str(tmp_path / "bert"), "train": "frozen"},
    }
    model = build(section, make_tokenizer(section, []))
    image = torch.rand(1, 3, 64, 64)
    maps = model.encode_image(image).maps
    states = expected((image - model.mean) / model.std, output_hidden_states=True).hidden_states
    assert [m.shape[1] for m in maps] == [8, 12, 16, 20]
    assert torch.allclose(maps[-1], states[-1], atol=1e-4)
    model(image, ["lung a"], torch.ones(1, 1, 64, 64, dtype=torch.bool)).losses["mask"].backward()
    assert all(p.grad is None for p in model.words.tower.parameters())
    assert not any(key.startswith("words.tower") for key in model.state_dict())
    assert any(key.startswith("vision.") for key in model.state_dict())
    assert model.base.text.id and model.base.vision.id and model.base.cnn.id is None
