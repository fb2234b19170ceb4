"""The command line: exit codes, what goes to stdout and stderr, and that help is quick."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from reportseg import console
from reportseg.bundle import shipped
from reportseg.cli import app
from reportseg.config import load_config, shipped_configs
from reportseg.errors import WARNINGS, InputError
from reportseg.models import MODELS, resolve
from reportseg.schemas.files import CSV_COLUMNS, FILES
from tiny import LEFT

HEAVY = ("torch", "numpy", "transformers", "pandas", "scipy", "pydicom", "nibabel", "accelerate", "ray", "openvino", "requests")
TINY = ["-s", "train.images=64", "-s", "train.batch=8", "-s", "data.size_px=32", "-s", "train.precision=fp32"]


def run(*arguments, code: int = 0):
    """The result of `reportseg ARGUMENTS`, which must exit with `code`."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.stderr
    return result


def commands(command=None, path=()):
    """Words of every command, groups left out."""
    command = command or get_command(app)
    inner = getattr(command, "commands", {})
    return [words for name, c in inner.items() for words in commands(c, (*path, name))] if inner else [path]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    run("data", "synth", "-o", folder, "-n", 40, "--size", 32)
    return folder


# ---------------------------------------------------------------- help


def test_the_command_runs_as_a_module():
    said = subprocess.run([sys.executable, "-m", "reportseg", "--version"], capture_output=True, text=True, check=True).stdout
    assert said == run("--version").stdout


def test_the_commands_of_this_version():
    assert {" ".join(words) for words in commands()} == {
        "demo", "data import", "data verify", "data synth", "train", "evaluate", "compare", "predict", "info", "models",
        "config list", "config show", "config schema", "knowledge show", "knowledge check", "knowledge build",
        "study ablate", "study text", "study data", "study transfer", "study cost", "pacs query", "pacs fetch", "pacs store",
    }  # fmt: skip


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_help_has_an_example_and_the_common_flags(words):
    text = run(*words, "--help").stdout
    assert f"Example: reportseg {' '.join(words)}" in " ".join(text.split())
    assert "--json" in text
    assert "--quiet" in text


def test_no_help_loads_a_heavy_module():
    script = f"""
import json, sys
from reportseg.cli import app
for words in {[(), ("data",), ("config",), ("knowledge",), ("study",), ("pacs",), *commands()]!r}:
    try:
        app([*words, "--help"], standalone_mode=False)
    except SystemExit as stop:
        assert not stop.code, words
    found = sorted({set(HEAVY)!r} & set(sys.modules))
    assert not found, (words, found)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") == 6 + len(commands())


def test_the_cli_module_imports_nothing_of_ours_and_switches_telemetry_off():
    script = """
