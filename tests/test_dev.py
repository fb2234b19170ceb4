"""dev chooses weights and fits the decision; the similarity maps are read by their AUROC."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from reportseg.decision import Decision
from reportseg.dev import averaged, fit_decision, separation


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


def test_separation_reads_the_last_cell_of_an_odd_map_half_beyond_the_film():
    mask = torch.zeros(1, 1, 112, 112, dtype=torch.bool)
    mask[..., 64:100] = True  # the third of the cells of 32 px; of what the fourth, which ends at 128, has of the film a quarter
    perfect = torch.zeros(1, 1, 4, 4)
    perfect[..., 2] = 1
    assert separation(perfect, mask)[0] == 1.0


def test_separation_knows_the_stride_of_a_small_film():
    mask = torch.zeros(1, 1, 40, 40, dtype=torch.bool)
    mask[..., 32:] = True  # the second of two cells of 32 px, of which a quarter is film
    assert separation(torch.tensor([[[[0.0, 1.0], [0.0, 1.0]]]]), mask)[0] == 1.0


def test_without_dev_the_cut_stays_at_half():
    assert fit_decision(None, [], 32, lambda s: s.text, lambda n, of: None) == (Decision(), {})
