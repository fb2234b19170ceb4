"""How a bank is built: what is kept, dropped, cached, and how an interrupted build goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from reportseg.cli import app
from reportseg.errors import InputError
from reportseg.knowledge.ask import Answer, NoAnswerError
from reportseg.knowledge.bank import load_bank
from reportseg.knowledge.build import PROMPT, Built, build, read_concepts
from reportseg.knowledge.check import check


def row(sentence: str, kind: str = "density", terms: Any = ("spot",)) -> dict[str, Any]:
    return {"kind": kind, "statement": sentence, "terms": terms}


class Model:
    """A language model that knows its answers: a list of statements or the text itself, by concept."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, []

    def __call__(self, instructions: str, question: str) -> Answer:
        concept = question.rpartition(": ")[2]
        self.asked.append(concept)
        found = self.answers[concept]
        if isinstance(found, BaseException):
            raise found
        return Answer(found if isinstance(found, str) else json.dumps({"statements": found}), 10, 5, estimated=False)


@pytest.fixture
def make(tmp_path):
    def run(model: Model, concepts: list[str] | None = None, name: str = "mine.json", **options: Any) -> Built:
        names = list(model.answers) if concepts is None else concepts
        return build(names, tmp_path / name, model, "tiny", cache=tmp_path / "cache", **options)

    return run


def test_a_bank_is_built_and_says_where_it_comes_from(make, tmp_path) -> None:
    model = Model(nodule=[row("A nodule is a round white spot.")], kidney=[row("The left kidney lies behind the spleen.", "anatomy")])
    built = make(model)
    bank = load_bank(tmp_path / "mine.json")
    nodule, kidney = bank.statements
    assert (nodule.concept, nodule.kind, nodule.terms, nodule.laterality) == ("nodule", "density", ["spot"], "none")
    assert kidney.laterality == "patient"
    assert (nodule.model, nodule.reviewed_by) == ("tiny", None) and f"prompt {PROMPT}" in nodule.source and len(nodule.date) == 10
    assert bank.name == "mine" and "not reviewed by a clinician" in bank.file.description and check(bank.file) == []
    assert (built.statements, built.fresh, built.cached, built.prompt_tokens, built.answer_tokens) == (2, 2, 0, 20, 10)


@pytest.mark.parametrize(
    "wrong",
    [
        row("word " * 61),
        row("..."),
        row("On the lt side it is white."),
        row("It is\0white."),
        row("It is white.", kind="Not a kind!"),
        row("It is white.", kind="neutral"),
        row("A nodule is a ROUND white spot ."),
        {"statement": "It has no kind."},
        {"kind": "density"},
        {"kind": "density", "statement": 3},
        row("Its terms are wrong.", terms=[3]),
        "a string",
        None,
        [[[]]],
    ],
)
def test_what_breaks_a_rule_is_dropped_and_reported(make, wrong) -> None:
    built = make(Model(nodule=[row("A nodule is a round white spot."), wrong]))
    assert built.statements == 1 and built.failed == []
    ((concept, what),) = built.dropped
    assert concept == "nodule" and what


def test_a_flood_of_statements_is_cut_and_said_to_be(make) -> None:
    built = make(Model(nodule=[row(f"A spot has shape {i}.") for i in range(1000)]))
    assert built.statements == 20 and built.dropped == [("nodule", "980 statements are more than 20")]


def test_terms_are_cleaned_and_counted(make, tmp_path) -> None:
    terms = ["Nodule", " round  spot ", "round spot", "", "a b c d e f g", *(f"t{i}" for i in range(50))]
    make(Model(nodule=[row("It is white.", terms=terms), row("It is round.", terms=None)]))
    first, second = load_bank(tmp_path / "mine.json").statements
    assert first.terms[:2] == ["round spot", "t0"] and len(first.terms) == 20 and second.terms == []


