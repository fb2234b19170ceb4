"""A bundle from a stranger: whatever is in the folder, the answer is an InputError that names the file and the way out."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct

import pytest
import torch
from safetensors.torch import load_file, save, save_file

from reportseg.bundle import load_bundle, save_bundle
from reportseg.errors import InputError
from reportseg.models import build
from reportseg.models.encoders import train_tokenizer
from reportseg.schemas.training import TrainingFile

UNET = {"name": "unet", "width": 4}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    config = {
        "preprocess": {"size_px": 32},
        "text": {"laterality": "none"},
        "decision": {"rule": "fixed", "threshold": 0.5, "temperature": 1.0},
        "licence": "Apache-2.0",
    }
    return save_bundle(tmp_path / "b", build(UNET), UNET, None, None, config, TrainingFile(images=0, steps=0, seconds=0.0), ["lung"])


def relist(folder, **changes):
    """What a forger would do: sign every file as it now is."""
    config = json.loads((folder / "config.json").read_text())
    config["files"] = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in config["files"] if (folder / name).is_file()
    }
    (folder / "config.json").write_text(json.dumps(config | changes))


def refused(folder, name, code):
    with pytest.raises(InputError) as caught:
        load_bundle(folder)
    assert caught.value.code == code, str(caught.value)
    assert name in str(caught.value) and caught.value.fix
    return str(caught.value)


def test_the_bundle_of_this_file_loads(folder):
    assert load_bundle(folder).config.model_type == "unet"


class Bomb:
    def __reduce__(self):
        return os.abort, ()


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("zipped", [False, True])
def test_pickle_under_the_name_of_safetensors(folder, signed, zipped):
    path = folder / "model.safetensors"
    if zipped:
        torch.save({"w": torch.zeros(1)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb()))
    if signed:
        relist(folder)
    assert "pickle" in refused(folder, "model.safetensors", "pickle")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "last.ckpt", "x.pkl"])
def test_pickle_beside_the_weights_and_in_their_place(folder, name):
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    refused(folder, name, "pickle")
    with pytest.raises(InputError, match="never read"):
        load_bundle(folder / name)


def test_offsets_that_lie(folder):
    """The header promises tensors outside the file, that overlap, or of another size than their shape."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header, body = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    names = [n for n in header if n != "__metadata__"]
    lies = [
        {names[0]: header[names[0]] | {"data_offsets": [len(body), 10 * len(body)]}},
        {names[0]: header[names[1]]},
        {names[0]: header[names[0]] | {"shape": [2**40]}},
        {names[0]: header[names[0]] | {"data_offsets": [4, 0]}},
    ]
    for lie in lies:
        text = json.dumps(header | lie).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + body)
        relist(folder)
        refused(folder, "model.safetensors", "bad_weights")
    for claimed in (0, 2**63, len(whole) * 2):
        path.write_bytes(struct.pack("<Q", claimed) + whole[8:])
        relist(folder)
        refused(folder, "model.safetensors", "bad_weights")


@pytest.mark.parametrize("tenth", range(10))
def test_weights_cut_at_every_tenth(folder, tenth):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * tenth // 10])
    refused(folder, "model.safetensors", "sha256" if tenth else "empty_file")
    relist(folder)
    refused(folder, "model.safetensors", "bad_weights" if tenth else "empty_file")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(folder, value):
    tensors = load_file(folder / "model.safetensors")
    tensors["head.bias"] = torch.full_like(tensors["head.bias"], value)
    save_file(tensors, folder / "model.safetensors")
    relist(folder)
    assert "head.bias" in refused(folder, "model.safetensors", "not_finite")


def test_keys_are_strict_and_named(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["extra.weight"] = tensors.pop("head.bias")
    tensors["head.weight"] = torch.zeros(3, 3)
    save_file(tensors, folder / "model.safetensors")
    relist(folder)
    message = refused(folder, "model.safetensors", "weights_mismatch")
    assert "1 missing: head.bias" in message and "1 unexpected: extra.weight" in message and "head.weight is (3, 3)" in message


def test_a_header_whose_length_begins_like_a_pickle_is_no_pickle(folder):
    """safetensors begins with the header's length, and in one of 32 files that begins with the first byte of a pickle."""
    tensors, path = load_file(folder / "model.safetensors"), folder / "model.safetensors"
    for padding in range(0, 256, 8):
        save_file(tensors, path, metadata={"padding": "x" * padding})
        if path.read_bytes()[:1] == b"\x80":
            break
    assert path.read_bytes()[:1] == b"\x80"
    relist(folder)
    assert load_bundle(folder).config.model_type == "unet"


def test_a_config_that_asks_for_a_giant_takes_no_memory(folder):
    """A U-Net of width 256 has half a billion weights; the header of the file does not hold them, so they are never allocated."""
    relist(folder, model=UNET | {"width": 256})
    refused(folder, "model.safetensors", "weights_mismatch")


def test_extra_huge_or_unknown_files(folder):
    (folder / "notes.txt").write_text("hello")
    refused(folder, "notes.txt", "unexpected_file")
    (folder / "notes.txt").unlink()
    with (folder / "vocabulary.json").open("r+b") as file:
        file.truncate(2**30)  # sparse: a gigabyte that costs nothing
    refused(folder, "vocabulary.json", "too_large_file")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "engines/x.onnx", "config.json", "a\u0000b"])
