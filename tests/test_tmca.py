"""TMCA: what its labels, its alignment and its enhancement promise, and that inference never sees what only training needs."""

from __future__ import annotations

import json
import math
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from reportseg import checkpoint
from reportseg.bundle import load_bundle
from reportseg.config import load_config
from reportseg.errors import InputError
from reportseg.losses import bce_loss
from reportseg.models import alignment as aligning
from reportseg.models import build, count_parameters, model_config
from reportseg.models.alignment import (
    LEAST_BACKGROUND,
    MARGIN,
    REFRESH,
    ROWS,
    Alignment,
    Targets,
    divergence,
    key_of,
    overlap,
    pool,
)
from reportseg.models.layers import cells_of, lift
from reportseg.models.tmca import PIXEL_WEIGHT, PRESETS, STRIDES, TMCA
from reportseg.text import CONSTANT, normalise, swap_sides
from test_train import Interrupt, config, interrupt_after, log, make_films, weights
from tmca_batch import BOTH, DROPPED, LEFT, RIGHT, TEXTS, TOKENIZER, built, make_batch, trained_model

training = import_module("reportseg.train")
TABLE = sorted({LEFT, RIGHT, BOTH, swap_sides(BOTH)}, key=normalise)


def aligned(soft=True, strides=(4,), sentences=TEXTS, joint=8):
    torch.manual_seed(1)
    alignment = Alignment(strides, joint, soft, sentences)
    alignment.refresh(lambda texts: torch.stack([vector(text) for text in texts]))
    return alignment


def vector(text, joint=8):
    return torch.randn(joint, generator=torch.Generator().manual_seed(key_of(text) % 1000))


