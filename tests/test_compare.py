"""Evaluations against one another: what counts as one method, what is refused, and figures that a hand can check."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from reportseg.cases import write_cases
from reportseg.cli import app
from reportseg.compare import compare, group, read_runs
from reportseg.compare_films import EACH, TIE
from reportseg.compare_page import verdict
from reportseg.data.manifest import write_manifest
from reportseg.errors import InputError
from reportseg.evaluate import evaluate
from reportseg.metrics import EMPTY_POLICY, TOLERANCE, count_policy, summarise
from reportseg.page import VOID
from reportseg.schemas.base import read_json, write_json
from reportseg.schemas.comparison import COMPARED, Comparison
from reportseg.schemas.data import DatasetFile
from reportseg.schemas.files import CSV_COLUMNS
from reportseg.schemas.metrics import Metrics
from reportseg.stats import bootstrap, holm, paired_bootstrap, paired_bootstrap_runs, wilcoxon_patients
from reportseg.types import INTENDED_USE, CaseScore

HOSTILE = "a|b & <script>alert(1)</script>_\n=1"
N = 12


def film(i: int, tp: int, *, patient="", **changes) -> CaseScore:
    """Of 100 true pixels `tp` are found, and as many others wrongly as are missed: Dice is tp / 100."""
    fp = fn = 100 - tp
    score = CaseScore(f"c{i}", patient, "text", tp, fp, fn, tp / 100, tp / (100 + fp), float(fp), tp / 100, None, True, 100)
    return replace(score, **changes)


def films(*tps, **changes) -> list[CaseScore]:
    return [film(i, tp, patient=f"p{i}", **changes) for i, tp in enumerate(tps)]


def folder(path, cases, **changes):
    """An evaluation as `evaluate` leaves it. Every name of a configuration is another hash."""
    name = changes.get("name")
    values = {
        "command": "reportseg evaluate",
        "name": name,
        "bundle_sha256": "b0" * 32 if name else None,
        "config_sha256": "".join(f"{ord(c):02x}" for c in name).ljust(64, "0")[:64] if name else None,
        "seed": 0,
        "cases_sha256": "ca" * 32,
        "split": "val",
        "n_cases": len(cases),
        "n_patients": len({case.patient for case in cases} - {""}),
        "decision": {"rule": "fixed", "threshold": 0.5, "temperature": 1} if name else None,
        "text": "text",
        "hd95_unit": "px",
        "nsd_tolerance": TOLERANCE,
        "empty_policy": EMPTY_POLICY,
        "counts": count_policy(cases),
        **summarise(cases),
    }
    path.mkdir(parents=True)
    write_json(path / "metrics.json", Metrics(**(values | changes)))
    write_cases(path / "cases.csv", cases)
    return path


LOW, HIGH = films(*range(40, 40 + N)), films(*range(60, 60 + N))


def two(tmp_path, one=HIGH, other=LOW, **changes):
    return [folder(tmp_path / "one", one, name="one"), folder(tmp_path / "other", other, **({"name": "other"} | changes))]


def compared(folders, tmp_path, **options):
    return compare(folders, out=tmp_path / "out", **({"n_boot": 50} | options))


# ---------------------------------------------------------------- the files


def test_five_files_that_agree(tmp_path):
    done = compared(two(tmp_path), tmp_path, command="reportseg compare one other")
    out = tmp_path / "out"
    assert sorted(file.name for file in out.iterdir()) == ["compare.html", "compare.json", "table.csv", "table.md", "table.tex"]
    assert read_json(out / "compare.json", Comparison) == done
    assert (done.n_cases, done.n_patients, done.split, done.reference, done.command) == (N, N, "val", "one", "reportseg compare one other")
    assert (done.ci.n_boot, done.ci.clusters, done.tie_margin, done.intended_use) == (50, N, TIE, INTENDED_USE)
    for file in out.iterdir():
        text = file.read_text()
        assert "0.6550" in text or "0.655" in text, file.name


def test_the_same_evaluations_give_the_same_bytes(tmp_path):
    folders = two(tmp_path)
    for name in ("a", "b"):
        compare(folders, out=tmp_path / name, n_boot=50, command="same")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_a_comparison_is_not_replaced_unless_asked(tmp_path):
    folders = two(tmp_path)
    compared(folders, tmp_path)
    with pytest.raises(InputError) as caught:
        compared(folders, tmp_path)
    assert caught.value.code == "exists"
    assert compared(folders[::-1], tmp_path, overwrite=True).reference == "other"


# ---------------------------------------------------------------- the numbers


def test_scores_and_intervals_are_those_of_the_evaluations(tmp_path):
    one, other = compared(two(tmp_path), tmp_path, n_boot=200).arms
    for arm, cases in ((one, HIGH), (other, LOW)):
        scores, intervals = summarise(cases), bootstrap(cases, 200)
        assert arm.scores == pytest.approx({score: scores[score] for score in COMPARED})
        assert {score: arm.ci95[score] for score in COMPARED} == {score: intervals[score] for score in COMPARED}
    assert one.difference == {}
    paired = paired_bootstrap(LOW, HIGH, 200)
    assert other.difference == {score: paired[score] for score in COMPARED}
    assert other.difference["dice_pooled"][0] == pytest.approx(-0.2)


def test_the_order_of_the_rows_does_not_matter(tmp_path):
    straight = compared(two(tmp_path), tmp_path)
    turned = compared(two(tmp_path / "turned", HIGH, LOW[::-1]), tmp_path / "turned")
    assert turned.arms[1].difference == straight.arms[1].difference
    assert turned.arms[1].films == straight.arms[1].films


def test_win_tie_loss_with_the_margin_as_a_tie(tmp_path):
    """One point is a tie, though 0.51 - 0.50 is a little more than 0.01 to a computer."""
    one, other = films(50, 50, 50, 50, 50, 50), films(51, 49, 50, 52, 48, 30)
    arm = compared(two(tmp_path, one, other), tmp_path).arms[1]
    assert (arm.win, arm.tie, arm.loss) == (1, 3, 2)


def test_holm_counts_the_family_that_is_declared(tmp_path):
    """Each method once, on dice_mean, against the reference."""
    noise = np.random.default_rng(0).integers(-3, 4, (3, N))
    folders = [folder(tmp_path / "base", HIGH, name="base")]
    others = [films(*(60 + i + shift + int(noise[k, i]) for i in range(N))) for k, shift in enumerate((-2, -1, 0))]
    folders += [folder(tmp_path / f"m{k}", cases, name=f"m{k}") for k, cases in enumerate(others)]
    done = compared(folders, tmp_path)
    ps = [wilcoxon_patients(cases, HIGH) for cases in others]
    assert [arm.p for arm in done.arms] == [None, *ps]
    assert [arm.p_holm for arm in done.arms[1:]] == holm(ps)
    assert (done.family.n, done.family.score) == (3, "dice_mean")


def test_wilcoxon_by_hand(tmp_path):
    """Five patients, all better: the exact two-sided p is 2 / 2^5."""
    arm = compared(two(tmp_path, films(1, 2, 3, 4, 5), films(21, 24, 27, 30, 33)), tmp_path).arms[1]
    assert arm.p == arm.p_holm == pytest.approx(2 / 32)


@pytest.mark.parametrize(
    ("pooled", "mean", "says"),
    [
        ((0.1, 0.2), (0.1, 0.2), "above on both Dice scores"),
        ((-0.2, -0.1), (-0.1, 0.2), "below on pooled Dice, undecided on mean Dice"),
        ((0, 1), (-1, 0), "undecided on both Dice scores"),
    ],
)
def test_a_verdict_is_read_from_the_intervals(tmp_path, pooled, mean, says):
    arm = compared(two(tmp_path), tmp_path).arms[1]
    assert verdict(arm.model_copy(update={"difference": {"dice_pooled": (0.1, *pooled), "dice_mean": (0.1, *mean)}})) == says


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_of_one_patient_nothing_is_claimed(tmp_path, n_seeds):
    """Whoever is drawn, it is the same one: an interval would be a point, and a p the answer to no question."""
    one, other = ([film(i, tp + i, patient="p") for i in range(N)] for tp in (60, 40))
    folders = [
        folder(tmp_path / f"{name}-{i}", cases, name=name, seed=i)
        for name, cases in (("one", one), ("other", other))
        for i in range(n_seeds)
    ]
    done = compared(folders, tmp_path)
    reference, arm = done.arms
    assert reference.ci95 == arm.ci95 == arm.difference == {} and (arm.p, arm.p_holm, done.family.n) == (None, None, 0)
    assert (arm.win, arm.tie, arm.loss) == (0, 0, N) and arm.scores["dice_mean"] == pytest.approx(0.455)
    assert any("one patient" in warning for warning in done.warnings)
    assert verdict(arm).startswith("not told")
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "not told" in page and "undecided" not in page and "below" not in page.split("<h2>Scores")[0].split("<main")[1]
    for file in ("table.md", "table.tex"):
        text = (tmp_path / "out" / file).read_text()
        assert f"0 / 0 / {N}" in text and "[" not in text.split("cases of")[0].replace("[2pt]", "").replace("[t]", "")
    row = list(csv.DictReader(io.StringIO((tmp_path / "out" / "table.csv").read_text())))[1]
    assert float(row["dice_mean"]) == pytest.approx(0.455) and row["dice_mean_low"] == row["dice_mean_minus_reference"] == row["p"] == ""
    shown = CliRunner().invoke(app, ["compare", *map(str, folders), "-o", str(tmp_path / "again")])
    assert shown.exit_code == 0 and f"0/0/{N}" in shown.stdout and "[" not in shown.stdout


# ---------------------------------------------------------------- methods and seeds


def seeds(tmp_path, name, *all_tps):
    return [folder(tmp_path / f"{name}-{i}" / "val", films(*tps), name=name, seed=i) for i, tps in enumerate(all_tps)]


def test_seeds_of_one_configuration_are_one_method(tmp_path):
    """A difference of one point and one of three, seen under three seeds each: 0.50, 0.52, 0.54 against 0.50."""
    folders = seeds(tmp_path, "base", *[[50] * N] * 3) + seeds(tmp_path, "new", [50] * N, [54] * N, [52] * N)
    base, new = compared(folders[::-1], tmp_path, reference="base", n_boot=2000).arms[::-1]
    assert [run.seed for run in new.runs] == [0, 1, 2]
    assert [run.scores["dice_mean"] for run in new.runs] == pytest.approx([0.50, 0.54, 0.52])
    assert new.scores["dice_mean"] == pytest.approx(0.52)
    assert new.ci95["dice_mean"] == pytest.approx((0.50, 0.54))  # the patients do not vary, the seeds do
    assert new.difference["dice_pooled"] == pytest.approx((0.02, 0.0, 0.04))
    assert base.ci95["dice_mean"] == pytest.approx((0.5, 0.5))
    assert new.p is not None
    assert (new.win, new.tie, new.loss) == (N, 0, 0)


def test_trainings_on_other_films_are_another_method_and_what_does_not_tell_goes_with_what_does(tmp_path):
    def run(name, seed, digest):
        return folder(tmp_path / name, films(*[50 + seed] * N), name="m", seed=seed, films_sha256=digest)

    def methods(*folders):
        return [[run.metrics.seed for run in arm.runs] for arm in group(read_runs(folders))]

    tenth, half, older = run("tenth", 0, "1a" * 32), run("half", 1, "2b" * 32), run("older", 2, None)
    assert methods(tenth, half) == [[0], [1]] and methods(tenth, older) == [[0, 2]]


def test_equal_seeds_are_paired(tmp_path):
    """Where both methods rise and fall together the difference is sure."""
    folders = seeds(tmp_path, "base", [50] * N, [60] * N, [70] * N) + seeds(tmp_path, "new", [52] * N, [62] * N, [72] * N)
    new = compared(folders, tmp_path).arms[1]
    assert new.difference["dice_mean"] == pytest.approx((0.02, 0.02, 0.02))


def test_unequal_seeds_are_not_paired(tmp_path):
    """The first of one is no partner of the first of the other, however alike they rise: each method's seeds are drawn by themselves."""
    of_base, of_new = ([films(*[tp] * N) for tp in tps] for tps in ((50, 60, 70), (52, 62, 72)))
    folders = [folder(tmp_path / f"base-{i}", cases, name="base", seed=i) for i, cases in enumerate(of_base)]
    folders += [folder(tmp_path / f"new-{i}", cases, name="new", seed=i) for i, cases in enumerate(of_new, 3)]
    new = compared(folders, tmp_path, n_boot=200).arms[1]
    apart = paired_bootstrap_runs(of_new, of_base, same_seeds=False, n_boot=200)
    assert new.difference == {score: apart[score] for score in COMPARED}
    assert new.difference["dice_mean"][1] < 0 < new.difference["dice_mean"][2]


