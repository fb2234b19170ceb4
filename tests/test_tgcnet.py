"""TGC-Net formula by formula, as docs/methods.md reads the paper. What it shares with every model is in test_models_contract.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reportseg.config import load_config
from reportseg.errors import InputError
from reportseg.knowledge.bank import load_bank, retrieve
from reportseg.models import build, count_parameters, model_config
from reportseg.models.encoders import train_tokenizer
from reportseg.models.output import PRESENCE_WEIGHT, TextBatch
from reportseg.models.tgcnet import PRESETS, SIMILARITY_WEIGHTS, SSE, STRIDES, VLCM, TGCNet, TGCNetConfig, unit_spans
from reportseg.text import word_bag

BILATERAL = "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."
UNILATERAL = "Unilateral pulmonary infection, one infected area, lower left lung."
UNKNOWN = "tooth"  # no statement of the bank fits it
BANK = load_bank("chest")
JSON = train_tokenizer([BILATERAL, UNILATERAL, UNKNOWN])
FROZEN_CLIP = {"source": "openai/clip-vit-base-patch16", "train": "frozen"}
TINY = PRESETS["tiny"]


def make(seed=0, **section) -> TGCNet:
    torch.manual_seed(seed)
    return build({"name": "tgcnet", "preset": "tiny", **section}, JSON, BANK).eval()


def films(n=2, height=48, width=64, seed=1):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def part(n=2, height=48, width=64):
    mask = torch.zeros(n, 1, height, width, dtype=torch.bool)
    mask[:, :, 5:20, 9:30] = True
    return mask


def unit_text(n=2, length=3, seed=2) -> TextBatch:
    """Random units of length 1; the last unit of the first sentence is padding."""
    tokens = F.normalize(torch.randn(n, length, TINY.joint, generator=torch.Generator().manual_seed(seed)), dim=2)
    mask = torch.ones(n, length, dtype=torch.bool)
    mask[0, -1] = False
    return TextBatch(tokens, mask, tokens[:, 1], ((None,) * length,) * n)


# ---- absent targets


@pytest.mark.parametrize("vlcm", [True, False])
def test_the_presence_head_reads_the_film_that_met_the_text_and_the_sentence(vlcm):
    """[mean F_16' ; max F_16' ; q], two layers; q is VLCM's, without it the sentence's own vector."""
    model, kept = make(presence=True, vlcm={"enabled": vlcm}), {}
    model.presence.register_forward_hook(lambda m, given, out: kept.update(map=given[0], query=given[1], out=out))
    text = model.encode_text([BILATERAL, UNILATERAL])
    output = model.decode(model.encode_image(films()), text)
    assert kept["map"].shape == (2, TINY.width, 3, 4)
    query = model.vlcm.query(text)[2] if vlcm else text.pooled_BD
    assert torch.equal(kept["query"], query)
    pooled = torch.cat([kept["map"].mean((2, 3)), kept["map"].amax((2, 3)), query], dim=1)
    assert torch.allclose(output.presence_B, model.presence.layers(pooled)[:, 0], atol=1e-6)


def test_presence_is_taught_by_whether_the_mask_is_empty():
    model, mask = make(presence=True), part()
    mask[1] = False
    output = model(films(), [UNILATERAL] * 2, mask)
    wanted = F.binary_cross_entropy_with_logits(output.presence_B, torch.tensor([1.0, 0.0]))
    assert torch.allclose(output.losses["presence"], PRESENCE_WEIGHT * wanted)


def test_the_presence_head_changes_no_other_weight_and_no_answer():
    plain, headed = make(), make(presence=True)
    both = headed.state_dict()
    assert {k for k in both if not k.startswith("presence.")} == set(plain.state_dict())
    assert all(torch.equal(both[k], v) for k, v in plain.state_dict().items())
    assert torch.equal(plain(films(), [UNILATERAL] * 2).logits_B1HW, headed(films(), [UNILATERAL] * 2).logits_B1HW)


def test_an_empty_mask_pulls_every_map_down():
    """Mask and similarity losses have a finite gradient that points away from painting."""
    model = make()
    output = model(films(), [UNILATERAL] * 2, torch.zeros_like(part()))
    assert all(loss.isfinite() for loss in output.losses.values())
    for name, map_B1hw in (("mask", output.logits_B1HW), *((f"similarity_{s}", output.maps[f"S{s}"]) for s in STRIDES)):
        (gradient,) = torch.autograd.grad(output.losses[name], map_B1hw, retain_graph=True)
        assert gradient.isfinite().all() and (gradient >= 0).all() and gradient.any()


# ---- SSE


class Fixed(nn.Module):
    """A stand-in for a tower that has already seen the film."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, image):
        return self.value


