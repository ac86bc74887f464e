import numpy as np
import pyarrow as pa
import pytest

from features.encoding import MOST_LEVELS, Encoder

TABLE = pa.table(
    {
        "n_orders": pa.array([3, None, 1, 2], pa.int64()),
        "medium": pa.array(["cpc", "email", "cpc", None]),
        "spend": pa.array([1.25, 2.0, None, 0.12345678]),
    }
)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder.fitted(TABLE, ["n_orders", "spend"], ["medium"])


def test_columns_are_numbers_then_texts_by_how_frequent_they_were(encoder: Encoder) -> None:
    assert encoder.names == ["n_orders", "spend", "medium"]
    assert encoder.levels == {"medium": ("cpc", "email")}
    assert encoder.n_levels == [0, 0, 2]
    expected = [[3, 1.25, 0], [np.nan, 2, 1], [1, np.nan, 0], [2, 0.123457, np.nan]]
    np.testing.assert_array_equal(encoder.matrix(TABLE), expected)


def test_one_row_is_a_row_of_the_matrix(encoder: Encoder) -> None:
    rows = TABLE.to_pylist()
    for row, expected in zip(rows, encoder.matrix(TABLE), strict=True):
        numbers = [np.nan if row[name] is None else row[name] for name in encoder.numbers]
        np.testing.assert_array_equal(encoder.row(numbers, [row["medium"]]), expected)


def test_the_order_of_a_tables_columns_and_rows_changes_nothing(encoder: Encoder) -> None:
    turned = TABLE.select(["spend", "medium", "n_orders"]).take([3, 1, 0, 2])
    assert Encoder.fitted(turned, encoder.numbers, ["medium"]) == encoder
    np.testing.assert_array_equal(encoder.matrix(turned), encoder.matrix(TABLE)[[3, 1, 0, 2]])


def test_rare_texts_are_unknown() -> None:
    many = pa.table({"medium": [f"m{number:03}" for number in range(MOST_LEVELS + 5)]})
    encoder = Encoder.fitted(many, [], ["medium"])
    assert len(encoder.levels["medium"]) == MOST_LEVELS
    assert np.isnan(encoder.matrix(many)[:, 0]).sum() == 5
