"""Clients of applications in this process, with every model and with none."""

import pytest
from served import APP, EMPTY, Client

from serving import app
from serving.settings import Settings


@pytest.fixture(scope="module")
def client():
    return Client(APP)


@pytest.fixture(scope="module")
def empty_client():
    return Client(app.build(EMPTY, Settings()))
