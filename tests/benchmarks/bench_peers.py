"""One shop's sequences through RecTools' SASRec and implicit's ALS, and through ours, in one run.

    python -m venv PEERS && PEERS/bin/pip install 'rectools[torch]' implicit
    shopkeeper ingest --shop beauty
    python tests/benchmarks/bench_peers.py --peers PEERS/bin/python [--shop beauty --epochs 6 --width 128 --length 50]

Both fit what is before each person's last two items and rank the next one, seen items removed. An epoch of a
transformer is one pass over all histories, of ALS one alternation. Of transformers the passes alone are timed; RecTools
multiplies float32, ours bfloat16 where the processor does. RecTools keeps its own defaults, with a constant step size;
ours lets it fall to zero within the epochs asked for. The last line is one JSON object.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.histories import Log, catalogue, log, wanted
from features.lake import Lake
from features.shops import load_shop
from features.windows import leave_one_out
from serving.tiers import Tier
from tests.benchmarks.peers import K, ndcg, report
from training.device import choose
from training.recommend import factors
from training.recommend.config import EventConfig
from training.recommend.sequence import SequenceConfig
from training.recommend.transformer import Trainer, exported

EVENTS = EventConfig().weights()
N_ALTERNATIONS = 10
TARGET_RATIO = 3.0


def held_out(shop: str) -> tuple[Log, np.ndarray]:
    """What is fitted, of the people whose next item is known, and that item."""
    lake = Lake(load_shop(shop))
    window = leave_one_out(lake.engine(), lake.after_last_event()).inner
    item_ids = catalogue(window.past, window.as_of, 1, False)
    known, truth = log(window.past, window.as_of, item_ids), wanted(window, item_ids)
    place = {user_id: number for number, user_id in enumerate(truth.user_ids)}
    kept = np.array([number for number, user_id in enumerate(known.user_ids) if user_id in place])
    asked = truth.histories.starts[[place[known.user_ids[number]] for number in kept]]
    user_ids = [known.user_ids[number] for number in kept]
    histories = known.histories.take(kept)
    visits = np.arange(len(histories), dtype=np.int32)
    return Log(user_ids, item_ids, histories, visits, known.attributes), truth.histories.items[asked]


def best(tier: Tier, data: Log) -> np.ndarray:
    """The ten best items of each person that it does not have, int64, shape (n_users, 10)."""
    lists = []
    for first in range(0, data.histories.n_users, 500):
        asked = data.histories.take(np.arange(first, min(first + 500, data.histories.n_users)))
        scores = tier.scores(asked).copy()
        scores[asked.users, asked.items] = -np.inf
        top = np.argpartition(-scores, K, axis=1)[:, :K]
        lists.append(np.take_along_axis(top, np.argsort(-np.take_along_axis(scores, top, 1), axis=1), 1))
    return np.concatenate(lists)


def transformer_epochs(data: Log, asked: np.ndarray, config: SequenceConfig) -> list[tuple[float, float]]:
    """Seconds of training so far and NDCG@10 after each epoch."""
    trainer, taken, found = Trainer(data, config, EVENTS, choose("cpu"), 0), 0.0, []
    for epoch in range(1, config.n_epochs + 1):
        start = perf_counter()
        trainer.epoch()
        seconds = perf_counter() - start
        taken += seconds
        quality = ndcg(best(exported([trainer.model], config), data), asked)
        report("our transformer", epoch, seconds, quality)
        found.append((taken, quality))
    return found


def alternations(data: Log, asked: np.ndarray, width: int) -> float:
    """Seconds of one of our alternations."""
    config = factors.AlsConfig(n_factors=width, n_iterations=N_ALTERNATIONS)
    start = perf_counter()
    tier = factors.fit_als(data, config, EVENTS, choose("cpu"))
    seconds = (perf_counter() - start) / N_ALTERNATIONS
    report("our ALS", N_ALTERNATIONS, seconds, ndcg(best(tier, data), asked))
    return seconds


def theirs(peers: str, data: Log, asked: np.ndarray, options: list[int]) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "histories.npz"
        np.savez(path, starts=data.histories.starts, items=data.histories.items, wanted=asked)
        command = [peers, str(Path(__file__).with_name("peers.py")), str(path), *map(str, options)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
            assert running.stdout is not None
            found = []
            for line in running.stdout:
                if line.startswith("{"):
                    print(line, end="", flush=True)
                    found.append(json.loads(line))
        if running.returncode:
            raise SystemExit(f"the peers failed: run {' '.join(command)} to see why")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", required=True)
    parser.add_argument("--shop", default="beauty")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--length", type=int, default=50)
    options = parser.parse_args()
    data, asked = held_out(options.shop)
    config = SequenceConfig(width=options.width, max_length=options.length, n_epochs=options.epochs, attributes=False)
    alternation = alternations(data, asked, options.width)
    ours = transformer_epochs(data, asked, config)
    peers = theirs(options.peers, data, asked, [options.epochs, options.width, options.length])
    als, *sasrec = peers
    their_best = max(row["ndcg_at_10"] for row in sasrec)
    at = next(number for number, row in enumerate(sasrec) if row["ndcg_at_10"] == their_best)
    their_seconds = sum(row["epoch_s"] for row in sasrec[: at + 1])
    our_seconds = next((seconds for seconds, quality in ours if quality >= their_best), None)
    ratio = np.mean([row["epoch_s"] for row in sasrec]) / (ours[-1][0] / len(ours))
    measured = {
        "epoch_ratio": ratio,
        "als_ratio": als["epoch_s"] / alternation,
        "their_best_ndcg_at_10_within_the_epochs": their_best,
        "their_s_to_it": their_seconds,
        "our_s_to_it": our_seconds,
    }
    print(f"an epoch of ours is {ratio:.1f} times as fast (target {TARGET_RATIO})")
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
