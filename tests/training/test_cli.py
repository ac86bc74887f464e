"""The command line: one sentence and exit 2 for a user's mistake, one JSON object for machines."""

import json
import shutil
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from training import cli

FAST = ["--set", "tiers.als.n_factors=4", "--set", "tiers.als.n_iterations=1", "--set", "validation_days=21"]


@pytest.fixture
def run(ingested: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs a command in a home of its own; gives exit status, stdout and stderr."""
    shutil.copytree(ingested, tmp_path / "home")
    monkeypatch.setenv("SHOPKEEPER_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["shopkeeper", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    return command


def test_from_training_to_batch_answers(run, tmp_path: Path) -> None:
    status, out, _ = run("train", "recommend", "--shop", "seeded", "--json", *FAST)
    assert status == 0
    trained = json.loads(out.splitlines()[-1])
    assert trained["version"] == "1"
    assert {"model", "split", "segment", "masked", "metric", "value", "low", "high", "n"} == set(trained["rows"][0])
    assert run("promote", "recommend", "--shop", "seeded")[0] == 0
    for name, read in (("r.parquet", pq.read_table), ("r.csv", pyarrow.csv.read_csv)):
        status, out, _ = run("recommend", "--shop", "seeded", "--n", "3", "--out", str(tmp_path / name), "--json")
        table = read(tmp_path / name)
        assert (status, json.loads(out.splitlines()[-1])["rows"]) == (0, table.num_rows)
        assert table.column_names == ["user_id", "rank", "item_id", "score", "reason", "model_version"]


def test_a_worse_version_is_refused_with_exit_3(run, tmp_path: Path) -> None:
    (tmp_path / "worse.toml").write_text("validation_days = 21\n[tiers.popularity]\nhalf_life_days = 0.1\n")
    run("train", "recommend", "--shop", "seeded", *FAST)
    run("promote", "recommend", "--shop", "seeded")
    run("train", "recommend", "--shop", "seeded", "--config", str(tmp_path / "worse.toml"))
    status, out, _ = run("promote", "recommend", "--shop", "seeded")
    assert status == 3
    assert "candidate 2" in out
    assert "champion 1" in out
    assert "worse than the champion's" in out


def test_a_target_that_cannot_be_fitted_is_named_with_why(run, tmp_path: Path) -> None:
    asked = 'unit = "user"\nhorizon_days = 7\n'
    text = f"window_days = 7\n[targets.again]\n{asked}[targets.returns]\nevent = 'refund'\n{asked}"
    (tmp_path / "two.toml").write_text(text)
    status, out, _ = run("train", "propensity", "--shop", "seeded", "--config", str(tmp_path / "two.toml"))
    assert status == 0
    assert "without returns: of " in out


def test_a_versions_configuration_is_evaluated_on_any_split(run) -> None:
    run("train", "recommend", "--shop", "seeded", *FAST)
    status, out, _ = run(
        "evaluate", "recommend", "--shop", "seeded", "--version", "1", "--split", "leave_one_out", "--json"
    )
    assert status == 0
    assert {row["split"] for row in json.loads(out.splitlines()[-1])["rows"]} == {"leave_one_out"}


def test_kpis_agree_with_the_generator(run, tmp_path: Path) -> None:
    status, out, _ = run("kpis", "--shop", "seeded", "--out", str(tmp_path / "told"), "--json")
    values = json.loads(out.splitlines()[-1])
    sessions = pq.read_table(tmp_path / "home" / "seeded" / "source" / "truth" / "sessions.parquet")
    assert status == 0
    assert values["orders"] == sum(sessions["purchased"].to_pylist())
    assert pyarrow.csv.read_csv(tmp_path / "told" / "daily.csv")["orders"].to_numpy().sum() == values["orders"]
    assert (tmp_path / "told" / "weekly.svg").stat().st_size > 0
    assert {row["kpi"] for row in values["alerts"]} <= {row["kpi"] for row in values["week_on_week"]}


def test_a_funnel_is_asked_for_by_its_steps_window_and_order(run) -> None:
    def counts(*options: str) -> list[int]:
        status, out, _ = run("kpis", "--shop", "seeded", "--steps", "view_item,purchase", "--json", *options)
        assert status == 0
        return [step["n"] for step in json.loads(out.splitlines()[-1])["funnel"]]

    visits, people, on_their_own = counts(), counts("--window", "7"), counts("--any-order")
    assert people[0] < visits[0] == on_their_own[0]
    assert visits[1] <= on_their_own[1]


def test_nothing_after_until_is_told(run) -> None:
    status, out, _ = run("kpis", "--shop", "seeded", "--until", "2023-02-01", "--json")
    told = json.loads(out.splitlines()[-1])
    whole = json.loads(run("kpis", "--shop", "seeded", "--json")[1].splitlines()[-1])
    assert status == 0
    assert 0 < told["orders"] < whole["orders"]
    assert told["until"].startswith("2023-02-01")
    assert {row["week"] for row in told["week_on_week"]} == {"2023-01-25"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["kpis", "--shop", "nowhere"],
            "no shop nowhere: give the path of a TOML file or one of aus_retail, bakery, beauty, campaigns",
        ),
        (["train", "weather", "--shop", "seeded"], "no task weather: tasks are recommend, propensity, demand"),
        (["train", "recommend", "--shop", "seeded", "--device", "tpu"], "--device tpu: it is one of auto, cpu, cuda"),
        (["train", "recommend", "--shop", "seeded", "--until", "soon"], "--until soon: write the day as in 2026-01-31"),
        (["train", "recommend", "--shop", "seeded", "--set", "a=1"], "a: Extra inputs are not permitted"),
        (["evaluate", "demand", "--shop", "seeded", "--split", "given"], "--split given is for recommend"),
        (["evaluate", "recommend", "--shop", "seeded", "--split", "given"], "needs a column `split`"),
        (["forecast", "--shop", "seeded", "--out", "x.csv"], "seeded.demand cannot answer: no champion was promoted"),
        (["rollback", "recommend", "--shop", "seeded"], "no earlier champion"),
        (["kpis", "--shop", "seeded", "--out", __file__], "is a file: name a folder for the tables and plots"),
        (["kpis", "--shop", "seeded", "--window", "soon"], "--window soon: write session or a number of days"),
        (["kpis", "--shop", "seeded", "--steps", "view_item,gaze"], "no step gaze: steps are page_view, search"),
        (["kpis", "--shop", "seeded", "--until", "2001-01-01"], "seeded has no visits before 2001-01-01"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(run, arguments: list[str], told: str) -> None:
    status, _, err = run(*arguments)
    assert status == 2
    assert told in err
    assert err.count("\n") == 1


def test_a_shop_without_data_is_told_what_to_do(run, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "home" / "seeded" / "lake")
    status, _, err = run("train", "recommend", "--shop", "seeded")
    assert (status, err.count("\n")) == (2, 1)
    assert "shop seeded has no data yet: run `shopkeeper ingest --shop seeded`" in err


def test_customers_are_written_and_the_back_test_is_told(run, tmp_path: Path) -> None:
    status, out, _ = run("customers", "--shop", "seeded", "--out", str(tmp_path / "customers.csv"), "--json")
    told = json.loads(out.splitlines()[-1])
    table = pyarrow.csv.read_csv(tmp_path / "customers.csv")
    assert (status, told["rows"]) == (0, table.num_rows)
    assert {"realised_revenue", "predicted_value_12m", "segment", "suggested_tier"} <= set(table.column_names)
    assert len(told["back_test"]["deciles"]) == 10


def test_keys_are_made_listed_and_removed(run) -> None:
    status, out, _ = run("keys", "add", "web", "--shop", "seeded", "--scopes", "recommend,events", "--json")
    assert status == 0
    assert json.loads(out.splitlines()[-1])["key"].startswith("sk_")
    listed = json.loads(run("keys", "list", "--shop", "seeded", "--json")[1].splitlines()[-1])
    assert listed == {"keys": [{"name": "web", "scopes": ["recommend", "events"]}]}
    assert run("keys", "remove", "web", "--shop", "seeded")[0] == 0
    assert "seeded has no API keys" in run("keys", "list", "--shop", "seeded")[1]
    status, _, err = run("keys", "add", "web", "--shop", "seeded", "--scopes", "everything")
    assert (status, "no scope 'everything'; allowed are recommend, events, plan, admin" in err) == (2, True)


def test_the_service_is_open_to_others_only_with_keys(run) -> None:
    status, _, err = run("serve", "--shop", "seeded", "--host", "0.0.0.0")
    assert status == 2
    assert "0.0.0.0 is open to others and seeded has no API keys" in err
