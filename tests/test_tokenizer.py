"""A tokenizer from a stranger: those of CLIP, BERT, GPT and RoBERTa are read, and what harms is refused before it is built."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from tokenizers import Tokenizer

from pretrained import save_bert, save_clip
from reportseg.errors import InputError
from reportseg.models.encoders import SentenceTokenizer, train_tokenizer
from reportseg.models.sources import find
from reportseg.models.tokenizer import faults_told, read_tokenizer

TEXT = "Upper left lung, 3.5 cm: naïve 肺."
JSON = train_tokenizer(["left lung", "right lung"])


def save_roberta(folder):
    from transformers import RobertaTokenizer

    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *"abcdefghijklmnopqrstuvwxyz.,0123456789", "Ġ", "lu"]
    RobertaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[("l", "u")]).save_pretrained(folder)


def save_new_bert(folder):
    from transformers import BertTokenizer

    save_bert(folder)
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)


@pytest.mark.parametrize("save", [save_clip, save_new_bert, save_roberta])
def test_a_tokenizer_as_transformers_writes_it_is_read_and_reads_the_same(tmp_path, save):
    save(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text()
    assert read_tokenizer(text).encode(TEXT).ids == Tokenizer.from_str(text).encode(TEXT).ids
    old = json.loads(text)
    del old["model"]["type"]  # CLIP's own file has none
    assert read_tokenizer(json.dumps(old)).encode(TEXT).ids == Tokenizer.from_str(text).encode(TEXT).ids


def test_one_of_our_own_is_read():
    assert read_tokenizer(JSON).to_str() == JSON


CLIP_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


@pytest.mark.parametrize("regex", [CLIP_REGEX, rf"<\|startoftext\|>|<\|endoftext\|>|{CLIP_REGEX}"])
def test_both_patterns_that_clip_was_published_with_are_read(regex):
    read_tokenizer(json.dumps(changed(pre_tokenizer=split(regex))))


def changed(**parts):
    data = json.loads(JSON)
    return data | parts | {"model": data["model"] | parts.get("model", {})}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def replace(content, **pattern):
    return {"type": "Replace", "pattern": pattern, "content": content}


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
SENTENCE = {"Sequence": {"id": "A", "type_id": 0}}
TEMPLATE = {"type": "TemplateProcessing", "pair": [], "special_tokens": {}}
HOSTILE = {
    "backtracks without end": changed(pre_tokenizer=sequence("pretokenizers", split("^(([a-z ])+.)+[A-Z]([a-z])+$"), LEVEL)),
    "grows by fifty four times": changed(normalizer=sequence("normalizers", *[replace("a" * 50, String="a")] * 4)),
    "grows in a nest": changed(normalizer=sequence("normalizers", sequence("normalizers", replace("aa", String="a")))),
    "grows by a pattern": changed(normalizer=replace("ab", Regex=r"\s+")),
    "grows from nothing": changed(normalizer=replace("a", String="")),
    "grows by bytes": changed(pre_tokenizer=sequence("pretokenizers", *[LEVEL] * 30)),
    "many parts": changed(normalizer=sequence("normalizers", *[replace("b", String="a")] * 1000)),
    "no unknown": changed(model={"type": "WordPiece", "unk_token": "[NOPE]", "max_input_chars_per_word": 100}),
    "no unknown of a BPE": changed(model={"unk_token": "[NOPE]"}),
    "another model": changed(model={"type": "WordLevel", "unk_token": "[NOPE]"}),
    "a model that is none": changed(model={"type": ["BPE"]}),
    "chance": changed(model={"dropout": 0.5}),
    "long words": changed(model={"type": "WordPiece", "unk_token": "<eos>", "max_input_chars_per_word": 10**9}),
    "another part": changed(normalizer={"type": "Prepend", "prepend": "<eos>"}),
    "a part without type": changed(pre_tokenizer={"pattern": {"Regex": "(a+)+b"}}),
    "a part in the wrong place": changed(normalizer=LEVEL),
    "a sentence many times": changed(post_processor=TEMPLATE | {"single": [SENTENCE] * 9}),
    "no vocabulary": changed(model={"vocab": None, "unk_token": "a"}),
    "a list": [1],
    "a nest": json.loads("[" * 900 + "]" * 900),
}  # fmt: skip


@pytest.mark.parametrize("harm", HOSTILE)
def test_what_harms_is_refused_before_it_is_built(harm, monkeypatch):
    built = []
    monkeypatch.setattr("reportseg.models.tokenizer.Tokenizer", SimpleNamespace(from_str=built.append))
    with pytest.raises(InputError) as caught:
        read_tokenizer(json.dumps(HOSTILE[harm]), "there/tokenizer.json")
    assert caught.value.code == "bad_tower" and caught.value.where == "there/tokenizer.json" and caught.value.fix
    assert not built


@pytest.mark.parametrize("text", ["{", "", "[" * 100_000, '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}', '"\\ud800"'])
def test_what_is_no_tokenizer_is_refused(text):
    with pytest.raises(InputError) as caught:
        read_tokenizer(text)
    assert caught.value.code == "bad_tower"


def test_of_a_key_that_stands_twice_what_was_looked_at_is_built():
    grows = json.dumps(replace("aaaa", String="a"))
    twice = JSON.replace('"normalizer":null', f'"normalizer":{grows},"normalizer":null')
    assert twice.count('"normalizer"') == 2 and read_tokenizer(twice).normalizer is None


def test_a_panic_is_told_and_an_interruption_is_not():
    class Panic(BaseException):
        """As pyo3 raises it: no Exception."""

    with pytest.raises(InputError, match="runaway") as caught, faults_told("x.json"):
        raise Panic("runaway")
    assert caught.value.code == "bad_tower" and caught.value.where == "x.json"
    with pytest.raises(KeyboardInterrupt), faults_told():
        raise KeyboardInterrupt


def test_a_tokenizer_that_fails_at_a_sentence_fails_that_sentence_alone(monkeypatch):
    class Panic(BaseException):
        pass

    class Fails:
        def encode(self, text):
            if "panic" in text:
                raise Panic("at this one")
            return Tokenizer.from_str(JSON).encode(text)

    tokenizer = SentenceTokenizer(JSON, 77)
    monkeypatch.setattr(tokenizer, "tokenizer", Fails())
    with pytest.raises(InputError, match="at this one"):
        tokenizer.ids("panic")
    assert tokenizer.ids("left lung")


def test_a_source_with_a_hostile_tokenizer_is_named(tmp_path):
    save_bert(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(HOSTILE["backtracks without end"]))
    with pytest.raises(InputError, match=r"none of CLIP, BERT or GPT") as caught:
        find(str(tmp_path)).tokenizer_json()
    assert caught.value.code == "bad_tower" and caught.value.where == str(tmp_path / "tokenizer.json")
