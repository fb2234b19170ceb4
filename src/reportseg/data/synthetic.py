"""Phantom chest films, drawn by formula: they belong to nobody, so they may stand in tests, in the demo and in pictures.

Each film has one to three cloudy opacities and a sentence that tells their side, zone and number. Some films have one more that the
sentence leaves out: there a model that does not read must fail. Sides are those of the image.

A film is a function of (seed, index): film 7 is the same in a set of 10 and of 1,000. Patients come in blocks of ten, and a patient's
films share one anatomy.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ..errors import InputError
from ..schemas.data import DatasetFile
from ..text import LEVELS, SIDES
from .chest import Area, body_of, chest, expose, foreign_bodies, opacity

FILM, PATIENT, BLOCK = 11, 12, 13  # names of the random streams
SPLITS = ("train", "train", "test", "train", "val", "train", "train", "test", "train", "train")  # of the patients of a block, in order
FILMS_OF = (3, 2, 2, 1, 1, 1, 1, 1, 1, 1)  # of the patients of a block, shuffled
SIZES = (32, 2048)


@dataclass(frozen=True)
class Meta:
    """What the program knows of a film: the areas that the sentence describes, the one that it leaves out with its mask, and the zones.

    `zone_HW` is 0 outside the lungs, else 1 + 3 * (index in SIDES) + (index in LEVELS).
    """

    patient: str
    split: str
    areas: tuple[Area, ...]
    other: Area | None
    other_HW: NDArray[np.bool_]
    zone_HW: NDArray[np.uint8]

    @property
    def zones(self) -> frozenset[tuple[str, str]]:
        """(side, level) pairs that the sentence tells of."""
        return frozenset().union(*(a.zones for a in self.areas))


class Phantom(NamedTuple):
    """A drawn film (H, W) uint8, the mask (H, W) of what its sentence describes, the sentence, and what the program knows of it."""

    image_HW: NDArray[np.uint8]
    mask_HW: NDArray[np.bool_]
    sentence: str
    meta: Meta


def phantom(seed: int, index: int, size: int = 128) -> Phantom:
    """Film number `index` of the series `seed`. Its anatomy and findings do not depend on `size`; its grain does."""
    patient, split = _patient(seed, index)
    rng = _stream(seed, FILM, index)
    body = body_of(_stream(seed, PATIENT, patient), rng)
    areas, other = _findings(rng)
    sentence = describe(areas, rng)
    film, zone_HW, grid = chest(body, rng, size)
    strength = rng.uniform(0.16, 0.30)
    masks = []
    for area in (*areas, *([other] if other else [])):
        veil_HW, mask_HW = opacity(area, body, grid, rng)
        film += strength * rng.uniform(0.85, 1.15) * veil_HW
        masks.append(mask_HW)
    foreign_bodies(film, body, grid, rng)
    other_HW = masks.pop() if other else np.zeros((size, size), bool)
    meta = Meta(f"p{patient:04d}", split, areas, other, other_HW, zone_HW)
    return Phantom(expose(film, grid, rng), np.logical_or.reduce(masks), sentence, meta)


def synthesise(out: str | Path, n: int, *, seed: int = 0, size: int = 128, progress: Callable[[int, int], None] | None = None) -> Path:
    """Writes n films as images/, masks/, manifest.csv and dataset.json into `out`; returns the manifest's path.

    InputError: bad_number, exists where `out` holds anything already, unwritable; nothing of a set that was interrupted stays.
    """
    from .manifest import write_manifest

    lo, hi = SIZES
    if n < 1 or seed < 0 or not lo <= size <= hi:
        raise InputError(
            f"{n} films of {size} pixels with seed {seed} cannot be made", out, f"n from 1, size {lo} to {hi}, seed from 0.", "bad_number"
        )
    folder = Path(out)
    work = folder / f".part-{secrets.token_hex(8)}"
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError("this exists and is not an empty folder", out, "Name another folder, or delete this one first.", "exists")
        for name in ("images", "masks"):
            (work / name).mkdir(parents=True)
        rows = []
        for index in range(n):
            rows.append(_write_film(work, phantom(seed, index, size), index))
            if progress:
                progress(index + 1, n)
        write_manifest(
            work,
            rows,
            DatasetFile(
                name="phantoms",
                laterality="image",
                licence="CC0-1.0",
                citation=f"phantom films of reportseg, made by: reportseg data synth -n {n} --seed {seed} --size {size}",
                split_source="made by reportseg, patient-disjoint",
            ),
        )
        for name in ("images", "masks", "dataset.json", "manifest.csv"):  # the manifest last: where it stands the set is whole
            (work / name).rename(folder / name)
    except OSError as error:
        raise InputError(
            f"the films cannot be written ({error.strerror})", out, "Choose another folder, or make room.", "unwritable"
        ) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(work)
    return folder / "manifest.csv"


def _write_film(folder: Path, film: Phantom, index: int) -> dict[str, str]:
    """Both PNGs and the row of the manifest."""
    name = f"phantom-{index:05d}"
    PIL.Image.fromarray(film.image_HW).save(folder / "images" / f"{name}.png")
    PIL.Image.fromarray(film.mask_HW.astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")
    return {
        "image": f"images/{name}.png",
        "mask": f"masks/{name}.png",
        "text": film.sentence,
        "id": name,
        "split": film.meta.split,
        "patient": film.meta.patient,
        "laterality": "image",
        "flip_safe": "1",
        "text_source": "template",
        "label": "opacity",
        "present": "1",
        "complete": "0" if film.meta.other else "1",
        "subsets": "two-findings" if film.meta.other else "",
    }


# ---------------------------------------------------------------- who and what


def _stream(seed: int, *place: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, *place])))


def _patient(seed: int, index: int) -> tuple[int, str]:
    """The number and the split of the patient of film `index`."""
    block, place = divmod(index, sum(FILMS_OF))
    films = _stream(seed, BLOCK, block).permutation(FILMS_OF)
    member = int(np.searchsorted(np.cumsum(films), place, side="right"))
    return block * len(FILMS_OF) + member, SPLITS[member]


def _findings(rng: np.random.Generator) -> tuple[tuple[Area, ...], Area | None]:
    """The areas that the sentence describes, and for two films in five one more. Areas of one lung are its upper and its lower zone."""
    sides = list(rng.permutation(SIDES))
    kind = rng.choice(5, p=[0.4, 0.3, 0.15, 0.07, 0.08])
    if kind == 1:
        areas = [Area(sides[0], _levels(rng))]
    elif kind == 2 or (kind == 0 and rng.random() < 0.6):
        areas = [Area(side, _levels(rng)) for side in sides]
    else:
        areas = [Area(sides[0], ("upper",)), Area(sides[0], ("lower",))]
        if kind == 4:
            areas.append(Area(sides[1], _levels(rng)))
    if rng.random() < 0.5:
        areas.reverse()
    return (tuple(areas[:1]), areas[1]) if kind == 0 else (tuple(areas), None)


def _levels(rng: np.random.Generator) -> tuple[str, ...]:
    runs = [LEVELS[i : i + k] for k in (1, 2, 3) for i in range(4 - k)]
    return runs[rng.choice(6, p=[0.22, 0.22, 0.22, 0.14, 0.14, 0.06])]


# ---------------------------------------------------------------- sentences

NUMBERS = ("no", "one", "two", "three")


def describe(areas: Sequence[Area], rng: np.random.Generator) -> str:
    """A sentence for these areas: half of them in the wording of QaTa-COV19's annotations, the others as a report might say it."""
    count, many = NUMBERS[len(areas)].capitalize(), len(areas) > 1
    style = rng.choice(5, p=[0.5, 0.125, 0.125, 0.125, 0.125])
    if style == 0:
        whole = {a.side: tuple(v for v in LEVELS if any((a.side, v) in b.zones for b in areas)) for a in areas}
        places = [f"{'all' if len(levels) == 3 else ' '.join(levels)} {side} lung" for side, levels in whole.items()]
        extent = "Bilateral" if len(whole) == 2 else "Unilateral"
        return f"{extent} pulmonary infection, {count.lower()} infected area{'s' * many}, {_listed(places)}."
    if style == 1:
        places = [_zone_of(a, "{side} {levels} zone{s}", "all {side} lung") for a in areas]
        return f"{count} opacities, {_listed(places)}." if many else f"{places[0].capitalize().removesuffix('s')} opacity."
    if style == 2:
        places = [_zone_of(a, "the {levels} zone{s} of the {side} lung", "all of the {side} lung") for a in areas]
        return f"{count + ' opacities' if many else 'Opacity'} in {_listed(places)}."
    if style == 3:
        places = [_zone_of(a, "the {levels} {side} lung", "all of the {side} lung") for a in areas]
        return f"{count if many else 'Hazy'} {'hazy patches' if many else 'patch'} in {_listed(places)}."
    places = [_zone_of(a, "the {side} {levels} zone{s}", "all of the {side} lung") for a in areas]
    verb = "are" if many or 1 < len(areas[0].levels) < 3 else "is"
    return f"{count + ' areas are hazy, ' + _listed(places) if many else f'{places[0].capitalize()} {verb} hazy'}."


def _zone_of(area: Area, some: str, whole: str) -> str:
    k = len(area.levels)
    return (whole if k == 3 else some).format(side=area.side, levels=" and ".join(area.levels), s="s" * (k == 2))


def _listed(places: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(places[:-1]), places[-1])))