def test_of_two_seeds_both_are_shown_and_no_p_is_given(tmp_path):
    folders = [*seeds(tmp_path, "base", [50] * N), *seeds(tmp_path, "new", [40] * N, [60] * N), *seeds(tmp_path, "low", [30] * N)]
    done = compared(folders, tmp_path)
    base, new, low = done.arms
    assert (new.p, new.p_holm, done.family.n) == (None, None, 1)
    assert low.p == low.p_holm
    assert new.ci95["dice_mean"] == pytest.approx((0.5, 0.5))  # of these two runs
    assert any("Two seeds: new." in warning for warning in done.warnings)
    for file in ("table.md", "table.tex", "compare.html"):
        text = (tmp_path / "out" / file).read_text()
        assert all(value in text for value in ("0.4000", "0.5000", "0.6000")), file


def test_a_reference_of_two_seeds_leaves_no_p_at_all(tmp_path):
    done = compared([*seeds(tmp_path, "base", [50] * N, [52] * N), *seeds(tmp_path, "new", [40] * N)], tmp_path)
    assert [arm.p for arm in done.arms] == [None, None]
    assert done.family.n == 0
    assert "Wilcoxon" not in (tmp_path / "out" / "table.md").read_text()


def test_another_text_is_another_method_though_the_weights_are_the_same(tmp_path):
    folders = [folder(tmp_path / text, HIGH, name="m", text=text) for text in ("text", "paraphrase")]
    assert [arm.name for arm in compared(folders, tmp_path).arms] == ["m", "m (paraphrase)"]


