"""What a shop puts of its items counts from the next question on, as if the catalogue had been exported with it."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import shelf
from serving.catalogue import Catalogue, Numbers
from serving.shelf import Put, Shelf

BRANDS = ["north", "south", None]
ATTRIBUTES = {
    "availability": st.sampled_from(["in_stock", "out_of_stock", "hidden"]),
    "price": st.integers(0, 40).map(float),
    "item_brand": st.sampled_from(["north", "south", "west|south"]),
}
FILTERS = [None, "price < 20", "item_brand = 'south'", "not item_brand in ('west', 'north') or price >= 30"]
PUTS = st.lists(
    st.one_of(
        *(st.tuples(st.integers(0, 7).map("i{}".format), st.just(name), value) for name, value in ATTRIBUTES.items())
    ),
    max_size=12,
)


def rows(n=5):
    return [
        {"item_id": f"i{i}", "availability": "in_stock", "price": 10.0 * i, "item_brand": BRANDS[i % 3]}
        for i in range(n)
    ]


def shelf_of(listed):
    schema = pa.schema(
        [("item_id", "string"), ("availability", "string"), ("price", "float64"), ("item_brand", "string")]
    )
    ids = [row["item_id"] for row in listed]
    return Shelf(ids, Catalogue.of(pa.Table.from_pylist(listed, schema), ids))


def put(*told, first=1):
    return [Put(first + n, *each) for n, each in enumerate(told)]


def admitted(stock, expression=None):
    return [stock.item_ids[row] for row in np.flatnonzero(stock.admitted(expression))]


@given(batches=st.lists(PUTS, max_size=4), asked=st.lists(st.sampled_from(FILTERS), max_size=4))
def test_what_is_put_is_as_if_it_had_been_exported(batches, asked):
    stock, listed, number = shelf_of(rows()), {row["item_id"]: row for row in rows()}, 1
    for batch in batches:
        stock.put(put(*batch, first=number))
        number += len(batch)
        for item_id, name, value in batch:
            listed.setdefault(item_id, {"item_id": item_id})[name] = value
        exported = shelf_of(list(listed.values()))
        for expression in [*asked, *FILTERS]:
            assert sorted(admitted(stock, expression)) == sorted(admitted(exported, expression))


def test_sold_out_goes_and_comes_back():
    stock = shelf_of(rows())
    assert "i2" in admitted(stock)
    stock.put(put(("i2", "availability", "out_of_stock")))
    assert "i2" not in admitted(stock)
    stock.put(put(("i2", "availability", "in_stock"), first=2))
    assert "i2" in admitted(stock)
    assert stock.newest == 2


def test_what_was_exported_is_not_written_to(tmp_path):
    np.save(tmp_path / "price.npy", np.arange(3.0))
    mapped = np.load(tmp_path / "price.npy", mmap_mode="r")
    stock = Shelf(["a", "b", "c"], Catalogue({"price": Numbers(mapped, are_instants=False)}, 3))
    stock.put(put(("b", "price", 9.0)))
    assert admitted(stock, "price > 5") == ["b"]
    assert mapped.tolist() == [0.0, 1.0, 2.0]


def test_a_new_item_is_scored_like_those_that_it_shares_its_brand_with():
    stock = shelf_of(rows(6))
    stock.put(put(("new", "item_brand", "south"), ("new", "price", 5.0)))
    scores = np.array([0.0, 3.0, 0.0, 0.0, 5.0, 0.0], np.float32)
    assert stock.scored(scores).tolist() == [*scores.tolist(), 4.0]
    assert stock.score(scores, 6) == 4.0
    assert stock.known_like(6, 2) == [1, 4]
    assert stock.known_like(4, 2) == [4]


def test_a_rarer_attribute_says_more():
    listed = [{"item_id": f"i{i}", "item_brand": "rare" if i == 0 else "common"} for i in range(30)]
    stock = shelf_of(listed)
    stock.put(put(("new", "item_brand", "rare|common")))
    assert stock.known_like(30, 1) == [0]


def test_a_new_item_of_which_nothing_is_known_has_no_score():
    stock = shelf_of(rows())
    stock.put(put(("new", "price", 5.0)))
    assert stock.scored(np.zeros(5, np.float32))[5] == -np.inf
    assert stock.known_like(5, 3) == []


def test_attributes_that_the_catalogue_lacks_can_be_put():
    stock = Shelf(["a", "b"], Catalogue({}, 2))
    stock.put(put(("a", "availability", "hidden"), ("b", "created_at", "2026-01-31T00:00:00+00:00")))
    assert admitted(stock) == ["b"]
    assert admitted(stock, "created_at >= '2026-01-01'") == ["b"]


def test_masks_are_brought_up_to_date_or_made_anew(monkeypatch):
    monkeypatch.setattr(shelf, "N_CHANGES", 3)
    monkeypatch.setattr(shelf, "N_MASKS", 2)
    stock = shelf_of(rows())
    for number in range(8):
        stock.put(put((f"i{number % 5}", "price", 100.0 + number), first=number))
        assert len(admitted(stock, "price >= 100")) == min(number + 1, 5)
        assert len(admitted(stock, "price < 100")) == max(4 - number, 0)
        assert len(admitted(stock)) == 5


@pytest.mark.parametrize("expression", ["price <", "colour = 'red'"])
def test_a_filter_that_cannot_be_read_leaves_the_others_as_they_were(expression):
    stock = shelf_of(rows())
    before = admitted(stock, "price < 20")
    with pytest.raises(Exception, match=r"colour|the filter"):
        stock.admitted(expression)
    assert admitted(stock, "price < 20") == before
