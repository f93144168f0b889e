"""The settings of the organisation and the groups in MongoDB.

Collections: ``organisation`` (one document, so that each change is atomic) and ``prompts`` (the versions of all scopes;
``_id`` is the version).

Removing a group takes three steps: the group is marked with ``removing``; its keys are searched; if there are none and
the mark still exists, the group is deleted. To put a key into a group, the key is first marked, and then the group is
checked for its mark (see ``keys.py`` and ``imports.py``). So if two processes do both at the same time, at least one of
them notices the other. A mark of a dead process is removed after a minute, by the next process that finds it. If the
first process was only slow, it notices that its mark is gone, and starts again.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError

from llmgateway.clock import Clock
from llmgateway.errors import GroupInUse, NoSuchGroup
from llmgateway.records import (
    Budget,
    Group,
    Limits,
    ModelSettings,
    Organisation,
    Prices,
    Prompt,
    Raise,
    SelfService,
    moment,
)

from .database import Document, MongoDatabase
from .imports import end_abandoned_imports
from .persons import person_of

ORGANISATION = "organisation"
"""Identifier of the only document."""

_ABANDONED_AFTER = timedelta(minutes=1)
"""An older mark is treated as a mark of a dead process; see above for a process that was only slow."""


class MongoOrganisation:
    """An :class:`~llmgateway.interfaces.OrganisationStore` in MongoDB.

    The only document contains all current settings and the version of the organisation (``generation``). Each change
    of it is atomic. Setting a prompt takes two steps: its text is stored under the next version; then it replaces the
    current prompt, if that has a lower version. A process that dies in between leaves a version that was never used.

    Args:
        clock: Seconds since the epoch; decides when a mark is treated as a mark of a dead process.
    """

    def __init__(self, database: MongoDatabase, *, clock: Clock = time.time) -> None:
        self._database = database
        self._clock = clock

    def load(self) -> Organisation:
        # The version is read first, with the document. If a person is changed between the reads, the new content has
        # the old version, and the next look-up makes the caller load again.
        document = self._document()
        groups = [_group(entry) for entry in document.get("groups") or ()]
        with self._database.collections(promptly=True) as database:
            persons = [person_of(found) for found in database["persons"].find()]
        return Organisation(
            prompt=_in_force(document),
            credential=document.get("credential"),
            models=_models(document),
            limits=Limits.from_json(document.get("limits")),
            groups={group.name: group for group in groups},
            persons={person.user: person for person in persons},
            documents={entry["name"]: json.loads(entry["content"]) for entry in document.get("documents") or ()},
            version=document.get("generation", ""),
        )

    def begin_version(self) -> None:
        """Let every process load the organisation again."""
        self._set({})

    def set_prompt(self, text: str, set_at: datetime, *, check: Callable[[Prompt], None] | None = None) -> Prompt:
        if check is not None:
            check(_in_force(self._document()))  # so that a refused prompt is seldom among the versions
        prompt = self._add_prompt(text, set_at, scope="")
        while True:
            present = _in_force(self._document())
            if check is not None:
                check(present)
            if present.version > prompt.version:
                return prompt  # another process was faster, with a higher version
            self._keep(present)
            changed = self._change({"prompt": asdict(prompt)}, if_={"prompt.version": present.version or None})
            if changed is not None:
                return prompt

    def add_prompt(self, text: str, set_at: datetime, *, scope: str) -> Prompt:
        if not scope:
            raise ValueError("a prompt without a scope is the organisation's, which set_prompt sets")
        return self._add_prompt(text, set_at, scope=scope)

    def erase_prompts(self, scopes: Collection[str], text: str) -> int:
        with self._database.collection("prompts") as prompts:
            wanted = {"scope": {"$in": [*scopes]}, "text": {"$nin": ["", text]}}
            return prompts.update_many(wanted, {"$set": {"text": text}}).modified_count

    def prompt_versions(self, *, scope: str | None = None) -> list[Prompt]:
        # The current prompt is read first: older versions of this program store it in prompts only when it is replaced.
        present = _in_force(self._document())
        # Documents of older versions of this program have no scope; null finds them.
        wanted: Document = {} if scope is None else {"scope": {"$in": [scope, *([] if scope else [None])]}}
        with self._database.collection("prompts") as prompts:
            versions = {
                document["_id"]: prompt_of(document | {"version": document["_id"]}) for document in prompts.find(wanted)
            }
        if present.version and not scope:
            versions[present.version] = present
        return [versions[version] for version in sorted(versions, reverse=True)]

    def set_limits(self, limits: Limits, *, check: Callable[[Limits], None] | None = None) -> None:
        self._set_limits({"limits": asdict(limits)}, check)

    def update_limits(self, parts: Mapping[str, object], *, check: Callable[[Limits], None] | None = None) -> Limits:
        return Limits.from_json(self._set_limits(limits_fields(parts), check).get("limits"))

    def _set_limits(self, fields: Document, check: Callable[[Limits], None] | None) -> Document:
        if check is None:
            return self._set(fields)
        while True:
            document = self._document()
            check(Limits.from_json(document.get("limits")))
            changed = self._change(fields, if_={"generation": document.get("generation")})
            if changed is not None:
                return changed
            # Another process has changed something in between.

    def set_group(self, group: Group, *, check: Callable[[Group | None], None] | None = None) -> Group:
        def replaced(entry: Document | None) -> Document:
            before = None if entry is None else _group(entry)
            if check is not None:
                check(before)
            if before is None:
                return _group_fields(group)
            return _group_fields(
                replace(group, created_at=before.created_at, prompt=before.prompt, raised=before.raised)
            )

        return _group(self._change_entry("groups", "name", group.name, replaced) or {})

    def update_group(
        self,
        name: str,
        changes: Mapping[str, Any],
        *,
        limits: Mapping[str, Any] | None = None,
        member_limits: Mapping[str, Any] | None = None,
        check: Callable[[Group], None] | None = None,
    ) -> Group | None:
        def changed(entry: Document | None) -> Document | None:
            if entry is None:
                return None
            group = _group(entry)
            if check is not None:
                check(group)
            return _group_fields(group.changed(changes, limits, member_limits))

        entry = self._change_entry("groups", "name", name, changed)
        return None if entry is None else _group(entry)

    def remove_group(self, name: str, *, check: Callable[[Group], None] | None = None) -> Group | None:
        mark = {"by": secrets.token_hex(8), "since": moment(self._clock())}

        def marked(entry: Document | None) -> Document | None:
            if entry is not None and check is not None:
                check(_group(entry))
            return entry and entry | {"removing": mark}

        while True:
            entry = self._change_entry("groups", "name", name, marked)
            if entry is None:
                return None
            if self._has_keys(name):
                self._change_entry("groups", "name", name, lambda entry: _unmarked(entry, mark))
                raise GroupInUse
            left = self._change_entry("groups", "name", name, lambda entry: None if _has(entry, mark) else entry)
            if left is None:
                return _group(entry)
            # Another process has changed the group in between, or has removed the mark.

    def check_groups(self, names: Iterable[str]) -> None:
        """Check that keys may be put into these groups. The keys must be marked before.

        Raises:
            NoSuchGroup: one of the groups does not exist, or is being removed.
        """
        for name in names:
            entry = self._change_entry("groups", "name", name, self._without_abandoned_mark)
            if entry is None or "removing" in entry:
                raise NoSuchGroup

    def _without_abandoned_mark(self, entry: Document | None) -> Document | None:
        mark = (entry or {}).get("removing")
        return _unmarked(entry, mark) if mark and self._is_abandoned(mark["since"]) else entry

    def _is_abandoned(self, since: datetime) -> bool:
        return since < moment(self._clock()) - _ABANDONED_AFTER

    def _has_keys(self, group: str) -> bool:
        """Whether there are keys in *group*, or keys that are being put into it."""
        now = moment(self._clock())
        with self._database.collections() as database:
            end_abandoned_imports(database, now)
            keys = database["keys"]
            keys.update_many(
                {"joining.group": group, "joining.since": {"$lt": now - _ABANDONED_AFTER}}, {"$unset": {"joining": ""}}
            )
            # In this order, because a key that is put into the group moves from the first field to the second.
            return any(keys.find_one({field: group}, {"_id": 1}) is not None for field in ("joining.group", "group"))

    def set_credential(self, credential: bytes) -> None:
        self._set({"credential": credential})

    def set_model(
        self,
        model: str,
        parts: Mapping[str, Any] | None,
        *,
        check: Callable[[Mapping[str, ModelSettings]], None] | None = None,
    ) -> ModelSettings:
        while True:
            document = self._document()
            models = _models(document)
            if check is not None:
                check(models)
            after = ModelSettings() if parts is None else replace(models.pop(model, ModelSettings()), **parts)
            models.pop(model, None)
            if after.as_json():
                models[model] = after
            entries = [{"model": name} | settings.as_json() for name, settings in models.items()]
            # Older versions of this program know only the list of prices. It is replaced together with the settings.
            if (
                self._change({"models": entries, "prices": None}, if_={"generation": document.get("generation")})
                is not None
            ):
                return after
            # Another process has changed something in between.

    def document(self, name: str) -> Mapping[str, Any]:
        with self._database.collections(promptly=True) as database:
            document = database["organisation"].find_one({"_id": ORGANISATION}, {"documents": 1}) or {}
        return next(
            (json.loads(each["content"]) for each in document.get("documents") or () if each["name"] == name), {}
        )

    def update_document(self, name: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        # As text, because names in it may contain dots and dollars.
        def changed(entry: Document | None) -> Document | None:
            after = change({} if entry is None else json.loads(entry["content"]))
            return {"name": name, "content": json.dumps(after)} if after else None

        entry = self._change_entry("documents", "name", name, changed)
        return {} if entry is None else json.loads(entry["content"])

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
                    continue  # another process was faster
                return Prompt(version=version, text=text, set_at=set_at, scope=scope)

    def _keep(self, prompt: Prompt) -> None:
        """Store the current prompt in ``prompts``, if an older version of this program has not done so."""
        if prompt.version:
            document = {"_id": prompt.version, "text": prompt.text, "set_at": prompt.set_at, "scope": ""}
            with self._database.collection("prompts") as prompts, suppress(DuplicateKeyError):
                prompts.insert_one(document)

    def _set(self, fields: Document) -> Document:
        while True:
            changed = self._change(fields)
            if changed is not None:
                return changed
            # Another process has created the document; now it exists.

    def _change_entry(
        self, field: str, named: str, name: str, change: Callable[[Document | None], Document | None]
    ) -> Document | None:
        """Replace the entry with this *name* in a list by the result of *change*, and return the result.

        None means that the entry does not exist. If *change* returns the same object, nothing is written.
        """
        # Lists instead of documents by name, because names of models and groups can contain dots.
        while True:
            document = self._document()
            entries = document.get(field) or []
            before = next((entry for entry in entries if entry[named] == name), None)
            after = change(before)
            if after is before:
                return after
            others = [entry for entry in entries if entry[named] != name]
            changes = {field: others if after is None else [*others, after]}
            if self._change(changes, if_={"generation": document.get("generation")}) is not None:
                return after
            # Another process has changed something in between.

    def _change(self, fields: Document, *, if_: Document | None = None) -> Document | None:
        """Set *fields* and a new version atomically, and return the document; None if another process came first."""
        # In MongoDB a missing field is equal to null.
        wanted = {"_id": ORGANISATION} | (if_ or {})
        changes = {"$set": fields | {"generation": secrets.token_hex(16)}}
        with self._database.collection("organisation") as organisation:
            try:
                changed: Document | None = organisation.find_one_and_update(
                    wanted, changes, upsert=True, return_document=ReturnDocument.AFTER
                )
            except DuplicateKeyError:
                # The document does not match *if_*, so the upsert tried to insert it again.
                return None
        return changed


def limits_fields(parts: Mapping[str, object]) -> Document:
    """Return the fields to set in a document, to change the fields *parts* of its ``limits``."""
    return {f"limits.{name}": asdict(value) if isinstance(value, Budget) else value for name, value in parts.items()}


def _has(entry: Document | None, mark: Document) -> bool:
    """Whether *entry* has this *mark*, or does not exist."""
    return entry is None or entry.get("removing", {}).get("by") == mark["by"]


def _unmarked(entry: Document | None, mark: Document) -> Document | None:
    if entry is None or not _has(entry, mark):
        return entry
    return {name: value for name, value in entry.items() if name != "removing"}


def prompt_of(document: Mapping[str, Any]) -> Prompt:
    # Documents of older versions of this program have no scope: they belong to the organisation.
    return Prompt(
        version=document["version"],
        text=document["text"],
        set_at=document["set_at"],
        scope=document.get("scope") or "",
    )


def _in_force(organisation: Mapping[str, Any]) -> Prompt:
    document = organisation.get("prompt")
    return Prompt() if document is None else prompt_of(document)


def _models(organisation: Mapping[str, Any]) -> dict[str, ModelSettings]:
    # Documents of older versions of this program have a list of prices instead.
    old = {entry["model"]: ModelSettings(prices=Prices.from_json(entry)) for entry in organisation.get("prices") or ()}
    return old | {entry["model"]: ModelSettings.from_json(entry) for entry in organisation.get("models") or ()}


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
        # Documents of older versions of this program do not have these.
        member_limits=Limits.from_json(entry.get("member_limits")),
        raised=Raise.from_json(entry.get("raised")),
        cost_centre=entry.get("cost_centre"),
        self_service=SelfService.from_json(entry.get("self_service")),
    )


def _group_fields(group: Group) -> Document:
    return asdict(group) | {"raised": None if group.raised is None else group.raised.as_json()}
