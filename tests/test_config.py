"""The configuration of a run: what is legal, what a mistake is told, and that a file comes back as it went."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportseg.config import DataConfig, RunConfig, dump_config, load_config, parse_config, parse_yaml, shipped_configs
from reportseg.errors import InputError
from reportseg.models import MODELS, resolve, section_sha256

MINIMAL = {"name": "trial", "model": {"name": "unet"}}


def config(**changes) -> RunConfig:
    return parse_config(MINIMAL | changes, "trial.yaml")


def refused(values, where="trial.yaml") -> InputError:
    with pytest.raises(InputError) as caught:
        parse_config(values, where)
    assert caught.value.code == "config" and caught.value.where == where
    return caught.value


def written(tmp_path, text: str):
    path = tmp_path / "trial.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# ---- reading


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_loads_under_its_own_name(name):
    assert load_config(name).name == name
    assert load_config(name).model["name"]


def test_every_method_has_its_recipe_for_every_data_set_and_one_for_a_cpu():
    for method in MODELS:
        own = {f"{method}_{data}" for data in ("qata", "mosmed", "kvasir", "qata_small")}
        assert own <= set(shipped_configs())
        assert {load_config(name).model["name"] for name in own} == {method}


@pytest.mark.parametrize("data", ["qata", "mosmed", "kvasir"])
def test_the_recipes_of_a_data_set_differ_in_the_model_alone(data):
    recipes = [resolve(load_config(f"{method}_{data}")) for method in MODELS]
    assert len({(r.data.model_dump_json(), r.train.model_dump_json()) for r in recipes}) == 1
    from_scratch = [load_config(f"{method}_{data}_small") for method in ("tgcnet", "tmca")]
    assert len({(r.data.model_dump_json(), r.train.model_dump_json()) for r in from_scratch}) == 1
    small = load_config("tgcnet_qata_small")
    assert small.train.images == 110_000 and small.data.sizes() == [(0.75, 112), (1.0, 160)]
    published = load_config("tgcnet_qata")
    assert published.data.sizes() == [(1.0, 224)] and published.train.batch == 32
    assert published.model["vision"] == published.model["text"] == {"source": "openai/clip-vit-base-patch16", "train": "frozen"}
    assert published.model["sse"]["cnn"] == {"source": "microsoft/resnet-18", "train": "full"}


def test_a_path_is_read_like_a_name(tmp_path):
    path = written(tmp_path, "name: trial\nmodel: {name: unet, width: 8}\ntrain: {lr: 3e-4}\n")
    assert load_config(path) == load_config(str(path)) == config(model={"name": "unet", "width": 8}, train={"lr": 3e-4})


def test_a_shipped_name_goes_before_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tgcnet_qata_small").mkdir()
    assert load_config("tgcnet_qata_small").name == "tgcnet_qata_small"


def test_a_name_that_leads_nowhere_is_told_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"Did you mean tgcnet_qata_small\?"):
        load_config("tgcnet_qata_smal")
    with pytest.raises(InputError, match="Shipped: .*tgcnet_qata"):
        load_config("zzz")
    with pytest.raises(InputError, match="cannot be read") as caught:
        load_config("absent.yaml")
    assert caught.value.code == "missing"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4),
        ("1.0e-3", 1e-3),
        ("1E5", 1e5),
        ("-2e3", -2000.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("+1_000.5", 1000.5),
        ("7", 7),
        ("1e", "1e"),
        ("e3", "e3"),
    ],
)
def test_numbers_are_numbers(text, value):
    found = parse_yaml(f"lr: {text}", "x")["lr"]
    assert found == value and type(found) is type(value)


def test_quoted_numbers_and_versions_stay_text():
    assert parse_yaml("a: '3e-4'\nb: 1.2.3\nc: 1e-3x", "x") == {"a": "3e-4", "b": "1.2.3", "c": "1e-3x"}


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_is_read_back_from_how_python_prints_it(value):
    assert parse_yaml(f"x: {value!r}", "x")["x"] == value


# ---- overrides


def test_overrides_lie_on_top_and_the_last_one_wins():
    found = load_config(
        "tgcnet_qata_small",
        [
            "train.lr=3e-4",
            "data.size_px=[[0.5, 64], [1.0, 128]]",
            "data.augment.flip=false",
            "model.vlcm.enabled=false",
            "seed=1",
            "seed=2",
            "train.minutes=0.5",
        ],
    )
    assert found.train.lr == 3e-4 and found.seed == 2 and found.train.minutes == 0.5
    assert found.data.sizes() == [(0.5, 64), (1.0, 128)]
    assert found.data.augment.flip is False and found.data.augment.rotate_deg == 20  # its neighbours stay
    assert found.model["vlcm"] == {"enabled": False} and found.model["preset"] == "small"


def test_an_override_may_take_a_section_away_or_name_one_that_the_file_lacks(tmp_path):
    assert load_config("tgcnet_qata_small", ["data.augment=null"]).data.augment is None
    path = written(tmp_path, "name: trial\nmodel: {name: unet}\n")
    assert load_config(path, ["train.batch=4", "model.width=8"]).train.batch == 4
    assert load_config(path, ["data.text=constant"]).data.text == "constant"


@pytest.mark.parametrize("item", ["train.lr", "", "=3", " =3"])
def test_an_override_without_key_or_value_is_told_its_form(item):
    with pytest.raises(InputError, match="key=value") as caught:
        load_config("tgcnet_qata_small", [item])
    assert caught.value.where == f"-s {item}"


def test_a_wrong_override_is_a_wrong_config():
    with pytest.raises(InputError, match=r"unknown key 'train\.lrr'\. Did you mean 'lr'\?"):
        load_config("tgcnet_qata_small", ["train.lrr=1"])
    with pytest.raises(InputError, match="train: should be a map"):
        load_config("tgcnet_qata_small", ["train=3"])
    with pytest.raises(InputError, match=r"train\.lr: Input should be a valid number"):
        load_config("tgcnet_qata_small", ["train.lr="])


# ---- mistakes


@pytest.mark.parametrize(
    ("values", "key", "near"),
    [
        ({"sead": 1}, "sead", "seed"),
        ({"data": {"sizepx": 64}}, "data.sizepx", "size_px"),
        ({"data": {"augment": {"rotate": 3}}}, "data.augment.rotate", "rotate_deg"),
        ({"train": {"learning_rate": 1}}, "train.learning_rate", None),
    ],
)
def test_an_unknown_key_names_the_nearest_legal_one(values, key, near):
    error = refused(MINIMAL | values)
    assert f"unknown key '{key}'" in error.what
    assert error.fix == f"Did you mean '{near}'?" if near else error.fix.startswith("Legal keys here: images, batch,")


def test_all_findings_come_at_once():
    error = refused({"name": "a b", "model": {"name": "unet"}, "sead": 1, "train": {"lr": -1, "bacth": 2}, "data": {"text": "none"}})
    for said in ("name: ", "'sead'", "'train.bacth'", "train.lr: ", "data.text: "):
        assert said in error.what
    assert "Did you mean 'batch'?" in error.fix and "Did you mean 'seed'?" in error.fix


def test_a_value_that_is_wrong_is_told_where_the_legal_ones_are_listed():
    assert "config schema" in refused(MINIMAL | {"seed": "x"}).fix


def test_a_key_is_named_as_the_file_has_it_and_not_as_the_type_behind_it():
    assert refused(MINIMAL | {"data": {"size_px": [[0.5, 112], [1.0, "wide"]]}}).what.startswith("data.size_px.1.1: ")
    assert "Literal" not in refused(MINIMAL | {"eval": {"controls": ["none"]}}).what


def test_name_and_model_are_required_and_the_name_can_be_a_folder():
    assert "name: Field required; model: Field required" in refused({}).what
    for name in ("", "a/b", "a b", "../up", "ä"):
        assert "name" in refused(MINIMAL | {"name": name}).what


@pytest.mark.parametrize(
    ("section", "key", "values"),
    [
        ("train", "images", [0, 1.5]),
        ("train", "batch", [0]),
        ("train", "accumulate", [0]),
        ("train", "lr", [0, -1, float("inf"), float("nan")]),
        ("train", "weight_decay", [-0.1]),
        ("train", "warmup", [1, -0.1]),
        ("train", "ema", [1]),
        ("train", "minutes", [0, float("inf")]),
        ("train", "checkpoint_minutes", [0]),
        ("train", "precision", ["fp16"]),
        ("data", "text_dropout", [1, -0.1]),
        ("data", "negatives", [1, -0.1]),
        ("data", "limit", [0]),
        ("data", "text", ["shuffled"]),
        ("eval", "controls", [["upside-down"]]),
    ],
)
def test_values_outside_their_range_are_refused(section, key, values):
    for value in values:
        assert f"{section}.{key}" in refused(MINIMAL | {section: {key: value}}).what


def test_the_seed_fits_every_generator():
    assert config(seed=2**31 - 1).seed == 2**31 - 1
    for seed in (-1, 2**31):
        assert "seed" in refused(MINIMAL | {"seed": seed}).what


# ---- size schedule


def test_a_size_is_a_number_or_a_schedule_over_the_share_of_images_seen():
    assert DataConfig(size_px=224).sizes() == [(1.0, 224)]
    assert config(data={"size_px": [[0.85, 112], [1, 224]]}).data.sizes() == [(0.85, 112), (1.0, 224)]


@pytest.mark.parametrize(
    "size_px",
    [
        [],
        [[0.5, 112]],
        [[1.0, 112], [0.5, 224]],
        [[0, 64], [1.0, 112]],
        [[0.5, 64], [0.5, 96], [1.0, 112]],
        [[0.5, 112], [1.1, 224]],
        [[float("nan"), 64], [1.0, 112]],
    ],
    ids=str,
)
def test_shares_rise_and_end_at_one(size_px):
    assert "data.size_px" in refused(MINIMAL | {"data": {"size_px": size_px}}).what


@pytest.mark.parametrize("side", [15, 2049, -1, 112.5, "112px"])
def test_a_side_is_16_to_2048_pixels(side):
    for size_px in (side, [[0.5, side], [1.0, 112]]):
        assert "data.size_px" in refused(MINIMAL | {"data": {"size_px": size_px}}).what


# ---- the object


def test_a_config_is_frozen():
    found = config()
    for change in (
        lambda: setattr(found, "seed", 1),
        lambda: setattr(found.train, "lr", 1),
        lambda: setattr(found.data.augment, "flip", False),
    ):
        with pytest.raises(ValueError, match="frozen"):
            change()


@pytest.mark.parametrize(
    ("images", "batch", "accumulate", "steps"), [(100, 10, 1, 10), (101, 10, 1, 11), (1, 32, 4, 1), (1000, 10, 4, 25), (1001, 10, 4, 26)]
)
def test_steps_cover_all_images_and_only_the_last_one_is_short(images, batch, accumulate, steps):
    assert config(train={"images": images, "batch": batch, "accumulate": accumulate}).steps() == steps


@pytest.mark.parametrize("name", shipped_configs())
def test_what_is_dumped_loads_to_an_equal_config(name, tmp_path):
    found = load_config(name, ["train.minutes=1.5", "data.manifest=[a.csv, b é.csv]"])
    again = load_config(written(tmp_path, dump_config(found)))
    assert again == found and dump_config(again) == dump_config(found)
    assert "é" in dump_config(found)


@given(st.builds(lambda **k: k, lr=st.floats(1e-30, 1e30), images=st.integers(1, 10**12), clip=st.floats(1e-6, 1e6)))
def test_numbers_survive_the_dump_exactly(train):
    found = config(train=train)
    assert parse_config(parse_yaml(dump_config(found), "x"), "x") == found


def test_the_size_of_a_batch_and_when_it_came_in_follow_from_the_images_seen():
    run = config(data={"size_px": [[0.5, 16], [0.9, 24], [1.0, 32]]}, train={"images": 100})
    assert [run.size_at(n) for n in (0, 49, 50, 89, 90, 99, 100)] == [16, 16, 24, 24, 32, 32, 32]
    assert [run.size_began(n) for n in (0, 49, 50, 89, 90, 99)] == [0, 0, 50, 50, 90, 90]


def test_the_hash_of_a_model_section_is_that_of_the_architecture():
    plain = {"name": "tgcnet", "preset": "tiny"}
    whole = resolve(load_config("tgcnet_qata_small")).model
    assert section_sha256(whole) == section_sha256({"name": "tgcnet"}), "defaults that were written out"
    assert section_sha256(plain | {"presence": True}) == section_sha256(plain), "training adds the head where its films ask for it"
    others = [plain | {"vlcm": {"enabled": False}}, {"name": "tgcnet"}, {"name": "tmca"}, {"name": "unet"}, {"name": "unet", "width": 16}]
    assert len({section_sha256(section) for section in [plain, *others]}) == 6
