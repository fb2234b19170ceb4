"""What `mkdocs build` does for us beyond the pages; mkdocs.yml names it as a hook.

A place in the code that a page gives, a file, a colon and a name, becomes a link to that line of the source, which the site holds itself:
equations stand beside the very code of their version, without a network. A page that would fetch anything from elsewhere fails the build.
"""

from __future__ import annotations

import re
from typing import Any

from docs import PLACE, ROOT, line_of
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

SOURCE = ROOT / "src" / "reportseg"
FETCHED = re.compile(r"""<(?:script|img|iframe|source|link(?![^>]*rel="?canonical))\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^"'\s>]*""")


def on_files(files: Files, config: Any) -> Files:
    """Adds a page for each source file that the pages name."""
    texts = [file.content_string for file in files.documentation_pages()]
    for name in sorted({match[1] for text in texts for match in PLACE.finditer(text)}):
        code = (SOURCE / name).read_text(encoding="utf-8")
        content = f"---\nsearch:\n  exclude: true\nhide: [toc]\n---\n# {name}\n\n~~~~~~ {{ .python linenums=1 }}\n{code}~~~~~~\n"
        files.append(File.generated(config, page_of(name), content=content, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: Any) -> str:
    """Links each place; one that is lost fails the build."""
    if page.file.src_uri.startswith("source/"):
        return markdown

    def link(match: re.Match[str]) -> str:
        line = line_of(match[1], match[2])
        if line is None:
            raise PluginError(f"{page.file.src_uri}: {match[1]} has no {match[2]}")
        url = get_relative_url(files.src_uris[page_of(match[1])].url, page.url)
        return f'<a href="{url}#__codelineno-0-{line}"><code>{match[1]}:{match[2]}</code></a>'

    return PLACE.sub(link, markdown)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Fails on what a browser would fetch from elsewhere; links that a reader follows are fine."""
    if found := FETCHED.search(output):
        raise PluginError(f"{page.file.src_uri}: fetched from elsewhere: {found[0]}")
    return output


def page_of(name: str) -> str:
    """The page that shows a source file."""
    return f"source/{name.removesuffix('.py')}.md"
