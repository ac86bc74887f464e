"""What was found of the version that was promoted last; every worker reads it and serves accordingly."""

import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, Self

import orjson

FILE = "verdict.json"


class Asked(NamedTuple):
    """A version that was promoted.

    at_ns : when, by the link to it, nanoseconds since 1970: promoted again, it is tried again
    """

    version: str
    at_ns: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the version that was promoted last may serve, and which one does.

    fault : why it may not; "" where it may
    serves, before : the version that serves, and the one before it
    since : seconds since 1970, when ``serves`` takes over in all workers
    """

    asked: Asked
    fault: str = ""
    serves: str | None = None
    before: str | None = None
    since: float = 0.0

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The verdict in the folder of a task's versions, or None when nothing was tried yet."""
        try:
            told = orjson.loads((folder / FILE).read_bytes())
        except FileNotFoundError:
            return None
        return cls(**{**told, "asked": Asked(*told["asked"])})

    def write(self, folder: Path) -> None:
        """Readers see the old verdict or the new, never a part."""
        staging = folder / f".{FILE}.{uuid.uuid4().hex}"
        try:
            staging.write_bytes(orjson.dumps({**asdict(self), "asked": list(self.asked)}))
            staging.replace(folder / FILE)
        finally:
            staging.unlink(missing_ok=True)

    def on(self, asked: Asked, fault: str, serves: str | None, since: float = 0.0) -> "Verdict":
        """The verdict that follows this one."""
        before = self.before if serves == self.serves else self.serves
        return Verdict(asked, fault, serves, before, since)
