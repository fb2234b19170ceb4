"""The wire to a PACS, against a server on this machine that misbehaves in every way."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import shutil
import ssl
import subprocess
import time

import pytest

from pacs_server import Server, hang_up, parts, rows, send
from reportseg.errors import InputError
from reportseg.pacs import Pacs, open_pacs, studies
from reportseg.pacs_http import PASSWORD, TOKEN, USER, Credentials, Wire, read_credentials, service_url

SECRET = "a-password-that-nobody-may-see"
PATIENT = "DOE-4711"
KNOWN = Credentials(user="radiologist", password=SECRET)
QUICK = {"timeout_s": 0.3, "tries": 3, "backoff_s": 0.01}


def ask(server: Server, **options) -> list[dict[str, str]]:
    return studies(Pacs(Wire(server.url, KNOWN, **QUICK | options)), {"patient_id": PATIENT}, 10)[0]


def refused(call, *args, **options) -> InputError:
    """An error that names a way out, and neither a credential nor the patient who was asked for."""
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert caught.value.fix
    for secret in (SECRET, base64.b64encode(f"radiologist:{SECRET}".encode()).decode(), PATIENT):
        assert secret not in str(caught.value)
    return caught.value


# ---------------------------------------------------------------- what is sent


def test_a_query_carries_its_credentials_in_one_header_and_the_host_with_its_port(serve):
    server = serve(rows({"0020000D": "1.2.3"}), send(204))
    assert [row["study"] for row in ask(server)] == ["1.2.3"]
    first = server.seen[0]
    assert first["headers"]["Authorization"] == "Basic " + base64.b64encode(f"radiologist:{SECRET}".encode()).decode()
    assert first["headers"]["Host"] == server.url.split("/")[2]
    assert f"PatientID={PATIENT}" in first["path"]
    assert first["headers"]["User-Agent"] == "reportseg"
    assert "00100010" not in first["path"]


def test_blanks_stars_and_accents_of_a_query_arrive_as_they_were_typed(serve):
    server = serve(send(204))
    studies(Pacs(Wire(server.url, **QUICK)), {"patient_id": "A B+C*é"}, 10)
    assert "PatientID=A%20B%2BC*%C3%A9" in server.seen[0]["path"]


def test_a_token_is_sent_as_a_bearer(serve):
    server = serve(send(204))
    studies(Pacs(Wire(server.url, Credentials(token="abc.def"), **QUICK)), {}, 10)
    assert server.seen[0]["headers"]["Authorization"] == "Bearer abc.def"


def test_proxies_and_netrc_of_the_environment_are_not_used(serve, tmp_path, monkeypatch):
    server, proxy = serve(send(204)), serve(send(500))
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("no_proxy", "")
    studies(Pacs(Wire(server.url, **QUICK)), {}, 10)
    assert "Authorization" not in server.seen[0]["headers"]
    assert not proxy.seen


def test_the_libraries_write_no_query_into_a_log(serve, caplog):
    with caplog.at_level(logging.DEBUG):
        ask(serve(send(204)))
    assert PATIENT not in caplog.text
    assert SECRET not in caplog.text


# ---------------------------------------------------------------- answers that are none


@pytest.mark.parametrize(
    ("status", "code"), [(401, "pacs_auth"), (403, "pacs_forbidden"), (404, "pacs_missing"), (400, "pacs_refused"), (501, "pacs_refused")]
)
def test_a_refusal_is_not_asked_again(serve, status, code):
    server = serve(send(status, f"no {SECRET} {PATIENT}", "text/plain"))
    error = refused(ask, server)
    assert (error.code, error.where) == (code, server.url)
    assert len(server.seen) == 1


def test_a_busy_pacs_is_asked_again_after_the_pause_that_it_wants(serve):
    server = serve(send(429, Retry_After="1"), send(503), rows({"0020000D": "1.2.3"}), send(204))
    start = time.monotonic()
    assert len(ask(server)) == 1
    assert time.monotonic() - start >= 1
    assert refused(ask, serve(send(429, Retry_After="86400"))).code == "pacs_busy"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_pacs_that_only_fails_is_given_up(serve, status):
    server = serve(send(status))
    error = refused(ask, server)
    assert error.code == "pacs_error"
    assert f"answered {status}, 3 times" in error.what
    assert len(server.seen) == 3


def test_a_broken_connection_is_tried_again(serve):
    server = serve(hang_up, send(200, "[]", Content_Length="9999"), rows({"0020000D": "1.2.3"}), send(204))
    assert len(ask(server)) == 1
    assert refused(ask, serve(hang_up)).code == "pacs_down"


def test_nobody_there():
    error = refused(studies, Pacs(Wire("http://127.0.0.1:9/dicom-web", KNOWN, **QUICK)), {"patient_id": PATIENT}, 10)
    assert error.code == "pacs_down"
    assert "refused" in error.what


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 100000\r\n\r\n["])
def test_a_pacs_that_stalls_or_drips_is_left(serve, begin):
    def stall(handler):
        handler.wfile.write(begin)
        handler.wfile.flush()
        time.sleep(1.5)

    def drip(handler):
        handler.wfile.write(begin)
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)

    assert refused(ask, serve(stall), tries=1).code == "pacs_down"
    assert "no whole answer within 0.5 s" in refused(ask, serve(drip), timeout_s=0.05, tries=1).what


def test_a_redirect_is_not_followed_and_takes_no_credentials_along(serve):
    elsewhere = serve(rows({"0020000D": "1.2.3"}))
    for status in (301, 302, 303, 307, 308):
        server = serve(send(status, Location=f"{elsewhere.url}/studies?PatientID={PATIENT}"))
        error = refused(ask, server)
        assert error.code == "pacs_redirect"
        assert "http://127.0.0.1" in error.what
    assert not elsewhere.seen


NO_JSON = ["<html>log in", "{", "[1]", '[{"0020000D": 1}]', '["x"]', "[" * 100_000, '[{"0020000D": {"Value": ["../x"]}}]', "[{}]"]


@pytest.mark.parametrize("body", NO_JSON, ids=range(len(NO_JSON)))
def test_an_answer_that_is_no_dicom_json(serve, body):
    kind = "text/html" if body.startswith("<") else "application/json"
    assert refused(ask, serve(send(200, body, kind))).code == "pacs_answer"


@pytest.mark.parametrize("packed", [False, True])
def test_a_huge_answer_is_not_taken(serve, monkeypatch, packed):
    body = b" " * 3_000_000
    headers = {"Content_Encoding": "gzip"} if packed else {}
    server = serve(send(200, gzip.compress(body) if packed else body, **headers))
    assert refused(Wire(server.url, KNOWN, **QUICK).ask, "GET", server.url, {}, budget=1_000_000).code == "pacs_huge"


# ---------------------------------------------------------------- one object


def part(server: Server) -> bytes:
    wire = Wire(server.url, **QUICK)
    return wire.part(wire.ask("GET", server.url, {}))


def test_an_object_is_what_stands_between_the_boundaries(serve):
    content = b"\r\n\r\n--\r\n--other\r\n"
    assert part(serve(parts(content))) == content
    assert part(serve(parts(content, boundary="a b"))) == content
    assert part(serve(send(200, content, "application/dicom"))) == content  # not as the standard says, and seen


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (send(200, b"\r\n--b\r\n\r\nabc", "multipart/related; boundary=b"), "pacs_cut"),
        (send(200, b"\r\n--b\r\nContent-", "multipart/related; boundary=b"), "pacs_cut"),
        (send(200, b"", "multipart/related; boundary=b"), "pacs_cut"),
        (parts(b"a", b"b"), "pacs_answer"),
        (send(200, b"--b\r\n\r\nabc\r\n--b--", "multipart/related"), "pacs_answer"),
        (send(200, b"<html>", "text/html"), "pacs_answer"),
        (send(200, b"x", ""), "pacs_answer"),
    ],
)
def test_an_answer_without_one_whole_object(serve, reply, code):
    assert refused(part, serve(reply)).code == code


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    "url",
    [
        "",
        "pacs",
        "ftp://a/b",
        "file:///etc/passwd",
        "http://",
        "http://a:99999",
        "http://a b",
        "http://a/?x=1",
        "http://a/#x",
    ],
)
def test_an_address_that_is_none(url):
    assert refused(service_url, url).code == "pacs_url"


def test_credentials_in_an_address_are_refused_and_not_repeated():
    error = refused(service_url, f"https://radiologist:{SECRET}@pacs.example.org")
    assert (error.code, error.where) == ("pacs_url", "URL")


@pytest.mark.parametrize("host", ["pacs.example.org", "10.0.0.1", "[2001:db8::1]", "127.0.0.1.example.org"])
def test_credentials_go_unencrypted_to_this_machine_only(host):
    assert refused(Wire, f"http://{host}/dicom-web", KNOWN).code == "pacs_url"
    assert "not encrypted" in Wire(f"http://{host}/dicom-web").warnings[0]
    for here in ("http://127.0.0.1:8042/x", "http://localhost/x", "http://[::1]:8042/x", "https://pacs.example.org"):
        assert not Wire(here, KNOWN).warnings


# ---------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, with its key, in one PEM."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=pacs"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {folder}/key.pem -out {folder}/cert.pem"
    subprocess.run(command.split(), check=True, capture_output=True)
    return folder / "cert.pem"


@pytest.fixture
def secure(serve, certificate):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return serve(send(204), tls=tls)


def test_a_certificate_that_nobody_known_signed_is_refused_before_anything_is_sent(secure, monkeypatch, certificate):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))  # only --ca counts
    error = refused(ask, secure, timeout_s=5)
    assert error.code == "pacs_tls"
    assert "--ca" in error.fix
    assert not secure.seen


def test_the_authority_that_the_user_names_is_believed(secure, certificate):
    wire = Wire(secure.url, KNOWN, ca=certificate, **QUICK | {"timeout_s": 5})
    assert studies(Pacs(wire), {}, 10) == ([], False)
    assert not wire.warnings


def test_a_name_that_the_certificate_does_not_bear_is_refused(secure, certificate):
    wire = Wire(secure.url.replace("127.0.0.1", "localhost"), KNOWN, ca=certificate, **QUICK | {"timeout_s": 5})
    assert refused(studies, Pacs(wire), {}, 10).code == "pacs_tls"
    assert not secure.seen


def test_insecure_is_said(secure):
    wire = Wire(secure.url, KNOWN, insecure=True, **QUICK | {"timeout_s": 5})
    assert studies(Pacs(wire), {}, 10) == ([], False)
    assert "not checked" in wire.warnings[0]


def test_a_ca_file_without_a_certificate(tmp_path):
    (tmp_path / "ca.pem").write_text("hello")
    assert refused(Wire, "https://pacs.example.org", ca=tmp_path / "ca.pem").code == "bad_ca"
    assert refused(Wire, "https://pacs.example.org", ca=tmp_path / "none").code == "missing"


# ---------------------------------------------------------------- credentials


def write(path, content, mode=0o600):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def test_credentials_come_from_a_file_or_the_environment(tmp_path, monkeypatch):
    for name in (USER, PASSWORD, TOKEN):
        monkeypatch.delenv(name, raising=False)
    assert read_credentials() is None
    assert read_credentials(write(tmp_path / "a", {"user": "u", "password": "p:ä"})) == Credentials("u", "p:ä")
    assert read_credentials(write(tmp_path / "a", {"token": "t"})) == Credentials(token="t")
    monkeypatch.setenv(TOKEN, "abc")
    assert read_credentials() == Credentials(token="abc")
    assert read_credentials(tmp_path / "a") == Credentials(token="t")
    monkeypatch.setenv(USER, "u")
    assert refused(read_credentials).code == "bad_credentials"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_credentials_that_others_may_read_are_refused(tmp_path, mode):
    error = refused(read_credentials, write(tmp_path / "a", {"token": SECRET}, mode))
    assert error.code == "credentials_open"
    assert "chmod 600" in error.fix


@pytest.mark.parametrize(
    "content",
    [
        SECRET,
        f"radiologist:{SECRET}",
        [SECRET],
        {"user": SECRET},
        {"password": SECRET, "user": ""},
        {"token": SECRET, "user": "u", "password": "p"},
        {"token": f"{SECRET}\r\nX-Evil: 1"},
        {"token": f"{SECRET} "},
        {"token": 5},
        {"user": f"a:{SECRET}", "password": "p"},
        "[" * 10_000,
    ],
)
def test_credentials_that_are_none_are_not_repeated(tmp_path, content):
    assert refused(read_credentials, write(tmp_path / "a", content)).code == "bad_credentials"


def test_credentials_print_as_nothing():
    assert SECRET not in repr(KNOWN) + str(KNOWN)


def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dicomweb_client", None)
    error = refused(open_pacs, "https://pacs.example.org")
    assert error.code == "no_extra"
    assert "reportseg[dicomweb]" in error.fix
