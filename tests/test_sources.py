"""Where pretrained towers come from: folders and the hub's cache on disk, and everything that may be wrong with them."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pretrained import COMMIT, edit_json, edit_weights, lay_out_cache, save_bert, save_clip
from reportseg.errors import InputError
from reportseg.models.sources import find


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("towers") / "clip"
    save_clip(folder, statistics={"image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]})
    return folder


@pytest.fixture
def made(tmp_path):
    """A folder with one linear map, quick to spoil."""
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "clip"}')
    torch.manual_seed(0)
    save_file({f"x.{k}": v for k, v in nn.Linear(3, 2).state_dict().items()} | {"head": torch.zeros(1)}, folder / "model.safetensors")
    return folder


def rename(key):
    return None if key == "head" else key.removeprefix("x.")


def code(call, *args):
    with pytest.raises(InputError) as caught:
        call(*args)
    return caught.value.code, str(caught.value)


# ---- finding


def test_a_folder_is_a_source_and_its_hash_is_that_of_its_weights(clip):
    source = find(str(clip))
    assert (source.id, source.revision, source.config["model_type"]) == (str(clip), None, "clip")
    assert source.sha256 == hashlib.sha256((clip / "model.safetensors").read_bytes()).hexdigest()


def test_weights_in_several_files_have_one_hash_and_are_read_together(made):
    whole = load_file(made / "model.safetensors")
    (made / "model.safetensors").unlink()
    for i, key in enumerate(sorted(whole), start=1):
        save_file({key: whole[key]}, made / f"model-{i:05d}-of-{len(whole):05d}.safetensors")
    source, module = find(str(made)), nn.Linear(3, 2)
    source.fill(module, rename)
    assert torch.equal(module.weight, whole["x.weight"]) and torch.equal(module.bias, whole["x.bias"])
    first, lines = source.sha256, [f"{f.name}\t{hashlib.sha256(f.read_bytes()).hexdigest()}" for f in sorted(made.glob("*.safetensors"))]
    assert first == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_a_changed_file_has_another_hash(made):
    before = find(str(made)).sha256
    edit_weights(made, lambda tensors: tensors | {"head": torch.ones(1)})
    os.utime(made / "model.safetensors", ns=(1, 1))
    assert find(str(made)).sha256 != before


def test_a_hub_cache_on_disk_is_found_offline_and_the_revision_is_honoured(tmp_path, clip, made, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    lay_out_cache(tmp_path, clip)
    lay_out_cache(tmp_path, made, commit="f" * 40, ref="v2")
    source = find("lab/tiny-clip")
    assert (source.id, source.revision) == ("lab/tiny-clip", COMMIT)
    assert source.sha256 == find(str(clip)).sha256 and source.tokenizer_json() == find(str(clip)).tokenizer_json()
    for revision in ("v2", "f" * 40):
        other = find("lab/tiny-clip", revision)
        assert other.revision == "f" * 40 and other.sha256 == find(str(made)).sha256
    said = code(find, "lab/tiny-clip", "v3")
    assert said[0] == "hub" and "at 'v3'" in said[1] and "hf download lab/tiny-clip" in said[1]
    assert code(find, "lab/no-such")[0] == "hub"
    assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == "1"


@pytest.mark.parametrize("name", ["no-such-folder", "../x/y", "a\0b", "lab/model/extra", "~nobody/x/y", "/no/such/clip"])
def test_a_name_that_is_neither_a_folder_nor_an_id_says_what_to_give(name):
    assert code(find, name)[0] == "no_tower"


def test_a_folder_has_no_revision(made):
    assert code(find, str(made), "main")[0] == "revision"


# ---- what may be missing or wrong


def test_missing_files_are_named(made):
    (made / "model.safetensors").unlink()
    said = code(find, str(made))
    assert said[0] == "missing" and "no model.safetensors" in said[1]
    (made / "config.json").unlink()
    assert code(find, str(made)) == ("missing", code(find, str(made))[1])
    assert "no config.json" in code(find, str(made))[1]


@pytest.mark.slow
def test_pickle_is_refused_with_the_command_that_converts_it_and_the_command_works(made):
    weights = load_file(made / "model.safetensors")
    (made / "model.safetensors").unlink()
    torch.save({**weights, "tied": weights["x.weight"]}, made / "pytorch_model.bin")
    kind, said = code(find, str(made))
    assert kind == "pickle" and "never read" in said
    command = shlex.split(said[said.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], cwd=made, check=True, timeout=300)
    assert torch.equal(load_file(made / "model.safetensors")["tied"], weights["x.weight"])
    assert find(str(made)).sha256


def test_pickle_alone_is_refused(made):
    (made / "model.safetensors").rename(made / "pytorch_model.bin")
    kind, said = code(find, str(made))
    assert kind == "pickle" and "weights_only=True" in said


@pytest.mark.parametrize("name", ["$(touch pwned).bin", "'); import os; ('.pt", "optimizer.pt", "pytorch_model-$(id)-of-00002.bin"])
def test_no_name_of_a_strangers_file_stands_in_the_advice(made, name):
    (made / "model.safetensors").rename(made / name)
    kind, said = code(find, str(made))
    assert kind == "missing" and name not in said  # an optimizer's state is no model


@pytest.mark.slow
def test_the_command_converts_every_shard(made):
    weights = load_file(made / "model.safetensors")
    (made / "model.safetensors").unlink()
    for number, (key, value) in enumerate(weights.items(), 1):
        torch.save({key: value}, made / f"pytorch_model-{number:05}-of-{len(weights):05}.bin")
    torch.save({"state": value}, made / "optimizer.pt")
    kind, said = code(find, str(made))
    assert kind == "pickle"
    command = shlex.split(said[said.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], cwd=made, check=True, timeout=300)
    files = find(str(made)).weights
    assert len(files) == len(weights) and {key for file in files for key in load_file(file)} == set(weights)


@pytest.mark.parametrize("text", ["[1]", "{", "[" * 10_000 + "]" * 10_000, '"x"'])
def test_a_config_that_is_no_map_is_refused(made, text):
    (made / "config.json").write_text(text)
    assert code(find, str(made))[0] in {"bad_tower", "bad_json", "too_deep"}


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", b"PK\x03\x04", b"\xff" * 64, b'\x08\0\0\0\0\0\0\0{"a":1}x'])
def test_weights_that_are_no_safetensors_are_refused(made, content):
    (made / "model.safetensors").write_bytes(content)
    assert code(find(str(made)).fill, nn.Linear(3, 2), rename)[0] == "bad_weights"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: {k: v for k, v in t.items() if k != "x.bias"}, "bias is missing"),
        (lambda t: t | {"x.more": torch.zeros(2)}, "x.more has no place"),
        (lambda t: t | {"x.bias": torch.zeros(3)}, "x.bias has another shape"),
    ],
)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_weights_must_be_those_of_the_architecture_and_no_others(made, change, said, device):
    """On the meta device the header alone decides, before anything takes memory."""
    edit_weights(made, change)
    with torch.device(device):
        module = nn.Linear(3, 2)
        kind, message = code(find(str(made)).fill, module, rename)
    assert kind == "weights_mismatch" and said in message


def test_weights_that_are_not_finite_are_refused(made):
    edit_weights(made, lambda t: t | {"x.bias": torch.tensor([0.0, float("nan")])})
    assert code(find(str(made)).fill, nn.Linear(3, 2), rename)[0] == "not_finite"


def test_half_precision_weights_are_read_as_fp32(made):
    edit_weights(made, lambda t: {k: v.half() for k, v in t.items()})
    module = nn.Linear(3, 2)
    find(str(made)).fill(module, rename)
    assert module.weight.dtype == torch.float32


@pytest.mark.parametrize("mean", [[0.5], "x", [0.1, 0.2, "a"], [1, 2, None]])
def test_image_statistics_are_three_numbers(made, mean):
    (made / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": [1, 1, 1]}))
    assert code(find(str(made)).statistics)[0] == "bad_tower"
    (made / "preprocessor_config.json").write_text(json.dumps({"image_std": [1, 0, 1]}))
    assert code(find(str(made)).statistics)[0] == "bad_tower"


# ---- tokenizers


def ids(tokenizer_json, text):
    from tokenizers import Tokenizer

    return Tokenizer.from_str(tokenizer_json).encode(text).ids


def test_clips_own_tokenizer_is_taken_without_truncation_or_padding(clip):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(clip)
    text = "upper left lung, and lower right lung."
    assert ids(find(str(clip)).tokenizer_json(), text) == tokenizer(text)["input_ids"]
    stored = json.loads(find(str(clip)).tokenizer_json())
    assert stored["truncation"] is None and stored["padding"] is None


@pytest.mark.parametrize("lower", [True, False])
def test_a_bert_with_a_vocabulary_alone_gets_wordpiece_over_it(tmp_path, lower):
    from transformers import BertTokenizer

    save_bert(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lower}))
    found = find(str(tmp_path)).tokenizer_json()
    for text in ("upper left lung , x-ray .", "lung"):
        assert ids(found, text) == BertTokenizer.from_pretrained(tmp_path)(text)["input_ids"]
    assert len(ids(found, "")) == 2
    assert (ids(found, "Lung") == ids(found, "lung")) == lower


def test_a_tokenizer_that_is_missing_or_broken_is_told(made):
    said = code(find(str(made)).tokenizer_json)
    assert said[0] == "missing" and "AutoTokenizer" in said[1]
    (made / "tokenizer.json").write_text('{"model": 1}')
    assert code(find(str(made)).tokenizer_json)[0] == "bad_tower"


def test_code_that_comes_with_a_source_is_never_run(tmp_path, monkeypatch):
    """trust_remote_code would import the module that auto_map names; here config.json is data."""
    from reportseg.models.assembly import Tower, open_tower

    save_bert(tmp_path / "bert")
    (tmp_path / "bert" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Model: ...\nclass Config: ...\n")
    auto = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model", "AutoTokenizer": ["evil.Model", None]}
    edit_json(tmp_path / "bert" / "config.json", model_type="cxr-bert", auto_map=auto)
    (tmp_path / "bert" / "tokenizer_config.json").write_text(json.dumps({"auto_map": auto, "tokenizer_class": "evil.Model"}))
    tower, record = open_tower("text", Tower(source=str(tmp_path / "bert"), train="frozen"), None, None)
    find(str(tmp_path / "bert")).tokenizer_json()
    assert not (tmp_path / "ran").exists() and "auto_map" not in record.config
    assert tower.width == 16
