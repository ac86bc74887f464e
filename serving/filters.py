"""Which items may come: expressions over their attributes, read once and laid over the catalogue as masks.

    item_category = 'wine' and (price < 20 or item_brand in ('Leitz', 'Kesseler')) and not created_at < '2024-01-01'

Texts are compared by ``=``, ``!=`` and ``in``, numbers and instants also by ``<``, ``<=``, ``>`` and ``>=``; of a cell
with several values (``red|blue``) one is enough. What an item does not state fulfils no comparison.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, Literal, NamedTuple, Protocol, get_args

from features.errors import UserError
from serving.catalogue import KEYWORDS, Bools, Catalogue, Column, Texts, Value

LONGEST = 2000
"""Characters of an expression."""
DEEPEST = 20
"""Parentheses and ``not`` within one another."""

Comparison = Literal["=", "!=", "<", "<=", ">", ">=", "in"]
_COMPARISONS: tuple[str, ...] = get_args(Comparison)
_ORDERS: Mapping[str, Callable[[Any, float], Bools]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d{1,3})?)(?![\w.])
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")
    |(?P<word>[A-Za-z_]\w*)
    |(?P<sign><=|>=|!=|[=<>(),]))""",
    re.VERBOSE,
)


class Filter(Protocol):
    """A condition that an item fulfils or not."""

    def mask(self, catalogue: Catalogue) -> Bools:
        """Which items fulfil it, bool, shape (n_items,).

        Raises UserError for an attribute that items do not have, and for a comparison that it does not allow.
        """


@dataclass(frozen=True, slots=True)
class Compared:
    """An attribute compared with values, of which ``in`` has any number and the others one."""

    name: str
    comparison: Comparison
    values: tuple[Value, ...]

    def mask(self, catalogue: Catalogue) -> Bools:
        column = catalogue.column(self.name)
        try:
            return self._mask(column)
        except UserError as error:
            raise UserError(f"{self.name} {error}") from error

    def _mask(self, column: Column) -> Bools:
        if self.comparison not in _ORDERS:
            equal = column.among(self.values)
            return column.stated & ~equal if self.comparison == "!=" else equal
        if isinstance(column, Texts):
            raise UserError("is a text and has no order: compare it by =, != or in")
        return _ORDERS[self.comparison](column.values, column.read(self.values[0]))


@dataclass(frozen=True, slots=True)
class Every:
    """Each of several conditions."""

    parts: tuple[Filter, ...]

    def mask(self, catalogue: Catalogue) -> Bools:
        return reduce(operator.and_, (part.mask(catalogue) for part in self.parts))


@dataclass(frozen=True, slots=True)
class Some:
    """At least one of several conditions."""

    parts: tuple[Filter, ...]

    def mask(self, catalogue: Catalogue) -> Bools:
        return reduce(operator.or_, (part.mask(catalogue) for part in self.parts))


@dataclass(frozen=True, slots=True)
class Not:
    """What does not fulfil a condition."""

    part: Filter

    def mask(self, catalogue: Catalogue) -> Bools:
        return ~self.part.mask(catalogue)


class _Token(NamedTuple):
    kind: str
    text: str
    place: int


@lru_cache(maxsize=1024)
def parsed(expression: str) -> Filter:
    """The condition that an expression states.

    >>> parsed("price < 20 and not item_brand in ('a', 'b')").parts[0]
    Compared(name='price', comparison='<', values=(20.0,))

    Raises UserError that says where the expression stops making sense, and what could stand there.
    """
    if len(expression) > LONGEST:
        raise UserError(f"the filter has {len(expression)} characters, allowed are {LONGEST}: write a shorter one")
    reader = _Reader(expression)
    found = reader.some()
    reader.take("end", "", "and, or, or its end")
    return found


class _Reader:
    """Reads the grammar from the left: ``some`` of ``every`` of ``one``."""

    def __init__(self, expression: str) -> None:
        self._tokens = _tokens(expression)
        self._next = next(self._tokens)
        self._depth = 0

    def some(self) -> Filter:
        parts = [self.every()]
        while self._had("word", "or"):
            parts.append(self.every())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def every(self) -> Filter:
        parts = [self.one()]
        while self._had("word", "and"):
            parts.append(self.one())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def one(self) -> Filter:
        self._depth += 1
        if self._depth > DEEPEST:
            raise UserError(f"the filter is nested deeper than {DEEPEST}: write a flatter one")
        found = self._one()
        self._depth -= 1
        return found

    def _one(self) -> Filter:
        if self._had("word", "not"):
            return Not(self.one())
        if self._had("sign", "("):
            found = self.some()
            self.take("sign", ")", ")")
            return found
        return self._compared()

    def _compared(self) -> Compared:
        name = self._next
        if name.kind != "word" or name.text in KEYWORDS:
            raise self._unexpected("an attribute, not or (")
        self._advance()
        comparison = next((c for c in _COMPARISONS if self._had("word" if c == "in" else "sign", c)), None)
        if comparison is None:
            raise self._unexpected(f"one of {' '.join(_COMPARISONS)}")
        return Compared(name.text, comparison, self._values() if comparison == "in" else (self._value(),))  # type: ignore[arg-type]

    def _values(self) -> tuple[Value, ...]:
        self.take("sign", "(", "(")
        values = [self._value()]
        while self._had("sign", ","):
            values.append(self._value())
        self.take("sign", ")", ", or )")
        return tuple(values)

    def _value(self) -> Value:
        kind, text, _ = self._next
        if kind not in ("number", "text"):
            raise self._unexpected("a number, or a text in quotes")
        self._advance()
        return float(text) if kind == "number" else text[1:-1].replace(text[0] * 2, text[0])

    def take(self, kind: str, text: str, expected: str) -> None:
        if not self._had(kind, text):
            raise self._unexpected(expected)

    def _had(self, kind: str, text: str) -> bool:
        if (self._next.kind, self._next.text) != (kind, text):
            return False
        self._advance()
        return True

    def _advance(self) -> None:
        self._next = next(self._tokens, self._next)

    def _unexpected(self, expected: str) -> UserError:
        got = f"got {self._next.text}" if self._next.text else "it ends"
        return UserError(f"the filter at character {self._next.place + 1}: {got}, where {expected} could stand")


def _tokens(expression: str) -> Iterator[_Token]:
    place = 0
    while match := _TOKEN.match(expression, place):
        kind = match.lastgroup or ""
        yield _Token(kind, match[kind], match.start(kind))
        place = match.end()
    rest = expression[place:].lstrip()
    yield _Token("unread" if rest else "end", rest[:20], len(expression) - len(rest))
