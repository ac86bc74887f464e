"""The examples in docstrings are run."""

import doctest
import importlib
import pkgutil

import pytest

import features
import serving
import training

WORKERS = ("__main__", "serving.service")
MODULES = [
    found.name
    for package in (features, serving, training)
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not found.name.endswith(WORKERS)
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_come_out_as_written(name: str, request: pytest.FixtureRequest) -> None:
    results = doctest.testmod(importlib.import_module(name), extraglobs={"getfixture": request.getfixturevalue})
    assert results.failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [case for name in MODULES for case in finder.find(importlib.import_module(name)) if case.examples]
    assert len(found) > 20
