"""A config is somebody else's file: YAML that tries to run, to grow, to hide, or to be something else ends as one InputError."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportseg.config import MAX_BYTES, load_config, load_yaml, parse_config, parse_yaml
from reportseg.errors import InputError

CODE = [
    "!!python/object/apply:os.system ['touch ran']",
    "!!python/object/new:os.system ['touch ran']",
    "!!python/object/apply:builtins.open [ran, w]",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/tuple [1, 2]",
    "!!python/object:reportseg.types.Sample {}",
    "!<tag:yaml.org,2002:python/object/apply:os.system> ['touch ran']",
    "!include /etc/passwd",
    "!ENV ${HOME}",
]


def refused(path: Path | str, overrides=()) -> InputError:
    with pytest.raises(InputError) as caught:
        load_config(path, overrides)
    assert caught.value.fix and caught.value.code
    return caught.value


@pytest.mark.parametrize("code", CODE)
def test_no_tag_is_run_in_a_file_or_an_override(tmp_path, monkeypatch, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "trial.yaml").write_text(f"name: trial\nmodel: {{name: unet}}\nseed: {code}\n")
    error = refused(tmp_path / "trial.yaml")
    assert error.code == "yaml" and "line 3" in error.what and error.where == str(tmp_path / "trial.yaml")
    assert refused("tgcnet_qata_small", [f"seed={code}"]).where.startswith("-s seed=")
    assert [p.name for p in tmp_path.iterdir()] == ["trial.yaml"]


@pytest.mark.parametrize("name", ["os.system", "torch.nn.Linear", "reportseg.models.unet:UNet", "__import__('os')", "../tgcnet"])
def test_a_config_names_no_python_object(name):
    from reportseg.models import resolve

    with pytest.raises(InputError, match="there is no model called"):
        resolve(parse_config({"name": "trial", "model": {"name": name}}, "trial.yaml"))


def test_aliases_are_refused_before_they_grow(tmp_path):
    """Nine levels of nine references are 10^9 words in 500 bytes."""
    levels = ["a0: &a0 [lol]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    (tmp_path / "bomb.yaml").write_text("\n".join(levels))
    start = time.perf_counter()
    assert "aliases" in refused(tmp_path / "bomb.yaml").what
    assert time.perf_counter() - start < 5
    for text in ("a: &x 1\nb: *x", "a: &x {b: *x}", "x: &x {a: 1}\ny: {<<: *x}"):
        with pytest.raises(InputError, match="aliases"):
            parse_yaml(text, "x")


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "{a: " * 20_000, "- " * 20_000, "a:\n" + "".join(" " * i + "- a:\n" for i in range(1, 1200))]
)
def test_nesting_ends_as_an_input_error(text):
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "x")
    assert caught.value.code == "yaml"


def test_a_number_too_long_to_convert_is_refused():
    for text in ("9" * 100_000, "1e" + "9" * 100_000, "0x" + "f" * 10):
        try:
            value = parse_yaml(f"seed: {text}", "x")["seed"]
        except InputError:
            continue
        with pytest.raises(InputError):
            parse_config({"name": "x", "model": {}, "seed": value}, "x")


@pytest.mark.parametrize("text", ["a: 1\na: 2", "train: {lr: 1, lr: 2}", "train:\n  lr: 1\ndata: {}\ntrain:\n  lr: 2"])
def test_a_key_that_stands_twice_is_not_silently_lost(text):
    with pytest.raises(InputError, match="stands twice"):
        parse_yaml(text, "x")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "config"),
        (b"# nothing but a remark", "config"),
        (b"[1, 2]", "config"),
        (b"just words", "config"),
        (b"name: \xff\xfe", "encoding"),
        (b"name: a\x00b", "yaml"),
        (b"\x89PNG\r\n\x1a\n", "encoding"),
        (b"PK\x03\x04", "yaml"),
        (b"name: {", "yaml"),
        (b"--- {}\n--- {}", "yaml"),
        (b"name: trial\n\tmodel: {}", "yaml"),
        (b"? [a, b]\n: 1", "yaml"),
        (b"1: 2", "config"),
        (b"name: trial\nmodel: {1: 2}", "config"),
        (b"name: trial\nmodel: [unet]", "config"),
        (b"name: 2020-01-01\nmodel: {}", "config"),
    ],
    ids=lambda v: v if isinstance(v, str) else repr(v[:16]),
)
def test_files_that_are_no_config(tmp_path, content, code):
    (tmp_path / "trial.yaml").write_bytes(content)
    error = refused(tmp_path / "trial.yaml")
    assert error.code == code and error.where == str(tmp_path / "trial.yaml")
    assert str(tmp_path) not in error.public()


def test_a_large_file_is_not_read_whole(tmp_path):
    path = tmp_path / "large.yaml"
    with path.open("wb") as file:
        file.truncate(2**40)  # a sparse terabyte: reading it would not end
    assert refused(path).code == "too_large"
    (tmp_path / "edge.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    assert refused(tmp_path / "edge.yaml").code == "too_large"
    (tmp_path / "edge.yaml").write_bytes(b"a: 1 #" + b"#" * (MAX_BYTES - 6))
    assert load_yaml(tmp_path / "edge.yaml") == {"a": 1}


def test_paths_that_are_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "folder").mkdir()
    os.symlink("loop.yaml", tmp_path / "loop.yaml")
    for name in ("folder.yaml", "folder", "loop.yaml", "no/such.yaml", "a\0b.yaml", "x" * 5000 + ".yaml"):
        assert refused(name).code == "missing"
    for name in ("", "a\0b", "\u202etxt"):
        refused(name)


@given(st.text(max_size=80))
def test_any_text_is_a_value_or_one_input_error(text):
    with contextlib.suppress(InputError):
        value = parse_yaml(text, "x")
        parse_config(value if isinstance(value, dict) else {"name": value}, "x")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=8), v, max_size=3),
    )
)
def test_any_value_in_any_section_is_legal_or_one_input_error(value):
    for section in ("name", "seed", "data", "model", "train", "eval"):
        with contextlib.suppress(InputError):
            parse_config({"name": "x", "model": {"name": "unet"}, section: value}, "x")
