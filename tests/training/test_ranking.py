"""Ranking metrics against their definitions, written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import ranking

K = 5
lists = st.lists(st.integers(0, 20), min_size=1, max_size=10, unique=True)
truths = st.sets(st.integers(0, 20), min_size=1)


def plain_ndcg(ranked: list[int], relevant: set[int]) -> float:
    gain = sum(1 / math.log2(place + 2) for place, item in enumerate(ranked[:K]) if item in relevant)
    ideal = sum(1 / math.log2(place + 2) for place in range(min(K, len(relevant))))
    return gain / ideal


@given(st.lists(st.tuples(lists, truths), min_size=1, max_size=5))
def test_metrics_equal_their_definitions(users: list[tuple[list[int], set[int]]]) -> None:
    ranked, relevant = [np.array(items) for items, _ in users], [truth for _, truth in users]
    n_relevant = np.array([len(truth) for truth in relevant])
    found = ranking.hits(ranked, relevant, K)
    ndcg, recall = ranking.ndcg(found, n_relevant), ranking.recall(found, n_relevant)
    assert ndcg == pytest.approx([plain_ndcg(items, truth) for items, truth in users])
    assert recall == pytest.approx([len(set(items[:K]) & truth) / len(truth) for items, truth in users])
    assert np.all((ndcg >= 0) & (ndcg <= 1 + 1e-12) & (recall >= 0) & (recall <= 1))