def test_masks_and_ensembles_stand_alone(tmp_path):
    folders = [
        folder(tmp_path / "lvit", HIGH),
        folder(tmp_path / "unet", LOW),
        folder(tmp_path / "both", HIGH, name="m", ensemble=["ab" * 32]),
        folder(tmp_path / "m", LOW, name="m"),
    ]
    done = compared(folders, tmp_path)
    assert [arm.name for arm in done.arms] == ["lvit", "unet", "m, ensemble of 2", "m"]
    assert [arm.runs[0].bundle_sha256 is None for arm in done.arms] == [True, True, False, False]
    assert "masks made by other code" in (tmp_path / "out" / "compare.html").read_text()


def test_names_come_from_what_tells_the_folders_apart(tmp_path):
    folders = [folder(tmp_path / "runs" / name / "val", LOW) for name in ("lvit", "unet")]
    assert [arm.name for arm in compared(folders, tmp_path).arms] == ["lvit", "unet"]
    folders.append(folder(tmp_path / "elsewhere", LOW))
    assert [arm.name for arm in compared(folders, tmp_path, overwrite=True).arms] == ["lvit/val", "unet/val", f"{tmp_path.name}/elsewhere"]


def test_a_method_that_reads_no_text_is_marked_everywhere(tmp_path):
    compared(two(tmp_path, text="constant"), tmp_path)
    out = tmp_path / "out"
    assert "other†" in (out / "table.md").read_text()
    assert r"other$^{\dagger}$" in (out / "table.tex").read_text()
    assert "reads no text" in (out / "compare.html").read_text()
    assert [row["text"] for row in csv.DictReader(io.StringIO((out / "table.csv").read_text()))] == ["text", "constant"]


