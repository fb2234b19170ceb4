"""report.html: one file, safe whatever the ids and sentences are, with each number named and each caveat said."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from reportseg.errors import InputError
from reportseg.page import VOID
from reportseg.report import CAVEAT, write_report
from reportseg.report_cases import MOST_ROWS, CasePicture, curve_plots
from reportseg.schemas.metrics import Metrics
from reportseg.schemas.training import TrainingFile
from reportseg.types import INTENDED_USE, CaseScore

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&lt;</td></style><!--"
PNG = b"\x89PNG\r\n\x1a\n not looked at"
SCORES = {"dice_pooled": 0.8713, "iou_pooled": 0.772, "dice_mean": 0.8042, "iou_mean": 0.7194, "hd95": 18.31, "nsd": 0.6421, "ece": 0.0123}
LOWER = SCORES | {"dice_pooled": 0.7713, "dice_mean": 0.7042}


def made_metrics(**changes) -> Metrics:
    values = SCORES | {
        "command": "reportseg evaluate BUNDLE manifest.csv --split val -o eval",
        "bundle_sha256": "3f" * 32,
        "seed": 7,
        "cases_sha256": "ca" * 32,
        "split": "val",
        "n_cases": 4,
        "n_patients": 3,
        "decision": {"rule": "fixed", "threshold": 0.41, "temperature": 1.12},
        "text": "text",
        "hd95_unit": "px",
        "nsd_tolerance": 2,
        "counts": {"truth_only": 1},
        "ci95": {"dice_pooled": [0.863, 0.879], "hd95": [17.2, 19.5]},
        "ci": {"n_boot": 2000, "clusters": 3},
    }
    return Metrics.model_validate(values | changes)


def case(name: str, dice: float, patient: str = "patient-9", **changes) -> CaseScore:
    values = {"tp": 900, "fp": 100, "fn": 300, "iou": dice / (2 - dice), "hd95": 12.5, "nsd": 0.7, "presence": None, "area_px": 1200}
    return CaseScore(name, patient, "text", dice=dice, present_truth=True, **(values | changes))


CASES = [case("a", 0.9), case("b", 0.5), case("c", 0.0), case("d", 0.7)]
CONTROLS = {
    "swapped-side": LOWER | {"n_changed": 2, "n_cases": 2, "difference": {"dice_pooled": [0.4, 0.3, 0.5]}},
    "shuffled": LOWER | {"n_changed": 4, "difference": {"dice_pooled": [0.25, 0.235, 0.268], "dice_mean": [0.24, 0.22, 0.26]}},
    "original": SCORES | {"n_changed": 0},
}
TWIN = {
    "bundle_sha256": "71" * 32,
    "difference": {"dice_pooled": [0.0721, 0.064, 0.08], "dice_mean": [0.05, 0.04, 0.06], "hd95": [-4.2, -5.5, -3]},
}
TRAINING = {
    "images": 110000,
    "steps": 3438,
    "seconds": 2520,
    "config": {"name": "tgcnet_small", "model": {"name": "tgcnet"}},
    "dev": {"dice_mean": 0.81, "dice_pooled": None, "n_films": 40.0},
    "curves": {
        "dev_dice_mean": [[55000, 0.7], [110000, 0.81]],
        "images_per_s": [[0, 40.0], [110000, 41.0]],
        "lr": [[0, 0.001], [110000, 0]],
        "none": [],
        "similarity_16": [[0, 0.2], [110000, 0.1]],
        "similarity_8": [[0, 0.3], [110000, 0.1]],
        "total": [[0, 1.2], [110000, 0.31]],
    },
}
PICTURES = [CasePicture("worst", "c", "lower left lung", 0.0, PNG), CasePicture("best", "a", "upper right lung", 0.9, PNG)]


class Page(HTMLParser):
    """The parsed page: tags in order, text, and every tag closed in turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.tags, self.open, self.words = html, [], [], []
        self.feed(html)
        self.close()
        assert not self.open
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        self._gap(tag)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self._gap(tag)

    def _gap(self, tag):
        if tag not in ("a", "b", "bdi", "code", "strong"):
            self.words.append(" ")

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def sections(self) -> list[str | None]:
        return [attrs["id"] for attrs in self.all("section")]

    def section(self, name: str) -> str:
        return re.search(rf'<section id="{name}">.*?</section>', self.html, re.S).group()

    def rows(self, name: str) -> list[list[str]]:
        rows = re.findall(r"<tr>(.*?)</tr>", self.section(name), re.S)
        return [[re.sub(r"<[^>]*>", " ", cell).split() for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)] for row in rows]


