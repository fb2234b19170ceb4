"""What a DICOM file says before its pixels: read within a budget, and never more of it than is needed.

pydicom's messages quote values, names of people among them, so no message of an error here repeats them, and its log is off.
"""

from __future__ import annotations

import hashlib
import io
import logging
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_partial
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from ..errors import InputError
from ..limits import DEFAULT, Limits

# Both would print what a damaged file holds, to a terminal or to the log of whoever imports us.
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
pydicom_config.settings.reading_validation_mode = pydicom_config.IGNORE

HEADER_BYTES = 32 * 2**20  # of elements before the pixels; parsed, each byte may take twenty
ITEMS = 2**18  # of sequences: an empty one has eight bytes and takes a hundred times as many once parsed; 10,000 frames have fewer
ITEM = (b"\xfe\xff\0\xe0", b"\xff\xfe\xe0\0")  # how one begins, in either byte order
LONG = 256 * 2**10  # an element that is longer is skipped: no look-up table is
SMALL = 64 * 2**20  # what deflate may always unpack to, whatever its ratio, and what of it is held in memory
ARCHIVE = b"PK\3\4"
PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)
DEFLATED, PLAIN = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"  # of equal length
META_LENGTH = b"\2\0\0\0UL\4\0"  # the element before the file's meta information, whose value is the length of the rest
HIDDEN = {b"MZ": "Windows program", b"\x7fELF": "program", b"PK": "zip archive", b"#!": "script", b"<": "web page"}
MODALITIES = frozenset(
    "BDUS BI BMD CR CT DD DF DG DM DS DX EC ES FA FS GM HC IO IVOCT IVUS LP LS MG MR MS NM OAM OCT OP OPM OPT OPV OT PT PX RF RG RTIMAGE "
    "SC SM ST TG US VF XA XC".split()
)
VRS = frozenset("AE AS AT CS DA DS DT FL FD IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split())


class _Metered(io.RawIOBase):
    """A file of which only so much may be read; what is skipped costs nothing."""

    def __init__(self, file: IO[bytes], budget: int) -> None:
        self.file, self.left, self.items = file, budget, 0
        self.name = None

    def read(self, size: int = -1) -> bytes:
        body = self.file.read(self.left + 1 if size < 0 else min(size, self.left + 1))
        self.left -= len(body)
        self.items += sum(body.count(mark) for mark in ITEM)
        if self.over:
            raise _overlong("")
        return body

    @property
    def over(self) -> bool:
        """Whether more was read than may be."""
        return self.left < 0 or self.items > ITEMS

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()


def is_dicom(head: bytes) -> bool:
    """Whether a file begins so: part 10, with or without its preamble, or a bare data set. 136 bytes are enough.

    What stands in the preamble does not count: it may be made to look like another format.
    """
    if head[128:132] == b"DICM":
        return True
    explicit = head[4:6].decode("latin-1") in VRS
    if head[:2] == b"\2\0":
        return explicit
    if head[:4] == b"\0\x08\0\x05" or (head[:2] == b"\0\x08" and explicit):  # big endian
        return True
    return head[:2] == b"\x08\0" and (explicit or (head[3:4] == b"\0" and head[5:8] == b"\0\0\0" and head[4] % 2 == 0 and head[4] > 0))


def is_zip(head: bytes) -> bool:
    """Whether a file begins as a zip archive does, and not as DICOM under a preamble that looks like one. 136 bytes are enough."""
    return head.startswith(ARCHIVE) and not is_dicom(head)


def read_header(file: IO[bytes], where: str = "", limits: Limits = DEFAULT, tags: list[Any] | None = None) -> tuple[FileDataset, IO[bytes]]:
    """The data set before its pixels, and the file they are in, at the element that holds them, or at the end.

    Elements above 256 KiB are left out, but for sequences. `tags` names the only ones to read. InputError: too_large, truncated, corrupt.
    """
    file.seek(0)
    head = file.read(4096)
    if DEFLATED in head[:2048]:
        file = _inflated(file, head, where, limits)
    file.seek(0)
    metered = _Metered(file, HEADER_BYTES)
    try:
        found = read_partial(metered, _at_pixels, defer_size=LONG, force=True, specific_tags=tags)  # type: ignore[arg-type]
        end = metered.tell()
        raw: list[tuple[Any, Any]] = list(found.items())  # not get_item: it would go and read what was skipped
        for tag, element in raw:
            if element.value is None and getattr(element, "length", 0) > LONG:
                if _is_sequence(element):  # of defined length: what frames are, and where, may fill it
                    metered.seek(element.value_tell)
                    found[tag] = element._replace(value=metered.read(element.length))
                else:
                    del found[tag]
        metered.seek(end)
        if not found.file_meta.get("TransferSyntaxUID"):  # asked, it is converted
            implicit, little = found.original_encoding
            found.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            )
    except InputError as error:
        raise InputError(error.what, where, error.fix, error.code) from None
    except (EOFError, OSError) as error:
        if metered.over:  # inside a sequence pydicom makes an error of its own of ours
            raise _overlong(where) from error
        raise InputError("the file ends before its header does", where, "Copy or download it again.", "truncated") from error
    except RecursionError as error:
        raise damaged("has sequences inside sequences without end", where) from error
    except Exception as error:  # pydicom raises what its parts raise: struct.error, KeyError, NotImplementedError and others
        raise damaged("has a header that cannot be read", where) from error
    return found, file


def _is_sequence(element: Any) -> bool:
    """Whether a raw element is a sequence; in implicit files the dictionary tells."""
    return bool((element.VR or (dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else "")) == "SQ")


