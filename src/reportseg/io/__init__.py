"""Image files to arrays. The format is told by the first bytes, never by the extension; budgets are checked before decoding."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL import ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import InputError
from ..limits import DEFAULT, VARIABLE, Limits, check_file, check_pixels, unique_ids
from ..types import Geometry, Image
from .nifti import is_nifti, read_nifti
from .png import PNG_SIGNATURE, check_png, cut_short
from .slices import film_of

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
#: Files that bear these are named by those who export pictures; what bears another may be of a clinic, and its name a patient's.
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".nii", ".gz")
READS = "this version reads DICOM, NIfTI, PNG, JPEG, TIFF, BMP and GIF"
MAGIC: dict[bytes, str] = {
    PNG_SIGNATURE: "png",
    b"\xff\xd8\xff": "jpeg",
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"BM": "bmp",
    b"GIF87a": "gif",
    b"GIF89a": "gif",
}
# The plugin classes themselves, not PIL.Image.open: that tries every format it knows and has a pixel limit of its own, which is global.
OPENERS: dict[str, Callable[[IO[bytes]], ImageFile.ImageFile]] = {
    "png": PngImageFile,
    "jpeg": JpegImageFile,
    "tiff": TiffImageFile,
    "bmp": BmpImageFile,
    "gif": GifImageFile,
}
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_TILE, EXIF_ORIENTATION = 258, 262, (322, 323), 274
# EXIF orientation -> (transpose, flip rows, flip columns), applied in this order
TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def read_image(source: str | Path | bytes, limits: Limits = DEFAULT) -> Image:
    """A file, or its bytes, as float32 (H, W, C) in [0, 1] with C 1 or 3, upright as EXIF says.

    16-bit gray is divided by 65535, a 32-bit integer as one of 8 bits where all fit those, else of 16. Colour that pillow can name becomes
    RGB. Only the first frame is read (warning multi_frame) and transparency is left out (alpha_dropped). DICOM: see `dicom.read_dicom`;
    NIfTI: `nifti.read_nifti` and `slices.film_of`.
    InputError: those of check_file and read_dicom, empty_file, too_large, unsupported_format, unsupported_mode, truncated, corrupt,
    not_finite, bad_range.
    """
    if isinstance(source, bytes):
        if not source:
            raise InputError("the image is empty", fix="Send the whole file.", code="empty_file")
        return _decode(io.BytesIO(source), "", limits)
    size = check_file(source).stat().st_size
    if size > limits.volume_bytes:
        raise InputError(
            f"the file has {size:,} bytes, more than the limit of {limits.volume_bytes:,}",
            source,
            f"Make it smaller, or allow it: {VARIABLE}=volume_bytes={size}.",
            "too_large",
        )
    with open(source, "rb") as file:
        return _decode(file, str(source), limits)


def case_ids(paths: Sequence[str | Path], limits: Limits = DEFAULT) -> list[str]:
    """One id per path, in order: of DICOM `case-` and a hash of its UID, since hospitals name files after people; else as unique_ids."""
    return unique_ids([hashed_name(Path(path), limits) or _without_gz(Path(path)) for path in paths])


def hashed_name(path: Path, limits: Limits = DEFAULT) -> str | None:
    """`case-` and a hash for a name that a hospital may have given: of DICOM, folders, zips, what has no picture's suffix. Else None."""
    clinical = path.suffix.lower() not in PICTURE_SUFFIXES if path.suffix else os.path.exists(path)
    return dicom_name(path, limits) or (_hash_of(path) if clinical or os.path.isdir(path) or _is_zip(path) else None)


def dicom_name(path: Path, limits: Limits = DEFAULT) -> str | None:
    """The same for DICOM alone, which is told by its first bytes, or where it cannot be read by its name."""
    from .dicom_header import dicom_id

    return dicom_id(path, limits) or (_hash_of(path) if path.name.lower().endswith(DICOM_SUFFIXES) else None)


def _is_zip(path: Path) -> bool:
    """By its first bytes."""
    from .dicom_header import is_zip

    try:
        with open(path, "rb") as file:
            return is_zip(file.read(136))
    except (OSError, ValueError):
        return False


def _hash_of(path: Path) -> str:
    from .dicom_header import hashed_id

    return hashed_id(path.name.encode("utf-8", "surrogateescape"))


