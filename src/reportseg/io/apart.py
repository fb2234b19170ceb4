"""Lossless JPEG, decoded in a process of its own: GDCM, which alone reads it, ends its whole process on many a damaged stream.

The child begins with the first such film, serves until its parent ends, and is begun anew where it ended. A request is a line of JSON and
the stream, an answer a line of JSON and the pixels, or an empty object where nothing could be made of the stream.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

PLUGIN = "gdcm"
SECONDS = 120  # for a frame; one of 100 megapixels takes a few

_lock = threading.Lock()
_child: subprocess.Popen[bytes] | None = None


def decode_apart(stream: bytes, options: Mapping[str, Any]) -> NDArray[Any]:
    """The pixels of one frame by pydicom's `options`: (H, W) or (H, W, 3). RuntimeError where the decoder makes nothing of it, ends, or
    takes more than SECONDS; ChildProcessError where it cannot be started.
    """
    wanted = {name: value for name, value in options.items() if isinstance(value, str | int)} | {"number_of_frames": 1}
    with _lock:
        child = _running()
        clock = threading.Timer(SECONDS, child.kill)
        clock.start()
        ask, answer = cast(io.BufferedWriter, child.stdin), cast(io.BufferedReader, child.stdout)
        try:
            ask.write(json.dumps([len(stream), wanted]).encode() + b"\n" + stream)
            ask.flush()
            said = json.loads(answer.readline())  # a child that ended says nothing, which is no JSON
            array = np.empty(said.get("shape", 0), said.get("dtype", "u1"))
            if array.size and answer.readinto(array.data.cast("B")) != array.nbytes:
                raise EOFError
        except (OSError, ValueError, EOFError):
            _end()
            raise RuntimeError("the decoder ended") from None
        except BaseException:  # an interruption: what the child says next would be taken for another frame
            _end()
            raise
        finally:
            clock.cancel()
    if not array.size:
        raise RuntimeError("the decoder can make nothing of it")
    return array


def serve() -> None:
    """What the child does. The decoder's own messages go nowhere near the answers."""
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells its whole group, and the parent may mean to finish this film
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    while line := sys.stdin.buffer.readline():
        length, options = json.loads(line)
        stream, options["transfer_syntax_uid"] = sys.stdin.buffer.read(length), UID(options["transfer_syntax_uid"])
        try:
            decoder = get_decoder(options["transfer_syntax_uid"])
            array = np.ascontiguousarray(decoder.as_array(encapsulate([stream]), index=0, decoding_plugin=PLUGIN, **options)[0])
        except Exception:  # the parent says what is to be said; this might quote what the file holds
            answers.write(b"{}\n")
        else:
            answers.write(json.dumps({"shape": array.shape, "dtype": array.dtype.str}).encode() + b"\n")
            answers.write(array.data.cast("B"))
        answers.flush()


def _running() -> subprocess.Popen[bytes]:
    """The child. What its decoder prints is not heard."""
    global _child
    if _child is None or _child.poll() is not None:
        _end()
        try:
            _child = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        except OSError as error:
            raise ChildProcessError("the decoder cannot be started") from error
    return _child


def _end() -> None:
    global _child
    if _child is not None:
        _child.kill()
        for pipe in (_child.stdin, _child.stdout):
            try:
                cast(io.IOBase, pipe).close()
            except OSError:  # what was not sent yet cannot be sent any more
                continue
        _child.wait()
        _child = None


def _forget() -> None:
    """In a process that was forked: child and lock are those of its parent."""
    global _child, _lock
    _child, _lock = None, threading.Lock()


atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
if __name__ == "__main__":
    serve()