import os, sys
import reportseg.cli
groups = {f"reportseg.cli_{group}" for group in ("config", "data", "knowledge", "pacs", "study")}
assert {m for m in sys.modules if m.startswith("reportseg")} == {"reportseg", "reportseg.cli"} | groups
assert os.environ["HF_HUB_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "1"
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_version_and_no_arguments():
    assert run("--version").stdout.startswith("reportseg ")
    assert "Commands:" in run(code=2).output


# ---------------------------------------------------------------- errors


def test_an_input_error_is_one_line_on_stderr():
    result = run("info", "tgcnet_qata_smal", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: tgcnet_qata_smal: ")
    assert "Did you mean tgcnet_qata_small?" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_input_error_as_json_is_on_stdout():
    error = json.loads(run("info", "nothing", "--json", code=2).stdout)["error"]
    assert set(error) == {"code", "what", "where", "fix"}
    assert (error["code"], error["where"]) == ("unknown", "nothing")


@pytest.mark.parametrize(
    "words",
    [
        ("bogus",),
        ("data",),
        ("predict", "demo"),
        ("predict", "demo", "--nonsense"),
        ("config", "show"),
        ("train",),
        ("evaluate", "b", "-o", "x"),
        ("--nonsense", "info"),
    ],
    ids=" ".join,
)
def test_a_command_that_cannot_be_read_is_an_error_of_the_same_kind(words):
    assert run(*words, code=2).stderr.startswith("error: ")
    assert json.loads(run(*words, "--json", code=2).stdout)["error"]["code"] == "usage"


def test_json_before_the_command_gets_json_too():
    error = json.loads(run("--json", "info", code=2).stdout)["error"]
    assert error["code"] == "usage" and "--json" in error["what"]


def test_a_fault_of_ours_exits_1_and_quotes_nothing(monkeypatch):
    def fail(*_):
        raise ValueError("the patient's name is Jane")

    monkeypatch.setattr("reportseg.info.about", fail)
    stderr = run("info", code=1).stderr
    assert "ValueError in test_cli.py" in stderr
    assert "Jane" not in stderr
    assert "REPORTSEG_DEBUG=1" in stderr


def test_debug_shows_the_traceback_and_keeps_the_exit_code(monkeypatch):
    monkeypatch.setenv("REPORTSEG_DEBUG", "1")
    result = CliRunner().invoke(app, ["info", "nothing"])
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "error: nothing: " in result.stderr


def test_a_refusal_of_the_system_is_no_fault_of_ours(monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device", "runs/x")

    monkeypatch.setattr("reportseg.info.about", fail)
    assert run("info", code=2).stderr.startswith("error: runs/x: the system refused (No space left on device).")


@pytest.mark.parametrize(("words", "hint"), [(("train", "demo"), "--resume goes on"), (("info",), "starts again")])
def test_an_interrupt_exits_130_and_says_how_to_go_on(monkeypatch, words, hint):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("reportseg.info.about", stop)
    monkeypatch.setattr(import_module("reportseg.train"), "train", stop)
    assert hint in run(*words, code=130).stderr


# ---------------------------------------------------------------- what there is


@pytest.mark.parametrize("name", shipped_configs())
def test_info_counts_every_shipped_config_without_weights(name):
    facts = json.loads(run("info", name, "-s", "seed=1", "--json").stdout)
    params = facts["params"]
    assert params["total"] == params["trainable"] + params["frozen"] > 0
    assert f"{params['total']:,}" in run("info", name, "-s", "seed=1").stdout


def test_info_shows_a_bundle(bundle):
    facts = json.loads(run("info", bundle, "--json").stdout)
    assert facts["kind"] == "bundle"
    assert facts["model"] == "tgcnet"
    assert facts["laterality"] == "image"
    assert facts["params"]["total"] > 0
    assert len(facts["sha256"]) == 64
    assert "Research use only" in run("info", bundle).stdout


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_bundle_can_be_used(name, png, tmp_path):
    assert json.loads(run("info", name, "--json").stdout)["kind"] == "bundle"
    assert "1 done" in run("predict", name, png, "--text", LEFT, "-o", tmp_path / "out", "--quiet").stdout


def test_info_without_an_argument_is_about_the_installation():
    facts = json.loads(run("info", "--json").stdout)
    assert facts["configs"] == shipped_configs()
    assert facts["models"] == list(MODELS)
    assert "cpu" in facts["devices"]


def test_models_and_configs_are_listed_with_a_sentence_each():
    assert set(json.loads(run("models", "--json").stdout)) == set(MODELS)
    listed = json.loads(run("config", "list", "--json").stdout)
    assert set(listed) == set(shipped_configs())
    assert all(len(sentence) > 20 for sentence in listed.values())


def test_config_show_prints_what_load_config_reads_back(tmp_path):
    shown = tmp_path / "mine.yaml"
    shown.write_text(run("config", "show", "tgcnet_qata_small", "-s", "train.lr=3e-4").stdout)
    expected = resolve(load_config("tgcnet_qata_small", ["train.lr=3e-4"]))
    assert resolve(load_config(shown)) == expected
    assert expected.train.lr == 3e-4
    assert json.loads(run("config", "show", shown, "--json").stdout) == expected.model_dump(mode="json")


def test_config_schema_has_every_file_the_config_and_every_model():
    known = json.loads(run("config", "schema").stdout)
    assert set(known) == {*FILES, *CSV_COLUMNS, "config", *(f"model/{name}" for name in MODELS)}
    assert json.loads(run("config", "schema", "metrics.json").stdout) == known["metrics.json"]
    assert "Did you mean metrics.json?" in run("config", "schema", "metric.json", code=2).stderr


def test_knowledge_show_says_what_called_for_a_statement():
    hits = json.loads(run("knowledge", "show", "ground glass opacity", "--top-k", 3, "--json").stdout)["hits"]
    assert 0 < len(hits) <= 3
    assert any("ground glass" in hit["why"] for hit in hits)
    assert run("knowledge", "show", "zzz").stdout == "no statement fits\n"


# ---------------------------------------------------------------- data


def test_synth_and_verify(phantoms, tmp_path):
    assert "40 rows" in run("data", "verify", phantoms).stdout
    assert json.loads(run("data", "verify", phantoms, "--json").stdout)["errors"] == 0
    assert "error: " in run("data", "synth", "-o", phantoms, "-n", 3, code=2).stderr


def test_verify_exits_2_and_lists_everything_when_there_is_an_error(tmp_path):
    (tmp_path / "manifest.csv").write_text("image,mask,text\nno.png,no.png,left\nnor.png,nor.png,right\n")
    result = run("data", "verify", tmp_path, code=2)
    assert "row 1" in result.stdout
    assert "row 2" in result.stdout
    found = json.loads(run("data", "verify", tmp_path, "--json", code=2).stdout)
    assert found["errors"] >= 2
    assert {"severity", "code", "row", "what", "fix"} <= set(found["issues"][0])


def test_import_prints_the_manifest_and_the_splits(phantoms, tmp_path):
    result = run("data", "import", "folder", phantoms, "-o", tmp_path / "in", "--laterality", "image")
    assert result.stdout.startswith(f"{tmp_path / 'in' / 'manifest.csv'}: ")
    assert "train" in result.stdout


def test_import_takes_the_prompt_of_medvlsm(phantoms, tmp_path):
    (tmp_path / "in/anns").mkdir(parents=True)
    one = {"img_name": "a.png", "mask_name": "a.png", "prompts": {"p1": "polyp", "p6": "one polyp"}}
    (tmp_path / "in/anns/train.json").write_text(json.dumps([one]))
    for folder in ("images", "masks"):
        (tmp_path / "in" / folder).mkdir()
        (tmp_path / "in" / folder / "a.png").write_bytes(b"not looked at yet")
    run("data", "import", "medvlsm", tmp_path / "in", "-o", tmp_path / "out", "--prompt", "p1")
    assert ",polyp," in (tmp_path / "out/manifest.csv").read_text()
    assert "p6" in run("data", "import", "medvlsm", tmp_path / "in", "-o", tmp_path / "no", "--prompt", "p2", code=2).stderr


# ---------------------------------------------------------------- train, evaluate, predict


@pytest.fixture(scope="module")
def trained(phantoms, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return out, run("train", "demo", "--data", phantoms, "-o", out, *TINY, "--quiet")


def test_train_prints_the_bundle_and_quiet_says_no_more(trained):
    out, result = trained
    assert result.stdout == f"{out / 'bundle'}\n"
    assert (out / "bundle" / "config.json").is_file()


def test_resume_needs_only_the_run_folder(trained):
    out, _ = trained
    done = json.loads(run("train", "--resume", "-o", out, "--json", "--quiet").stdout)
    assert done == {"runs": [{"run": str(out), "bundle": str(out / "bundle")}]}


def test_a_run_folder_is_not_written_over(trained, phantoms):
    assert "--resume" in run("train", "demo", "--data", phantoms, "-o", trained[0], *TINY, code=2).stderr


def test_data_may_be_given_more_than_once(phantoms, tmp_path):
    other = run("data", "import", "folder", phantoms, "-o", tmp_path / "in", "--name", "other").stdout.split(":")[0]
    one = json.loads(run("train", "demo", "--data", phantoms, "--dry-run", "--json").stdout)
    two = json.loads(run("train", "demo", "--data", phantoms, "--data", other, "--dry-run", "--json").stdout)
    assert two["train_films"] + two["dev_films"] == 2 * (one["train_films"] + one["dev_films"])
    assert "same name" in run("train", "demo", "--data", phantoms, "--data", phantoms, "--dry-run", code=2).stderr


def test_dry_run_plans_and_writes_nothing(phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = json.loads(run("train", "demo", "--data", phantoms, "--dry-run", "--json").stdout)
    assert facts["train_films"] > facts["dev_films"] > 0
    assert facts["params"]["total"] > 0
    assert facts["name"] == "demo"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("override", "says"), [("train.lrr=1", "Did you mean 'lr'?"), ("train.lr", "key=value"), ("model.name=tgcnett", "Did you mean tgcnet?")]
)
def test_a_wrong_key_names_the_nearest_one(phantoms, override, says):
    assert says in run("train", "demo", "--data", phantoms, "-s", override, "--dry-run", code=2).stderr


def test_seeds_must_be_numbers():
    assert "seed: " in run("train", "demo", "--seeds", "0,one", code=2).stderr


def test_each_seed_is_a_run_of_its_own(phantoms, tmp_path):
    result = run("train", "demo", "--data", phantoms, "-o", tmp_path / "run", *TINY, "--seeds", "3,4", "--json", "--quiet")
    folders = [Path(one["run"]) for one in json.loads(result.stdout)["runs"]]
    assert folders == [tmp_path / "run" / "demo-3", tmp_path / "run" / "demo-4"]
    assert [load_config(folder / "config.yaml").seed for folder in folders] == [3, 4]


def test_evaluate_prints_scores_and_records_the_command(trained, phantoms, tmp_path):
    arguments = (
        "evaluate",
        trained[0] / "bundle",
        phantoms,
        "--controls",
        "original,empty",
        "-o",
        tmp_path / "eval",
        "--no-images",
        "--quiet",
    )
    result = run(*arguments)
    assert "dice_pooled" in result.stdout
    assert f"report: {tmp_path / 'eval' / 'report.html'}" in result.stdout
    metrics = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["command"].startswith("reportseg evaluate ")
    assert set(metrics["controls"]) == {"original", "empty"}
    assert result.stderr == ""


def test_predict_one_image(bundle, png, tmp_path):
    result = run("predict", bundle, png, "--text", LEFT, "-o", tmp_path / "out", "--quiet")
    assert result.stdout == f"{tmp_path / 'out'}: 1 done\n"
    assert (tmp_path / "out" / "film.mask.png").is_file()
    assert json.loads((tmp_path / "out" / "film.json").read_text())["finding"]["text"] == LEFT


def test_predict_says_what_its_answers_warn_of(bundle, png, tmp_path):
    """A prompt that no training showed gets a mask all the same: who does not open the JSON must be told."""
    arguments = ("predict", bundle, png, "--text", "keine Infiltrate", "-o")
    told = run(*arguments, tmp_path / "a").stderr
    assert f"warning: out_of_vocabulary (1 of 1): {WARNINGS['out_of_vocabulary']}" in told and "keine" not in told
    assert run(*arguments, tmp_path / "b", "--quiet").stderr == ""
    assert json.loads(run(*arguments, tmp_path / "c", "--json", "--quiet").stdout)["warnings"]["out_of_vocabulary"] == 1


def test_one_bad_image_of_three_exits_3_and_is_named(bundle, png, tmp_path):
    missing = tmp_path / "missing.png"
    other = tmp_path / "other.png"
    other.write_bytes(png.read_bytes())
    result = run("predict", bundle, png, missing, other, "--text", LEFT, "-o", tmp_path / "out", "--json", "--quiet", code=3)
    report = json.loads(result.stdout)
    assert (report["done"], report["failed"]) == (2, 1)
    assert report["failures"][0]["where"] == str(missing)
    assert len((tmp_path / "out" / "failures.csv").read_text().splitlines()) == 2


def test_an_empty_folder_and_a_broken_zip_are_cases_that_failed(bundle, png, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4" + bytes(40))
    run("predict", bundle, tmp_path / "empty", png, tmp_path / "cut.zip", "--text", LEFT, "-o", tmp_path / "out", code=3)
    failures = (tmp_path / "out" / "failures.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in failures] == ["no_dicom", "corrupt"]
    assert (tmp_path / "out/film.mask.png").is_file()


def test_nothing_but_bad_images_exits_2(bundle, tmp_path):
    result = run("predict", bundle, tmp_path / "missing.png", "--text", LEFT, "-o", tmp_path / "out", "--quiet", code=2)
    assert result.stderr.startswith(f"error: {tmp_path / 'missing.png'}: ")


def test_predict_from_a_jobs_file_resumes_and_overwrites(bundle, png, tmp_path):
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(f"image,text\n{png.name},{json.dumps(LEFT)}\n")
    arguments = ("predict", bundle, "--jobs", jobs, "-o", tmp_path / "out", "--quiet")
    run(*arguments)
    assert "--overwrite" in run(*arguments, code=2).stderr
    assert "1 were there already" in run(*arguments, "--resume").stdout
    assert "1 done" in run(*arguments, "--overwrite").stdout


def test_predict_answers_one_split_of_a_manifest(bundle, png, tmp_path):
    jobs = tmp_path / "jobs.csv"
    jobs.write_text(f"image,text,split,id\n{png.name},{json.dumps(LEFT)},train,a\n{png.name},{json.dumps(LEFT)},val,b\n")
    run("predict", bundle, "--jobs", jobs, "--split", "val", "-o", tmp_path / "out", "--quiet")
    assert {p.name for p in (tmp_path / "out").glob("*.mask.png")} == {"b.mask.png"}
    assert "train, val" in run("predict", bundle, "--jobs", jobs, "--split", "dev", "-o", tmp_path / "o", code=2).stderr


def test_predict_reads_a_report_and_prints_numbers_only(bundle, png, tmp_path):
    report = tmp_path / "report.txt"
    report.write_text("Opacity in the left lung. No effusion. Thank you, Mrs Doe.\n")
    result = run("predict", bundle, png, "--report", report, "-o", tmp_path / "out")
    assert "1 done" in result.stdout
    assert "report: 1 present, 0 uncertain, 1 absent, 1 passages without a finding" in result.stdout
    assert not [word for word in ("Doe", "Opacity", "effusion") if word in result.stdout + result.stderr]
    assert (tmp_path / "out" / "film-f1.mask.png").is_file()
    assert (tmp_path / "out" / "film.report.json").is_file()
    assert str(tmp_path / "none") in run("predict", bundle, png, "--report", tmp_path / "none", "-o", tmp_path / "o", code=2).stderr


@pytest.mark.parametrize(
    "given",
    [
        ("film.png",),
        ("film.png", "--text", "a", "--jobs", "j.csv"),
        ("film.png", "--text", "a", "--report", "r.txt"),
        ("--report", "r.txt"),
        ("--jobs", "j.csv", "--report", "r.txt"),
        ("--text", "a"),
        ("film.png", "--text", "a", "--split", "val"),
        (),
    ],
    ids=str,
)
def test_predict_wants_images_and_a_text_or_a_jobs_file(bundle, given):
    assert "what to predict is not clear" in run("predict", bundle, *given, "-o", "out", code=2).stderr


# ---------------------------------------------------------------- demo


@pytest.fixture
def short_demo(monkeypatch):
    from reportseg import demo

    def short(name):
        return load_config(name, TINY[1::2])

    monkeypatch.setattr(demo, "load_config", short)
    monkeypatch.setattr(demo, "FILMS", 40)


def test_demo_ends_with_its_report_and_the_next_command(short_demo, tmp_path):
    out = tmp_path / "demo"
    lines = run("demo", "-o", out, "--quiet").stdout.splitlines()
    assert lines[-2] == f"report: {out / 'eval' / 'report.html'}"
    assert lines[-1].startswith(f"next: reportseg predict {out / 'run' / 'bundle'} ")
    metrics = json.loads((out / "eval" / "metrics.json").read_text())
    assert metrics["demo_s"] > 0
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"data", "run", "eval"}


def test_a_former_demo_is_replaced(short_demo, monkeypatch, tmp_path):
    from reportseg import demo

    (tmp_path / demo.MARK).write_text(demo.OURS)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").touch()

    def stop(config, *, out, **_):
        raise InputError("stopped", out, "No way on.")

    monkeypatch.setattr(demo, "train", stop)
    assert run("demo", "-o", tmp_path, "--quiet", code=2).stderr == f"error: {tmp_path / 'run'}: stopped. No way on.\n"
    assert not (tmp_path / "run").exists()


def test_demo_touches_no_folder_of_somebody_else(short_demo, tmp_path):
    (tmp_path / "data").mkdir()
    assert "Choose another one" in run("demo", "-o", tmp_path, code=2).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


# ---------------------------------------------------------------- progress


def test_progress_writes_lines_where_stderr_is_no_terminal(capsys):
    with console.progress(False, "work") as report:
        report(1, 3)
        report(2, 3)
        report(3, 3)
        report({"images": 32, "of": 64, "images_per_s": 4.0, "left_s": 8.0, "loss": 0.5})
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.partition(",")[0] for line in err.splitlines()] == ["work: 1/3", "work: 3/3", "training: 32/64"]
    assert err.rstrip().endswith("training: 32/64, 4.0/s, 8 s left loss 0.500")


def test_progress_draws_a_bar_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with console.progress(False, "work") as report:
        report(1, 2)
        report({"images": 1, "of": 2})
    assert "training" in capsys.readouterr().err


def test_quiet_has_no_progress():
    with console.progress(True, "work") as report:
        assert report is None


def test_facts_are_one_a_line(capsys):
    console.show({"a": 12345, "none": None, "list": [], "rows": [{"name": "x"}], "in": {"b": True}}, False)
    assert capsys.readouterr().out.splitlines() == ["a     12,345", "none  -", "list  none", "rows  name x", "in", "  b  True"]


def test_scores_show_controls_and_subsets(capsys):
    scores = SimpleNamespace(dice_pooled=0.5, iou_pooled=0.4, dice_mean=None, iou_mean=0.3, n_cases=2, ci95={"dice_pooled": (0.4, 0.6)})
    metrics = SimpleNamespace(**vars(scores), split="val", subsets={"sub": scores}, controls={"empty": scores}, volumes={})
    console.print_scores(metrics)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["cases", "val", "sub", "empty"]
    assert "0.5000 [0.400, 0.600]" in lines[1]


def test_a_remark_is_a_line_on_stderr_as_it_is(capsys):
    from reportseg.console import progress

    with progress(False, "scoring") as report:
        report({"remark": "[bold] is no markup"})
    assert capsys.readouterr().err == "remark: [bold] is no markup\n"