def read_tags(path: Path, tags: list[Any], limits: Limits = DEFAULT) -> FileDataset | None:
    """Some elements of a file, None where it is no DICOM file. InputError as read_header."""
    with open(path, "rb") as file:
        return read_header(file, str(path), limits, tags)[0] if is_dicom(file.read(136)) else None


def case_id(header: Dataset, uid: str = "SOPInstanceUID") -> str:
    """`case-` and 12 hex digits of the instance's UID (or that of the series): names of files and people stay out. "" without a UID."""
    value = str(header.get(uid) or "")
    return hashed_id(value.encode()) if value else ""


def hashed_id(value: bytes) -> str:
    """`case-` and 12 hex digits of a hash."""
    return f"case-{hashlib.sha256(value).hexdigest()[:12]}"


def dicom_id(path: Path, limits: Limits = DEFAULT) -> str | None:
    """The case id of a file, None where it is no DICOM file or cannot be opened. Without a UID that can be read, of its first MiB."""
    try:
        with open(path, "rb") as file:
            if not is_dicom(file.read(136)):
                return None
            file.seek(0)
            start = file.read(2**20)
            try:
                with guarded(""):
                    return case_id(read_header(file, "", limits, [0x00080018])[0]) or hashed_id(start)
            except InputError:
                return hashed_id(start)
    except (OSError, ValueError):
        return None


def modality_of(header: Dataset) -> str:
    """A term of the standard for what makes pictures, "" for anything else: the value is shown, and a stranger's may be a name."""
    value = str(header.get("Modality") or "").strip().upper()
    return value if value in MODALITIES else ""


def hidden(head: bytes) -> str | None:
    """What a preamble is made to look like, None for an honest one."""
    return next((kind for magic, kind in HIDDEN.items() if head.startswith(magic) and head[128:132] == b"DICM"), None)


def frame_count(header: Dataset, where: str = "") -> int:
    """How many frames a file has. InputError corrupt where it describes another number of them: which are left out, nobody could tell."""
    count, described = int(header.get("NumberOfFrames") or 1), len(header.get("PerFrameFunctionalGroupsSequence") or [])
    if described not in (0, count):
        raise damaged(f"describes {described} frames and has {count}", where)
    return count


def flat(header: Dataset, frame: int = 0) -> Dataset:
    """The header with the functional groups of a frame (from 0) laid over it, so that an enhanced file reads like a plain one."""
    return next(flat_frames(header, [frame]))


def flat_frames(header: Dataset, frames: Iterable[int]) -> Iterator[Dataset]:
    """`flat` for many frames. The sequences are asked for once: pydicom walks through all items each time."""
    tags = [tag for tag in list(header.keys()) if tag.group in (0x0008, 0x0018, 0x0020, 0x0028)]
    shared, own = list(header.get("SharedFunctionalGroupsSequence") or [])[:1], list(header.get("PerFrameFunctionalGroupsSequence") or [])
    for frame in frames:
        out = Dataset()
        out.update({tag: header.get_item(tag) for tag in tags})
        for group in (*shared, *own[frame : frame + 1]):
            for element in group:
                if element.VR == "SQ" and len(element.value) == 1:
                    out.update(element.value[0])
        out.set_original_encoding(*header.original_encoding)
        yield out


def _overlong(where: str) -> InputError:
    return InputError("the header is larger than any header should be", where, "Remove its private elements.", "too_large")


def damaged(what: str, where: str) -> InputError:
    """The error corrupt."""
    return InputError(f"the DICOM file {what}", where, "Export or download it again.", "corrupt")


@contextmanager
def guarded(where: str) -> Iterator[None]:
    """Whatever pydicom raises on values that it converts when they are asked for (it raises what its parts raise) ends as InputError."""
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError("the image is too large for this machine", where, "Make it smaller.", "too_large") from error
    except Exception as error:
        raise damaged("has a header that cannot be read", where) from error


def _at_pixels(tag: int, vr: str | None, length: int) -> bool:
    return tag in PIXELS


def _inflated(file: IO[bytes], head: bytes, where: str, limits: Limits) -> IO[bytes]:
    """A deflated file as a plain one, unpacked no further than the budget: pydicom would unpack all of it."""
    if head[132:140] != META_LENGTH:
        raise damaged("is deflated and does not say where its data begin", where)
    start = 144 + int.from_bytes(head[140:144], "little")
    size = file.seek(0, io.SEEK_END)
    budget = min(limits.volume_bytes, max(SMALL, limits.ratio * (size - start)))
    file.seek(0)
    plain = tempfile.SpooledTemporaryFile(SMALL)  # noqa: SIM115 - without a name, and gone with the film
    plain.write(file.read(start).replace(DEFLATED, PLAIN, 1))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while not inflater.eof and (body := inflater.unconsumed_tail or file.read(2**16)):
            out = inflater.decompress(body, 2**20)
            budget -= len(out)
            if budget < 0:
                raise InputError("the file unpacks to more than its limit", where, "Save it without compression.", "too_large")
            plain.write(out)
    except zlib.error as error:
        raise damaged("cannot be unpacked", where) from error
    except OSError as error:  # of a disk, not of the film
        fix = "Make room in the folder for temporary files, or name another one in TMPDIR."
        raise InputError(f"it cannot be unpacked ({error.strerror})", where, fix, "too_large") from error
    if not inflater.eof:
        raise InputError("the file ends before its header does", where, "Copy or download it again.", "truncated")
    return cast(IO[bytes], plain)
