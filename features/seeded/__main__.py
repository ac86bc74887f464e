"""Write a shop whose truth is known: ``python -m features.seeded --events 1000000 --out FOLDER --seed 0``."""

import argparse
from pathlib import Path

from features.errors import UserError
from features.home import home
from features.seeded.tables import write


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m features.seeded", description="Write a shop whose truth is known.")
    source = home() / "seeded" / "source"
    parser.add_argument("--events", type=int, required=True, help="rows of events, at least 1,000")
    parser.add_argument("--out", type=Path, default=source, help="folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="what the shop is drawn from (default: %(default)s)")
    parser.add_argument("--campaigns", action="store_true", help="add randomised campaigns, to which customers respond")
    asked = parser.parse_args()
    try:
        truth = write(asked.out, asked.events, asked.seed, asked.campaigns)
    except UserError as error:
        parser.error(str(error))
    print(f"{truth.n_events} events, {len(truth.days)} days, {len(truth.activity)} people, {len(truth.base)} items")


if __name__ == "__main__":
    main()
