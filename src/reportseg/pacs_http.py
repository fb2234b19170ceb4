"""HTTP to a PACS, by requests: who asks, over what, for how long, and how much of an answer is taken.

A PACS is a stranger until TLS has told who it is, and its answers are bounded in bytes and in time even then. No message quotes them: they
may repeat names or credentials. Nothing is sent anywhere but to the address that the user gave: redirects, proxies, cookies and
`.netrc` are not followed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import ssl
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3

from .errors import InputError
from .limits import check_file
from .web import address, is_here, retry_after, within

USER, PASSWORD, TOKEN = "REPORTSEG_PACS_USER", "REPORTSEG_PACS_PASSWORD", "REPORTSEG_PACS_TOKEN"
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
TRIES, BACKOFF_S, MAX_WAIT_S = 5, 1.0, 60.0  # a PACS that asks for a longer pause is asked another day
CONNECT_S = 10.0
WHOLE = 10  # times the silence that is borne: what a try may take from the look-up of the name to the last byte
ANSWER_BYTES = 64 * 2**20  # of an answer that is no film
HEAD_BYTES = 64 * 2**10  # of the lines before a part
CREDENTIAL_BYTES = 16 * 2**10


@dataclass(frozen=True)
class Credentials:
    """A user and a password, or a token. They print as nothing."""

    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Signs a request."""
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
            return request
        return requests.auth.HTTPBasicAuth(self.user.encode(), self.password.encode())(request)


def read_credentials(file: Path | None = None) -> Credentials | None:
    """From a JSON file, {"user": ..., "password": ...} or {"token": ...}; without one from the environment; None where that says nothing.

    InputError: those of check_file, credentials_open where others than its owner may read the file, bad_credentials.
    """
    if file is None:
        names = {"user": USER, "password": PASSWORD, "token": TOKEN}
        found = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
        return _checked(found, "the environment", f"Set {USER} and {PASSWORD}, or {TOKEN} alone.") if found else None
    with open(check_file(file), "rb") as opened:
        if os.name == "posix" and os.fstat(opened.fileno()).st_mode & 0o077:
            raise InputError("others than its owner may read these credentials", file, "Run chmod 600 on it.", "credentials_open")
        body = opened.read(CREDENTIAL_BYTES + 1)
    fix = 'Write {"user": "...", "password": "..."} or {"token": "..."} into it.'
    try:
        found = json.loads(body[:CREDENTIAL_BYTES])
    except (ValueError, RecursionError):
        raise InputError("the credentials are no JSON", file, fix, "bad_credentials") from None
    return _checked(found, str(file), fix)


def _checked(found: Any, where: str, fix: str) -> Credentials:
    if not isinstance(found, dict) or set(found) not in ({"user", "password"}, {"token"}):
        raise InputError("credentials are a user and a password, or a token", where, fix, "bad_credentials")
    if not all(isinstance(value, str) and value and value.isprintable() for value in found.values()):
        raise InputError("a credential is empty, or holds characters that none has", where, fix, "bad_credentials")
    if ":" in found.get("user", "") or not re.fullmatch(r"[\x21-\x7e]*", found.get("token", "")):
        raise InputError("a user has no colon, and a token no blank and no accent", where, fix, "bad_credentials")
    return Credentials(**found)


def service_url(url: str) -> str:
    """The root of a DICOMweb service, without a slash at its end. InputError pacs_url, which never repeats what may hold a password."""
    fix = "Give the root of its DICOMweb service, as in https://pacs.example.org/dicom-web."
    parts = address(url)
    if parts is None:
        raise InputError("this is no http or https address", "URL", fix, "pacs_url")
    if "@" in parts.netloc:
        what = "the address holds a name or a password, which others can see in the list of processes"
        raise InputError(what, "URL", f"Use --credentials FILE, or {USER} and {PASSWORD}.", "pacs_url")
    if parts.query or parts.fragment:
        raise InputError("the address has a question mark or a hash in it", "URL", fix, "pacs_url")
    return url.rstrip("/")


class _RetryError(Exception):
    """This try failed and another may not."""


class _Metered:
    """The body of an answer, of which only so much is read, and nothing once nobody waits for it. Its cookies are not seen."""

    def __init__(self, raw: Any, budget: int, late: threading.Event) -> None:
        self.raw, self.budget, self.late = raw, budget, late

    def stream(self, size: int, decode_content: bool = True) -> Iterator[bytes]:
        left = self.budget
        for chunk in self.raw.stream(size, decode_content=decode_content):
            left -= len(chunk)
            if left < 0:
                what = f"the answer is longer than {self.budget:,} bytes"
                raise InputError(what, "", "Ask for less, or see REPORTSEG_LIMITS for films.", "pacs_huge")
            if self.late.is_set():
                raise TimeoutError
            yield chunk

    def close(self) -> None:
        self.raw.close()

    def release_conn(self) -> None:
        self.raw.release_conn()