def run(alignment, texts, mask, maps=None, progress=1.0, valid=None):
    """Losses and figures on maps at stride 4, or on a list of one for each level."""
    maps = torch.randn(len(texts), 8, mask.shape[2] // 4, mask.shape[3] // 4) if maps is None else maps
    text = torch.stack([vector(text) for text in texts]).requires_grad_()
    valid = torch.ones_like(mask) if valid is None else valid
    compared = maps if isinstance(maps, list) else [maps]
    return alignment(compared, text, texts, mask, valid, lambda part: torch.stack([vector(t) for t in part]), progress)


def box(n, y, x, side=12, size=32):
    mask = torch.zeros(n, 1, size, size, dtype=torch.bool)
    mask[:, :, y : y + side, x : x + side] = True
    return mask


# ---- the table


def test_the_table_holds_every_sentence_and_its_side_swapped_form_once():
    alignment = aligned(sentences=[LEFT, LEFT.upper(), f" {LEFT} ", BOTH, DROPPED])
    assert {key for key in alignment.key_U.tolist() if key} == {key_of(text) for text in TABLE}
    assert key_of(LEFT) == key_of("Upper  LEFT lung .") != key_of(RIGHT) and key_of("") == key_of("  ") == 0


def test_more_sentences_than_rows_make_it_a_queue_that_forgets_the_oldest():
    alignment = aligned(sentences=[f"lesion {i}" for i in range(ROWS + 1)])
    assert not alignment.key_U.any() and alignment.sentences == []
    first, second = ([f"lesion {i}" for i in part] for part in (range(600), range(600, 1200)))
    alignment.rows(torch.tensor([key_of(text) for text in first]))
    alignment.rows(torch.tensor([key_of(text) for text in [first[0], *second]]))
    held = set(alignment.key_U.tolist())
    assert {key_of(text) for text in [first[0], *second]} <= held, "a sentence of this batch keeps its row"
    assert key_of(first[1]) not in held and key_of(first[-1]) in held and len(held) == ROWS
    with pytest.raises(ValueError, match="distinct sentences"):
        alignment.rows(torch.arange(1, ROWS + 2))


def test_a_sentence_that_the_table_does_not_know_gets_a_row_without_a_past():
    alignment = aligned()
    run(alignment, ["nodule"], box(1, 4, 4))
    row = alignment.key_U.tolist().index(key_of("nodule"))
    assert row == len(TABLE) and alignment.count_U[row] == 1
    assert torch.allclose(alignment.vector_UD[row], F.normalize(vector("nodule"), dim=0))


def test_mean_masks_are_means_in_any_order_of_the_films():
    one, other = aligned(), aligned()
    masks = torch.cat([box(1, 4, 2), box(1, 10, 2), box(1, 4, 18)])
    run(one, [LEFT, LEFT, RIGHT], masks)
    for i in (2, 1, 0):
        run(other, [[LEFT, LEFT, RIGHT][i]], masks[i : i + 1])
    assert torch.allclose(one.mask_UG, other.mask_UG, atol=1e-6) and torch.equal(one.count_U, other.count_U)
    row = one.key_U.tolist().index(key_of(LEFT))
    expected = F.interpolate(masks[:2].float(), size=(14, 14), mode="area").flatten(1).mean(0)
    assert torch.allclose(one.mask_UG[row], expected, atol=1e-6)


def test_stored_vectors_are_read_again_every_fifty_steps():
    alignment = aligned()
    read = []
    for _ in range(REFRESH + 1):
        text = vector(LEFT)[None]
        alignment(
            [torch.randn(1, 8, 8, 8)],
            text,
            [LEFT],
            box(1, 4, 4),
            box(1, 0, 0, 32),
            lambda t: read.append(len(t)) or torch.randn(len(t), 8),
            1.0,
        )
    assert read == [len(TABLE)] * 2
    assert not alignment.vector_UD.requires_grad


# ---- Q


def test_a_films_own_sentence_has_at_least_half_of_q():
    alignment = aligned()
    masks = torch.cat([box(2, 4, 2), box(2, 4, 18), box(1, 16, 8), box(1, 0, 0, 32)])
    texts = [LEFT, LEFT, RIGHT, BOTH, RIGHT, LEFT]
    for _ in range(3):  # with an empty history and with one
        run(alignment, texts, masks)
        own = alignment.known(alignment.rows(torch.tensor([key_of(t) for t in texts])))
        grid = F.interpolate(masks.float(), size=(14, 14), mode="area").flatten(1)
        q, soft = alignment.labels(grid, own, alignment.vector_UD[alignment.key_U != 0])
        assert (q[torch.arange(6), own] >= 0.5).all()
        assert torch.allclose(q.sum(1), torch.ones(6)) and torch.allclose(soft.sum(1), torch.ones(6))


def test_the_soft_half_goes_to_sentences_with_targets_in_the_same_place_and_with_close_words():
    alignment = aligned()
    place, far = (F.interpolate(m.float(), size=(14, 14), mode="area").flatten(1) for m in (box(1, 4, 2), box(1, 18, 18)))
    table = torch.eye(4, 8)
    table[1] = table[0] + 0.5 * table[1]  # row 1 has words close to those of row 0
    alignment.mask_UG[:4] = torch.cat([place, far, place, far])
    q, _ = alignment.labels(place, torch.tensor([0]), table)
    own, words, both_ways, neither = q[0].tolist()
    assert own > both_ways > neither and own > words > neither


def test_q_is_half_the_own_sentence_and_half_a_softmax_over_distances():
    """Three sentences: overlaps 1, 0.5, 0; cosines of the centred vectors 1, 0.6 and one below zero, which counts as 0."""
    alignment = aligned(sentences=[LEFT, "lung."])
    centred = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-1.6, -0.8]])
    film = torch.zeros(1, 196)
    film[:, :4] = 1
    alignment.mask_UG[0], alignment.mask_UG[1], alignment.mask_UG[2] = film[0], film[0].roll(2), film[0].roll(9)
    q, soft = alignment.labels(film, torch.tensor([0]), F.pad(centred + torch.tensor([0.3, 0.4]), (0, 6)))
    weights = [math.exp(-d / 0.15) for d in (0, 1 - (0.5 + 0.6) / 2, 1)]
    expected = torch.tensor([weight / sum(weights) for weight in weights])
    assert torch.allclose(soft[0], expected, atol=1e-5)
    assert torch.allclose(q[0], 0.5 * expected + torch.tensor([0.5, 0, 0]), atol=1e-5)


def test_without_soft_labels_only_the_own_sentence_is_right():
    alignment = aligned(soft=False)
    q, _ = alignment.labels(torch.rand(2, 196), torch.tensor([2, 0]), torch.randn(4, 8))
    assert torch.equal(q, F.one_hot(torch.tensor([2, 0]), 4).float())
    assert "soft_entropy" not in run(alignment, [LEFT, RIGHT], box(2, 4, 4))[1]


