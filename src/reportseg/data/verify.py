"""Everything that can be wrong with a data set, found at once: errors forbid training, warnings are for its owner to weigh."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..io import dicom_name, read_image, read_mask
from ..limits import DEFAULT, Limits, check_file
from ..text import has_side, unknown_sides, words, zones
from ..types import Geometry, Laterality, Sample
from .manifest import Dataset
from .splits import rows_known, shared_patients

MAX_WORDS = 60
"""Words of a text above which the models may not read all of it: the public text towers take 77 tokens."""

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Issue:
    """One finding. `id` and `row` are those of the manifest; empty and None for what concerns the whole of it."""

    severity: Severity
    code: str
    id: str
    row: int | None
    what: str
    fix: str

    def __str__(self) -> str:
        place = f"row {self.row} ({self.id}): " if self.row is not None else ""
        return f"{place}{self.what}. {self.fix} [{self.code}]"


@dataclass(frozen=True)
class Verified:
    """All issues, in the order of the rows, and lines that sum the data set up. Iterates over the issues."""

    issues: tuple[Issue, ...]
    summary: tuple[str, ...]

    @property
    def errors(self) -> list[Issue]:
        """What forbids the use of the data: exit 2."""
        return [i for i in self.issues if i.severity == "error"]

    @property
    def warnings(self) -> list[Issue]:
        """What a user should know before the data is used."""
        return [i for i in self.issues if i.severity == "warning"]

    def __iter__(self) -> Iterator[Issue]:
        return iter(self.issues)

    def __len__(self) -> int:
        return len(self.issues)


@dataclass(frozen=True)
class _Film:
    """What one image file is: hash of its bytes, its grid and whether it has further frames, or the error."""

    sha256: str = ""
    geometry: Geometry = field(default_factory=lambda: Geometry((0, 0)))
    frames: bool = False
    error: InputError | None = None


@dataclass(frozen=True)
class _Mask:
    """What one mask file is: (H, W), whether it seems to hold several labels, and where the pixels of the mask, as stored, lie: (3, 3), in
    the upper half, the middle row and the lower half, each in its left half, middle column and right half. An even side has no middle.
    """

    shape: tuple[int, ...] = ()
    parts: NDArray[np.int64] | None = None
    several: bool = False
    error: InputError | None = None

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return 0 if self.parts is None else int(self.parts.sum())

    def left(self, film: Geometry) -> float:
        """The share of the mask in the left half of the film as it is displayed. A middle column is on no side, nor is a side view."""
        if self.parts is None or not film.has_sides:
            return 0.5
        left, _, right = film.displayed(self.parts).sum(axis=0)
        return float(left / (left + right)) if left + right else 0.5


def verify(dataset: Dataset, *, limits: Limits = DEFAULT, progress: Callable[[int, int], None] | None = None) -> Verified:
    """Reads every film and mask once. Raises nothing for what it finds."""
    samples = dataset.samples
    films = list(dict.fromkeys(s.image for s in samples))
    masks = list(dict.fromkeys(s.mask for s in samples if s.mask is not None))
    jobs: list[tuple[Path, bool]] = [(f, False) for f in films] + [(m, True) for m in masks]
    film: dict[Path, _Film] = {}
    mask: dict[Path, _Mask] = {}
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        read = pool.map(lambda job: _look_mask(job[0], limits) if job[1] else _look_film(job[0], limits), jobs)
        for done, ((path, _), seen) in enumerate(zip(jobs, read, strict=True), 1):
            if isinstance(seen, _Mask):
                mask[path] = seen
            else:
                film[path] = seen
            if progress:
                progress(done, len(jobs))
    issues = [issue for s in samples for issue in (*_files(s, film, mask), *_text(s))]
    sides = _sides(samples, film, mask)
    issues += [*_contradicted(sides), *_shared(dataset, film)]
    return Verified(tuple(issues), tuple(_summary(dataset, len(films), issues, sides)))


# ---------------------------------------------------------------- files


def _look_film(path: Path, limits: Limits) -> _Film:
    try:
        image = read_image(path, limits)
        with open(check_file(path), "rb") as f:
            return _Film(hashlib.file_digest(f, "sha256").hexdigest(), image.geometry, "multi_frame" in image.warnings)
    except InputError as e:
        return _Film(error=e)


def _look_mask(path: Path, limits: Limits) -> _Mask:
    try:
        mask_HW = read_mask(path, limits)
        several = _several_labels(read_image(path, limits).pixels_HWC)
    except InputError as e:
        return _Mask(error=e)
    rows, columns = ((slice(size // 2), slice(size // 2, size - size // 2), slice(size - size // 2, None)) for size in mask_HW.shape)
    parts = np.array([[np.count_nonzero(mask_HW[row, column]) for column in columns] for row in rows], np.int64)
    return _Mask(mask_HW.shape, parts, several)


def _several_labels(pixels_HWC: NDArray[np.float32]) -> bool:
    """Whether over 1 % of what is drawn is flat middle gray, or of a second colour: labels. The soft edge of one label is not flat."""
    level_HW = pixels_HWC.max(axis=2)
    top = float(level_HW.max())
    few = 0.01 * np.count_nonzero(level_HW)
    corner = level_HW[:-1, :-1]
    middle = (corner > 0.1 * top) & (corner < 0.9 * top)
    if np.count_nonzero(middle & (corner == level_HW[:-1, 1:]) & (corner == level_HW[1:, :-1])) > few:
        return True
    lit = pixels_HWC[level_HW > 0.9 * top] > 0.5 * top  # which channels are on
    return top > 0 and bool(np.count_nonzero((lit != lit[0]).any(axis=1)) > few)


def _files(s: Sample, film: dict[Path, _Film], mask: dict[Path, _Mask]) -> Iterator[Issue]:
    image = film[s.image]
    if image.error:
        yield _issue(s, "error", image.error.code, f"image: {image.error.what}", f"{_path(s.image)}{image.error.fix}")
    if image.frames:
        what = "the image file holds several frames, of which the first is read"
        yield _issue(s, "warning", "multi_frame", what, "Save the frame that the mask was drawn on as a file of its own.")
    drawn = mask.get(s.mask) if s.mask else None
    if drawn is None:
        return
    if drawn.error:
        yield _issue(s, "error", drawn.error.code, f"mask: {drawn.error.what}", f"{_path(s.mask)}{drawn.error.fix}")
        return
    if not image.error and drawn.shape != image.geometry.shape:
        what = f"the mask has {_size(drawn.shape)} pixels, the image {_size(image.geometry.shape)}"
        yield _issue(s, "error", "size_mismatch", what, "Export the mask on the grid of its image.")
    if s.present and not drawn.area:
        yield _issue(s, "error", "empty_mask", "the mask is empty", "Draw it, or write present=0 if the target is absent.")
    if not s.present and drawn.area:
        what = f"present is 0 and the mask has {drawn.area} pixels"
        yield _issue(s, "error", "absent_with_mask", what, "Write present=1, or empty the mask.")
    if drawn.several:
        what = "the mask seems to hold several labels; all above half of the largest value are taken together"
        yield _issue(s, "warning", "several_labels", what, "Write one mask file (0 and 255) per target.")


def _path(path: Path | None) -> str:
    """A path in front of what to do; not that of a DICOM file, which hospitals name after people: row and id tell which it is."""
    return "" if path is None or dicom_name(path) else f"{path}: "


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


# ---------------------------------------------------------------- texts and sides


def _text(s: Sample) -> Iterator[Issue]:
    if not s.text.strip():
        yield _issue(s, "warning", "empty_text", "the text is empty", "Write what the mask shows.")
        return
    n = len(words(s.text))
    if n > MAX_WORDS:
        what = f"the text has {n} words; models may not read past {MAX_WORDS}"
        yield _issue(s, "warning", "long_text", what, "Keep the sentences that describe the target.")
    strange = unknown_sides(s.text)
    if strange:
        what = f"side words that cannot be swapped: {', '.join(dict.fromkeys(strange))}"
        yield _issue(s, "warning", "unknown_side", what, "Write left or right; as it is the film is never mirrored.")
    if s.laterality == "none" and has_side(s.text):
        what = "the text names a side and nothing says whose left is meant"
        yield _issue(s, "warning", "laterality_none", what, "Fill in laterality: image or patient.")


def _sides(samples: Iterable[Sample], film: dict[Path, _Film], mask: dict[Path, _Mask]) -> dict[Laterality, Counter[bool]]:
    """By declared laterality: of the films whose sentence names one side alone, how many masks lie mostly on that side of the image as it
    is displayed.

    A mask that lies half and half tells nothing and is not counted.
    """
    found: dict[Laterality, Counter[bool]] = {}
    for s in samples:
        drawn = mask.get(s.mask) if s.mask else None
        named = {side for side, _ in zones(s.text)}
        left = drawn.left(film[s.image].geometry) if drawn else 0.5
        if left != 0.5 and named in ({"left"}, {"right"}):
            found.setdefault(s.laterality, Counter())[(left > 0.5) == (named == {"left"})] += 1
    return found


def _contradicted(sides: dict[Laterality, Counter[bool]]) -> Iterator[Issue]:
    for declared, agree in sides.items():
        n, under = agree.total(), agree[declared == "image"]
        if declared != "none" and under / n < 0.5 - 1 / math.sqrt(n):  # below chance by two standard deviations
            other = "patient" if declared == "image" else "image"
            what = f"laterality is {declared}, yet only {under} of {n} one-sided masks lie where the sentence says; as {other}: {n - under}"
            yield Issue(
                "warning", "laterality_contradicted", "", None, what, f"Look at some films; perhaps import with --laterality {other}."
            )


# ---------------------------------------------------------------- splits


def _shared(dataset: Dataset, film: dict[Path, _Film]) -> Iterator[Issue]:
    """What the splits have in common: an error in a split of ours or of the user's, a warning in a published one, which is what it is."""
    published = "published" in dataset.info.split_source.lower()
    severity: Severity = "warning" if published else "error"
    owned = "Keep each patient and image in one split; for a published split say `published` in split_source of dataset.json."
    fix = "Say so beside every score." if published else owned
    for (a, b), both in shared_patients(dataset.samples).items():
        rows = " and ".join("{} of {} rows of {}".format(*rows_known(dataset.samples, x, y), x) for x, y in ((a, b), (b, a)))
        yield Issue(severity, "shared_patients", "", None, f"the splits {a} and {b} share {len(both)} patients: {rows}", fix)
    first: dict[str, Sample] = {}
    for s in dataset.samples:
        sha256 = film[s.image].sha256
        if sha256 and s.split:
            twin = first.setdefault(sha256, s)
            if twin.split != s.split:
                what = f"the same image stands in {twin.split} as row {twin.row} ({twin.id}) and in {s.split}"
                yield _issue(s, severity, "duplicate_image", what, fix)


