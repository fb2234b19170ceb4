"""The project's own checks find what they look for."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def script(name: str):
    spec = spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("licence", "is_refused"),
    [
        ("MIT", False),
        ("LGPL-2.1-or-later", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MIT OR GPL-2.0-only", False),
        ("BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", False),
        ("GPL-3.0-or-later", True),
        ("GNU General Public License v2 (GPLv2)", True),
        ("GNU Affero General Public License v3", True),
        ("MIT AND AGPL-3.0-only", True),
    ],
)
def test_gpl_and_agpl_are_refused(licence, is_refused):
    assert script("licences").refused(licence) is is_refused


@pytest.fixture
def page(tmp_path) -> Path:
    return tmp_path / "page.md"


def test_a_link_to_nowhere_is_found(page):
    page.write_text("[here](page.md#a) [web](https://example.org/x) [lost](lost.md)\n\n```text\n[no](link.md)\n```\n")
    assert list(script("docs").broken_links(page)) == ["no such file: lost.md"]


def test_a_command_that_does_not_exist_is_found(page):
    lines = [
        "reportseg demo -o x  # fine",
        "reportseg data verify m --json",
        "reportseg frob x",
        "reportseg train a \\",
        "  --epochs 3",
        "make x",
    ]
    page.write_text("\n".join(["```bash", *lines, "```", "```text", "reportseg not looked at", "```", ""]))
    found = list(script("docs").unknown_commands(page))
    assert found == ["no such command: reportseg frob x", "reportseg train has no option --epochs"]


def test_a_place_in_the_code_that_is_gone_is_found(page):
    page.write_text("`models/tgcnet.py:SSE` `models/tgcnet.py:STRIDES` `losses.py:nothing`\n")
    assert list(script("docs").lost_places(page)) == ["losses.py has no nothing"]