def test_no_gradient_goes_through_q():
    alignment = aligned()
    table, grid = torch.randn(4, 8, requires_grad=True), torch.rand(2, 196, requires_grad=True)
    q, soft = alignment.labels(grid, torch.tensor([0, 1]), table)
    assert not q.requires_grad and not soft.requires_grad


def test_overlap_is_one_for_the_same_mask_and_zero_for_apart_or_empty_ones():
    masks = torch.stack([torch.eye(1, 9)[0], torch.eye(1, 9)[0].roll(1), torch.zeros(9)])
    assert torch.allclose(overlap(masks, masks), torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 0]]))


# ---- the terms


def parts(alignment, texts, masks, seed=5):
    """Everything that `terms` takes, of films with targets."""
    n = len(texts)
    generator = torch.Generator().manual_seed(seed)
    v, b = (F.normalize(torch.randn(n, 8, generator=generator), dim=1).requires_grad_() for _ in range(2))
    t = torch.stack([vector(text) for text in texts])
    table, own = alignment.read(torch.tensor([key_of(text) for text in texts]), t)
    grid = F.interpolate(masks.float(), size=(14, 14), mode="area").flatten(1)
    q, _ = alignment.labels(grid, own, table)
    every = torch.ones(n, dtype=torch.bool)
    return [0, Targets(v, b), F.normalize(t, dim=1), table, q, own, every, every]


def test_permuting_the_batch_permutes_the_terms():
    alignment = aligned()
    texts, masks = [LEFT, RIGHT, BOTH, LEFT], torch.cat([box(1, 4, 2), box(1, 4, 18), box(1, 16, 8), box(1, 6, 3)])
    given = parts(alignment, texts, masks)
    order = torch.tensor([2, 0, 3, 1])
    level, p, t, table, q, own, contrast, margins = given
    shuffled = [level, Targets(p.v_ND[order], p.b_ND[order]), t[order], table, q[order], own[order], contrast, margins]
    for term, moved in zip(alignment.terms(*given), alignment.terms(*shuffled), strict=True):
        assert len(term) == 4 and torch.allclose(term[order], moved, atol=1e-6)


def test_permuting_the_films_of_a_step_changes_none_of_its_losses():
    image, texts, mask = make_batch()
    order = [4, 2, 0, 5, 1, 3]
    losses = trained_model()(image, texts, mask).losses
    permuted = trained_model()(image[order], [texts[i] for i in order], mask[order]).losses
    assert all(losses[f"align_{stride}"] > 0 for stride in STRIDES)
    assert losses.keys() == permuted.keys()
    assert all(torch.allclose(loss, permuted[name], atol=1e-6) for name, loss in losses.items())


def test_a_batch_that_is_all_one_teaches_nothing_from_text_to_image_and_something_finite_back():
    alignment = aligned()
    given = parts(alignment, [LEFT] * 3, box(3, 4, 2))
    v = F.normalize(torch.randn(1, 8), dim=1).repeat(3, 1).requires_grad_()
    given[1] = Targets(v, given[1].b_ND.detach())
    terms = alignment.terms(*given)
    (gradient,) = torch.autograd.grad(terms.to_image_N.sum(), v, retain_graph=True)
    assert gradient.abs().max() < 1e-6
    (gradient,) = torch.autograd.grad(terms.to_text_N.sum(), v)
    assert gradient.isfinite().all() and gradient.abs().max() > 1e-3


def test_terms_are_kl_divergences_from_q():
    q, logits = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.2, -0.1, 0.4]])
    p = logits.softmax(1)
    expected = 0.5 * math.log(0.5 / p[0, 0]) + 0.5 * math.log(0.5 / p[0, 1])
    assert divergence(q, logits).item() == pytest.approx(expected, abs=1e-6)
    assert divergence(p, logits).abs().max() < 1e-6


def test_the_margin_asks_that_a_sentence_is_nearer_to_its_target_than_to_the_background():
    alignment = aligned()
    given = parts(alignment, [LEFT, RIGHT], box(2, 4, 2))
    t = given[2]
    given[1] = Targets(t.clone(), -t)
    assert (alignment.terms(*given).margin_N == 0).all()
    given[1] = Targets(-t, t.clone())
    assert torch.allclose(alignment.terms(*given).margin_N, torch.full((2,), MARGIN + 2))