@pytest.mark.parametrize("asked", ["other", "folder"])
def test_the_reference_is_a_name_or_a_folder_and_never_the_best_by_itself(tmp_path, asked):
    folders = two(tmp_path, LOW, HIGH)
    assert compared(folders, tmp_path).reference == "one"
    done = compared(folders, tmp_path, reference=str(folders[1]) if asked == "folder" else asked, overwrite=True)
    assert done.reference == "other"
    assert [bool(arm.difference) for arm in done.arms] == [True, False]


def test_an_unknown_reference_names_those_there_are(tmp_path):
    with pytest.raises(InputError, match="nearest: other") as caught:
        compared(two(tmp_path), tmp_path, reference="othr")
    assert "one, other" in caught.value.fix


# ---------------------------------------------------------------- refusals: nothing is written


def refused(folders, tmp_path, code, **options):
    with pytest.raises(InputError) as caught:
        compared(folders, tmp_path, **options)
    assert caught.value.code == code
    assert caught.value.fix
    assert not (tmp_path / "out").exists()
    return caught.value


def test_other_cases_are_refused_by_name(tmp_path):
    error = refused(two(tmp_path, cases_sha256="cb" * 32, split="test"), tmp_path, "cases_differ")
    assert error.where == str(tmp_path / "other" / "metrics.json")
    assert str(tmp_path / "one") in error.what
    assert "'test'" in error.what
    assert "'val'" in error.what


