"""One sequence transformer from a cold process to its rank on the items that people took last.

    shopkeeper ingest --shop beauty
    python tests/benchmarks/bench_sequence.py [--shop beauty --config configs/recommend/sequence.toml --device auto]

The floors are what the same steps would take of the device's matrix products at ``--flops`` per second, and of its
memory at ``--bytes`` per second where the logits alone are counted: written, turned into probabilities, summed, and
read by the two products of the gradient. The rates are an H100's, by a product of 8,192 x 8,192 in bfloat16 and by a
copy; a kernel that never writes the logits could go below the second floor. The quality is of the whole catalogue, with
what people had taken before. The last line is one JSON object.
"""

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path
from time import perf_counter, time

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from features.histories import catalogue, log
from features.lake import Lake
from features.shops import load_shop
from features.windows import leave_one_out
from training.config import load_config
from training.device import choose
from training.recommend.config import RecommendConfig
from training.recommend.evaluation import Truth
from training.recommend.transformer import Trainer

N_PASSES = 6
"""How often the logits go through memory."""
BYTES = 2
"""Of a logit in bfloat16."""


def floors(trainer: Trainer, flops: float, bandwidth: float) -> tuple[float, float]:
    """Seconds of an epoch's products (forward, and twice that backward), and of its logits' way through memory."""
    width, n_layers = trainer.config.width, trainer.config.n_layers
    sight = 2 * trainer.model.encoder.block_size
    per_event = n_layers * (24 * width**2 + 6 * sight * width) + 2 * len(trainer.touched) * width
    n_logits = trainer.n_predicted * len(trainer.touched)
    return 3 * per_event * trainer.n_predicted / flops, N_PASSES * BYTES * n_logits / bandwidth


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shop", default="beauty")
    parser.add_argument("--config", type=Path, default=Path("configs/recommend/sequence.toml"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--flops", type=float, default=798e12)
    parser.add_argument("--bytes", type=float, default=3.0e12)
    options = parser.parse_args()
    config, device = load_config(RecommendConfig, "recommend", options.config, options.set), choose(options.device)
    lake = Lake(load_shop(options.shop))
    window = leave_one_out(lake.engine(), lake.after_last_event())
    item_ids = catalogue(window.past, window.as_of, config.min_users, config.untouched_items)
    fitted = log(window.fitted, window.as_of, item_ids, config.attributes)
    truth = Truth.of(window, item_ids)
    trainer = Trainer(fitted, config.tiers.sequence, config.events.weights(), device, config.tiers.sequence.seed)
    ready = perf_counter()
    ends = [ready]
    for _ in range(trainer.config.n_epochs):
        trainer.epoch()
        ends.append(perf_counter())
    trained, asked = ends[-1], trainer.asked(truth.histories, truth.wanted.items.astype("int32"))
    trainer.ndcg(asked)
    first = perf_counter()
    quality = trainer.ndcg(asked)
    evaluated = perf_counter()
    by_products, by_memory = floors(trainer, options.flops, options.bytes)
    epochs = sorted(end - start for start, end in pairwise(ends))
    measured = {
        "device": device.reason,
        "epoch_s": epochs[len(epochs) // 2],
        "training_s": trained - ready,
        "evaluation_s": evaluated - first,
        "cold_process_to_rank_s": time() - psutil.Process().create_time(),
        "floor_of_products_s": by_products,
        "floor_of_memory_s": by_memory,
        "epoch_by_greater_floor": epochs[len(epochs) // 2] / max(by_products, by_memory),
        "ndcg_at_10_unmasked": quality,
    }
    for name, value in measured.items():
        print(f"{name:24} {value:12.4f}" if isinstance(value, float) else f"{name:24} {value}")
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
