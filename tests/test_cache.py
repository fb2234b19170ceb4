"""The cache of films: decoded once, told apart by content, gray where all is gray, and clear about the file that fails."""

from __future__ import annotations

import os
import signal
import stat
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from dicom_films import frames_of_one_file
from reportseg.data import cache
from reportseg.data.cache import open_cache, prepare_mask
from reportseg.errors import InputError
from reportseg.io.png import write_mask
from reportseg.limits import cache_root
from reportseg.types import Sample

RNG = np.random.default_rng(0)
GRAY = RNG.integers(0, 256, (3, 16, 16), np.uint8)
MASKS = RNG.random((3, 16, 16)) < 0.4


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("REPORTSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """Every file that is decoded, in order of time."""
    seen: list[Path] = []
    for name in ("read_image", "read_mask"):
        real = getattr(cache, name)
        monkeypatch.setattr(cache, name, lambda path, real=real: seen.append(path) or real(path))
    return seen


def films(folder: Path, images=GRAY, masks=MASKS) -> list[Sample]:
    samples = []
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        PIL.Image.fromarray(image).save(folder / f"{i}.png")
        write_mask(folder / f"{i}_mask.png", mask)
        samples.append(Sample(id=str(i), image=folder / f"{i}.png", mask=folder / f"{i}_mask.png", text="left lung"))
    return samples


def size_of(folder: Path) -> int:
    return int(folder.name.split("-")[1])


def folders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir())


def test_row_i_is_sample_i(tmp_path):
    samples = films(tmp_path)
    found = open_cache(samples, 16)
    assert found.images_NCHW.shape == (3, 1, 16, 16) and found.masks_NHW.shape == (3, 16, 16)
    assert found.images_NCHW.dtype == found.masks_NHW.dtype == np.uint8
    np.testing.assert_array_equal(found.images_NCHW[:, 0], GRAY)
    np.testing.assert_array_equal(found.masks_NHW, MASKS)
    turned = open_cache(samples[::-1], 16)
    np.testing.assert_array_equal(turned.images_NCHW[:, 0], GRAY[::-1])


def test_a_volume_in_one_file_is_never_trained_on_as_its_first_slice(tmp_path):
    samples = films(tmp_path)
    samples[1].image.write_bytes(frames_of_one_file(GRAY.astype(np.uint16), [(0, 0, n) for n in range(3)]))
    with pytest.raises(InputError) as caught:
        open_cache(samples, 16)
    assert caught.value.code == "volume" and caught.value.where == str(samples[1].image)


def test_it_is_mapped_not_loaded_and_cannot_be_written(tmp_path):
    found = open_cache(films(tmp_path), 16)
    assert isinstance(found.images_NCHW, np.memmap) and isinstance(found.masks_NHW, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found.images_NCHW[0] = 0


def test_no_file_is_decoded_twice(tmp_path, reads):
    samples = films(tmp_path)
    open_cache(samples, 16)
    assert sorted(reads) == sorted(p for s in samples for p in (s.image, s.mask))
    again = open_cache(samples, 16)
    assert len(reads) == 6
    np.testing.assert_array_equal(again.images_NCHW[:, 0], GRAY)


def test_a_changed_file_makes_a_new_cache(tmp_path, root, reads):
    samples = films(tmp_path)
    open_cache(samples, 16)
    PIL.Image.fromarray(255 - GRAY[1]).save(samples[1].image)
    os.utime(samples[1].image, ns=(1, 1))  # a clock too coarse to see the change is no excuse
    found = open_cache(samples, 16)
    np.testing.assert_array_equal(found.images_NCHW[1, 0], 255 - GRAY[1])
    write_mask(samples[2].mask, ~MASKS[2])
    os.utime(samples[2].mask, ns=(1, 1))
    np.testing.assert_array_equal(open_cache(samples, 16).masks_NHW[2], ~MASKS[2])
    assert len(folders(root)) == 3 and len(reads) == 18


def test_another_size_or_choice_of_films_is_another_cache(tmp_path, root):
    samples = films(tmp_path)
    assert open_cache(samples, 16).images_NCHW.shape[2:] == (16, 16)
    assert open_cache(samples, 8).images_NCHW.shape[2:] == (8, 8)
    assert len(open_cache(samples[:2], 16).images_NCHW) == 2
    assert len(folders(root)) == 3


def test_sentences_do_not_matter_to_it(tmp_path, root, reads):
    samples = films(tmp_path)
    open_cache(samples, 16)
    open_cache([Sample(id=f"x{s.id}", image=s.image, mask=s.mask, text="right lung") for s in samples], 16)
    assert len(folders(root)) == 1 and len(reads) == 6


def test_one_colour_film_makes_all_of_them_colour(tmp_path):
    rgb = RNG.integers(0, 256, (16, 16, 3), np.uint8)
    found = open_cache(films(tmp_path, [GRAY[0], rgb], MASKS[:2]), 16)
    assert found.images_NCHW.shape == (2, 3, 16, 16)
    np.testing.assert_array_equal(found.images_NCHW[0], np.stack([GRAY[0]] * 3))
    np.testing.assert_array_equal(found.images_NCHW[1], rgb.transpose(2, 0, 1))


def test_gray_stored_as_rgb_takes_a_third_of_the_room(tmp_path):
    found = open_cache(films(tmp_path, [np.stack([g] * 3, 2) for g in GRAY]), 16)
    assert found.images_NCHW.shape == (3, 1, 16, 16)
    np.testing.assert_array_equal(found.images_NCHW[:, 0], GRAY)


def test_films_of_any_shape_meet_one_square(tmp_path):
    wide, tall = np.repeat(GRAY[0], 2, 1), np.repeat(GRAY[1], 3, 0)
    found = open_cache(films(tmp_path, [wide, tall], [np.repeat(MASKS[0], 2, 1), np.repeat(MASKS[1], 3, 0)]), 16)
    assert found.images_NCHW.shape == (2, 1, 16, 16)
    np.testing.assert_array_equal(found.masks_NHW, MASKS[:2])


def test_a_mask_pixel_is_inside_where_at_least_half_of_it_was():
    mask = np.zeros((4, 4), bool)
    mask[0:2, 0] = True  # half of the first
    mask[3, 3] = True  # a quarter of the last
    np.testing.assert_array_equal(prepare_mask(mask, 2), [[1, 0], [0, 0]])
    np.testing.assert_array_equal(prepare_mask(mask, 8), np.kron(mask, np.ones((2, 2))))
    np.testing.assert_array_equal(prepare_mask(mask, 4), mask)


def test_progress_counts_every_film(tmp_path):
    calls: list[tuple[int, int]] = []
    samples = films(tmp_path)
    open_cache(samples, 16, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    open_cache(samples, 16, lambda done, total: calls.append((done, total)))
    assert len(calls) == 3


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_file_that_cannot_be_decoded_is_named_and_nothing_is_kept(tmp_path, root, kind):
    samples = films(tmp_path)
    broken = getattr(samples[1], kind)
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(InputError) as caught:
        open_cache(samples, 16)
    assert caught.value.where == str(broken) and caught.value.fix
    assert folders(root) == []


@pytest.mark.parametrize("kind", ["image", "mask"])
def test_a_file_that_is_gone_is_named(tmp_path, kind):
    samples = films(tmp_path)
    getattr(samples[2], kind).unlink()
    with pytest.raises(InputError) as caught:
        open_cache(samples, 16)
    assert caught.value.code == "missing" and caught.value.where == str(getattr(samples[2], kind))


def test_a_film_without_a_mask_cannot_train(tmp_path):
    samples = films(tmp_path)
    with pytest.raises(InputError, match="mask") as caught:
        open_cache([Sample(id="0", image=samples[0].image, mask=None, text="")], 16)
    assert caught.value.code == "missing_mask" and caught.value.where == str(samples[0].image)


def test_what_verify_calls_an_error_is_not_trained_on(tmp_path):
    def refused(samples, code):
        with pytest.raises(InputError) as caught:
            open_cache(samples, 16)
        assert caught.value.code == code and caught.value.where == str(samples[1].mask) and "data verify" in caught.value.fix

    samples = films(tmp_path)
    refused([samples[0], replace(samples[1], present=False)], "absent_with_mask")
    write_mask(samples[1].mask, np.zeros((16, 16), bool))
    refused(samples, "empty_mask")
    absent = [replace(s, present=s is not samples[1]) for s in samples]
    assert not open_cache(absent, 16).masks_NHW[1].any()
    refused(samples, "empty_mask")  # though its cache is there by now
    write_mask(samples[1].mask, np.eye(16, 8, dtype=bool))
    refused(samples, "size_mismatch")


def test_a_target_that_the_grid_loses_is_a_target_still(tmp_path):
    dot = np.zeros((64, 64), bool)
    dot[9, 9] = True
    found = open_cache(films(tmp_path, [np.zeros((64, 64), np.uint8)], [dot]), 16)
    assert not found.masks_NHW.any()


def test_a_cache_that_was_not_finished_is_built_again(tmp_path, root, reads):
    samples = films(tmp_path)
    open_cache(samples, 16)
    (root / folders(root)[0] / "done.json").unlink()
    found = open_cache(samples, 16)
    np.testing.assert_array_equal(found.images_NCHW[:, 0], GRAY)
    assert len(reads) == 12 and len(folders(root)) == 1


def test_of_two_runs_that_build_at_once_one_is_kept(tmp_path, root):
    samples = films(tmp_path)

    def other_run(done, total):
        if done == 1:
            open_cache(samples, 16)

    found = open_cache(samples, 16, other_run)
    np.testing.assert_array_equal(found.images_NCHW[:, 0], GRAY)
    assert len(folders(root)) == 1


def test_what_was_used_longest_ago_makes_room(tmp_path, root, monkeypatch):
    samples = films(tmp_path)
    for age, size in ((50, 16), (40, 12), (30, 8)):
        held = open_cache(samples, size)
        made = next(p for p in root.iterdir() if p.name.endswith(f"-{size}"))
        os.utime(made / "done.json", (time.time() - age, time.time() - age))
    open_cache(samples, 16)  # a use counts, not only the making
    sizes = {size_of(p): sum(f.stat().st_size for f in p.iterdir()) for p in root.iterdir()}
    monkeypatch.setattr(cache, "MAX_BYTES", sizes[16] + 5 * 3 * 4 * 4)  # the second is what the new one takes at most
    assert open_cache(samples, 4).images_NCHW.shape == (3, 1, 4, 4)
    assert {size_of(p) for p in root.iterdir()} == {16, 4}
    assert held.masks_NHW.shape == (3, 8, 8) and held.masks_NHW.max() == 1, "a run that has it open goes on"


def test_only_caches_are_removed_to_make_room(tmp_path, root, monkeypatch):
    for name in ("notes", "f" * 24, "0" * 23 + "-16"):
        (root / name).mkdir(parents=True)
        (root / name / "done.json").write_text("mine")
    (root / "film.png").write_bytes(b"x")
    before = folders(root)
    monkeypatch.setattr(cache, "MAX_BYTES", 0)
    open_cache(films(tmp_path), 16)
    assert set(before) < set(folders(root))


def test_what_a_killed_run_left_half_built_goes_after_a_day(tmp_path, root):
    old, new = root / ".building-old", root / ".building-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (time.time() - 2 * cache.DAY,) * 2)
    open_cache(films(tmp_path), 16)
    assert not old.exists() and new.exists()


@pytest.mark.skipif(os.name != "posix", reason="limits of a process are POSIX's")
@pytest.mark.parametrize("room", [0, 200, 9_000], ids=["for nothing", "for the header", "for some films"])
def test_a_disk_that_is_full_is_an_input_error_and_leaves_nothing(tmp_path, root, room):
    """The system refuses bytes past a limit, as a full disk does; the process lives, and nothing half built is left."""
    import resource

    samples = films(tmp_path)
    root.mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(InputError) as caught:
            open_cache(samples, 32)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.code == "cache" and caught.value.where == str(root) and "REPORTSEG_CACHE" in caught.value.fix
    assert folders(root) == []
    assert open_cache(samples, 32).masks_NHW.shape == (3, 32, 32)


@pytest.mark.parametrize("step", ["posix_fallocate", "save", "rename"])
def test_a_disk_that_fills_up_on_the_way_leaves_nothing_either(tmp_path, root, monkeypatch, step):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    samples = films(tmp_path)
    monkeypatch.setattr({"posix_fallocate": cache.os, "save": cache.np, "rename": cache.Path}[step], step, full)
    with pytest.raises(InputError, match="No space left on device") as caught:
        open_cache(samples, 16)
    assert caught.value.code == "cache" and folders(root) == []


def test_a_cache_folder_that_is_a_file_is_named(tmp_path, root):
    root.write_text("not a folder")
    with pytest.raises(InputError) as caught:
        open_cache(films(tmp_path), 16)
    assert caught.value.code == "cache" and caught.value.where == str(root)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_only_the_user_can_read_it(tmp_path, root):
    open_cache(films(tmp_path), 16)
    for folder in (root, root / folders(root)[0]):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_where_it_lies(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("REPORTSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "reportseg"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache" / "reportseg"


def test_names_of_films_do_not_show_in_it(tmp_path, root):
    (tmp_path / "Doe_John").mkdir()
    open_cache(films(tmp_path / "Doe_John"), 16)
    assert not any("Doe" in p.name or b"Doe" in p.read_bytes() for p in root.rglob("*") if p.is_file())
