"""The learning rate, the weight average and the parameter groups, by their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from reportseg import optim
from reportseg.config import TrainSection

CPU = torch.device("cpu")


def test_learning_rate_rises_then_falls_to_zero_at_the_budget():
    train = TrainSection(lr=1e-3, warmup=0.1)
    rates = [optim.learning_rate(step, 100, train) for step in range(100)]
    assert rates[:10] == pytest.approx([1e-4 * (i + 1) for i in range(10)])
    assert max(rates) == 1e-3 and all(a >= b for a, b in zip(rates[9:], rates[10:], strict=False))
    assert rates[55] == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 0.5)))
    assert 0 < rates[-1] < 1e-6 * 1e3 and optim.learning_rate(100, 100, train) == 0.0


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_learning_rate_of_a_very_short_run_is_positive(steps):
    assert all(optim.learning_rate(step, steps, TrainSection()) > 0 for step in range(steps))


def test_no_decay_on_norms_and_biases():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Linear(4, 2))
    decayed, free = optim.adamw(model, TrainSection(weight_decay=0.05)).param_groups
    assert [p.ndim for p in decayed["params"]] == [4, 2] and decayed["weight_decay"] == 0.05
    assert {p.ndim for p in free["params"]} == {1} and len(free["params"]) == 4 and free["weight_decay"] == 0


def test_frozen_parameters_are_left_out():
    model = nn.Linear(4, 2)
    model.weight.requires_grad_(False)
    assert sum(len(g["params"]) for g in optim.adamw(model, TrainSection()).param_groups) == 1


def test_average_follows_its_definition_and_starts_fast():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    average = optim.Average(model, 0.99, steps=10_000)
    expected = 0.0
    for step in range(1, 6):
        nn.init.constant_(model.weight, float(step))
        average.update(model, step)
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * step
    assert float(average.state["weight"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("steps", "horizon"), [(100, 10), (1000, 100), (10**6, 500)])
def test_horizon_of_the_average_is_at_most_a_tenth_of_the_run(steps, horizon):
    average = optim.Average(nn.Linear(1, 1), 0.998, steps)
    assert 1 / (1 - average.decay) == pytest.approx(horizon)


def test_average_copies_what_is_not_a_float():
    model = nn.BatchNorm1d(2)
    average = optim.Average(model, 0.9, 1000)
    model.num_batches_tracked += 5
    average.update(model, 1)
    assert int(average.state["num_batches_tracked"]) == 5


def test_optimiser_state_goes_out_and_comes_back():
    def fresh():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        return model, optim.adamw(model, TrainSection())

    def step(model, optimiser):
        model(torch.arange(6.0).view(2, 3)).square().sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    model, optimiser = fresh()
    step(model, optimiser)
    kept = {k: v.clone() for k, v in optim.optimiser_state(optimiser, model).items()}
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    step(model, optimiser)

    again, other = fresh()
    again.load_state_dict(weights)
    optim.load_optimiser_state(other, again, kept)
    step(again, other)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_seconds_per_step_throws_the_first_ones_away():
    calls = []
    assert optim.seconds_per_step(lambda: calls.append(1), CPU, discard=2, count=3) >= 0 and len(calls) == 5


def test_the_probe_answers():
    assert optim.bf16_gains(CPU) in (True, False)
