"""The towers for training from random initialisation, and the tokenizer."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from reportseg.models.encoders import (
    BOS,
    EOS,
    PAD,
    VOCABULARY,
    ConvNeXtPyramid,
    ResidualCNN,
    SentenceTokenizer,
    TextTransformer,
    VisionTransformer,
    train_tokenizer,
)

SENTENCES = [
    "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung.",
    "Unilateral pulmonary infection, one infected area, middle left lung.",
]
JSON = train_tokenizer(SENTENCES)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# ---- images


@pytest.mark.parametrize("size", [(1, 1), (16, 48), (33, 50), (112, 112)])
def test_the_cnn_gives_maps_at_strides_2_to_32(size):
    maps = ResidualCNN((16, 24, 32, 48), depth=1, stem=16)(torch.rand(1, 3, *size))
    assert [m.shape[1] for m in maps] == [16, 16, 24, 32, 48]
    assert [tuple(m.shape[2:]) for m in maps] == [(-(-size[0] // s), -(-size[1] // s)) for s in (2, 4, 8, 16, 32)]


def test_the_cnn_at_the_published_size_is_a_resnet_18():
    with torch.device("meta"):
        cnn = ResidualCNN((64, 128, 256, 512), depth=2, stem=40)
    assert sum(p.numel() for p in cnn.parameters()) == pytest.approx(11.2e6, rel=0.01)  # 11.18 M without its classifier


def test_the_stages_of_the_convnext_are_those_of_transformers():
    from transformers import ConvNextConfig, ConvNextModel

    widths, depths = (8, 12, 16, 20), (1, 2, 1, 1)
    reference = ConvNextModel(ConvNextConfig(hidden_sizes=list(widths), depths=list(depths), layer_scale_init_value=0.5)).eval()
    ours = ConvNeXtPyramid(widths, depths, stem=8)
    names = {"dwconv": "depthwise", "layernorm": "norm", "pwconv1": "mlp.0", "pwconv2": "mlp.2"}
    for level, (stage, own) in enumerate(zip(reference.encoder.stages, ours.stages, strict=True)):
        state = {}
        for key, value in stage.state_dict().items():
            part, index, *rest = key.split(".")
            first = 0 if part == "downsampling_layer" or level == 0 else 2
            tail = ".".join(rest).replace("layer_scale_parameter", "scale")
            for theirs, mine in names.items() if part == "layers" else ():
                tail = tail.replace(f"{theirs}.", f"{mine}.")
            state[f"{first + int(index)}.{tail}"] = value
        own.load_state_dict(state, strict=True)
    x = expected = torch.randn(2, 8, 16, 24)
    for stage, own in zip(reference.encoder.stages, ours.stages, strict=True):
        x, expected = own(x), stage(expected)
        assert torch.allclose(x, expected, atol=1e-5)
    maps = ours(torch.rand(1, 3, 64, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 32, 16), (8, 16, 8), (12, 8, 4), (16, 4, 2), (20, 2, 1)]


@pytest.mark.parametrize("size", [(112, 112), (77, 33), (5, 64)])
def test_the_convnext_pads_only_maps_of_an_odd_side(size):
    pyramid = ConvNeXtPyramid((8, 12, 16, 20), (1, 1, 1, 1), stem=8).eval()
    maps = pyramid(torch.rand(1, 3, *size))
    assert [tuple(m.shape[2:]) for m in maps] == [(-(-size[0] // s), -(-size[1] // s)) for s in (2, 4, 8, 16, 32)]


class PlusOne(nn.Module):
    """A stand-in for a block: adds one, so that a state says how many blocks it has seen."""

    def forward(self, x):
        return x + 1

    def value_path(self, x):
        return x * 0 + 5


@pytest.mark.parametrize(("depth", "taps_at"), [(4, [1, 2, 3, 4]), (12, [3, 6, 9, 12]), (8, [2, 4, 6, 8])])
def test_the_vit_is_tapped_at_each_quarter_of_its_depth(depth, taps_at):
    vit = VisionTransformer(width=8, depth=depth, heads=2, patch=16, joint=6)
    vit.blocks = nn.ModuleList(PlusOne() for _ in range(depth))
    image = torch.rand(1, 3, 32, 48)
    start = vit.embed(image) + torch.nn.functional.interpolate(vit.position_1Chw, (2, 3), mode="bilinear", align_corners=False)
    taps, values = vit(image)
    assert [round((tap - start.flatten(2).transpose(1, 2)).mean().item()) for tap in taps] == taps_at
    expected = vit.projection(vit.post_norm(torch.full((1, 6, 8), 5.0)))  # the last block's value path, normed and projected
    assert torch.allclose(values, expected.transpose(1, 2).unflatten(2, (2, 3)))


def test_the_vits_patches_are_the_last_blocks_values_not_its_mixture():
    vit = VisionTransformer(width=8, depth=2, heads=2, patch=16, joint=6)
    seen = []
    vit.blocks[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    _, values = vit(torch.rand(1, 3, 32, 32))
    block = vit.blocks[-1]
    value = block.query_key_value(block.norm_attention(seen[0]))[..., -8:]
    assert torch.allclose(values.flatten(2).transpose(1, 2), vit.projection(vit.post_norm(block.attention_out(value))), atol=1e-6)


def test_a_vit_that_nothing_compares_with_text_has_no_projection():
    vit = VisionTransformer(width=8, depth=4, heads=2, patch=16, joint=None)
    assert not {"post_norm", "projection"} & dict(vit.named_children()).keys()
    taps, values = vit(torch.rand(2, 3, 32, 48))
    assert len(taps) == 4 and values.shape == (2, 0, 2, 3)


def test_at_14_patches_the_position_embedding_is_taken_as_it_is():
    vit = VisionTransformer(width=8, depth=1, heads=2, patch=16, joint=6)
    vit.blocks = nn.ModuleList([PlusOne()])
    nn.init.zeros_(vit.embed.weight)
    nn.init.zeros_(vit.embed.bias)
    taps, _ = vit(torch.rand(1, 3, 224, 224))
    assert torch.equal(taps[-1] - 1, (vit.position_1Chw.flatten(2).transpose(1, 2) + 1) - 1)


# ---- text


def tower(depth=2):
    return TextTransformer(vocabulary=300, width=16, depth=depth, heads=2, joint=8, max_tokens=12)


def test_a_sentence_vector_does_not_depend_on_the_padding_of_its_batch():
    text = tower()
    ids = torch.tensor([[1, 5, 9, 2, 0, 0], [1, 7, 8, 9, 5, 2]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6]).bool()
    batch = text(ids, mask)
    assert torch.allclose(batch[:1], text(ids[:1, :4], mask[:1, :4]), atol=1e-6)
    ids[0, 4:] = 77
    assert torch.allclose(text(ids, mask), batch, atol=1e-6)
    assert text(ids, mask).shape == (2, 8)


def test_the_sentence_vector_is_the_state_of_the_end_token():
    text = tower(depth=0)  # no block: the state is the embedding
    ids, mask = torch.tensor([[1, 5, 2, 0]]), torch.tensor([[True, True, True, False]])
    assert torch.allclose(text(ids, mask), text.projection(text.norm(text.embed.weight[2] + text.position_LC[2]))[None], atol=1e-6)


def test_the_tower_reads_both_ways_and_knows_the_order_of_words():
    text, mask = tower(), torch.ones(1, 5, dtype=torch.bool)
    states = []
    text.blocks[0].register_forward_hook(lambda *args: states.append(args[2]))
    one, other = (text(torch.tensor([row]), mask) for row in ([1, 5, 6, 7, 2], [1, 7, 6, 5, 2]))
    assert (one - other).abs().max() > 1e-4
    text(torch.tensor([[1, 5, 6, 9, 2]]), mask)
    assert not torch.allclose(states[0][0, 1], states[2][0, 1])  # word 1 has seen word 3


# ---- tokenizer


def test_the_vocabulary_is_at_most_2000_pieces_and_begins_with_the_marks():
    many = train_tokenizer(
        f"finding {a}{b} of zone {b}{a}" for a in "abcdefghijklmnopqrstuvwxyz" for b in "abcdefghijklmnopqrstuvwxyz0123456789"
    )
    for text in (JSON, many, train_tokenizer([])):
        vocabulary = json.loads(text)["model"]["vocab"]
        assert 256 + 3 <= len(vocabulary) <= VOCABULARY == 2000
        assert [vocabulary[mark] for mark in (PAD, BOS, EOS)] == [0, 1, 2]
    assert len(json.loads(many)["model"]["vocab"]) > len(json.loads(JSON)["model"]["vocab"])


def test_training_depends_on_the_set_of_normalised_sentences_alone():
    assert train_tokenizer(reversed([*SENTENCES, *SENTENCES])) == JSON
    assert train_tokenizer(text.upper() for text in SENTENCES) == JSON


def test_a_frequent_word_of_training_is_one_piece():
    ids = SentenceTokenizer(JSON, 77).ids("left lung")
    assert len(ids) == 4 and ids[0] == 1 and ids[-1] == 2


@given(st.text(max_size=60))
def test_no_character_is_unknown(text):
    from reportseg.text import normalise

    tokenizer = SentenceTokenizer(JSON, 77)
    ids = tokenizer.ids(text)
    assert ids[0] == 1 and ids[-1] == 2 and 0 not in ids
    assert tokenizer.tokenizer.decode(ids[1:-1]).strip() == normalise(text).strip()


def test_a_text_that_spells_a_mark_is_text():
    ids = SentenceTokenizer(JSON, 77).ids("left <eos> lung <pad> <bos>")
    assert (ids.count(0), ids.count(1), ids.count(2)) == (0, 1, 1)


def test_rows_are_padded_and_too_long_ones_keep_their_end_token():
    tokenizer = SentenceTokenizer(JSON, max_tokens=6)
    long = "upper left lung and lower right lung"
    ids, mask = tokenizer(["left", long, ""], CPU)
    assert ids.shape == mask.shape == (3, 6) and mask.sum(1).tolist() == [3, 6, 2]
    assert (ids[~mask] == 0).all() and [row[m][-1].item() for row, m in zip(ids, mask, strict=True)] == [2, 2, 2]
    assert ids[1, :5].tolist() == tokenizer.ids(long)[:5]
    assert tokenizer.too_long(long) and not tokenizer.too_long("left lung")


def test_a_long_text_is_cut_at_sentences_into_as_few_parts_as_fit():
    tokenizer = SentenceTokenizer(JSON, max_tokens=10)
    text = "Left lung. Right lung! Upper left lung?\n\nLower right lung; middle left lung."
    parts = tokenizer.chunks(text)
    assert 1 < len(parts) < 5 and all(map(tokenizer.fits, parts)) and not tokenizer.too_long(text)
    assert "".join(parts).replace(" ", "") == text.replace(" ", "").replace("\n", "")
    assert not any(tokenizer.fits(f"{a} {b.split('.')[0]}.") for a, b in zip(parts, parts[1:], strict=False) if "." in b[:-1])
    assert tokenizer.chunks("left lung") == ["left lung"] and tokenizer.chunks("") == [""]


def test_a_sentence_that_is_too_long_alone_is_a_part_of_its_own_and_is_said():
    tokenizer = SentenceTokenizer(JSON, max_tokens=10)
    long = "upper left lung and lower right lung and " * 3 + "no more."
    parts = tokenizer.chunks(f"Left lung. {long} Right lung.")
    assert parts == ["Left lung.", long, "Right lung."]
    assert tokenizer.too_long(f"Left lung. {long} Right lung.") and [tokenizer.fits(part) for part in parts] == [True, False, True]


def test_a_sentence_is_cut_into_pieces_once():
    tokenizer = SentenceTokenizer(JSON, 77)
    assert tokenizer.ids("left lung") is tokenizer.ids("left lung")
    tokenizer.known = dict.fromkeys(map(str, range(50_001)), [1, 2])  # a server that never stops does not grow for ever
    tokenizer.ids("right lung")
    assert len(tokenizer.known) == 1


# ---- tokens


def test_the_sentence_vector_is_the_end_token_among_the_tokens_whatever_pads_them():
    tower = TextTransformer(len(json.loads(JSON)["model"]["vocab"]), width=8, depth=2, heads=2, joint=6)
    ids, mask = SentenceTokenizer(JSON, 77)(SENTENCES, CPU)
    tokens, pooled = tower.tokens(ids, mask)
    assert tokens.shape == (*ids.shape, 6)
    assert torch.allclose(pooled, tower(ids, mask), atol=1e-6)
    last = mask.sum(1) - 1
    assert torch.equal(pooled, tokens[torch.arange(2), last])
    alone, _ = tower.tokens(ids[1:, : last[1] + 1], mask[1:, : last[1] + 1])
    assert torch.allclose(alone[0], tokens[1, : last[1] + 1], atol=1e-6)


@given(st.text(max_size=40))
def test_every_span_lies_in_the_text_and_spans_go_forward(text):
    tokenizer = SentenceTokenizer(JSON, 24)
    spans = tokenizer.spans(text)
    assert len(spans) == min(24, len(tokenizer.ids(text))) and spans[0] is None and spans[-1] is None
    found = [span for span in spans if span]
    assert all(0 <= a < b <= len(text) and text[a:b].strip() for a, b in found)
    assert found == sorted(found)


def test_spans_survive_what_normalising_does_to_a_text():
    text = "  Upper\u200b LEFT\tlung,(3.5 \u339d) \ufb01brosis"  # a zero-width space, one sign for mm, a ligature
    spans = SentenceTokenizer(JSON, 77).spans(text)
    covered = {i for span in spans if span for i in range(*span)}
    assert {i for i, c in enumerate(text) if c.isalnum()} <= covered
    assert not {0, 1} & {span[0] for span in spans if span}
