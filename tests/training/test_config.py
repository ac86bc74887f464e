"""Configurations refuse what they do not know, and settings lie over files."""

from pathlib import Path

import pytest

from features.errors import UserError
from features.shops import SHOP_FOLDER, load_shop
from training.config import CONFIG_FOLDER, TASKS, configurations, flat, load_config
from training.families import family
from training.recommend.config import RecommendConfig
from training.tuning import laid_over, load_search


@pytest.mark.parametrize("task", TASKS)
def test_every_configuration_loads(task: str) -> None:
    paths = configurations(task)
    assert CONFIG_FOLDER / task / "best.toml" in paths
    for path in paths:
        assert flat(load_config(family(task).config, family(task).task, path))


@pytest.mark.parametrize("path", sorted(CONFIG_FOLDER.glob("*/*.search.toml")), ids=lambda path: path.name)
def test_every_search_is_over_keys_of_its_configuration(path: Path) -> None:
    search, _ = load_search(path.parent.name, path)
    of = family(path.parent.name)
    lowest = {key: span.choices[0] if span.choices else span.low for key, span in search.space.items()}
    assert lowest.items() <= flat(laid_over(of, path.parent / search.config, lowest)).items()


@pytest.mark.parametrize("path", sorted(SHOP_FOLDER.glob("*.toml")), ids=lambda path: path.stem)
def test_every_shop_loads_under_its_own_name(path: Path) -> None:
    assert load_shop(str(path)).name == load_shop(path.stem).name == path.stem


def test_settings_lie_over_the_file() -> None:
    config = load_config(RecommendConfig, "recommend", None, ["tiers.als.n_factors=8", "events.view = 7"])
    assert config.tiers.als is not None
    assert (config.tiers.als.n_factors, config.events.view) == (8, 7.0)


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("min_user=8", "min_user: Extra inputs are not permitted"),
        ("min_users=0", "min_users: Input should be greater than 0"),
        ("min_users=many", "min_users: Input should be a valid integer"),
        ("tiers.als.n_factor=8", "tiers.als.n_factor: Extra inputs are not permitted"),
        ("min_users", "write it as key=value"),
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
