"""A person's data: everything that is kept of them, handed out or erased.

A person is everybody who has, or had, a key under exactly this name. An erasure goes by these keys, and not by the
name: so records that arrive later lose the name, too, and a person who gets the same name later has nothing to do with
it.

It takes these steps, each of which can be repeated:

1. what can only be found by the name is erased;
2. the erasure is stored, with the keys and a pseudonym: from now on it holds for everything that arrives later;
3. each holder erases what belongs to the keys; first the keys are removed, which ends running answers;
4. the journals of this host are shipped, with the records of these answers;
5. the file of the embedded store is written anew, and its write-ahead log is emptied.

If the process dies after the second step, another one finishes the erasure. If it dies before, most of the data is
still there under the name.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple

import orjson

from ..clock import Clock
from ..errors import NotFound, StoreUnavailable
from ..interfaces import Erasures, Scrubbing
from ..records import Erasure, NameDigest, moment
from .holders import Holder
from .keys import Keys

log = logging.getLogger(__name__)

WAIT_SECONDS = 6.0
"""How long an erasure waits until the journals of this host have shipped the last records: running answers end within
two seconds on the host, and within five on other hosts."""

POLL_SECONDS = 0.1

LEFT_ALONE = timedelta(seconds=60)
"""Another process finishes an erasure that is older. A younger one is probably still being carried out."""

RECENT = timedelta(minutes=10)
"""For this time after an erasure, each process forgets again what the last answers of the person have left in it."""

JOURNAL = "The journals of this host still have records of running requests. They are shipped when these end."
FILE = "The write-ahead log of the embedded store could not be emptied yet, because another program reads from it."


class Found(NamedTuple):
    """What is kept of a person."""

    user: str
    key_ids: tuple[str, ...]
    shared: tuple[str, ...]
    """Those that somebody else has had, too."""
    groups: frozenset[str | None]
    """Those of the keys that there are."""
    counts: Mapping[str, int]
    """By name of the holder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What an erasure has done, or would do."""

    pseudonym: str | None
    """None if nothing was erased."""
    key_ids: tuple[str, ...]
    counts: Mapping[str, int]
    """What was there before, by name of the holder."""
    pending: tuple[str, ...] = ()
    """What could not be done yet, and is done later."""


class PersonalData:
    """Exports and erases the data of persons. Thread-safe.

    Args:
        holders: Erase in this order. The keys should come first.
        remembered: The holder of what each process also has in its memory.
        mentions: Returns whether a journal of this host has lines about these keys.
        ship: Ships the records of this process.
        forget_counts: Forgets what a person has used of budgets, also as a member of these groups. The counters have a
            digest of the name.
        scrubbing: The file of the embedded store, if there is one.
        pause: Waits for the given number of seconds.
    """

    def __init__(
        self,
        keys: Keys,
        holders: Sequence[Holder],
        erasures: Erasures,
        *,
        remembered: Holder,
        mentions: Callable[[Collection[str]], bool],
        ship: Callable[[], object],
        forget_counts: Callable[[str, Collection[str | None]], object],
        scrubbing: Scrubbing | None,
        clock: Clock,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._keys = keys
        self._holders = holders
        self._erasures = erasures
        self._remembered = remembered
        self._mentions = mentions
        self._ship = ship
        self._forget_counts = forget_counts
        self._scrubbing = scrubbing
        self._clock = clock
        self._pause = pause
        self._rewritten: set[str] = set()  # the pseudonyms after whose erasure this process has written the file anew

    def find(self, user: str) -> Found:
        """Return what is kept of *user*.

        Raises:
            NotFound: nothing is.
        """
        self._ship()
        person = self._find(user)
        if not any(person.counts.values()) and not person.key_ids:
            raise NotFound(
                "Nothing is kept of a person with this name. GET /admin/keys lists who has keys.", param="user"
            )
        return person

    def export(self, user: str) -> Export:
        """Return everything that is kept of *user*, as JSON that is read piece by piece.

        Raises:
            NotFound: nothing is.
        """
        person = self.find(user)
        return Export(person, self._holders, exported_at=moment(self._clock()))

    def preview(self, user: str) -> Erased:
        """Return what :meth:`erase` would erase. Raises NotFound."""
        person = self.find(user)
        return Erased(pseudonym=None, key_ids=person.key_ids, counts=person.counts)

    def erase(self, user: str) -> Erased:
        """Erase everything that is kept of *user*. After an error it can be repeated.

        Raises:
            NotFound: nothing is kept, and no erasure of this person is unfinished.
        """
        begun = next((one for one in self._erasures.unfinished() if one.name and one.name.is_of(user)), None)
        person = self.find(user) if begun is None else self._find(user)
        erasure = Erasure(
            pseudonym=f"erased-{secrets.token_hex(8)}" if begun is None else begun.pseudonym,
            erased_at=moment(self._clock()),
            key_ids=person.key_ids,
            shared=person.shared,
            name=NameDigest.of(user),
        )
        for holder in self._holders:
            holder.erase_name(user, erasure.pseudonym)
        self._erasures.begin(erasure)
        if begun is not None:
            key_ids = tuple(sorted({*begun.key_ids, *erasure.key_ids}))
            shared = tuple(sorted({*begun.shared, *erasure.shared}))
            erasure = replace(begun, key_ids=key_ids, shared=shared)
        pending = self._carry_out(erasure, wait=WAIT_SECONDS, user=user)
        self._forget_counts(user, person.groups)
        return Erased(
            pseudonym=erasure.pseudonym, key_ids=erasure.key_ids, counts=person.counts, pending=tuple(pending)
        )

    def look_after(self) -> None:
        """Finish the erasures of processes that have died, or that could not finish them. Each process calls this."""
        now = moment(self._clock())
        try:
            for erasure in self._erasures.since(now - RECENT):
                self._remembered.erase(erasure)
            for erasure in self._erasures.unfinished():
                if erasure.erased_at < now - LEFT_ALONE and not self._carry_out(erasure, wait=0):
                    log.info("The erasure %s is finished.", erasure.pseudonym)
        except StoreUnavailable as error:
            log.debug("Unfinished erasures are looked for later: %s", error)

    def _find(self, user: str) -> Found:
        kept = {holder.name: holder.kept_of(user) for holder in self._holders}
        names: dict[str, set[str]] = {}
        for found in kept.values():
            for key_id, each in found.names.items():
                names.setdefault(key_id, set()).update(each)
        present = self._keys.get_all(sorted(names))
        for key in present:
            names[key.id].add(key.user)
        shared = [key_id for key_id, each in names.items() if each - {user}]
        counts = {name: found.records for name, found in kept.items()}
        groups = frozenset(key.group for key in present)
        return Found(user, tuple(sorted(names)), tuple(sorted(shared)), groups, counts)

    def _carry_out(self, erasure: Erasure, *, wait: float, user: str | None = None) -> list[str]:
        """Erase what belongs to the keys, and return what could not be done yet.

        Args:
            user: The name, if it is known. Another process may have written it anew before the keys had gone.
        """
        for holder in self._holders:
            holder.erase(erasure)
        pending = []
        if erasure.key_ids and self._mentions(erasure.key_ids) and not self._shipped(erasure, wait=wait):
            pending.append(JOURNAL)
        if user is not None:
            for holder in self._holders:
                holder.erase_name(user, erasure.pseudonym)
        if not self._is_scrubbed(erasure.pseudonym):
            pending.append(FILE)
        if not pending:
            self._erasures.finish(erasure.pseudonym)
        return pending

    def _shipped(self, erasure: Erasure, *, wait: float) -> bool:
        """Wait until the journals of this host have nothing of the person; return False if it takes too long."""
        for _ in range(int(wait / POLL_SECONDS)):
            self._ship()
            if not self._mentions(erasure.key_ids):
                # The last answers may have left something behind.
                for holder in self._holders:
                    holder.erase(erasure)
                return True
            self._pause(POLL_SECONDS)
        return False

    def _is_scrubbed(self, pseudonym: str) -> bool:
        if self._scrubbing is None:
            return True
        if pseudonym not in self._rewritten:
            self._scrubbing.rewrite()
            self._rewritten.add(pseudonym)
        return self._scrubbing.empty_wal()


class Export:
    """A JSON object with all data of a person, in pieces. It can be iterated over once."""

    def __init__(self, person: Found, holders: Sequence[Holder], *, exported_at: Any) -> None:
        self._person = person
        self._holders = holders
        self._exported_at = exported_at

    def __iter__(self) -> Iterator[bytes]:
        person = self._person
        yield orjson.dumps({"user": person.user, "exported_at": self._exported_at, "key_ids": person.key_ids})[:-1]
        for holder in self._holders:
            for name, items in holder.export(person.user, person.key_ids).items():
                yield b',"%b":[' % name.encode()
                separator = b""
                for item in items:
                    yield separator + orjson.dumps(item)
                    separator = b","
                yield b"]"
        yield b"}\n"

    def close(self) -> None:
        """Do nothing: no connection is held between two pieces."""
