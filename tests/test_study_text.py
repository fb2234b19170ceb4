"""Studies of trained bundles: every sentence is scored on the same films, the twin beside them, and other data beside the bundle's own."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from statistics import fmean, median_low
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from reportseg.cases import read_cases
from reportseg.cli import app
from reportseg.config import parse_config
from reportseg.data.manifest import read_manifest
from reportseg.data.synthetic import synthesise
from reportseg.errors import InputError
from reportseg.evaluate import evaluate
from reportseg.schemas.base import read_json
from reportseg.schemas.studies import TextStudy, TransferStudy
from reportseg.scoring import hash_cases
from reportseg.studies.text import text
from reportseg.studies.text_page import answer, write_page
from reportseg.studies.transfer import transfer
from reportseg.text import swap_sides, zones
from tiny import UNET, write_bundle

ROOT = Path(__file__).parents[1]
study_text = import_module("reportseg.studies.text")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    """With a paraphrase of every sentence, a column that repeats them, and one that is empty in half of the rows. One film of val is told
    without a side.
    """
    manifest = synthesise(tmp_path_factory.mktemp("phantoms") / "data", 40, size=32)
    with open(manifest, newline="") as file:
        rows = list(csv.DictReader(file))
    next(row for row in rows if row["split"] == "val")["text"] = "Pulmonary infection."
    with open(manifest, "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "other", "same", "half"])
        writer.writeheader()
        for i, row in enumerate(rows):
            writer.writerow(
                {**row, "other": f"There is {row['text'].lower()}", "same": row["text"].upper(), "half": row["text"] if i % 2 else ""}
            )
    return manifest


@pytest.fixture(scope="module")
def twin(tmp_path_factory, phantoms) -> Path:
    folder = tmp_path_factory.mktemp("twin")
    evaluate(write_bundle(folder / "bundle", seed=1, text="constant"), phantoms, split="val", out=folder / "val", images=False, n_boot=20)
    return folder / "val"


@pytest.fixture(scope="module")
def done(bundle, phantoms, twin, tmp_path_factory) -> tuple[TextStudy, Path]:
    out = tmp_path_factory.mktemp("study") / "t"
    return text(bundle, phantoms, out=out, columns=["other", "same", "half"], twin=twin, n_boot=20, command="reportseg study text"), out


def test_every_kind_of_sentence_has_its_row(done, phantoms, twin):
    study, out = done
    assert read_json(out / "text.json", TextStudy) == study
    rows = {row.name: row for row in study.rows}
    assert list(rows) == ["original", "empty", "shuffled", "swapped-side", "other", "same", "half", "twin"]
    assert [rows[name].kind for name in ("original", "empty", "other", "twin")] == ["original", "control", "column", "twin"]
    n = study.n_cases
    assert (rows["other"].n_changed, rows["same"].n_changed, rows["empty"].n_empty) == (n, 0, n)
    assert 0 < rows["half"].n_empty == rows["half"].n_changed < n
    texts = [sample.text for sample in read_manifest(phantoms).split("val")]
    assert rows["original"].words == median_low(len(text.split()) for text in texts) and rows["twin"].words is None
    assert rows["other"].words == rows["original"].words + 2
    assert rows["same"].scores == rows["original"].scores
    for row in study.rows[1:]:
        for score, (value, low, high) in row.loss.items():
            assert value == pytest.approx(row.own[score] - row.scores[score], abs=1e-9) and low <= high
    free = {case.id: case.dice for case in read_cases(twin)}
    sides = [sample.id for sample in read_manifest(phantoms).split("val") if zones(swap_sides(sample.text)) != zones(sample.text)]
    assert 0 < len(sides) == rows["swapped-side"].n_cases < n, "the twin is held against the same films"
    assert rows["swapped-side"].twin["dice_mean"] == pytest.approx(fmean(free[id] for id in sides))
    assert all(rows[name].twin == rows["twin"].scores for name in ("original", "empty", "other", "twin"))
    page = (out / "text.html").read_text()
    assert "without text" in page and "Another film" in page and "Not a medical device" in page
    assert answer(study) in page.replace("&#x27;", "'")
    labels = re.findall(r'class="halo strong"[^>]*>([^<]+)<title', page)
    assert labels[:3] == ["Its own sentence", "Never had a text", "other"], "what the text bought is told by the first two bars"


def test_a_column_of_words_that_training_lacked_is_warned_of(bundle, phantoms, tmp_path):
    with open(phantoms, newline="") as file:
        rows = list(csv.DictReader(file))
    strange = tmp_path / "strange.csv"
    with open(strange, "w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "far"])
        writer.writeheader()
        writer.writerows(
            {**row, "image": phantoms.parent / row["image"], "mask": phantoms.parent / row["mask"], "far": "zyx wvu tsr"} for row in rows
        )
    study = text(bundle, strange, out=tmp_path / "t", columns=["far"], n_boot=20)
    assert f"far: {study.n_cases} sentences of many words that were never seen in training, which may count against it." in study.warnings


def test_what_is_scored_is_not_scored_again(done, bundle, phantoms, twin, monkeypatch):
    study, out = done

    def never(*_, **__):
        raise AssertionError("scored again")

    monkeypatch.setattr(study_text, "evaluate", never)
    options = {"columns": ["other", "same", "half"], "twin": twin, "n_boot": 20, "command": "reportseg study text"}
    assert text(bundle, phantoms, out=out, resume=True, **options) == study
    with pytest.raises(InputError) as caught:
        text(bundle, phantoms, out=out, resume=True, **(options | {"columns": ["other"]}))
    assert caught.value.code == "plan" and "arms" in caught.value.what


def test_an_interrupted_study_goes_on(bundle, phantoms, tmp_path):
    class Interrupt(Exception):
        pass

    def stop(said):
        if said.get("remark") == "column other":
            raise Interrupt

    with pytest.raises(Interrupt):
        text(bundle, phantoms, out=tmp_path / "t", columns=["other"], n_boot=20, progress=stop)
    study = text(bundle, phantoms, out=tmp_path / "t", columns=["other"], n_boot=20, resume=True)
    assert study.rows[-1].name == "other"
    assert "none was given" in answer(study)


class Begun(Exception):
    """The plan lies there and the first scoring begins."""


def begun(said):
    raise Begun


def say(manifest: Path, column: str, sentence) -> None:
    """Of each row of val, what `sentence` makes of the cell."""
    with open(manifest, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row[column] = sentence(row[column]) if row["split"] == "val" else row[column]
    with open(manifest, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize("column", ["text", "other"])
def test_sentences_that_changed_since_the_plan_are_noticed_and_other_spaces_are_no_change(bundle, phantoms, tmp_path, column):
    manifest = shutil.copytree(phantoms.parent, tmp_path / "films") / phantoms.name
    for resume in (False, True):
        with pytest.raises(Begun):
            text(bundle, manifest, out=tmp_path / "t", columns=["other"], resume=resume, progress=begun)
        say(manifest, column, lambda cell: f"  {cell.upper()} ")
    say(manifest, column, lambda cell: "Something else.")
    with pytest.raises(InputError) as caught:
        text(bundle, manifest, out=tmp_path / "t", columns=["other"], resume=True)
    assert caught.value.code == "plan" and caught.value.what.endswith(f"it differs in sentences of column {column}")


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"columns": ["nothing"]}, "missing_column"),
        ({"columns": ["mask"]}, "text_column"),
        ({"columns": ["other", "other"]}, "twice"),
        ({"columns": ["text"]}, "twice"),
        ({"split": "nowhere"}, "empty_split"),
        ({"metric": "hd95"}, "metric"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_written(bundle, phantoms, tmp_path, options, code):
    with pytest.raises(InputError) as caught:
        text(bundle, phantoms, out=tmp_path / "t", **options)
    assert caught.value.code == code and not (tmp_path / "t").exists()


def test_the_device_is_the_users_choice(bundle, phantoms, tmp_path):
    for study, named in ((text, (bundle, phantoms)), (transfer, ([bundle, phantoms],))):
        with pytest.raises(InputError) as caught:
            study(*named, out=tmp_path / study.__name__, device="meta")
        assert caught.value.code == "device" and not (tmp_path / study.__name__).exists()


def test_a_twin_is_text_free_and_of_the_same_cases(done, bundle, phantoms, twin, tmp_path):
    _, out = done
    with pytest.raises(InputError) as caught:
        text(bundle, phantoms, out=tmp_path / "t", twin=out / "eval" / "0-text")
    assert caught.value.code == "twin"
    evaluate(write_bundle(tmp_path / "other", UNET), phantoms, split="val", out=tmp_path / "unet-val", images=False, n_boot=20)
    with pytest.raises(InputError) as caught:
        text(bundle, phantoms, out=tmp_path / "t", twin=tmp_path / "unet-val")
    assert caught.value.code == "twin" and "data.text=constant" in caught.value.fix
    with pytest.raises(InputError) as caught:
        text(bundle, phantoms, out=tmp_path / "t", twin=twin, split="test")
    assert caught.value.code == "cases_differ"
    with pytest.raises(InputError) as caught:
        text(write_bundle(tmp_path / "unet", UNET), phantoms, out=tmp_path / "t")
    assert caught.value.code == "no_text"
    assert not (tmp_path / "t").exists()


def test_the_answer_follows_the_interval(done):
    study, _ = done
    twin = study.rows[-1]

    def told(*loss):
        rows = [*study.rows[:-1], twin.model_copy(update={"loss": {"dice_mean": loss}})]
        return answer(study.model_copy(update={"rows": rows}))

    assert "The text bought +7.0 points [6.0, 8.0] of mean Dice" in told(0.07, 0.06, 0.08)
    assert "The text cost" in told(-0.07, -0.08, -0.06)
    assert "undecided" in told(0.01, -0.01, 0.03)


@pytest.mark.parametrize(
    ("loss", "says"),
    [((0.05, 0.01, 0.09), "The model reads its"), ((0.0, -0.002, 0.002), "hardly reads"), ((0.05, -0.01, 0.11), "is undecided")],
)
def test_few_films_do_not_tell_that_a_sentence_is_hardly_read(done, loss, says):
    study, _ = done
    rows = [row.model_copy(update={"loss": {"dice_mean": loss}}) if row.name == "shuffled" else row for row in study.rows[:-1]]
    assert says in answer(study.model_copy(update={"rows": rows}))


def drawn_from(figure: Path, named: dict[str, Path]) -> str:
    arguments = [f"{name}={file}" for name, file in named.items()]
    subprocess.run([sys.executable, ROOT / "benchmarks" / "figures.py", figure, *arguments], check=True)
    return figure.read_text(encoding="utf-8")


@pytest.mark.parametrize("data", ["qata", "kvasir"])
def test_the_figure_in_the_docs_is_what_the_results_tell(tmp_path, data):
    named = {name: ROOT / "results" / data / f"text-{name.replace('-', '').lower()}" / "text.json" for name in ("TGC-Net", "TMCA")}
    assert (ROOT / "docs" / "images" / f"text-{data}.svg").read_text(encoding="utf-8") == drawn_from(tmp_path / "f.svg", named)


def test_the_figure_of_the_docs_is_that_of_the_page(done, tmp_path):
    _, out = done
    drawn = drawn_from(tmp_path / "f.svg", {"one": out / "text.json", "<two>": out / "text.json"})
    ElementTree.fromstring(drawn)
    page = (out / "text.html").read_text()
    labels = re.findall(r'class="halo strong"[^>]*>([^<]+)<title', page)
    assert re.findall(r'class="halo strong"[^>]*>([^<]+)<title', drawn) == labels * 2 and "&lt;two&gt;" in drawn


def test_a_hostile_column_stays_text(done, tmp_path):
    study, _ = done
    bad = study.rows[4].model_copy(update={"name": "<img src=x onerror=alert(1)>"})
    write_page(tmp_path / "p.html", study.model_copy(update={"rows": [*study.rows[:4], bad]}))
    assert "<img src=x" not in (tmp_path / "p.html").read_text()


# ---------------------------------------------------------------- transfer


@pytest.fixture(scope="module")
def trained(tmp_path_factory, phantoms) -> Path:
    values = {"name": "t", "model": UNET, "data": {"size_px": 16}, "train": {"images": 32, "batch": 8, "precision": "fp32"}}
    run = import_module("reportseg.train").train(parse_config(values, "test"), manifest=phantoms, out=tmp_path_factory.mktemp("run") / "r")
    return run / "bundle"


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory, phantoms) -> Path:
    """The same films under another name."""
    folder = tmp_path_factory.mktemp("elsewhere") / "data"
    shutil.copytree(phantoms.parent, folder)
    info = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(info | {"name": "elsewhere"}))
    return folder


def test_the_own_data_comes_first_and_the_loss_is_against_it(trained, bundle, phantoms, elsewhere, tmp_path):
    named = [trained, bundle, elsewhere, phantoms]
    study = transfer(named, out=tmp_path / "t", splits=["test", "val"], n_boot=20)
    assert read_json(tmp_path / "t" / "transfer.json", TransferStudy) == study
    own, other, *foreign = study.rows
    assert (own.own, own.split, other.own, other.data, other.split) == (True, "val", False, "elsewhere", "test")
    assert other.lost["dice_mean"] == pytest.approx(own.scores["dice_mean"] - other.scores["dice_mean"])
    assert not own.shuffled and all(row.shuffled for row in foreign), "only a model that reads is asked shuffled sentences"
    assert not any(row.own or row.lost for row in foreign)
    assert len(study.warnings) == 1 and study.warnings[0].startswith("bundle (")
    page = (tmp_path / "t" / "transfer.html").read_text()
    assert "* Its own data" in page
    assert f"{own.scores[study.metric]:.3f} on its own data, {own.data}; {other.scores[study.metric]:.3f} on elsewhere." in page
    assert {place.name for place in (tmp_path / "t" / "eval").iterdir()} == {"0-elsewhere", "0-phantoms", "1-elsewhere", "1-phantoms"}
    assert transfer(named, out=tmp_path / "t", splits=["test", "val"], n_boot=20, resume=True) == study


@pytest.mark.parametrize("names", [("films v1", "films-v1"), ("Films", "films")])
def test_data_sets_whose_names_are_one_as_a_folder_have_each_their_own_scores(trained, phantoms, tmp_path, names):
    """A space is a hyphen there, and not every disk tells capitals apart. An evaluation in the place of another is noticed."""
    named = [trained]
    for i, name in enumerate(names):
        named.append(shutil.copytree(phantoms.parent, tmp_path / str(i)))
        info = json.loads((named[-1] / "dataset.json").read_text())
        (named[-1] / "dataset.json").write_text(json.dumps(info | {"name": name}))
    options = {"out": tmp_path / "t", "splits": ["val", "test"], "n_boot": 20}
    study = transfer(named, **options)
    own = {split: hash_cases(read_manifest(phantoms).split(split)) for split in ("val", "test")}
    assert [(row.data, row.split, row.cases_sha256) for row in study.rows] == [
        (names[0], "val", own["val"]),
        (names[1], "test", own["test"]),
    ]
    one, two = sorted((tmp_path / "t" / "eval").iterdir())
    assert one.name.lower() != two.name.lower()
    shutil.rmtree(two)
    shutil.copytree(one, two)
    with pytest.raises(InputError, match=f"not of the films of {names[1]}") as caught:
        transfer(named, **options, resume=True)
    assert caught.value.code == "cases_differ" and caught.value.where == str(two) and "--resume" in caught.value.fix


def test_sentences_of_a_data_set_that_changed_since_the_plan_are_noticed(bundle, phantoms, tmp_path):
    """And so is whose left they mean."""
    manifest = shutil.copytree(phantoms.parent, tmp_path / "films") / phantoms.name
    with pytest.raises(Begun):
        transfer([bundle, manifest], out=tmp_path / "t", progress=begun)
    for column, cell in (("laterality", "patient"), ("text", "Something else.")):
        before = manifest.read_text()
        say(manifest, column, lambda _, cell=cell: cell)
        with pytest.raises(InputError, match="it differs in sentences of column text of phantoms") as caught:
            transfer([bundle, manifest], out=tmp_path / "t", resume=True)
        assert caught.value.code == "plan"
        manifest.write_text(before)


def test_what_cannot_be_transferred_is_refused(trained, phantoms, elsewhere, tmp_path):
    for named, splits, code in (
        ([phantoms], ["val"], "too_few"),
        ([trained], ["val"], "too_few"),
        ([trained, trained, phantoms], ["val"], "twice"),
        ([trained, phantoms, phantoms.parent], ["val"], "twice"),
        ([trained, phantoms, elsewhere], ["val", "val", "val"], "split"),
        ([trained, tmp_path / "nothing.csv"], ["val"], "missing"),
    ):
        with pytest.raises(InputError) as caught:
            transfer(named, out=tmp_path / "t", splits=splits)
        assert caught.value.code == code and not (tmp_path / "t").exists()


# ---------------------------------------------------------------- commands


def run(*arguments, code: int = 0):
    result = CliRunner().invoke(app, ["study", *map(str, arguments)])
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
    return result


def test_the_commands_print_lines_or_json_and_say_where_the_page_is(bundle, phantoms, elsewhere, tmp_path):
    lines = run("text", bundle, phantoms, "--text-columns", "other", "-o", tmp_path / "t", "--quiet").stdout.splitlines()
    assert lines[0].startswith("original") and lines[-1] == f"report: {tmp_path / 't' / 'text.html'}"
    done = json.loads(run("transfer", bundle, phantoms, elsewhere, "--split", "val,test", "-o", tmp_path / "x", "--json", "--quiet").stdout)
    assert [row["split"] for row in done["rows"]] == ["val", "test"] and done["command"].startswith("reportseg study transfer")
    assert "--resume" in run("text", bundle, phantoms, "-o", tmp_path / "t", code=2).stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("data", "unet_qata", "--shares", "half,1"), "shares"),
        (("data", "unet_qata", "--seeds", "-1"), "seeds"),
        (("ablate", "unet_qata", "-s", "model.width=8", "--seeds", "a"), "seeds"),
        (("ablate", "unet_qata"), "change"),
        (("cost", "nothing"), "unknown"),
        (("text", "demo"), "usage"),
    ],
)
def test_a_slip_is_one_error_and_writes_nothing(tmp_path, words, code):
    assert json.loads(run(*words, "-o", tmp_path / "o", "--json", code=2).stdout)["error"]["code"] == code
    assert not (tmp_path / "o").exists()