# ---------------------------------------------------------------- summary


def _summary(dataset: Dataset, films: int, issues: list[Issue], sides: dict[Laterality, Counter[bool]]) -> Iterator[str]:
    samples = dataset.samples
    splits = Counter(s.split or "no split" for s in samples)
    patients = len({s.patient for s in samples if s.patient})
    yield f"{dataset.name}: {len(samples)} rows, {films} films ({', '.join(f'{n} {name}' for name, n in splits.items())})"
    alone = sum(not s.patient for s in samples)
    yield f"{patients} patients known, {alone} rows without; {len({s.text for s in samples})} distinct texts"
    agree = sum(sides.values(), Counter[bool]())
    if agree:
        share = agree[True] / agree.total()
        rates = f"{share:.1%} agree with the mask under image, {1 - share:.1%} under patient"
        why = f" ({dataset.info.laterality_source})" if dataset.info.laterality_source else ""
        yield f"sides: of {agree.total()} one-sided sentences {rates}; declared: {dataset.laterality}{why}"
    counts = Counter((i.severity, i.code) for i in issues)
    for severity in ("error", "warning"):
        named = [f"{n} {code}" for (kind, code), n in sorted(counts.items()) if kind == severity]
        yield f"{severity}s: {', '.join(named) or 'none'}"


def _issue(s: Sample, severity: Severity, code: str, what: str, fix: str) -> Issue:
    return Issue(severity, code, s.id, s.row, what, fix)