class Wire(requests.Session):
    """A session with one PACS. `timeout_s` is how long it may be silent; a try ends after ten times that at the latest.

    InputError pacs_url where credentials would go unencrypted to another machine; bad_ca.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials | None = None,
        *,
        ca: Path | None = None,
        insecure: bool = False,
        timeout_s: float = 60,
        tries: int = TRIES,
        backoff_s: float = BACKOFF_S,
    ) -> None:
        super().__init__()
        self.url, self.timeout_s, self.tries, self.backoff_s = service_url(url), timeout_s, tries, backoff_s
        self.warnings: list[str] = []
        plain = self.url.startswith("http:") and not is_here(self.url)
        if plain and credentials:
            what = "credentials are not sent unencrypted to another machine"
            raise InputError(what, self.url, "Use https, or a tunnel to this machine.", "pacs_url")
        if plain:
            self.warnings.append("the way to this PACS is not encrypted: whoever stands in between reads the patients' data")
        self.trust_env = False  # no proxy, no .netrc, no certificates that the user did not name
        self.headers.update({"User-Agent": "reportseg", "Accept-Encoding": "identity"})
        self.auth = credentials
        self.verify = False if insecure else _certificates(ca)
        if insecure and self.url.startswith("https:"):
            self.warnings.append("the certificate of this PACS is not checked: anyone may answer in its name, and read the credentials")
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # said above, once
        for name in ("urllib3.connectionpool", "dicomweb_client"):  # both write queries, and so names of patients, into whoever's log
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None is followed, nor even looked at: it could carry credentials and queries to another host."""

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        """What dicomweb-client asks: a query, answered in JSON. Its Host header, which lacks the port, is left out.

        It writes a blank as +, which is one in forms only (a plus comes as %2B), and hides the * of a wildcard, which needs no hiding.
        """
        headers = {name: value for name, value in (options.get("headers") or {}).items() if name != "Host"}
        root, mark, query = str(url).partition("?")
        response = self.ask(str(method), root + mark + query.replace("+", "%20").replace("%2A", "*"), headers)
        if response.content and "json" not in response.headers.get("Content-Type", ""):
            raise self._no_dicomweb("a query is answered with something else than JSON")
        return response

    def ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        data: bytes | None = None,
        *,
        budget: int = ANSWER_BYTES,
        allow: Collection[int] = (),
    ) -> requests.Response:
        """One request and its whole answer, of 2xx or a status in `allow`. Tried again where that may help, so it must bear repeating.

        InputError pacs_ and one of: down, error, busy, tls, redirect, auth, forbidden, missing, refused, huge.
        """
        code = what = ""
        for attempt in range(self.tries):
            pause = self.backoff_s * 2**attempt
            try:
                response = self._try(method, url, headers, data, budget)
            except _RetryError as failed:
                code, what = "pacs_down", str(failed)
            else:
                if response.status_code not in AGAIN:
                    return self._accepted(response, allow)
                code, what = "pacs_error", f"the PACS answered {response.status_code}"
                pause = max(pause, retry_after(response.headers.get("Retry-After", "")))
                if pause > MAX_WAIT_S:
                    raise InputError(f"{what} and asks to wait {pause:.0f} s", self.url, "Ask it later.", "pacs_busy")
            if attempt + 1 < self.tries:
                time.sleep(pause)
        raise InputError(
            f"{what}, {self.tries} times", self.url, "Check the address, and whether the PACS runs; its log may say more.", code
        )

    def _try(self, method: str, url: str, headers: Mapping[str, str], data: bytes | None, budget: int) -> requests.Response:
        """One try, however slowly its bytes come."""
        seconds = WHOLE * self.timeout_s
        try:
            return within(seconds, lambda late: self._exchange(method, url, headers, data, budget, late))
        except TimeoutError:
            raise _RetryError(f"the PACS gave no whole answer within {seconds:g} s") from None

    def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None, budget: int, late: threading.Event
    ) -> requests.Response:
        def metered(response: requests.Response, *_: Any, **__: Any) -> requests.Response:
            response.raw = _Metered(response.raw, budget, late)
            return response

        try:
            return super().request(
                method,
                url,
                headers=dict(headers),
                data=data,
                timeout=(min(CONNECT_S, self.timeout_s), self.timeout_s),
                allow_redirects=False,
                hooks={"response": metered},
            )
        except requests.exceptions.SSLError as error:
            fix = "Give the authority that signed it with --ca FILE, or ask who runs the PACS."
            raise InputError(f"there is no safe connection to the PACS ({_reason(error)})", self.url, fix, "pacs_tls") from None
        except requests.exceptions.InvalidURL:
            raise InputError("this is no http or https address", self.url, "Check the name of the host.", "pacs_url") from None
        except (OSError, urllib3.exceptions.HTTPError) as error:  # requests' own are among them
            raise _RetryError(f"the PACS cannot be reached, or breaks off ({_reason(error)})") from None

    def _accepted(self, response: requests.Response, allow: Collection[int]) -> requests.Response:
        status = response.status_code
        if 200 <= status < 300 or status in allow:
            return response
        if 300 <= status < 400:
            fix = "If you trust that address, give it instead."
            raise InputError(f"the PACS sends on to {_origin(response)}, which is not followed", self.url, fix, "pacs_redirect")
        if status in (401, 407):
            what = "the PACS does not accept these credentials" if self.auth else "the PACS asks for credentials"
            raise InputError(what, self.url, f"Use --credentials FILE, or {USER} and {PASSWORD}, or {TOKEN}.", "pacs_auth")
        if status == 403:
            raise InputError("the PACS forbids this to its user", self.url, "Ask who runs it for the right.", "pacs_forbidden")
        if status == 404:
            raise InputError(
                "the PACS has no such object, or no DICOMweb at this address", self.url, "Check the UIDs and the address.", "pacs_missing"
            )
        raise InputError(f"the PACS answered {status}", self.url, "Its log says why.", "pacs_refused")

    def _no_dicomweb(self, what: str) -> InputError:
        fix = "Give the root of its DICOMweb service; a page for people, or a proxy's log-in, may stand at this address."
        return InputError(what, self.url, fix, "pacs_answer")

    def part(self, response: requests.Response) -> bytes:
        """The one DICOM object of an answer, in a multipart message or, as some send it, alone. InputError: pacs_answer, pacs_cut."""
        said, body = Message(), response.content
        said["Content-Type"] = response.headers.get("Content-Type", "")
        if said.get_content_type() == "application/dicom":
            return body
        boundary = str(said.get_param("boundary") or "").encode()
        if said.get_content_type() != "multipart/related" or not boundary:
            raise self._no_dicomweb("an object was asked for, and the answer is something else than DICOM")
        mark, cut = b"--" + boundary, InputError("the answer ends before its object does", self.url, "Ask again.", "pacs_cut")
        begin = 0 if body.startswith(mark) else body.find(b"\r\n" + mark, 0, HEAD_BYTES)
        start = body.find(b"\r\n\r\n", begin, begin + HEAD_BYTES) if begin >= 0 else -1
        end = body.find(b"\r\n" + mark, start + 4) if start >= 0 else -1
        if end < 0:
            raise cut
        if body[end + 2 + len(mark) :][:2] != b"--":
            raise self._no_dicomweb("one object was asked for, and several came")
        return body[start + 4 : end]