@pytest.mark.parametrize(
    ("key", "value"), [("split", "test"), ("empty_policy", "both empty 0"), ("hd95_unit", "mm"), ("nsd_tolerance", 3.0)]
)
def test_another_protocol_is_refused(tmp_path, key, value):
    assert repr(value) in refused(two(tmp_path, **{key: value}), tmp_path, "protocol_differs").what


def test_other_patients_are_refused(tmp_path):
    """The same films with patients in one manifest only: their clusters would not be the same."""
    refused(two(tmp_path, HIGH, [replace(case, patient="") for case in LOW]), tmp_path, "cases_differ")


def test_cases_that_are_not_those_of_the_metrics_are_refused(tmp_path):
    folders = two(tmp_path)
    write_cases(folders[1] / "cases.csv", HIGH)
    error = refused(folders, tmp_path, "bad_cases")
    assert error.where == str(folders[1] / "cases.csv")
    write_cases(folders[1] / "cases.csv", [])
    refused(folders, tmp_path, "bad_cases")


def test_one_folder_twice_is_refused_however_it_is_written(tmp_path):
    one, other = two(tmp_path)
    refused([one, other, one], tmp_path, "twice")
    refused([one, other, other / ".." / "one"], tmp_path, "twice")


def test_one_run_twice_is_no_second_seed(tmp_path):
    folders = [*two(tmp_path), folder(tmp_path / "copy", HIGH, name="one")]
    assert refused(folders, tmp_path, "seed_twice").where == str(tmp_path / "copy")


def test_one_bundle_with_flips_and_without_is_two_methods(tmp_path):
    flips = {"rule": "fixed", "threshold": 0.5, "temperature": 1, "flips": True}
    arms = group(read_runs([folder(tmp_path / "plain", LOW, name="one"), folder(tmp_path / "flips", HIGH, name="one", decision=flips)]))
    assert [arm.name for arm in arms] == ["one", "one (flips)"]


def test_one_method_alone_is_refused(tmp_path):
    one, _ = two(tmp_path)
    refused([one], tmp_path, "too_few")
    assert "one method" in refused([one, folder(tmp_path / "again", LOW, name="one", seed=1)], tmp_path, "too_few").what


@pytest.mark.parametrize("file", ["metrics.json", "cases.csv"])
def test_a_missing_file_is_named(tmp_path, file):
    folders = two(tmp_path)
    (folders[1] / file).unlink()
    assert refused(folders, tmp_path, "missing").where == str(folders[1] / file)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 2}', "\x00", "[" * 5000])
def test_hostile_metrics_are_one_error(tmp_path, content):
    folders = two(tmp_path)
    (folders[1] / "metrics.json").write_text(content)
    with pytest.raises(InputError):
        compared(folders, tmp_path)


# ---------------------------------------------------------------- what a reader must know


def test_warnings_of_the_evaluations_are_repeated_with_their_names(tmp_path):
    a = folder(tmp_path / "a", HIGH, name="a", warnings=["Patients shared: 3."])
    b = folder(tmp_path / "b", HIGH, name="b", warnings=["Patients shared: 3.", "Own."])
    warnings = compared([a, b], tmp_path).warnings
    assert "Patients shared: 3." in warnings
    assert "b: Own." in warnings
    assert "Patients shared: 3." in (tmp_path / "out" / "compare.html").read_text()


def test_failed_cases_are_counted_and_no_example(tmp_path):
    bad = [replace(film(0, 0, patient="p0"), warnings=("failed",)), *films(*range(60, 60 + N))[1:]]
    done = compared(two(tmp_path, HIGH, bad), tmp_path)
    assert any("other: 1 cases failed" in warning for warning in done.warnings)
    assert done.arms[1].loss == 1
    assert done.arms[1].films == []


def test_different_decision_rules_are_said(tmp_path):
    done = compared(two(tmp_path, decision={"rule": "expected_dice", "threshold": 0.5, "temperature": 1}), tmp_path)
    assert any("decision rule" in warning for warning in done.warnings)


