"""How a language model is asked: against a server on this machine that misbehaves in every way, and a tiny model in a folder."""

from __future__ import annotations

import contextlib
import email.utils
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from reportseg.cli import app
from reportseg.errors import InputError
from reportseg.knowledge import ask
from reportseg.knowledge.ask import KEY, Answer, Endpoint, NoAnswerError, chat_url, local, local_name
from reportseg.knowledge.bank import load_bank

Reply = Callable[[BaseHTTPRequestHandler], None]
SECRET = "sk-a-key-that-nobody-may-see"


class Server:
    """Answers each request with the next reply of a list, the last one for ever, and keeps what it was sent."""

    def __init__(self, *replies: Reply) -> None:
        self.replies, self.seen = list(replies), []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.seen.append({"path": self.path, "headers": dict(self.headers), "body": json.loads(body)})
                reply = outer.replies.pop(0) if len(outer.replies) > 1 else outer.replies[0]
                with contextlib.suppress(OSError):  # the client hung up
                    reply(self)

            def do_GET(self) -> None:
                outer.seen.append({"path": self.path})

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()


def send(status: int, body: bytes | str, headers: dict[str, str] | None = None) -> Reply:
    data = body if isinstance(body, bytes) else body.encode()

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    return reply


def says(text: Any, usage: Any = None, finish: str = "stop") -> Reply:
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return send(200, json.dumps({"choices": [choice], "usage": usage}))