@pytest.mark.parametrize("text", ["```json\n{S}\n```", "Here it is:\n{S}\nDone.", "<think>maybe {this}?</think>{S}", "{S}"])
def test_talk_around_the_json_is_ignored(make, text) -> None:
    answer = json.dumps({"statements": [row("It is white.")]})
    assert make(Model(nodule=text.replace("{S}", answer))).statements == 1


@pytest.mark.parametrize(
    "text", ["", "I cannot.", "{", '{"statements": 3}', '{"other": []}', '{"a": ' + "[" * 10_000 + "]" * 10_000 + "}", "}{"]
)
def test_a_concept_whose_answer_cannot_be_read_fails_alone_and_is_asked_again(make, text) -> None:
    model = Model(nodule=[row("It is white.")], mass=text)
    built = make(model)
    assert built.statements == 1 and [(c, code) for c, code, _ in built.failed] == [("mass", "bad_answer")]
    model.answers["mass"] = [row("A mass is large.")]
    assert make(model, overwrite=True).statements == 2
    assert model.asked == ["nodule", "mass", "mass"]


# ---------------------------------------------------------------- cache and resume


def test_an_interrupted_build_goes_on_where_it_stopped(make, tmp_path) -> None:
    model = Model(a=[row("First.")], b=KeyboardInterrupt(), c=[row("Third.")])
    with pytest.raises(KeyboardInterrupt):
        make(model)
    assert not (tmp_path / "mine.json").exists()
    model.answers["b"] = [row("Second.")]
    built = make(model)
    assert model.asked == ["a", "b", "b", "c"]
    assert (built.fresh, built.cached, built.prompt_tokens) == (2, 1, 20)
    assert load_bank(tmp_path / "mine.json").texts() == ["First.", "Second.", "Third."]


def test_a_repeated_build_asks_nothing_and_writes_the_same_bytes(make, tmp_path) -> None:
    model = Model(a=[row("First.")], b=[row("Second.")])
    make(model)
    make(model, name="again/mine.json")
    assert len(model.asked) == 2
    assert (tmp_path / "mine.json").read_bytes() == (tmp_path / "again" / "mine.json").read_bytes()


def test_the_cache_is_of_one_model_and_one_prompt(make, tmp_path, monkeypatch) -> None:
    model = Model(a=[row("First.")])
    make(model)
    build(["a"], tmp_path / "other.json", model, "another", cache=tmp_path / "cache")
    monkeypatch.setattr("reportseg.knowledge.build.PROMPT", "next")
    make(model, name="next.json")
    assert len(model.asked) == 3 and "prompt next" in load_bank(tmp_path / "next.json").statements[0].source


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"prompt": "1"}', "\0", "[" * 10_000])
def test_a_damaged_cache_file_is_asked_anew(make, tmp_path, content) -> None:
    model = Model(a=[row("First.")])
    make(model)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(content)
    make(model, overwrite=True)
    assert len(model.asked) == 2


def test_an_endpoint_that_is_down_is_not_asked_for_every_concept(make, tmp_path) -> None:
    gone = NoAnswerError("endpoint_down", "cannot be reached", down=True)
    model = Model(a=[row("First.")], b=gone, c=gone, d=[row("Fourth.")], e=[row("Fifth.")])
    built = make(model)
    assert model.asked == ["a", "b", "c"]
    assert [(c, code) for c, code, _ in built.failed] == [
        ("b", "endpoint_down"),
        ("c", "endpoint_down"),
        ("d", "not_asked"),
        ("e", "not_asked"),
    ]
    assert load_bank(tmp_path / "mine.json").texts() == ["First."]


def test_a_bank_without_a_statement_is_not_written(make, tmp_path) -> None:
    with pytest.raises(InputError, match="cannot be reached") as caught:
        make(Model(a=NoAnswerError("endpoint_down", "cannot be reached", down=True)))
    assert caught.value.code == "no_statements" and not (tmp_path / "mine.json").exists()


