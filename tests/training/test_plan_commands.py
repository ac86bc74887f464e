"""The planner's way by commands: forecast, override, reorder, and what the overrides were worth."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from features import overrides
from features.ingest import ingest
from features.shops import load_shop
from serving import orders
from training import cli

MONDAY = date(2023, 1, 2)
N_WEEKS, N_ITEMS = 40, 6
AFTER = MONDAY + timedelta(weeks=N_WEEKS)
TOML = """
name = "mini"
tables.demand.path = "demand.csv"
tables.supply.path = "supply.csv"
"""
SMALL = ["horizon=3", "min_periods=5", "trees.n_trees=5", "shape.n_trees=5"]
FAST = [word for each in SMALL for word in ("--set", each)]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with a shop of six items and its champion of demand."""
    folder = tmp_path_factory.mktemp("planned")
    units = np.random.default_rng(8).poisson(3 + 2 * np.arange(N_ITEMS)[:, None], (N_ITEMS, N_WEEKS))
    cells = [(item, week) for item in range(N_ITEMS) for week in range(N_WEEKS)]
    sold = [f"i{item},{MONDAY + timedelta(weeks=week)},{units[item, week]}" for item, week in cells]
    terms = [f"i{item},7,0.03,1" for item in range(N_ITEMS)]
    (folder / "demand.csv").write_text("\n".join(["item_id,date,quantity", *sold]) + "\n")
    (folder / "supply.csv").write_text("\n".join(["item_id,lead_time_days,holding_cost,shortage_cost", *terms]) + "\n")
    (folder / "mini.toml").write_text(TOML)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOPKEEPER_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        ingest(load_shop(str(folder / "mini.toml")))
        for command in (["train", "demand", *FAST], ["promote", "demand"]):
            patch.setattr("sys.argv", ["shopkeeper", *command, "--shop", str(folder / "mini.toml")])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert not ended.value.code
        yield folder


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a command on the shop; what it planned is gone afterwards."""

    def command(name: str, *arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["shopkeeper", name, "--shop", str(home / "mini.toml"), *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        return int(ended.value.code or 0), written.out, written.err

    yield command
    for path in plans(home):
        path.unlink()


def plans(home: Path) -> list[Path]:
    return sorted((home / "home" / "mini" / "overrides").glob("*"))


def planned(run: Run, folder: Path, *lines: str) -> tuple[int, str, str]:
    (folder / "plan.csv").write_text("\n".join(["item_id,date,quantity", *lines]))
    return run("override", "--plan", folder / "plan.csv", "--by", "anna", "--reason", "Spring fair", "--json")


def test_parquet_is_long_and_csv_is_wide(run: Run, tmp_path: Path):
    assert run("forecast", "--out", tmp_path / "f.parquet")[0] == 0
    assert run("forecast", "--out", tmp_path / "f.csv")[0] == 0
    stored, shown = pq.read_table(tmp_path / "f.parquet"), pyarrow.csv.read_csv(tmp_path / "f.csv")
    assert stored.num_rows == 9 * N_ITEMS * 3
    assert shown.num_rows == N_ITEMS * 3
    assert {"q0.05", "q0.50", "q0.90", "override"} < set(shown.column_names)
    assert set(stored["cutoff"].to_pylist()) == {AFTER}


def test_a_part_of_the_forecast_can_be_asked_for(run: Run, tmp_path: Path):
    status, out, _ = run(
        "forecast", "--out", tmp_path / "f.parquet", "--horizon", "2", "--quantiles", "0.9,0.5", "--json"
    )
    table = pq.read_table(tmp_path / "f.parquet")
    assert (status, json.loads(out.splitlines()[-1])["rows"]) == (0, N_ITEMS * 2 * 2)
    assert set(table["quantile"].to_pylist()) == {0.5, 0.9}
    assert set(table["date"].to_pylist()) == {AFTER, AFTER + timedelta(weeks=1)}


def test_a_forecast_as_of_the_models_cut_off_is_the_stored_one_and_an_earlier_one_is_another(run: Run, tmp_path: Path):
    earlier = AFTER - timedelta(weeks=4)
    for name, as_of in (("stored", ""), ("again", f"{AFTER}"), ("earlier", f"{earlier}")):
        assert run("forecast", "--out", tmp_path / f"{name}.csv", "--as-of", as_of)[0] == 0
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "stored.csv").read_bytes()
    dates = pyarrow.csv.read_csv(tmp_path / "earlier.csv")["date"].to_pylist()
    assert dates[0] == earlier


def test_an_override_goes_from_the_sheet_to_the_forecast_and_the_order(run: Run, home: Path, tmp_path: Path):
    next_week = AFTER + timedelta(weeks=1)
    run("reorder", "--out", tmp_path / "before.csv")
    status, out, _ = planned(run, tmp_path, f"i1,{next_week},90", f"i4,{next_week},")
    told = json.loads(out.splitlines()[-1])
    assert (status, told["rows"], told["planned"], told["units"]) == (0, 2, 1, 90.0)
    assert 0 < told["model_units"] < 20
    run("forecast", "--out", tmp_path / "f.csv")
    rows = pyarrow.csv.read_csv(tmp_path / "f.csv").to_pylist()
    assert [(row["item_id"], row["date"]) for row in rows if row["override"] is not None] == [("i1", next_week)]
    assert next(row["mean"] for row in rows if row["override"]) == pytest.approx(told["model_units"], rel=1e-5)
    run("reorder", "--out", tmp_path / "after.csv")
    before, after = (
        {row["item_id"]: row for row in pyarrow.csv.read_csv(tmp_path / name).to_pylist()}
        for name in ("before.csv", "after.csv")
    )
    assert after["i1"]["order_quantity"] > before["i1"]["order_quantity"] + 60
    assert after["i1"]["reason"].endswith("Planned by anna: Spring fair.")
    assert after["i4"] == before["i4"]
    (row, _) = pq.read_table(plans(home)[0]).to_pylist()
    assert (row["made_by"], row["reason"], row["model_version"]) == ("anna", "Spring fair", "1")


def test_the_order_list_is_kept_for_the_service(run: Run, home: Path, tmp_path: Path):
    run("reorder", "--out", tmp_path / "o.parquet")
    run("reorder", "--out", tmp_path / "earlier.parquet", "--as-of", f"{AFTER - timedelta(weeks=2)}")
    kept = pq.read_table(orders.file_of(home / "home", "mini", AFTER))
    assert kept.equals(pq.read_table(tmp_path / "o.parquet"))
    asked = {"item_ids": [], "location_id": None, "only_orders": False, "offset": 0, "limit": 100}
    found = orders.answer(home / "home", "mini", asked)
    assert (found["as_of"], found["model_version"], found["total"]) == (f"{AFTER}", "1", N_ITEMS)


def test_what_is_planned_stands_on_whatever_morning_one_asks(run: Run, tmp_path: Path):
    assert planned(run, tmp_path, f"i1,{AFTER},90")[0] == 0
    assert run("reorder", "--out", tmp_path / "orders.csv", "--as-of", f"{AFTER}")[0] == 0
    assert "Planned by" in (tmp_path / "orders.csv").read_text()


@pytest.mark.parametrize("command", ["forecast", "reorder"])
def test_a_day_beyond_the_data_is_refused_and_no_list_is_kept(run: Run, home: Path, tmp_path: Path, command: str):
    status, _, err = run(command, "--out", tmp_path / "out.csv", "--as-of", "2030-01-07")
    assert (status, err.count("\n")) == (2, 1)
    assert f"--as-of 2030-01-07 lies after the data's end, {AFTER}" in err
    assert not list(home.rglob("2030-01-07.parquet"))


def test_a_sheet_with_a_wrong_line_appends_nothing(run: Run, home: Path, tmp_path: Path):
    status, _, err = planned(run, tmp_path, f"i1,{AFTER},90", f"i9,{AFTER},1")
    assert (status, err.count("\n")) == (2, 1)
    assert "line 3: item i9 is not forecast: items are i0, i1, i2, i3, i4, i5; nothing was appended" in err
    assert plans(home) == []


def test_evaluate_tells_what_the_planner_added(run: Run, tmp_path: Path):
    window = AFTER - timedelta(weeks=3)
    row = {"item_id": "i2", "date": window, "quantity": 8.0, "made_by": "anna", "reason": "fair"}
    made = {
        "early": datetime(window.year, window.month, window.day, tzinfo=UTC) - timedelta(days=1),
        "late": datetime(2030, 1, 1, tzinfo=UTC),
    }
    model = {"model_mean": 1.0, "model_version": "1"}

    def segments(when: str) -> set[str]:
        batch = pa.Table.from_pylist([{**row, **model, "made_at": made[when]}], schema=overrides.SCHEMA)
        overrides.append(overrides.folder(load_shop(str(tmp_path / "mini.toml"))), batch)
        status, out, err = run("evaluate", "demand", "--json", *FAST)
        assert status == 0
        assert ("where a planner said the units" in err) == (when == "early")
        return {found["segment"] for found in json.loads(out.splitlines()[-1])["rows"]}

    (tmp_path / "mini.toml").write_text(TOML)
    assert "overridden" not in segments("late")
    assert "overridden" in segments("early")


@pytest.mark.parametrize(
    ("command", "options", "told"),
    [
        ("forecast", ["--quantiles", "half"], "--quantiles half: write numbers with commas between them, such as"),
        ("forecast", ["--quantiles", "0.7"], "the model has no quantile 0.7: it has 0.05, 0.1"),
        ("forecast", ["--horizon", "4"], "--horizon 4 is longer than the 3 weeks of this model"),
        ("forecast", ["--as-of", "soon"], "--as-of soon: write the day as in 2026-01-31"),
        ("reorder", ["--as-of", "1800-01-01"], "--as-of 1800-01-01: choose a day from 1990 to 2099"),
        ("override", ["--plan", "nowhere.csv", "--by", "anna", "--reason", "fair"], "nowhere.csv: No such file"),
        ("override", ["--plan", "nowhere.csv", "--by", " ", "--reason", "fair"], "--by is empty: say it"),
        ("override", ["--plan", "nowhere.csv", "--by", "anna", "--reason", ""], "--reason is empty: say it"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(run: Run, tmp_path: Path, command: str, options: list[str], told: str):
    out = [] if command == "override" else ["--out", tmp_path / "x.csv"]
    status, _, err = run(command, *out, *options)
    assert (status, err.count("\n")) == (2, 1)
    assert told in err