@pytest.fixture
def render(tmp_path):
    def render(cases=CASES, *, changes=None, **given) -> Page:
        path = tmp_path / "report.html"
        write_report(path, made_metrics(**(changes or {})), cases, **given)
        return Page(path.read_text(encoding="utf-8"))

    return render


@pytest.fixture
def full(render) -> Page:
    subsets = {"sub": LOWER | {"n_cases": 2, "ci95": {"dice_pooled": [0.7, 0.8]}}}
    changes = {"controls": CONTROLS, "twin": TWIN, "subsets": subsets, "warnings": ["val shares patients with train"]}
    twin_cases = [case("a", 0.8), case("b", 0.6), case("c", 0.0), case("other", 1.0)]
    given = {"training": TrainingFile.model_validate(TRAINING), "calibration": [(0.1, 0.12, 1000), (0.9, 0.8, 50)], "figures": PICTURES}
    return render(changes=changes, twin_cases=twin_cases, texts={"a": "upper right lung"}, **given)


class TestOneFile:
    def test_nothing_is_fetched(self, full):
        assert {tag for tag, _ in full.tags} & {"link", "iframe", "object", "embed", "base", "form", "video", "audio"} == set()
        for tag, attrs in full.tags:
            for name, value in attrs.items():
                if name in ("src", "href", "srcset", "action", "data", "poster", "background", "xlink:href"):
                    assert value.startswith("data:image/png;base64," if tag == "img" else "#"), (tag, name)
        assert not re.search(r"@import|url\(|https?://|//[a-z]", re.sub(r'src="data:[^"]*"|^// .*$', "", full.html, flags=re.M))

    def test_one_inline_script(self, full):
        assert full.all("script") == [{}]

    def test_no_handlers_in_attributes(self, full):
        assert not [name for _, attrs in full.tags for name in attrs if name.startswith("on")]

    def test_links_lead_to_sections_in_order(self, full):
        links = [attrs["href"] for attrs in full.all("a")]
        nav = re.findall(r'href="#([^"]*)"', re.search(r"<nav.*?</nav>", full.html).group())
        assert nav == full.sections()
        ids = {attrs["id"] for _, attrs in full.tags if "id" in attrs}
        assert {link[1:] for link in links} <= ids

    def test_the_first_stop_of_the_keyboard_skips_to_the_figures(self, full):
        assert full.all("a")[0]["href"] == "#main"
        assert full.all("main") == [{"id": "main"}]

    def test_ids_are_unique(self, full):
        ids = [attrs["id"] for _, attrs in full.tags if "id" in attrs]
        assert len(ids) == len(set(ids))

    def test_same_input_same_bytes(self, render):
        assert render(figures=PICTURES).html == render(figures=PICTURES).html

    def test_written_whole_or_not_at_all(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(InputError, match="cannot be written"):
            write_report(tmp_path / "file" / "report.html", made_metrics(), CASES)
        assert [p.name for p in tmp_path.iterdir()] == ["file"]

    def test_heavy_libraries_are_not_needed(self):
        code = "import reportseg.report, sys; print(sorted({'torch', 'matplotlib', 'scipy', 'transformers'} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class TestHostileText:
    def test_stays_text_wherever_it_may_stand(self, render):
        changes = {
            "command": HOSTILE, "split": HOSTILE, "text": HOSTILE, "warnings": [HOSTILE], "empty_policy": HOSTILE,
            "controls": {HOSTILE: CONTROLS["shuffled"]}, "subsets": {HOSTILE: LOWER | {"n_cases": 1}}, "twin": TWIN,
        }  # fmt: skip
        config = {"name": HOSTILE, "model": {"name": HOSTILE}}
        training = TrainingFile.model_validate(TRAINING | {"config": config, "dev": {HOSTILE: 0.1}, "curves": {HOSTILE: [[0, 1.0]]}})
        cases = [case(HOSTILE, 0.5, warnings=(HOSTILE,))]
        pictures = [CasePicture("best", HOSTILE, HOSTILE, 0.5, PNG)]
        page = render(cases, changes=changes, training=training, figures=pictures, texts={HOSTILE: HOSTILE})
        assert page.all("script") == [{}]
        assert [attrs["alt"] for attrs in page.all("img")] == [f"Film of {HOSTILE} with prediction and truth"]
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
        assert page.text.count("<script>alert(1)</script>") >= 12

    def test_text_of_any_script_survives_and_does_not_leak_its_direction(self, render):
        sentence = "آفة في الرئة اليسرى \u202e肺 e\u0301"
        page = render(figures=[CasePicture("best", "a", sentence, 0.5, PNG)])
        assert sentence in page.text
        assert '<p dir="auto" class="sentence">' in page.html

    def test_what_utf8_cannot_hold_is_replaced(self, render):
        assert "a\ufffdb" in render([case("a\ud800b", 0.5), case("a\0b", 0.6)]).text


def first_screen(page: Page) -> Page:
    return Page(re.search(r"<header>.*?</header>", page.html, re.S).group())


class TestFirstScreen:
    def test_intended_use_at_both_ends(self, full):
        assert full.text.count(INTENDED_USE) == 2
        assert full.text.endswith(INTENDED_USE)
        assert INTENDED_USE in first_screen(full).text

    def test_it_answers_what_how_good_what_the_text_bought_and_whether_it_is_read(self, full):
        headings = re.findall(r"<h[12]>(.*?)</h[12]>", first_screen(full).html)
        assert headings[1:] == [
            "Dice, pooled",
            "Dice, mean",
            "IoU, pooled",
            "IoU, mean",
            "What the text bought",
            "Does it read the sentence?",
        ]
        assert "Dice, pooled +0.072 [0.064, 0.080] Dice, mean +0.050 [0.040, 0.060]" in first_screen(full).text
        assert re.findall(r">(0\.\d{3})</text>", first_screen(full).html) == ["0.871", "0.771", "0.771"]

    def test_it_says_where_the_sentence_comes_from(self, render):
        assert " ".join(CAVEAT.split()) in first_screen(render()).text
        assert "written with the mask in view" in CAVEAT
        assert "not the gain" in " ".join(CAVEAT.split())

    def test_what_was_not_measured_is_said_or_left_out(self, render):
        text = first_screen(render()).text
        assert "Not measured: that takes a twin" in text
        assert "Does it read the sentence?" not in text
        assert "What the text bought" not in first_screen(render(changes={"bundle_sha256": None, "decision": None})).text

    def test_what_was_scored(self, full):
        assert "tgcnet_small on val" in full.text
        for part in ("3f3f3f3f3f3f", "4 cases of 3 patients", "cut at 0.41, temperature 1.12", "column text", "--split val"):
            assert part in full.text

    @pytest.mark.parametrize(
        ("known", "says"), [(3, "4 cases of 3 known patients, 1 film without"), (0, "4 cases of patients who are not named")]
    )
    def test_patients_are_counted_as_far_as_they_are_known(self, render, known, says):
        changes = {"n_patients": known, "ci": {"n_boot": 2000, "clusters": 4, "without_patient": 4 - known}}
        assert says in render(changes=changes).text

    def test_without_a_training_file_the_bundle_is_the_name(self, render):
        assert "Bundle 3f3f3f3f3f3f on val" in render().text

    def test_ensemble(self, render):
        text = render(changes={"ensemble": ["ee" * 32], "decision": {"rule": "expected_dice", "threshold": 0.4, "temperature": 1.0}}).text
        assert "3f3f3f3f3f3f eeeeeeeeeeee" in text
        assert "expected Dice of each film, temperature 1.00" in text

    def test_masks_of_other_code(self, render):
        page = render(changes={"bundle_sha256": None, "decision": None, "seed": 0, "ece": None})
        assert "Masks made by other code on val" in page.text
        assert "none: the masks came as they are" in page.text
        assert "Seed" not in page.text
        assert "text" not in page.sections()
        assert "--twin" not in page.text


class TestScores:
    def test_headline(self, full):
        text = full.text
        for name, value in (("Dice, pooled", "0.871"), ("Dice, mean", "0.804"), ("IoU, pooled", "0.772"), ("IoU, mean", "0.719")):
            assert re.search(rf"{name} +{value} ", text)
        assert "0.871 95 % interval [0.863, 0.879] " in text
        assert "0.804 no interval " in text

    def test_table_has_units_tolerance_and_direction(self, full):
        rows = {" ".join(row[0]): [" ".join(c) for c in row[1:]] for row in full.rows("scores")}
        assert len(rows) == 11
        assert rows["HD95, px"][:3] == ["18.31", "[17.20, 19.50]", "lower"]
        assert rows["NSD"][0] == "0.6421"
        assert "within 2 px" in rows["NSD"][3]
        assert rows["ECE"][:3] == ["0.0123", "not drawn", "lower"]
        assert rows["Dice, pooled"][:3] == ["0.8713", "[0.863, 0.879]", "higher"]

    def test_a_null_score_is_an_en_dash_and_the_reason_stands_in_its_row(self, full):
        rows = {" ".join(row[0]): [" ".join(c) for c in row[1:]] for row in full.rows("scores")}
        assert rows["Presence AUROC"][:2] == ["–", "–"]
        assert "Not told here: it needs a bundle with a trained presence head" in rows["Presence AUROC"][3]
        assert "Not told here: it needs a case with an absent target" in rows["Absent left empty"][3]
        assert "Not told here" not in rows["NSD"][3]

    def test_no_reason_waits_to_be_hovered(self, full):
        hovered = [attrs["title"] for tag, attrs in full.tags if "title" in attrs]
        assert hovered and all(re.fullmatch("[0-9a-f]{64}", title) and title in full.section("method") for title in hovered)

    def test_nothing_known(self, render):
        page = render([], changes=dict.fromkeys(SCORES) | {"ci95": {}, "ci": None, "n_cases": 0, "n_patients": 0})
        assert [row[1] for row in page.rows("scores")[1:]] == [["–"]] * 10
        assert page.sections() == ["scores", "text", "pictures", "method"]


class TestControls:
    def test_side_by_side_in_a_fixed_order(self, full):
        head, *rows = full.rows("controls")
        assert [row[0][0] for row in rows] == ["original", "shuffled", "swapped-side"]
        assert " ".join(head[-2]) == "Loss, pooled"
        assert [[" ".join(c) for c in row[1:3]] for row in rows] == [["4", "0"], ["4", "4"], ["2", "2"]]
        assert rows[1][-2:] == [["+0.2500", "[0.235,", "0.268]"], ["+0.2400", "[0.220,", "0.260]"]]
        assert rows[0][-2:] == [[], []]

    def test_the_original_is_added_where_it_was_not_asked_for(self, render):
        rows = render(changes={"controls": {"empty": LOWER | {"n_changed": 4}}}).rows("controls")
        assert [row[0][0] for row in rows[1:]] == ["original", "empty"]
        assert rows[1][3] == ["0.8713"]

    def test_interval_plot(self, full):
        names = [attrs["aria-label"] for attrs in full.all("svg") if "aria-label" in attrs]
        assert [name for name in names if "control" in name] == [
            "Dice, pooled: original minus control",
            "Dice, mean: original minus control",
        ]

    def test_no_plot_without_differences(self, render):
        assert "<svg" not in render(changes={"controls": {"empty": LOWER | {"n_changed": 4}}}).section("controls")


class TestTwin:
    def test_the_twin_is_the_model_less_the_difference(self, full):
        rows = full.rows("text")
        assert rows[1] == [["Dice,", "pooled"], ["0.8713"], ["0.7992"], ["+0.0721"], ["[0.064,", "0.080]"]]
        assert rows[3] == [["HD95,", "px"], ["18.31"], ["22.51"], ["−4.20"], ["[−5.50,", "−3.00]"]]

    def test_the_statement_ends_with_the_caveat(self, full):
        assert 'href="#caveat"' in full.section("text").splitlines()[-1]

    def test_cases_are_paired_by_id(self, full):
        assert "better on 1 and worse on 1 of 3 cases" in full.text

    @pytest.mark.parametrize(
        ("low", "high", "verdict"), [(0.01, 0.09, "The text helped"), (-0.01, 0.09, "Undecided"), (-0.09, -0.01, "The text did harm")]
    )
    def test_verdict(self, render, low, high, verdict):
        page = render(changes={"twin": {"bundle_sha256": None, "difference": {"dice_mean": [(low + high) / 2, low, high]}}})
        assert verdict in page.text

    def test_one_patient_has_no_verdict(self, render):
        page = render(changes={"twin": {"bundle_sha256": None, "difference": {}}})
        assert "no interval can be drawn" in page.text
        assert not re.search("Undecided|The text (helped|did harm)", page.text)

    def test_without_a_twin_it_says_how_to_get_one(self, render):
        assert "--twin DIR" in render().section("text")
        assert "data.text=constant" in render().section("text")

    def test_a_twin_says_that_it_is_one(self, render):
        page = render(changes={"text": "constant"})
        assert "This is a text-free twin" in page.section("text")
        assert "--twin" not in page.text


class TestSections:
    def test_all_in_order(self, full):
        order = ["warnings", "scores", "text", "controls", "subsets", "pictures", "distribution", "cases", "training", "method"]
        assert full.sections() == order

    def test_what_is_not_given_is_left_out(self, render):
        assert render().sections() == ["scores", "text", "pictures", "distribution", "cases", "method"]

    def test_subsets_stand_beside_all_cases(self, full):
        rows = full.rows("subsets")
        assert [row[0] for row in rows[1:]] == [["all", "cases"], ["sub"]]
        assert rows[2][1:3] == [["2"], ["0.7713", "[0.700,", "0.800]"]]

    def test_loss_and_dev_dice_are_seen_at_once_and_other_curves_are_folded(self, full):
        seen, folded = full.section("training").split("<details>")
        names = [re.findall(r'<svg[^>]* aria-label="([^"]*)"', part) for part in (seen, folded)]
        assert names == [["Loss", "Dice on dev"], ["Parts of the loss", "Images a second", "Learning rate"]]
        assert "<summary>More curves: Parts of the loss, Images a second, Learning rate</summary>" in folded
        assert "Dice, mean <b>0.810</b>" in seen
        assert "images seen" in seen

    def test_what_was_learnt_before_the_first_film_is_a_number_and_no_curve(self, full):
        one = TrainingFile.model_validate(TRAINING | {"curves": {**TRAINING["curves"], "placing": [(0, 0.3124)]}})
        section = str(curve_plots(one))
        assert "placed" not in full.section("training") and "to a loss of 0.312" in section and "placing" not in section
        assert section.count("<svg") == str(curve_plots(TrainingFile.model_validate(TRAINING))).count("<svg")

    def test_curves_of_one_family_go_by_their_stride(self, full):
        assert re.findall(r"(similarity_\d+) <b>", full.section("training")) == ["similarity_8", "similarity_16"]

    def test_how_the_weights_came_about(self, full):
        text = Page(full.section("training")).text
        for fact in ("tgcnet", "110,000", "3,438", "42 min on cpu, fp32", "run to its end", "Dice, mean, on dev 0.8100", "Films of dev 40"):
            assert fact in text

    def test_distribution_and_calibration(self, full):
        section = full.section("distribution")
        assert "A quarter of the cases lies below 0.375, a quarter above 0.750; 1 case at 0." in section
        assert "1,000 pixels" in section

    def test_a_single_case_has_a_distribution(self, render):
        assert "lies below 0.500, a quarter above 0.500" in render([case("a", 0.5)]).section("distribution")

    def test_no_calibration_without_pixels(self, render):
        assert "Calibration" not in render(calibration=[(float("nan"), float("nan"), 0)]).section("distribution")


class TestUncertainty:
    RISK = {
        "n_cases": 4,
        "aurc": {"uncertainty": 0.2, "area": 0.31, "random": 0.475, "oracle": 0.15},
        "ci95": {"uncertainty": [0.15, 0.25]},
        "gain_over_area": {"uncertainty": [0.11, 0.05, 0.17]},
    }

    def test_calibration_before_and_after_and_what_rejection_gains(self, render):
        cases = [replace(one, uncertainty=1 - one.dice / 2) for one in CASES]
        changes = {"ece_raw": 0.0321, "ece_border_raw": 0.2, "ece_border": 0.1, "risk_coverage": self.RISK}
        page = render(cases, changes=changes, raw=[(0.1, 0.12, 1000)])
        rows = page.rows("uncertainty")
        assert rows[1] == [["All", "pixels"], ["0.0321"], ["0.0123"]]
        section = page.section("uncertainty")
        assert section.index("Expected Dice") < section.index("Predicted area") < section.index("Random") < section.index("Oracle")
        for part in ("divided by 1.12", "+0.1100", "[0.050, 0.170]", "share of cases kept", "Calibration before the fit"):
            assert part in section

    def test_without_probabilities_there_is_no_section(self, full):
        assert "uncertainty" not in full.sections()


class TestPictures:
    def test_overlays_with_sentence_id_and_dice(self, full):
        section = full.section("pictures")
        assert re.findall(r"<h3>(\w+)</h3>", section) == ["Best", "Worst"]
        for part in ("upper right lung", "lower left lung", "<b>0.900</b>", '<code dir="auto">c</code>'):
            assert part in section
        assert [base64.b64decode(attrs["src"].split(",")[1]) for attrs in full.all("img")] == [PNG, PNG]

    def test_legend(self, full):
        assert "prediction: orange veil and outline" in full.text
        assert "truth: blue outline" in full.text

    def test_left_out(self, render):
        page = render()
        assert page.all("img") == []
        assert "--no-images" in page.section("pictures")

    def test_an_empty_sentence_is_told(self, render):
        assert "no sentence" in render(figures=[CasePicture("best", "a", "", 0.9, PNG)]).section("pictures")


class TestCaseTable:
    def test_worst_first_and_every_head_sorts(self, full):
        section = full.section("cases")
        assert [row[0] for row in full.rows("cases")[1:]] == [["c"], ["b"], ["d"], ["a"]]
        assert [row[1] for row in full.rows("cases")[1:]] == [["0.000"], ["0.500"], ["0.700"], ["0.900"]]
        heads = re.findall(r"<th scope=\"col\"[^>]*>.*?</th>", section)
        assert len(heads) == 9
        assert all("aria-sort=" in head and '<button type="button">' in head for head in heads)
        assert [re.sub("<[^>]*>", "", head) for head in heads if "ascending" in head] == ["Dice"]

    def test_sentences_only_where_they_are_given(self, full, render):
        assert '<td dir="auto" class="says">upper right lung</td>' in full.section("cases")
        assert "Sentence" not in render().section("cases")

    def test_patients_are_not_named(self, full):
        assert "patient-9" not in full.html

    def test_long_tables_are_cut_and_say_so(self, render):
        page = render([case(f"c{i:03d}", i / 1000) for i in range(MOST_ROWS + 20)])
        assert len(page.rows("cases")) == MOST_ROWS + 1
        assert "The 300 of 320 cases with the lowest Dice" in page.text
        assert "cases.csv has all cases" in page.text
        assert "c299" in page.section("cases")
        assert "c300" not in page.section("cases")

    def test_scores_that_are_missing_or_not_finite(self, render):
        nan = float("nan")
        page = render([case("a", 0.5, hd95=nan, nsd=nan), case("b", nan, iou=nan, presence=0.25)])
        section = page.section("cases")
        assert page.rows("cases")[1][:2] == [["b"], ["–"]]
        assert section.count('data-v=""') == 5
        assert 'data-v="0.25"' in section
        assert "nan" not in re.sub(r"<style>.*</style>|<script>.*</script>", "", page.html, flags=re.S).lower()


class TestHonesty:
    def test_how_the_numbers_were_made(self, full):
        section = full.section("method")
        assert "percentile bootstrap of patients, 2,000 draws of 3 clusters" in section
        assert "both empty 1, one empty 0" in section
        assert "1 with a target and an empty prediction" in section
        assert "ca" * 32 in section
        assert "lower bound" not in section

    def test_films_without_a_patient_make_the_interval_a_lower_bound(self, render):
        section = render(changes={"ci": {"n_boot": 100, "clusters": 4, "without_patient": 2}}).section("method")
        assert "2 films without a patient" in section
        assert "lower bound" in section

    def test_warnings(self, render):
        training = TrainingFile.model_validate(TRAINING | {"truncated": True})
        cases = [case("a", 0.5, warnings=("negated", "new_code")), case("b", 0.6, warnings=("negated", "negated"))]
        changes = {"warnings": ["val shares patients with train"], "counts": {"failed": 1}}
        text = render(cases, changes=changes, training=training).text
        for part in (
            "val shares patients with train",
            "1 case could not be read",
            "cut short by its time limit",
            "2 cases: negated,",
            "1 case: new_code",
        ):
            assert part in text

    def test_no_warnings_no_section(self, render):
        assert "warnings" not in render().sections()
