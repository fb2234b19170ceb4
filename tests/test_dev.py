"""dev chooses weights and fits the decision; the similarity maps are read by their AUROC."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from reportseg.decision import Decision
from reportseg.dev import averaged, fit_decision, separation
from reportseg.models import build
from reportseg.models.encoders import train_tokenizer


def test_the_average_is_in_the_model_for_a_while():
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    with pytest.raises(KeyError), averaged(model, {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}):
        assert not model.weight.any()
        raise KeyError
    assert torch.equal(model.weight, before)


def test_separation_is_the_auroc_of_each_film():
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 1, 8, 8)).astype(np.float32)
    mask = rng.random((3, 1, 8, 8)) < 0.3
    found = separation(torch.from_numpy(values), torch.from_numpy(mask))
    for i in range(3):
        inside, outside = values[i][mask[i]], values[i][~mask[i]]
        assert found[i] == pytest.approx(mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside)))


def test_separation_counts_ties_half_and_knows_no_answer_for_one_side():
    mask = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2] = True
    mask[1] = True
    flat = separation(torch.zeros(3, 1, 4, 4), mask)
    assert flat[0] == 0.5 and np.isnan(flat[1:]).all()


def test_separation_reads_coarse_maps_against_the_area():
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    assert separation(torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]]), mask)[0] == 1.0


def test_separation_stretches_a_map_over_the_film_or_lets_its_last_cell_end_beyond():
    mask = torch.zeros(1, 1, 112, 112, dtype=torch.bool)
    mask[..., 64:100] = True
    third, two = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    third[..., 2] = 1  # of cells of 32 px; the fourth ends at 128, and has a quarter of its film covered
    two[..., 2:] = 1  # of cells of 28 px
    assert separation(third, mask, 32)[0] == 1.0 and separation(two, mask)[0] == 1.0
    assert separation(third, mask)[0] < 1 and separation(two, mask, 32)[0] < 1


@pytest.mark.parametrize(("name", "map_of"), [("tgcnet", "S32"), ("tmca", "A32")])
def test_dev_reads_a_map_on_the_cells_that_it_is_trained_on(name, map_of):
    """112 px: TGC-Net's four cells have 28 px, those of TMCA 32."""
    model = build({"name": name, "preset": "tiny"}, train_tokenizer(["left lung"]))
    mask = torch.zeros(1, 1, 112, 112, dtype=torch.bool)
    output = model(torch.rand(1, 3, 112, 112), ["left lung"], mask)
    assert output.maps[map_of].shape == (1, 1, 4, 4) and output.strides.get(map_of) == (32 if name == "tmca" else None)


def test_without_dev_the_cut_stays_at_half():
    assert fit_decision(None, [], 32, lambda s: s.text, lambda n, of: None) == (Decision(), {})