def test_a_file_list_that_leads_out_of_the_folder(folder, name):
    config = json.loads((folder / "config.json").read_text())
    config["files"][name] = "0" * 64
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "config.json", "unsafe_path")


@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json", "training.json"])
def test_a_listed_file_that_is_missing_or_altered(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-2] ^= 1
    (folder / name).write_bytes(data)
    refused(folder, name, "sha256")
    (folder / name).unlink()
    refused(folder, name, "missing")
    relist(folder)
    refused(folder, name, "missing")


def test_configs_that_are_none(folder):
    path = folder / "config.json"
    good = json.loads(path.read_text())
    path.write_text(json.dumps(good | {"version": 7}))
    assert "reportseg>=0.7" in refused(folder, "config.json", "newer_version")
    path.write_text(json.dumps(good | {"format": "pt"}))
    refused(folder, "config.json", "no_bundle")
    path.write_text(json.dumps(good | {"colour": "red"}))
    assert "colour" in refused(folder, "config.json", "bad_field")
    for version in ("7", 7.0, True, None):  # each of them reads as a number somewhere
        path.write_text(json.dumps(good | {"version": version}))
        refused(folder, "config.json", "bad_field")
    path.write_text(json.dumps(good | {"preprocess": good["preprocess"] | {"size_px": 10**9}}))
    assert "size_px" in refused(folder, "config.json", "bad_field")
    path.write_text(json.dumps(good | {"model_type": "tgcnet"}))
    assert "unet" in refused(folder, "config.json", "bad_field")
    path.write_text(json.dumps(good | {"model_type": "resnet", "model": {"name": "resnet"}}))
    refused(folder, "config.json", "config")
    path.write_text("[" * 100_000)
    refused(folder, "config.json", "too_deep")
    path.write_text("{")
    refused(folder, "config.json", "bad_json")
    path.unlink()
    refused(folder, "", "no_bundle")


def _past_the_table(tokenizer):
    tokenizer["model"]["vocab"] = {piece: i + 10_000 for piece, i in tokenizer["model"]["vocab"].items()}


def _one_piece_more(tokenizer):
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": len(tokenizer["model"]["vocab"]), "content": "<evil>"})


def _frame_past_the_table(tokenizer):
    tokenizer["post_processor"]["special_tokens"]["<eos>"]["ids"] = [10_000]


def _no_frame(tokenizer):
    tokenizer["post_processor"] = None


def _no_pieces(tokenizer):
    tokenizer["model"] = {"vocab": {"a": 0}}


def _backtracks(tokenizer):
    pattern = {"Regex": "^(([a-z ])+.)+[A-Z]([a-z])+$"}
    own, split = tokenizer["pre_tokenizer"], {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, own]}


def _grows(tokenizer):
    grow = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 50}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [grow] * 4}


def _unknown_is_unknown(tokenizer):
    tokenizer["model"] = {"type": "WordLevel", "vocab": tokenizer["model"]["vocab"], "unk_token": "[NOPE]"}


@pytest.mark.parametrize(
    ("harm", "code"),
    [
        (_no_pieces, "bad_tower"),
        (_past_the_table, "bad_model"),
        (_one_piece_more, "bad_model"),
        (_frame_past_the_table, "bad_model"),
        (_no_frame, "bad_model"),
        (_backtracks, "bad_tower"),
        (_grows, "bad_tower"),
        (_unknown_is_unknown, "bad_tower"),
    ],
)
def test_a_tokenizer_that_no_model_can_use(folder, harm, code):
    """Refused when the bundle is read: an id past the embedding's table would only show at some film."""
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads(train_tokenizer(["left lung"]))
    harm(tokenizer)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    config |= {"model_type": "tgcnet", "model": {"name": "tgcnet", "preset": "tiny"}, "files": config["files"] | {"tokenizer.json": ""}}
    (folder / "config.json").write_text(json.dumps(config))
    relist(folder)
    refused(folder, "config.json", code)
    (folder / "tokenizer.json").write_bytes(b"\xff")
    relist(folder)
    refused(folder, "tokenizer.json", "encoding")


def test_a_vocabulary_that_is_no_list_of_words(folder):
    (folder / "vocabulary.json").write_text('{"lung": 1}')
    relist(folder)
    refused(folder, "vocabulary.json", "bad_field")


def test_an_empty_weights_file_in_good_form(folder):
    (folder / "model.safetensors").write_bytes(save({}))
    relist(folder)
    refused(folder, "model.safetensors", "weights_mismatch")
