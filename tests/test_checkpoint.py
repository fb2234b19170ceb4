"""A kill at any byte of a save loses nothing that was complete."""

from __future__ import annotations

import os
import shutil

import pytest
import torch

from reportseg import checkpoint
from reportseg.errors import InputError


def state(step: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return {
        "model/weight": torch.randn(7, 5, generator=generator),
        "ema/weight": torch.randn(7, 5, generator=generator).to(torch.bfloat16),
        "optimiser/0/step": torch.tensor(float(step)),
        "loader/seen": torch.arange(step),
        "flags": torch.tensor([True, False]),
    }


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def loaded_step(directory) -> int | None:
    found = checkpoint.load(directory)
    if found is None:
        return None
    tensors, meta = found
    assert same(tensors, state(meta["step"]))  # never a mixture
    return meta["step"]


def test_round_trip_is_exact_and_keeps_the_previous(tmp_path):
    meta = {"step": 1, "images": 320, "best": float("-inf"), "names": ["a", "b"], "note": "é"}
    checkpoint.save(tmp_path, state(1), meta)
    checkpoint.save(tmp_path, state(2), {**meta, "step": 2})
    tensors, read_meta = checkpoint.load(tmp_path)
    assert same(tensors, state(2)) and read_meta == {**meta, "step": 2}
    assert checkpoint.load(tmp_path, "previous")[1]["step"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.safetensors", "previous.safetensors"]


def test_best_stands_apart_from_last_and_previous(tmp_path):
    checkpoint.save(tmp_path, state(1), {"step": 1})
    checkpoint.save(tmp_path, state(1), {"step": 1}, name="best")
    checkpoint.save(tmp_path, state(2), {"step": 2}, name="best")
    assert checkpoint.load(tmp_path, "best")[1]["step"] == 2
    assert loaded_step(tmp_path) == 1 and checkpoint.load(tmp_path, "previous") is None


def test_nothing_complete_is_none(tmp_path):
    assert checkpoint.load(tmp_path / "absent") is None
    (tmp_path / "last.safetensors").write_bytes(b"")
    assert checkpoint.load(tmp_path) is None


def test_a_kill_while_the_file_is_written_keeps_the_last(tmp_path):
    """The temporary file cut at every tenth of its bytes: it was never renamed, so it is never read."""
    checkpoint.save(tmp_path, state(1), {"step": 1})
    whole = checkpoint.save(tmp_path / "other", state(2), {"step": 2}).read_bytes()
    for tenth in range(11):
        (tmp_path / "last.safetensors.tmp").write_bytes(whole[: len(whole) * tenth // 10])
        assert loaded_step(tmp_path) == 1
    checkpoint.save(tmp_path, state(3), {"step": 3})  # a left-over temporary file is no obstacle
    assert loaded_step(tmp_path) == 3


def test_a_last_cut_at_every_tenth_falls_back_and_is_never_rotated_over_a_sound_previous(tmp_path):
    run = tmp_path / "run"
    checkpoint.save(run, state(1), {"step": 1})
    checkpoint.save(run, state(2), {"step": 2})
    whole = (run / "last.safetensors").read_bytes()
    for tenth in range(10):
        copy = shutil.copytree(run, tmp_path / f"cut{tenth}")
        (copy / "last.safetensors").write_bytes(whole[: len(whole) * tenth // 10])
        assert loaded_step(copy) == 1
        checkpoint.save(copy, state(3), {"step": 3})
        assert loaded_step(copy) == 3 and checkpoint.load(copy, "previous")[1]["step"] == 1


def test_a_flipped_bit_is_noticed(tmp_path):
    checkpoint.save(tmp_path, state(1), {"step": 1})
    path = checkpoint.save(tmp_path, state(2), {"step": 2})
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    assert loaded_step(tmp_path) == 1


class Killed(BaseException):
    pass


@pytest.mark.parametrize("moment", range(8))
def test_a_kill_at_every_system_call_of_a_save(tmp_path, monkeypatch, moment):
    """`moment` counts fsyncs and renames; half of the kills come before the call takes effect, half after."""
    checkpoint.save(tmp_path, state(1), {"step": 1})
    checkpoint.save(tmp_path, state(2), {"step": 2})
    left = [moment // 2]

    def deadly(call):
        def wrapped(*args):
            left[0] -= 1
            if left[0] >= 0:
                return call(*args)
            if moment % 2:
                call(*args)
            raise Killed

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", deadly(os.replace))
        patch.setattr(os, "fsync", deadly(os.fsync))
        with pytest.raises(Killed):
            checkpoint.save(tmp_path, state(3), {"step": 3})
    assert loaded_step(tmp_path) in (2, 3)
    checkpoint.save(tmp_path, state(4), {"step": 4})
    assert loaded_step(tmp_path) == 4


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on the size of files")
def test_a_full_disk_is_said_and_older_checkpoints_stay(tmp_path):
    import resource

    checkpoint.save(tmp_path, state(1), {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(InputError) as caught:
            checkpoint.save(tmp_path, state(2), {"step": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.code == "unwritable" and "--resume" in caught.value.fix
    assert loaded_step(tmp_path) == 1 and [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def test_tied_and_strided_tensors_are_stored(tmp_path):
    weight = torch.arange(12.0).reshape(3, 4)
    checkpoint.save(tmp_path, {"a": weight, "b": weight, "c": weight.T, "d": weight[1]}, {})
    tensors, _ = checkpoint.load(tmp_path)
    assert torch.equal(tensors["b"], weight) and torch.equal(tensors["c"], weight.T) and torch.equal(tensors["d"], weight[1])