def test_films_without_a_patient_make_the_intervals_a_lower_bound(tmp_path):
    one, other = ([replace(case, patient="") for case in cases] for cases in (HIGH, LOW))
    done = compared(two(tmp_path, one, other), tmp_path)
    assert done.ci.without_patient == N
    for file in ("compare.html", "table.md", "table.tex"):
        assert "lower bound" in (tmp_path / "out" / file).read_text()


# ---------------------------------------------------------------- films


def test_the_films_that_differ_most_both_ways(tmp_path):
    one, other = films(*[50] * N), films(*[50 + d for d in (1, 30, -5, 9, 8, 7, 6, -40, -1, 0, -5, -3)])
    shown = compared(two(tmp_path, one, other), tmp_path).arms[1].films
    assert [film.id for film in shown] == ["c1", "c3", "c4", "c7", "c10", "c2"]  # of an equal difference the first by name
    assert len(shown) == 2 * EACH
    assert (shown[0].dice, shown[0].reference) == pytest.approx((0.8, 0.5))
    page = (tmp_path / "out" / "compare.html").read_text()
    assert all(f">{film.id}</code>" in page for film in shown)
    assert "c11</code>" not in page


def test_no_film_differs_between_equal_answers(tmp_path):
    done = compared(two(tmp_path, HIGH, HIGH), tmp_path)
    assert (done.arms[1].p, done.arms[1].films, done.arms[1].tie) == (1.0, [], N)
    assert "No film differs" in (tmp_path / "out" / "compare.html").read_text()


