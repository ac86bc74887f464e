"""Tables show what an evaluation is judged by and say where the rest is."""

from dataclasses import replace

import pytest

from training.console import Speaker, show_rows
from training.evaluation import Row

ROW = Row("blend", "time", "all", False, "ndcg_at_10", 0.1, 0.09, 0.11, 500)


def shown(capsys: pytest.CaptureFixture[str], rows: list[Row]) -> str:
    show_rows(Speaker(json=False), "Judged", rows, "ndcg_at_10")
    return capsys.readouterr().out


def test_other_segments_masks_and_lengths_are_left_to_json(capsys: pytest.CaptureFixture[str]) -> None:
    others = [replace(ROW, segment="cold"), replace(ROW, masked=True), replace(ROW, metric="ndcg_at_20")]
    out = shown(capsys, [ROW, *others])
    assert out.count("blend") == 1
    assert "3 more rows, by segment, mask, list length and quantile, with --json" in out


def test_a_published_split_shows_every_length(capsys: pytest.CaptureFixture[str]) -> None:
    given = replace(ROW, split="given")
    out = shown(capsys, [given, replace(given, metric="recall_at_20")])
    assert "recall_at_20" in out
    assert "ndcg_at_10" in out


def test_every_metric_that_is_not_of_lists_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["wape", "lift_at_10pct", "pinball"]
    out = shown(capsys, [replace(ROW, metric=name) for name in names])
    assert all(name in out for name in names)
    assert "more rows" not in out


def test_single_quantiles_and_inner_intervals_are_left_to_json(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["pinball", "coverage_90", "coverage_90_total", "pinball_0.9", "coverage_50", "coverage_20_total"]
    out = shown(capsys, [replace(ROW, metric=name) for name in names])
    assert "coverage_90_total" in out
    assert not [name for name in names[3:] if name in out]


def test_models_are_compared_by_the_metric_of_the_gate(capsys: pytest.CaptureFixture[str]) -> None:
    difference = replace(ROW, model="blend minus repeat", split="given")
    rows = [replace(ROW, split="given"), *(replace(difference, metric=f"{m}_at_20") for m in ("recall", "ndcg"))]
    out = shown(capsys, rows)
    assert "ndcg_at_20" in out
    assert "recall_at_20" not in out
    assert "1 more rows" in out


def test_a_difference_says_whether_the_models_are_apart(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [replace(ROW, model=f"blend minus {name}", low=low) for name, low in (("near", -0.01), ("far", 0.01))]
    lines = shown(capsys, [replace(row, masked=True) for row in (ROW, *rows)]).splitlines()
    assert any(line.startswith("Judged, masked") for line in lines)
    assert [line.split()[-1] for line in lines if "minus" in line] == ["no", "yes"]
