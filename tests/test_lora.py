"""Low-rank adaptation: thirty lines, and what they promise."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from reportseg.models.lora import RANK, adapt, merge


def net():
    torch.manual_seed(0)
    return nn.ModuleDict({"q_proj": nn.Linear(6, 10), "other": nn.Linear(10, 12), "convolution": nn.Conv2d(3, 5, 3, padding=1)})


def run(module):
    x = torch.linspace(-1, 1, 12).view(2, 6)
    image = torch.linspace(-1, 1, 96).view(2, 3, 4, 4)
    return torch.cat([module["other"](module["q_proj"](x)).flatten(), module["convolution"](image).flatten()])


def trained(module):
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def awake(module):
    """As after some training: B is not zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return module


def test_it_begins_at_the_weights_that_it_adapts():
    module = net()
    before = run(module)
    adapt(module, {"q_proj", "convolution"})
    assert torch.equal(run(module), before)


def test_only_a_and_b_of_the_named_maps_are_trained_and_their_rank_is_8():
    module = net()
    adapt(module, {"q_proj", "convolution"})
    assert trained(module) == {f"{name}.{part}" for name in ("q_proj", "convolution") for part in "AB"}
    low = module["convolution"]
    assert low.A.shape == (RANK, 27) and low.B.shape == (5, RANK) and RANK == 8


def test_a_gradient_reaches_lora_and_none_a_frozen_weight():
    module = net()
    adapt(module, {"q_proj", "convolution"})
    awake(module)
    run(module).square().sum().backward()
    names = trained(module)
    for name, parameter in module.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (name in names)


def test_it_is_w_plus_b_a():
    module = net()
    weight = module["q_proj"].weight.detach().clone()
    adapt(module, {"q_proj"})
    awake(module)
    low, x = module["q_proj"], torch.randn(4, 6)
    assert torch.allclose(low(x), x @ (weight + low.B @ low.A).T + low.base.bias, atol=1e-6)


def test_merged_equals_unmerged_and_nothing_of_lora_is_left():
    module = net()
    names = set(module.state_dict())
    adapt(module, {"q_proj", "convolution"})
    awake(module)
    merged = copy.deepcopy(module)
    merge(merged)
    assert torch.equal(run(merged), run(module))
    assert set(merged.state_dict()) == names and trained(merged) == set()
    merge(merged)  # nothing to do
    assert len(trained(module)) == 4  # the copy was merged, not this one


@pytest.mark.parametrize("name", ["q_proj", "convolution"])
def test_the_learnt_change_has_the_rank_of_its_factors(name):
    module = nn.ModuleDict({"q_proj": nn.Linear(20, 20), "convolution": nn.Conv2d(3, 20, 3)})
    before = module[name].weight.detach().clone()
    adapt(module, {name})
    awake(module)
    assert torch.linalg.matrix_rank((module[name].weight() - before).flatten(1).double(), atol=1e-5) == RANK
