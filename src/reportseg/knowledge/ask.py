"""Asks a language model: any endpoint that speaks OpenAI's /v1/chat/completions, or a transformers model in a local folder.

An endpoint is a stranger: its answers are bounded in bytes and in time, redirects are refused, and nothing is sent anywhere but to the
address that the user gave. The key comes from `REPORTSEG_API_KEY`, goes into one header and nowhere else.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import urlunsplit

from reportseg.errors import InputError
from reportseg.web import address, is_here, retry_after, within

KEY = "REPORTSEG_API_KEY"
MAX_BYTES = 1 << 20  # of one answer
MAX_WAIT_S = 300.0  # an endpoint that asks for a longer pause is asked another day
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
HOPELESS = frozenset({401, 402, 403, 404, 405, 407, 410, 501})


@dataclass(frozen=True)
class Answer:
    """What the model wrote, and what it cost. `estimated`: the endpoint did not count, so a token is taken to be four characters."""

    text: str
    prompt_tokens: int
    answer_tokens: int
    estimated: bool


class NoAnswerError(Exception):
    """One question has no answer. `down`: the endpoint is at fault, not the question."""

    def __init__(self, code: str, what: str, down: bool = False) -> None:
        super().__init__(what)
        self.code, self.what, self.down = code, what, down


class _RetryError(Exception):
    """This try failed and another may not. `wait_s` is what the endpoint asked for."""

    def __init__(self, what: str, wait_s: float = 0.0) -> None:
        super().__init__(what)
        self.wait_s = wait_s


Ask = Callable[[str, str], Answer]
"""(instructions, question) -> answer. Raises NoAnswerError for this question, InputError where no question will do."""


class Endpoint:
    """Asks over HTTP. `timeout_s` bounds one try from the look-up of the name to the last byte; waits double from `backoff_s`."""

    def __init__(self, url: str, model: str, *, timeout_s: float = 180, tries: int = 5, backoff_s: float = 1) -> None:
        self.url, self.model, self.timeout_s, self.tries, self.backoff_s = chat_url(url), model, timeout_s, tries, backoff_s
        self._key = _key_for(self.url)
        handlers: list[Any] = [_NoRedirect()]
        if is_here(self.url):
            handlers.append(urllib.request.ProxyHandler({}))  # what is meant for this machine goes through no proxy
        self._open = urllib.request.build_opener(*handlers).open

    def __call__(self, instructions: str, question: str) -> Answer:
        """One question under its instructions, tried again where that may help. Errors are those of `Ask`."""
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
        body = json.dumps({"model": self.model, "messages": messages, "stream": False}).encode()
        for attempt in range(self.tries):
            try:
                return _answer(self._post(body), len(instructions) + len(question))
            except _RetryError as failed:
                what, pause = str(failed), max(failed.wait_s, self.backoff_s * 2**attempt)
            if pause > MAX_WAIT_S:
                raise NoAnswerError("endpoint_busy", f"{what} and asks to wait {pause:.0f} s", down=True)
            if attempt + 1 < self.tries:
                time.sleep(pause)
        raise NoAnswerError("endpoint_down", f"{what}, {self.tries} times", down=True)

    def _post(self, body: bytes) -> bytes:
        """One try, from the look-up of the name to the last byte."""
        try:
            return within(self.timeout_s, lambda _: self._exchange(body))
        except TimeoutError:
            raise _RetryError(f"the endpoint gave no whole answer within {self.timeout_s:g} s") from None

    def _exchange(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "User-Agent": "reportseg"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self.url, body, headers)  # noqa: S310 - chat_url lets http and https pass, nothing else
        try:
            with self._open(request, timeout=self.timeout_s) as response:
                data: bytes = response.read(MAX_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, http.client.HTTPException) as error:  # no route, refused, reset, cut, not HTTP
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
            if isinstance(error, TimeoutError) or isinstance(reason, TimeoutError):
                raise TimeoutError from None  # the socket's, which is as long as that of the try and may come first
            raise _RetryError(f"the endpoint cannot be reached ({reason})") from None
        if len(data) > MAX_BYTES:
            raise NoAnswerError("huge_answer", f"the answer is longer than {MAX_BYTES >> 20} MiB")
        return data

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        status = error.code
        if 300 <= status < 400:
            target = error.headers.get("Location", "")[:200]
            fix = "If you trust that address, give it to --endpoint."
            return InputError(f"the endpoint sends on to {target!r}, which is not followed", self.url, fix, "endpoint_redirect")
        if status in AGAIN:
            return _RetryError(f"the endpoint answered {status}", retry_after(error.headers.get("Retry-After", "")))
        what = f"the endpoint answered {status}{self._said(error)}"
        if status in HOPELESS:
            fix = f"Check --endpoint, --model and the key in {KEY}."
            return InputError(what, self.url, fix, "endpoint_refused")
        return NoAnswerError("refused", what)

    def _said(self, error: urllib.error.HTTPError) -> str:
        """The endpoint's own words, shortened and without the key, which some endpoints repeat."""
        try:
            message = json.loads(error.read(MAX_BYTES))["error"]["message"]
        except (ValueError, TypeError, LookupError, RecursionError, OSError, http.client.HTTPException):
            return ""
        text = " ".join(str(message)[:2000].split())
        return f" ({(text.replace(self._key, '[key]') if self._key else text)[:200]})" if text else ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could carry key and question to another host; it becomes an HTTPError instead."""

    def http_error_302(self, *_: Any) -> None:
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302  # type: ignore[assignment]


def chat_url(url: str) -> str:
    """The address that is asked: `http://host`, `http://host/v1` and the full path all work. InputError bad_endpoint for anything else."""
    fix = "Give the address as in http://127.0.0.1:8000/v1."
    parts = address(url)
    if parts is None:
        raise InputError("this is no http or https address", "--endpoint", fix, "bad_endpoint")
    if "@" in parts.netloc:
        raise InputError("the address holds a name or a key", "--endpoint", f"Put the key into the variable {KEY}.", "bad_endpoint")
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path = f"{path or '/v1'}/chat/completions"
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def _key_for(url: str) -> str:
    key = os.environ.get(KEY, "").strip()
    if key and not re.fullmatch(r"[\x21-\x7e]+", key):
        raise InputError("the key holds characters that no key has", KEY, "Copy it again.", "bad_key")
    if key and url.startswith("http:") and not is_here(url):
        raise InputError(
            "a key is not sent over plain http to another machine", "--endpoint", f"Use https, or unset {KEY}.", "bad_endpoint"
        )
    return key


def _answer(data: bytes, asked: int) -> Answer:
    """The first choice of a chat completion. `asked` is the number of characters that were sent."""
    try:
        content = json.loads(data)
        choice = content["choices"][0]
        text, finished = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise _RetryError("the endpoint's answer is no chat completion") from None
    if not isinstance(text, str):
        raise NoAnswerError("no_text", "the model answered without text")
    if finished == "length":
        raise NoAnswerError("cut_answer", "the model stopped before the end of its answer")
    usage = content.get("usage")
    prompt, answer = (usage.get("prompt_tokens"), usage.get("completion_tokens")) if isinstance(usage, dict) else (None, None)
    if _is_count(prompt) and _is_count(answer):
        return Answer(text, prompt, answer, estimated=False)
    return Answer(text, _estimate(asked), _estimate(len(text)), estimated=True)


def _is_count(n: object) -> TypeGuard[int]:
    return isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 10**9


def _estimate(characters: int) -> int:
    return -(-characters // 4)


def local(directory: str | Path, max_new_tokens: int = 2048) -> Ask:
    """A causal language model of transformers, from its folder alone: no network, no code of the folder, no pickle; greedy.

    InputError: missing, pickle, bad_model.
    """
    folder = Path(directory)
    if not (folder / "config.json").is_file():
        raise InputError("the folder holds no config.json of transformers", folder, "Give the folder of a language model.", "missing")
    if not any(folder.glob("*.safetensors")):
        fix = "Convert the weights: load them in a program that you trust and call save_pretrained(folder, safe_serialization=True)."
        raise InputError("the folder holds no safetensors; pickled weights can run code and are never read", folder, fix, "pickle")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, **offline)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **offline)  # comes in eval mode
    except Exception as error:  # the folder is a stranger's; transformers raises of every kind
        what = f"the model cannot be read ({type(error).__name__})"
        raise InputError(what, folder, "Is it a causal language model in transformers' own format?", "bad_model") from error

    def ask(instructions: str, question: str) -> Answer:
        if tokenizer.chat_template:
            messages = [{"role": "system", "content": instructions}, {"role": "user", "content": question}]
            inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        else:
            inputs = tokenizer(f"{instructions}\n\n{question}\n", return_tensors="pt")
        asked = inputs["input_ids"].shape[1]
        written = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        )[0, asked:]
        if len(written) >= max_new_tokens:
            raise NoAnswerError("cut_answer", f"the model wrote {max_new_tokens} tokens and did not end")
        return Answer(tokenizer.decode(written, skip_special_tokens=True), asked, len(written), estimated=False)

    return ask


def local_name(directory: str | Path) -> str:
    """What a bank calls a local model: its folder's name and a mark of its config and the sizes of its weights."""
    import hashlib

    folder = Path(directory).resolve()
    sha = hashlib.sha256()
    for file in sorted([*folder.glob("config.json"), *folder.glob("*.safetensors")]):
        sha.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        sha.update(file.read_bytes() if file.suffix == ".json" else b"")
    return f"{folder.name}@{sha.hexdigest()[:12]}"
