"""A tokenizer from a stranger: the JSON of `tokenizers`, let in only where it is made of the parts that CLIP, BERT, GPT and RoBERTa are
made of.

The library builds whatever the JSON asks for: a pattern that backtracks without end, a replacement that makes a long text of each letter,
a piece whose absence ends the program at some later sentence. So the parts are looked at before it is built.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..errors import InputError

_CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_GPT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
REGEXES = frozenset([_CLIP, rf"<\|startoftext\|>|<\|endoftext\|>|{_CLIP}", _GPT, r"\s+"])

#: By key of the JSON: the name of the list in a Sequence, and the types of parts.
PARTS = {
    "normalizer": (
        "normalizers",
        frozenset(["BertNormalizer", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Replace", "Strip", "StripAccents"]),
    ),
    "pre_tokenizer": (
        "pretokenizers",
        frozenset(["BertPreTokenizer", "ByteLevel", "Digits", "Punctuation", "Split", "Whitespace", "WhitespaceSplit"]),
    ),
    "post_processor": ("processors", frozenset(["BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing"])),
}
MOST_PARTS = 32
LONGEST_WORD = 256  # characters that WordPiece cuts into pieces, in time that grows with their cube; 100 in every BERT
PROBES = ("", "Left lung: 2 opacités of 3.5 cm, 肺 \N{BLACK HEART SUIT}.")


def read_tokenizer(tokenizer_json: str, where: str | Path = "tokenizer.json") -> Tokenizer:
    """The tokenizer, which has read a sentence once; without the padding and the cut that its file may ask for, which are not its to say.

    InputError bad_tower for one with a part that no CLIP, BERT, GPT or RoBERTa has, and for one that the library cannot build or use.
    """
    with faults_told(where):
        data = json.loads(tokenizer_json)
        _check(data)
        tokenizer = Tokenizer.from_str(json.dumps(data))  # what was looked at: of a key that stands twice another might be taken
        tokenizer.no_padding()
        tokenizer.no_truncation()
        for probe in PROBES:
            tokenizer.encode(probe)
    return tokenizer


@contextmanager
def faults_told(where: str | Path = "tokenizer.json") -> Iterator[None]:
    """Whatever a tokenizer raises as InputError bad_tower: bare Exception, and for a panic of its Rust side not even that."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        what = f"the tokenizer cannot be used: {str(error).strip()[:300] or type(error).__name__}"
        raise InputError(what, where, "Take tokenizer.json and the weights from one source.", "bad_tower") from error


def _check(data: Any) -> None:
    """ValueError, or an error of the kind that odd data raise, for what must not be built. Gives a model of an old file its type."""
    model = data["model"]
    if "type" not in model:  # tokenizers wrote none at first, and CLIP's file is as old
        model["type"] = "BPE" if "merges" in model else "WordPiece"
    if model["type"] not in ("BPE", "WordPiece"):
        raise ValueError(f"its model is {str(model['type'])[:40]!r}, and only BPE and WordPiece are read")
    unknown = model.get("unk_token")
    if unknown is not None and unknown not in model["vocab"]:
        raise ValueError("its token for what is unknown is not in its vocabulary")
    if model.get("dropout"):
        raise ValueError("its BPE has dropout, which cuts a sentence otherwise each time")
    if model.get("max_input_chars_per_word", 0) > LONGEST_WORD:
        raise ValueError(f"its WordPiece cuts words of more than {LONGEST_WORD} characters")
    for group in PARTS:
        parts = list(_parts(data.get(group), group))
        kinds = Counter(part["type"] for part in parts)
        twice = [kind for kind, n in kinds.items() if n > 1 and kind != "Replace"]  # two ByteLevel double a text twice
        if twice or len(parts) > MOST_PARTS:
            raise ValueError(f"its {group} has {twice[0]} more than once" if twice else f"its {group} has more than {MOST_PARTS} parts")
        for part in parts:
            _check_part(part)


def _parts(node: Any, group: str) -> Iterator[dict[str, Any]]:
    """The parts under a key of PARTS, those of a Sequence one by one. ValueError for a type that is not among them."""
    if node is None:
        return
    inner, legal = PARTS[group]
    if node["type"] == "Sequence":
        for child in node[inner]:
            yield from _parts(child, group)
    elif node["type"] in legal:
        yield node
    else:
        raise ValueError(f"its {group} has a part of type {str(node['type'])[:40]!r}; read are {', '.join(sorted(legal))}")


def _check_part(part: dict[str, Any]) -> None:
    pattern = part.get("pattern", {})  # of Replace and Split; Punctuation and the others have none
    regex, string = pattern.get("Regex"), pattern.get("String")
    if regex is not None and regex not in REGEXES:
        raise ValueError(f"its {part['type']} has a pattern that is none of CLIP, BERT or GPT")
    if part["type"] == "Replace" and len(part["content"]) > (1 if string is None else len(string)):
        raise ValueError("its Replace makes a text longer")
    if part["type"] == "TemplateProcessing" and sum("Sequence" in piece for piece in part["single"]) != 1:
        raise ValueError("its TemplateProcessing does not have the sentence once")
