"""What admins set for everybody, in MongoDB.

Collections: ``organisation`` (one document, so that each change is one atomic step) and
``prompts`` (the versions of every scope; ``_id`` is the version).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any

from pymongo.errors import DuplicateKeyError

from llmgateway.records import Group, Limits, Organisation, Prices, Prompt

from .database import Document, MongoDatabase

ORGANISATION = "organisation"
"""The one document's identifier."""


class MongoOrganisation:
    """An :class:`~llmgateway.interfaces.OrganisationStore` in MongoDB.

    The one document has everything that is in force, and the generation, and changes in one step.
    A prompt goes two steps: its text takes the next version, and then the place of the version in
    force, if that is lower. A process that dies in between leaves a version that never was in force.
    """

    def __init__(self, database: MongoDatabase) -> None:
        self._database = database

    def load(self) -> Organisation:
        document = self._document()
        groups = [_group(entry) for entry in document.get("groups") or ()]
        return Organisation(
            prompt=_in_force(document),
            credential=document.get("credential"),
            prices={entry["model"]: _prices(entry) for entry in document.get("prices") or ()},
            limits=Limits.from_json(document.get("limits")),
            groups={group.name: group for group in groups},
            generation=document.get("generation", ""),
        )

    def set_prompt(self, text: str, set_at: datetime) -> Prompt:
        prompt = self._add_prompt(text, set_at, scope="")
        while True:
            present = _in_force(self._document())
            if present.version > prompt.version:
                return prompt  # somebody else was faster, with a version above this one
            self._keep(present)
            if self._change({"prompt": asdict(prompt)}, if_={"prompt.version": present.version or None}):
                return prompt

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        if not scope:
            raise ValueError("a prompt without a scope is the organisation's, which set_prompt sets")
        return self._add_prompt(text, set_at, scope=scope)

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        # The one in force first: an older program keeps it nowhere else until it is replaced.
        present = _in_force(self._document())
        # What an older program wrote has no scope, and null stands for what is not there.
        wanted: Document = {} if scope is None else {"scope": {"$in": [scope, *([] if scope else [None])]}}
        with self._database.collection("prompts") as prompts:
            versions = {
                document["_id"]: prompt_of(document | {"version": document["_id"]}) for document in prompts.find(wanted)
            }
        if present.version and not scope:
            versions[present.version] = present
        return [versions[version] for version in sorted(versions, reverse=True)]

    def set_limits(self, limits: Limits) -> None:
        self._set({"limits": asdict(limits)})

    def set_group(self, group: Group) -> None:
        self._change_list("groups", "name", group.name, asdict(group))

    def remove_group(self, name: str) -> bool:
        return self._change_list("groups", "name", name, None)

    def set_credential(self, credential: bytes) -> None:
        self._set({"credential": credential})

    def set_prices(self, model: str, prices: Prices | None) -> None:
        self._change_list("prices", "model", model, None if prices is None else {"model": model} | asdict(prices))

    def _document(self) -> Document:
        with self._database.collections(promptly=True) as database:
            return database["organisation"].find_one({"_id": ORGANISATION}) or {}

    def _add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        while True:
            in_force = _in_force(self._document()).version
            with self._database.collection("prompts") as prompts:
                highest = prompts.find_one({}, {"_id": 1}, sort=[("_id", -1)]) or {"_id": 0}
                version = max(in_force, highest["_id"]) + 1
                try:
                    prompts.insert_one({"_id": version, "text": text, "set_at": set_at, "scope": scope})
                except DuplicateKeyError:
                    continue  # somebody else was faster
                return Prompt(version=version, text=text, set_at=set_at, scope=scope)

    def _keep(self, prompt: Prompt) -> None:
        """Keep a version that an older program has put in force; others are kept already."""
        if prompt.version:
            document = {"_id": prompt.version, "text": prompt.text, "set_at": prompt.set_at, "scope": ""}
            with self._database.collection("prompts") as prompts, suppress(DuplicateKeyError):
                prompts.insert_one(document)

    def _set(self, fields: Document) -> None:
        while not self._change(fields):
            pass  # lost the race to create the document; now it is there

    def _change_list(self, field: str, named: str, name: str, entry: Document | None) -> bool:
        """Put *entry* in the place of the one of its name, or remove that; False if there is none to remove."""
        # Lists, not documents by name: names of models and groups have dots in them.
        while True:
            document = self._document()
            before = document.get(field) or []
            after = [other for other in before if other[named] != name]
            if entry is None and len(after) == len(before):
                return False
            if entry is not None:
                after.append(entry)
            if self._change({field: after}, if_={"generation": document.get("generation")}):
                return True
            # Somebody else has changed something in between.

    def _change(self, fields: Document, *, if_: Document | None = None) -> bool:
        """Set *fields* and a new generation in one step; False if another process came first."""
        # MongoDB compares a field that is not there with null as equal.
        wanted = {"_id": ORGANISATION} | (if_ or {})
        changes = {"$set": fields | {"generation": secrets.token_hex(16)}}
        with self._database.collection("organisation") as organisation:
            try:
                organisation.update_one(wanted, changes, upsert=True)
            except DuplicateKeyError:
                # No document is as wanted, and the upsert found that there is one all the same.
                return False
        return True


def prompt_of(document: Mapping[str, Any]) -> Prompt:
    # What an older program wrote has no scope: there was only the organisation.
    return Prompt(
        version=document["version"],
        text=document["text"],
        set_at=document["set_at"],
        scope=document.get("scope") or "",
    )


def _in_force(organisation: Mapping[str, Any]) -> Prompt:
    document = organisation.get("prompt")
    return Prompt() if document is None else prompt_of(document)


def _prices(entry: Mapping[str, Any]) -> Prices:
    return Prices(prompt=entry["prompt"], cached=entry["cached"], completion=entry["completion"])


def _group(entry: Mapping[str, Any]) -> Group:
    models, prompt = entry["models"], entry["prompt"]
    return Group(
        name=entry["name"],
        created_at=entry["created_at"],
        note=entry["note"],
        starts_at=entry["starts_at"],
        expires_at=entry["expires_at"],
        models=None if models is None else tuple(models),
        limits=Limits.from_json(entry["limits"]),
        prompt=None if prompt is None else prompt_of(prompt),
    )
