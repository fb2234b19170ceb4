"""The project's own checks find what they look for."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import PIL.Image
import pytest
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

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


@pytest.mark.slow
@pytest.mark.parametrize("pacs", [False, pytest.param(True, marks=pytest.mark.orthanc)])
def test_the_clinic_demo_ends_with_a_seg_of_the_masks_that_were_predicted_and_a_picture(tmp_path, monkeypatch, capfd, pacs):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    demo = script("demo_clinic")
    if not pacs:
        monkeypatch.setattr(demo, "program", lambda: None)
    demo.main(tmp_path / "clinic")
    said = capfd.readouterr().out
    assert "pixel for pixel the predicted masks" in said and ("are not installed" in said) is not pacs
    assert len(list((tmp_path / "clinic" / "back").rglob("*.dcm"))) == (4 if pacs else 0)  # the film and three objects
    assert PIL.Image.open(tmp_path / "clinic" / "clinic.png").size == (demo.SIZE, demo.SIZE)


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


def test_a_place_has_the_line_that_defines_it(page):
    line = script("docs").line_of("models/tgcnet.py", "SSE")
    assert (ROOT / "src/reportseg/models/tgcnet.py").read_text().splitlines()[line - 1].startswith("class SSE")
    assert script("docs").line_of("models/tgcnet.py", "nothing") is None
    assert script("docs").line_of("nothing.py", "SSE") is None


class TestSite:
    @pytest.fixture
    def hook(self, monkeypatch):
        monkeypatch.syspath_prepend(ROOT / "scripts")
        return script("mkdocs_hook")

    @pytest.fixture
    def files(self, hook):
        config = load_config(str(ROOT / "mkdocs.yml"))
        config.plugins._current_plugin = "hook"  # as while mkdocs runs one
        page = File.generated(config, "a/page.md", content="`models/tgcnet.py:SSE` and `losses.py:nothing`")
        return hook.on_files(Files([page]), config)

    def test_an_equation_leads_to_the_line_of_its_code_in_the_site_itself(self, hook, files):
        page = SimpleNamespace(file=files.src_uris["a/page.md"], url="a/page.html")
        line = hook.line_of("models/tgcnet.py", "SSE")
        made = hook.on_page_markdown("| g | `models/tgcnet.py:SSE` |", page=page, files=files)
        assert made == f'| g | <a href="../source/models/tgcnet.html#__codelineno-0-{line}"><code>models/tgcnet.py:SSE</code></a> |'
        assert "class SSE(nn.Module)" in files.src_uris["source/models/tgcnet.md"].content_string

    def test_a_lost_place_fails_the_build(self, hook, files):
        page = SimpleNamespace(file=files.src_uris["a/page.md"], url="a/page.html")
        with pytest.raises(PluginError, match=r"losses\.py has no nothing"):
            hook.on_page_markdown("`losses.py:nothing`", page=page, files=files)

    @pytest.mark.parametrize(
        "tag",
        [
            '<script src="https://a.example/x.js">',
            "<script defer src=//a.example/x.js>",
            '<link rel="stylesheet" href="https://a.example/x.css">',
            '<img alt="x" src="http://a.example/x.png">',
        ],
    )
    def test_what_a_browser_would_fetch_from_elsewhere_fails_the_build(self, hook, files, tag):
        page = SimpleNamespace(file=files.src_uris["a/page.md"])
        with pytest.raises(PluginError, match="fetched from elsewhere"):
            hook.on_post_page(f"<p>{tag}", page=page)

    @pytest.mark.parametrize(
        "tag", ['<a href="https://arxiv.org/abs/2512.21135">', '<script src="assets/x.js">', '<img src="images/a.png">']
    )
    def test_links_that_a_reader_follows_and_our_own_files_are_fine(self, hook, tag):
        assert hook.on_post_page(tag, page=None) == tag
