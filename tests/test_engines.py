"""An engine gives what the model gives; answers return to the grid of their film."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import tiny
from reportseg.bundle import load_bundle
from reportseg.engines import TorchEngine, native_logits, pick_device
from reportseg.errors import InputError


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return TorchEngine(load_bundle(tiny.write_bundle(tmp_path_factory.mktemp("b") / "b")).model, "cpu")


def test_run_is_the_model_without_gradient(engine):
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    answer = engine.run(image, tiny.SENTENCES[:2])
    with torch.no_grad():  # with gradient attention is computed in another order
        assert torch.equal(answer.logits_B1HW, engine.model(image, tiny.SENTENCES[:2]).logits_B1HW)
    assert not answer.logits_B1HW.requires_grad and answer.losses == {} and engine.name == "torch-cpu"


def test_one_film_serves_many_sentences(engine):
    features = engine.encode_image(torch.rand(1, 3, 32, 32))
    left, right = (engine.decode(features, engine.encode_text([t])).logits_B1HW for t in (tiny.LEFT, tiny.RIGHT))
    assert not torch.equal(left, right)


def test_bf16_agrees_roughly(engine):
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    half = TorchEngine(engine.model, "cpu", "bf16").run(image, [tiny.LEFT]).logits_B1HW
    full = engine.run(image, [tiny.LEFT]).logits_B1HW
    assert half.dtype == torch.float32 and (half - full).abs().max() < 0.1 * full.abs().max()


def test_native_logits_goes_to_each_grid_and_leaves_its_own_alone():
    logits = torch.arange(2 * 16.0).view(2, 1, 4, 4)
    same, other = native_logits(logits, [(4, 4), (7, 3)])
    assert np.array_equal(same, logits[0, 0].numpy())
    assert other.shape == (7, 3) and other.dtype == np.float32 and other.min() >= 16 and other.max() <= 31


def test_a_device_that_is_not_here_is_the_users_mistake():
    with pytest.raises(InputError, match="not available"):
        pick_device("cuda:99")
    with pytest.raises(InputError, match="not available"):
        pick_device("meta")  # PyTorch has it; nothing comes back from it
    assert pick_device("cpu").type == "cpu"
