"""Pretrained towers: their features are those of transformers, and TGC-Net trains, stores and finds them again."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pretrained import COMMIT, JOINT, edit_json, edit_weights, lay_out_cache, save_bert, save_clip, save_convnext, save_resnet
from reportseg.bundle import load_bundle, save_bundle
from reportseg.config import load_config, shipped_configs
from reportseg.errors import InputError
from reportseg.knowledge.bank import load_bank
from reportseg.models import build, check, count_parameters, make_tokenizer, model_config
from reportseg.models.assembly import FAMILIES, MOST, Tower, open_tower, source_tokenizer
from reportseg.models.encoders import SentenceTokenizer
from reportseg.models.lora import Adapted, merge
from reportseg.models.sources import find
from reportseg.models.towers import CLIP_STATISTICS, IMAGENET_STATISTICS
from reportseg.schemas.bundle import Tower as Record
from reportseg.schemas.training import TrainingFile

TEXTS = ["upper left lung, and lower right lung.", "", "lower left lung.", "lung"]
BANK = load_bank("chest")
SECTION = {"name": "tgcnet", "preset": "tiny", "date": {"knowledge": False}}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders by name, and the models of transformers that were saved there."""
    root = tmp_path_factory.mktemp("towers")
    makers = {"clip": save_clip, "bert": save_bert, "resnet": save_resnet, "convnext": save_convnext}
    models = {name: make(root / name) for name, make in makers.items()}
    return root, models


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def opened(part, folder, train="frozen", **options):
    return open_tower(part, Tower(source=str(folder), train=train), None, None, **options)[0]


def films(n=2, height=32, width=32, seed=1):
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def part_of(n=2, height=32, width=32):
    mask = torch.zeros(n, 1, height, width, dtype=torch.bool)
    mask[:, :, 5:20, 9:30] = True
    return mask


# ---- features are those of transformers


