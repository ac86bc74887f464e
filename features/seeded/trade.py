"""A seeded shop's business, day after day."""

from dataclasses import dataclass

import numpy as np

from features.contract import EVENT_NAMES
from features.seeded.campaigns import Campaigns
from features.seeded.catalogue import Offers
from features.seeded.chance import Bools, Floats, Ints, choose
from features.seeded.clock import DAY_US, HOUR_US, midnight
from features.seeded.shop import TYPICAL_EVENTS_PER_VISIT, Shop, Stream
from features.seeded.stockroom import Stockroom
from features.seeded.visits import EVENT, Rows, Visits, draw_lines, draw_views, draw_visits

LANDING_SHARES = np.array([0.35, 0.25, 0.4])  # on a page, with a search, on an item
REFUND_SHARE = 0.03
REFUND_DAYS = 20
LATE_SHARE = 0.03
MEAN_LATENESS_US = 6 * HOUR_US


@dataclass(frozen=True, slots=True)
class Day:
    """What happened on a day: an entry per event, per visit, or per item; stock as it was in the morning."""

    number: int
    first_event: int
    events: Rows
    received_at: Ints
    visits: Visits
    probability: Floats
    purchased: Bools
    expected_demand: Floats
    offers: Offers
    on_hand: Floats
    on_order: Floats
    available_fraction: Floats
    was_available: Bools


class Trade:
    """The state of a shop from day to day; its days are opened one after another."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.stockroom = Stockroom(shop.catalogue, shop.mean_demand())
        self.campaigns = Campaigns(shop)
        self.traffic = np.array([shop.rates(day).sum() for day in range(shop.scale.n_days)])
        self.greeted = shop.people.login_at < 0
        self.refunds = np.empty(0, EVENT)
        self.n_events, self.n_visits = 0, 0

    def open(self, day: int) -> Day:
        """Live through the next day; its random numbers are its own."""
        rng, rates, offers = self.shop.rng(Stream.DAY, day), self.shop.rates(day), self.shop.offers(day)
        was_available = self.stockroom.available_fraction == 1
        self.stockroom.receive(day)
        on_hand, on_order = self.stockroom.on_hand, self.stockroom.on_order
        self.campaigns.open(day, self.greeted)
        session = self.n_visits + np.arange(self._planned_visits(day))
        visits = draw_visits(self.shop, day, rates, self.campaigns.logit, session, rng)
        probability, purchased, rows = self._live_through(visits, rates, rng)
        rows["price"] = np.where(rows["item"] >= 0, offers.price[rows["item"]], np.nan)
        events = self._with_refunds(rows, day, rng)
        lateness = (rng.random(len(events)) < LATE_SHARE) * rng.exponential(MEAN_LATENESS_US, len(events))
        self.stockroom.reorder(day, rng)
        self.campaigns.close(day, rates, visits, purchased)
        self.n_events += len(events)
        self.n_visits += len(visits)
        return Day(
            number=day,
            first_event=self.n_events - len(events),
            events=events,
            received_at=events["time"] + lateness.astype(int),
            visits=visits,
            probability=probability,
            purchased=purchased,
            expected_demand=self.shop.expected_demand(rates, len(visits)),
            offers=offers,
            on_hand=on_hand,
            on_order=on_order,
            available_fraction=self.stockroom.available_fraction,
            was_available=was_available,
        )

    def _planned_visits(self, day: int) -> int:
        """The day's share of the visits that the events still to come need, at the events per visit seen so far."""
        events_per_visit = (1_000 * TYPICAL_EVENTS_PER_VISIT + self.n_events) / (1_000 + self.n_visits)
        share = self.traffic[day] / self.traffic[day:].sum()
        return int(max(0, round((self.shop.n_events - self.n_events) / events_per_visit * share)))

    def _live_through(self, visits: Visits, rates: Floats, rng: np.random.Generator) -> tuple[Floats, Bools, Rows]:
        """What happens in the visits: the true probability of a purchase, whether there was one, and the events."""
        lines = draw_lines(visits, self.shop.catalogue, rates, rng)
        views = draw_views(visits, lines, self.shop.catalogue, rates, rng)
        wanted, tempted = (rng.random(len(visits)) < visits.probability for _ in range(2))
        carted = (wanted | tempted)[lines.visit] & (self.stockroom.on_hand[lines.item] > 0)
        asked, last_step = lines.quantity * wanted[lines.visit], views.last_step[lines.visit]
        sale = self.stockroom.sell(lines.item, asked, visits.at(lines.visit, last_step) % DAY_US)
        in_stock = np.bincount(lines.visit, sale.in_stock, len(visits)) > 0
        in_mind = views.step[: len(lines.visit)]
        carts = visits.rows("add_to_cart", lines.visit, in_mind + 1, lines.item, lines.quantity)[carted]
        orders = visits.rows("purchase", lines.visit, last_step, lines.item, sale.taken)[sale.taken > 0]
        browsed = visits.rows("view_item", views.visit, views.step, views.item)
        rows = np.concatenate([self._greetings(visits), *_landings(visits, rng), browsed, carts, orders])
        return visits.probability * in_stock, wanted & in_stock, rows

    def _greetings(self, visits: Visits) -> Rows:
        """The login with which a guest's first visit as a customer begins."""
        by_time = np.argsort(visits.started_at, kind="stable")
        new = by_time[(visits.logged_in & ~self.greeted[visits.person])[by_time]]
        person, first = np.unique(visits.person[new], return_index=True)
        self.greeted[person] = True
        return visits.rows("login", new[first], step=0)

    def _with_refunds(self, rows: Rows, day: int, rng: np.random.Generator) -> Rows:
        """The day's events in order of time, with the refunds due; some of its purchases will be refunded later."""
        end = midnight(day + 1)
        due = self.refunds["time"] < end
        refunded = rows[(rows["name"] == EVENT_NAMES.index("purchase")) & (rng.random(len(rows)) < REFUND_SHARE)]
        refunded["time"] = end + rng.integers(0, REFUND_DAYS * DAY_US, len(refunded))
        refunded["name"], refunded["session"], refunded["source"] = EVENT_NAMES.index("refund"), -1, -1
        rows = np.concatenate([rows, self.refunds[due]])
        self.refunds = np.concatenate([self.refunds[~due], refunded])
        return rows[np.argsort(rows["time"], kind="stable")]


def _landings(visits: Visits, rng: np.random.Generator) -> tuple[Rows, Rows]:
    """Visits that begin on a page or with a search; the others begin on an item."""
    landing = choose(LANDING_SHARES, len(visits), rng)
    on_page, searching = (np.flatnonzero(landing == kind) for kind in range(2))
    return visits.rows("page_view", on_page, step=1), visits.rows("search", searching, step=1)
