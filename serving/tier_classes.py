"""The class of each tier that an artifact may hold, by the tier's name."""

from collections.abc import Mapping
from typing import Any

from serving.factors import Factors
from serving.pooled import Pooled
from serving.repeat import Repeat
from serving.sequence import Sequence
from serving.tiers import Neighbours, PopularAlike, Popularity

CLASSES: Mapping[str, type[Any]] = {
    "popularity": Popularity,
    "popular_alike": PopularAlike,
    "cooccurrence": Neighbours,
    "linear": Neighbours,
    "als": Factors,
    "bpr": Factors,
    "pooled": Pooled,
    "repeat": Repeat,
    "sequence": Sequence,
}