def test_what_of_a_cell_lies_beyond_the_film_is_not_counted():
    """28 px at stride 8: four cells a side, the last of which lies half beyond."""
    mask, valid = torch.zeros(1, 1, 28, 28, dtype=torch.bool), torch.ones(1, 1, 28, 28)
    mask[..., 8:16, 24:] = True
    share, weight = cells_of(mask, valid, torch.zeros(1, 8, 4, 4), 8)
    expected = torch.zeros(4, 4)
    expected[1, 3] = 1
    assert torch.equal(share[0, 0], expected)
    assert torch.equal(weight[0, 0], torch.tensor([1, 1, 1, 0.5])[:, None] * torch.tensor([1, 1, 1, 0.5]))


def test_vectors_are_means_over_the_target_and_over_the_rest_of_what_is_valid():
    z = torch.randn(1, 8, 8, 8)
    mask, valid = box(1, 8, 8, 8).float(), torch.ones(1, 1, 32, 32)
    valid[..., 24:] = 0
    found = pool(z, mask, valid, 4)
    inside = z[:, :, 2:4, 2:4].flatten(2).mean(2)
    outside = (z[..., :6].sum((2, 3)) - z[:, :, 2:4, 2:4].sum((2, 3))) / (48 - 4)
    assert torch.allclose(found.v_ND, F.normalize(inside, dim=1), atol=1e-5)
    assert torch.allclose(found.b_ND, F.normalize(outside, dim=1), atol=1e-5)


# ---- hard batches


@pytest.mark.parametrize("texts", [[LEFT], [LEFT, RIGHT]], ids=["batch 1", "batch 2"])
@pytest.mark.parametrize("mask", ["box", "empty", "full", "nothing valid"])
def test_hard_batches_give_finite_terms_that_hang_on_the_graph(texts, mask):
    alignment = aligned()
    n = len(texts)
    masks = {"box": box(n, 4, 4), "empty": box(n, 0, 0, 0), "full": box(n, 0, 0, 32), "nothing valid": box(n, 4, 4)}[mask]
    valid = torch.zeros_like(masks) if mask == "nothing valid" else None
    maps = torch.randn(n, 8, 8, 8, requires_grad=True)
    losses, figures = run(alignment, texts, masks, maps, valid=valid)
    losses["align_4"].backward()
    assert losses["align_4"].isfinite() and maps.grad.isfinite().all()
    assert maps.grad.any() == (mask in ("box", "full"))
    assert ("contrast_4" in figures) == (mask in ("box", "full")) and ("gap_4" in figures) == (mask == "box")
    assert all(value.isfinite() for value in figures.values())


def test_one_sentence_and_one_film_leave_nothing_to_choose_from():
    alignment = aligned(sentences=["nodule"])
    maps = torch.randn(1, 8, 8, 8, requires_grad=True)
    losses, _ = run(alignment, ["nodule"], box(1, 0, 0, 32), maps)
    losses["align_4"].backward()
    assert losses["align_4"] == 0 and not maps.grad.any()


def test_a_film_whose_text_was_dropped_changes_neither_terms_nor_table():
    one, other = aligned(), aligned()
    maps, masks = torch.randn(3, 8, 8, 8), torch.cat([box(1, 4, 2), box(1, 4, 18), box(1, 16, 8)])
    with_it, _ = run(one, [LEFT, RIGHT, DROPPED], masks, maps)
    without, _ = run(other, [LEFT, RIGHT], masks[:2], maps[:2])
    assert torch.allclose(with_it["align_4"], without["align_4"], atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))
    assert run(one, [DROPPED], masks[:1], maps[:1]) == ({"align_4": torch.tensor(0.0)}, {})


def test_an_empty_mask_has_a_background_and_no_target():
    alignment = aligned()
    maps = torch.randn(3, 8, 8, 8, requires_grad=True)
    masks = torch.cat([box(2, 4, 2), box(1, 0, 0, 0)])
    run(alignment, [LEFT, RIGHT, LEFT], masks, maps)[0]["align_4"].backward()
    assert maps.grad[2].any()
    row = alignment.key_U.tolist().index(key_of(LEFT))
    assert alignment.count_U[row] == 1, "it says nothing of where the sentence's targets lie"


def test_a_film_whose_target_a_teacher_merely_doubts_has_none():
    alignment = aligned()
    soft = torch.cat([box(2, 4, 2).float(), torch.full((1, 1, 32, 32), 1 / 255)])
    run(alignment, [LEFT, RIGHT, LEFT], soft)
    assert alignment.count_U[alignment.key_U.tolist().index(key_of(LEFT))] == 1