def test_a_bank_that_exists_is_kept_and_nobody_is_asked(make, tmp_path) -> None:
    (tmp_path / "mine.json").write_text("mine")
    model = Model(a=[row("First.")])
    with pytest.raises(InputError) as caught:
        make(model)
    assert caught.value.code == "exists" and model.asked == [] and (tmp_path / "mine.json").read_text() == "mine"


# ---------------------------------------------------------------- the list


def test_the_list_has_one_concept_a_line(tmp_path) -> None:
    path = tmp_path / "c.txt"
    path.write_text("\ufeff# chest\npleural  effusion\n\nnodule\r\nPleural effusion\n", encoding="utf-8")
    assert read_concepts(path) == ["pleural effusion", "nodule"]


@pytest.mark.parametrize(
    "content", [b"", b"# only\n", b"..\n", b"a\0b\n", b"\xff\xfe", b"word " * 21, b"\x1b[2J x", b"x" * 201, b"a\n" * (1 << 20)]
)
def test_what_is_no_list_is_refused(tmp_path, content) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_concepts(path)
    assert caught.value.code in {"bad_concepts", "empty_file"}


# ---------------------------------------------------------------- the command


def run(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["knowledge", *map(str, words)])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def endpoint(monkeypatch):
    """`--endpoint` with a model behind it that answers without a network."""
    model = Model(nodule=[row("A nodule is a round white spot.")], mass="I cannot.")
    monkeypatch.setattr("reportseg.knowledge.ask.Endpoint", lambda url, name: model)
    return "--endpoint", "http://127.0.0.1:1", "--model", "tiny"


def test_build_on_the_command_line(tmp_path, endpoint) -> None:
    (tmp_path / "one.txt").write_text("nodule\n")
    (tmp_path / "two.txt").write_text("nodule\nmass\n")
    shown = run("build", tmp_path / "one.txt", "-o", tmp_path / "one.json", *endpoint)
    assert "1 asked (10 + 5 tokens), 0 from the cache, 0 dropped, 0 failed" in shown.stdout
    result = json.loads(run("build", tmp_path / "two.txt", "-o", tmp_path / "two.json", *endpoint, "--json", "--quiet", code=3).stdout)
    assert (result["cached"], result["failed"][0][0]) == (1, "mass")
    assert "usage" in run("build", tmp_path / "one.txt", "-o", tmp_path / "x.json", "--json", code=2).stdout
    assert "usage" in run("build", tmp_path / "one.txt", "-o", tmp_path / "x.json", *endpoint, "--local", tmp_path, "--json", code=2).stdout


def test_check_on_the_command_line(tmp_path) -> None:
    bad = {"schema": 1, "name": "bad", "statements": [{"concept": "a", "kind": "margin", "statement": "On the left."}]}
    (tmp_path / "bad.json").write_text(json.dumps(bad))
    (tmp_path / "c.txt").write_text("nodule\ntooth\n")
    assert "0 errors, 0 warnings" in run("check", "chest").stdout
    assert "there is no statement for 'tooth'" in run("check", "chest", "--concepts", tmp_path / "c.txt").stdout
    result = json.loads(run("check", tmp_path / "bad.json", "--json", code=2).stdout)
    assert (result["errors"], result["warnings"]) == (1, 1) and result["findings"][0]["code"] == "side_unnamed"
    assert "unknown_bank" in run("check", "chset", "--json", code=2).stdout


def test_show_says_what_and_why_and_also_that_nothing_fits(tmp_path) -> None:
    shown = run("show", "right kidney", "--bank", "abdomen").stdout
    assert "right kidney, anatomy  (right kidney)" in shown and "beneath the liver" in shown
    assert run("show", "tooth").stdout == "no statement fits\n"
    result = json.loads(run("show", "ground glass", "--json").stdout)
    assert result["bank"] == "chest" and {"score", "why", "concept", "kind", "statement", "source", "reviewed_by"} <= set(result["hits"][0])
    assert json.loads(run("show", "", "--json").stdout)["hits"] == []
