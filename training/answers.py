"""Batch answers of the champion, as tables: the same scorers that the service asks."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from features.errors import UserError
from features.home import home
from features.shops import Shop
from serving import models
from serving.artifact import Artifact
from serving.models import ServedModel
from serving.propensity import PropensityScorer
from serving.recommend import Recommender
from serving.schema import RecommendationRequest
from training import promotion
from training.audience import Audience
from training.evaluation import MINUS, Row, headline, recorded
from training.families import Family


def champion(shop: Shop, of: Family) -> ServedModel:
    """The champion of the registry, loaded as the service loads it.

    Raises UserError when none was promoted.
    """
    missing = promotion.publish_champions(shop)[of.task]
    if missing:
        raise UserError(f"{shop.name}.{of.task} cannot answer: {missing}; run `shopkeeper promote {of.task}` first")
    folder = models.champion(home(), shop.name, of.task)
    assert folder is not None, "publishing points the champion"
    return models.load(of.task, folder, of.load)


def evaluation(shop: Shop, of: Family) -> list[Row]:
    """How the champion's configuration did for everybody on windows that it had not seen, beside its baselines."""
    folder = models.champion(home(), shop.name, of.task)
    assert folder is not None, "there is a champion"
    rows = headline(recorded(Artifact(folder).json("evaluation")["rows"]))
    return [row for row in rows if MINUS not in row.model]


def recommendations(recommender: Recommender, n: int) -> pa.Table:
    """``user_id, rank, item_id, score, reason`` for every known user, best first."""
    rows: list[dict[str, Any]] = []
    for user_id in recommender.user_ids:
        request = RecommendationRequest.model_construct(user_id=user_id, n=n)
        items = recommender.answer(request.model_dump())["items"]
        rows += [{"user_id": user_id, "rank": rank, **item} for rank, item in enumerate(items, 1)]
    return pa.Table.from_pylist(rows)


def probabilities(scorer: PropensityScorer, target: str, cut: Audience, campaign: str = "") -> pa.Table:
    """``user_id, probability, percentile`` of a target ("" the first of customers) for everyone within an audience.

    campaign : names the audience; who is held out of it is drawn by this name

    Raises UserError when there is no such target.
    """
    model = scorer.model(target or None, of_visit=False)
    return cut.of(model.table(), campaign or model.name)


def require_format(out: Path) -> None:
    """Raises UserError unless a file is named as one that ``write`` writes."""
    if out.suffix not in (".parquet", ".csv"):
        raise UserError(f"--out {out}: end it with .parquet or .csv")


def write(table: pa.Table, out: Path) -> None:
    """A table as Parquet or CSV, by the file's ending; readers see the old file or the whole new one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    staged = out.with_name(f".{out.name}")
    (pa.parquet.write_table if out.suffix == ".parquet" else pa.csv.write_csv)(table, staged)
    staged.replace(out)
