"""The campaigns of a seeded shop: every four weeks each customer is touched or held out at random, to known effect.

A campaign is sent at midnight and works until the next: for so long the purchase logit of a treated person is raised by
the person's response. Who responds can mostly be told from how often people come and on which device; some respond
otherwise than people like them.
"""

from dataclasses import dataclass, replace

import numpy as np

from features.seeded.chance import Bools, Floats, Ints, choose
from features.seeded.people import DEVICES, People
from features.seeded.shop import CAMPAIGN_DAYS, Shop, Stream

CHANNELS = ("email", "post")
TOUCH_COSTS = (0.02, 0.8)
TREATED_SHARE = 0.5
RESPONSE_LOGITS = np.array([0.0, 1.5, -1.5])  # indifferent, persuadable, annoyed
INDIFFERENT, PERSUADABLE, ANNOYED = range(3)
ANNOYED_FROM, PERSUADABLE_FROM = 0.9, 0.5  # of people by rising activity
ERRATIC_SHARE = 0.15
ERRATIC_SHARES = np.array([0.5, 0.25, 0.25])


def draw_response(people: People, rng: np.random.Generator) -> Floats:
    """What a touch adds to each person's purchase logit, shape (n_users,).

    The most active tenth is annoyed, the others of the more active half are persuadable on a mobile phone, and the rest
    do not care; an erratic share responds in any of these ways.
    """
    n_users = len(people.activity)
    quantile = np.argsort(np.argsort(people.activity)) / n_users
    persuadable = (quantile >= PERSUADABLE_FROM) & (people.device == DEVICES.index("mobile"))
    kind = np.select([quantile >= ANNOYED_FROM, persuadable], [ANNOYED, PERSUADABLE], INDIFFERENT)
    erratic = rng.random(n_users) < ERRATIC_SHARE
    return np.asarray(RESPONSE_LOGITS[np.where(erratic, choose(ERRATIC_SHARES, n_users, rng), kind)])


@dataclass(frozen=True, slots=True)
class Campaign:
    """One campaign, an entry per customer treated or held out.

    day : on which it was sent
    log_none : float array, shape (2, n)   log-probability of no purchase so far if held out, and if treated
    """

    day: int
    person: Ints
    treated: Bools
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
        self.shop, people = shop, shop.people
        self.response = draw_response(people, shop.rng(Stream.RESPONSE))
        treated = replace(people, logit=people.logit + self.response)
        self.conversion = np.stack([people.conversion, treated.conversion])
        self.logit = people.logit
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
        treated = self.shop.rng(Stream.CAMPAIGN, day).random(len(person)) < TREATED_SHARE
        self.logit = self.shop.people.logit.copy()
        self.logit[person[treated]] += self.response[person[treated]]
        self.sent.append(Campaign(day, person, treated, np.zeros((2, len(person)))))

    def close(self, day: int, rates: Floats, n_visits: int) -> None:
        """Add a day of so many visits at these rates to what the running campaign's customers could have bought."""
        for campaign in self.sent[-1:]:
            if day < campaign.day + CAMPAIGN_DAYS:
                share = self.shop.visitors.shares(rates)[campaign.person]
                campaign.log_none[:] += n_visits * np.log1p(-share * self.conversion[:, campaign.person])
