"""What every importer hands over, and the files it looks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import InputError
from ...types import Laterality

Progress = Callable[[int, int], None] | None
OWN_SPLIT = "made by reportseg: whole patients, ranked by a hash of the data set's name"
IMAGES = frozenset([".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif"])
AS_PUBLISHED = "the data sets that were published in this layout mean it"  # why a left is assumed to be the image's


@dataclass
class Found:
    """Rows of a manifest; `image` and `mask` are relative to `root`, or absolute. `source` is what they were read from.

    `laterality` is None where the source does not say whose left it means; `laterality_source` is what says it, and `assumed` why it was
    supposed where nothing does. `split_source` is empty where there is no split. Where the films have to be made, as the slices of volumes,
    `write(target)` makes them; it may take rows away.
    """

    rows: list[dict[str, str]]
    source: Path
    root: Path
    laterality: Laterality | None = None
    laterality_source: str = ""
    assumed: str = ""
    name: str = ""
    text_source: str = ""
    split_source: str = ""
    licence: str = ""
    citation: str = ""
    messages: list[str] = field(default_factory=list)
    windows: dict[str, tuple[float, float]] = field(default_factory=dict)
    write: Callable[[Path], None] | None = None

    def report(self, what: str, names: Sequence[str]) -> None:
        """A message on so many names, none if there are none."""
        if names:
            self.messages.append(f"{what}: {some(names)}")


def image_files(folder: Path, messages: list[str], prefix: str = "") -> dict[str, Path]:
    """The image files of a folder by stem (without `prefix`), sorted. Of two files with one stem the first counts, as a message says.

    InputError missing.
    """
    if not folder.is_dir():
        raise InputError("the folder does not exist", folder, "Check the layout, or name another one.", "missing")
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir(), key=lambda f: f.name):
        if file.suffix.lower() in IMAGES and not file.name.startswith("."):
            kept = files.setdefault(file.stem.removeprefix(prefix), file)
            if kept != file:
                messages.append(f"{folder.name}: {file.name} has the stem of {kept.name} and was left out")
    return files


def some(names: Sequence[str]) -> str:
    """ "3 (a, b, c)"; at most five names."""
    return f"{len(names)} ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
