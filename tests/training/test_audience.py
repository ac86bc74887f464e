import pyarrow as pa
import pytest

from training.audience import Audience

SCORED = pa.table({"user_id": [f"u{n:03}" for n in range(1000)], "probability": [n / 1000 for n in range(1000)]})


def test_the_likeliest_share_comes_likeliest_first():
    found = Audience(top=0.1).of(SCORED, "t")
    assert found.num_rows == 100
    assert found["probability"].to_pylist() == [n / 1000 for n in range(999, 899, -1)]
    assert not any(found["held_out"].to_pylist())


def test_who_is_not_worth_a_touch_is_left_out():
    found = Audience(value=10.0, cost=2.0).of(SCORED, "t").to_pylist()
    assert min(row["probability"] for row in found) == 0.201
    assert found[0]["expected_value"] == pytest.approx(10 * 0.999 - 2)


def test_the_holdout_is_a_share_that_stays_with_its_salt():
    first, again, other = (Audience(holdout=0.2).of(SCORED, salt) for salt in ("a", "a", "b"))
    assert first.equals(again)
    assert not first.equals(other)
    assert sum(first["held_out"].to_pylist()) == pytest.approx(200, abs=40)


def test_a_customer_is_held_out_whoever_else_is_chosen():
    few = Audience(top=0.1, holdout=0.3).of(SCORED, "t").to_pylist()
    all_of = {row["user_id"]: row["held_out"] for row in Audience(holdout=0.3).of(SCORED, "t").to_pylist()}
    assert all(all_of[row["user_id"]] == row["held_out"] for row in few)
