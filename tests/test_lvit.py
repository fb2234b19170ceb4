"""LViT: two U, joined by what the words tell the patches. What it shares with every model is in test_models_contract.py."""

from __future__ import annotations

import pytest
import torch

from reportseg.models import build, count_parameters
from reportseg.models.encoders import train_tokenizer
from reportseg.models.lvit import PLAM, SLOTS, Told

TINY = {"name": "lvit", "preset": "tiny"}
ONE, OTHER = "upper left lung and lower right lung", "upper right lung and lower left lung"


def tiny(**section):
    torch.manual_seed(0)
    return build(TINY | section, train_tokenizer([ONE]))


def test_parameters_are_those_of_the_paper_within_one_percent():
    with torch.device("meta"):
        model = build({"name": "lvit", "preset": "published"}, train_tokenizer([]))
    own = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("words."))
    assert own == 29_914_945 == pytest.approx(29.7e6, rel=0.01)
    assert count_parameters({"name": "lvit", "preset": "cpu"})["total"] <= 7_000_000


def test_plam_weighs_each_pixel_by_mean_maximum_and_their_sum():
    plam = PLAM(3)
    with torch.no_grad():
        for conv in (plam.for_mean, plam.for_maximum):
            conv.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
        plam.weigh[0].weight.zero_()
        plam.weigh[0].weight[0] = torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1)
        plam.weigh[0].bias.zero_()
        plam.weigh[2].weight.zero_()
        plam.weigh[2].weight[0, 0] = 1.0
        plam.weigh[2].bias.fill_(0.5)
    x = torch.tensor([3.0, -6.0, 6.0]).view(1, 3, 1, 1)  # after ReLU: mean 3, maximum 6, sum 9
    assert plam(x).flatten().tolist() == pytest.approx([963.5 * v for v in (3.0, -6.0, 6.0)])


def test_the_convolutions_never_see_the_text_and_patches_stand_on_one_grid():
    image = tiny().encode_image(torch.rand(1, 3, 224, 224))
    assert [m.shape[-1] for m in image.maps] == [224, 112, 56, 28, 14]
    assert [p.shape[1:] for p in image.patches] == [(12, 14, 14), (24, 14, 14), (48, 14, 14), (96, 14, 14)]


def test_words_reach_patches_of_any_grid_and_by_their_place():
    torch.manual_seed(0)
    told, words = Told(32, 12), torch.randn(1, 6, 32)
    for size in ((14, 14), (1, 1), (7, 9)):
        assert told(words, size).shape == (1, 12, *size)
    assert not torch.allclose(told(words, (14, 14)), told(words.flip(1), (14, 14)), atol=1e-4)


def test_a_text_and_the_order_of_its_words_change_the_answer():
    model, image = tiny(), torch.rand(1, 3, 32, 32)
    one, other, none = (model(image, [text]).logits_B1HW for text in (ONE, OTHER, ""))
    assert not torch.equal(one, other) and not torch.equal(one, none)


def test_what_is_beyond_the_slots_is_not_read_and_is_said():
    model, told, words = tiny(), Told(32, 12), torch.randn(1, SLOTS + 8, 32)
    assert not model.truncates("left " * (SLOTS - 2)) and model.truncates("left " * (SLOTS - 1)) and model.max_tokens == SLOTS
    assert torch.equal(told(words, (2, 2)), told(words[:, :SLOTS], (2, 2)))


@pytest.mark.parametrize(("stride", "levels"), [(1, 4), (2, 3), (4, 2)])
def test_a_coarser_output_leaves_out_what_feeds_only_finer_levels(stride, levels):
    model = tiny(output_stride=stride)
    assert [len(part) for part in (model.up, model.attend, model.give, model.patch_up)] == [levels] * 4
    sizes = []
    model.head.register_forward_hook(lambda m, i, out: sizes.append(out.shape[-1]))
    assert model(torch.rand(1, 3, 64, 64), [ONE]).logits_B1HW.shape[-1] == 64
    assert sizes == [64 // stride]
