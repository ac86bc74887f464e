"""A stored panel comes back as it was; changes that cannot be laid over it are refused with what can."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from panels import plain_panel

from features.errors import UserError
from features.panels import Panel
from serving.artifact import Draft
from serving.stored_panel import read, taken, write
from serving.what_if import Change, laid_over, refuse_impossible

N_DAYS, HORIZON = 5, 20


@pytest.fixture
def known(rng: np.random.Generator) -> Panel:
    """Three items of a shop whose locations are all together; no price is planned, and no promotion."""
    sold = rng.random((3, N_DAYS)).astype(np.float32)
    offers = {name: rng.random((3, N_DAYS + HORIZON)) for name in ("price", "base_price", "display", "mailer", "a/b")}
    for name in ("price", "display", "mailer"):
        offers[name][:, N_DAYS:] = np.nan
    return plain_panel(
        np.where(sold < 0.2, np.nan, sold),
        HORIZON,
        since="2023-12-28",
        frequency="day",
        item_ids=("a", "b", "ç"),
        revenue=sold,
        category=np.array([0, 1, 0]),
        offers=offers,
        min_periods=2,
        country="DE-BW",
    )


def assert_equal(left: Panel, right: Panel) -> None:
    for each in fields(Panel):
        ours, theirs = getattr(left, each.name), getattr(right, each.name)
        if isinstance(ours, dict):
            assert list(ours) == list(theirs)
            ours, theirs = (np.stack(list(columns.values())) for columns in (ours, theirs))
        np.testing.assert_array_equal(ours, theirs, err_msg=each.name, strict=isinstance(ours, np.ndarray))


def test_a_stored_panel_comes_back_memory_mapped(known: Panel, tmp_path: Path):
    draft = Draft(tmp_path / "artifact")
    write(known, draft)
    found = read(draft.seal({"task": "demand"}))
    assert_equal(found, known)
    assert isinstance(found.sold, np.memmap)
    assert isinstance(found.offers["price"], np.memmap)


def test_some_series_are_taken_in_the_order_asked_for(known: Panel):
    assert_equal(taken(taken(known, np.array([2, 0, 1])), np.array([1, 2, 0])), known)
    assert taken(known, np.array([2])).item_ids == ("ç",)


def test_changes_are_laid_over_a_copy(known: Panel):
    before = replace(known, offers={name: values.copy() for name, values in known.offers.items()})
    date = str(known.dates[N_DAYS + 1])
    found = laid_over(known, [Change("b", None, date, {"price": 2.0, "mailer": 1.0})], np.array([1, 2]))
    assert_equal(known, before)
    assert found.offers["price"][0, N_DAYS + 1] == 2.0
    assert np.isnan(found.offers["price"][:, N_DAYS:]).sum() == 2 * HORIZON - 1
    np.testing.assert_array_equal(
        found.offers["mailer"][:, N_DAYS : N_DAYS + 3], [[np.nan, 1, np.nan], [np.nan, 0, np.nan]]
    )
    np.testing.assert_array_equal(found.offers["a/b"], known.offers["a/b"][[1, 2]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Change("a", "north", None, {"price": 1.0}), "not sold at north; all locations are one series here: leave loc"),
        (
            Change("a", None, "2023-12-28", {"price": 1.0}),
            "date 2023-12-28 .* are 20 from 2024-01-02 to 2024-01-21",
        ),
        (Change("a", None, None, {"rain": 1.0}), "covariate rain is not read by this model; allowed are a/b"),
    ],
)
def test_a_change_that_cannot_be_is_refused(known: Panel, change: Change, message: str):
    with pytest.raises(UserError, match=message):
        refuse_impossible(known, [change], known.dates[N_DAYS:].astype(str).tolist())


def test_a_model_without_covariates_says_so(known: Panel):
    bare = replace(known, offers={name: known.offers[name] for name in ("price", "base_price", "display", "mailer")})
    with pytest.raises(UserError, match="covariate rain is not read by this model; it reads none"):
        refuse_impossible(bare, [Change("a", None, None, {"rain": 1.0})], [])


def test_an_item_that_nobody_knows_is_no_mistake(known: Panel):
    refuse_impossible(known, [Change("new", "north", None, {"price": 1.0})], [])
    assert_equal(laid_over(known, [Change("new", None, None, {"price": 1.0})], np.arange(3)), known)