def test_a_background_of_less_than_a_hundredth_gives_no_margin():
    almost = torch.ones(1, 1, 32, 32, dtype=torch.bool)
    almost[..., 0, : int(32 * 32 * LEAST_BACKGROUND)] = False
    assert "gap_4" not in run(aligned(), [LEFT], almost)[1]
    almost[..., 1, :4] = False
    assert "gap_4" in run(aligned(), [LEFT], almost)[1]


def test_the_weight_rises_over_the_first_tenth_of_the_run():
    maps, masks = torch.randn(2, 8, 8, 8), box(2, 4, 4)
    at = [float(run(aligned(), [LEFT, RIGHT], masks, maps, progress)[0]["align_4"].detach()) for progress in (0.0, 0.05, 0.1, 0.7)]
    assert at[0] == 0 and at[1] == pytest.approx(at[2] / 2, rel=1e-5) and at[2] == pytest.approx(at[3], rel=1e-6) and at[3] > 0


def test_the_weight_is_a_fifth_shared_by_the_levels():
    maps, masks = torch.randn(2, 8, 8, 8), box(2, 0, 0, 32)  # no background, so no margin
    losses, figures = run(aligned(), [LEFT, RIGHT], masks, maps)
    assert torch.allclose(losses["align_4"], 0.2 * figures["contrast_4"]) and figures["contrast_4"] > 0
    levels = [maps, F.avg_pool2d(maps, 2)]
    assert torch.allclose(run(aligned(strides=(4, 8)), [LEFT, RIGHT], masks, levels)[0]["align_4"], 0.1 * figures["contrast_4"])


def test_temperatures_keep_their_range():
    alignment = aligned(strides=STRIDES)
    assert torch.allclose(alignment.tau, torch.full((4,), 0.07), atol=1e-6)
    with torch.no_grad():
        alignment.tau_logit.copy_(torch.tensor([-99.0, 99.0, 0.0, 0.0]))
    assert alignment.tau[:2].tolist() == pytest.approx([0.02, 0.5])


def test_alarms_name_what_is_wrong_and_keep_silent_else():
    alignment = aligned(strides=(4, 8))
    assert alignment.alarms({}) == alignment.alarms({"soft_entropy": 0.9, "target_cosine_4": 0.95}) == []
    said = alignment.alarms({"soft_entropy": 0.91, "target_cosine_4": 0.2, "target_cosine_8": 0.96})
    assert len(said) == 2 and "entropy" in said[0] and "stride 8" in said[1]
    model = trained_model()
    model.progress = 0.05
    assert model.alarms({"soft_entropy": 1.0}) == [], "before the alignment has its weight, nothing can be expected"
    model.progress = 0.5
    assert len(model.alarms({"soft_entropy": 1.0})) == 1


# ---- the model


def test_while_it_is_trained_every_parameter_gets_a_gradient_and_every_level_its_figures():
    model = trained_model()
    image, texts, mask = make_batch()
    output = model(image, texts, mask)
    sum(output.losses.values()).backward()
    assert all(p.grad is not None and p.grad.any() and p.grad.isfinite().all() for p in model.parameters())
    assert {f"{kind}_{s}" for kind in ("align", "pixel") for s in STRIDES} | {"mask"} == output.losses.keys()
    assert {f"{kind}_{s}" for kind in ("contrast", "gap", "target_cosine") for s in STRIDES} | {"soft_entropy"} == output.figures.keys()
    assert 0 < output.figures["soft_entropy"] <= 1 and not any(f.requires_grad for f in output.figures.values())


def test_in_bf16_every_parameter_gets_its_gradient_too_and_terms_are_close():
    """At the first step, when the whole table is read without gradient under the same autocast."""
    image, texts, mask = make_batch()
    full, model = trained_model()(image, texts, mask).losses, trained_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(image, texts, mask).losses
    sum(half.values()).backward()
    assert all(p.grad is not None and p.grad.any() and p.grad.isfinite().all() for p in model.parameters())
    assert all(loss.dtype == torch.float32 and (loss - full[name]).abs() < 0.1 for name, loss in half.items())