@pytest.mark.parametrize("size", [(32, 32), (40, 24), (8, 8), (64, 64)])
def test_the_taps_of_clip_are_its_hidden_states_at_any_size(saved, size):
    vision, reference = opened("vision", saved[0] / "clip"), saved[1]["clip"].vision_model
    image = films(2, *size)
    taps, values = vision(image)
    states = reference(image, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
    assert len(taps) == 4 and values.shape == (2, JOINT, size[0] // 8, size[1] // 8)
    assert all(torch.allclose(tap, state[:, 1:], atol=1e-5) for tap, state in zip(taps, states[1:], strict=True))


@pytest.mark.parametrize("patch", [14, 16, 32])
def test_patches_of_every_published_clip_give_its_hidden_states_and_an_answer_at_any_size(tmp_path, patch):
    """L/14, B/16 and B/32: a film is padded to whole patches, and the maps are cut back."""
    clip = save_clip(tmp_path, patch_size=patch, image_size=7 * patch)
    image = films(2, 2 * patch, 3 * patch)
    taps, values = opened("vision", tmp_path)(image)
    states = clip.vision_model(image, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
    assert values.shape == (2, JOINT, 2, 3)
    assert all(torch.allclose(tap, state[:, 1:], atol=1e-5) for tap, state in zip(taps, states[1:], strict=True))
    tower = {"source": str(tmp_path), "train": "frozen"}
    chosen = SECTION | {"vision": tower, "text": tower}
    with torch.inference_mode():
        logits = build(chosen, make_tokenizer(chosen, []), None).eval()(films(1, 33, 50), TEXTS[:1]).logits_B1HW
    assert logits.shape == (1, 1, 33, 50) and logits.isfinite().all()


def test_the_patches_of_clip_are_the_value_path_of_its_last_block_in_the_joint_space(saved):
    """The last block's attention, were it to look at each place alone, through CLIP's own post-norm and projection."""
    vision, clip = opened("vision", saved[0] / "clip"), saved[1]["clip"]
    image = films()
    before = clip.vision_model(image, output_hidden_states=True).hidden_states[-2]
    block = clip.vision_model.encoder.layers[-1]
    alone = torch.stack([block.self_attn(block.layer_norm1(before[:, i : i + 1]))[0][:, 0] for i in range(1, 17)], 1)  # softmax over one
    expected = clip.visual_projection(clip.vision_model.post_layernorm(alone))
    assert torch.allclose(vision(image)[1].flatten(2).transpose(1, 2), expected, atol=1e-5)


def test_without_a_comparison_the_post_norm_and_projection_of_clip_are_not_loaded(saved):
    vision = opened("vision", saved[0] / "clip", "full", projected=False)
    assert vision(films())[1].shape == (2, 0, 4, 4)
    assert not any("post_layernorm" in name or "projection" in name for name, _ in vision.named_parameters())


def test_a_sentence_of_clip_is_its_projected_end_token(saved):
    text, clip = opened("text", saved[0] / "clip"), saved[1]["clip"]
    tokenizer = SentenceTokenizer(make_tokenizer(SECTION | {"text": {"source": str(saved[0] / "clip")}}, []), text.max_tokens)
    ids, mask = tokenizer(TEXTS, torch.device("cpu"))
    expected = [clip.get_text_features(ids[i : i + 1, : mask[i].sum()]).pooler_output[0] for i in range(4)]
    assert torch.allclose(text(ids, mask), torch.stack(expected), atol=1e-5)
    assert torch.allclose(opened("text", saved[0] / "clip", "full")(ids, mask), torch.stack(expected), atol=1e-5)


def test_a_sentence_of_bert_is_its_cls_token(saved):
    text, bert = opened("text", saved[0] / "bert"), saved[1]["bert"]
    tokenizer = SentenceTokenizer(make_tokenizer(SECTION | {"text": {"source": str(saved[0] / "bert")}}, []), text.max_tokens)
    ids, mask = tokenizer(TEXTS, torch.device("cpu"))
    expected = torch.stack([bert(ids[i : i + 1, : mask[i].sum()]).last_hidden_state[0, 0] for i in range(4)])
    assert torch.allclose(text(ids, mask), expected, atol=1e-5)
    assert torch.allclose(opened("text", saved[0] / "bert", "full")(ids, mask), expected, atol=1e-5)  # padded, with a mask


def test_a_text_of_more_tokens_than_clip_reads_is_the_mean_of_its_sentences_as_clip_reads_them(saved):
    model, clip = network(saved, cnn=None).eval(), saved[1]["clip"]
    sentences = ["there is a small effusion on the left.", "the right lung is clear of it.", "no more is to be seen here."]
    report = " ".join(sentences)
    assert model.date.tokenizer.chunks(report) == sentences and not model.truncates(report)
    ids, mask = model.date.tokenizer(sentences, torch.device("cpu"))
    read = [clip.get_text_features(ids[i : i + 1, : mask[i].sum()]).pooler_output[0] for i in range(3)]
    assert torch.allclose(model.encode_text([report]).pooled_BD[0], torch.stack(read).mean(0), atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "clip"])
@pytest.mark.parametrize("train", ["frozen", "full"])
def test_tokens_are_the_states_of_transformers_and_hold_the_sentence(saved, name, train):
    text = opened("text", saved[0] / name, train)
    ids, mask = SentenceTokenizer(source_tokenizer(Tower(source=str(saved[0] / name), train="frozen")), text.max_tokens)(
        TEXTS, torch.device("cpu")
    )
    tokens, pooled = text.tokens(ids, mask)
    for i, n in enumerate(mask.sum(1)):
        one = ids[i : i + 1, :n]
        if name == "bert":
            expected = saved[1]["bert"](one).last_hidden_state[0]
        else:
            clip = saved[1]["clip"]
            expected = clip.text_projection(clip.text_model(one).last_hidden_state[0])
        assert torch.allclose(tokens[i, :n], expected, atol=1e-5)
    assert torch.allclose(pooled, text(ids, mask) if train == "full" else opened("text", saved[0] / name)(ids, mask), atol=1e-5)


@pytest.mark.parametrize("trained", [("frozen", "full"), ("lora", "lora"), ("full", "frozen")], ids="-".join)
@pytest.mark.parametrize("image", ["convnext", "resnet"])
def test_tmca_stands_on_pretrained_towers_trains_and_comes_back_from_its_bundle(saved, tmp_path, image, trained):
    named = {
        part: {"source": str(saved[0] / name), "train": t}
        for part, name, t in zip(("vision", "text"), (image, "bert"), trained, strict=True)
    }
    section = {"name": "tmca", "preset": "tiny", "output_stride": 2, **named}
    model = build(section, make_tokenizer(section, []))
    model.begin_training(TEXTS)
    sum(model.train()(films(4), TEXTS, part_of(4)).losses.values()).backward()
    gates = {"ltem.gamma"}  # what zero multiplies at the start gets its gradient a step later
    for tower, train in zip((model.pyramid, model.reader.tower.tower), trained, strict=True):
        got = {n for n, p in tower.named_parameters() if p.grad is not None and p.grad.any()}
        assert bool(got) == (train != "frozen") and got <= {n for n, p in tower.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for n, p in model.named_parameters() if p.requires_grad and n not in gates)
    model.end_training()
    fields = {
        "preprocess": {"size_px": 48, "mean": [0.5] * 3, "std": [0.25] * 3},
        "base": model.base.model_dump(),
        "text": {"laterality": "image", "max_tokens": model.max_tokens},
        "decision": {"rule": "fixed", "threshold": 0.5, "temperature": 1.0},
        "licence": "Apache-2.0",
    }
    save_bundle(
        tmp_path / "b",
        model,
        model_config(section).model_dump(),
        make_tokenizer(section, []),
        None,
        fields,
        TrainingFile(images=1, steps=1, seconds=1),
        [],
    )
    loaded = load_bundle(tmp_path / "b").model
    with torch.inference_mode():
        assert (loaded(films(), TEXTS[:2]).logits_B1HW - model.eval()(films(), TEXTS[:2]).logits_B1HW).abs().max() < 2e-2  # stored in fp16
    assert model.base.vision.sha256 and model.base.text.sha256 and model.base.cnn.id is None


def test_cxr_bert_is_read_as_a_bert_and_old_names_of_norms_are_known(saved, tmp_path):
    shutil.copytree(saved[0] / "bert", tmp_path / "cxr")
    edit_json(tmp_path / "cxr" / "config.json", model_type="cxr-bert", projection_size=128)

    def published(tensors):
        old = {
            f"bert.{k}".replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v
            for k, v in tensors.items()
        }
        heads = {"cls.predictions.bias": torch.zeros(3), "cls_projection_head.dense_to_hidden.weight": torch.zeros(2, 2)}
        return old | heads | {"bert.embeddings.position_ids": torch.arange(48)[None]}

    edit_weights(tmp_path / "cxr", published)
    ids = torch.tensor([[2, 5, 6, 3]])
    mask = torch.ones_like(ids, dtype=torch.bool)
    assert torch.equal(opened("text", tmp_path / "cxr")(ids, mask), opened("text", saved[0] / "bert")(ids, mask))


def test_one_tower_of_clip_saved_alone_is_read_as_well(saved, tmp_path):
    clip = saved[1]["clip"]
    clip.vision_model.save_pretrained(tmp_path / "vision")
    alone = opened("vision", tmp_path / "vision", projected=False)
    assert torch.equal(alone(films())[0][3], opened("vision", saved[0] / "clip")(films())[0][3])
    with pytest.raises(InputError, match=r"projection\.weight is missing"):
        opened("vision", tmp_path / "vision")


@pytest.mark.parametrize("name", ["resnet", "convnext"])
@pytest.mark.parametrize("size", [(64, 96), (1, 1), (33, 50), (16, 48)])
def test_the_maps_of_a_cnn_lie_at_strides_2_to_32(saved, name, size):
    cnn = opened("cnn", saved[0] / name)
    stem, *maps = cnn(films(1, *size))
    assert [m.shape[1] for m in maps] == list(cnn.widths) == [8, 12, 16, 20] and stem.shape[1] == cnn.stem
    assert [tuple(m.shape[2:]) for m in (stem, *maps)] == [(-(-size[0] // s), -(-size[1] // s)) for s in (2, 4, 8, 16, 32)]


@pytest.mark.parametrize("name", ["resnet", "convnext"])
def test_the_maps_of_a_cnn_are_the_stages_of_transformers(saved, name):
    image = films(2, 64, 96)
    states = saved[1][name](image, output_hidden_states=True).hidden_states[-4:]
    maps = opened("cnn", saved[0] / name)(image)[1:]
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(maps, states, strict=True))


@pytest.mark.slow
def test_vit_b_16_at_full_size(tmp_path):
    """512 wide joint space, 224 px and more; counted as the preset counts it."""
    from transformers import CLIPConfig, CLIPModel

    clip = CLIPModel(CLIPConfig(vision_config={"patch_size": 16})).eval()
    clip.save_pretrained(tmp_path)
    vision = opened("vision", tmp_path)
    with torch.inference_mode():
        for side in (224, 240):
            image = films(1, side, side)
            taps, values = vision(image)
            states = clip.vision_model(image, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
            assert all(torch.allclose(taps[i], states[3 * (i + 1)][:, 1:], atol=1e-4) for i in range(4))
            assert values.shape == (1, 512, side // 16, side // 16)
    counted = count_parameters({"name": "tgcnet", "preset": "vit-b-16", "vision": {"source": "x/y", "train": "frozen"}})
    assert counted["frozen"] == sum(p.numel() for p in vision.parameters())


# ---- what is trained


def test_a_tower_stays_in_eval_mode_and_a_frozen_one_takes_no_gradient(saved):
    for part, name in (("vision", "clip"), ("text", "bert"), ("cnn", "convnext"), ("cnn", "resnet")):
        for train in ("frozen", "lora", "full"):
            tower = opened(part, saved[0] / name, train).train()
            assert not any(module.training for module in tower.modules())
            trained = {n for n, p in tower.named_parameters() if p.requires_grad}
            assert bool(trained) == (train != "frozen")
            if train == "lora":
                assert all(n.endswith((".A", ".B")) for n in trained)


def test_the_batch_norm_of_a_resnet_is_frozen_and_its_statistics_stay(saved):
    cnn = opened("cnn", saved[0] / "resnet", "full").train()
    before = {k: v.clone() for k, v in cnn.state_dict().items()}
    sum(m.square().mean() for m in cnn(films(2, 64, 64))).backward()
    norms = [m for m in cnn.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and not any(p.requires_grad for m in norms for p in m.parameters())
    assert all(torch.equal(v, before[k]) for k, v in cnn.state_dict().items())
    assert all(p.grad is not None for p in cnn.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("part", "name", "maps"),
    [("vision", "clip", 8), ("text", "clip", 4), ("text", "bert", 4), ("cnn", "convnext", 10), ("cnn", "resnet", 12)],
)
def test_lora_changes_the_queries_and_values_of_transformers_and_the_maps_of_cnns(saved, part, name, maps):
    tower = opened(part, saved[0] / name, "lora")
    adapted = [n for n, m in tower.named_modules() if isinstance(m, Adapted)]
    assert len(adapted) == maps
    assert part == "cnn" or {n.rpartition(".")[2] for n in adapted} in ({"q_proj", "v_proj"}, {"query", "value"})


def test_only_what_is_trained_is_in_the_state_and_it_goes_back_strictly(saved):
    for train, kept in (("frozen", 0), ("lora", 16), ("full", None)):
        holder = nn.ModuleDict({"tower": opened("vision", saved[0] / "clip", train), "own": nn.Linear(2, 2)})
        state = holder.state_dict()
        inside = [k for k in state if k.startswith("tower.")]
        assert len(inside) == (len(list(holder["tower"].parameters())) if kept is None else kept)
        holder.load_state_dict(state, strict=True)
        with pytest.raises(RuntimeError, match="Missing key"):
            holder.load_state_dict({k: v for k, v in state.items() if k != "own.bias"}, strict=True)
        if inside:
            with pytest.raises(RuntimeError, match="Missing key"):
                holder.load_state_dict({k: v for k, v in state.items() if k != inside[0]}, strict=True)


# ---- frozen text is read once


def counted_text(saved, train="frozen"):
    text, calls = opened("text", saved[0] / "clip", train), []
    read = text.read
    text.read = lambda ids, mask: (calls.append(ids.tolist()), read(ids, mask))[1]
    return text, calls


IDS = torch.tensor([[0, 3, 9, 67, 0], [0, 3, 67, 0, 0], [0, 3, 9, 67, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]).bool()


def test_a_frozen_text_tower_reads_a_distinct_sentence_once(saved):
    text, calls = counted_text(saved)
    first = text(IDS, MASK)
    assert calls == [[[0, 3, 9, 67]], [[0, 3, 67]]]
    assert torch.equal(text(IDS[1:], MASK[1:]), first[1:]) and len(calls) == 2
    assert text.state_dict() == {}  # what is remembered is no state


def test_what_is_remembered_does_not_depend_on_precision_and_can_be_trained_upon(saved):
    text, _ = counted_text(saved)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        low = text(IDS, MASK)
    assert low.dtype == torch.float32 and torch.equal(low, counted_text(saved)[0](IDS, MASK))
    own = nn.Linear(JOINT, 1)
    own(text(IDS, MASK)).sum().backward()  # an inference tensor would refuse
    assert own.weight.grad is not None


def test_what_is_remembered_is_dropped_when_the_weights_change(saved):
    text, calls = counted_text(saved)
    before = text(IDS, MASK)
    with torch.no_grad():
        next(text.parameters()).mul_(2)
    assert not torch.equal(text(IDS, MASK), before) and len(calls) == 4
    text.double()
    assert text(IDS, MASK).dtype == torch.float64 and len(calls) == 6


def test_a_text_tower_that_is_trained_remembers_nothing(saved):
    for train in ("lora", "full"):
        text, calls = counted_text(saved, train)
        text(IDS, MASK), text(IDS, MASK)
        assert len(calls) == 2 and not text.known


def test_a_copy_remembers_for_itself(saved):
    text, _ = counted_text(saved)
    del text.read
    text(IDS, MASK)
    twin = copy.deepcopy(text)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(IDS, MASK).any() and text(IDS, MASK).any()


# ---- refusals


@pytest.mark.parametrize(("part", "name"), [("vision", "bert"), ("text", "resnet"), ("cnn", "clip"), ("vision", "convnext")])
def test_a_source_of_another_family_is_refused_with_the_legal_ones(saved, part, name):
    with pytest.raises(InputError, match="Name a source of type") as caught:
        opened(part, saved[0] / name)
    assert caught.value.code == "family"


@pytest.mark.parametrize(
    "change", [{"hidden_sizes": [8, 12, 16]}, {"downsample_in_first_stage": True}, {"hidden_act": "no_such"}, {"depths": "x"}]
)
def test_a_config_that_no_branch_can_be_built_from_is_refused(saved, tmp_path, change):
    shutil.copytree(saved[0] / "resnet", tmp_path / "r")
    edit_json(tmp_path / "r" / "config.json", **change)
    with pytest.raises(InputError) as caught:
        opened("cnn", tmp_path / "r")
    assert caught.value.code == "bad_tower"


def test_a_huge_tower_in_a_config_is_refused_by_the_header_before_it_takes_memory(saved, tmp_path):
    shutil.copytree(saved[0] / "bert", tmp_path / "b")
    edit_json(tmp_path / "b" / "config.json", hidden_size=2**20, num_attention_heads=2, vocab_size=2**24)
    with pytest.raises(InputError) as caught:
        opened("text", tmp_path / "b")
    assert caught.value.code == "weights_mismatch"


@pytest.mark.parametrize(
    ("part", "name", "change"),
    [
        ("text", "bert", {"num_hidden_layers": 10**9}),
        ("text", "bert", {"num_hidden_layers": -1}),
        ("cnn", "convnext", {"depths": [1, 1, 10**9, 1]}),
        ("cnn", "resnet", {"depths": [10**9] * 4}),
        ("vision", "clip", {"vision_config": {"num_hidden_layers": 10**9, "hidden_size": 16, "num_attention_heads": 2}}),
    ],
)
def test_more_layers_than_tensors_are_refused_before_one_is_built(saved, tmp_path, part, name, change):
    shutil.copytree(saved[0] / name, tmp_path / "t")
    before = find(str(tmp_path / "t"))
    edit_json(tmp_path / "t" / "config.json", **change)
    with pytest.raises(InputError, match="more layers than") as caught:
        opened(part, tmp_path / "t")
    assert caught.value.code == "bad_tower"
    config = FAMILIES[part][-1 if name in ("bert", "convnext") else 0].settings(find(str(tmp_path / "t")).config)
    record = Record(id=before.id, revision=None, sha256=before.sha256, config=config)  # what a bundle says is as little trusted
    with pytest.raises(InputError, match="more layers than"):
        open_tower(part, Tower(source=before.id, train="frozen"), record, None)


def without(prefix):
    return lambda tensors: {key: value for key, value in tensors.items() if not key.startswith(prefix)}


def emptied(name):
    return lambda tensors: {key: value[:0].clone() if name in key else value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("change", "edit"),
    [
        ({"num_hidden_layers": 0}, without("encoder.")),
        ({"max_position_embeddings": 0}, emptied("position_embeddings")),
        ({"type_vocab_size": 0}, emptied("token_type_embeddings")),
        ({"layer_norm_eps": -1e9}, dict),
        ({"layer_norm_eps": 1e300}, dict),
        ({"layer_norm_eps": "1e-5"}, dict),
    ],
)
def test_a_source_that_fits_its_weights_and_cannot_read_is_refused_before_a_film(saved, tmp_path, change, edit):
    shutil.copytree(saved[0] / "bert", tmp_path / "b")
    edit_json(tmp_path / "b" / "config.json", **change)
    edit_weights(tmp_path / "b", edit)
    with pytest.raises(InputError, match=next(iter(change))) as caught:
        opened("text", tmp_path / "b")
    assert caught.value.code == "bad_tower" and str(tmp_path / "b") in caught.value.where and caught.value.fix


HOSTILE = [10**9, 10**30, 0, -1, 2.5, "12", True, [4] * 1000, {"a": 1}]


@pytest.mark.parametrize(("name", "part"), [("clip", "vision"), ("clip", "text"), ("bert", "text"), ("resnet", "cnn"), ("convnext", "cnn")])
def test_every_size_that_a_bundle_says_of_a_tower_in_it_is_bounded_before_a_layer_is_laid_out(saved, monkeypatch, name, part):
    source = find(str(saved[0] / name))
    family = next(family for family in FAMILIES[part] if source.config["model_type"] in family.kinds)
    sound = family.settings(source.config)
    monkeypatch.setattr(family, "__init__", lambda *_: pytest.fail("laid out"))
    for key in MOST.keys() & sound:
        for value in [*HOSTILE, *([[512] * 4, [8, 12, 10**9, 20]] if key == "depths" else [])]:
            record = Record(id="no/such", revision=None, sha256="a" * 64, config=sound | {key: value})
            with pytest.raises(InputError, match=rf"base\.{part}: {key} is .* from 1 to {MOST[key]}") as caught:
                open_tower(part, Tower(source="no/such", train="full"), record, None)
            assert caught.value.code == "bad_tower" and caught.value.fix


def test_every_key_that_decides_an_architecture_is_a_bounded_size_or_none():
    others = {"hidden_act", "layer_norm_eps", "layer_scale_init_value", "layer_type", "pad_token_id"}
    others |= {"downsample_in_first_stage", "downsample_in_bottleneck"}
    families = [family for part in FAMILIES.values() for family in part]
    assert families and {key for family in families for key in family.keeps} == MOST.keys() | others


def test_random_weights_are_not_adapted_and_a_folder_has_no_revision(saved):
    with pytest.raises(InputError, match="random weights cannot be adapted by lora"):
        model_config({"name": "tgcnet", "vision": {"train": "lora"}})
    with pytest.raises(InputError, match="only known on the hub"):
        open_tower("cnn", Tower(source=str(saved[0] / "resnet"), revision="main"), None, None)


def test_the_tokenizer_must_be_that_of_the_text_tower(saved):
    from reportseg.models.encoders import train_tokenizer

    with pytest.raises(InputError, match="does not fit the text tower") as caught:
        build(SECTION | {"text": {"source": str(saved[0] / "clip")}}, train_tokenizer([]), None)
    assert caught.value.code == "bad_tower"


def added(folder, tokens=("opacity",), rows=None):
    """The BERT of a folder, whose tokenizer has learnt more words; its table has `rows` more (default: one for each)."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(source_tokenizer(Tower(source=str(folder), train="frozen")))
    tokenizer.add_tokens(list(tokens))
    tokenizer.save(str(folder / "tokenizer.json"))
    more, key = len(tokens) if rows is None else rows, "embeddings.word_embeddings.weight"
    edit_weights(folder, lambda tensors: tensors | {key: F.pad(tensors[key], (0, 0, 0, more), value=0.5)})
    config = json.loads((folder / "config.json").read_text())
    edit_json(folder / "config.json", vocab_size=config["vocab_size"] + more)
    return config["vocab_size"]


@pytest.mark.parametrize("train", ["frozen", "full"])
def test_a_tokenizer_with_added_words_is_read_where_the_tower_has_rows_for_them(saved, tmp_path, train):
    shutil.copytree(saved[0], tmp_path / "towers")
    first = added(tmp_path / "towers" / "bert")
    model = stored((tmp_path / "towers", None), tmp_path / "b", vision=None, text="bert", cnn=None, train=train)
    assert model.date.tokenizer.ids("opacity lung")[1:2] == [first]
    loaded = load_bundle(tmp_path / "b").model
    with torch.inference_mode():
        one, two = (m(films(), ["opacity lung", "lung"]).logits_B1HW for m in (model, loaded))
    assert torch.allclose(one, two, atol=1e-5)


def test_an_added_word_without_a_row_is_refused_before_any_film_is_read(saved, tmp_path):
    shutil.copytree(saved[0] / "bert", tmp_path / "bert")
    added(tmp_path / "bert", ("opacity", "effusion"), rows=1)
    with pytest.raises(InputError, match="does not fit the text tower") as caught:
        check(SECTION | {"text": {"source": str(tmp_path / "bert"), "train": "frozen"}})
    assert caught.value.code == "bad_tower" and caught.value.fix


def forged(bundle, change):
    """The bundle with another tokenizer.json, signed as it now is."""
    tokenizer, config = (json.loads((bundle / name).read_text()) for name in ("tokenizer.json", "config.json"))
    change(tokenizer)
    (bundle / "tokenizer.json").write_text(json.dumps(tokenizer))
    config["files"]["tokenizer.json"] = hashlib.sha256((bundle / "tokenizer.json").read_bytes()).hexdigest()
    (bundle / "config.json").write_text(json.dumps(config))


def test_a_bundle_whose_tokenizer_numbers_a_word_past_the_tower_is_refused(hostile, tmp_path):
    shutil.copytree(hostile, tmp_path / "b")
    forged(tmp_path / "b", lambda t: t["added_tokens"].append(t["added_tokens"][0] | {"id": len(t["model"]["vocab"]), "content": "<evil>"}))
    with pytest.raises(InputError, match="does not fit the text tower") as caught:
        load_bundle(tmp_path / "b")
    assert caught.value.code == "bad_tower" and caught.value.where == str(tmp_path / "b" / "config.json")


def test_a_bundles_tokenizer_does_not_say_how_far_sentences_are_padded(hostile, tmp_path):
    shutil.copytree(hostile, tmp_path / "b")
    padding = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None}
    forged(tmp_path / "b", lambda t: t.update(padding=padding | {"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}))
    assert len(load_bundle(tmp_path / "b").model.date.tokenizer.ids("lung")) == 3


# ---- TGC-Net on pretrained towers


def section(saved, vision="clip", text="clip", cnn="resnet", train="frozen", **more):
    at = lambda name: {"source": str(saved[0] / name), "train": train} if name else {}  # noqa: E731
    return SECTION | {"vision": at(vision), "text": at(text), "sse": {"cnn": at(cnn) if cnn else True}} | more


def network(saved, *args, **kwargs):
    chosen = section(saved, *args, **kwargs)
    torch.manual_seed(0)
    return build(chosen, make_tokenizer(chosen, TEXTS), BANK)


COMBINATIONS = [
    ("clip", "clip", "resnet"),
    ("clip", "bert", "convnext"),
    ("clip", None, None),
    (None, "clip", None),
    (None, "bert", "resnet"),
]


@pytest.mark.parametrize("names", COMBINATIONS, ids=lambda n: "-".join(map(str, n)))
def test_any_combination_answers_at_any_size_and_alone_as_in_a_batch(saved, names):
    model = network(saved, *names, date={"knowledge": True}).train()
    for size in ((1, 1), (33, 50)):
        assert model(films(1, *size), TEXTS[:1]).logits_B1HW.shape == (1, 1, *size)
    image = films(4, 40, 48)
    with torch.inference_mode():
        batch = model(image, TEXTS).logits_B1HW
        alone = torch.cat([model(image[i : i + 1], [text]).logits_B1HW for i, text in enumerate(TEXTS)])
        assert (batch - alone).abs().max() < 1e-4
        assert torch.equal(model.eval()(image, TEXTS).logits_B1HW, batch)


@pytest.mark.parametrize("train", ["frozen", "lora", "full"])
def test_gradients_reach_all_that_is_trained_and_nothing_that_is_frozen(saved, train):
    model = network(saved, text="bert", cnn="convnext", train=train, date={"knowledge": True})
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    sum(model(films(), TEXTS[::2], part_of()).losses.values()).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
        elif "position_embedding" not in name and "word_embeddings" not in name:
            assert parameter.grad is not None, name


def test_the_raw_similarity_of_one_clip_is_its_own_and_is_not_trained(saved):
    """z and t lie in CLIP's space: no loss of its own, no scale; with a BERT beside it nothing has aligned them."""
    clip, bert = network(saved), network(saved, text="bert")
    assert "raw" not in clip(films(), TEXTS[:2], part_of()).losses and clip.vlcm.raw_scale is None
    assert "raw" in bert(films(), TEXTS[:2], part_of()).losses
    output = clip(films(), ["lung", "lung"], part_of())
    z, t = clip.encode_image(films()).patches_BDhw, clip.encode_text(["lung", "lung"]).tokens_BLD
    expected = torch.einsum("bdhw,bld->blhw", F.normalize(z, dim=1), F.normalize(t, dim=2))
    assert torch.allclose(output.token_map_BLhw, expected, atol=1e-5) and "r" in output.maps


def test_a_film_is_normalised_as_each_tower_expects(saved, tmp_path):
    model = network(saved)
    assert torch.allclose(model.mean.flatten(), torch.tensor(CLIP_STATISTICS[0])) and torch.allclose(
        model.std.flatten(), torch.tensor(CLIP_STATISTICS[1])
    )
    seen = {}
    model.sse.vision.register_forward_pre_hook(lambda m, args: seen.update(vision=args[0]))
    model.sse.cnn.tower.register_forward_pre_hook(lambda m, args: seen.update(cnn=args[0]))
    image = films()
    model.encode_image(image)
    for name, (mean, std) in {"vision": CLIP_STATISTICS, "cnn": IMAGENET_STATISTICS}.items():
        expected = (image - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
        assert torch.allclose(seen[name], expected, atol=1e-5)
    assert type(network(saved, vision=None).sse.cnn).__name__ == "ResNet"  # the statistics agree: nothing between
    save_clip(tmp_path / "own", statistics={"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]})
    own = network(saved, vision=str(tmp_path / "own"), text=None, cnn=None)
    assert [round(v, 3) for v in own.mean.flatten().tolist()] == [0.1, 0.2, 0.3]


def test_a_batch_reads_only_sentences_that_are_new_with_their_knowledge(saved):
    model = network(saved, date={"knowledge": True})
    calls, read = [], model.date.tower.read
    model.date.tower.read = lambda ids, mask: (calls.append(ids), read(ids, mask))[1]
    model.encode_text(["Bilateral pulmonary infection."])
    first = len(calls)
    model.encode_text(["Bilateral pulmonary infection."])
    assert first > 1 and len(calls) == first


@pytest.mark.parametrize("name", ["vision", "text", "cnn"])
def test_what_cannot_be_had_is_refused_before_any_film_is_read(saved, name):
    wrong = section(saved)
    tower = {"source": str(saved[0] / "none"), "train": "frozen"}
    wrong |= {"sse": {"cnn": tower}} if name == "cnn" else {name: tower}
    with pytest.raises(InputError) as caught:
        check(wrong)
    assert caught.value.code == "no_tower"
    check(section(saved))


HUB = {  # what the recipes name, and the tiny tower that stands for it
    "openai/clip-vit-base-patch16": "clip",
    "google-bert/bert-base-uncased": "bert",
    "microsoft/BiomedVLP-CXR-BERT-specialized": "bert",
    "microsoft/resnet-18": "resnet",
    "facebook/convnext-tiny-224": "convnext",
}


@pytest.fixture
def hub(saved, tmp_path, monkeypatch):
    """A hub's cache on disk that has them all."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, tower in HUB.items():
        lay_out_cache(tmp_path / "hub", saved[0] / tower, name)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    from reportseg.data.synthetic import synthesise

    return synthesise(tmp_path_factory.mktemp("phantoms"), 24, seed=0, size=32)


@pytest.mark.parametrize("name", shipped_configs())
def test_every_recipe_is_planned_with_its_towers_from_the_cache_of_the_hub(hub, phantoms, name):
    from reportseg.train import dry_run

    facts = dry_run(load_config(name), manifest=phantoms)
    assert facts["name"] == name and facts["params"]["total"] > 0 and facts["train_films"] > 0


def test_a_recipe_without_its_towers_says_how_to_get_them(phantoms, tmp_path, monkeypatch):
    from reportseg.train import dry_run

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(InputError, match="hf download openai/clip-vit-base-patch16") as caught:
        dry_run(load_config("tgcnet_qata"), manifest=phantoms)
    assert caught.value.code == "hub"


def test_a_revision_reaches_the_tower_and_its_commit_the_record(hub, saved, tmp_path):
    other = save_clip(tmp_path / "other", seed=7)
    lay_out_cache(tmp_path / "hub", tmp_path / "other", "openai/clip-vit-base-patch16", commit="f" * 40, ref="v2")
    for revision, commit, clip in ((None, COMMIT, saved[1]["clip"]), ("v2", "f" * 40, other)):
        section = Tower(source="openai/clip-vit-base-patch16", revision=revision, train="frozen")
        tower, record = open_tower("vision", section, None, None)
        assert record.revision == commit
        states = clip.vision_model(films(), output_hidden_states=True).hidden_states
        assert torch.allclose(tower(films())[0][3], states[-1][:, 1:], atol=1e-5)
        again, _ = open_tower("vision", section.model_copy(update={"revision": None}), record, None)  # as the bundle recorded it
        assert torch.equal(again(films())[0][3], tower(films())[0][3])


def test_lora_is_counted_without_opening_the_source():
    base = {"name": "tgcnet", "preset": "vit-b-16", "sse": {"cnn": False}}
    count = lambda train: count_parameters(base | {"vision": {"source": "no/such", "train": train}})  # noqa: E731
    frozen, lora, full = count("frozen"), count("lora"), count("full")
    assert lora["trainable"] - frozen["trainable"] == 12 * 2 * 8 * (768 + 768)  # queries and values of 12 blocks, rank 8
    assert lora["frozen"] == frozen["frozen"] == full["trainable"] - frozen["trainable"]


# ---- bundles


FIELDS = {
    "preprocess": {"size_px": 32, "mean": [0.5] * 3, "std": [0.25] * 3},
    "text": {"laterality": "image", "max_tokens": 40},
    "decision": {"rule": "fixed", "threshold": 0.5, "temperature": 1.0},
    "licence": "Apache-2.0",
}


def stored(saved, path, **kwargs):
    """A bundle whose weights fp16 holds exactly, and its model."""
    chosen = section(saved, **kwargs)
    tokenizer = make_tokenizer(chosen, TEXTS)
    model = build(chosen, tokenizer, BANK).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_((parameter + torch.randn_like(parameter) * 0.05).half())
    training = TrainingFile(images=1, steps=1, seconds=1)
    cfg = model_config(chosen).model_dump()
    save_bundle(path, model, cfg, tokenizer, None, {**FIELDS, "base": model.base.model_dump()}, training, [])
    return model


@pytest.fixture(scope="module")
def hostile(saved, tmp_path_factory):
    """A bundle that holds its towers whole; a test that writes its config.json puts it back."""
    stored(saved, path := tmp_path_factory.mktemp("hostile") / "b", text="bert", train="full")
    load_bundle(path)
    return path


@pytest.mark.parametrize("train", ["frozen", "lora", "full"])
def test_a_bundle_gives_the_model_back_and_holds_what_was_trained(saved, tmp_path, train):
    model = stored(saved, tmp_path / "b", text="bert", cnn="convnext", train=train)
    bundle, apart = load_bundle(tmp_path / "b"), load_bundle(tmp_path / "b", merged=False)
    with torch.inference_mode():
        expected = model(films(), TEXTS[:2]).logits_B1HW
        for loaded in (bundle.model, apart.model):
            assert torch.allclose(loaded(films(), TEXTS[:2]).logits_B1HW, expected, atol=1e-5)
    assert not any(isinstance(m, Adapted) for m in bundle.model.modules())
    assert any(isinstance(m, Adapted) for m in apart.model.modules()) == (train == "lora")
    size = (tmp_path / "b" / "model.safetensors").stat().st_size
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert size < 2 * trained + 60_000
    records = bundle.config.base
    assert records.vision.id == str(saved[0] / "clip") and records.vision.sha256 and records.cnn.config["model_type"] == "convnext"
    assert str(saved[0] / "bert") in (tmp_path / "b" / "README.md").read_text()


@pytest.mark.parametrize("train", ["frozen", "lora"])
def test_a_tower_with_another_hash_is_refused(saved, tmp_path, train):
    root = tmp_path / "towers"
    shutil.copytree(saved[0], root)
    stored((root, None), tmp_path / "b", train=train)
    edit_weights(root / "resnet", lambda t: {k: v + 1e-3 if v.is_floating_point() else v for k, v in t.items()})
    with pytest.raises(InputError, match="cnn tower .* its sha256 is another") as caught:
        load_bundle(tmp_path / "b")
    assert caught.value.code == "sha256"


def test_a_tower_that_is_gone_is_told_and_one_beside_the_bundle_is_found(saved, tmp_path):
    root = tmp_path / "towers"
    shutil.copytree(saved[0], root)
    model = stored((root, None), tmp_path / "there" / "b")
    shutil.move(root, tmp_path / "away")
    with pytest.raises(InputError, match="there is no tower") as caught:
        load_bundle(tmp_path / "there" / "b")
    assert caught.value.code == "no_tower"
    for name in ("clip", "resnet"):
        shutil.copytree(tmp_path / "away" / name, tmp_path / "there" / name)
    with torch.inference_mode():
        found = load_bundle(tmp_path / "there" / "b").model(films(), TEXTS[:2]).logits_B1HW
        assert torch.allclose(found, model(films(), TEXTS[:2]).logits_B1HW, atol=1e-5)


def test_a_tower_that_was_trained_in_full_is_in_the_bundle_and_needs_no_source(saved, tmp_path):
    root = tmp_path / "towers"
    shutil.copytree(saved[0], root)
    stored((root, None), tmp_path / "b", train="full")
    shutil.rmtree(root)
    load_bundle(tmp_path / "b")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("text", {"num_hidden_layers": 10**9}),
        ("text", {"hidden_size": 10**9}),
        ("text", {"vocab_size": 10**12}),
        ("text", {"intermediate_size": 10**15}),
        ("text", {"num_hidden_layers": -1}),
        ("text", {"hidden_size": 16.0}),
        ("text", {"vocab_size": "64"}),
        ("cnn", {"depths": [10**9] * 4}),
        ("cnn", {"hidden_sizes": [8] * 10_000}),
        ("vision", {"num_hidden_layers": 10**9}),
    ],
)
def test_a_bundle_whose_own_tower_says_absurd_sizes_is_refused(hostile, part, change):
    config = json.loads((hostile / "config.json").read_text())
    kept = dict(config["base"][part]["config"])
    config["base"][part]["config"] |= change
    (hostile / "config.json").write_text(json.dumps(config))
    try:
        with pytest.raises(InputError, match=f"base.{part}: {next(iter(change))}") as caught:
            load_bundle(hostile)
    finally:
        config["base"][part]["config"] = kept
        (hostile / "config.json").write_text(json.dumps(config))
    assert caught.value.code == "bad_tower" and caught.value.where == str(hostile / "config.json")


def test_a_size_within_the_bounds_that_the_weights_lack_is_refused_from_their_header(hostile, tmp_path):
    shutil.copytree(hostile, tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    config["base"]["text"]["config"] |= {"vocab_size": 2**22, "hidden_size": 2**16, "num_hidden_layers": 8}
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError) as caught:
        load_bundle(tmp_path / "b")
    assert caught.value.code == "weights_mismatch"


def test_a_config_json_that_changed_after_training_changes_nothing(saved, tmp_path):
    """The architecture is the bundle's; only the weights are found again."""
    root = tmp_path / "towers"
    shutil.copytree(saved[0], root)
    model = stored((root, None), tmp_path / "b")
    edit_json(root / "resnet" / "config.json", hidden_act="gelu")
    with torch.inference_mode():
        found = load_bundle(tmp_path / "b").model(films(), TEXTS[:2]).logits_B1HW
        assert torch.allclose(found, model(films(), TEXTS[:2]).logits_B1HW, atol=1e-5)


def test_merging_a_model_changes_no_answer(saved):
    model = network(saved, train="lora").eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                parameter.normal_(0, 0.1)
    with torch.inference_mode():
        before = model(films(), TEXTS[:2]).logits_B1HW
    merge(model)
    with torch.inference_mode():
        assert torch.allclose(model(films(), TEXTS[:2]).logits_B1HW, before, atol=1e-6)


# ---- a whole run


@pytest.mark.parametrize("train", ["frozen", "lora", "full"])
def test_train_bundle_segment_and_fine_tune_on_phantoms(saved, tmp_path, train):
    from reportseg import Segmenter
    from reportseg import train as run_training
    from reportseg.config import parse_config
    from reportseg.data.synthetic import synthesise

    data = tmp_path / "data"
    synthesise(data, 24, seed=0, size=48)
    values = {
        "name": "towers",
        "model": section(saved, text="bert" if train == "lora" else "clip", train=train, date={"knowledge": True}),
        "data": {"manifest": str(data), "size_px": 32},
        "train": {"images": 32, "batch": 8, "precision": "fp32"},
    }
    run = run_training(parse_config(values, "towers"), out=tmp_path / "run")
    segmenter = Segmenter.from_pretrained(run / "bundle", device="cpu")
    image = next((data / "images").glob("*.png"))
    answer = segmenter.segment(image, "lower left lung.")
    assert answer.mask_HW.shape == answer.probability_HW.shape and answer.probability_HW.any()
    base = segmenter.bundles[0].config.base
    assert base.vision.sha256 and base.cnn.sha256 and (base.vision.sha256 == base.text.sha256) == (train != "lora")
    values["train"]["init"] = str(run / "bundle")
    again = run_training(parse_config(values, "towers"), out=tmp_path / "again")
    assert load_bundle(again / "bundle").config.parent == segmenter.sha256


def test_a_resume_on_another_tower_is_refused_and_on_the_same_gives_the_same_bytes(saved, tmp_path):
    from reportseg import train as run_training
    from reportseg.config import parse_config
    from reportseg.data.synthetic import synthesise

    root = tmp_path / "towers"
    shutil.copytree(saved[0], root)
    synthesise(tmp_path / "data", 24, seed=0, size=48)
    values = {
        "name": "towers",
        "model": section((root, None), cnn=None),
        "data": {"manifest": str(tmp_path / "data"), "size_px": 32},
        "train": {"images": 48, "batch": 8, "precision": "fp32", "checkpoint_minutes": 1e-6},
    }
    config = parse_config(values, "towers")
    whole = run_training(config, out=tmp_path / "whole")

    class Killed(Exception):
        pass

    def kill(facts):
        if facts.get("images", 0) >= 24:
            raise Killed

    with pytest.raises(Killed):
        run_training(config, out=tmp_path / "run", progress=kill)
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    resumed = run_training(config, out=tmp_path / "run", resume=True)
    weights = [(run / "bundle" / "model.safetensors").read_bytes() for run in (whole, resumed)]
    assert weights[0] == weights[1]
    edit_weights(root / "clip", lambda t: {k: v + 1e-3 if v.is_floating_point() else v for k, v in t.items()})
    with pytest.raises(InputError, match="not the one that the run began with"):
        run_training(config, out=tmp_path / "other", resume=True)


def test_transformers_is_imported_only_where_a_tower_is_built():
    code = "import sys, reportseg.models, reportseg.train, reportseg.segmenter; assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