def stall(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(5)


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A header that never ends: every byte comes in time."""
    for _ in range(200):
        handler.wfile.write(b"H")
        handler.wfile.flush()
        time.sleep(0.02)


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


GOOD = says("yes", {"prompt_tokens": 7, "completion_tokens": 2})
CUT = send(200, '{"choices": [{"mess', {"Content-Length": "4000"})


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[..., tuple[Server, Endpoint]]]:
    """A server with these replies, and an endpoint that asks it quickly; pauses are recorded instead of slept."""
    monkeypatch.delenv(KEY, raising=False)
    servers: list[Server] = []

    def start(*replies: Reply, **options: Any) -> tuple[Server, Endpoint]:
        servers.append(Server(*replies))
        return servers[-1], Endpoint(servers[-1].url, "tiny", **{"timeout_s": 30, "tries": 3, "backoff_s": 0.01} | options)

    yield start
    for server in servers:
        server.http.shutdown()
        server.http.server_close()


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    waited: list[float] = []
    real = time.sleep
    monkeypatch.setattr(ask.time, "sleep", lambda s: waited.append(s) if threading.current_thread() is threading.main_thread() else real(s))
    return waited


def test_an_answer_brings_text_and_its_cost(serve) -> None:
    server, endpoint = serve(GOOD)
    assert endpoint("be brief", "is it white?") == Answer("yes", 7, 2, estimated=False)
    (request,) = server.seen
    assert request["path"] == "/v1/chat/completions"
    assert request["body"]["model"] == "tiny" and request["body"]["stream"] is False
    assert [m["content"] for m in request["body"]["messages"]] == ["be brief", "is it white?"]
    assert "Authorization" not in request["headers"]


@pytest.mark.parametrize("usage", [None, 3, {"prompt_tokens": "7"}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": True}])
def test_tokens_that_nobody_counted_are_estimated_and_said_to_be(serve, usage) -> None:
    _, endpoint = serve(says("x" * 40, usage))
    assert endpoint("abcd", "efgh") == Answer("x" * 40, 2, 10, estimated=True)


# ---------------------------------------------------------------- what may be tried again


@pytest.mark.parametrize(
    "bad",
    [send(429, "slow"), send(500, "oops"), send(503, ""), send(200, "{not json"), send(200, "[" * 10_000), send(200, "{}"), CUT, hang_up],
    ids=["429", "500", "503", "bad json", "deep json", "no choices", "cut stream", "hang up"],
)
def test_a_passing_fault_is_tried_again_after_a_growing_pause(serve, pauses, bad) -> None:
    server, endpoint = serve(bad, bad, GOOD)
    assert endpoint("a", "b").text == "yes"
    assert len(server.seen) == 3 and pauses == [0.01, 0.02]


def test_a_lasting_fault_ends_after_the_last_try(serve, pauses) -> None:
    server, endpoint = serve(send(500, "oops"))
    with pytest.raises(NoAnswerError, match="500, 3 times") as caught:
        endpoint("a", "b")
    assert caught.value.down and len(server.seen) == 3 and len(pauses) == 2


@pytest.mark.parametrize("value", ["7", "7.5", "date"])
def test_retry_after_is_honoured(serve, pauses, value) -> None:
    header = email.utils.formatdate(time.time() + 9, usegmt=True) if value == "date" else value
    _, endpoint = serve(send(429, "", {"Retry-After": header}), GOOD)
    endpoint("a", "b")
    assert 5 < pauses[0] <= 9


@pytest.mark.parametrize("value", ["nan", "-5", "soon", "Tue, 99 Foo", ""])
def test_a_retry_after_that_says_nothing_is_none(serve, pauses, value) -> None:
    _, endpoint = serve(send(429, "", {"Retry-After": value}), GOOD)
    endpoint("a", "b")
    assert pauses == [0.01]


def test_an_endpoint_that_wants_hours_is_left_alone(serve, pauses) -> None:
    server, endpoint = serve(send(429, "", {"Retry-After": "86400"}))
    with pytest.raises(NoAnswerError, match="86400 s") as caught:
        endpoint("a", "b")
    assert caught.value.down and len(server.seen) == 1 and pauses == []


@pytest.mark.parametrize("how", [stall, drip], ids=["stall", "drip"])
def test_a_stall_ends_with_the_timeout_whatever_trickles_in(serve, how) -> None:
    _, endpoint = serve(how, timeout_s=0.3, tries=2)
    start = time.monotonic()
    with pytest.raises(NoAnswerError, match="no whole answer within 0.3 s, 2 times"):
        endpoint("a", "b")
    assert time.monotonic() - start < 4


def test_nobody_there(monkeypatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    endpoint = Endpoint("http://127.0.0.1:9", "tiny", tries=1)
    with pytest.raises(NoAnswerError, match="cannot be reached") as caught:
        endpoint("a", "b")
    assert caught.value.down


# ---------------------------------------------------------------- what may not


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (send(200, b" " * (ask.MAX_BYTES + 1)), "huge_answer"),
        (send(400, '{"error": {"message": "filtered"}}'), "refused"),
        (says(None), "no_text"),
        (says("half a sen", finish="length"), "cut_answer"),
    ],
)
def test_a_question_without_an_answer_is_asked_once(serve, pauses, reply, code) -> None:
    server, endpoint = serve(reply)
    with pytest.raises(NoAnswerError) as caught:
        endpoint("a", "b")
    assert (caught.value.code, caught.value.down, len(server.seen), pauses) == (code, False, 1, [])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_that_no_question_will_change_is_the_users_to_mend(serve, monkeypatch, status) -> None:
    monkeypatch.setenv(KEY, SECRET)
    server, endpoint = serve(send(status, json.dumps({"error": {"message": f"bad key {SECRET}\x1b[2J" + "x" * 9000}})))
    with pytest.raises(InputError, match=f"answered {status}") as caught:
        endpoint("a", "b")
    assert caught.value.code == "endpoint_refused" and len(server.seen) == 1
    assert SECRET not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["http://127.0.0.2:1/v1/chat/completions", "//[bad", "file:///etc/passwd"])
def test_a_redirect_is_not_followed(serve, status, target) -> None:
    server, endpoint = serve(send(status, "", {"Location": target}))
    with pytest.raises(InputError, match="not followed") as caught:
        endpoint("a", "b")
    assert caught.value.code == "endpoint_redirect" and len(server.seen) == 1


# ---------------------------------------------------------------- the whole way


def test_the_command_builds_a_bank_through_every_passing_fault_and_then_from_its_cache(serve, pauses, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REPORTSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(KEY, SECRET)
    statement = {"kind": "density", "statement": "A nodule is a round white spot.", "terms": ["spot"]}
    written = says(json.dumps({"statements": [statement, {"kind": "density", "statement": "On the lt side."}]}))
    server, _ = serve(send(429, "", {"Retry-After": "3"}), send(500, ""), send(200, "{"), CUT, written)
    (tmp_path / "concepts.txt").write_text("nodule\n")
    words = ["knowledge", "build", str(tmp_path / "concepts.txt"), "--endpoint", server.url, "--model", "tiny"]
    first = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "one.json")])
    assert first.exit_code == 0, first.output
    assert "1 asked (about " in first.output and "dropped: nodule: has a side word that cannot be swapped" in first.output
    assert len(server.seen) == 5 and pauses == [3.0, 2.0, 4.0, 8.0]
    server.replies = [send(401, "")]
    again = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "two.json")])
    assert "0 asked (0 + 0 tokens), 1 from the cache" in again.output and len(server.seen) == 5
    assert load_bank(tmp_path / "one.json").statements == load_bank(tmp_path / "two.json").statements
    assert not any(SECRET in file.read_text() for file in tmp_path.rglob("*") if file.is_file()) and SECRET not in first.output


# ---------------------------------------------------------------- addresses and keys


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1/chat/completions"),
        ("https://host/v1/", "https://host/v1/chat/completions"),
        ("https://host/openai/v1/chat/completions?api-version=1", "https://host/openai/v1/chat/completions?api-version=1"),
    ],
)
def test_the_address_may_be_given_short_or_whole(url, asked) -> None:
    assert chat_url(url) == asked


@pytest.mark.parametrize(
    "url",
    ["", "host/v1", "file:///etc/passwd", "ftp://host", "http://", "http://[bad", "http://h:99999999/", "http://h/\r\nX: y", "http://hé/"]
    + ["http://me:key@host/v1"],
)
def test_what_is_no_address_is_refused_before_anything_is_sent(url) -> None:
    with pytest.raises(InputError) as caught:
        chat_url(url)
    assert caught.value.code == "bad_endpoint" and "key@" not in str(caught.value)


def test_the_key_goes_into_one_header_and_nowhere_else(serve, monkeypatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    server, endpoint = serve(GOOD)
    assert SECRET not in repr(endpoint("a", "b"))
    assert server.seen[0]["headers"]["Authorization"] == f"Bearer {SECRET}" and SECRET not in json.dumps(server.seen[0]["body"])


def test_a_key_is_not_sent_in_the_clear_nor_with_a_line_break(monkeypatch) -> None:
    monkeypatch.setenv(KEY, SECRET)
    with pytest.raises(InputError, match="plain http"):
        Endpoint("http://elsewhere.example/v1", "tiny")
    monkeypatch.setenv(KEY, f"{SECRET}\r\nX-Other: y")
    with pytest.raises(InputError) as caught:
        Endpoint("https://elsewhere.example/v1", "tiny")
    assert caught.value.code == "bad_key" and SECRET not in str(caught.value)


def test_a_proxy_is_not_asked_for_what_is_meant_for_this_machine(serve, monkeypatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    _, endpoint = serve(GOOD)
    assert endpoint("a", "b").text == "yes"


# ---------------------------------------------------------------- a model in a folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The smallest causal model, with random weights, as transformers saves it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model") / "babbler"
    words = ["<end>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(words), n_embd=8, n_layer=1, n_head=1, n_positions=512, bos_token_id=0, eos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>").save_pretrained(path)
    return path


def test_a_local_model_is_asked_without_a_network(folder) -> None:
    with pytest.raises(NoAnswerError, match="wrote 3 tokens"):  # it babbles on
        local(folder, max_new_tokens=3)("a b c", "d")


def test_a_local_model_answers_with_counted_tokens(folder, tmp_path) -> None:
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    quiet = tmp_path / "quiet"
    shutil.copytree(folder, quiet)
    weights = load_file(quiet / "model.safetensors")
    embed = next(k for k in weights if k.endswith("wte.weight"))
    norm = next(k for k in weights if k.endswith("ln_f.bias"))
    weights[norm] = torch.ones_like(weights[norm])
    weights[embed][0] += 100.0  # the end is always likeliest
    save_file(weights, quiet / "model.safetensors", {"format": "pt"})
    assert local(quiet, max_new_tokens=3)("a b c", "d") == Answer("", 4, 1, estimated=False)
    assert local_name(quiet).startswith("quiet@") and local_name(quiet) != local_name(folder)


def test_pickled_weights_and_other_folders_are_refused(tmp_path) -> None:
    with pytest.raises(InputError) as caught:
        local(tmp_path / "none")
    assert caught.value.code == "missing"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(InputError, match="never read") as caught:
        local(tmp_path)
    assert caught.value.code == "pickle"
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError) as caught:
        local(tmp_path)
    assert caught.value.code == "bad_model"
