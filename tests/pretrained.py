"""Pretrained towers as transformers saves them, of tiny widths and random weights."""

from __future__ import annotations

import hashlib
import json
import os
import string
from pathlib import Path

import torch

CLIP_VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
CLIP_TEXT = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 40}
BERT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 48}
JOINT = 8
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def shake(model, seed=0):
    """Weights far from their start, so that a norm left out or a bias lost is seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                noise = torch.randn(value.shape, generator=generator) * 0.3
                value.add_(noise.abs() if name.endswith("running_var") else noise)
    return model.eval()


def save_clip(folder: Path, seed=0, statistics=None, **vision):
    """A whole CLIP with its tokenizer. Returns it in eval mode."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    pieces = ["<|startoftext|>", *string.ascii_lowercase, *".,;-", *string.digits]
    vocabulary = {
        piece: i for i, piece in enumerate([*pieces, *(f"{p}</w>" for p in pieces[1:]), "lu", "lung</w>", "ng</w>", "<|endoftext|>"])
    }
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[("l", "u"), ("n", "g</w>"), ("lu", "ng</w>")])
    text = CLIP_TEXT | {"vocab_size": len(vocabulary), "bos_token_id": 0, "eos_token_id": vocabulary["<|endoftext|>"]}
    model = shake(CLIPModel(CLIPConfig(vision_config=CLIP_VISION | vision, text_config=text, projection_dim=JOINT)), seed)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if statistics:
        (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    return model


def save_bert(folder: Path, seed=0):
    """A BERT whose only tokenizer file is vocab.txt, as older ones have it."""
    from transformers import BertConfig, BertModel

    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "lung",
        *string.ascii_lowercase,
        *(f"##{c}" for c in string.ascii_lowercase),
        *".,",
    ]
    model = shake(BertModel(BertConfig(vocab_size=len(pieces), **BERT)), seed)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return model


def save_resnet(folder: Path, seed=0, **sizes):
    from transformers import ResNetConfig, ResNetForImageClassification

    config = {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 1], "layer_type": "basic"} | sizes
    model = shake(ResNetForImageClassification(ResNetConfig(**config)), seed)
    model.save_pretrained(folder)
    return model.resnet


def save_convnext(folder: Path, seed=0):
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 2, 1], drop_path_rate=0.5)
    model = shake(ConvNextForImageClassification(config), seed)
    model.save_pretrained(folder)
    return model.convnext


def edit_json(file: Path, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_weights(folder: Path, change):
    """Rewrite model.safetensors by `change(dict of tensors)`."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({key: value.contiguous() for key, value in change(tensors).items()}, folder / "model.safetensors")


def lay_out_cache(root, source, name="lab/tiny-clip", commit=COMMIT, ref="main"):
    """A hub cache as huggingface_hub keeps it: blobs, refs and snapshots of links."""
    repository = root / f"models--{name.replace('/', '--')}"
    (repository / "blobs").mkdir(parents=True, exist_ok=True)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / ref).write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for file in source.iterdir():
        blob = repository / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot
