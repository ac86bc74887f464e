import subprocess
import sys

import lightgbm
import numpy as np
import pytest
from campaigns import NAMES, campaign

from serving.artifact import Draft, verified
from serving.uplift import MODELS, UpliftScorer

SETTINGS = {"objective": "binary", "num_leaves": 7, "verbose": -1, "num_threads": 1}
INTERCEPT, SLOPE = 0.01, 0.7


@pytest.fixture(scope="module")
def touches():
    return campaign(2000)


@pytest.fixture(scope="module")
def boosters(touches):
    rows, treated, bought, _ = touches
    data = {
        "model": (np.column_stack([rows, treated]), bought),
        "model_held_out": (rows[~treated], bought[~treated]),
        "model_treated": (rows[treated], bought[treated]),
    }
    return {name: lightgbm.train(SETTINGS, lightgbm.Dataset(*known), 20) for name, known in data.items()}


@pytest.fixture(scope="module", params=MODELS)
def artifact(request, boosters, tmp_path_factory):
    draft = Draft(tmp_path_factory.mktemp("uplift") / "artifact")
    for name in MODELS[request.param]:
        draft.text(name, boosters[name].model_to_string())
    draft.json("features", NAMES)
    draft.json("uplift", {"model": request.param, "intercept": INTERCEPT, "slope": SLOPE})
    return draft.seal({"task": "uplift"})


def expected(model, boosters, rows):
    """As the boosters that were exported answer."""
    if model == "s_learner":
        arms = [np.column_stack([rows, np.full(len(rows), arm)]) for arm in (0.0, 1.0)]
        held_out, treated = (boosters["model"].predict(arm, num_threads=1) for arm in arms)
        return INTERCEPT + SLOPE * (treated - held_out)
    if model == "t_learner":
        held_out, treated = (boosters[f"model_{arm}"].predict(rows, num_threads=1) for arm in ("held_out", "treated"))
        return INTERCEPT + SLOPE * (treated - held_out)
    return np.full(len(rows), INTERCEPT)


def test_what_was_saved_answers_as_the_models_did(artifact, boosters, touches):
    scorer = UpliftScorer.load(verified(artifact.folder))
    np.testing.assert_allclose(scorer.uplift(touches.rows), expected(scorer.model, boosters, touches.rows), rtol=1e-12)


def test_a_batch_is_the_same_one_by_one(artifact, touches):
    scorer = UpliftScorer.load(artifact)
    one_by_one = np.concatenate([scorer.uplift(row[None]) for row in touches.rows[:50]])
    np.testing.assert_array_equal(scorer.uplift(touches.rows[:50]), one_by_one)


def test_nobody_asked_for_is_nobody_answered(artifact):
    assert UpliftScorer.load(artifact).uplift(np.empty((0, len(NAMES)))).shape == (0,)


def test_another_number_of_columns_is_refused(artifact, touches):
    with pytest.raises(ValueError, match=r"shape \(2000, 7\), the model reads \(n, 8\)"):
        UpliftScorer.load(artifact).uplift(touches.rows[:, :-1])


def test_it_answers_without_the_training_stack(artifact):
    script = (
        "import sys; from pathlib import Path; import numpy as np; from serving.artifact import Artifact;"
        "from serving.uplift import UpliftScorer;"
        "UpliftScorer.load(Artifact(Path(sys.argv[1]))).uplift(np.zeros((3, 8)));"
        "assert not {'pandas', 'lightgbm', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(artifact.folder)], check=True)
