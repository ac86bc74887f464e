"""API keys: who may ask what. ``HOME/SHOP/keys.json`` holds their digests, never a key; without that file all may ask.

A key is 256 random bits, so one hash keeps it as well as a slow one would.
"""

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from hmac import compare_digest
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from features.errors import UserError

Scope = Literal["recommend", "events", "plan", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Recommendations and propensity; taking events in; forecasts and orders; models and metrics."""

REQUIRED = "SHOPKEEPER_KEYS_REQUIRED"
"""Set in the environment of a service that others can reach: without keys nobody may ask."""
_PREFIX = "sk_"


class Key(BaseModel):
    """A key as it is kept: its SHA-256 in hexadecimal digits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    scopes: tuple[Scope, ...]
    digest: str
    created_at: datetime


class Holder(NamedTuple):
    """Who asks, and what for."""

    name: str
    scopes: tuple[Scope, ...]


ANYBODY = Holder("", SCOPES)
"""Whoever asks where there are no keys."""

_KEYS = TypeAdapter(tuple[Key, ...])


class Keys:
    """The keys of a shop, as its file has them at each question: one that is added or removed counts at once."""

    def __init__(self, path: Path, is_required: bool = False) -> None:
        self.path = path
        self._is_required = is_required
        self._read: tuple[Key, ...] = ()
        self._version: tuple[int, int, int] | None = None

    def kept(self) -> tuple[Key, ...]:
        """The keys that there are now. Raises UserError when the file cannot be read."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            self._read = ()
            return ()
        except OSError as error:
            raise UserError(f"{self.path} cannot be read ({error.strerror}): mend that") from error
        version = found.st_ino, found.st_mtime_ns, found.st_size
        if version != self._version:
            self._read, self._version = self._fresh(), version
        return self._read

    def holder(self, authorization: str) -> Holder | None:
        """Who sends this header; None without a key that there is. Every key is compared, each in constant time.

        Where there never was a file of keys, and none is required, that is anybody.
        """
        kept = self.kept()
        if self._version is None and not self._is_required:
            return ANYBODY
        scheme, _, presented = authorization.partition(" ")
        digest = _digest(presented.strip())
        found = [key for key in kept if compare_digest(key.digest, digest)]
        return Holder(found[0].name, found[0].scopes) if found and scheme.lower() == "bearer" else None

    def add(self, name: str, scopes: Sequence[Scope]) -> str:
        """A new key; it is kept nowhere and cannot be told again. Raises UserError for a name that there is."""
        key = _PREFIX + secrets.token_urlsafe(32)
        added = Key(name=name, scopes=tuple(scopes), digest=_digest(key), created_at=datetime.now(UTC))
        with self._alone():
            if name in (there.name for there in self.kept()):
                raise UserError(f"there is a key {name} already: choose another name, or remove it first")
            self._write((*self.kept(), added))
        return key

    def remove(self, name: str) -> None:
        """Raises UserError for a name that there is not."""
        with self._alone():
            left = tuple(key for key in self.kept() if key.name != name)
            if len(left) == len(self.kept()):
                there = ", ".join(key.name for key in left) or "none"
                raise UserError(f"there is no key {name}; there are: {there}")
            self._write(left)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock of the keys; a process that dies lets go of it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _fresh(self) -> tuple[Key, ...]:
        try:
            return _KEYS.validate_json(self.path.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{self.path} does not hold keys: restore it, or remove it and add them anew") from error

    def _write(self, keys: tuple[Key, ...]) -> None:
        staged = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        staged.touch(mode=0o600)
        staged.write_bytes(_KEYS.dump_json(keys, indent=2))
        staged.replace(self.path)


@cache
def of(home: Path, shop: str) -> Keys:
    """The keys of a shop; read once per process, and again when they change."""
    return Keys(home / shop / "keys.json", is_required=bool(os.environ.get(REQUIRED)))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
