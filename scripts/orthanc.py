"""A real PACS for tests and the demo: Debian's Orthanc with its DICOMweb plugin, on a free port of this machine, under a fresh password."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
START_S = 60  # on a busy machine


def program() -> str | None:
    """Orthanc, where it and its DICOMweb plugin are installed."""
    found = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    return found if found and PLUGIN.exists() else None


@contextmanager
def orthanc(folder: Path) -> Iterator[tuple[str, Path]]:
    """(address of its DICOMweb service, file of its credentials), until the end; all that it keeps lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()  # Orthanc takes a relative path from its configuration's folder
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    user, password = "radiologist", secrets.token_urlsafe(16)
    config = {
        "Name": "phantoms",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "HttpThreadsCount": 4,
        "RemoteAccessAllowed": False,
        "DicomServerEnabled": False,
        "WebDavEnabled": False,
        "SaveJobs": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {user: password},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    for name, content in (("orthanc.json", config), ("credentials.json", {"user": user, "password": password})):
        with open(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(content, file)
    with open(folder / "orthanc.log", "wb") as log:
        server = subprocess.Popen([program() or "Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(server, f"http://127.0.0.1:{port}/dicom-web/studies", folder / "orthanc.log")
        yield f"http://127.0.0.1:{port}/dicom-web", folder / "credentials.json"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Until it answers, which without a password it does with 401."""
    end = time.monotonic() + START_S
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end and server.poll() is None:
        try:
            opener.open(url, timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            if answer.code == 401:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"Orthanc did not start:\n{log.read_text(errors='replace')[-2000:]}")