def draw(path, columns):
    """A square of 16 pixels whose given columns are white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    square = np.zeros((16, 16), np.uint8)
    square[4:12, columns] = 255
    PIL.Image.fromarray(square).save(path)


def films_on_disk(path, names):
    """Four films, their targets left and right in turn."""
    for i, name in enumerate(names):
        draw(path / f"{name}.png", slice(0, 16))
        draw(path / f"{name}-mask.png", slice(9, 15) if i % 2 else slice(1, 7))
    rows = [{"id": n, "image": f"{n}.png", "mask": f"{n}-mask.png", "text": f"opacity in {n}", "split": "val"} for n in names]
    return write_manifest(path, rows, DatasetFile(name="squares"))


@pytest.fixture
def saved(tmp_path):
    """Two evaluations with their masks: one is always right, the other always answers the left half."""
    manifest = films_on_disk(tmp_path / "data", ["c0", "c1", "c2", "c3"])
    for i in range(4):
        draw(tmp_path / "right" / f"c{i}.png", slice(9, 15) if i % 2 else slice(1, 7))
        draw(tmp_path / "left" / f"c{i}.png", slice(1, 7))
    for name in ("right", "left"):
        options = {"masks": tmp_path / name, "split": "val", "images": False, "save_masks": True, "n_boot": 20}
        evaluate(None, manifest, out=tmp_path / "eval" / name, **options)
    return manifest, [tmp_path / "eval" / name for name in ("right", "left")]


def test_films_side_by_side(saved, tmp_path):
    manifest, folders = saved
    done = compared(folders, tmp_path, manifest=manifest)
    assert [film.id for film in done.arms[1].films] == ["c1", "c3"]
    page = (tmp_path / "out" / "compare.html").read_text()
    assert page.count("data:image/png") == 4
    assert "opacity in c3" in page
    compared(folders, tmp_path, overwrite=True)
    without = (tmp_path / "out" / "compare.html").read_text()
    assert "data:image/png" not in without
    assert "opacity in" not in without
    assert "--save-masks" in without


def test_only_the_masks_that_were_scored_are_shown(saved, tmp_path):
    manifest, folders = saved
    mask = folders[1] / "masks" / "c3.png"
    PIL.Image.fromarray(255 - np.asarray(PIL.Image.open(mask))).save(mask)
    assert refused(folders, tmp_path, "masks_differ", manifest=manifest).where == str(mask)
    mask.unlink()
    refused(folders, tmp_path, "missing", manifest=manifest)
    (folders[1] / "masks").rename(folders[1] / "elsewhere")
    error = refused(folders, tmp_path, "no_masks", manifest=manifest)
    assert error.where == str(folders[1])
    assert "--save-masks" in error.fix


def test_another_manifest_does_not_have_the_films(saved, tmp_path):
    other = films_on_disk(tmp_path / "other", ["x"])
    refused(saved[1], tmp_path, "unknown_case", manifest=other)


# ---------------------------------------------------------------- the three tables and the page


def test_the_csv_is_exact_and_has_the_columns_of_the_contract(tmp_path):
    done = compared(two(tmp_path), tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "table.csv").read_text())))
    assert tuple(rows[0]) == CSV_COLUMNS["table.csv"]
    for row, arm in zip(rows, done.arms, strict=True):
        assert row["method"] == arm.name
        assert [float(row[f"hd95{part}"]) for part in ("", "_low", "_high")] == [arm.scores["hd95"], *arm.ci95["hd95"]]
    assert rows[0]["dice_mean_minus_reference"] == rows[0]["p"] == rows[0]["win"] == ""
    assert float(rows[1]["dice_mean_minus_reference_high"]) == done.arms[1].difference["dice_mean"][2]
    assert (float(rows[1]["p_holm"]), int(rows[1]["loss"])) == (done.arms[1].p_holm, N)


@pytest.mark.parametrize("name", [HOSTILE, "$x^2_1%~\\{}#", "[a](javascript:x) `c` *d*", "*d* [1]"])
def test_hostile_names_break_no_table(tmp_path, name):
    folders = [folder(tmp_path / "m", HIGH), folder(tmp_path / "n", LOW, name=name)]
    compared(folders, tmp_path)
    out = tmp_path / "out"
    lines = [line for line in (out / "table.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {13}
    assert not re.search(r"(?<!\\)[\]\[`*<]", re.split(r"(?<!\\)\|", lines[3])[1])
    tex = (out / "table.tex").read_text()
    body = tex[tex.index(r"\midrule") : tex.index(r"\bottomrule")].splitlines()[1:]
    assert len(body) == 4
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body} == {11}
    assert not re.search(r"(?<!\\)[%#_]", "\n".join(body))
    assert not re.search(r"^\s*[\[*]", "\n".join(body), re.M), "behind the end of a row these are its arguments"
    assert tex.replace(r"\{", "").replace(r"\}", "").count("{") == tex.replace(r"\{", "").replace(r"\}", "").count("}")
    rows = list(csv.DictReader(io.StringIO((out / "table.csv").read_text())))
    assert len(rows) == 2
    assert rows[1]["method"] == name


def test_a_name_like_a_formula_is_none_to_a_spreadsheet(tmp_path):
    compared([folder(tmp_path / "m", HIGH), folder(tmp_path / "n", LOW, name="=1+1")], tmp_path)
    assert "'=1+1" in (tmp_path / "out" / "table.csv").read_text()


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.ids += [value for key, value in attributes if key == "id"]
        assert not any(key.startswith("on") for key, _ in attributes)
        assert not any(key in ("src", "href") and not value.startswith(("data:image/png;base64,", "#")) for key, value in attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_whole_safe_file(tmp_path):
    folders = [folder(tmp_path / "m", HIGH), folder(tmp_path / "n", [replace(c, id=f"{c.id}{HOSTILE}") for c in LOW], name=HOSTILE)]
    write_cases(folders[0] / "cases.csv", [replace(c, id=f"{c.id}{HOSTILE}") for c in HIGH])
    compared(folders, tmp_path, command=f"reportseg compare {HOSTILE}")
    text = (tmp_path / "out" / "compare.html").read_text()
    found = Tags(text)
    assert found.open == []
    assert len(set(found.ids)) == len(found.ids)
    assert found.tags.count("script") == 1
    assert INTENDED_USE in text
    assert "p0" not in re.sub(r"<style>.*?</style>|<script>.*?</script>", "", text, flags=re.S)  # patients are not named


# ---------------------------------------------------------------- the command


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def test_the_command_prints_the_table_and_the_page(tmp_path):
    one, other = two(tmp_path)
    result = run("compare", one, other, "-o", tmp_path / "out")
    assert "one *" in result.stdout
    assert "-0.2000 [-0.200, -0.200]" in result.stdout
    assert result.stdout.splitlines()[-1] == f"report: {tmp_path / 'out' / 'compare.html'}"
    assert "warning: One seed" in result.stderr
    assert read_json(tmp_path / "out" / "compare.json", Comparison).command.startswith(f"reportseg compare {one} ")
    again = run("compare", one, other, "-o", tmp_path / "out", "--overwrite", "--json", "--quiet", "--reference", "other")
    assert again.stdout == (tmp_path / "out" / "compare.json").read_text()
    assert again.stderr == ""
    assert json.loads(run("compare", one, "-o", tmp_path / "no", "--json", code=2).stdout)["error"]["code"] == "too_few"
