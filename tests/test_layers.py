"""Blocks against torch's own where it has them, and padding and resizing by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reportseg.models import layers
from reportseg.models.layers import (
    START,
    CrossAttention,
    PositionMap,
    ResidualBlock,
    TransformerBlock,
    attend,
    conv_block,
    group_norm,
    lift,
    pad_to_multiple,
    resize,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (3, 1), (12, 4), (24, 8), (176, 8), (256, 8)])
def test_group_norm_has_at_most_eight_groups_that_divide(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (5, 8)])
def test_convolutions_halve_upwards_and_end_at_zero_or_more(stride, size):
    for block in (conv_block(3, 8, stride), ResidualBlock(3, 8, stride)):
        out = block(torch.randn(2, 3, *size))
        assert out.shape == (2, 8, -(-size[0] // stride), -(-size[1] // stride))
        assert (out >= 0).all()


def test_a_residual_block_skips_by_identity_where_it_can():
    block = ResidualBlock(8, 8)
    nn.init.zeros_(block.body[-1].weight)
    x = torch.rand(1, 8, 4, 4)
    assert torch.equal(block(x), x)
    assert isinstance(ResidualBlock(8, 8, stride=2).skip, nn.Sequential) and isinstance(ResidualBlock(4, 8).skip, nn.Sequential)


def test_the_position_map_is_its_grid_at_14_and_interpolates_elsewhere():
    position = PositionMap(5)
    assert torch.equal(position((14, 14)), position.grid_1Chw)
    assert torch.equal(position((3, 40)), F.interpolate(position.grid_1Chw, (3, 40), mode="bilinear", align_corners=False))
    with torch.no_grad():
        position.grid_1Chw[:] = torch.arange(14.0)[:, None]  # a ramp stays a ramp: above is above at any size
    for height in (2, 7, 28):
        assert (position((height, 5))[0, 0, 1:, 0] > position((height, 5))[0, 0, :-1, 0]).all()


def test_a_position_map_starts_as_waves_that_tell_rows_and_columns_apart():
    grid = PositionMap(16).grid_1Chw[0].detach()
    assert torch.equal(grid[:8], grid[:8, :, :1].expand(-1, -1, 14)) and torch.equal(grid[8:], grid[8:, :1].expand(-1, 14, -1))
    assert grid.abs().max() <= START
    places = grid.flatten(1).T
    distance = torch.cdist(places, places) + 9 * torch.eye(len(places))
    assert distance.min() > 0.1  # no two places look alike
    assert torch.allclose(grid[8], -grid[8].flip(-1), atol=1e-5)  # half a sine: one side is the other with its sign changed


@pytest.mark.parametrize("masked", [False, True])
def test_attention_written_out_for_training_is_the_fused_kernel(masked, monkeypatch):
    q, k, v = (torch.randn(2, 4, n, 8, requires_grad=True) for n in (9, 5, 5))
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]]) if masked else None
    written = attend(q, k, v, mask)
    grads = torch.autograd.grad(written.square().sum(), (q, k, v))
    monkeypatch.setattr(layers, "SCORES", 9 * 5 - 1)
    fused = attend(q, k, v, mask)
    assert "ScaledDotProduct" in type(fused.grad_fn).__name__ and "ScaledDotProduct" not in type(written.grad_fn).__name__
    torch.testing.assert_close(written, fused)
    torch.testing.assert_close(grads, torch.autograd.grad(fused.square().sum(), (q, k, v)), rtol=1e-4, atol=1e-5)


def test_cross_attention_is_torchs_multi_head_attention():
    ours = CrossAttention(c_query=12, c_context=10, width=8, heads=4)
    theirs = nn.MultiheadAttention(8, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.eye(8).repeat(3, 1))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.weight.copy_(torch.eye(8))
        theirs.out_proj.bias.zero_()
    x, context = torch.randn(3, 7, 12), torch.randn(3, 5, 10)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0]]).bool()
    key, value = ours.key_value(context).chunk(2, dim=-1)
    expected = ours.out(theirs(ours.query(x), key, value, key_padding_mask=~mask, need_weights=False)[0])
    assert torch.allclose(ours(x, context, mask), expected, atol=1e-6)


def test_masked_context_has_no_effect():
    attend = CrossAttention(8, 8, 8)
    x, context, mask = torch.randn(1, 4, 8), torch.randn(1, 3, 8), torch.tensor([[True, True, False]])
    before = attend(x, context, mask)
    context[:, 2] = 1e6
    assert torch.equal(attend(x, context, mask), before)
    assert torch.allclose(attend(x, context[:, :2], mask[:, :2]), before, atol=1e-6)


def test_the_transformer_block_is_torchs_pre_norm_layer():
    ours = TransformerBlock(16, heads=4)
    theirs = nn.TransformerEncoderLayer(16, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    names = {
        "self_attn.in_proj_weight": "query_key_value.weight",
        "self_attn.in_proj_bias": "query_key_value.bias",
        "self_attn.out_proj.weight": "attention_out.weight",
        "self_attn.out_proj.bias": "attention_out.bias",
        "linear1.weight": "mlp.0.weight",
        "linear1.bias": "mlp.0.bias",
        "linear2.weight": "mlp.2.weight",
        "linear2.bias": "mlp.2.bias",
        "norm1.weight": "norm_attention.weight",
        "norm1.bias": "norm_attention.bias",
        "norm2.weight": "norm_mlp.weight",
        "norm2.bias": "norm_mlp.bias",
    }
    assert set(names.values()) == set(ours.state_dict())
    theirs.load_state_dict({a: ours.state_dict()[b] for a, b in names.items()})
    x = torch.randn(2, 6, 16)
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2]).bool()
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    expected = theirs(x, src_key_padding_mask=~mask)
    assert torch.allclose(ours(x, mask)[mask], expected[mask], atol=1e-5)


def test_the_value_path_keeps_every_token_in_its_place():
    block, x = TransformerBlock(8, heads=2), torch.randn(1, 5, 8)
    whole = block.value_path(x)
    assert torch.allclose(whole[:, 2:3], block.value_path(x[:, 2:3]), atol=1e-6)
    # With one token there is nothing to mix, so attention gives that token's value.
    alone = x[:, :1]
    attended = block(alone) - block.mlp(block.norm_mlp(alone + block.value_path(alone)))
    assert torch.allclose(attended - alone, block.value_path(alone), atol=1e-5)


def test_resize_is_bilinear_by_target_size_and_the_same_tensor_where_nothing_is_to_do():
    x = torch.rand(1, 2, 3, 5)
    assert resize(x, (3, 5)) is x
    assert torch.equal(resize(x, (7, 4)), F.interpolate(x, (7, 4), mode="bilinear", align_corners=False))
    assert torch.allclose(resize(torch.full((1, 1, 3, 3), 0.3), (17, 2)), torch.tensor(0.3))


@pytest.mark.parametrize("size", [(16, 32), (1, 1), (17, 33), (9, 16), (8, 40), (225, 223)])
def test_padding_goes_right_and_below_and_keeps_the_film(size):
    x = torch.rand(2, 3, *size)
    padded = pad_to_multiple(x, 16)
    assert padded.shape[2] % 16 == padded.shape[3] % 16 == 0
    assert padded.shape[2] - size[0] < 16 and padded.shape[3] - size[1] < 16
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    if size == (16, 32):
        assert padded is x


def test_padding_reflects_and_replicates_where_the_film_is_smaller_than_the_pad():
    row = torch.arange(10.0).view(1, 1, 1, 10).expand(1, 1, 10, 10)
    assert pad_to_multiple(row, 16)[0, 0, 0].tolist() == [*range(10), 8, 7, 6, 5, 4, 3]
    row = torch.arange(5.0).view(1, 1, 1, 5).expand(1, 1, 16, 5)
    assert pad_to_multiple(row, 16)[0, 0, 0].tolist() == [*range(5), *[4] * 11]


def test_a_lifted_map_lies_on_the_finer_one_whose_odd_side_was_padded():
    finer = torch.arange(7.0).expand(1, 1, 7, 7)
    halved = F.avg_pool2d(pad_to_multiple(finer, 2), 2)
    lifted = lift(halved, finer)
    assert lifted.shape == finer.shape
    assert torch.allclose(lifted[..., 1:5], finer[..., 1:5]), "stretched to seven places it would lie up to half a place off"
