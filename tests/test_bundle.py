"""A bundle read back is the bundle that was written, and its card tells the truth about it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil

import pytest
import torch

from reportseg import bundle
from reportseg.bundle import load_bundle, save_bundle
from reportseg.errors import InputError
from reportseg.knowledge.bank import load_bank
from reportseg.models import build
from reportseg.models.encoders import train_tokenizer
from reportseg.schemas.training import TrainingFile
from reportseg.types import INTENDED_USE

SENTENCES = ["Unilateral pulmonary infection, one infected area, upper left lung.", "Bilateral infection, lower right lung."]
TGCNET = {"name": "tgcnet", "preset": "tiny"}
UNET = {"name": "unet", "width": 4}


def fields(**changes):
    base = {
        "preprocess": {"size_px": 64},
        "text": {"laterality": "image"},
        "decision": {"rule": "fixed", "threshold": 0.42, "temperature": 1.3},
        "trained_on": [{"name": "phantoms", "licence": "CC0-1.0", "split_sha256": "a" * 64}],
        "licence": "Apache-2.0",
    }
    return base | changes


def training(**changes):
    return TrainingFile(
        images=640, steps=20, seconds=90.0, seed=7, dev={"dice_mean": 0.8125}, curves={"loss": [(0, 1.5), (640, 0.5)]}, **changes
    )


def write(path, section=TGCNET, config=None, **changes):
    torch.manual_seed(0)
    text = section["name"] == "tgcnet"
    tokenizer, bank = (train_tokenizer(SENTENCES), load_bank("chest")) if text else (None, None)
    model = build(section, tokenizer, bank)
    save_bundle(path, model, section, tokenizer, bank, fields(**changes), training(config=config or {}), ["lung", "left", "lung"])
    return model


@pytest.mark.parametrize("section", [TGCNET, UNET], ids=["tgcnet", "unet"])
def test_read_back_gives_the_same_logits_up_to_fp16(tmp_path, section):
    model = write(tmp_path / "b", section).eval()
    loaded = load_bundle(tmp_path / "b")
    assert not loaded.model.training and {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    for name, value in model.state_dict().items():
        stored = loaded.model.state_dict()[name]
        assert torch.equal(stored, value.half().to(value.dtype) if value.is_floating_point() else value)
    image = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        a, b = (m(image, [SENTENCES[0]]).logits_B1HW for m in (model, loaded.model))
    assert torch.allclose(a, b, atol=0.05)
    assert loaded.words == {"lung", "left"} and loaded.decision.threshold == 0.42
    assert (loaded.bank is None) == (section is UNET)


def test_the_hash_is_that_of_config_json_and_ignores_card_licence_and_engines(tmp_path):
    write(tmp_path / "b", UNET)
    sha = load_bundle(tmp_path / "b").sha256
    assert sha == hashlib.sha256((tmp_path / "b" / "config.json").read_bytes()).hexdigest()
    (tmp_path / "b" / "README.md").write_text("other words")
    (tmp_path / "b" / "LICENSE").write_text("a licence")
    (tmp_path / "b" / "engines").mkdir()
    (tmp_path / "b" / "engines" / "model.onnx").write_bytes(b"x")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))  # the same facts, another layout
    assert load_bundle(tmp_path / "b").sha256 == sha


def test_two_bundles_of_the_same_weights_are_the_same_and_of_another_cut_are_not(tmp_path):
    write(tmp_path / "a", UNET)
    write(tmp_path / "b", UNET)
    write(tmp_path / "c", UNET, decision={"rule": "fixed", "threshold": 0.43, "temperature": 1.3})
    a, b, c = (load_bundle(tmp_path / name).sha256 for name in "abc")
    assert a == b != c


def test_saving_over_a_bundle_replaces_it_and_over_anything_else_is_refused(tmp_path):
    write(tmp_path / "b", UNET)
    write(tmp_path / "b", UNET, licence="CC-BY-4.0")
    assert load_bundle(tmp_path / "b").config.licence == "CC-BY-4.0"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.doc").write_text("years of work")
    with pytest.raises(InputError, match="no bundle"):
        write(tmp_path / "home", UNET)
    assert (tmp_path / "home" / "thesis.doc").exists()


@pytest.mark.parametrize("failing", [1, 2])
def test_a_save_that_fails_leaves_the_old_bundle(tmp_path, monkeypatch, failing):
    write(tmp_path / "b", UNET)
    before = load_bundle(tmp_path / "b").sha256
    real, calls = os.replace, []

    def replace(a, b):
        calls.append(a)
        if len(calls) == failing:
            raise OSError("no space left")
        real(a, b)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path / "b", UNET, licence="CC-BY-4.0")
    assert load_bundle(tmp_path / "b").sha256 == before
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_weights_that_are_not_finite_are_not_saved_and_large_ones_keep_their_value(tmp_path):
    model = build(UNET)
    with torch.no_grad():
        model.head.bias.fill_(1e6)  # beyond fp16
    save_bundle(tmp_path / "b", model, UNET, None, None, fields(), training(), [])
    assert load_bundle(tmp_path / "b").model.head.bias.item() == 1e6
    with torch.no_grad():
        model.head.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"not finite: head\.bias"):
        save_bundle(tmp_path / "c", model, UNET, None, None, fields(), training(), [])
    assert not (tmp_path / "c").exists()


def test_the_card_states_use_sources_side_decision_figures_and_limits(tmp_path):
    write(tmp_path / "b")
    text = (tmp_path / "b" / "README.md").read_text()
    sha = load_bundle(tmp_path / "b").sha256
    for expected in (
        INTENDED_USE,
        sha,
        "phantoms, licence: CC0-1.0",
        "left side of the image",
        "p >= 0.42",
        "logit / 1.3",
        "| dice_mean | 0.8125 |",
    ):
        assert expected in text
    assert "Apache-2.0" in text and "never for parameter efficiency" in text and "reportseg predict" in text
    assert re.search(r"^## Limits$", text, re.MULTILINE)


@pytest.mark.parametrize(("section", "text"), [(UNET, "as_written"), (TGCNET, "constant")], ids=["unet", "twin"])
def test_the_card_of_a_model_that_reads_no_text_promises_none(tmp_path, section, text):
    write(tmp_path / "b", section, config={"data": {"text": text}})
    said = (tmp_path / "b" / "README.md").read_text()
    assert "a mask for a film" in said and "No text is read" in said and '--text ""' in said
    for false in ("a mask for a sentence", "tokens", "out_of_vocabulary", "left side of the image", "a sentence describes"):
        assert false not in said
    assert load_bundle(tmp_path / "b").config.text.max_tokens is None


def test_what_config_json_says_of_the_model_is_what_it_does(tmp_path):
    """Another program that prepares films by config.json must get the same answer."""
    for name, section in (("tgcnet", TGCNET), ("unet", UNET)):
        model = write(tmp_path / name, section)
        file = tmp_path / name / "config.json"
        config = json.loads(file.read_text())
        assert config["preprocess"]["mean"] == pytest.approx(model.mean.flatten().tolist(), abs=1e-6)
        assert config["preprocess"]["std"] == pytest.approx(model.std.flatten().tolist(), abs=1e-6)
        assert config["text"]["max_tokens"] == (77 if section is TGCNET else None)
        for part, key, value in (
            ("preprocess", "mean", [0.5] * 3),
            ("preprocess", "std", [0.229, 0.224, 0.2251]),
            ("text", "max_tokens", 76),
        ):
            file.write_text(json.dumps(config | {part: config[part] | {key: value}}))
            if key == "max_tokens" and section is UNET:  # as bundles of it were first written
                assert load_bundle(tmp_path / name).config.text.max_tokens == 76
                continue
            with pytest.raises(InputError, match=rf"{part}\.{key} is") as caught:
                load_bundle(tmp_path / name)
            assert caught.value.code == "bad_field" and caught.value.where == str(file)


def test_a_snapshot_of_links_is_read_like_any_folder(tmp_path):
    """The hub's cache keeps files as links into a store."""
    write(tmp_path / "b", UNET)
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "b").iterdir():
        (tmp_path / "snapshot" / file.name).symlink_to(file)
    assert load_bundle(tmp_path / "snapshot").sha256 == load_bundle(tmp_path / "b").sha256


