"""What every talk with a server needs; what the two that talk make of it is in test_knowledge_ask.py and test_pacs_http.py."""

from __future__ import annotations

import email.utils
import threading
import time

import pytest

from reportseg.web import address, is_here, retry_after, within


def test_an_address_comes_apart():
    parts = address("https://pacs.example.org:8443/dicom-web?a=1")
    assert (parts.scheme, parts.hostname, parts.port, parts.path, parts.query) == ("https", "pacs.example.org", 8443, "/dicom-web", "a=1")


@pytest.mark.parametrize(
    "url",
    ["", "host/v1", "file:///etc/passwd", "ftp://host", "http://", "http://[bad", "http://h:99999999/", "http://h/\r\nX: y", "http://h ", "http://hé/"],
)  # fmt: skip
def test_what_is_no_address_has_no_parts(url):
    assert address(url) is None


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8042", "127.0.0.2", "[::1]:8042"])
def test_this_machine(host):
    assert is_here(f"http://{host}/x")


@pytest.mark.parametrize("host", ["pacs.example.org", "10.0.0.1", "[2001:db8::1]", "127.0.0.1.example.org", "localhost.example.org"])
def test_another_machine(host):
    assert not is_here(f"http://{host}/x")


@pytest.mark.parametrize(("value", "seconds"), [("7", 7), (" 7.5 ", 7.5), ("9" * 400, float("inf")), ("0", 0)])
def test_a_pause_in_seconds(value, seconds):
    assert retry_after(value) == seconds


def test_a_pause_until_a_time():
    assert 5 < retry_after(email.utils.formatdate(time.time() + 9, usegmt=True)) <= 9
    assert retry_after(email.utils.formatdate(time.time() - 9, usegmt=True)) == 0


@pytest.mark.parametrize("value", ["", "nan", "inf", "-5", "soon", "Tue, 99 Foo", "Fri, 31 Dec 99999 00:00:00 GMT"])
def test_a_pause_that_says_nothing_is_none(value):
    assert retry_after(value) == 0


def test_work_in_time_returns_or_raises():
    assert within(5, lambda late: (late.is_set(), "done")) == (False, "done")
    with pytest.raises(ZeroDivisionError):
        within(5, lambda _: 1 / 0)


def test_work_that_is_late_is_left_and_told():
    told = threading.Event()

    def work(late: threading.Event) -> None:
        if late.wait(10):
            told.set()

    with pytest.raises(TimeoutError):
        within(0.05, work)
    assert told.wait(10)
