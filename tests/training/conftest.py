"""A seeded shop that is ingested once; each test module trains in a home of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.ingest import ingest
from features.seeded.tables import write
from features.shops import Shop, load_shop


@pytest.fixture(scope="session")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that holds the lake of a seeded shop of 30,000 events."""
    home = tmp_path_factory.mktemp("home")
    write(home / "seeded" / "source", 30_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPKEEPER_HOME", str(home))
        ingest(load_shop("seeded"))
    return home


@pytest.fixture(scope="module")
def shop(ingested: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The seeded shop in a copy of the home, which the module may write to."""
    home = tmp_path_factory.mktemp("copy") / "home"
    shutil.copytree(ingested, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPKEEPER_HOME", str(home))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield load_shop("seeded")
