"""What every model of MODELS promises, whatever it is made of. A new model adds one line to SMALLEST and passes, or it is no model here."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch

from reportseg.bundle import load_bundle, save_bundle
from reportseg.config import load_config, parse_config, shipped_configs
from reportseg.errors import InputError
from reportseg.knowledge.bank import load_bank
from reportseg.models import MODELS, bank_of, build, count_parameters, model_config, resolve
from reportseg.models.encoders import train_tokenizer
from reportseg.schemas.training import TrainingFile

SMALLEST = {
    "tgcnet": {"name": "tgcnet", "preset": "tiny"},
    "tmca": {"name": "tmca", "preset": "tiny"},
    "unet": {"name": "unet", "width": 4},
    "resenc_unet": {"name": "resenc_unet", "preset": "tiny"},
    "languidemedseg": {"name": "languidemedseg", "preset": "tiny"},
    "lvit": {"name": "lvit", "preset": "tiny"},
    "mmiunet": {"name": "mmiunet", "preset": "tiny"},
}
VARIANTS = {
    **SMALLEST,
    "tgcnet-stride-2": SMALLEST["tgcnet"] | {"output_stride": 2},
    "tgcnet-no-cnn": SMALLEST["tgcnet"] | {"sse": {"cnn": False}},
    "tgcnet-no-knowledge": SMALLEST["tgcnet"] | {"date": {"knowledge": False}},
    "tgcnet-no-vlcm": SMALLEST["tgcnet"] | {"vlcm": {"enabled": False}},
    "tgcnet-presence": SMALLEST["tgcnet"] | {"presence": True},
    "tmca-stride-2": SMALLEST["tmca"] | {"output_stride": 2},
    "tmca-no-ltem": SMALLEST["tmca"] | {"ltem": {"enabled": False}},
    "tmca-no-pixel-loss": SMALLEST["tmca"] | {"ltem": {"pixel_loss": False}},
    "tmca-presence": SMALLEST["tmca"] | {"presence": True},
    "unet-stride-4": SMALLEST["unet"] | {"output_stride": 4},
    "resenc_unet-stride-2": SMALLEST["resenc_unet"] | {"output_stride": 2},
    "languidemedseg-stride-2": SMALLEST["languidemedseg"] | {"output_stride": 2},
    "lvit-stride-2": SMALLEST["lvit"] | {"output_stride": 2},
    "mmiunet-stride-4": SMALLEST["mmiunet"] | {"output_stride": 4},
}
SIZES = [(1, 1), (1, 40), (15, 16), (17, 33), (64, 64), (225, 223)]
TEXTS = [
    "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung.",
    "",
    "Unilateral pulmonary infection, one infected area, lower left lung.",
    "nodule",
]

every_model = pytest.mark.parametrize("name", SMALLEST)
every_variant = pytest.mark.parametrize("name", VARIANTS)


@cache
def tokenizer(name):
    return train_tokenizer(TEXTS) if MODELS[VARIANTS[name]["name"]][1].reads_text else None


def make(name, seed=0):
    """A model whose zero-initialised gates are open: at their start they would hide the paths behind them."""
    torch.manual_seed(seed)
    model = build(VARIANTS[name], tokenizer(name), load_bank("chest"))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


def films(n=4, height=40, width=48, seed=1):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def targets(n=4, height=40, width=48):
    mask = torch.zeros(n, 1, height, width, dtype=torch.bool)
    mask[:, :, height // 4 : height // 2 + 1, width // 4 : width // 2 + 1] = True
    mask[1] = False  # an absent target
    return mask


def test_every_model_of_the_registry_is_under_contract():
    assert set(SMALLEST) == set(MODELS)
    assert {section["name"] for section in VARIANTS.values()} == set(MODELS)


# ---- forward


@every_variant
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[0]}x{s[1]}")
def test_any_size_gives_finite_fp32_logits_of_that_size(name, size):
    with torch.inference_mode():
        output = make(name)(films(1, *size), TEXTS[:1])
    assert output.logits_B1HW.shape == (1, 1, *size) and output.logits_B1HW.dtype == torch.float32
    assert output.logits_B1HW.isfinite().all()


@every_variant
def test_forward_is_the_composition_of_encode_and_decode_bit_for_bit(name):
    model, image, mask = make(name), films(), targets()
    whole = model(image, TEXTS, mask)
    parts = model.decode(model.encode_image(image), model.encode_text(TEXTS), mask)
    assert torch.equal(whole.logits_B1HW, parts.logits_B1HW)
    assert whole.losses.keys() == parts.losses.keys() and all(torch.equal(whole.losses[k], parts.losses[k]) for k in whole.losses)


@every_variant
def test_the_film_is_encoded_without_the_text(name):
    """One encoded film serves any sentence, so a changed sentence costs one decode."""
    model, image = make(name), films(2)
    with torch.inference_mode():
        features = model.encode_image(image)
        for texts in (TEXTS[:2], TEXTS[2:]):
            again = model.decode(features, model.encode_text(texts)).logits_B1HW  # also: decoding leaves the features as they were
            assert torch.equal(again, model(image, texts).logits_B1HW)
    text_side = {id(p) for n, p in model.named_parameters() if n.startswith(("date.", "reader.", "words."))}
    sum(part.sum() for part in flat(model.encode_image(image))).backward()
    assert all(p.grad is None for p in model.parameters() if id(p) in text_side)


def flat(features):
    for part in features:
        if isinstance(part, torch.Tensor):
            yield part
        elif isinstance(part, list):
            yield from part


@every_variant
def test_the_text_matters_exactly_where_a_model_says_that_it_reads_it(name):
    model, image = make(name), films(1)
    with torch.inference_mode():
        one, other = (model(image, [text]).logits_B1HW for text in (TEXTS[0], TEXTS[2]))
    assert torch.equal(one, other) != model.reads_text
    assert (model.max_tokens or 0) > 2 if model.reads_text else model.max_tokens is None


@every_variant
def test_encoded_text_says_which_part_of_the_sentence_a_unit_is(name):
    model = make(name)
    text = model.encode_text(TEXTS)
    b, units = text.mask_BL.shape
    assert text.tokens_BLD.shape[:2] == (b, units) and len(text.spans) == b == len(TEXTS) and text.pooled_BD.shape[0] == b
    for spans, mask, sentence in zip(text.spans, text.mask_BL, TEXTS, strict=True):
        assert len(spans) == mask.sum()
        assert all(span is None or sentence[span[0] : span[1]].strip() for span in spans)
    picked = text.select(torch.tensor([2, 0, 2]))
    assert torch.equal(picked.tokens_BLD, text.tokens_BLD[[2, 0, 2]]) and torch.equal(picked.mask_BL, text.mask_BL[[2, 0, 2]])
    assert torch.equal(picked.pooled_BD, text.pooled_BD[[2, 0, 2]]) and picked.spans == tuple(text.spans[i] for i in (2, 0, 2))


@every_variant
def test_the_token_map_is_a_cosine_for_every_unit(name):
    model = make(name)
    output = model(films(), TEXTS)
    if output.token_map_BLhw is not None:
        assert output.token_map_BLhw.shape[:2] == model.encode_text(TEXTS).mask_BL.shape
        assert output.token_map_BLhw.abs().max() <= 1 + 1e-5


@every_variant
def test_presence_is_claimed_where_training_has_absent_prompts_and_nowhere_else(name):
    model = make(name)
    output = model(films(), TEXTS, targets())
    if VARIANTS[name].get("presence"):
        assert output.presence_B.shape == (4,) and output.presence_B.dtype == torch.float32 and output.presence_B.isfinite().all()
        output.losses["presence"].backward()
        assert all(p.grad is not None for n, p in model.named_parameters() if n.startswith("presence."))
    else:
        assert output.presence_B is None and "presence" not in output.losses
        assert not any(n.startswith("presence.") for n in model.state_dict())


# ---- sameness


@every_variant
def test_a_film_gets_the_same_answer_alone_and_in_a_batch_in_any_order(name):
    model, image = make(name).eval(), films()
    order = torch.tensor([2, 0, 3, 1])
    with torch.inference_mode():
        batch = model(image, TEXTS).logits_B1HW
        alone = torch.cat([model(image[i : i + 1], [text]).logits_B1HW for i, text in enumerate(TEXTS)])
        permuted = model(image[order], [TEXTS[i] for i in order]).logits_B1HW
    assert (batch - alone).abs().max() < 1e-5
    assert (batch[order] - permuted).abs().max() < 1e-5


@every_variant
def test_there_is_no_randomness_and_training_mode_answers_like_eval(name):
    """No dropout and no batch statistics: what is trained is what is used."""
    model, image = make(name).train(), films()
    with torch.inference_mode():
        first, second, evaluated = model(image, TEXTS).logits_B1HW, model(image, TEXTS).logits_B1HW, model.eval()(image, TEXTS).logits_B1HW
    assert torch.equal(first, second) and torch.equal(first, evaluated)
    assert not any(isinstance(m, torch.nn.modules.batchnorm._NormBase | torch.nn.Dropout) for m in model.modules())


@every_variant
def test_the_same_seed_builds_the_same_weights_and_another_one_does_not(name):
    one, same, other = (make(name, seed).state_dict() for seed in (3, 3, 4))
    assert one.keys() == same.keys() and all(torch.equal(one[k], same[k]) for k in one)
    assert any(not torch.equal(one[k], other[k]) for k in one)


@every_model
def test_a_copy_is_independent_and_answers_the_same(name):
    """The weight average of training is such a copy."""
    model = make(name)
    twin = copy.deepcopy(model)
    with torch.inference_mode():
        before = model(films(), TEXTS).logits_B1HW
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(model(films(), TEXTS).logits_B1HW, before)


@every_variant
def test_bf16_is_finite_close_and_answers_in_fp32(name):
    model, image, mask = make(name), films(), targets()
    full = model(image, TEXTS, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model(image, TEXTS, mask)
    sum(half.losses.values()).backward()
    assert half.logits_B1HW.dtype == torch.float32 and half.logits_B1HW.isfinite().all()
    assert (half.logits_B1HW - full.logits_B1HW).abs().max() < 0.2
    assert all(loss.dtype == torch.float32 and (loss - full.losses[k]).abs() < 0.05 for k, loss in half.losses.items())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


# ---- training

#: Softmax does not see a number that is added to all of its scores, so the gradient of this bias is zero by construction.
SHIFT_OF_A_SOFTMAX = {"vlcm.unit_score.bias"}


@every_variant
def test_every_parameter_gets_a_gradient(name):
    model, size = make(name), (72, 80)  # on a smaller film the coarsest map can be one place, and attention among one has no choice
    sum(model(films(4, *size), TEXTS, targets(4, *size)).losses.values()).backward()
    silent = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent <= SHIFT_OF_A_SOFTMAX
    assert all(p.grad.isfinite().all() for p in model.parameters())


@every_variant
def test_losses_come_with_a_mask_only_and_are_positive_scalars(name):
    model, image = make(name), films()
    assert model(image, TEXTS).losses == {} and model(image, TEXTS).maps == {}
    losses = model(image, TEXTS, targets()).losses
    assert "mask" in losses
    assert all(loss.ndim == 0 and loss.isfinite() and loss > 0 for loss in losses.values())


@every_variant
@pytest.mark.parametrize("size", [(1, 1), (17, 33)], ids=["1x1", "17x33"])
def test_losses_exist_at_any_size(name, size):
    losses = make(name)(films(2, *size), TEXTS[:2], torch.ones(2, 1, *size, dtype=torch.bool)).losses
    assert all(loss.isfinite() for loss in losses.values())


@every_variant
def test_a_batch_costs_the_mean_of_its_films_so_accumulation_changes_nothing(name):
    model, image, mask = make(name), films(), targets()
    together = model(image, TEXTS, mask).losses
    apart = [model(image[i : i + 1], TEXTS[i : i + 1], mask[i : i + 1]).losses for i in range(4)]
    for key, loss in together.items():
        assert torch.allclose(loss, torch.stack([one[key] for one in apart]).mean(), atol=1e-5)


@every_variant
def test_pixels_that_are_not_valid_cost_nothing(name):
    model, image, mask = make(name), films(), targets()
    valid = torch.ones_like(mask)
    valid[..., 32:, :] = False
    other = mask.clone()
    other[..., 32:, :] = True
    one, two = (model(image, TEXTS, m, valid).losses["mask"] for m in (mask, other))
    assert torch.equal(one, two)
    assert not torch.equal(one, model(image, TEXTS, mask).losses["mask"])
    nothing = model(image, TEXTS, mask, torch.zeros_like(mask)).losses
    assert all(loss.isfinite() for loss in nothing.values()) and nothing["mask"] == 0


@every_model
def test_twelve_steps_on_one_batch_lower_every_loss(name):
    model, image, mask = make(name), films(2, 32, 32), targets(4, 32, 32)[[0, 2]]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for _ in range(12):
        losses = model(image, [TEXTS[0], TEXTS[2]], mask).losses
        history.append({k: v.item() for k, v in losses.items()})
        optimiser.zero_grad()
        sum(losses.values()).backward()
        optimiser.step()
    assert all(history[-1][key] < history[0][key] for key in history[0])


# ---- storing


@every_variant
def test_a_bundle_gives_the_model_back(name, tmp_path):
    section, model = VARIANTS[name], make(name).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half())  # what fp16 holds comes back exactly
    fields = {
        "preprocess": {"size_px": 48},
        "text": {"laterality": "image"},
        "decision": {"rule": "fixed", "threshold": 0.5, "temperature": 1.0},
        "licence": "Apache-2.0",
    }
    training = TrainingFile(images=1, steps=1, seconds=1)
    save_bundle(tmp_path / "b", model, model_config(section).model_dump(), tokenizer(name), bank_of(section), fields, training, [])
    loaded = load_bundle(tmp_path / "b").model
    with torch.inference_mode():
        assert torch.equal(loaded(films(), TEXTS).logits_B1HW, model(films(), TEXTS).logits_B1HW)


# ---- config and counting


@every_variant
def test_the_count_on_the_meta_device_is_that_of_the_model(name):
    model, counted = make(name), count_parameters(VARIANTS[name])
    vocabulary = sum(p.numel() for n, p in model.named_parameters() if n.endswith("tower.embed.weight"))
    expected = 2000 * 32 if model.reads_text else 0  # counting takes a full vocabulary; this one was trained on four sentences
    assert counted["total"] - expected == sum(p.numel() for p in model.parameters()) - vocabulary
    assert counted["trainable"] == counted["total"] and counted["frozen"] == 0


@every_model
def test_a_text_model_without_its_tokenizer_is_our_own_mistake(name):
    if MODELS[name][1].reads_text:
        with pytest.raises(ValueError, match="needs a tokenizer") as caught:
            build(SMALLEST[name])
        assert not isinstance(caught.value, InputError)
    else:
        build(SMALLEST[name])


@every_model
def test_a_wrong_key_names_the_nearest_and_a_section_is_frozen(name):
    config = model_config(SMALLEST[name])
    key = next(k for k in type(config).model_fields if k != "name")
    with pytest.raises(InputError, match=rf"unknown key '{key}s'\. Did you mean '{key}'\?") as caught:
        model_config({"name": name, f"{key}s": 1})
    assert caught.value.code == "config"
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"
    assert model_config(config.model_dump()) == config == model_config(config.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("wrong", "said"), [("tgcnt", "Did you mean tgcnet"), ("x", "Legal names"), (None, "Legal names"), (["unet"], "unet")]
)
def test_a_wrong_name_is_answered_with_the_legal_ones(wrong, said):
    with pytest.raises(InputError, match=said):
        model_config({"name": wrong})


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_resolves_to_itself_and_can_be_counted(name):
    resolved = resolve(load_config(name))
    assert resolve(resolved) == resolved
    assert count_parameters(resolved.model)["total"] > 0


def test_logits_at_stride_two_are_for_training_at_128_px_or_less():
    values = {"name": "x", "model": SMALLEST["tgcnet"] | {"output_stride": 2}}
    resolve(parse_config(values | {"data": {"size_px": 128}}, "x"))
    with pytest.raises(InputError, match=r"goes to 224\. Set model\.output_stride to 4"):
        resolve(parse_config(values | {"data": {"size_px": [[0.5, 112], [1.0, 224]]}}, "x"))
