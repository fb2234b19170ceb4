"""Words: states of tokens, where each stands in the text, long texts in chunks, and a pretrained BERT in place of the small tower."""

from __future__ import annotations

import torch

from pretrained import save_bert
from reportseg.models.assembly import Tower, source_tokenizer
from reportseg.models.encoders import train_tokenizer
from reportseg.models.words import WORDS, Words

TEXT = "Bilateral pulmonary infection, two infected areas, upper left lung and lower right lung."


def small(texts=(TEXT,)):
    torch.manual_seed(0)
    return Words(WORDS["tiny"], Tower(), train_tokenizer(texts), None)


def test_every_token_says_where_it_stands_and_together_they_are_the_text():
    text = "Upper  LEFT lung,\tlower right ﬁeld."  # two spaces, a tab, a ligature that is two letters when normalised
    (spans,) = small([text])([text]).spans
    assert spans[0] is None and spans[-1] is None  # the marks of begin and end
    covered = {i for a, b in spans[1:-1] for i in range(a, b)}
    assert covered == {i for i, c in enumerate(text) if not c.isspace()}
    assert [TEXT[a:b] for a, b in small()([TEXT]).spans[0][1:-1]][:2] == ["Bilateral", "pulmonary"]


def test_word_order_changes_the_states():
    one, other = (small()([t]).tokens_BLD for t in ("upper left lower right", "upper right lower left"))
    assert one.shape == other.shape
    assert not torch.allclose(one.mean(1), other.mean(1), atol=1e-4)


def test_a_sentence_is_read_alike_beside_a_longer_one():
    words = small()
    alone, beside = words(["left lung"]), words(["left lung", TEXT])
    n = int(alone.mask_BL.sum())
    assert beside.mask_BL[0].sum() == n and torch.allclose(alone.tokens_BLD[0], beside.tokens_BLD[0, :n], atol=1e-6)
    assert not beside.tokens_BLD[0, n:].any()


def test_a_long_report_has_the_words_of_all_of_its_sentences():
    words = small()
    report = " ".join([TEXT] * 6)
    read = words([report])
    assert not words.too_long(report) and read.mask_BL.sum() > words.max_tokens
    first = words(words.tokenizer.chunks(report)[:1]).tokens_BLD
    assert torch.allclose(read.tokens_BLD[:, : first.shape[1]], first, atol=1e-6)
    ends = [span[1] for span in read.spans[0] if span]
    assert ends == sorted(ends) and ends[-1] == len(report)


def test_a_sentence_that_is_too_long_alone_loses_its_last_words_and_says_so():
    words = small()
    text = "left " * 200
    read = words([text])
    assert words.too_long(text) and read.mask_BL.sum() == len(read.spans[0]) == words.max_tokens
    assert read.spans[0][-1] is None and read.spans[0][-2][1] < len(text.strip())


def test_a_pretrained_bert_gives_the_states_of_transformers(tmp_path):
    save_bert(tmp_path / "bert")
    section = Tower(source=str(tmp_path / "bert"), train="frozen")
    words = Words(WORDS["tiny"], section, source_tokenizer(section), None)
    ids, mask = words.tokenizer(["lung a b", "lung"], torch.device("cpu"))
    expected = words.tower.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    read = words(["lung a b", "lung", "lung a b"])
    assert torch.allclose(read.tokens_BLD[0], expected[0], atol=1e-5)
    assert torch.equal(read.tokens_BLD[0], read.tokens_BLD[2]) and not read.tokens_BLD.requires_grad
    assert torch.allclose(read.tokens_BLD[1, :3], expected[1, :3], atol=1e-5) and not read.tokens_BLD[1, 3:].any()
    assert words.record.id == section.source and words.max_tokens == 48
    full = Words(WORDS["tiny"], section.model_copy(update={"train": "full"}), source_tokenizer(section), None)
    assert full(["lung a b"]).tokens_BLD.requires_grad
