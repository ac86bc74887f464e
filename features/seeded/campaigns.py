"""The campaigns of a seeded shop: every four weeks each customer is touched or held out at random, to known effect.

A campaign is sent at midnight and works until the next: for so long a treated person's purchase logit is raised by a
response. Those who are about to lapse can be persuaded, those who have just ordered are annoyed, all others do not
care; the direction can be told from the events of the shop, the strength cannot.
"""

from dataclasses import dataclass

import numpy as np

from features.seeded.chance import Bools, Floats, Ints
from features.seeded.people import mean_purchase_probability
from features.seeded.shop import CAMPAIGN_DAYS, Shop, Stream
from features.seeded.visits import Visits

CHANNELS = ("email", "post")
TOUCH_COSTS = (0.02, 0.8)
TREATED_SHARE = 0.5
RECENT_DAYS = 14
LAPSING_DAYS = (29, 56)
RECENT_LOGIT, LAPSING_LOGIT = -1.5, 1.5


def draw_response(days_since_order: Floats, rng: np.random.Generator) -> Floats:
    """What treatment adds to a person's purchase logit: 0, or that of a recent or lapsing customer, times a strength.

    The strength is of mean 1 and standard deviation 1/2.

    days_since_order : float array, shape (n,), infinite before a first order
    """
    first, last = LAPSING_DAYS
    lapsing = (first <= days_since_order) & (days_since_order <= last)
    logit = np.select([days_since_order <= RECENT_DAYS, lapsing], [RECENT_LOGIT, LAPSING_LOGIT], 0.0)
    return np.asarray(logit * rng.gamma(4, 1 / 4, len(logit)))


@dataclass(frozen=True, slots=True)
class Campaign:
    """One campaign, an entry per customer treated or held out.

    day : on which it was sent
    conversion : float array, shape (2, n)   mean purchase probability of a visit if held out, and if treated
    log_none : float array, shape (2, n)   log-probability of no purchase so far, likewise
    """

    day: int
    person: Ints
    treated: Bools
    conversion: Floats
    log_none: Floats

    @property
    def probability(self) -> Floats:
        """Of a purchase, stock permitting, if held out and if treated, shape (2, n)."""
        return np.asarray(-np.expm1(self.log_none))


class Campaigns:
    """The campaigns of a shop as its days go by.

    logit : float array, shape (n_users,)   each person's purchase logit today
    sent : in order of time
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.logit = shop.people.logit
        self.last_order_day = np.full(shop.scale.n_users, -np.inf)
        self.sent: list[Campaign] = []

    def open(self, day: int, customers: Bools) -> None:
        """End a campaign that has worked long enough, and send the day's, if it has one.

        customers : bool array, shape (n_users,)   who is known to the shop that morning
        """
        if day % CAMPAIGN_DAYS == 0:
            self.logit = self.shop.people.logit
        if day in self.shop.sending_days:
            self._send(day, np.flatnonzero(customers))

    def _send(self, day: int, person: Ints) -> None:
        rng, usual = self.shop.rng(Stream.CAMPAIGN, day), self.shop.people.logit
        treated = rng.random(len(person)) < TREATED_SHARE
        if_treated = usual[person] + draw_response(day - self.last_order_day[person], rng)
        self.logit = usual.copy()
        self.logit[person[treated]] = if_treated[treated]
        conversion = mean_purchase_probability(np.stack([usual[person], if_treated]))
        self.sent.append(Campaign(day, person, treated, conversion, np.zeros_like(conversion)))

    def close(self, day: int, rates: Floats, visits: Visits, purchased: Bools) -> None:
        """Note who ordered, and what a day of so many visits at these rates gave the campaign's customers to buy."""
        self.last_order_day[visits.person[purchased]] = day
        for campaign in self.sent[-1:]:
            if day < campaign.day + CAMPAIGN_DAYS:
                share = self.shop.visitors.shares(rates)[campaign.person]
                campaign.log_none[:] += len(visits) * np.log1p(-share * campaign.conversion)
