"""Clients of applications in this process, with every model and with none."""

import pytest
from served import APP, EMPTY, Client

from serving import app
from serving.models import Serving
from serving.settings import Settings


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory):
    """What the service writes lies in a folder of each module's tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPKEEPER_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def client():
    return Client(APP)


@pytest.fixture(scope="module")
def empty_client():
    return Client(app.build(Serving(EMPTY), Settings()))