def test_sse_gates_the_vit_into_the_cnn():
    """g_s = sigmoid(conv1x1[C_s ; V_s]), F_s = conv3x3(C_s + g_s V_s), V_s a tap through its own norm and 1x1, of the size of C_s."""
    torch.manual_seed(0)
    size, grid = (40, 56), (3, 4)
    taps = [torch.randn(1, 12, TINY.vision[0]) for _ in STRIDES]
    structure = [torch.randn(1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(TINY.cnn, STRIDES, strict=True)]
    patches, stem = torch.randn(1, TINY.joint, *grid), torch.randn(1, TINY.stem, 20, 28)
    sse = SSE(Fixed((taps, patches)), Fixed([stem, *structure]), TINY)
    fused, out_patches, out_stem = sse(torch.rand(1, 3, *size))
    assert out_patches is patches and out_stem is stem
    for i, detail in enumerate(structure):
        v = sse.tap_projections[i](sse.tap_norms[i](taps[i]).transpose(1, 2).reshape(1, -1, *grid))
        v = F.interpolate(v, detail.shape[-2:], mode="bilinear", align_corners=False)
        c = sse.cnn_projections[i](detail)
        gate = torch.sigmoid(F.conv2d(torch.cat([c, v], 1), sse.gates[i].weight, sse.gates[i].bias))
        assert gate.shape == c.shape and ((gate > 0) & (gate < 1)).all()
        assert torch.allclose(fused[i], sse.refine[i](c + gate * v), atol=1e-6)
        assert sse.refine[i][0].kernel_size == (3, 3) and sse.gates[i].kernel_size == (1, 1)


@pytest.mark.parametrize("cnn", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (112, 96)])
def test_fused_maps_lie_at_the_four_strides_with_and_without_the_cnn(cnn, size):
    features = make(sse={"cnn": cnn}).encode_image(films(1, *size))
    height, width = features.padded
    assert features.size == size and height % 16 == width % 16 == 0
    assert [tuple(f.shape) for f in features.fused] == [(1, TINY.width, -(-height // s), -(-width // s)) for s in STRIDES]
    assert features.patches_BDhw.shape == (1, TINY.joint, height // 16, width // 16)


def test_the_four_taps_are_the_four_quarters():
    model = make()
    states = []
    for block in model.sse.vision.blocks:
        block.register_forward_hook(lambda m, i, out: states.append(out))
    taps, _ = model.sse.vision(films(1))
    assert len(states) == 4 and all(a is b for a, b in zip(taps, states, strict=True))
    assert len({id(norm) for norm in model.sse.tap_norms}) == 4


# ---- DATE


def test_the_units_are_a_null_the_sentence_and_its_clauses():
    text = make().encode_text([BILATERAL, UNKNOWN, "", " \n"])
    assert [None if s is None else BILATERAL[s[0] : s[1]] for s in text.spans[0]] == [
        None,
        BILATERAL,
        "Bilateral pulmonary infection",
        "two infected areas",
        "upper left lung",
        "lower right lung",
    ]
    assert text.spans[1:] == ((None, (0, 5)), (None,), (None,))
    assert text.mask_BL.sum(1).tolist() == [6, 2, 1, 1]


def test_the_null_unit_is_learnt_and_never_masked():
    model = make()
    text = model.encode_text([BILATERAL, UNKNOWN, ""])
    assert text.mask_BL[:, 0].all()
    assert torch.equal(text.tokens_BLD[:, 0], model.date.null_D.expand(3, -1))
    assert torch.equal(text.pooled_BD[2], model.date.null_D) and torch.equal(text.pooled_BD[0], text.tokens_BLD[0, 1])
    assert model.date.null_D.requires_grad


def test_a_unit_is_the_end_state_of_its_own_words():
    model = make()
    text = model.encode_text([BILATERAL, UNKNOWN])
    for unit, span in enumerate(text.spans[0][1:], start=1):
        assert torch.allclose(text.tokens_BLD[0, unit], model.date.encode([BILATERAL[span[0] : span[1]]])[0], atol=1e-5)


def test_two_sentences_of_the_same_words_and_other_zones_differ():
    one, other = "upper left lung and lower right lung", "lower left lung and upper right lung"
    assert word_bag(one) == word_bag(other)
    model = make()
    text = model.encode_text([one, other])
    assert (text.pooled_BD[0] - text.pooled_BD[1]).abs().max() > 1e-3
    logits = model(films(1).expand(2, -1, -1, -1), [one, other]).logits_B1HW
    assert not torch.equal(logits[0], logits[1])


def test_a_batch_encodes_each_distinct_string_once():
    model, seen = make(), []
    encode = model.date.encode
    model.date.encode = lambda texts: (seen.append(list(texts)), encode(texts))[1]
    texts = [BILATERAL, UNILATERAL, BILATERAL, "", BILATERAL, UNKNOWN, UNILATERAL]
    model.encode_text(texts)
    (strings,) = seen  # one pass of the tower
    expected = {t[a:b] for t in texts for a, b in unit_spans(t)}
    expected |= {hit.statement.statement for t in texts for hit in retrieve(t, BANK, 8)}
    assert sorted(strings) == sorted(expected)
    seen.clear()
    model.encode_text(["", ""])
    assert seen == []


def test_knowledge_changes_nothing_at_the_start_of_training():
    """The gate is zero, so with and without knowledge the same weights give the same answer."""
    told, untold = make(), make(date={"knowledge": False})
    untold.load_state_dict({k: told.state_dict()[k] for k in untold.state_dict()})
    assert told.date.gate.item() == 0
    texts = [BILATERAL, UNKNOWN]
    one, other = told(films(), texts, part()), untold(films(), texts, part())
    assert torch.allclose(one.logits_B1HW, other.logits_B1HW, atol=1e-6)
    assert torch.allclose(told.encode_text(texts).tokens_BLD, untold.encode_text(texts).tokens_BLD, atol=1e-6)
    one.losses["mask"].backward()
    assert told.date.gate.grad.abs() > 0  # and yet it can learn to


def test_knowledge_enters_by_gated_attention_to_the_statements_that_fit():
    """T' = T + tanh(gate) * CrossAttention(T, K), K the statements that this sentence retrieves, whatever the others of its batch do."""
    model = make()
    plain = model.encode_text([BILATERAL, UNILATERAL, UNKNOWN]).tokens_BLD
    with torch.no_grad():
        model.date.gate.fill_(0.7)
    text = model.encode_text([BILATERAL, UNILATERAL, UNKNOWN])
    for b, sentence in enumerate([BILATERAL, UNILATERAL]):
        hits = retrieve(sentence, BANK, 8)
        assert 1 <= len(hits) <= 8
        statements = model.date.encode([hit.statement.statement for hit in hits])[None]
        told = model.date.knowledge(plain[b : b + 1], statements, torch.ones(1, len(hits), dtype=torch.bool))
        real = text.mask_BL[b]
        assert torch.allclose(text.tokens_BLD[b, real], (plain[b] + torch.tanh(torch.tensor(0.7)) * told[0])[real], atol=1e-5)
    assert retrieve(UNKNOWN, BANK) == []
    assert torch.equal(text.tokens_BLD[2], plain[2])


def test_the_number_of_statements_is_capped_and_the_bottleneck_is_d():
    model, seen = make(date={"top_k": 1}), []
    model.date.knowledge.register_forward_pre_hook(lambda m, args: seen.append(args[2]))
    model.encode_text([BILATERAL, UNILATERAL])
    assert seen[0].sum(1).tolist() == [1, 1]
    assert model.date.knowledge.query.out_features == TINY.width


def test_the_constant_sentence_of_a_twin_retrieves_nothing():
    from reportseg.text import CONSTANT

    assert retrieve(CONSTANT, BANK) == []


def test_a_text_longer_than_the_tower_is_reported_and_its_clauses_are_still_read():
    model = make()
    long = ", ".join(f"infected area {i} of the lung" for i in range(40)) + ", lower left lung."
    assert model.truncates(long) and not model.truncates(BILATERAL)
    text = model.encode_text([long, long.replace("left", "right")])
    assert text.mask_BL.all() and text.mask_BL.shape[1] == 43
    assert not torch.equal(text.tokens_BLD[0, -1], text.tokens_BLD[1, -1])


def test_a_report_longer_than_the_tower_is_the_mean_of_its_chunks_and_nothing_is_lost():
    model = make()
    report = " ".join(f"There is a small nodule {i} in the lower lobe of the left lung." for i in range(12))
    chunks = model.date.tokenizer.chunks(report)
    assert len(chunks) > 1 and " ".join(chunks) == report and not model.truncates(report)
    whole = model.date.encode([report, UNKNOWN, report])
    assert torch.allclose(whole[0], model.date.encode(chunks).mean(0), atol=1e-6)
    assert torch.allclose(whole[1], model.date.encode([UNKNOWN])[0], atol=1e-6) and torch.equal(whole[0], whole[2])
    last = model.date.encode([report.replace("nodule 11", "mass")])
    assert not torch.allclose(last[0], whole[0], atol=1e-4)


# ---- VLCM


def vlcm_inputs(seed=3, size=(48, 64)):
    generator = torch.Generator().manual_seed(seed)
    placed = [torch.randn(2, TINY.width, size[0] // s, size[1] // s, generator=generator) for s in (4, 8, 16, 16)]
    return placed, torch.randn(2, TINY.joint, 3, 4, generator=generator)


def awake_vlcm(seed=0):
    """A VLCM after some training: no parameter is at its start."""
    torch.manual_seed(seed)
    module = VLCM(TINY)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module


def test_vlcm_follows_its_formulas_place_by_place():
    """a = softmax of real units, q = sum a_p t_p, r = sum a_p cos(z, t_p), u = alpha cos(W F, q) + beta,
    S = u + kappa r + conv([W F ; u ; r]).
    """
    module, (placed, patches), text = awake_vlcm(), vlcm_inputs(), unit_text()
    units, raw, plain, calibrated = module(placed, patches, text)
    cos = lambda a, b: F.cosine_similarity(a, b, dim=0)  # noqa: E731
    for b in range(2):
        real = [p for p in range(3) if text.mask_BL[b, p]]
        scores = torch.stack([module.unit_score(text.tokens_BLD[b, p])[0] for p in real])
        a = torch.exp(scores) / torch.exp(scores).sum()
        q = sum(w * text.tokens_BLD[b, p] for w, p in zip(a, real, strict=True))
        for y, x in ((0, 0), (2, 1)):
            cosines = [cos(patches[b, :, y, x], text.tokens_BLD[b, p]) for p in real]
            assert torch.allclose(units[b, real, y, x], torch.stack(cosines), atol=1e-5)
            assert torch.allclose(raw[b, 0, y, x], sum(w * c for w, c in zip(a, cosines, strict=True)), atol=1e-5)
        for level in range(4):
            joint = module.project[level](placed[level])[b]
            size = joint.shape[1:]
            y, x = size[0] - 1, 1
            assert torch.allclose(plain[level][b, 0, y, x], module.alpha[level] * cos(joint[:, y, x], q) + module.beta[level], atol=1e-4)
            r = F.interpolate(raw[b : b + 1], size, mode="bilinear", align_corners=False)
            u = plain[level][b : b + 1]
            refined = u + module.kappa[level] * r + module.calibrate[level](torch.cat([joint[None], u, r], 1))
            assert torch.allclose(calibrated[level][b : b + 1], refined, atol=1e-4)


def test_vlcm_starts_where_the_method_says():
    module, (placed, patches), text = VLCM(TINY), vlcm_inputs(), unit_text()
    assert module.alpha.tolist() == [10] * 4 and module.beta.tolist() == [-2] * 4
    assert not module.gamma.any()
    assert not any(branch[-1].weight.any() or branch[-1].bias.any() for branch in module.calibrate)
    _, raw, plain, calibrated = module(placed, patches, text)
    for level, (u, s) in enumerate(zip(plain, calibrated, strict=True)):
        assert torch.allclose(
            s, u + module.kappa[level] * F.interpolate(raw, u.shape[-2:], mode="bilinear", align_corners=False), atol=1e-6
        )


def test_vlcm_computes_in_fp32_under_autocast():
    module, (placed, patches), text = awake_vlcm(), vlcm_inputs(), unit_text()
    expected = module(placed, patches, text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module(placed, patches, text)
        low = module([p.bfloat16() for p in placed], patches.bfloat16(), text)
    for a, b, c in zip(expected, found, low, strict=True):
        pairs = zip(a, b, c, strict=True) if isinstance(a, list) else [(a, b, c)]
        for full, auto, half in pairs:
            assert torch.equal(full, auto) and half.dtype == torch.float32


def test_padding_units_have_no_say():
    module, (placed, patches), text = awake_vlcm(), vlcm_inputs(), unit_text()
    _, raw, _, calibrated = module(placed, patches, text)
    tokens = text.tokens_BLD.clone()
    tokens[0, -1] = 9.0
    _, other, _, again = module(placed, patches, replace(text, tokens_BLD=tokens))
    assert torch.equal(raw, other) and all(torch.equal(a, b) for a, b in zip(calibrated, again, strict=True))


def test_vlcm_leaves_the_maps_alone_at_the_start_and_then_scales_them():
    """F_s' = F_s (1 + gamma_s sigmoid(S_s)): with gamma zero the logits are those of the same weights without VLCM."""
    model, without = make(), make(vlcm={"enabled": False})
    without.load_state_dict({k: model.state_dict()[k] for k in without.state_dict()})
    image, texts = films(), [BILATERAL, UNILATERAL]
    assert torch.equal(model(image, texts).logits_B1HW, without(image, texts).logits_B1HW)

    with torch.no_grad():
        model.vlcm.gamma.copy_(torch.tensor([0.5, -0.3, 0.0, 0.0]))
    features, text = model.encode_image(image), model.encode_text(texts)
    maps = model.decode(features, text, part()).maps
    fused = [f * (1 + g * maps[f"S{s}"].sigmoid()) for f, g, s in zip(features.fused, model.vlcm.gamma, STRIDES, strict=True)]
    assert torch.allclose(
        model.decode(features, text).logits_B1HW, without.decode(features._replace(fused=fused), text).logits_B1HW, atol=1e-5
    )


def test_places_are_told_to_the_maps_before_they_meet_the_text():
    """The position embedding of a stride moves its similarity, and at 8, 16 and 32 the queries; the maps themselves stay as they were."""
    model = make()
    image, texts, mask = films(), [BILATERAL, UNILATERAL], part()
    before = model(image, texts, mask)
    for level, stride in enumerate(STRIDES):
        with torch.no_grad():
            model.positions[level].grid_1Chw.normal_(generator=torch.Generator().manual_seed(level))
        after = model(image, texts, mask)
        changed = {s for s in STRIDES if not torch.equal(after.maps[f"u{s}"], before.maps[f"u{s}"])}
        assert changed == {stride}
        assert torch.equal(after.logits_B1HW, before.logits_B1HW) == (stride < 8)  # gamma is zero: only the attention reads them
        before = after


# ---- cross-attention and decoder


def test_the_text_is_attended_to_at_strides_8_16_and_32():
    model, seen = make(), []
    for attend in model.attend:
        attend.register_forward_pre_hook(lambda m, args: seen.append((args[0].shape[1], args[1])))
    features, text = model.encode_image(films(2, 96, 64)), model.encode_text([BILATERAL, UNKNOWN])
    model.decode(features, text)
    assert [n for n, _ in seen] == [12 * 8, 6 * 4, 3 * 2] and all(torch.equal(context, model.told(text.tokens_BLD)) for _, context in seen)


@pytest.mark.parametrize("stride", [4, 2])
def test_the_decoder_goes_down_the_four_scales_to_its_output_stride(stride):
    model, sizes = make(output_stride=stride), []
    for conv in model.top_down:
        conv.register_forward_hook(lambda m, i, out: sizes.append(tuple(out.shape[2:])))
    model.head.register_forward_hook(lambda m, i, out: sizes.append(tuple(out.shape[2:])))
    assert model(films(1, 64, 96), [UNKNOWN]).logits_B1HW.shape == (1, 1, 64, 96)
    assert sizes == [(4, 6), (8, 12), (16, 24), (64 // stride, 96 // stride)]


def test_the_film_is_padded_inside_and_cropped_outside():
    """What lies in the padding is a reflection, so the answer on a film is that on the film with its reflection, cut."""
    model, image = make(), films(1, 24, 40)
    padded = F.pad(image, (0, 8, 0, 8), mode="reflect")
    assert torch.allclose(model(image, [BILATERAL]).logits_B1HW, model(padded, [BILATERAL]).logits_B1HW[..., :24, :40], atol=1e-5)


def test_the_film_is_normalised_inside():
    model = make()
    assert [round(v, 3) for v in model.mean.flatten().tolist()] == [0.485, 0.456, 0.406]
    assert not {"mean", "std"} & model.state_dict().keys()
    neutral = model.encode_image(model.mean.expand(1, 3, 16, 16))
    zero, _, _ = model.sse(torch.zeros(1, 3, 16, 16))
    assert torch.allclose(neutral.fused[0], zero[0], atol=1e-5)


# ---- losses


def loss_by_hand(logits, target, valid):
    """1 - (2 sum p t + 1) / (sum p + sum t + 1) + mean BCE over the valid share, per image."""
    logits = logits.detach()
    p = logits.sigmoid()
    values = []
    for i in range(len(logits)):
        v, t = valid[i], target[i]
        dice = 1 - (2 * (p[i] * v * t).sum() + 1) / ((p[i] * v).sum() + (t * v).sum() + 1)
        bce = -(t * F.logsigmoid(logits[i]) + (1 - t) * F.logsigmoid(-logits[i])) * v
        values.append((dice, bce.sum() / v.sum().clamp(min=1)))
    return torch.tensor(values).mean(0)


def test_similarities_are_trained_against_the_area_averaged_mask():
    model, mask = make(), part(2, 64, 64)
    output = model(films(2, 64, 64), [BILATERAL, UNILATERAL], mask)
    assert set(output.losses) == {"mask", "raw", *(f"similarity_{s}" for s in STRIDES)}
    assert SIMILARITY_WEIGHTS == (0.3, 0.2, 0.1, 0.1)
    for stride, weight in zip(STRIDES, SIMILARITY_WEIGHTS, strict=True):
        target = F.avg_pool2d(mask.float(), stride)
        assert target.min() + target.max() > 0 and (target % 1 > 0).any()  # shares, not a mask
        dice, bce = loss_by_hand(output.maps[f"S{stride}"], target, torch.ones_like(target))
        assert torch.allclose(output.losses[f"similarity_{stride}"], weight * (dice + bce), atol=1e-5)
    dice, bce = loss_by_hand(output.logits_B1HW, mask.float(), torch.ones_like(output.logits_B1HW))
    assert torch.allclose(output.losses["mask"], dice + bce, atol=1e-5)


def test_the_raw_similarity_has_a_bce_of_its_own_at_a_tenth():
    model, mask = make(), part(2, 64, 64)
    output = model(films(2, 64, 64), [BILATERAL, UNILATERAL], mask)
    target = F.avg_pool2d(mask.float(), 16)
    _, bce = loss_by_hand(10 * output.maps["r"] - 2, target, torch.ones_like(target))
    assert torch.allclose(output.losses["raw"], 0.1 * bce, atol=1e-5)
    assert model.vlcm.raw_scale.tolist() == [10, -2]


def test_padding_is_left_out_of_the_losses_of_the_similarities():
    model = make()
    mask = torch.ones(1, 1, 24, 40, dtype=torch.bool)
    output = model(films(1, 24, 40), [BILATERAL], mask)
    inside = F.pad(torch.ones(1, 1, 24, 40), (0, 8, 0, 8))
    for stride, weight in ((4, 0.3), (8, 0.2)):  # the strides whose cells end where the film ends
        share = F.avg_pool2d(inside, stride)
        dice, bce = loss_by_hand(output.maps[f"S{stride}"], share, share)
        assert torch.allclose(output.losses[f"similarity_{stride}"], weight * (dice + bce), atol=1e-5)


def test_every_map_that_the_log_compares_is_given_with_a_mask():
    maps = make()(films(), [BILATERAL, UNKNOWN], part()).maps
    assert set(maps) == {"r", *(f"u{s}" for s in STRIDES), *(f"S{s}" for s in STRIDES)}
    assert all(m.shape[:2] == (2, 1) for m in maps.values()) and maps["r"].abs().max() <= 1
    assert make(vlcm={"enabled": False})(films(), [BILATERAL, UNKNOWN], part()).maps == {}


# ---- switches


def prefixes(off: dict, depth=2) -> tuple[set[str], set[str]]:
    """Modules that a switch takes away and that it adds."""
    on_keys, off_keys = (set(make(**section).state_dict()) for section in ({}, off))
    cut = lambda keys: {".".join(k.split(".")[:depth]) for k in keys}  # noqa: E731
    return cut(on_keys - off_keys), cut(off_keys - on_keys)


def test_each_switch_takes_its_own_module_away_and_nothing_else():
    assert prefixes({"sse": {"cnn": False}}) == ({"sse.cnn", "sse.cnn_projections", "sse.gates"}, set())
    assert prefixes({"date": {"knowledge": False}}) == ({"date.knowledge", "date.gate"}, set())
    gone, new = prefixes({"vlcm": {"enabled": False}})
    vlcm = {k for k in gone if k.startswith("vlcm.")}
    # Without VLCM nothing is compared at stride 4, and no patch needs to lie in the joint space.
    assert gone - vlcm == {"sse.vision", "positions.0"} and vlcm and not new
    assert prefixes({"output_stride": 2}, 1) == (set(), {"sharpen"})


def test_without_vlcm_there_is_no_token_map_and_no_loss_of_its_own():
    output = make(vlcm={"enabled": False})(films(), [BILATERAL, UNKNOWN], part())
    assert output.token_map_BLhw is None and set(output.losses) == {"mask"}


def test_knowledge_off_needs_no_bank_and_ignores_one():
    torch.manual_seed(0)
    model = build({"name": "tgcnet", "preset": "tiny", "date": {"knowledge": False}}, JSON, None)
    assert model.date.bank is None and make(date={"knowledge": False}).date.bank is None


# ---- size


def test_preset_small_has_at_most_7_million_parameters_with_its_vocabulary():
    counted = count_parameters({"name": "tgcnet", "preset": "small"})
    assert 6e6 < counted["total"] == counted["trainable"] <= 7e6
    assert PRESETS["small"].cnn == (48, 96, 176, 256) and PRESETS["small"].vocabulary == 2000


@pytest.mark.parametrize("data", ["qata", "mosmed", "kvasir"])
def test_the_published_recipe_trains_at_most_14_million_and_freezes_clip(data):
    counted = count_parameters(load_config(f"tgcnet_{data}").model)
    assert counted["trainable"] <= 14e6
    assert counted["frozen"] == pytest.approx(149.6e6, rel=0.001)  # CLIP ViT-B/16, both towers; and the BatchNorm of ResNet-18
    assert counted["total"] == counted["trainable"] + counted["frozen"]


def test_a_switch_is_seen_in_the_count():
    whole = count_parameters({"name": "tgcnet"})["total"]
    without = count_parameters({"name": "tgcnet", "sse": {"cnn": False}})["total"]
    assert 3.5e6 < whole - without < 4e6  # the CNN branch, its projections and gates


# ---- sources


def test_an_id_or_a_path_as_source_is_counted_without_being_there_and_is_not_built():
    for section in (
        {"vision": FROZEN_CLIP},
        {"text": FROZEN_CLIP | {"train": "full"}},
        {"vision": {"source": "/models/clip"}},
        {"sse": {"cnn": {"source": "microsoft/resnet-18"}}},
    ):
        assert count_parameters({"name": "tgcnet", **section})["total"] > 6e6
        with pytest.raises(InputError) as caught:
            build({"name": "tgcnet", **section}, JSON, BANK)
        assert caught.value.code in {"hub", "no_tower"}


@pytest.mark.parametrize("part", ["vision", "text", "sse.cnn"])
def test_random_weights_cannot_be_frozen(part):
    """Refused with the config, before any film is read."""
    tower = {"source": "scratch", "train": "frozen"}
    section = {"sse": {"cnn": tower}} if part == "sse.cnn" else {part: tower}
    with pytest.raises(InputError, match=rf"{part}: random weights cannot be frozen.*set train to full") as caught:
        model_config({"name": "tgcnet", **section})
    assert caught.value.code == "config"


def test_no_gradient_reaches_a_frozen_tower():
    config = TGCNetConfig.model_validate({"preset": "tiny", "vision": FROZEN_CLIP, "text": FROZEN_CLIP})
    model = TGCNet(config, None, BANK)  # the layout alone: its weights are random, its tokens bytes
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    sum(model(films(), [BILATERAL, UNKNOWN], part()).losses.values()).backward()
    optimiser.step()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(("sse.vision.", "date.tower."))
        assert parameter.requires_grad != frozen and (parameter.grad is None) == frozen
        assert not frozen or torch.equal(parameter, before[name])


def test_the_cnn_switch_is_false_true_or_where_it_comes_from():
    cnn = lambda value: TGCNetConfig.model_validate({"sse": {"cnn": value}}).sse  # noqa: E731
    assert cnn(False).tower is None and cnn(True).tower == cnn({"source": "scratch", "train": "full"}).tower
    assert cnn({"source": "microsoft/resnet-18"}).tower.source == "microsoft/resnet-18"
    assert TGCNetConfig.model_validate(TGCNetConfig.model_validate({"sse": {"cnn": False}}).model_dump()).sse.tower is None
    with pytest.raises(InputError, match=r"unknown key 'sse\.cnn\.sorce'\. Did you mean 'source'"):
        model_config({"name": "tgcnet", "sse": {"cnn": {"sorce": "x"}}})


def test_a_scratch_cnn_named_in_full_is_the_same_network():
    a, b = make(), make(sse={"cnn": {"source": "scratch", "train": "full"}})
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
