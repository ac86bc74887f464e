"""The encoder hears what came before in the same history, wherever that lies on its tape, and nothing else."""

import pytest
import torch

from training.recommend.encoder import Encoder, by_distance, dropped
from training.recommend.sequence import SequenceConfig

SMALL = SequenceConfig(width=16, n_heads=2, max_length=8)


def test_later_events_change_nothing_before_them() -> None:
    encoder = Encoder(SMALL).eval()
    events = torch.randn(16, 16)
    changed = events.clone()
    changed[5:] = 9.0
    n_before = torch.arange(16).clamp(max=7)
    torch.testing.assert_close(encoder(events, n_before)[:5], encoder(changed, n_before)[:5])


def test_a_history_hears_nothing_of_the_one_before_it() -> None:
    encoder = Encoder(SMALL).eval()
    events = torch.randn(32, 16)
    changed = events.clone()
    changed[:13] = 9.0
    n_before = torch.cat([torch.arange(13), torch.arange(8), torch.arange(11)]).clamp(max=7)
    found, otherwise = encoder(events, n_before), encoder(changed, n_before)
    torch.testing.assert_close(found[13:], otherwise[13:])
    assert not torch.allclose(found[:13], otherwise[:13])


def test_where_a_history_lies_on_its_tape_changes_nothing() -> None:
    encoder = Encoder(SMALL).eval()
    events = torch.randn(8, 16)
    expected = encoder(torch.cat([events, torch.randn(8, 16)]), torch.arange(8).repeat(2))[:8]
    for before in (1, 9, 16, 23):
        tape, n_before = torch.randn(32, 16), torch.zeros(32, dtype=torch.int64)
        tape[before : before + 8], n_before[before : before + 8] = events, torch.arange(8)
        torch.testing.assert_close(encoder(tape, n_before)[before : before + 8], expected)


def test_a_table_by_distance_holds_each_value_at_its_distance() -> None:
    values = torch.rand(3, 5)
    table = by_distance(values, 6, -1.0)
    for event in range(6):
        for seen in range(12):
            distance = 6 + event - seen
            expected = values[:, distance] if 0 <= distance < 5 else torch.full((3,), -1.0)
            assert torch.equal(table[:, event, seen], expected)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    kept = dropped(torch.ones(100_003), 0.25)
    assert (kept == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    assert kept.mean() == pytest.approx(1, abs=0.01)
    assert torch.equal(dropped(kept, 0.0), kept)
