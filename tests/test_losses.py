"""Losses against values worked out by hand, against torch and MONAI where the definitions agree, and their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from reportseg.losses import area_average, bce_loss, coarse_target, dice_bce_loss, lovasz_hinge_loss, soft_dice_loss

LOSSES = [soft_dice_loss, bce_loss, dice_bce_loss]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)


def example(n=3, height=9, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 1, height, width, generator=generator) * 3
    target = (torch.rand(n, 1, height, width, generator=generator) > 0.6).float()
    return logits, target, torch.ones_like(target)


def row(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


# ---- by hand


def test_dice_of_four_pixels():
    """p = 1/2, 1/2, 1/4, 3/4 and t = 1, 0, 0, 1: overlap 1.25, sizes 2 and 2, so 1 - (2.5 + 1) / (4 + 1)."""
    logits = row(0, 0, -math.log(3), math.log(3))
    assert soft_dice_loss(logits, row(1, 0, 0, 1), row(1, 1, 1, 1)).item() == pytest.approx(0.3, abs=1e-6)


def test_bce_of_four_pixels():
    """-(ln 1/2 + ln 1/2 + ln 3/4 + ln 3/4) / 4."""
    logits = row(0, 0, -math.log(3), math.log(3))
    expected = -(2 * math.log(0.5) + 2 * math.log(0.75)) / 4
    assert bce_loss(logits, row(1, 0, 0, 1), row(1, 1, 1, 1)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ((1, 2, -1, -3), 0.0),  # every hinge is met
        ((1, 0, -1, -3), 1 / 2),  # one of two pixels missed
        ((1, 0, 0, -3), 2 / 3),  # and one painted beside them
        ((0.5, 2, -1, -3), 0.5 * 1 / 2),  # linear between the two
        ((-1, 0, -1, -3), 2 * 1 / 2 + 1 * 1 / 2),  # the worst counts first: errors 2 and 1, each half of the mask
    ],
)
def test_lovasz_hinge_of_four_pixels(logits, expected):
    mask = row(1, 1, 0, 0).bool()
    assert lovasz_hinge_loss(row(*logits), mask, row(1, 1, 1, 1)).item() == pytest.approx(expected, abs=1e-6)


def test_lovasz_hinge_reads_valid_pixels_only_and_means_over_images():
    mask, valid = row(1, 1, 0, 0, 1, 0).bool(), row(1, 1, 1, 1, 0, 0)
    logits = row(1, 0, 0, -3, -9, 9).requires_grad_()
    loss = lovasz_hinge_loss(logits, mask, valid)
    assert loss.item() == pytest.approx(2 / 3, abs=1e-6)
    loss.backward()
    assert not logits.grad[..., 4:].any() and logits.grad[..., 1:3].all()
    met = row(1, 2, -1, -3, 0, 0)
    both = lovasz_hinge_loss(torch.cat([logits.detach(), met]), mask.expand(2, -1, -1, -1), valid.expand(2, -1, -1, -1))
    assert both.item() == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize(("logit", "loss"), [(-1.0, 0.0), (0.0, 1.0), (1.0, 2.0)])
def test_lovasz_hinge_of_an_empty_mask_is_that_of_its_worst_pixel(logit, loss):
    empty = torch.zeros(1, 1, 2, 2)
    logits = torch.full_like(empty, -2)
    logits[0, 0, 1, 1] = logit
    assert lovasz_hinge_loss(logits, empty.bool(), empty + 1).item() == pytest.approx(loss, abs=1e-6)


def test_the_sum_is_one_to_one():
    logits, target, valid = example()
    total = soft_dice_loss(logits, target, valid) + bce_loss(logits, target, valid)
    assert torch.equal(dice_bce_loss(logits, target, valid), total)


@pytest.mark.parametrize(("logit", "dice", "bce"), [(-1e4, 0.0, 0.0), (1e4, 1 - 1 / 17, 1e4)])
def test_an_empty_mask(logit, dice, bce):
    """Nothing painted is right and costs nothing; sixteen pixels painted leave (0 + 1) / (16 + 1)."""
    logits, empty = torch.full((1, 1, 4, 4), logit), torch.zeros(1, 1, 4, 4)
    assert soft_dice_loss(logits, empty, empty + 1).item() == pytest.approx(dice, abs=1e-6)
    assert bce_loss(logits, empty, empty + 1).item() == pytest.approx(bce, abs=1e-6)


def test_a_perfect_answer_costs_nothing_and_the_opposite_nearly_one():
    _, target, valid = example(height=32, width=32)
    logits = (target - 0.5) * 2e4
    assert soft_dice_loss(logits, target, valid).item() == pytest.approx(0, abs=1e-6)
    assert soft_dice_loss(-logits, target, valid).item() == pytest.approx(1, abs=2e-3)


# ---- against others


def test_dice_is_monais_with_eps_one():
    """monai 1.5 to 1.6, DiceLoss(sigmoid=True, smooth_nr=1, smooth_dr=1): per image and channel, then the mean."""
    from monai.losses import DiceLoss

    logits, target, valid = example()
    target[1] = 0
    assert torch.allclose(
        soft_dice_loss(logits, target, valid), DiceLoss(sigmoid=True, smooth_nr=1.0, smooth_dr=1.0)(logits, target), atol=1e-6
    )


def test_bce_is_torchs_where_every_pixel_is_valid():
    logits, target, valid = example()
    assert torch.allclose(bce_loss(logits, target, valid), F.binary_cross_entropy_with_logits(logits, target), atol=1e-6)
    soft = target * 0.3 + 0.2
    assert torch.allclose(bce_loss(logits, soft, valid), F.binary_cross_entropy_with_logits(logits, soft), atol=1e-6)


# ---- means over images


@every_loss
def test_a_batch_costs_the_mean_of_its_images_however_many_pixels_each_has(loss):
    logits, target, valid = example(4)
    target[0] = 0
    valid[1, :, 3:] = 0
    each = [loss(logits[i : i + 1], target[i : i + 1], valid[i : i + 1]) for i in range(4)]
    assert torch.allclose(loss(logits, target, valid), torch.stack(each).mean(), atol=1e-6)


@every_loss
def test_two_half_batches_give_the_gradient_of_the_whole(loss):
    logits, target, valid = example(4)
    whole, halves = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss(whole, target, valid).backward()
    for part in (slice(0, 2), slice(2, 4)):
        (0.5 * loss(halves[part], target[part], valid[part])).backward()
    assert torch.allclose(whole.grad, halves.grad, atol=1e-7)


# ---- valid pixels


@every_loss
def test_pixels_that_are_not_valid_are_as_if_cut_off(loss):
    logits, target, valid = example(2)
    valid[..., 5:, :] = 0
    cut = loss(logits[..., :5, :], target[..., :5, :], valid[..., :5, :])
    assert torch.allclose(loss(logits, target, valid), cut, atol=1e-6)
    logits[..., 5:, :], target[..., 5:, :] = 1e4, 1 - target[..., 5:, :]
    assert torch.allclose(loss(logits, target, valid), cut, atol=1e-6)


@every_loss
def test_an_image_without_a_valid_pixel_costs_nothing_and_has_no_gradient(loss):
    logits, target, valid = example(1)
    logits.requires_grad_()
    value = loss(logits, target, valid * 0)
    value.backward()
    assert value.item() == 0 and not logits.grad.any()


# ---- numbers


@every_loss
def test_extreme_logits_stay_finite(loss):
    logits, target, valid = example()
    for factor in (1e4, 1e30):
        x = (logits * factor).requires_grad_()
        value = loss(x, target, valid)
        value.backward()
        assert value.isfinite() and x.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_counted_in_fp32(loss, dtype):
    logits, target, valid = example()
    logits = logits.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, target.bool(), valid)
    assert value.dtype == torch.float32
    assert torch.allclose(value, loss(logits.float(), target, valid), atol=1e-6)


@every_loss
def test_the_gradient_is_that_of_small_differences(loss):
    logits, target, valid = example(2, 3, 3)
    valid[0, 0, 0] = 0
    logits.requires_grad_()
    loss(logits, target, valid).backward()
    step = 1e-2
    for i in (0, 4, 11, 17):
        nudge = torch.zeros(18).index_fill(0, torch.tensor([i]), step).view_as(logits)
        slope = (loss(logits + nudge, target, valid) - loss(logits - nudge, target, valid)) / (2 * step)
        assert slope.item() == pytest.approx(logits.grad.view(-1)[i].item(), abs=2e-4)


def test_the_gradient_of_bce_is_p_minus_t_over_the_pixels():
    logits, target, valid = example(2)
    logits.requires_grad_()
    bce_loss(logits, target, valid).backward()
    assert torch.allclose(logits.grad, (logits.detach().sigmoid() - target) / (2 * 9 * 7), atol=1e-7)


# ---- coarse targets


def test_a_coarse_target_is_the_share_of_each_cell_so_that_one_pixel_is_not_lost():
    mask = torch.zeros(1, 1, 224, 224, dtype=torch.bool)
    mask[0, 0, 37, 70] = True
    coarse = area_average(mask, (7, 7))
    assert coarse[0, 0, 1, 2].item() == pytest.approx(1 / 1024) and coarse.sum().item() == pytest.approx(1 / 1024)
    assert F.interpolate(mask.float(), (7, 7), mode="nearest").sum() == 0


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4), (16, 16)])
def test_the_average_of_a_full_mask_is_full_and_total_area_is_kept_where_cells_divide(size):
    assert torch.allclose(area_average(torch.ones(1, 1, 16, 16), size), torch.ones(1, 1, *size))
    mask = (torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    if 16 % size[0] == 16 % size[1] == 0:
        assert area_average(mask, size).mean().item() == pytest.approx(mask.mean().item(), abs=1e-6)


def test_a_coarse_target_asks_of_a_cell_only_what_is_valid_in_it():
    mask, valid = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    valid[..., 3:], valid[..., 2:, :2] = 0, 0
    share, weight = coarse_target(mask, valid, (2, 2))
    assert share.flatten().tolist() == [1, 1, 0, 1] and weight.flatten().tolist() == [1, 0.5, 0, 0.5]
