"""Training registers whole versions or nothing; promotion lets only the better one serve."""

import shutil
from datetime import UTC
from pathlib import Path

import pytest

from features.errors import UserError
from features.home import home
from features.lake import Lake
from features.shops import Shop, load_shop
from serving import models
from serving.artifact import MANIFEST, Draft, replay, verified
from training import pipeline, promotion, tracking
from training.device import choose
from training.evaluation import MINUS
from training.families import Family, family
from training.recommend.config import RecommendConfig

CONFIG = RecommendConfig.model_validate(
    {"validation_days": 21, "tiers": {"als": {"n_factors": 8, "n_iterations": 2}, "repeat": {}}}
)
WORSE = RecommendConfig.model_validate({"validation_days": 21, "tiers": {"popularity": {"half_life_days": 0.1}}})


@pytest.fixture(scope="module")
def of() -> Family:
    return family("recommend")


@pytest.fixture
def fresh(ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The seeded shop in a home of its own, without any run, version or artifact."""
    shutil.copytree(ingested, tmp_path / "home")
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return load_shop("seeded")


def train(shop: Shop, of: Family, config: RecommendConfig = CONFIG) -> pipeline.Trained:
    return pipeline.train(shop, of, config, choose("cpu"))


def test_a_version_holds_a_whole_artifact_that_answers_as_at_export(fresh: Shop, of: Family) -> None:
    trained = train(fresh, of)
    artifact = tracking.artifact_of(fresh, "recommend", trained.version)
    replay(artifact, of.load(artifact))
    manifest = artifact.manifest
    assert manifest["config"] == CONFIG.model_dump(mode="json")
    assert manifest["window"]["from"] < manifest["window"]["until"]
    alone = {row.model for row in trained.rows if MINUS not in row.model}
    baselines = {"popularity", "personal_top_frequency", "personal_frequency", "personal_recent_frequency"}
    assert alone == {"blend", "als", "repeat", *baselines}
    assert manifest["metrics"]["ndcg_at_10"] == next(r.value for r in trained.rows if r.metric == "ndcg_at_10")


def test_a_run_carries_parameters_metrics_and_the_data(fresh: Shop, of: Family) -> None:
    import mlflow

    train(fresh, of)
    (run,) = mlflow.MlflowClient().search_runs(
        [mlflow.MlflowClient().get_experiment_by_name("seeded.recommend").experiment_id]
    )
    assert run.data.params["tiers.als.n_factors"] == "8"
    assert run.data.metrics["blend.ndcg_at_10"] > run.data.metrics["popularity.ndcg_at_10"]
    assert {"data_from", "data_until", "data_fingerprint", "device", "mlflow.source.git.commit"} <= set(run.data.tags)


STEPS = [
    (pipeline, "backtest"),
    (pipeline, "fit"),
    (pipeline, "export"),
    (tracking, "record"),
    (tracking, "register"),
]


@pytest.mark.parametrize(("module", "step"), STEPS, ids=[step for _, step in STEPS])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_leaves_nothing_half_and_training_again_succeeds(
    fresh: Shop, of: Family, monkeypatch: pytest.MonkeyPatch, module: object, step: str, when: str
) -> None:
    real = getattr(module, step)

    def crashing(*args: object, **kwargs: object) -> None:
        if when == "after":
            real(*args, **kwargs)
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr(module, step, crashing)
        with pytest.raises(RuntimeError, match="crash"):
            train(fresh, of)
    registered = tracking.versions(fresh, "recommend")
    assert bool(registered) == (step == "register" and when == "after")
    for version in registered:
        verified(tracking.artifact_of(fresh, "recommend", version).folder)
    trained = train(fresh, of)
    assert promotion.promote(fresh, of, choose("cpu"), trained.version).promoted


def test_a_crash_while_exporting_leaves_no_draft_and_a_killed_one_would_not_load(
    fresh: Shop, of: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifests = []

    def crash(draft: Draft, *_: object) -> None:
        manifests.append((draft.folder / MANIFEST).exists())
        raise RuntimeError("crash")

    with monkeypatch.context() as patch:
        patch.setattr("serving.artifact.Draft.seal", crash)
        with pytest.raises(RuntimeError, match="crash"):
            train(fresh, of)
    assert manifests == [False]
    assert not list((home() / "seeded" / "artifacts").iterdir())
    assert train(fresh, of).version == "1"


def test_a_version_that_answers_another_question_is_compared_on_its_own(fresh: Shop, of: Family) -> None:
    train(fresh, of)
    promotion.promote(fresh, of, choose("cpu"))
    train(fresh, of, CONFIG.model_copy(update={"validation_days": 7}))
    candidate, champion = promotion.promote(fresh, of, choose("cpu")).rows
    assert (candidate.n, candidate.value) == (champion.n, champion.value)


def test_a_version_is_judged_again_on_a_lake_that_has_grown(
    fresh: Shop, of: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(fresh, of)
    promotion.promote(fresh, of, choose("cpu"))
    train(fresh, of)
    judged = []
    monkeypatch.setattr("features.lake.Lake.fingerprint", lambda _: "grown")
    real = pipeline.backtest
    monkeypatch.setattr(pipeline, "backtest", lambda *args: judged.append(args) or real(*args))
    assert promotion.promote(fresh, of, choose("cpu")).promoted
    assert len(judged) == 2


def test_promotion_refuses_a_worse_version_and_rollback_goes_back(fresh: Shop, of: Family) -> None:
    first = train(fresh, of).version
    assert promotion.promote(fresh, of, choose("cpu")).promoted
    worse = train(fresh, of, WORSE).version
    refused = promotion.promote(fresh, of, choose("cpu"), worse)
    assert not refused.promoted
    assert "worse than" in refused.reason
    assert {row.model for row in refused.rows} == {f"candidate {worse}", f"champion {first}"}
    assert tracking.champion(fresh, "recommend") == first
    again = train(fresh, of).version
    assert promotion.promote(fresh, of, choose("cpu"), again).promoted
    assert served(fresh) == again
    assert promotion.rollback(fresh, "recommend") == (again, first)
    assert served(fresh) == tracking.champion(fresh, "recommend") == first


def served(shop: Shop) -> str:
    folder = models.champion(home(), shop.name, "recommend")
    assert folder is not None
    return folder.name


def test_a_champion_judged_on_other_windows_is_judged_again(fresh: Shop, of: Family) -> None:
    train(fresh, of)
    promotion.promote(fresh, of, choose("cpu"))
    pipeline.train(fresh, of, WORSE, choose("cpu"), n_windows=2)
    refused = promotion.promote(fresh, of, choose("cpu"))
    assert len(refused.rows) == 4
    assert not refused.promoted


def test_promoting_what_is_not_there_is_told(fresh: Shop, of: Family) -> None:
    with pytest.raises(UserError, match=r"seeded\.recommend has no version: run `shopkeeper train recommend"):
        promotion.promote(fresh, of, choose("cpu"))
    train(fresh, of)
    with pytest.raises(UserError, match=r"has no version 9: there are 1"):
        promotion.promote(fresh, of, choose("cpu"), "9")
    with pytest.raises(UserError, match="no earlier champion"):
        promotion.rollback(fresh, "recommend")


def test_splits_that_do_not_fit_are_told(fresh: Shop) -> None:
    with pytest.raises(UserError, match="--split leave_one_out is for recommend"):
        pipeline.windows(None, fresh, family("propensity"), None, None, "leave_one_out", 1)


def test_sequences_are_evaluated_to_their_last_event(fresh: Shop) -> None:
    lake = Lake(fresh)
    newest = "select max(event_timestamp) as at from events where item_id is not null"
    last = lake.engine().select(newest)["at"][0].as_py().replace(tzinfo=UTC)
    assert pipeline.end(lake, "time") < last < pipeline.end(lake, "leave_one_out") == pipeline.end(lake, "given")
    end = pipeline.end(lake, "leave_one_out")
    (window,) = pipeline.windows(lake.engine(), fresh, family("recommend"), None, end, "leave_one_out", 1)
    assert window.truth.select(newest)["at"][0].as_py().replace(tzinfo=UTC) == last