def test_a_reference_is_a_folder_then_a_shipped_name_then_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}

    def snapshot_download(repo, revision, allow_patterns):
        asked.update(repo=repo, revision=revision, patterns=allow_patterns)
        return str(tmp_path / "b")

    write(tmp_path / "b", UNET)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert bundle.resolve("hf:lab/model", "v2") == tmp_path / "b"
    assert asked["repo"] == "lab/model" and asked["revision"] == "v2" and not any("*" in p for p in asked["patterns"] if "safetensors" in p)
    for name in bundle.shipped():
        assert (bundle.resolve(name) / "config.json").is_file()
    monkeypatch.chdir(tmp_path)
    shutil.copytree("b", "demo")
    assert bundle.resolve("demo").resolve() == (tmp_path / "demo").resolve()  # a folder of the user's goes before a shipped name


@pytest.mark.parametrize("ref", ["", "no-such-bundle", "hf:", "hf:lab", "hf:../etc/passwd", "a\0b"])
def test_a_reference_that_leads_nowhere_says_what_there_is(ref):
    with pytest.raises(InputError, match="hf:owner/name") as caught:
        bundle.resolve(ref)
    assert caught.value.code == "no_bundle"


def test_offline_the_hub_is_an_input_error(monkeypatch):
    import huggingface_hub

    def unreachable(*args, **kwargs):
        raise ConnectionError("Network is unreachable")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(InputError, match="download the folder by hand") as caught:
        bundle.resolve("hf:lab/model")
    assert caught.value.code == "hub" and os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"
    with pytest.raises(InputError, match="only known on the hub"):
        bundle.resolve("demo", revision="main")
