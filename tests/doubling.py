"""Artifacts of a model that doubles numbers, in the cache of the shop ``mini``."""

import numpy as np

from serving import models
from serving.artifact import Draft


class Doubler:
    def __init__(self, artifact):
        self.factors = artifact.array("factors")

    def answer(self, request):
        return {"doubled": self.factors[request["index"]] * 2}


LOADERS = {"recommend": Doubler, "demand": Doubler}


def export(folder, value=1.0, **changes):
    draft = Draft(folder)
    draft.array("factors", np.full(3, value))
    draft.golden(Doubler, [{"index": 2}])
    description = {
        "task": "recommend",
        "model": "doubler",
        "shop": "mini",
        "config": {},
        "window": {"from": "2024-01-01", "until": "2024-02-01"},
        "metrics": {},
        "created_at": "2024-02-02T03:04:05+00:00",
        "items_as_of": "2024-02-01T00:00:00+00:00",
    }
    draft.seal({**description, **changes})
    return folder


def champion_of(home, source, version="1", task="recommend"):
    models.publish(home, "mini", task, version, source)
    models.point_champion(home, "mini", task, version)


def damage_array(folder):
    (folder / "factors.npy").write_bytes(b"other")
