"""What a mistyped key of a data set's file is answered with."""

import copy
from pathlib import Path
from typing import Any

import pytest

from pipeline.commands.parameters import DatasetConfig, Parameters, check, load_profile, read_yaml
from pipeline.runtime.code import ROOT
from pipeline.runtime.errors import InputError

FILE = Path("configs/embedded/city.yaml")
CITY: dict[str, Any] = {
    "prepare_scenes": {
        "reader": "own",
        "root": "data/raw/scenes/city",
        "images": "{image}.jpg",
        "labels": "{image}.png",
        "classes": {"Roof": 1, "Road": 2},
        "splits": {"evaluation_share": 0.5},
    },
    "build_sqed": {"patch": {"size": 64, "stride": 64, "remainder": "drop"}},
    "retrain_segmenter": {},
}


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("prepare_scenes", "label", "x", "prepare_scenes.label: unknown key; did you mean labels?"),
        ("prepare_scenes", "splits", {"trainin": ["a"]}, "prepare_scenes.splits.trainin: unknown key"),
        ("prepare_scenes", "reader", "owm", "prepare_scenes.reader: expected one of potsdam, vaihingen"),
        ("build_sqed", "patch", {"sizes": 3}, "build_sqed.patch.size: this key is missing"),
        ("retrain_segmenter", "a2fpn", 3, "retrain_segmenter.a2fpn: "),
    ],
)
def test_keys_are_named_as_they_stand_in_the_file(section: str, key: str, value: Any, said: str) -> None:
    values = copy.deepcopy(CITY)
    check(DatasetConfig, values, FILE)
    values[section][key] = value
    with pytest.raises(InputError) as raised:
        check(DatasetConfig, values, FILE)
    assert str(raised.value).startswith(f"{FILE}: ")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"alhpa": 0}}, "variants.extra.model: alhpa: unknown key; did you mean alpha?"),
        ({"model": {"fusion": "sum"}}, "variants.extra.model: fusion: "),
        ({"encoder": "clip"}, "variants.extra.encoder: expected one of encoders (clip_rs, "),
        ({"title": "w/o KL"}, "variants: the title 'w/o KL' stands twice"),
        ({"table": 4}, "variants.extra.table: "),
    ],
)
def test_a_wrong_variant_is_named(changes: dict[str, Any], said: str) -> None:
    values = read_yaml(ROOT / "params.yaml")
    variant = {"title": "Extra", "table": None, "encoder": "clip_rs"}
    values["variants"]["extra"] = variant
    check(Parameters, values, Path("params.yaml"))
    values["variants"]["extra"] = variant | changes
    with pytest.raises(InputError) as raised:
        check(Parameters, values, Path("params.yaml"))
    assert f"params.yaml: {said}" in str(raised.value)


def test_a_data_set_without_its_file_is_named_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"configs/smoke/mars\.yaml: .*floodnet, loveda, potsdam, uavid"):
        load_profile(ROOT, "smoke", ["loveda", "mars"])


def test_two_data_sets_of_one_title_are_refused(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    folder = tmp_path / "configs" / "embedded"
    folder.mkdir(parents=True)
    main = (ROOT / "configs/embedded.yaml").read_text()
    (tmp_path / "configs/embedded.yaml").write_text(main)
    values = copy.deepcopy(CITY)
    values["prepare_scenes"]["title"] = "City"
    for name in ("north", "south"):
        YAML().dump(values, folder / f"{name}.yaml")
    assert read_yaml(folder / "north.yaml")["prepare_scenes"]["title"] == "City"
    load_profile(tmp_path, "embedded", ["north"])
    with pytest.raises(InputError, match="north and south are both 'City'"):
        load_profile(tmp_path, "embedded", ["north", "south"])
