"""The nouns of reportseg: plain, frozen, numpy only. Shapes: H rows, W columns, C channels (1 or 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Laterality = Literal["patient", "image", "none"]
Side = Literal["left", "right", "bilateral"]
Polarity = Literal["present", "absent", "uncertain"]
Reason = Literal["no_finding", "indication", "history", "recommendation", "technique", "other_language"]
"""Why a sentence of a report gives no finding: it names none, tells why or how the film was taken, the past, or what to do, or the report
is not in English."""

INTENDED_USE = "Research use only. Not a medical device: not for diagnosis or treatment."


Affine = tuple[tuple[float, ...], ...]
"""Four rows of four: (slice, row, column, 1) of a pixel to the patient coordinates of its centre, LPS in mm, as DICOM has them."""
Orientation = tuple[str, str]
"""Where in the patient columns and rows count up to, as DICOM's PatientOrientation: two of L R, A P, H F, of different pairs."""

_TURNED = {"R": "L", "A": "P", "H": "F"}  # ends of axes that are displayed the other way


@dataclass(frozen=True)
class Geometry:
    """The grid an image was stored on. `spacing_mm` is (row, column) distance, None where the file states none.

    `orientation` None: the file does not say, or is of a kind that is shown as it is stored. `affine` None: no patient coordinates. `axes`:
    which axes of the file's array are slice (one only), row and column; not in their order where NIfTI is flat in another direction.
    """

    shape: tuple[int, int]
    spacing_mm: tuple[float, float] | None = None
    orientation: Orientation | None = None
    affine: Affine | None = None
    axes: tuple[int, int, int] = (0, 1, 2)

    @property
    def pixel_area_mm2(self) -> float | None:
        """Area of a pixel, None where the spacing is unknown."""
        return None if self.spacing_mm is None else self.spacing_mm[0] * self.spacing_mm[1]

    @property
    def has_sides(self) -> bool:
        """Whether left and right of the displayed film are sides of the patient: not in a lateral view, nor in a mammogram from above."""
        return self.orientation is None or bool({"L", "R"} & set(self.orientation if self._turn()[0] else self.orientation[:1]))

    @property
    def displayed_shape(self) -> tuple[int, int]:
        """Rows and columns of `displayed`."""
        return self.shape[::-1] if self._turn()[0] else self.shape

    def displayed(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array (H, W, ...) on this grid, turned as people look at the film: a view, the same pixels."""
        transpose, rows, columns = self._turn()
        array = array.swapaxes(0, 1) if transpose else array
        return array[:: -1 if rows else 1, :: -1 if columns else 1]

    def stored(self, array: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `displayed`."""
        transpose, rows, columns = self._turn()
        array = array[:: -1 if rows else 1, :: -1 if columns else 1]
        return array.swapaxes(0, 1) if transpose else array

    def _turn(self) -> tuple[bool, bool, bool]:
        """Transpose first, then flip rows, flip columns: the patient's left comes to the right, feet or back come down.

        A frontal film that lies on its side is set upright. A view without left and right beside each other stays as it is stored.
        """
        if self.orientation is None:
            return False, False, False
        across, down = self.orientation
        transpose = across in "HF" and down in "LR"
        if transpose:
            across, down = down, across
        if across not in "LR":
            return False, False, False
        return transpose, down in _TURNED, across in _TURNED


@dataclass(frozen=True)
class Image:
    """A decoded film: float32 pixels in [0, 1], shape (H, W, C), as the file stores them, and where they lie.

    `laterality` is what the *format* implies (DICOM and NIfTI: patient), None where the format does not say (PNG, JPEG, TIFF, arrays).
    `id` is a name without a person's in it, where the format has one; `modality` is DICOM's. `headers` holds the pydicom dataset behind
    the pixels, without them, for writers of DICOM: it names the patient, so it is kept out of `repr` and must stay out of logs.
    """

    pixels_HWC: NDArray[np.float32]
    geometry: Geometry
    format: str
    laterality: Laterality | None = None
    warnings: tuple[str, ...] = ()
    id: str = ""
    modality: str = ""
    headers: tuple[Any, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Volume:
    """Slices on one grid: values (D, H, W) as they are meant (Hounsfield units in CT), neither windowed nor scaled.

    Slice d is that of `headers[d]`; of a multi-frame file there is one header, and slice d is its frame `frames[d]`, from 1. `window` is
    the file's own (centre, width), its first; `inverted`: its least value is white. NIfTI has no headers.

    The slices may be some of the planes of the even grid that `affine` tells: slice d is `planes[d]`, and () means that none is missing.
    None: no even grid holds the slices, and the step of `affine` is their mean; `thickness_mm` is then what each of them stands for.
    """

    values_DHW: NDArray[Any]
    affine: Affine
    format: str
    id: str = ""
    modality: str = ""
    window: tuple[float, float] | None = None
    frames: tuple[int, ...] = ()
    planes: tuple[int, ...] | None = ()
    thickness_mm: tuple[float, ...] = ()
    inverted: bool = False
    warnings: tuple[str, ...] = ()
    headers: tuple[Any, ...] = field(default=(), repr=False, compare=False)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(slice, row, column) distance of neighbouring voxel centres, from the affine."""
        slice_, row, column = (float(step) for step in np.linalg.norm(np.array(self.affine)[:3, :3], axis=0))
        return slice_, row, column

    def millilitres(self, mask_DHW: NDArray[np.bool_]) -> float:
        """The volume of a mask on these slices; what lies between slices that are missing is not counted."""
        steps = np.array(self.affine)[:3, :3]
        if not self.thickness_mm:  # the determinant, since slices may be shifted against each other
            return int(np.count_nonzero(mask_DHW)) * abs(float(np.linalg.det(steps))) / 1000
        area = float(np.linalg.norm(np.cross(steps[:, 1], steps[:, 2])))
        return float(np.count_nonzero(mask_DHW, axis=(1, 2)) @ np.array(self.thickness_mm)) * area / 1000

    def on_grid(self, mask_DHW: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the slices on the whole even grid, where planes that are missing are empty. ValueError where there is no such grid."""
        if self.planes is None:
            raise ValueError("these slices lie on no even grid")
        if not self.planes:
            return mask_DHW
        whole = np.zeros((self.planes[-1] + 1, *mask_DHW.shape[1:]), np.bool_)
        whole[list(self.planes)] = mask_DHW
        return whole


@dataclass(frozen=True)
class Sample:
    """One row of a manifest, paths resolved. `mask` is None in a jobs file.

    `text` is as written and may be empty; `laterality` says whose left it means. `flip_safe`: the mirrored film with swapped side words is
    as true. `present` False: an absent target, whose mask is empty. `spacing_mm` is (row, column) distance. An empty `patient` means
    unknown. `row` is the manifest's data row, from 1; `extra` has its other columns.
    """

    id: str
    image: Path
    mask: Path | None
    text: str
    split: str = ""
    patient: str = ""
    laterality: Laterality = "none"
    flip_safe: bool = False
    text_source: str = ""
    label: str = ""
    present: bool = True
    complete: bool = True  # the text names every target that the film shows
    subsets: tuple[str, ...] = ()
    study: str = ""
    slice: int | None = None
    spacing_mm: tuple[float, float] | None = None
    slice_mm: float | None = None  # distance to the next slice of the study
    row: int = 0  # 1-based data row of the manifest
    extra: Mapping[str, str] = field(default_factory=dict)
    finding: Finding | None = None  # what of a report `text` is


@dataclass(frozen=True)
class Finding:
    """A clause of a report: `report[span[0]:span[1]] == text`. What the clause does not name is None."""

    text: str
    span: tuple[int, int]
    polarity: Polarity
    side: Side | None = None
    zone: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Prediction:
    """One answer on the native grid (H, W) of its image.

    `probability_HW` float32 in [0, 1] is calibrated; `mask_HW` bool is after the decision rule, and empty for a text that wholly denies
    (`polarity` absent). `presence` in [0, 1] is None where no bundle has the head. `side` is where the mask lies, in the convention of
    `laterality`, None for an empty mask. `warnings` are codes of `errors.WARNINGS`; `time_s` are seconds.

    `uncertainty` in [0, 1] is 1 minus the Dice to expect of the mask, None for a text that denies. Only of answers that were examined:
    `disagreement` in [0, 1] and `spread_HW` float32 in [0, 0.5], None where one answer alone was given (see `uncertainty`), and `raw_HW`,
    the probabilities at temperature 1.
    """

    id: str
    mask_HW: NDArray[np.bool_]
    probability_HW: NDArray[np.float32]
    geometry: Geometry
    text: str
    presence: float | None
    side: Side | None
    laterality: Laterality
    decision: Mapping[str, object]
    engine: str
    bundle_sha256: str
    warnings: tuple[str, ...] = ()
    time_s: float = 0.0
    polarity: Polarity = "present"
    finding: Finding | None = None  # what of a report was asked; None for a prompt
    unknown_words: tuple[str, ...] = ()  # those behind the warning out_of_vocabulary
    uncertainty: float | None = None
    disagreement: float | None = None
    spread_HW: NDArray[np.float32] | None = None
    raw_HW: NDArray[np.float32] | None = None

    @property
    def area_px(self) -> int:
        """Pixels in the mask, on the image's own grid."""
        return int(self.mask_HW.sum())

    @property
    def area_mm2(self) -> float | None:
        """The mask's area, None where the spacing is unknown."""
        pixel = self.geometry.pixel_area_mm2
        return None if pixel is None else self.area_px * pixel


@dataclass(frozen=True)
class VolumePrediction:
    """One answer on the slices (D, H, W) of a volume; the other fields are those of `Prediction`. `volume_ml` is that of the mask in
    millilitres, `spacing_mm` the distances of slices, rows and columns. `probability_DHW` is in steps of 1/255, None where nobody asked.
    """

    id: str
    mask_DHW: NDArray[np.bool_]
    volume_ml: float
    spacing_mm: tuple[float, float, float]
    text: str
    presence: float | None
    side: Side | None
    laterality: Laterality
    decision: Mapping[str, object]
    engine: str
    bundle_sha256: str
    warnings: tuple[str, ...] = ()
    time_s: float = 0.0
    polarity: Polarity = "present"
    finding: Finding | None = None
    unknown_words: tuple[str, ...] = ()
    probability_DHW: NDArray[np.uint8] | None = None

    @property
    def voxels(self) -> int:
        """Voxels in the mask."""
        return int(np.count_nonzero(self.mask_DHW))


@dataclass(frozen=True)
class CaseScore:
    """Counts of pixels on the true mask's grid first, scores second. An empty `patient` means unknown; no text is kept.

    `dice`, `iou`, `nsd` and `presence` are in [0, 1], higher is better; `hd95` is a distance in the unit that metrics.json names.
    `uncertainty` and `disagreement` are those of the prediction, None where it has none.
    """

    id: str
    patient: str
    text_name: str
    tp: int
    fp: int
    fn: int
    dice: float
    iou: float
    hd95: float
    nsd: float
    presence: float | None
    present_truth: bool
    area_px: int
    warnings: tuple[str, ...] = ()
    uncertainty: float | None = None
    disagreement: float | None = None
