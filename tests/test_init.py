"""The public names: there at once, loaded when asked for, and the same whatever was imported before."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest

import reportseg

HEAVY = {"torch", "numpy", "PIL", "pydantic", "yaml", "transformers", "pandas", "scipy", "pydicom", "nibabel", "accelerate", "ray", "typer"}


def in_a_fresh_process(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_loads_nothing_heavy_and_none_of_our_modules():
    loaded = set(in_a_fresh_process("import sys, reportseg; print(*sys.modules)").split())
    assert not loaded & HEAVY
    assert {name for name in loaded if name.startswith("reportseg")} == {"reportseg"}


def test_the_nouns_do_not_load_torch():
    loaded = in_a_fresh_process("import sys; from reportseg import Sample, Prediction; print(*sys.modules)").split()
    assert "torch" not in loaded


@pytest.mark.parametrize("name", sorted(reportseg.__all__))
def test_every_public_name_is_there_and_listed(name):
    assert getattr(reportseg, name) is not None
    assert name in dir(reportseg)


def test_version_is_a_version():
    assert re.match(r"\d+", reportseg.__version__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Segmentor'"):
        _ = reportseg.Segmentor


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_function_is_not_hidden_by_the_module_of_its_name(name):
    """Importing reportseg.train would set it on the package, in the place of the function."""
    module = importlib.import_module(f"reportseg.{name}")
    assert getattr(module, name) is getattr(reportseg, name)
    code = f"import reportseg.{name}; from reportseg import {name}; print(type({name}).__name__)"
    assert in_a_fresh_process(code) == "function"
