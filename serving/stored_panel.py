"""The panel that a demand model forecasts from, in its artifact: what changes of plan are laid over.

``panel.json``        item_ids, location_ids, dates, the names of the offers' columns, frequency, min_periods, country
``panel_NAME.npy``    the arrays sold, exposure, revenue, category and location, as ``features.panels.Panel`` has them
``panel_offers.npy``  float32 [n_columns, S, P + H]
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from features.panels import Panel
from serving.artifact import Artifact, Draft

_ARRAYS = ("sold", "exposure", "revenue", "category", "location")


def write(known: Panel, draft: Draft) -> None:
    """Every series of a panel, eligible or not: rivals and the same item elsewhere speak of those that are."""
    about = {name: getattr(known, name) for name in ("item_ids", "location_ids", "frequency", "min_periods", "country")}
    draft.json("panel", {**about, "dates": known.dates.astype(str).tolist(), "offers": list(known.offers)})
    for name in _ARRAYS:
        draft.array(f"panel_{name}", getattr(known, name))
    draft.array("panel_offers", np.stack(list(known.offers.values())))


def read(artifact: Artifact) -> Panel:
    """The same panel, its arrays memory-mapped.

    Raises ArtifactError when a file is missing.
    """
    about = artifact.json("panel")
    return Panel(
        item_ids=tuple(about["item_ids"]),
        location_ids=tuple(about["location_ids"]),
        dates=np.array(about["dates"], "datetime64[D]"),
        offers=dict(zip(about["offers"], artifact.array("panel_offers"), strict=True)),
        frequency=about["frequency"],
        min_periods=about["min_periods"],
        country=about["country"],
        **{name: artifact.array(f"panel_{name}") for name in _ARRAYS},
    )


def taken(known: Panel, series: NDArray[np.integer]) -> Panel:
    """A panel of some of the series, in the order asked for."""
    return replace(
        known,
        item_ids=tuple(known.item_ids[row] for row in series),
        location_ids=tuple(known.location_ids[row] for row in series),
        offers={name: values[series] for name, values in known.offers.items()},
        **{name: getattr(known, name)[series] for name in _ARRAYS},
    )
