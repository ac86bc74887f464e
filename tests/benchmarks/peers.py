"""What peers make of the same histories; run by ``bench_peers.py`` in an environment that holds them.

    PEERS_PYTHON tests/benchmarks/peers.py HISTORIES.npz N_EPOCHS WIDTH MAX_LENGTH

Prints one JSON line per peer and epoch.
"""

import json
import sys
import warnings
from time import perf_counter

import numpy as np

K = 10
BATCH_SIZE = 128
DISCOUNTS = 1 / np.log2(np.arange(K) + 2)


def ndcg(lists: np.ndarray, wanted: np.ndarray) -> float:
    """Mean NDCG@10 of lists of ten items, of which one is wanted, shapes (n, 10) and (n,)."""
    return float(((lists == wanted[:, None]) @ DISCOUNTS).mean())


def report(peer: str, epoch: int, seconds: float, quality: float) -> None:
    print(json.dumps({"peer": peer, "epoch": epoch, "epoch_s": seconds, "ndcg_at_10": quality}), flush=True)


def sasrec(starts: np.ndarray, items: np.ndarray, wanted: np.ndarray, n_epochs: int, width: int, length: int) -> None:
    """RecTools' SASRec with the loss over the whole catalogue."""
    import pandas as pd
    from pytorch_lightning import Callback, Trainer
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    taken: list[float] = []

    class Clock(Callback):
        def on_train_epoch_start(self, *_: object) -> None:
            taken.append(perf_counter())

        def on_train_epoch_end(self, *_: object) -> None:
            taken[-1] = perf_counter() - taken[-1]

    def trainer() -> Trainer:
        quiet = dict.fromkeys(("enable_progress_bar", "enable_model_summary", "logger", "enable_checkpointing"), False)
        return Trainer(max_epochs=1, min_epochs=1, accelerator="cpu", devices=1, callbacks=[Clock()], **quiet)

    lengths = np.diff(starts)
    users, places = np.repeat(np.arange(len(lengths)), lengths), np.arange(len(items))
    when = pd.Timestamp(0) + pd.to_timedelta(places, unit="s")
    columns = {Columns.User: users, Columns.Item: items, Columns.Weight: 1.0, Columns.Datetime: when}
    dataset = Dataset.construct(pd.DataFrame(columns))
    sizes = {"n_blocks": 2, "n_heads": 2, "n_factors": width, "session_max_len": length, "batch_size": BATCH_SIZE}
    model = SASRecModel(**sizes, epochs=1, get_trainer_func=trainer)
    for epoch in range(1, n_epochs + 1):
        model.fit_partial(dataset, min_epochs=1, max_epochs=1)
        found = model.recommend(np.arange(len(lengths)), dataset, k=K, filter_viewed=True)
        lists = np.full((len(lengths), K), -1)
        lists[found[Columns.User], found[Columns.Rank] - 1] = found[Columns.Item]
        report("RecTools SASRec", epoch, taken[-1], ndcg(lists, wanted))


def als(starts: np.ndarray, items: np.ndarray, wanted: np.ndarray, n_epochs: int, width: int, _: int) -> None:
    """implicit's alternating least squares."""
    from implicit.als import AlternatingLeastSquares
    from scipy import sparse
    from threadpoolctl import threadpool_limits

    shape = (len(starts) - 1, int(max(items.max(), wanted.max())) + 1)
    chosen = sparse.csr_matrix((np.ones(len(items), np.float32), items, starts), shape)
    chosen.sum_duplicates()
    model = AlternatingLeastSquares(factors=width, iterations=n_epochs, alpha=20.0, regularization=1.0, random_state=0)
    times: list[float] = []
    with threadpool_limits(1, "blas"):
        model.fit(chosen, show_progress=False, callback=lambda epoch, seconds, _: times.append(seconds))
    lists, _ = model.recommend(np.arange(shape[0]), chosen, N=K, filter_already_liked_items=True)
    report("implicit ALS", n_epochs, float(np.mean(times)), ndcg(lists, wanted))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    with np.load(sys.argv[1]) as file:
        histories = file["starts"], file["items"], file["wanted"]
    n_epochs, width, length = map(int, sys.argv[2:])
    als(*histories, 10, width, length)
    sasrec(*histories, n_epochs, width, length)
