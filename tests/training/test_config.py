"""Configurations refuse what they do not know, and settings lie over files."""

from pathlib import Path

import pytest

from features.errors import UserError
from features.shops import SHOP_FOLDER, load_shop
from training.config import CONFIG_FOLDER, TASKS, flat, load_config
from training.families import family
from training.recommend import RecommendConfig


@pytest.mark.parametrize("task", TASKS)
def test_every_configuration_loads(task: str) -> None:
    paths = sorted((CONFIG_FOLDER / task).glob("*.toml"))
    assert CONFIG_FOLDER / task / "best.toml" in paths
    for path in paths:
        assert flat(load_config(family(task).config, family(task).task, path))


@pytest.mark.parametrize("path", sorted(SHOP_FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shop_loads_under_its_own_name(path: Path) -> None:
    assert load_shop(str(path)).name == load_shop(path.stem).name == path.stem


def test_settings_lie_over_the_file() -> None:
    config = load_config(RecommendConfig, "recommend", None, ["n_factors=8", "half_life_days = 7"])
    assert (config.n_factors, config.half_life_days) == (8, 7.0)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("n_factor=8", "n_factor: Extra inputs are not permitted"),
        ("n_factors=0", "n_factors: Input should be greater than 0"),
        ("n_factors=many", "n_factors: Input should be a valid integer"),
        ("n_factors", "write it as key=value"),
    ],
)
def test_a_wrong_setting_is_told_in_one_sentence(setting: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        load_config(RecommendConfig, "recommend", None, [setting])
    assert "\n" not in str(error.value)


def test_a_missing_configuration_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no configuration .*nowhere\.toml: there are .*best\.toml"):
        load_config(RecommendConfig, "recommend", tmp_path / "nowhere.toml")


def test_an_unknown_task_names_those_there_are() -> None:
    with pytest.raises(UserError, match="tasks are recommend, propensity, demand"):
        family("weather")
