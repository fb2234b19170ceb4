"""A PACS on this machine that answers as a test tells it to, and one that keeps what it is given."""

from __future__ import annotations

import contextlib
import io
import json
import re
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydicom import dcmread

Reply = Callable[[BaseHTTPRequestHandler], None]
KEYS = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}


class Server:
    """Answers each request with the next reply of a list, the last one for ever, and keeps what it was sent."""

    def __init__(self, *replies: Reply, tls: ssl.SSLContext | None = None) -> None:
        self.replies, self.seen = list(replies), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20

            def answer(self) -> None:
                self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.seen.append({"method": self.command, "path": self.path, "headers": dict(self.headers), "body": self.body})
                reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                with contextlib.suppress(OSError):  # the client hung up
                    reply(self)

            do_GET = do_POST = answer

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # a client that hangs up is what some tests are about
        if tls:
            self.http.socket = tls.wrap_socket(self.http.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.http.server_port}/dicom-web"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def send(status: int, body: bytes | str = b"", kind: str = "application/dicom+json", **headers: str) -> Reply:
    data = body if isinstance(body, bytes) else body.encode()

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(data)), "Content-Type": kind} | headers).items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def rows(*items: dict[str, Any]) -> Reply:
    return send(200, json.dumps([{tag: {"vr": "UI", "Value": [value]} for tag, value in item.items()} for item in items]))


def parts(*bodies: bytes, boundary: str = "b-1", end: str = "--") -> Reply:
    body = b"".join(f"\r\n--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + one for one in bodies)
    return send(200, body + f"\r\n--{boundary}{end}\r\n".encode(), f'multipart/related; type="application/dicom"; boundary="{boundary}"')


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


class Archive:
    """A reply that is a small DICOMweb service; `objects`: instance UID -> file. `alter(handler, instance, file)` may answer instead."""

    def __init__(self, *files: bytes, alter: Callable[[BaseHTTPRequestHandler, str, bytes], bool] = lambda *_: False) -> None:
        self.objects: dict[str, bytes] = {}
        self.alter, self.refuse = alter, 0
        for file in files:
            self.keep(file)

    def keep(self, file: bytes) -> str:
        uid = str(dcmread(io.BytesIO(file), stop_before_pixels=True).SOPInstanceUID)
        self.objects.setdefault(uid, file)
        return uid

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        path, _, query = handler.path.partition("?")
        names = path.removeprefix("/dicom-web/").split("/")
        if handler.command == "POST":
            self.take(handler)
        elif len(names) == 6:
            file = self.objects.get(names[5])
            if not self.alter(handler, names[5], file or b""):
                (parts(file) if file else send(404))(handler)
        else:
            offset, limit = (int((re.search(rf"\b{name}=(\d+)", query) or [0, 0])[1]) for name in ("offset", "limit"))
            rows(*self.found(names)[offset : offset + limit])(handler)

    def found(self, names: list[str]) -> list[dict[str, str]]:
        """What lies below a path, each once."""
        headers = [dcmread(io.BytesIO(file), stop_before_pixels=True) for file in self.objects.values()]
        given = dict(zip(names[::2], names[1::2], strict=False))
        fitting = [ds for ds in headers if all(str(ds[KEYS[level]].value) == uid for level, uid in given.items())]
        key = KEYS[names[-1]]
        return [{key: uid} for uid in dict.fromkeys(str(ds[key].value) for ds in fitting)]

    def take(self, handler: Any) -> None:
        mark = re.search(r"boundary=(\w+)", handler.headers["Content-Type"])[1].encode()
        file = handler.body.split(b"\r\n\r\n", 1)[1].rsplit(b"\r\n--" + mark, 1)[0]
        uid = str(dcmread(io.BytesIO(file), stop_before_pixels=True).SOPInstanceUID)
        if self.refuse:
            item = {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [self.refuse]}}
            send(409, json.dumps({"00081198": {"vr": "SQ", "Value": [item]}}))(handler)
            return
        self.keep(file)
        send(200, "{}")(handler)
