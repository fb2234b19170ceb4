"""What all tests share. Real data is used only where REPORTSEG_DATA names it; with REPORTSEG_REQUIRE=data its absence is a failure."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("busy", deadline=None)  # a slow machine is no fault of the code
hypothesis.settings.load_profile("busy")

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models; several threads only wait for each other, minutes on a busy machine
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


NODE = Path(__file__).parent / "node"
#: Marker -> programs and folders that its tests need. `make test` deselects these tests.
TOOLS: dict[str, tuple[str, ...]] = {
    "dcmtk": ("dcmpschk", "dcm2json"),
    "dicom3tools": ("dciodvfy",),
    "orthanc": ("Orthanc",),
    "node": ("node", str(NODE / "node_modules")),
}
REQUIRED = {name for name in os.environ.get("REPORTSEG_REQUIRE", "").split(",") if name}


def pytest_configure(config):
    """A name in REPORTSEG_REQUIRE that nothing looks for would require nothing."""
    if unknown := REQUIRED - {"data", *TOOLS}:
        raise pytest.UsageError(f"REPORTSEG_REQUIRE names {', '.join(sorted(unknown))}, which no test needs")


def pytest_runtest_setup(item):
    """Without its program a test is skipped, or fails where REPORTSEG_REQUIRE names the package."""
    for name in TOOLS.keys() & {mark.name for mark in item.iter_markers()}:
        for need in TOOLS[name]:
            if not (shutil.which(need) or Path(need).is_dir()):
                if name in REQUIRED:
                    pytest.fail(f"REPORTSEG_REQUIRE names {name}, and {need} is not there")
                pytest.skip(f"needs {need} of {name}")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """No test reads or fills the user's cache of films."""
    monkeypatch.setenv("REPORTSEG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real data sets, or a skip."""
    root = os.environ.get("REPORTSEG_DATA", "")
    if root and Path(root).is_dir():
        return Path(root)
    if "data" in REQUIRED:
        pytest.fail("REPORTSEG_REQUIRE=data is set and REPORTSEG_DATA names no folder")
    pytest.skip("needs REPORTSEG_DATA")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """A tiny bundle with random weights."""
    from tiny import write_bundle

    return write_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture
def png(tmp_path) -> Path:
    """A film as a PNG file."""
    import PIL.Image

    from tiny import film

    path = tmp_path / "film.png"
    PIL.Image.fromarray((film()[:, :, 0] * 255).astype("uint8")).save(path)
    return path


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """The manifest of 40 small phantom films."""
    from reportseg.data.synthetic import synthesise

    return synthesise(tmp_path_factory.mktemp("phantoms") / "data", 40, size=32)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The configuration of a tiny U-Net."""
    file = tmp_path_factory.mktemp("config") / "t.yaml"
    file.write_text("name: t\nmodel: {name: unet, width: 4}\n")
    return file


@pytest.fixture
def serve(monkeypatch):
    """Starts a server of these replies that lives until the test ends; the environment says nothing of a PACS."""
    from pacs_server import Server
    from reportseg.pacs_http import PASSWORD, TOKEN, USER

    for name in (USER, PASSWORD, TOKEN):
        monkeypatch.delenv(name, raising=False)
    servers = []

    def start(*replies, **options) -> Server:
        servers.append(Server(*replies, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
