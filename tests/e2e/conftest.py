"""The seeded shop with a champion of every task."""

from collections.abc import Iterator

import pytest

from features.home import home
from features.ingest import ingest
from features.seeded.tables import write
from features.shops import Shop, load_shop
from training import pipeline, promotion
from training.config import TASKS, load_config
from training.device import choose
from training.families import family


@pytest.fixture(scope="session")
def small() -> dict[str, list[str]]:
    """Settings with which every task is fitted in a second."""
    return {
        "recommend": ["tiers.als.n_factors=8", "tiers.als.n_iterations=2", "validation_days=21"],
        "propensity": ["targets.repurchase_28d.horizon_days=14", "models.session_purchase.trees.n_trees=50"],
        "demand": ["horizon=21", "min_periods=20"],
    }


@pytest.fixture(scope="session")
def shop(small: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPKEEPER_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write(home() / "seeded" / "source", 60_000)  # long enough to replay orders on a window of the past
        seeded = load_shop("seeded")
        ingest(seeded)
        for task in TASKS:
            of = family(task)
            pipeline.train(seeded, of, load_config(of.config, of.task, None, small[task]), choose("cpu"))
            promotion.promote(seeded, of, choose("cpu"))
        yield seeded
