"""What all pages share: text stays text, missing numbers say so, and the shell asks for nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from reportseg.page import (
    Html,
    breakable,
    cell,
    command_line,
    counted,
    el,
    escape,
    facts,
    figure,
    interval,
    join,
    number,
    page,
    short_hash,
    side_by_side,
    sort_cell,
    table,
)
from reportseg.page import _resource as resource


class TestEscape:
    def test_a_plain_string_is_text_in_content_and_in_attributes(self):
        assert el("p", "<b> & 'c'") == "<p>&lt;b&gt; &amp; &#x27;c&#x27;</p>"
        assert el("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'

    def test_markup_stays_and_may_nest(self):
        assert el("p", el("b", "x"), None, " y") == "<p><b>x</b> y</p>"
        assert join(el("b"), "<") == "<b></b>&lt;"

    def test_markup_that_was_tampered_with_is_text_again(self):
        assert escape(el("b", "x") + "y") == "&lt;b&gt;x&lt;/b&gt;y"

    @pytest.mark.parametrize("bad", ["\0", "\x1b", "\x9f", "\ud800", "\uffff"])
    def test_what_html_or_utf8_cannot_hold_is_replaced(self, bad):
        assert escape(f"a{bad}b") == "a\ufffdb"
        escape(bad).encode("utf-8")

    @pytest.mark.parametrize("good", ["\n", "\t", "é", "肺", "رئة", "🫁", "e\u0301", "\u202e"])
    def test_other_characters_stay(self, good):
        assert escape(good) == good


class TestElements:
    def test_attribute_names_and_values(self):
        assert el("i", class_="a", aria_label="b", viewBox="c") == '<i class="a" aria-label="b" viewBox="c"></i>'
        assert el("i", hidden=True, title=None, lang=False) == "<i hidden></i>"
        assert el("i", x=1.0, y=2.345, n=3, empty="") == '<i x="1" y="2.35" n="3" empty=""></i>'

    def test_void_elements_are_not_closed(self):
        assert el("br") == "<br>"
        assert el("input", type="search") == '<input type="search">'


class TestNumbers:
    def test_value(self):
        assert number(0.87654) == "0.8765"
        assert number(-4.2, 1) == "−4.2"
        assert number(12345, 0) == "12,345"

    @pytest.mark.parametrize("missing", [None, float("nan"), float("inf"), float("-inf")])
    def test_a_missing_value_is_an_en_dash_that_is_read_aloud(self, missing):
        assert number(missing) == '<span class="none" role="img" aria-label="not available">–</span>'
        assert 'data-v=""' in sort_cell(missing, 3)

    def test_interval(self):
        assert interval((0.851, 0.88)) == '<span class="ci">[0.851, 0.880]</span>'
        assert "[−5.5, −2.9]" in interval((-5.5, -2.9), 1)

    def test_a_cell_that_sorts_holds_the_exact_value(self):
        assert sort_cell(1 / 3, 3) == '<td class="num" data-v="0.3333333333333333">0.333</td>'

    def test_counted(self):
        assert [counted(n, "case") for n in (0, 1, 2000)] == ["0 cases", "1 case", "2,000 cases"]

    def test_a_short_hash_still_has_the_whole_one(self):
        assert short_hash("ab" * 32) == f'<code title="{"ab" * 32}">abababababab</code>'


class TestParts:
    def test_table_aligns_and_can_be_scrolled_with_the_keyboard(self):
        made = table(["Name", "n"], [el("tr", el("th", "a", scope="row"), cell("1"))], "Sizes", text={"Name"})
        assert '<div class="scroll" role="region" tabindex="0" aria-label="Sizes">' in made
        assert '<th scope="col">Name</th><th scope="col" class="num">n</th>' in made
        assert "button" not in made
        assert "aria-sort" not in made

    def test_sortable_table(self):
        made = table(["Name", "n"], [], "Sizes", text={"Name"}, sorted_by="n")
        assert re.findall(r'aria-sort="(\w+)"', made) == ["none", "ascending"]
        assert made.count('<button type="button">') == 2
        assert 'class="sortable"' in made

    def test_a_long_name_breaks_between_its_words_and_stays_whole_as_text(self):
        assert breakable("tgcnet_qata_small (q-teacher)") == "tgcnet_<wbr>qata_<wbr>small (q-<wbr>teacher)"
        assert breakable("a") == "a" and breakable("_") == "_" and breakable("") == ""
        assert breakable("date.top_k=0.5") == "date.<wbr>top_<wbr>k=<wbr>0.5"
        assert breakable("<b>_x") == "&lt;b&gt;_<wbr>x"

    def test_no_option_of_a_command_is_broken(self):
        made = command_line("reportseg evaluate A <M> --split val")
        assert '<span class="option">--split</span> val</code>' in made
        assert re.sub("<[^>]*>", "", made) == "reportseg evaluate A &lt;M&gt; --split val"

    def test_facts_leave_out_what_is_not_known(self):
        assert facts([("a", "1"), ("b", None), ("c", "")]) == '<dl class="facts"><div><dt>a</dt><dd>1</dd></div></dl>'

    def test_figures(self):
        assert side_by_side([]) is None
        assert (
            figure("T", None, Html("<svg></svg>"))
            == '<figure class="chart"><figcaption><strong>T</strong></figcaption><svg></svg></figure>'
        )


class TestShell:
    def test_only_our_script_may_run_and_nothing_is_fetched(self):
        made = page("A & B", el("p", "x"))
        script = re.search(r"<script>(.*)</script>", made, re.S).group(1)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', made).group(1)
        assert policy.startswith("default-src &#x27;none&#x27;; img-src data:;")
        assert f"script-src &#x27;sha256-{digest}&#x27;" in policy
        assert "unsafe-eval" not in policy

    def test_document(self):
        made = page("A & B", el("p", "x"))
        assert made.startswith('<!DOCTYPE html>\n<html lang="en">')
        for part in ('<meta charset="utf-8">', "<title>A &amp; B</title>", "width=device-width", 'content="light dark"', "<p>x</p>"):
            assert part in made

    def test_style_and_script_fit_into_the_page(self):
        css, js = resource("page.css"), resource("page.js")
        assert "</" not in css
        assert "</script" not in js
        assert not re.search(r"url\(|@import|@font-face|https?:", css + js)
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\b|fetch|XMLHttpRequest|import\(", js)


def test_paper_has_what_a_filter_or_a_fold_hides():
    paper = resource("page.css").partition("@media print")[2]
    assert "tr[hidden] { display: table-row; }" in paper
    assert "details::details-content { display: block; content-visibility: visible; }" in paper
    assert not re.search(r"(?:details|\.scroll)[^{}]*\{[^}]*display: none", paper)


def colours(css: str, dark: bool = False) -> dict[str, str]:
    pairs = re.findall(r"--([\w-]+): (?:light-dark\((#\w+), (#\w+)\)|(#\w+));", css)
    return {name: one or (b if dark else a) for name, a, b, one in pairs}


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    channels = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


class TestThemes:
    css = resource("page.css")
    light = colours(css[: css.index("@media")])
    dark = colours(css[: css.index("@media")], dark=True)
    paper = light | colours(css[css.index("@media print") :])

    @pytest.mark.parametrize("theme", ["light", "dark", "paper"])
    def test_text_and_curves_are_legible(self, theme):
        theme = getattr(self, theme)
        for ground in ("page", "card", "alert"):
            assert contrast(theme["ink"], theme[ground]) >= 7
            assert contrast(theme["soft"], theme[ground]) >= 4.5
        for colour in ("c1", "c2", "c3", "c4"):
            assert contrast(theme[colour], theme["card"]) >= 4.5

    def test_the_switch_overrules_the_system_without_a_script_and_paper_overrules_both(self):
        made = page("A", el("p", "x"))
        assert re.findall(r'<input type="radio" name="theme" id="theme-(\w+)"', made) == ["auto", "light", "dark"]
        assert "checked" in re.search(r"<input[^>]*theme-auto[^>]*>", made).group()
        for scheme in ("light", "dark"):
            assert f":root:has(#theme-{scheme}:checked) {{ color-scheme: {scheme}; }}" in self.css
        assert "color-scheme: light;" in self.css[self.css.index("@media print") :]
        assert {self.paper[ground] for ground in ("page", "card", "alert")} == {"#fff"}

    def test_paper_cuts_no_table(self):
        paper = self.css[self.css.index("@media print") :]
        assert ".scroll, .tall { overflow: visible; max-height: none; }" in paper
        assert "thead { break-inside: avoid; }" in paper
        assert "nth-child" not in paper
