"""Segments in a medical image what a report or prompt describes.

The public names are loaded when they are first asked for, so `import reportseg` costs nothing.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluate import evaluate
    from .predict import Segmenter
    from .train import train
    from .types import Prediction, Sample

    __version__: str

__all__ = ["Prediction", "Sample", "Segmenter", "__version__", "evaluate", "train"]

_HOME = {"Segmenter": "predict", "Prediction": "types", "Sample": "types", "evaluate": "evaluate", "train": "train"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("reportseg")
        except PackageNotFoundError:  # the sources, not installed
            return "0+unknown"
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """`train` and `evaluate` name a function here and a module too. Importing the module would hide the function, so it is not set."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
