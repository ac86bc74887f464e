"""Filters against an interpreter that takes one item after the other."""

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from features.errors import UserError
from serving import filters
from serving.artifact import Artifact, Draft
from serving.catalogue import Catalogue
from serving.filters import Compared, Every, Filter, Not, Some, parsed

ITEMS = {
    "item_id": [f"i{number}" for number in range(6)],
    "item_name": ["one", "two", "three", "four", "five", "six"],
    "colour": ["red", "blue|red", None, "", "it's", "blue"],
    "price": [1.0, 2.5, None, 20.0, 1e6, -3.0],
    "rank": pa.array([1, 2, 3, None, 5, 6], pa.int64()),
    "created_at": [datetime(2024, 1, day) if day else None for day in (1, 2, 3, 0, 5, 6)],
    "availability": ["in_stock", None, "out_of_stock", "hidden", "in_stock", "in_stock"],
}
TABLE = pa.table(ITEMS)
CATALOGUE = Catalogue.of(TABLE, ITEMS["item_id"])


def kept(expression: str, catalogue: Catalogue = CATALOGUE) -> list[int]:
    return np.flatnonzero(parsed(expression).mask(catalogue)).tolist()


@pytest.mark.parametrize(
    ("expression", "items"),
    [
        ("colour = 'red'", [0, 1]),
        ('colour = "red"', [0, 1]),
        ("colour='it''s'", [4]),
        ("colour != 'red'", [4, 5]),
        ("not colour = 'red'", [2, 3, 4, 5]),
        ("colour in ('blue', 'green')", [1, 5]),
        ("colour = 'nobody has it'", []),
        ("price < 2.5", [0, 5]),
        ("price <= 2.5", [0, 1, 5]),
        ("price > 1e5", [4]),
        ("price >= -3", [0, 1, 3, 4, 5]),
        ("price = 20", [3]),
        ("price != 20", [0, 1, 4, 5]),
        ("price in (1, 20)", [0, 3]),
        ("rank > 2 and price < 100", [5]),
        ("created_at >= '2024-01-03'", [2, 4, 5]),
        ("created_at < '2024-01-02T12:00:00'", [0, 1]),
        ("created_at < '2024-01-02T00:00:00+01:00'", [0]),
        ("colour = 'red' or price > 5 and rank = 5", [0, 1, 4]),
        ("(colour = 'red' or price > 5) and rank = 5", [4]),
        ("not (colour = 'red' or price > 5)", [2, 5]),
        ("not not price > 5", [3, 4]),
    ],
)
def test_what_an_expression_keeps(expression: str, items: list[int]) -> None:
    assert kept(expression) == items


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "character 1: it ends, where an attribute, not or ( could stand"),
        ("price", "character 6: it ends, where one of = != < <= > >= in could stand"),
        ("price <", "character 8: it ends, where a number, or a text in quotes could stand"),
        ("price < 3 3", "character 11: got 3, where and, or, or its end could stand"),
        ("price < 3 and", "character 14: it ends"),
        ("price < 3 && rank = 1", "character 11: got && rank = 1"),
        ("price < 3px", "character 9: got 3px"),
        ("price = red", "got red, where a number, or a text in quotes"),
        ("(price < 3", "where ) could stand"),
        ("price < 3)", "character 10: got )"),
        ("colour in ()", "got ), where a number"),
        ("colour in ('a' 'b')", "where , or ) could stand"),
        ("colour = 'red", "got 'red"),
        ("and = 3", "got and, where an attribute"),
        ("size = 3", "items have no attribute size; filters can name availability, colour, created_at, price, rank"),
        ("item_name = 'one'", "no attribute item_name"),
        ("colour < 'x'", "colour is a text and has no order"),
        ("colour = 3", "colour is a text and is compared with 3: write it in quotes"),
        ("price = '3'", "price is a number and is compared with the text '3': write it without quotes"),
        ("created_at = 3", "created_at is an instant and is compared with 3.0"),
        ("created_at > 'May'", "created_at is an instant and is compared with 'May': write it as '2026-01-31'"),
        ("(" * 21 + "price < 3" + ")" * 21, "nested deeper than 20"),
        ("not " * 20 + "price < 3", "nested deeper than 20"),
        ("price < 3 or " * 200 + "price < 3", "has 2609 characters, allowed are 2000"),
    ],
)
def test_what_cannot_be_read_is_told(expression: str, told: str) -> None:
    with pytest.raises(UserError) as refused:
        kept(expression)
    assert told in str(refused.value)


