"""What every talk with a server over HTTP needs, whatever carries it: is this an address, is it on this machine, and how long is waited.

`knowledge/ask.py` asks a language model with what Python brings, `pacs_http.py` a PACS with requests, which only an extra installs.
"""

from __future__ import annotations

import email.utils
import ipaddress
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import SplitResult, urlsplit

T = TypeVar("T")


def address(url: str) -> SplitResult | None:
    """The parts of an http or https address; None for anything else, and where a character is none of an address's."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        return None
    return parts if known and re.fullmatch(r"[\x21-\x7e]+", url) else None


def is_here(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def retry_after(value: str) -> float:
    """Seconds that the header Retry-After asks for, given as a number or as a date; 0 where it says neither."""
    if re.fullmatch(r"\d+(?:\.\d*)?", value.strip(), re.ASCII):
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0


def within(seconds: float, work: Callable[[threading.Event], T]) -> T:
    """What `work` returns or raises, on a thread of its own: a timeout of the socket starts anew with every byte, so a drip of bytes would
    never end.

    TimeoutError where it does not come in time. The event that `work` is given is then set, since nobody waits for it any more.
    """
    outcome: list[tuple[T | None, Exception | None]] = []
    late = threading.Event()

    def run() -> None:
        try:
            outcome.append((work(late), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    late.set()
    if not outcome:
        raise TimeoutError
    result, error = outcome[0]
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
