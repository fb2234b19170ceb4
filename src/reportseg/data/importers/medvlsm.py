"""The layout of MedVLSM: images/, masks/ and anns/*.json, each a list of {img_name, mask_name, bbox, prompts: {p0: ..., p9: ...}}.

The prompts were made from the masks by a program, so place words mean the image, unless they name a part, as "left ventricle" does. A
prompt may be a list of phrasings. One of them is taken, by a hash of the mask's name: one row a mask keeps the published counts and weighs
no film five times, no random state is involved, and over many films all phrasings occur.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from ...errors import InputError
from ...limits import DEFAULT, Limits, check_text
from ...schemas.base import load_json
from ...types import Laterality
from ..manifest import near
from .found import Found, image_files

ASSUMED = "MedVLSM computes the places in its prompts from the masks"
PROMPT = "p6"  # the fullest that every one of its data sets has
ORDER = {"train": 0, "val": 1, "test": 2}
_PATIENT = re.compile(r"(patient[0-9]+)_")  # CheXlocalize, CAMUS


def read_medvlsm(src: Path, laterality: Laterality | None = None, limits: Limits = DEFAULT, prompt: str = PROMPT) -> Found:
    """A row for each annotation whose film and mask are there, its split the name of the file; `prompt` is the text, the others text_p*.

    An annotation whose box is empty describes an absent target. Mirrored never: most of the targets are organs.
    InputError: missing, layout, annotation, prompt, those of load_json and check_text.
    """
    files = [f for f in (src / "anns").glob("*.json") if not f.name.startswith(".")]
    if not files:
        raise InputError("this is not the layout of MedVLSM", src, "Give the folder that holds images, masks and anns/*.json.", "layout")
    found = Found([], src, src, laterality or "image", assumed=ASSUMED, split_source="published with the data, in the layout of MedVLSM")
    folders: dict[Path, dict[str, Path]] = {}
    for file in sorted(files, key=lambda f: (ORDER.get(f.stem, len(ORDER)), f.name)):
        strangers = []
        for number, names, absent, prompts in _annotations(file):
            where = f"{file}, annotation {number}"
            if prompt not in prompts:
                fix = f"Give --prompt with one of: {', '.join(prompts)}."
                raise InputError(f"there is no prompt {prompt!r}{near(prompt, list(prompts))}", where, fix, "prompt")
            image, mask = (_find(src / part, name, folders, found.messages) for part, name in zip(("images", "masks"), names, strict=True))
            if image is None or mask is None:
                strangers.append(names[0])
                continue
            texts = {key: check_text(_one_of(options, f"{names[1]} {key}"), where, limits) for key, options in prompts.items()}
            patient = _PATIENT.match(image.stem)
            found.rows.append(
                {
                    "image": image.relative_to(src).as_posix(),
                    "mask": mask.relative_to(src).as_posix(),
                    "text": texts.pop(prompt),
                    "split": file.stem,
                    "patient": patient.group(1) if patient else "",
                    "text_source": f"medvlsm_{prompt}",
                    "present": "0" if absent else "1",
                    **{f"text_{key}": text for key, text in texts.items()},
                }
            )
        found.report(f"{file.stem}: annotations without film or mask, left out", strangers)
    return found


def _annotations(file: Path) -> Iterator[tuple[int, tuple[str, str], bool, dict[str, list[str]]]]:
    """(number, (film, mask), absent, phrasings by prompt) of each. InputError annotation names the first that is none."""
    data = load_json(file)
    for number, one in enumerate(data if isinstance(data, list) else [data], 1):
        try:
            names = (one["img_name"], one["mask_name"])
            prompts = {key: [value] if isinstance(value, str) else value for key, value in one["prompts"].items()}
            absent = one.get("bbox", [0, 0, 1, 1])[2:] == [0, 0]
        except (TypeError, KeyError, AttributeError) as e:
            raise _bad(file, number, "lacks img_name, mask_name or prompts") from e
        if not all(isinstance(name, str) for name in names) or not all(_is_prompt(key, value) for key, value in prompts.items()):
            raise _bad(file, number, "holds a name or a prompt that is no text")
        yield number, names, absent, prompts


def _is_prompt(key: str, options: Any) -> bool:
    """The name of a prompt becomes a column, so it is short and plain."""
    return bool(re.fullmatch(r"\w{1,20}", key)) and isinstance(options, list) and bool(options) and all(isinstance(o, str) for o in options)


def _bad(file: Path, number: int, what: str) -> InputError:
    return InputError(f"annotation {number} {what}", file, "Take the file as MedVLSM publishes it.", "annotation")


def _one_of(options: list[str], key: str) -> str:
    return options[int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") % len(options)]


def _find(root: Path, name: str, folders: dict[Path, dict[str, Path]], messages: list[str]) -> Path | None:
    """The image file of this name below `root`, whatever its ending, None if there is none. InputError unsafe_path where it leads out."""
    path = PurePosixPath(name.replace("\\", "/"))
    folder = root / path.parent
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise InputError("the name leads out of its folder", name, "Take the file as MedVLSM publishes it.", "unsafe_path")
    if folder not in folders:
        folders[folder] = image_files(folder, messages) if folder.is_dir() else {}
    return folders[folder].get(path.stem)
