"""Whom to touch: uplift learnt from a shop's randomised campaigns and judged on the later of them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.customers import without_guests
from features.encoding import Encoder
from features.engine import Engine
from features.errors import UserError
from features.targets import Examples, Target
from features.units import Touches
from features.windows import FIRST_INSTANT
from serving.artifact import Artifact, Draft
from serving.uplift import UpliftScorer
from training import uplift
from training.evaluation import Row
from training.qini import uplift_rows
from training.randomisation import sufficiency
from training.uplift import UpliftConfig, UpliftModel

JUDGED_SHARE = 0.3
"""Share of the touches, the latest of them, on which a model of the others is judged."""
TOUCHES = Touches(held_out_too=True)


@dataclass(frozen=True, slots=True)
class Campaigns:
    """What a shop's campaigns teach.

    rows : the judgement of a model of the earlier campaigns on the later ones
    verdict : how large an effect so many touches can show
    audience : ``user_id`` and ``uplift`` of every customer, the most uplifted first
    """

    rows: list[Row]
    verdict: str
    audience: pa.Table


def campaigns(log: Engine, as_of: datetime, target: Target, config: UpliftConfig) -> Campaigns:
    """Learn from every touch whose horizon is over at an instant, treated or held out.

    Raises UserError when touches do not say who was treated, or uplift cannot be learnt from them.
    """
    examples = TOUCHES.examples(log, target, FIRST_INSTANT, as_of, timedelta(days=1))
    treated = _treated(examples)
    earlier, later = _parts(examples)
    judged = _learnt(examples.take(earlier), treated[earlier], config)
    of_later = judged.uplift(examples.take(later).table)
    rows = uplift_rows(judged.model.name, "time", of_later, treated[later], examples.outcome[later])
    asked = without_guests(log, as_of, TOUCHES.present(log, target, as_of), "user_id")
    promised = _learnt(examples, treated, config).uplift(asked)
    audience = pa.table({"user_id": asked["user_id"], "uplift": promised}).sort_by(
        [("uplift", "descending"), ("user_id", "ascending")]
    )
    return Campaigns(rows, sufficiency(treated, examples.outcome), audience)


def _treated(examples: Examples) -> NDArray[np.bool_]:
    if not len(examples):
        raise UserError(
            "no campaign touch has a horizon that is over: map a table campaign_touches, wait, or lower horizon_days"
        )
    told = examples.table["treated"]
    if told.null_count:
        raise UserError(
            f"{told.null_count} of {len(examples)} campaign touches whose horizon is over do not say who was treated: "
            "give every touch `treated`, false for customers held out at random"
        )
    return np.asarray(told.to_numpy(zero_copy_only=False), np.bool_)


def _parts(examples: Examples) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Touches whose outcome was certain when the later ones began, and the later ones."""
    begins = np.sort(examples.moment)[int(len(examples) * (1 - JUDGED_SHARE))]
    return examples.matured <= begins, examples.moment >= begins


@dataclass(frozen=True, slots=True)
class _Learnt:
    """A model, and how it reads touches."""

    model: UpliftModel
    encoder: Encoder

    def uplift(self, touches: pa.Table) -> NDArray[np.float64]:
        """As whoever reads the artifact would score them."""
        with TemporaryDirectory() as folder:
            draft = Draft(Path(folder) / "artifact")
            self.model.export(draft)
            return UpliftScorer.load(Artifact(draft.folder)).uplift(self.encoder.matrix(touches))


def _learnt(examples: Examples, treated: NDArray[np.bool_], config: UpliftConfig) -> _Learnt:
    encoder = Encoder.fitted(examples.table, list(TOUCHES.numbers), list(TOUCHES.texts))
    rows = encoder.matrix(examples.table)
    return _Learnt(uplift.fit(rows, treated, examples.outcome, encoder.names, config), encoder)
