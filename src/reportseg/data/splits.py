"""Who is trained on and who is held out: dev, splits that we make, and published splits that are frozen in `splits/`.

Nothing is drawn from a random state: patients are ranked by a hash of (name, patient), so a split is the same on every machine and in any
order of the rows, and a film that is added moves no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..schemas.base import load_json
from ..types import Sample

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
FROZEN = Path(__file__).parents[3] / "splits"
"""Published splits, in a checkout of the sources; an installed package has none."""


def split_sha256(ids: Iterable[str]) -> str:
    """sha256 of the sorted ids joined by newlines, none at the end."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()


def draw_dev(samples: Sequence[Sample], name: str, share: float = 0.1) -> list[str]:
    """Sorted ids of about `share` of the rows, whole patients; a film without a patient is its own. Depends on `name` and the ids alone.

    InputError one_patient where dev cannot be kept apart from the rest.
    """
    groups = _ranked(samples, name)
    if len(groups) < 2:
        raise InputError(
            "all films belong to one patient, so none can be held out", "", "Fill in the column patient, or add films.", "one_patient"
        )
    return sorted(s.id for group in _take(groups, max(1, round(share * len(samples)))) for s in group)


def split_by_patient(samples: Sequence[Sample], name: str, shares: Mapping[str, float] = SHARES) -> dict[str, str]:
    """A split for each id; the first name of `shares` gets what the others leave.

    No two splits share a patient or a film: files of equal bytes stay together, and with them the patients that they stand for.
    """
    (rest, _), *others = shares.items()
    split, left = {s.id: rest for s in samples}, _joined(_ranked(samples, name))
    for part, share in others:
        taken = _take(left, round(share * len(samples)))
        split |= {s.id: part for group in taken for s in group}
        left = [group for group in left if split[group[0].id] == rest]
    return split


def nested_shares(samples: Sequence[Sample], name: str, shares: Sequence[float]) -> list[list[str]]:
    """Sorted ids of each of the ascending `shares` of the rows, whole patients, every share within the next one.

    Depends on `name` and the ids alone, and ranks patients otherwise than `draw_dev`. At least two patients are in each, one to train
    on and one for dev. InputError shares: two of them hold the same films.
    """
    groups = _ranked(samples, f"{name}, shares")
    found: list[list[str]] = []
    for share in shares:
        ids: list[str] = []
        for number, group in enumerate(groups):
            if number >= 2 and len(ids) + len(group) > round(share * len(samples)):
                break
            ids += [s.id for s in group]
        found.append(sorted(ids))
    for one, two, ids, more in zip(shares, shares[1:], found, found[1:], strict=False):
        if len(ids) == len(more):
            what = f"the shares {one:g} and {two:g} hold the same {len(ids)} films: patients are not torn apart"
            raise InputError(what, "--shares", "Leave one out, or take more films.", "shares")
    return found


def shared_patients(samples: Sequence[Sample]) -> dict[tuple[str, str], list[str]]:
    """Patients that two splits have in common, sorted, for each pair of splits that has any."""
    known: dict[str, set[str]] = {}
    for s in samples:
        if s.patient and s.split:
            known.setdefault(s.split, set()).add(s.patient)
    names = list(known)
    pairs = {(a, b): sorted(known[a] & known[b]) for i, a in enumerate(names) for b in names[i + 1 :]}
    return {pair: both for pair, both in pairs.items() if both}


def rows_known(samples: Sequence[Sample], split: str, other: str) -> tuple[int, int]:
    """(rows of `split` whose patient `other` has too, rows of `split`)."""
    patients = {s.patient for s in samples if s.split == other and s.patient}
    rows = [s.patient for s in samples if s.split == split]
    return sum(patient in patients for patient in rows), len(rows)


def mark_disjoint(rows: Sequence[dict[str, str]]) -> None:
    """Sets the subset `disjoint`, in place, on the held-out rows of a known patient that train does not have, and on no other.

    Without a train split nothing is known: no row gets it.
    """
    train = {row.get("patient", "") for row in rows if row["split"] == "train"}
    for row in rows:
        subsets = [s for s in row.get("subsets", "").split(";") if s and s != "disjoint"]
        patient = row.get("patient", "")
        if train and row["split"] != "train" and patient and patient not in train:
            subsets.append("disjoint")
        row["subsets"] = ";".join(subsets)


def _ranked(samples: Sequence[Sample], name: str) -> list[list[Sample]]:
    """The rows by patient, else by film, in the order that `name` gives them."""
    groups: dict[tuple[str, str], list[Sample]] = {}
    for s in sorted(samples, key=lambda s: s.id):
        groups.setdefault(("patient", s.patient) if s.patient else ("film", str(s.image)), []).append(s)
    seed = hashlib.sha256(name.encode()).digest()

    def rank(group: list[Sample]) -> bytes:  # by the first id where there is no patient: paths differ between machines
        return hashlib.sha256(seed + (group[0].patient or group[0].id).encode()).digest()

    return sorted(groups.values(), key=rank)