def test_alignment_happens_in_training_only_and_never_changes_an_answer():
    model = trained_model()
    image, texts, mask = make_batch()
    before = [b.clone() for b in model.alignment.buffers()]
    evaluated = model.eval()(image, texts, mask)
    assert all(torch.equal(a, b) for a, b in zip(before, model.alignment.buffers(), strict=True)) and evaluated.figures == {}
    trained = model.train()(image, texts, mask)
    model.end_training()
    assert torch.equal(trained.logits_B1HW, evaluated.logits_B1HW)
    assert torch.equal(model(image, texts).logits_B1HW, evaluated.logits_B1HW)
    assert not any("alignment" in key for key in model.state_dict())


def test_each_switch_takes_its_part_away():
    image, texts, mask = make_batch()

    def losses(**section):
        return set(trained_model(**section)(image, texts, mask).losses)

    every = losses()
    assert losses(alignment={"levels": []}) == every - {f"align_{s}" for s in STRIDES}
    assert losses(alignment={"levels": [32, 8]}) == every - {"align_4", "align_16"}
    assert losses(ltem={"pixel_loss": False}) == every - {f"pixel_{s}" for s in STRIDES}
    assert losses(ltem={"enabled": False}) == every - {f"pixel_{s}" for s in STRIDES}
    assert trained_model(tsdm={"soft_labels": False}).alignment.soft_labels is False
    assert trained_model(alignment={"levels": []}).alignment is None


