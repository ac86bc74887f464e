"""Running visits as a propensity model sees them: their events folded, with what was known when it was trained."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from features.errors import UserError
from features.sessions import Event, Item, ItemWeek, Person, Visit, VisitFold
from serving.artifact import Artifact, Json

_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_THIS_VISIT = "this"
_OF_VISIT = ("user_id", "user_pseudo_id", "source", "medium", "campaign", "device_category")


class Visits:
    """What was known of people and items when the model was trained; files begin with the target's name.

    ``TARGET.items.json`` (item_id, category, price, and the six columns of ``ItemWeek``, null without any) and
    ``TARGET.people.json`` (person_id and the columns of ``Person``), ``TARGET.owners.json`` (device_id, person_id).
    """

    def __init__(self, artifact: Artifact, name: str) -> None:
        items, people = artifact.json(f"{name}.items"), artifact.json(f"{name}.people")
        self._catalogue = {
            item_id: Item(*facts)
            for item_id, *facts in zip(items["item_id"], items["category"], items["price"], strict=True)
        }
        weeks = zip(items["item_id"], *(items[column] for column in ItemWeek._fields), strict=True)
        self._weeks = {item_id: ItemWeek(*facts) for item_id, *facts in weeks if facts[0] is not None}
        self._people: Mapping[str, Sequence[Any]] = {
            person_id: facts for person_id, *facts in zip(*people.values(), strict=True)
        }
        owners = artifact.json(f"{name}.owners")
        self._owners = dict(zip(owners["device_id"], owners["person_id"], strict=True))

    def seen(self, request: Json) -> tuple[Visit, ItemWeek | None]:
        """The visit that the last event belongs to, and the past weeks of its latest item.

        request : as ``schema.SessionRequest`` in JSON
        Raises UserError when it holds a purchase: the model knows visits before one.
        """
        told = sorted((_event(each, request) for each in request["events"]), key=lambda event: event.known_us)
        device = request["user_pseudo_id"]
        owners = {device: self._owners[device]} if device in self._owners else {}
        known = {request["user_id"], device, *owners.values()} & self._people.keys()
        fold = VisitFold(self._catalogue, {name: Person(*self._people[name]) for name in known}, owners)
        *_, visit = (visit for visit in map(fold.update, told) if visit is not None)
        if visit.n_purchases:
            raise UserError("the visit holds a purchase already: ask before it, or begin a new visit after it")
        return visit, self._weeks.get(visit.item_id or "")


def _event(told: Json, request: Json) -> Event:
    at_us = (datetime.fromisoformat(told["event_timestamp"]) - _EPOCH) // _MICROSECOND
    own = {name: told[name] for name in ("event_name", "item_id", "transaction_id", "quantity", "price")}
    return Event(
        event_us=at_us, known_us=at_us, session_id=_THIS_VISIT, **own, **{name: request[name] for name in _OF_VISIT}
    )
