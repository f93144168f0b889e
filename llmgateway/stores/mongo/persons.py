"""What is set for people, in MongoDB's collection ``persons``. ``_id`` is the name, which the server compares exactly.

A change takes two steps: the person is changed, and then the organisation gets a new version, so that every process
loads it again. A process that dies in between leaves a change that holds from the next version on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from pymongo.errors import DuplicateKeyError

from llmgateway.records import Limits, Person, Raise

from .database import Document, MongoDatabase


class MongoPersons:
    """A :class:`~llmgateway.interfaces.PersonStore` in MongoDB.

    Args:
        begin_version: Lets every process load the organisation again.
    """

    def __init__(self, database: MongoDatabase, *, begin_version: Callable[[], None]) -> None:
        self._database = database
        self._begin_version = begin_version

    def get(self, user: str) -> Person | None:
        document = self._find(user)
        return None if document is None else person_of(document)

    def change(self, user: str, change: Callable[[Person | None], Person | None]) -> Person | None:
        while True:
            before = self._find(user)
            after = change(None if before is None else person_of(before))
            try:
                is_replaced = self._replace(user, before, after)
            finally:
                # Also after an error: the server may have made the change although its answer was lost.
                self._begin_version()
            if is_replaced:
                return after
            # Another process has changed the person in between.

    def _find(self, user: str) -> Document | None:
        with self._database.collection("persons") as persons:
            return persons.find_one({"_id": user})

    def _replace(self, user: str, before: Document | None, after: Person | None) -> bool:
        """Replace a person; False if another process came first."""
        # The revision shows whether the document is still the one from before.
        wanted = {"_id": user, "revision": None if before is None else before["revision"]}
        with self._database.collection("persons") as persons:
            if after is None:
                return before is None or persons.delete_one(wanted).deleted_count == 1
            document = _document(after)
            if before is not None:
                return persons.replace_one(wanted, document).matched_count == 1
            try:
                persons.insert_one(document)
            except DuplicateKeyError:
                return False
            return True


def person_of(document: Mapping[str, Any]) -> Person:
    return Person(
        user=document["_id"],
        limits=Limits.from_json(document["limits"]),
        raised=Raise.from_json(document["raised"]),
    )


def _document(person: Person) -> Document:
    return {
        "_id": person.user,
        "limits": asdict(person.limits),
        "raised": None if person.raised is None else person.raised.as_json(),
        "revision": secrets.token_hex(8),
    }