def _without_gz(path: Path) -> Path:
    """The stem of a.nii.gz is a."""
    return path.with_suffix("") if path.name.lower().endswith(".nii.gz") else path


def read_mask(source: str | Path | bytes, limits: Limits = DEFAULT) -> NDArray[np.bool_]:
    """A mask file as bool (H, W): true where any channel is above half of the file's largest value, so 0/1 and 0/255 both work.

    InputError mask_values for a file of several labels: which one is meant cannot be told. Otherwise as read_image.
    """
    level = read_image(source, limits).pixels_HWC.max(axis=2)
    top = float(level.max())
    if 0 < top < 0.5 and bool(((level > 0) & (level < top)).any()):
        where = "" if isinstance(source, bytes) else source
        raise InputError("the mask holds several labels", where, "Write one mask file (0 and 255) per target.", "mask_values")
    mask: NDArray[np.bool_] = level > top / 2
    return mask


def image_from_array(array: NDArray[Any], where: str = "") -> Image:
    """(H, W) or (H, W, C) with C 1, 3 or 4 as an Image. uint8 is divided by 255, uint16 by 65535; bool and floats in [0, 1] stay.

    InputError: bad_shape, bad_dtype, not_finite, bad_range.
    """
    array = np.asarray(array)
    shape = array.shape
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise InputError(
            f"an image array has the shape (H, W) or (H, W, 3), not {shape}",
            where,
            "Move the channels last, one image at a time.",
            "bad_shape",
        )
    warnings: tuple[str, ...] = ()
    if array.shape[2] == 4:
        array, warnings = array[:, :, :3], ("alpha_dropped",)
    return _image(_unit(array, where), "array", warnings)


def image_from_pil(image: PIL.Image.Image, where: str = "", limits: Limits = DEFAULT) -> Image:
    """A PIL image as an Image, by the rules of read_image."""
    check_pixels(*image.size, where, limits)
    return _guarded(lambda: _convert(image, (image.format or "pil").lower(), where), where)


def sniff(head: bytes, where: str = "") -> str:
    """dicom, nifti (or gzip), png, jpeg, tiff, bmp or gif, from the first bytes of a file (352 are enough).

    InputError unsupported_format, or truncated.

    DICOM goes first: what its preamble looks like means nothing.
    """
    if head[128:132] == b"DICM":
        return "dicom"
    for magic, name in MAGIC.items():
        if head.startswith(magic):
            return name
    if any(magic.startswith(head) for magic in MAGIC):
        raise cut_short(where)
    if is_nifti(head):
        return "nifti"
    from .dicom_header import is_dicom, is_zip

    if is_dicom(head):
        return "dicom"
    kind = "this is a zip archive" if is_zip(head) else _foreign(head)
    raise InputError(
        f"{kind}; {READS}" if kind else f"the format is not known; {READS}", where, "Export the image as PNG.", "unsupported_format"
    )


def _foreign(head: bytes) -> str:
    return "this is a WebP file" if head[8:12] == b"WEBP" else "this is a PDF" if head[:5] == b"%PDF-" else ""


def _decode(file: IO[bytes], where: str, limits: Limits) -> Image:
    name = sniff(file.read(352), where)
    file.seek(0)
    if name == "dicom":
        from .dicom import read_dicom

        return read_dicom(file, where, limits)
    if name == "nifti":
        return film_of(read_nifti(where or file.read(), limits), where)

    def decode() -> Image:
        if name == "png":  # stricter than pillow, which takes a file without its end for whole
            check_png(file, where, limits)
        opened = OPENERS[name](file)
        check_pixels(*opened.size, where, limits)
        if isinstance(opened, TiffImageFile) and TIFF_TILE[0] in opened.tag_v2:
            check_pixels(int(opened.tag_v2[TIFF_TILE[0]]), int(opened.tag_v2[TIFF_TILE[1]]), where, limits)  # a tile may exceed its image
        return _convert(opened, name, where)

    return _guarded(decode, where)