def _certificates(ca: Path | None) -> str | bool:
    """The authorities that are believed: those of a PEM file, else those that requests brings."""
    if ca is None:
        return True
    try:
        ssl.create_default_context(cafile=str(check_file(ca)))
    except (ssl.SSLError, OSError):
        raise InputError("the file holds no certificate", ca, "Give the authority's certificate as PEM.", "bad_ca") from None
    return str(ca)


def _origin(response: requests.Response) -> str:
    """Scheme and host of a redirect: what stands behind may repeat a query."""
    try:
        parts = urlsplit(response.headers.get("Location", ""))
        return f"{parts.scheme}://{parts.hostname}"[:200] if parts.hostname else "another path"
    except ValueError:
        return "another address"


def _reason(error: BaseException) -> str:
    """What the system or TLS said at the bottom of an error; those above quote the address with its query."""
    below: BaseException | None = error
    while below is not None:
        said = getattr(below, "verify_message", "") or (getattr(below, "strerror", "") if isinstance(below, OSError) else "")
        if said:
            return str(said)
        reason = below.args[0] if below.args and isinstance(below.args[0], BaseException) else None
        below = getattr(below, "reason", None) or reason or below.__cause__ or below.__context__
        if not isinstance(below, BaseException):
            break
    return "no answer in time" if isinstance(error, requests.exceptions.Timeout) else type(error).__name__
