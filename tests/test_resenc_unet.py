"""The residual-encoder U-Net. What it shares with every model is in test_models_contract.py."""

from __future__ import annotations

import pytest
import torch

from reportseg.losses import dice_bce_loss
from reportseg.models import build, count_parameters
from reportseg.models.layers import cells_of
from reportseg.models.resenc_unet import PRESETS, ResidualBlockD

TINY = {"name": "resenc_unet", "preset": "tiny"}


def test_the_plan_for_films_of_224_px():
    plan = PRESETS["published"]
    assert plan.widths == [32, 64, 128, 256, 512, 512] and plan.blocks == (1, 3, 4, 6, 6, 6)
    assert count_parameters({"name": "resenc_unet", "preset": "published"})["total"] == 71_797_796
    assert count_parameters({"name": "resenc_unet", "preset": "cpu"})["total"] <= 7_000_000


@pytest.mark.parametrize(("side", "down"), [(224, [224, 112, 56, 28, 14, 7]), (112, [112, 56, 28, 14, 7, 4])])
def test_six_stages_halve_five_times_and_come_back_without_padding(side, down):
    model, sizes = build(TINY), []
    for block in [*model.down, *model.up]:
        block.register_forward_hook(lambda m, i, out: sizes.append(out.shape[-1]))
    model(torch.rand(1, 3, side, side), [""])
    assert sizes == down + down[-2::-1]


def test_at_an_odd_map_the_last_cells_are_held_against_what_of_them_is_film():
    """28 px: 28, 14, 7 and 4 places, the last four of which end at 32."""
    model, mask = build(TINY), torch.rand(1, 1, 28, 28) < 0.5
    features = model.encode_image(torch.rand(1, 3, 28, 28))
    losses = model.decode(features, model.encode_text([""]), mask).losses
    x = features.maps[3]
    assert x.shape[2:] == (4, 4)
    loss = dice_bce_loss(model.heads[3](x), *cells_of(mask, torch.ones_like(mask), x, 8))
    assert losses["stride_8"].item() == pytest.approx(0.125 / 1.875 * loss.item())


def test_a_skip_averages_where_it_strides_and_projects_where_channels_change():
    torch.manual_seed(0)
    same, strided = ResidualBlockD(4, 4, 1), ResidualBlockD(4, 4, 2)
    x = torch.rand(1, 4, 6, 6)
    assert torch.equal(same.skip(x), x)
    assert torch.allclose(strided.skip(x), torch.nn.functional.avg_pool2d(x, 2))
    assert ResidualBlockD(4, 8, 2)(x).shape == (1, 8, 3, 3)


def test_outputs_on_the_way_up_have_half_the_weight_at_each_step_one_in_all_and_the_coarsest_is_left_out():
    model, image, mask = build(TINY), torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    mask[..., 16:48, 16:48] = True
    with torch.no_grad():
        for head in model.heads:
            head.weight.zero_()
            head.bias.zero_()
    losses = model(image, ["", ""], mask).losses
    assert list(losses) == ["mask", "stride_2", "stride_4", "stride_8"]
    bce = torch.log(torch.tensor(2.0))  # all logits are zero; Dice is 1 - (2 * n/2 + 1) / (n + N/2 + 1) with n of N cells in the mask
    for step, (name, side) in enumerate(zip(losses, (64, 32, 16, 8), strict=True)):
        cells, marked = side**2, side**2 / 4
        dice = 1 - (marked + 1) / (marked + cells / 2 + 1)
        assert losses[name].item() == pytest.approx(0.5**step / 1.875 * (bce.item() + dice), rel=1e-4)


@pytest.mark.parametrize(("stride", "names"), [(2, ["mask", "stride_4", "stride_8"]), (4, ["mask", "stride_8"])])
def test_a_coarser_output_leaves_out_the_finer_levels(stride, names):
    model = build(TINY | {"output_stride": stride})
    output = model(torch.rand(1, 3, 64, 64), [""], torch.ones(1, 1, 64, 64, dtype=torch.bool))
    assert list(output.losses) == names and output.logits_B1HW.shape == (1, 1, 64, 64)
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in build(TINY).parameters())


def test_the_sentence_is_not_read_and_never_too_long():
    model = build(TINY)
    text = model.encode_text(["a sentence", ""])
    assert text.tokens_BLD.shape[:2] == text.mask_BL.shape == (2, 0) and text.spans == ((), ())
    assert not model.truncates("word " * 10_000)
