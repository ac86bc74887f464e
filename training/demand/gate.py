"""What the gate asks of a demand forecast that no backtest tells: the money that orders by it would have cost."""

from datetime import datetime

from features.engine import Engine
from features.shops import Shop
from training.demand.config import DemandConfig
from training.demand.replay import replayed
from training.evaluation import Row

N_WINDOWS = 2
_PRICED = "select * from supply where holding_cost is not null and shortage_cost is not null"


def cost_rows(engine: Engine, shop: Shop, config: DemandConfig, until: datetime) -> list[Row]:
    """The cost of orders by the forecast's paths in each of the last windows before ``until``.

    Of the items for which ``supply`` states costs; none where it does for no item.
    Raises UserError when there is too little history, or an order must last longer than the forecast reaches.
    """
    priced = engine.narrow({"supply": _PRICED})
    if not priced.select("select item_id from supply limit 1").num_rows:
        return []
    rows = replayed(priced, shop.demand_frequency, config, until, N_WINDOWS, shop.country)
    return [row for row in rows if (row.model, row.metric) == ("paths", "cost") and row.segment.endswith(" all")]