def _guarded(decode: Callable[[], Image], where: str) -> Image:
    """Whatever pillow raises on a broken file (it raises some fifteen kinds) ends as one InputError."""
    try:
        return decode()
    except InputError:
        raise
    except (PIL.Image.DecompressionBombError, MemoryError) as e:
        raise InputError("the image is too large for this machine", where, "Make it smaller.", "too_large") from e
    except Exception as e:
        if isinstance(e, EOFError) or "truncated" in str(e).lower():
            raise cut_short(where) from e
        raise InputError(f"the image cannot be decoded ({e or type(e).__name__})", where, "Export it again, as PNG.", "corrupt") from e


def _convert(image: PIL.Image.Image, name: str, where: str) -> Image:
    image.load()
    warnings = []
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        warnings.append("alpha_dropped")
    pixels = _turned(_pixels(image, where), image)
    if getattr(image, "is_animated", False):  # asked last: for a GIF this seeks
        warnings.append("multi_frame")
    return _image(pixels, name, tuple(warnings))


def _pixels(image: PIL.Image.Image, where: str) -> NDArray[np.float32]:
    mode = image.mode
    if mode.startswith("I;16"):
        return _deep_gray(image)
    if mode == "I":  # 32 bits hold gray of 8 or 16; which, only the values tell: in 1/256 of a range there would be no picture
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError("the gray values do not fit 16 bits", where, "Scale them to 0..65535 and save as 16-bit PNG.", "bad_range")
        return _unit(values.astype(np.uint8 if values.max() <= 255 else np.uint16)[:, :, None], where)
    if mode == "F":
        return _unit(np.asarray(image)[:, :, None], where)
    if mode in ("1", "L"):
        return _unit(np.asarray(image.convert("L"))[:, :, None], where)
    if mode in ("LA", "La"):
        return _unit(np.asarray(image.getchannel(0))[:, :, None], where)
    if mode in ("P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"):
        return _unit(np.asarray(_rgb(image)), where)
    raise InputError(f"the colour mode {mode} cannot be read", where, "Export it as gray or RGB PNG.", "unsupported_mode")


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if image.mode == "RGBa":
        image = image.convert("RGBA")
    if "transparency" in image.info:  # pillow would mix it in, or warn
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _deep_gray(image: PIL.Image.Image) -> NDArray[np.float32]:
    """16-bit gray; a TIFF may hold 12 bits, or white as 0, which pillow turns around at 8 bits only."""
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    bits = 12 if tags.get(TIFF_BITS) == (12,) else 16
    pixels: NDArray[np.float32] = np.divide(np.asarray(image)[:, :, None], 2**bits - 1, dtype=np.float32)
    return np.float32(1) - pixels if tags.get(TIFF_PHOTOMETRIC) == 0 else pixels


def _turned(pixels_HWC: NDArray[np.float32], image: PIL.Image.Image) -> NDArray[np.float32]:
    """Upright as EXIF says (pillow has done it for TIFF). A damaged EXIF block is no reason to refuse a film: it is ignored."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:
        return pixels_HWC
    transpose, rows, columns = TURNS.get(orientation, (False, False, False))
    if transpose:
        pixels_HWC = pixels_HWC.swapaxes(0, 1)
    return np.ascontiguousarray(pixels_HWC[:: -1 if rows else 1, :: -1 if columns else 1])


def _unit(array: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Any legal dtype as float32 in [0, 1], an own copy."""
    if array.dtype == np.bool_:
        return array.astype(np.float32)
    if array.dtype in (np.uint8, np.uint16):
        unit: NDArray[np.float32] = np.divide(array, np.iinfo(array.dtype).max, dtype=np.float32)
        return unit
    if array.dtype.kind != "f":
        raise InputError(
            f"an image array of dtype {array.dtype} cannot be read", where, "Use uint8, uint16, bool, or floats in [0, 1].", "bad_dtype"
        )
    if not np.isfinite(array).all():
        raise InputError("the image holds NaN or infinity", where, "Replace these pixels.", "not_finite")
    if array.min() < 0 or array.max() > 1:
        raise InputError(
            f"float pixels lie in [0, 1], these in [{array.min():g}, {array.max():g}]", where, "Scale them, or use uint8.", "bad_range"
        )
    return array.astype(np.float32)


def _image(pixels_HWC: NDArray[np.float32], name: str, warnings: tuple[str, ...]) -> Image:
    height, width = pixels_HWC.shape[:2]
    return Image(pixels_HWC, Geometry((height, width)), name, warnings=warnings)