def test_without_enhancement_the_alignment_has_projectors_of_its_own_and_the_answer_does_not():
    model, plain = trained_model(ltem={"enabled": False}, alignment={"levels": [8, 32]}), built(ltem={"enabled": False})
    assert len(model.alignment.projectors) == 2 and len(trained_model().alignment.projectors) == 0
    image, texts, mask = make_batch()
    sum(model(image, texts, mask).losses.values()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    model.end_training()
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert model(image, texts).token_map_BLhw is None


def test_the_presence_head_reads_the_film_that_met_the_text_and_the_sentence():
    """[mean F_16' ; max F_16' ; t], two layers; F_16' is what the decoder takes at that stride, and another for another sentence."""
    model, seen = built(presence=True).eval(), []
    model.up[2].register_forward_hook(lambda module, given, out: seen.append(given[0][:, -model.sizes.width :]))
    model.presence.register_forward_hook(lambda module, given, out: seen.append(given))
    features = model.encode_image(make_batch()[0][:2])
    maps = []
    for texts in ([LEFT, RIGHT], [BOTH, BOTH]):
        text = model.encode_text(texts)
        output = model.decode(features, text)
        (map_BdHW, said_BD), decoded = seen
        assert torch.equal(map_BdHW, decoded) and torch.equal(said_BD, text.pooled_BD)
        pooled = torch.cat([map_BdHW.mean((2, 3)), map_BdHW.amax((2, 3)), said_BD], dim=1)
        assert torch.allclose(output.presence_B, model.presence.layers(pooled)[:, 0], atol=1e-6)
        maps.append(map_BdHW)
        seen.clear()
    assert not torch.allclose(*maps)


def test_enhancement_starts_as_nothing_and_adds_gamma_times_attention():
    model = built()
    image, texts, _ = make_batch()
    text = model.encode_text(texts)
    features = model.encode_image(image)
    a = model.ltem(features.compared, text.pooled_BD)
    cosine = F.cosine_similarity(features.compared[2], text.pooled_BD[:, :, None, None], dim=1)[:, None]
    assert torch.allclose(a[2], (cosine - 0.2) / 0.2, atol=1e-4)
    seen = []
    model.up[0].register_forward_hook(lambda module, given, out: seen.append(given[0]))
    with torch.no_grad():
        model.ltem.gamma.fill_(0.3)
    model.decode(features, text)
    f = features.maps[0]
    assert torch.allclose(seen[0][:, -f.shape[1] :], f * (1 + 0.3 * a[0].sigmoid()), atol=1e-5)
    assert not build({"name": "tmca", "preset": "tiny"}, TOKENIZER).ltem.gamma.any()
    with torch.no_grad():
        model.ltem.gamma.zero_()
    closed = model.decode(features, text).logits_B1HW
    del model.ltem
    model.config = model.config.model_copy(update={"ltem": model.config.ltem.model_copy(update={"enabled": False})})
    assert torch.equal(model.decode(features, text).logits_B1HW, closed)


def test_the_pixel_term_is_bce_against_the_share_that_the_mask_covers():
    model = built()
    image, texts, mask = make_batch(32, 32)
    output = model(image, texts, mask)
    share = F.avg_pool2d(mask.float(), 8)
    expected = PIXEL_WEIGHT * F.binary_cross_entropy_with_logits(output.maps["A8"], share)
    assert torch.allclose(output.losses["pixel_8"], expected, atol=1e-6)


def test_a_film_of_odd_maps_is_not_padded_and_its_maps_lie_on_one_another():
    """28 px: 7, 4, 2 and 1 places a side, where 32 px would have 8, 4, 2 and 1."""
    model, (image, texts, mask) = built().eval(), make_batch(28, 28)
    features, seen = model.encode_image(image), {}
    assert features.padded == (28, 28) and [m.shape[2] for m in features.maps] == [7, 4, 2, 1]
    for level in (0, 1):
        model.up[level].register_forward_hook(lambda module, given, out, level=level: seen.update({level: (given[0], out)}))
    output = model(image, texts, mask)
    coarse, given = seen[1][1], seen[0][0]
    assert torch.equal(given[:, : coarse.shape[1]], lift(coarse, given))
    for stride in STRIDES:
        target = cells_of(mask, torch.ones_like(mask), output.maps[f"A{stride}"], stride)
        assert torch.allclose(output.losses[f"pixel_{stride}"], PIXEL_WEIGHT * bce_loss(output.maps[f"A{stride}"], *target))


def test_units_are_tokens_and_their_spans_are_words_of_the_sentence():
    model = built()
    text = "Upper LEFT lung,  and\tlower right lung."
    encoded = model.encode_text([text, ""])
    words = "".join(text[a:b] for a, b in filter(None, encoded.spans[0]))
    assert words.replace(" ", "").replace("\t", "") == text.replace(" ", "").replace("\t", "")
    assert encoded.spans[0][0] is None and encoded.spans[0][-1] is None and encoded.spans[1] == (None, None)
    assert encoded.tokens_BLD.shape[:2] == encoded.mask_BL.shape and encoded.mask_BL[1].sum() == 2


def test_a_long_text_is_read_in_chunks_whose_tokens_are_joined():
    model = built()
    sentences = [f"upper left lung {i} and lower right lung {i} and upper right lung {i}." for i in range(9)]
    text = " ".join(sentences)
    chunks = model.reader.tokenizer.chunks(text)
    assert len(chunks) > 1 and not model.truncates(text) and model.truncates("left lung and " * 60)
    encoded, apart = model.encode_text([text]), model.encode_text(chunks)
    assert encoded.mask_BL.sum() == apart.mask_BL.sum() == len(encoded.spans[0])
    assert torch.allclose(encoded.pooled_BD[0], apart.pooled_BD.mean(0), atol=1e-6)
    said = [text[a:b].strip() for a, b in filter(None, encoded.spans[0])]
    assert "".join(said) == text.replace(" ", "")


def test_sizes_are_what_they_are_said_to_be():
    small = count_parameters({"name": "tmca", "preset": "small"})
    assert 5e6 < small["total"] == small["trainable"] <= 7e6
    published = count_parameters(load_config("tmca_qata").model)
    assert PRESETS["convnext-t"].cnn == (96, 192, 384, 768) and PRESETS["convnext-t"].depths == (3, 3, 9, 3)
    assert published["frozen"] == pytest.approx(108.9e6, rel=1e-3), "BERT base"
    assert published["trainable"] == pytest.approx(27.8e6 + 2.1e6, rel=2e-2), "ConvNeXt-T and our own layers"


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"alignment": {"levels": [4, 4]}}, "twice"),
        ({"alignment": {"levels": [5]}}, "4, 8, 16 or 32"),
        ({"alignment": {"levles": [4]}}, "levels"),
        ({"ltem": {"pixel": True}}, "pixel_loss"),
        ({"text": {"train": "frozen"}}, "random weights"),
    ],
)
def test_a_wrong_section_is_refused_with_the_way_out(section, says):
    with pytest.raises(InputError, match=says):
        model_config({"name": "tmca", **section})


# ---- training


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films"))


def settings(**train):
    data = {"size_px": 32, "augment": {"flip": True, "rotate_deg": 0, "scale": 0}}
    return config({"name": "tmca", "preset": "tiny"}, data, checkpoint_minutes=1e-9, **train)


@pytest.fixture(scope="module")
def whole(films, tmp_path_factory):
    return training.train(settings(), manifest=films, out=tmp_path_factory.mktemp("runs") / "whole")