def _joined(groups: list[list[Sample]]) -> list[list[Sample]]:
    """Groups that share a film become one, at the place of the first of them."""
    same = _same_bytes(s.image for group in groups for s in group)
    home: dict[str, list[Sample]] = {}  # the group that a film is in
    for group in groups:
        films = [same.get(s.image, str(s.image)) for s in group]
        first, *others = {id(home[film]): home[film] for film in films if film in home}.values() or [[]]
        for part in [*others, group]:
            first += part
            home |= {same.get(s.image, str(s.image)): first for s in part}
    return list({id(group): group for group in home.values()}.values())


def _same_bytes(films: Iterable[Path]) -> dict[Path, str]:
    """The hash of each file that may equal another one: only files of equal size are read. One that cannot be read is its own."""
    sizes: dict[int, list[Path]] = {}
    for film in dict.fromkeys(films):
        with suppress(OSError):
            sizes.setdefault(film.stat().st_size, []).append(film)
    found = {}
    for film in (film for alike in sizes.values() if len(alike) > 1 for film in alike):
        with suppress(OSError), open(film, "rb") as file:
            found[film] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _take(groups: list[list[Sample]], wanted: int) -> list[list[Sample]]:
    """The first groups that fit into `wanted` rows; the smallest one if none does. Never all of them, and none of one."""
    if len(groups) < 2 or wanted < 1:
        return []
    taken: list[list[Sample]] = []
    count = 0
    for group in groups:
        if count + len(group) <= wanted and len(taken) < len(groups) - 1:
            taken.append(group)
            count += len(group)
    return taken or [min(groups, key=len)]


# ---------------------------------------------------------------- published splits


@dataclass(frozen=True)
class FrozenSplit:
    """A published split: films per split, and where they are known the sha256 of their sorted stems and the stems themselves."""

    name: str
    source: str
    counts: Mapping[str, int]
    sha256: Mapping[str, str]
    stems: Mapping[str, tuple[str, ...]]


def read_frozen(name: str, folder: Path = FROZEN) -> FrozenSplit | None:
    """The published split of this name, None where it is not at hand. ValueError where its hashes do not fit its stems."""
    file = folder / f"{name}.json"
    if not file.is_file():
        return None
    data = load_json(file)
    stems = {part: tuple(names) for part, names in data["stems"].items()}
    if any(split_sha256(names) != data["sha256"][part] or len(names) != data["counts"][part] for part, names in stems.items()):
        raise ValueError(f"{file.name} contradicts itself")
    return FrozenSplit(data["name"], data["source"], data["counts"], data["sha256"], stems)


def compare_frozen(name: str, found: Mapping[str, Sequence[str]], folder: Path = FROZEN) -> list[str]:
    """Sentences on how the stems that were found, by split, stand to a published one: that of this name, else one that is the same."""
    if not folder.is_dir():
        return ["published splits are not installed with the package; the split was not compared"]
    frozen = read_frozen(name, folder)
    if frozen is None:
        others = (read_frozen(file.stem, folder) for file in sorted(folder.glob("*.json")))
        frozen = next((other for other in others if other and _same(other, found)), None)
    if frozen is None:
        return []
    hint = [] if frozen.name == name else [f"if this is {frozen.name}, import it with --name {frozen.name}: dev is drawn by the name"]
    return [_compared(frozen, part, stems) for part, stems in found.items()] + hint


def _same(frozen: FrozenSplit, found: Mapping[str, Sequence[str]]) -> bool:
    """Whether all counts are equal and some split stem by stem. Counts alone would not do: several data sets have 800, 100 and 100."""
    counted = all(frozen.counts.get(part) == len(stems) for part, stems in found.items())
    return counted and any(frozen.sha256.get(part) == split_sha256(stems) for part, stems in found.items())


def _compared(frozen: FrozenSplit, part: str, stems: Sequence[str]) -> str:
    if part not in frozen.counts:
        return f"{part}: {frozen.name} was published without this split"
    if part not in frozen.sha256:
        equal = "as many as" if len(stems) == frozen.counts[part] else f"not the {frozen.counts[part]} of"
        return f"{part}: {len(stems)} films, {equal} the published split of {frozen.name}; their names are not on record"
    if split_sha256(stems) == frozen.sha256[part]:
        return f"{part}: {len(stems)} films, equals the published split of {frozen.name}"
    lacks, extra = len(set(frozen.stems[part]) - set(stems)), len(set(stems) - set(frozen.stems[part]))
    return f"{part}: {len(stems)} films, differs from the published split of {frozen.name}: {lacks} missing, {extra} not in it"
