"""Hostile input at the command line: one line that names it and the way out, never a traceback; and nothing calls home."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reportseg.cli import app
from reportseg.schemas.files import CSV_COLUMNS
from tiny import LEFT


def refused(*arguments) -> str:
    """The one line on stderr of a command that must exit with 2."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 2, (result.exit_code, result.stdout, result.stderr, result.exception)
    line = result.stderr
    assert line.startswith("error: ")
    assert line.count("\n") == 1
    assert "Traceback" not in line
    return line


# ---------------------------------------------------------------- files that are not what they should be


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    "make",
    [
        Path.mkdir,
        Path.touch,
        _loop,
        lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n"),
        lambda p: p.write_bytes(pickle.dumps({"a": 1})),
        lambda p: p.write_text("<script>alert(1)</script>"),
    ],
    ids=["folder", "empty", "loop", "cut", "pickle", "html"],
)
def test_a_file_that_is_no_image_is_named(bundle, tmp_path, make):
    path = tmp_path / "film.png"
    make(path)
    named = "row 1 (case-" if path.is_dir() else str(path)  # the name of a folder may be a patient's
    assert named in refused("predict", bundle, path, "--text", LEFT, "-o", tmp_path / "out", "--quiet")


@pytest.mark.parametrize("text", ["a\0b", "x" * 1_000_000], ids=["NUL", "1 MB"])
def test_a_hostile_text_is_refused(bundle, png, tmp_path, text):
    assert "--text" in refused("predict", bundle, png, "--text", text, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [
        "!!python/object/apply:os.system ['touch pwned']",
        "a: &a [1]\nb: *a",
        "\0",
        "[" * 100_000,
        "- 1",
        "name: x\nmodel: {name: tgcnet}\nx: 1",
    ],
    ids=["python", "alias", "NUL", "deep", "list", "unknown key"],
)
@pytest.mark.parametrize("command", [("train",), ("config", "show"), ("info",)], ids=" ".join)
def test_a_hostile_config_is_refused(tmp_path, monkeypatch, content, command):
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(content)
    assert "c.yaml" in refused(*command, "c.yaml")
    assert not Path("pwned").exists()


def test_an_override_is_data_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused("config", "show", "demo", "-s", "name=!!python/object/apply:os.system ['touch pwned']")
    assert not Path("pwned").exists()


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "model.pkl"])
def test_pickled_weights_are_no_bundle(png, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"weights": 1}))
    assert "pickle" in refused("predict", path, png, "--text", LEFT, "-o", tmp_path / "out")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("image,text\n", "no rows"),
        ("picture,text\na.png,left\n", "image"),
        ("id,image,text\na,a.png,left\na,b.png,left\n", "'a'"),
        ("image;text\na.png;left\n", "comma"),
        ('image,text\na.png,"left\n', ""),
    ],
    ids=["no rows", "missing column", "duplicate id", "semicolons", "open quote"],
)
def test_a_broken_jobs_file_is_refused_before_anything_is_done(bundle, tmp_path, table, says):
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(table)
    line = refused("predict", bundle, "--jobs", jobs, "-o", tmp_path / "out")
    assert "jobs.csv" in line
    assert says in line
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["\x1b[31mred.png", "two\nlines.png", "[bold]x[/bold].png", "-s.png", "‮gpj.png"], ids=repr)
def test_a_name_cannot_draw_on_the_terminal(bundle, tmp_path, name):
    line = refused("predict", bundle, tmp_path / name, "--text", LEFT, "-o", tmp_path / "out", "--quiet")
    assert line[:-1].isprintable()
    assert "does not exist" in line


def test_a_name_that_is_not_unicode_stops_nothing(bundle, png, tmp_path):
    program = [sys.executable, "-c", "from reportseg.cli import app; app()"]
    command = [*program, "predict", bundle, png, "--text", LEFT, "-o", tmp_path / "o\udcff"]
    done = subprocess.run(command, capture_output=True, check=False)
    expected = 0 if sys.platform == "linux" else 2  # other systems have no such names
    assert done.returncode == expected, done.stderr
    assert b"Traceback" not in done.stderr


# ---------------------------------------------------------------- what leaves and what is written


def test_a_failure_tells_programs_no_path_and_no_text(bundle, png, tmp_path):
    secret = tmp_path / "JANE_DOE.png"
    arguments = ["predict", bundle, png, secret, "--text", "Jane's left lung", "-o", tmp_path / "out", "--quiet"]
    CliRunner().invoke(app, [str(a) for a in arguments])
    rows = (tmp_path / "out" / "failures.csv").read_text().splitlines()
    assert rows[0].split(",") == list(CSV_COLUMNS["failures.csv"])
    assert str(tmp_path) not in rows[1]
    assert "Jane's" not in rows[1]


def test_the_commands_work_without_a_network(bundle, png, tmp_path):
    """Sockets are limited to this machine in all tests; here one process opens none at all."""
    script = """
import socket, sys
def refuse(*_, **__): raise AssertionError("a socket was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from reportseg.cli import app
for words in (["info"], ["info", "tgcnet_qata_small", "-s", "seed=1"], ["models"], ["config", "show", "demo"],
              ["data", "synth", "-o", "data", "-n", "12", "--size", "32"], ["data", "verify", "data"],
              ["predict", sys.argv[1], sys.argv[2], "--text", "left", "-o", "out"]):
    try:
        app(words)
    except SystemExit as stop:
        assert not stop.code, (words, stop.code)
"""
    done = subprocess.run([sys.executable, "-c", script, bundle, png], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_hub_name_without_a_network_is_an_input_error(png, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "hf:owner/name" in refused("predict", "hf:owner/name", png, "--text", LEFT, "-o", tmp_path / "out")


def test_an_error_as_json_is_json_whatever_the_name(bundle):
    result = CliRunner().invoke(app, ["info", 'a"b\n\x1b', "--json"])
    assert json.loads(result.stdout)["error"]["where"] == 'a"b\n\x1b'