def test_masks_are_read_after_augmentation(whole):
    """Half of the films are mirrored and their sentences with them: every sentence's targets stay on the side that it names."""
    state, _ = checkpoint.load(whole / "checkpoints")
    held = dict(zip(state["model/alignment.key_U"].tolist(), state["model/alignment.mask_UG"].unflatten(1, (14, 14)), strict=True))
    count = dict(zip(state["model/alignment.key_U"].tolist(), state["model/alignment.count_U"].tolist(), strict=True))
    for side, half in (("left", slice(7, 14)), ("right", slice(0, 7))):
        key = key_of(f"Unilateral infection, one infected area, upper {side} lung.")
        assert count[key] > 20 and held[key].sum() > 1 and held[key][:, half].sum() < 1e-3


def test_a_resumed_run_ends_with_the_same_bytes_table_and_log(whole, films, tmp_path):
    with pytest.raises(Interrupt):
        training.train(settings(), manifest=films, out=tmp_path / "cut", progress=interrupt_after(40))
    cut = training.train(settings(), manifest=films, out=tmp_path / "cut", resume=True)
    assert weights(cut) == weights(whole) and log(cut) == log(whole)
    one, other = (checkpoint.load(r / "checkpoints")[0] for r in (cut, whole))
    assert any("alignment.vector_UD" in key for key in one) and one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_bundle_has_nothing_that_only_training_needs(whole):
    assert not any("alignment" in key for key in load_file(whole / "bundle" / "model.safetensors"))
    assert load_bundle(whole / "bundle").model.alignment is None


def test_a_twin_never_meets_a_sentence(films, tmp_path, monkeypatch):
    """Not in its table, not in a batch, not where dev is scored or its decision fitted, and nothing is dropped, turned or placed."""
    met = {}

    def spy(place, name, texts_of):
        plain = getattr(place, name)
        monkeypatch.setattr(place, name, lambda *given: met.setdefault(name, []).extend(texts_of(given)) or plain(*given))

    spy(TMCA, "encode_text", lambda given: given[1])
    spy(TMCA, "begin_training", lambda given: given[1])
    spy(aligning, "key_of", lambda given: given)
    data = {"size_px": 32, "text": "constant", "text_dropout": 0.5, "negatives": 0.5}
    training.train(config({"name": "tmca", "preset": "tiny"}, data, images=16, text_steps=2), manifest=films, out=tmp_path / "r")
    assert {name: set(texts) for name, texts in met.items()} == dict.fromkeys(("encode_text", "begin_training", "key_of"), {CONSTANT})


def test_figures_are_in_the_log_and_alarms_are_lines_and_a_remark(films, tmp_path, monkeypatch):
    monkeypatch.setattr("reportseg.models.alignment.ENTROPY_ALARM", 0.0)
    monkeypatch.setattr("reportseg.models.alignment.COSINE_ALARM", 2.0)
    remarks = []
    run = training.train(settings(), manifest=films, out=tmp_path / "r", progress=lambda said: remarks.append(said.get("remark")))
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    first = next(line for line in lines if "total" in line)
    assert {"contrast_4", "gap_8", "target_cosine_32", "soft_entropy", "align_16", "pixel_4"} <= set(first)
    alarms = [line for line in lines if "alarm" in line]
    assert len(alarms) > 2 and all("entropy" in line["alarm"] for line in alarms)
    assert len([said for said in remarks if said]) == 1
    assert "dev_auroc_A4" in set().union(*lines)


def test_a_child_of_a_bundle_trains_with_an_alignment_again(whole, films, tmp_path):
    child = training.train(settings(images=8, init=str(whole / "bundle")), manifest=films, out=tmp_path / "child")
    assert any("alignment" in key for key in checkpoint.load(child / "checkpoints")[0])


@pytest.mark.slow
def test_two_processes_with_half_a_batch_each_are_one_with_the_whole(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = str(Path(__file__).parent / "two_processes.py")

    def start(rank, world):
        return subprocess.Popen([sys.executable, script, str(rank), str(world), port, str(tmp_path / f"{world}")])  # noqa: S603

    running = [start(0, 1), start(0, 2), start(1, 2)]
    assert [process.wait(300) for process in running] == [0, 0, 0]
    one, two = (load_file(tmp_path / name) for name in "12")
    assert one.keys() == two.keys()
    for key in one:
        assert torch.allclose(one[key].float(), two[key].float(), atol=2e-6, rtol=2e-4), key