def test_only_what_is_in_stock_or_says_nothing_is_shown() -> None:
    assert np.flatnonzero(CATALOGUE.shown()).tolist() == [0, 1, 4, 5]
    assert Catalogue.of(TABLE.drop_columns("availability"), ["i3"]).shown().tolist() == [True]


def test_what_cannot_be_compared_and_what_nobody_should_know_is_no_attribute() -> None:
    odd = {
        "tags": pa.array([["a"]] * 6),
        "opens": pa.array([1] * 6, pa.time32("s")),
        "cost": [1.0] * 6,
        "lake_batch": [1] * 6,
        **dict.fromkeys(("in", "a/b", "two words", "größe"), [1] * 6),
        "organic": [True, False, None] * 2,
        "barcode": [2**62 + number for number in range(6)],
        "listed_on": pa.array([0, 1, 2, 3, 4, None], pa.date32()),
    }
    catalogue = Catalogue.of(pa.table(ITEMS | odd), ITEMS["item_id"])
    assert set(catalogue.columns) == set(CATALOGUE.columns) | {"organic", "barcode", "listed_on"}
    assert kept("organic = 1", catalogue) == [0, 3]
    assert kept("listed_on > '1970-01-03'", catalogue) == [3, 4]


def test_an_item_that_the_table_lacks_states_nothing() -> None:
    catalogue = Catalogue.of(TABLE, ["i5", "gone", "i0"])
    assert kept("price < 100 or price > 0 or colour != 'x' or created_at > '1999-01-01'", catalogue) == [0, 2]


def test_a_stored_catalogue_says_the_same(tmp_path) -> None:
    CATALOGUE.save(Draft(tmp_path / "artifact"))
    stored = Catalogue.load(Artifact(tmp_path / "artifact"))
    for expression in ("colour in ('red', 'it''s')", "price != 20", "created_at > '2024-01-02'", "rank < 3"):
        assert kept(expression, stored) == kept(expression)
    assert (stored.shown() == CATALOGUE.shown()).all()


COMPARISONS = {
    "=": lambda values, wanted: any(value in wanted for value in values),
    "in": lambda values, wanted: any(value in wanted for value in values),
    "!=": lambda values, wanted: bool(values) and not any(value in wanted for value in values),
    "<": lambda values, wanted: any(value < wanted[0] for value in values),
    "<=": lambda values, wanted: any(value <= wanted[0] for value in values),
    ">": lambda values, wanted: any(value > wanted[0] for value in values),
    ">=": lambda values, wanted: any(value >= wanted[0] for value in values),
}


def values_of(item: int, name: str) -> list[object]:
    value = TABLE[name][item].as_py()
    if name == "colour":
        return [each for each in (value or "").split("|") if each]
    return [] if value is None else [value]


def holds(condition: Filter, item: int) -> bool:
    match condition:
        case Every(parts):
            return all(holds(part, item) for part in parts)
        case Some(parts):
            return any(holds(part, item) for part in parts)
        case Not(part):
            return not holds(part, item)
        case Compared(name, comparison, wanted):
            return COMPARISONS[comparison](values_of(item, name), wanted)
    raise AssertionError(condition)


ORDERS = ["=", "!=", "<", "<=", ">", ">="]
NUMBERS = st.sampled_from(["1", "2.5", "20", "-3", "0.5", "1e6"])
TEXTS = st.sampled_from(["'red'", '"blue"', "'it''s'", "'none'"])
COMPARED = st.one_of(
    st.builds("{} {} {}".format, st.sampled_from(["price", "rank"]), st.sampled_from(ORDERS), NUMBERS),
    st.builds("colour {} {}".format, st.sampled_from(["=", "!="]), TEXTS),
    st.builds("colour in ({}, {})".format, TEXTS, TEXTS),
    st.builds("rank in ({})".format, NUMBERS),
)
EXPRESSIONS = st.recursive(
    COMPARED,
    lambda inner: st.one_of(
        st.builds("not {}".format, inner),
        st.builds("({})".format, inner),
        st.builds("{} and {}".format, inner, inner),
        st.builds("{} or {}".format, inner, inner),
    ),
    max_leaves=5,
)


@given(EXPRESSIONS)
def test_a_mask_is_what_each_item_alone_says(expression: str) -> None:
    assume(expression.count("(") + expression.count("not") < filters.DEEPEST)
    condition = parsed(expression)
    assert condition.mask(CATALOGUE).tolist() == [holds(condition, item) for item in range(len(ITEMS["item_id"]))]


@given(st.text(max_size=40) | st.text("()'= <and,price1", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        answer = parsed(text).mask(CATALOGUE).shape
    except UserError as error:
        answer = str(error)
    assert answer == (len(ITEMS["item_id"]),) or "filter" in answer or "compared" in answer or "no order" in answer
