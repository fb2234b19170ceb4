"""Which files of a series are slices of one stack, in the order of their places, and on what grid those places lie.

Slices share size, pixel spacing, orientation, frame of reference and which end of their values is bright, and no two lie at one place.
What is left over is a film of its own, and whatever is odd is said by a code of `errors.WARNINGS`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from .dicom_header import case_id, flat_frames, hashed_id, modality_of
from .dicom_pixels import GRAY
from .dicom_place import directions, position, spacing

SAME_MM = 0.01  # slices that are nearer lie at the same place
UNEVEN = 0.1  # of the usual step: how far a slice may lie before or behind its plane of an even grid; positions are often rounded
MISSING = 1.9  # of the usual step: where two slices are farther apart, one between them is missing
ROOM = 4  # an even grid has at most so many planes for each slice that there is
TILT = 0.01  # of the step between slices, beside the normal: 0.6 degrees
PARALLEL, ALIKE_MM = 1e-4, 5e-4  # by which a component of the directions, or a pixel spacing, may differ
#: What tells slices at one place apart, the surest first; beside the names of single frames those of frames in one file.
PHASES = (
    *("EchoTime", "EffectiveEchoTime", "EchoNumbers", "TemporalPositionIdentifier", "TemporalPositionIndex", "DiffusionBValue"),
    *("InversionTime", "InversionTimes", "ImageType", "FrameType", "ComplexImageComponent", "AcquisitionNumber", "FrameAcquisitionNumber"),
    *("StackID", "TriggerTime", "NominalCardiacTriggerDelayTime"),
)
PHASE_TAGS = (0x00180081, 0x00180086, 0x00200100, 0x00189087, 0x00180082, 0x00080008, 0x00200012, 0x00181060)


@dataclass(frozen=True)
class Series:
    """Files that belong together. `stacked`: slices on one grid, sorted by position, for read_volume; else films, each for itself.

    A multi-frame file with a place for each frame is a stack of its own, or several: `frames` are those of this one, from 0, in the order
    of their places. `warnings` are codes.
    """

    id: str
    modality: str
    files: tuple[Path, ...]
    stacked: bool = False
    warnings: tuple[str, ...] = ()
    frames: tuple[int, ...] = ()


@dataclass(frozen=True)
class Part:
    """What is known of a file, or of a frame of one, before its pixels are read.

    `grid`, `cosines` and `spacing_mm` are what it shares with the other slices of a stack, `phase` the values of PHASES. `place`: its
    position in mm, and the directions of rows and columns; None for what can be no slice, since it states no place or has colours.
    """

    path: Path
    number: int
    uid: str
    grid: tuple[object, ...]
    cosines: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    phase: tuple[str, ...]
    place: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    modality: str
    frames: int
    localiser: bool


@dataclass(frozen=True)
class Layout:
    """Where the slices of a stack lie: `step` in mm from a plane of the even grid to the next, and the plane of each slice from 0 on.

    `planes` None: no even grid holds them, and `step` is their mean. `thickness_mm` is what each slice stands for: the way to its
    neighbours, or the usual one where a slice is missing, so that nothing is counted where none lies.
    """

    step: NDArray[np.float64]
    planes: tuple[int, ...] | None
    thickness_mm: tuple[float, ...]
    tilted: bool

    @property
    def warnings(self) -> list[str]:
        """slice_gaps where slices are missing or uneven, gantry_tilt where they do not follow their normal."""
        whole = self.planes is not None and self.planes[-1] == len(self.planes) - 1
        return ["slice_gaps"] * (not whole) + ["gantry_tilt"] * self.tilted


def part_of(path: Path, header: Dataset, number: int | None = None) -> Part:
    """A file, or its frame `number` with `header` as `flat` lays it."""
    cosines, origin, (grid_mm, said) = directions(header), position(header), spacing(header)
    colours = str(header.get("PhotometricInterpretation") or "").strip()
    if cosines is None or origin is None or grid_mm is None or said or colours not in GRAY:
        place = None
    else:
        place = (origin, cosines)
    return Part(
        path=path,
        number=_number(header) if number is None else number,
        uid=str(header.get("SOPInstanceUID") or ""),
        grid=(
            *(header.get(name) for name in ("Rows", "Columns")),
            colours,
            str(header.get("FrameOfReferenceUID") or ""),
        ),
        cosines=() if cosines is None else tuple(cosines.ravel().tolist()),
        spacing_mm=grid_mm or (),
        phase=tuple(_told(header, name) for name in PHASES),
        place=place,
        modality=modality_of(header),
        frames=int(header.get("NumberOfFrames") or 1),
        localiser="LOCALIZER" in f"{header.get('ImageType')} {header.get('FrameType')}".upper(),
    )


def sort_series(uid: str, parts: Sequence[Part]) -> list[Series]:
    """The files of one series, those of one frame, as stacks and films: localisers, other orientations, grids and phases apart."""
    name, modality = hashed_id(uid.encode()), parts[0].modality
    stacks, films, said = _divided(parts)
    out = []
    for place, (slices, warnings) in enumerate(stacks):
        id = name if place == 0 and not films else hashed_id(f"{uid} {place}".encode())
        out.append(Series(id, modality, tuple(part.path for part in slices), True, warnings))
    if films:
        out.append(Series(name, modality, tuple(part.path for part in films), False, said))
    return out


def sort_frames(path: Path, header: Dataset) -> list[Series]:
    """A multi-frame file by the same rule: its stacks of slices, or one film where no two of its frames make one.

    A frame that belongs to no stack is left out, and said (loose_frames).
    """
    uid, modality = str(header.get("SOPInstanceUID") or path), modality_of(header)
    name = case_id(header) or hashed_id(str(path).encode())
    own = list(header.get("PerFrameFunctionalGroupsSequence") or [])
    groups = [*(header.get("SharedFunctionalGroupsSequence") or []), *own]
    told = any("PlanePositionSequence" in group for group in groups)  # a loop of thousands tells no place, and is not walked through
    frames = [part_of(path, view, n) for n, view in enumerate(flat_frames(header, range(len(own) if told else 0)))]
    stacks, films, said = _divided(frames)
    if not stacks:
        return [Series(name, modality, (path,), False, said)]
    loose = ("loose_frames",) if films else ()
    return [
        Series(
            name if place == 0 else hashed_id(f"{uid} {place}".encode()),
            modality,
            (path,),
            True,
            (*warnings, *loose),
            tuple(part.number for part in slices),
        )
        for place, (slices, warnings) in enumerate(stacks)
    ]


def _divided(parts: Sequence[Part]) -> tuple[list[tuple[list[Part], tuple[str, ...]]], list[Part], tuple[str, ...]]:
    """Stacks of two or more slices in order, each with its warnings; what is left over, by its numbers, and the warnings of that."""
    films = [part for part in parts if part.localiser or part.place is None]
    shared = ["localiser"] if 0 < sum(part.localiser for part in parts) < len(parts) else []
    ways = _alike([part for part in parts if not part.localiser and part.place is not None], lambda part: part.cosines, PARALLEL)
    groups: list[list[Part]] = []
    for way in ways:
        grids: dict[tuple[object, ...], list[Part]] = defaultdict(list)
        for part in way:
            grids[part.grid].append(part)
        groups += [group for same in grids.values() for group in _alike(same, lambda part: part.spacing_mm, ALIKE_MM)]
    shared += ["mixed_orientations"] if len(ways) > 1 else []
    shared += ["mixed_grids"] if len(groups) > len(ways) else []
    stacks: list[tuple[list[Part], tuple[str, ...]]] = []
    of_films: list[str] = []
    for group in groups:
        own, said = _apart(group)
        for slices in own:
            if len(slices) > 1:
                stacks.append((slices, tuple(dict.fromkeys((*shared, *said, *layout_of(slices).warnings)))))
            else:
                films, of_films = films + slices, of_films + said
    return stacks, sorted(films, key=lambda part: (part.number, part.path)), tuple(dict.fromkeys((*shared, *of_films)))


def _alike(parts: Sequence[Part], values: Callable[[Part], tuple[float, ...]], near: float) -> list[list[Part]]:
    """Parts whose values are near those of the first of their group. Rounded ones would fall apart where jitter crosses a border."""
    groups: list[list[Part]] = []
    known: dict[tuple[float, ...], list[Part]] = {}
    firsts = np.empty((0, len(values(parts[0])) if parts else 0))
    for part in parts:
        own = values(part)
        if own not in known:
            close = np.flatnonzero((np.abs(firsts - own) <= near).all(axis=1))
            if not len(close):
                groups.append([])
                firsts = np.vstack([firsts, own])
            known[own] = groups[close[0] if len(close) else -1]
        known[own].append(part)
    return groups


def layout_of(slices: Sequence[Part]) -> Layout:
    """Of two or more slices with a place, in their order, no two at one place."""
    points, cosines = np.array([_place(part)[0] for part in slices]), _place(slices[0])[1]
    normal = np.cross(*cosines)
    steps = np.diff(points, axis=0)
    heights = steps @ normal
    usual = float(np.sort(heights)[(len(heights) - 1) // 2])
    aside = np.linalg.norm(steps - heights[:, None] * normal, axis=1)
    reach = np.where(heights < MISSING * usual, heights, usual)
    return Layout(
        *_grid(points, heights, usual, normal, min(slices[0].spacing_mm)),
        thickness_mm=tuple(float(mm) for mm in (np.append(reach[0], reach) + np.append(reach, reach[-1])) / 2),
        tilted=bool((aside > TILT * heights).any()),
    )


def _grid(
    points: NDArray[np.float64], heights: NDArray[np.float64], usual: float, normal: NDArray[np.float64], pixel_mm: float
) -> tuple[NDArray[np.float64], tuple[int, ...] | None]:
    """Step and planes of a Layout: each slice must lie on its plane, and within half a pixel of its place there."""
    mean = (points[-1] - points[0]) / len(heights)
    counts = np.maximum(1, np.rint(heights / usual))
    planes = np.append(0, np.cumsum(counts))
    if planes[-1] >= ROOM * len(points):
        return mean, None
    step = (points[-1] - points[0]) / planes[-1]
    off = points - points[0] - planes[:, None] * step
    along = off @ normal
    beside = np.linalg.norm(off - along[:, None] * normal, axis=1)
    if (np.abs(along) > max(SAME_MM, UNEVEN * usual)).any() or (beside > max(SAME_MM, pixel_mm / 2)).any():
        return mean, None
    return step, tuple(int(plane) for plane in planes)


def _apart(group: Sequence[Part]) -> tuple[list[list[Part]], list[str]]:
    """The slices of one grid as stacks in order, with one slice at each place, and what is to be said of that."""
    seen: dict[object, Part] = {}
    for part in group:
        seen.setdefault((part.uid or part.path, part.number, part.phase, *_place(part)[0]), part)
    slices = list(seen.values())
    said = ["duplicate_files"] if len(slices) < len(group) else []
    crowds = _crowds(slices)
    crowded = 2 * sum(len(crowd) > 1 for crowd in crowds) >= len(crowds)
    phases = _phases(slices) if crowded else _repeated(slices, len(crowds))
    said += ["several_phases"] if len(phases) > 1 else []
    out = []
    for phase in phases:
        crowds = _crowds(phase)
        ranks = range(max(map(len, crowds)))
        said += ["duplicate_positions"] if len(ranks) > 1 else []
        out += [[crowd[rank] for crowd in crowds if rank < len(crowd)] for rank in ranks]
    return out, list(dict.fromkeys(said))


def _phases(slices: Sequence[Part]) -> list[Sequence[Part]]:
    """Echoes, times and acquisitions apart: by what has no more values than there are slices at a place, and leaves fewer there."""
    most = _most(slices)
    for values in _by_phase(slices):
        if 1 < len(values) <= most and max(map(_most, values.values())) < most:
            return [phase for some in values.values() for phase in _phases(some)]
    return [slices]


def _repeated(slices: Sequence[Part], places: int) -> list[Sequence[Part]]:
    """A phase that has every place for itself, and two slices or more beside it: an acquisition that was broken off and begun again."""
    for values in _by_phase(slices):
        for value, own in values.items():
            if places <= len(own) <= len(slices) - 2 and len(_crowds(own)) == places:
                return _phases(own) + _phases([part for other, parts in values.items() if other != value for part in parts])
    return [slices]


def _by_phase(slices: Sequence[Part]) -> Iterator[dict[str, list[Part]]]:
    """The slices by their values of one of PHASES after the other."""
    for place in range(len(PHASES)):
        values: dict[str, list[Part]] = defaultdict(list)
        for part in slices:
            values[part.phase[place]].append(part)
        yield values


def _crowds(slices: Sequence[Part]) -> list[list[Part]]:
    """The slices at each place, by their numbers; places along the normal of the first slice."""
    crowds: list[list[Part]] = []
    reach = -np.inf
    for height, part in sorted(zip(_along(slices), slices, strict=True), key=lambda one: (one[0], one[1].number, one[1].path)):
        if height - reach > SAME_MM:
            crowds.append([])
            reach = height
        crowds[-1].append(part)
    return [sorted(crowd, key=lambda part: (part.number, part.path)) for crowd in crowds]


def _most(slices: Sequence[Part]) -> int:
    """How many slices lie at one place at most."""
    return max(map(len, _crowds(slices)))


def _along(slices: Sequence[Part]) -> list[float]:
    """Positions along the normal of the first slice, in mm."""
    normal = np.cross(*_place(slices[0])[1])
    return [float(_place(part)[0] @ normal) for part in slices]


def _place(part: Part) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if part.place is None:
        raise ValueError("slices of a stack have a place")
    return part.place


def _told(header: Dataset, keyword: str) -> str:
    try:
        return str(header.get(keyword) or "")
    except Exception:  # pydicom converts values when they are asked for; one that cannot be read tells nothing
        return ""


def _number(header: Dataset) -> int:
    try:
        return int(header.get("InstanceNumber") or 0)
    except (TypeError, ValueError):
        return 0
