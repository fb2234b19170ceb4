"""A PACS over DICOMweb: ask what it has (QIDO-RS), fetch a study or a series (WADO-RS), store objects and read them back (STOW-RS).

Queries go through dicomweb-client. Objects are moved by the bytes, as they are stored: that client would parse and write each of them anew.
What a PACS answers is as little trusted as a file: UIDs are checked before they become names, an object must be the one that was asked
for, and sizes and counts meet budgets. Names of patients are not asked for.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from .errors import InputError
from .io.dicom_header import guarded, is_dicom, read_header
from .limits import DEFAULT, VARIABLE, Limits, atomic_write, check_file

if TYPE_CHECKING:
    from .pacs_http import Wire

#: Column -> tag, of what a query is answered with.
STUDY = {
    "study": "0020000D",
    "date": "00080020",
    "modalities": "00080061",
    "patient_id": "00100020",
    "accession": "00080050",
    "description": "00081030",
    "series": "00201206",
    "instances": "00201208",
}
SERIES = {"series": "0020000E", "modality": "00080060", "number": "00200011", "description": "0008103E", "instances": "00201209"}
INSTANCE = {"instance": "00080018"}

PAGE = 500
UID_TAGS = (0x00080016, 0x00080018, 0x0020000D, 0x0020000E)  # class, instance, study, series
CONTENT = frozenset({0x0028, 0x0062, 0x0070, 0x5200})  # groups that no PACS may touch: image, segments, drawings, frames
PLANAR = 0x00280006  # belongs to the packing of pixels, not to the picture
ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'  # as it is stored
OF_THE_PACS = frozenset(f"pacs_{fault}" for fault in "auth busy down error forbidden redirect tls".split())  # not of one object
IN_A_ROW = 3  # such failures end the work: the next object would fare no better
SETTLE = 3  # times that an object is looked for after it was stored; some index it a moment later


@dataclass(frozen=True)
class Failure:
    """One object that was not fetched or stored: its UID, or the file as the user wrote it."""

    name: str
    code: str
    what: str
    fix: str


@dataclass
class Fetched:
    """What `fetch` brought. `kept` were there already; `series`: folder -> files in it."""

    folder: Path
    fetched: int = 0
    kept: int = 0
    bytes: int = 0
    series: dict[str, int] = field(default_factory=dict)
    failed: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Stored:
    """A file that the PACS gives back: `bytes` as it was sent, or `content`: written anew, with the same pixels, segments and drawings."""

    file: str
    instance: str
    confirmed: str


Progress = Callable[[int, int], None]
T = TypeVar("T")


class Pacs:
    """A DICOMweb service at the other end of a wire."""

    def __init__(self, wire: Wire, limits: Limits = DEFAULT) -> None:
        from dicomweb_client import DICOMwebClient

        self.wire, self.url, self.limits = wire, wire.url, limits
        self.client = DICOMwebClient(self.url, session=wire, permissive_uid=True)  # UIDs are checked here
        self.client.set_http_retry_params(retry=False)  # the wire does, and after a broken connection too

    def object(self, study: str, series: str, instance: str, budget: int) -> bytes:
        """One object as the PACS has it. InputError: those of Wire.ask and part; pacs_other where it is not DICOM, or another one."""
        url = f"{self.url}/studies/{study}/series/{series}/instances/{instance}"
        body = self.wire.part(self.wire.ask("GET", url, {"Accept": ACCEPT}, budget=budget))
        if not is_dicom(body[:136]):
            raise InputError("the PACS gave something else than DICOM", self.url, "Ask who runs it.", "pacs_other")
        if _uids(body, self.limits)[1:] != (instance, study, series):
            raise InputError("the PACS gave another object than the one asked for", self.url, "Ask who runs it.", "pacs_other")
        return body

    def hits(self, search: Callable[..., list[Any]], columns: Mapping[str, str], most: int) -> tuple[list[dict[str, str]], bool]:
        """Rows by column, page by page, each UID once, at most `most`; and whether there are more. The first column is a UID."""
        found: dict[str, dict[str, str]] = {}
        key, seen = next(iter(columns)), 0
        while len(found) <= most:
            try:
                page = search(limit=min(PAGE, most + 1 - len(found)), offset=seen, fields=list(columns.values()))
                rows = [{name: _value(item, tag) for name, tag in columns.items()} for item in page]
            except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
                if isinstance(error, InputError):
                    raise
                raise self._strange("the answer to a query is no DICOM JSON") from None
            new = [row for row in rows if row[key] not in found]
            found |= {_uid_of(row[key], self): row for row in new}
            seen += len(rows)
            if not new:
                break
        return list(found.values())[:most], len(found) > most

    def _strange(self, what: str) -> InputError:
        return InputError(what, self.url, "Give the root of its DICOMweb service, or ask who runs it.", "pacs_answer")


def open_pacs(url: str, credentials: Path | None = None, **options: Any) -> Pacs:
    """The DICOMweb service of an address; nothing is sent yet. The options are those of `pacs_http.Wire`.

    InputError: those of Wire and read_credentials; no_extra.
    """
    try:
        import dicomweb_client  # noqa: F401

        from .pacs_http import Wire, read_credentials
    except ImportError:
        raise InputError("DICOMweb needs the extra dicomweb", "", "Run pip install 'reportseg[dicomweb]'.", "no_extra") from None
    return Pacs(Wire(url, read_credentials(credentials), **options))


def studies(pacs: Pacs, filters: Mapping[str, str], most: int) -> tuple[list[dict[str, str]], bool]:
    """The studies that fit, as rows of STUDY, and whether there are more. `filters`: patient_id, accession, modality, date.

    InputError: those of Wire.ask, pacs_answer, bad_date.
    """
    tags = {"patient_id": "PatientID", "accession": "AccessionNumber", "modality": "ModalitiesInStudy", "date": "StudyDate"}
    asked = {tags[name]: _date(value) if name == "date" else value for name, value in filters.items()}
    return pacs.hits(lambda **page: pacs.client.search_for_studies(search_filters=asked, **page), STUDY, most)


def series_of(pacs: Pacs, study: str, modality: str, most: int) -> tuple[list[dict[str, str]], bool]:
    """The series of a study, as rows of SERIES, and whether there are more. InputError: those of Wire.ask, pacs_answer, bad_uid."""
    asked = {"Modality": modality} if modality else {}
    uid = _uid(study, "--study")
    return pacs.hits(lambda **page: pacs.client.search_for_series(uid, search_filters=asked, **page), SERIES, most)


def fetch(pacs: Pacs, study: str, series: str | None, out: Path, *, resume: bool = False, progress: Progress | None = None) -> Fetched:
    """The objects of a study, or of one of its series, as `out`/SERIES UID/INSTANCE UID.dcm. With `resume` those that lie there are kept.

    Failures of single objects are listed. InputError: those of Wire.ask where nothing came, bad_uid, exists, too_large, pacs_missing.
    """
    study = _uid(study, "STUDY")
    members = pacs.limits.members
    names = [_uid(series, "--series")] if series else [row["series"] for row in pacs.hits(_within(pacs, study), SERIES, members)[0]]
    wanted: list[tuple[str, str]] = []
    for name in names:
        rows, more = pacs.hits(_within(pacs, study, name), INSTANCE, members)
        wanted += [(name, row["instance"]) for row in rows]
        if more or len(wanted) > members:
            fix = f"Fetch its series one by one, or allow it: {VARIABLE}=members=1000000."
            raise InputError(f"the study has more than {members:,} objects", pacs.url, fix, "too_large")
    if not wanted:
        raise InputError("the PACS has no such study or series", pacs.url, "Check the UIDs with `reportseg pacs query`.", "pacs_missing")
    there = {pair for pair in wanted if _file(out, *pair).exists()}
    if there and not resume:
        raise InputError(f"{len(there)} of the files exist", out, "Add --resume to keep them, or choose another folder.", "exists")
    done = Fetched(out, kept=len(there), series={name: sum(pair[0] == name for pair in there) for name in names})

    def one(pair: tuple[str, str]) -> None:
        if done.bytes >= pacs.limits.fetch_bytes:
            fix = f"Fetch its series one by one, or allow it: {VARIABLE}=fetch_bytes={8 * pacs.limits.fetch_bytes}."
            raise InputError(f"more than {pacs.limits.fetch_bytes:,} bytes in all", pacs.url, fix, "too_large")
        body = pacs.object(study, *pair, pacs.limits.volume_bytes)
        atomic_write(_file(out, *pair), body)
        done.fetched, done.bytes = done.fetched + 1, done.bytes + len(body)
        done.series[pair[0]] += 1

    _each([pair for pair in wanted if pair not in there], one, lambda pair: pair[1], done.failed, progress)
    return done


def store(pacs: Pacs, files: Sequence[Path], progress: Progress | None = None) -> tuple[list[Stored], list[Failure]]:
    """Stores each file, reads it back and compares: what the PACS answers counts for little, what it has afterwards for all.

    To store an object again changes nothing, since its UID is the same; so a try may be repeated. Failures are listed.
    InputError: those of Wire.ask where nothing was stored.
    """
    stored: list[Stored] = []
    failed: list[Failure] = []
    _each(files, lambda file: stored.append(_store(pacs, file)), str, failed, progress)
    return stored, failed


def _store(pacs: Pacs, file: Path) -> Stored:
    size = check_file(file).stat().st_size
    if size > pacs.limits.volume_bytes:
        what = f"the file has {size:,} bytes, more than the limit of {pacs.limits.volume_bytes:,}"
        raise InputError(what, file, f"Allow it: {VARIABLE}=volume_bytes={size}.", "too_large")
    body = file.read_bytes()
    if body[128:132] != b"DICM":
        raise InputError("the file is no DICOM", file, "Give files that `reportseg predict --format dicom-seg` wrote.", "not_dicom")
    _, instance, study, series = uids = _uids(body, pacs.limits)
    if not all(map(_is_uid, uids)):
        raise InputError("the file names no class, instance, study or series", file, "Write it again.", "not_dicom")
    mark = secrets.token_hex(16)
    head = f"--{mark}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    headers = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={mark}', "Accept": "application/dicom+json"}
    answer = pacs.wire.ask("POST", f"{pacs.url}/studies", headers, head + body + f"\r\n--{mark}--\r\n".encode(), allow=(409,))
    reason = _refusal(answer.content, instance) or ("" if answer.ok else "it did not say why")
    back = _read_back(pacs, (study, series, instance), len(body) * 2 + 2**20, reason)  # it may be unpacked, or get a longer header
    if back == body:
        return Stored(str(file), instance, "bytes")
    if not _same_content(body, back):
        what = "the PACS has an object of this UID with other content"
        raise InputError(what, file, "Predict again, for new UIDs, and ask who runs the PACS what it changes.", "not_confirmed")
    return Stored(str(file), instance, "content")


def _read_back(pacs: Pacs, uids: tuple[str, str, str], budget: int, reason: str) -> bytes:
    """What the PACS has of an object that it was sent; `reason` is why it refused it. InputError pacs_refused where it has none."""
    for attempt in range(1 if reason else SETTLE):
        if attempt:
            time.sleep(pacs.wire.backoff_s * 2**attempt)
        try:
            return pacs.object(*uids, budget)
        except InputError as error:
            if error.code != "pacs_missing":
                raise
    what = f"the PACS refused it: {reason}" if reason else "the PACS said that it took it, and does not have it"
    raise InputError(what, pacs.url, "Its log may say more.", "pacs_refused")


def _each(items: Sequence[T], do: Callable[[T], None], name: Callable[[T], str], failed: list[Failure], progress: Progress | None) -> None:
    """Does each, and lists what failed; where the PACS itself fails three times in a row the rest is listed untried.

    InputError of the PACS where it failed so from the first item on.
    """
    row = 0
    for number, item in enumerate(items, 1):
        try:
            do(item)
            row = 0
        except InputError as error:
            row = row + 1 if error.code in OF_THE_PACS else 0
            failed.append(Failure(name(item), error.code, error.what, error.fix))
            if row == number == min(IN_A_ROW, len(items)):
                raise
            if row == IN_A_ROW:
                failed += [Failure(name(rest), error.code, f"not tried: {error.what}", error.fix) for rest in items[number:]]
                return
        if progress:
            progress(number, len(items))


def _within(pacs: Pacs, study: str, series: str | None = None) -> Callable[..., list[Any]]:
    if series is None:
        return lambda **page: pacs.client.search_for_series(study, **page)
    return lambda **page: pacs.client.search_for_instances(study, series, **page)


def _file(out: Path, series: str, instance: str) -> Path:
    return out / series / f"{instance}.dcm"


def _uids(body: bytes, limits: Limits) -> tuple[str, ...]:
    """Class, instance, study and series of an object. InputError: those of read_header."""
    header, _ = read_header(io.BytesIO(body), "", limits, list(UID_TAGS))
    with guarded(""):
        return tuple(str(header[tag].value) if tag in header else "" for tag in UID_TAGS)


def _is_uid(text: str) -> bool:
    """Digits and points, so that it may become the name of a file. Leading zeros are wrong, and in the wild."""
    return re.fullmatch(r"\d[\d.]{0,63}", text, re.ASCII) is not None


def _uid(text: str, where: str) -> str:
    if not _is_uid(text):
        raise InputError("this is no UID", where, "Copy it from `reportseg pacs query`.", "bad_uid")
    return text


def _uid_of(text: str, pacs: Pacs) -> str:
    if not _is_uid(text):
        raise pacs._strange("the answer to a query holds something else in the place of a UID")
    return text


def _date(text: str) -> str:
    if not re.fullmatch(r"\d{8}|\d{8}-(\d{8})?|-\d{8}", text, re.ASCII):
        raise InputError("this is no date", "--date", "Write 20260131, or from and to as 20260101-20260131.", "bad_date")
    return text


def _value(item: Any, tag: str) -> str:
    """An attribute of DICOM JSON as text, several values with a comma between."""
    values = item.get(tag, {}).get("Value") or []
    return ",".join(str(value) for value in values if isinstance(value, str | int | float))


REASONS = {0x0110: "it failed to process it", 0x0111: "it has it", 0x0122: "it takes no object of this class", 0x0124: "its user may not"}
FAMILIES = {0xA7: "it has no room", 0xA9: "the object does not fit its class"} | dict.fromkeys(range(0xC0, 0xD0), "it cannot read it")


def _refusal(body: bytes, instance: str) -> str:
    """Why the PACS did not take an object, by the FailedSOPSequence of its answer; "" where it names none."""
    try:
        answer = json.loads(body or b"{}")
        for item in (answer[0] if isinstance(answer, list) else answer)["00081198"]["Value"]:
            if item["00081155"]["Value"][0] == instance:
                code = int(item["00081197"]["Value"][0])
                return f"{REASONS.get(code) or FAMILIES.get(code >> 8, 'it gives a reason of its own')} (0x{code:04X})"
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):  # 1e999 is a number in JSON, and no whole one
        pass
    return ""


def _same_content(sent: bytes, back: bytes) -> bool:
    """Whether two files show the same: image, segments, drawings and pixels. A PACS may correct patient and study, and write anew.

    InputError: those of the DICOM reader, for what came back.
    """
    with guarded(""):
        pair = [_parsed(body) for body in (sent, back)]
        for tag in {element.tag for ds in pair for element in ds if element.tag.group in CONTENT} - {PLANAR}:
            if any(tag not in ds for ds in pair) or pair[0][tag].value != pair[1][tag].value:
                return False
        raw = [ds.get("PixelData") for ds in pair]
        if raw[0] == raw[1]:
            return True
        return None not in raw and bool((pair[0].pixel_array == pair[1].pixel_array).all())  # packed in another way


def _parsed(body: bytes) -> Dataset:
    head, _ = read_header(io.BytesIO(body), "", DEFAULT, [0x00080018])
    if head.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:  # pydicom would unpack all of it
        raise InputError("a deflated object cannot be compared", "", "Write it without compression.", "not_confirmed")
    return dcmread(io.BytesIO(body))
