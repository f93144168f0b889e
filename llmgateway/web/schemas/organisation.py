"""Schemas of prompts and prices."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import marshmallow as ma
from marshmallow import validate

from ...azure.endpoint import Endpoint, is_deployment_name, sends_key_in_the_clear
from ...proxy.operations.table import OPERATIONS
from .. import examples
from .fields import AnswerSchema, Moment


class NewPromptSchema(ma.Schema):
    prompt = ma.fields.String(
        required=True,
        validate=validate.Length(max=100_000),
        metadata={
            "description": "Goes in front of every conversation as a system message; empty for none.",
            "example": examples.PROMPT["prompt"],
        },
    )


class WhosePromptSchema(ma.Schema):
    """Selects a group or a key; the organisation if neither is given."""

    group = ma.fields.String(
        metadata={
            "description": "The group of this name.",
            "choices": {"no group": "", "one group": examples.GROUP["name"]},
        }
    )
    key = ma.fields.String(
        metadata={"description": "The key with this `id`.", "choices": {"no key": "", "one key": examples.KEY_ID}}
    )

    @ma.validates_schema
    def _one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("group") and data.get("key"):
            raise ma.ValidationError("Name either 'group' or 'key', or neither for the organisation.", field_name="key")


class WhosePromptToDeleteSchema(WhosePromptSchema):
    """The same, with a first choice that Swagger UI fills in, and that deletes nothing."""

    group = ma.fields.String(
        metadata={
            "description": "The group of this name.",
            "choices": {"one group": examples.NO_GROUP, "no group": ""},
        }
    )


class PromptSchema(AnswerSchema):
    version = ma.fields.Integer(
        metadata={
            "description": "Higher with every change, counted over the organisation, groups and keys together; "
            "0 if none was ever set.",
            "example": 3,
        }
    )
    scope = ma.fields.String(
        metadata={
            "description": "Whose it is: empty for the organisation's, `group:NAME` or `key:ID`.",
            "example": "",
        }
    )
    prompt = ma.fields.String(
        attribute="text",
        allow_none=True,
        metadata={
            "description": "null if it is the organisation's and your role is `group`, which may not read that.",
            "example": examples.PROMPT["prompt"],
        },
    )
    set_at = Moment(allow_none=True, metadata={"example": examples.PROMPT["set_at"]})


class PreviewRequestSchema(ma.Schema):
    """A conversation to preview, with the key or the group that would send it."""

    key = ma.fields.String(metadata={"description": "A key's `id`.", "example": examples.KEY_ID})
    group = ma.fields.String(metadata={"description": "A group's name.", "example": examples.GROUP["name"]})
    model = ma.fields.String(metadata={"description": "As a client names it.", "example": examples.MODEL})
    messages = ma.fields.List(
        ma.fields.Dict(),
        required=True,
        metadata={"description": "As a client sends them.", "example": examples.CONVERSATION["messages"]},
    )

    @ma.validates_schema
    def _one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("group") and data.get("key"):
            raise ma.ValidationError("Name either 'group' or 'key', or neither for the organisation.", field_name="key")


class PreviewSchema(AnswerSchema):
    version = ma.fields.Integer(metadata={"description": "Of the prompt; 0: there is none.", "example": 3})
    scope = ma.fields.String(
        metadata={"description": "Whose prompt it is, as in the list of versions.", "example": "group:ml-2026"}
    )
    sent = ma.fields.Dict(
        metadata={"description": "The body as Azure would get it.", "example": examples.PREVIEW["sent"]}
    )


class PromptVersionSchema(PromptSchema):
    set_by = ma.fields.String(
        allow_none=True,
        metadata={
            "description": "The admin's name at that time, `ADMIN_KEY` for the first owner; null if the audit log does "
            "not say.",
            "example": examples.ADMIN["name"],
        },
    )


class OwnPromptSchema(PromptSchema):
    """A prompt in force, with whose it is."""

    group = ma.fields.String(
        allow_none=True, metadata={"description": "The group, or that of the key.", "example": "ml-2026"}
    )
    key = ma.fields.String(allow_none=True, metadata={"description": "The key's `id`.", "example": examples.KEY_ID})
    user = ma.fields.String(allow_none=True, metadata={"description": "Of the key.", "example": "ada"})
    name = ma.fields.String(allow_none=True, metadata={"description": "Of the key.", "example": "thesis"})


class OwnPromptsSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(OwnPromptSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})


class PromptVersionsSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(PromptVersionSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})


def _price(meaning: str, example: float, *, required: bool = False) -> ma.fields.Float:
    return ma.fields.Float(
        required=required,
        validate=validate.Range(min=0, max=1_000_000),
        metadata={"description": f"US dollars per million {meaning}.", "example": example},
    )


def _unit_price(meaning: str, example: float) -> ma.fields.Float:
    return ma.fields.Float(
        validate=validate.Range(min=0, max=1_000_000),
        metadata={
            "description": f"US dollars for {meaning}. A request that has a number of them costs this, and its tokens "
            "cost nothing.",
            "example": example,
        },
    )


def _tier_name(name: str) -> None:
    if name in ("default", "auto") or not name or name != name.lower() or len(name) > 40:
        raise ma.ValidationError(
            "Must be a service tier as answers name it, like priority or flex. The prices beside 'tiers' are those of "
            "the default tier."
        )


class TierPricesSchema(ma.Schema):
    """Prices of one service tier. Tokens of a kind without a price here have no known price."""

    prompt = _price("prompt tokens", 4.25, required=True)
    cached = _price("prompt tokens that Azure had in its cache; the price of the others if it is not given", 2.125)
    completion = _price("completion tokens", 17.0, required=True)
    cache_write = _price("prompt tokens that Azure put into its cache; not used while Azure does not report them", 5.0)
    audio_prompt = _price("prompt tokens of audio", 40.0)
    audio_completion = _price("completion tokens of audio", 80.0)
    image = _price("prompt tokens of images, where Azure counts them apart", 2.5)
    minute = _unit_price("a minute of audio that is written down", 0.006)
    characters = _unit_price("a million characters that are spoken", 15.0)
    per_image = _unit_price("an image that is made", 0.04)


class LongPricesSchema(TierPricesSchema):
    """Prices of requests with long prompts."""

    above = ma.fields.Integer(
        required=True,
        strict=True,
        validate=validate.Range(min=1, max=100_000_000),
        metadata={
            "description": "Prompts of more tokens cost these prices: the whole request, not the excess.",
            "example": 272_000,
        },
    )


class TierSchema(TierPricesSchema):
    long_context = ma.fields.Nested(LongPricesSchema)


PRICED_TOOLS = ("web_search", "file_search", "code_interpreter", "image_generation")


class PricesSchema(TierSchema):
    """Prices of the default service tier, and of others."""

    cached = _price("prompt tokens that Azure had in its cache", 1.25, required=True)
    tiers = ma.fields.Dict(
        keys=ma.fields.String(validate=_tier_name),
        values=ma.fields.Nested(TierSchema),
        metadata={
            "description": "By service tier, as answers name it. Without `priority`, the price of requests that were "
            "served with priority is not known; any other tier costs the default price.",
            "example": {"priority": {"prompt": 4.25, "cached": 2.125, "completion": 17.0}},
        },
    )
    tools = ma.fields.Dict(
        keys=ma.fields.String(validate=validate.OneOf(PRICED_TOOLS)),
        values=ma.fields.Float(validate=validate.Range(min=0, max=1_000_000)),
        metadata={
            "description": "Of the tools that Azure runs itself and bills by use, in US dollars per thousand uses: "
            "`web_search`, `file_search`, `code_interpreter` (per thousand sessions), `image_generation`. Without it, "
            "the list price counts; `image_generation` has none.",
            "example": {"web_search": 14.0},
        },
    )


_SECRET = re.compile("key|token|secret|passw|sig|code", re.IGNORECASE)
"""Names of parameters that carry secrets, such as ``subscription-key`` of API Management."""

_NO_PART_OF_ALIASES = frozenset(" ?[]")
"""Some have a meaning in other patterns, and none is in a name of a model."""


KEY_HEADERS = ("api-key", "Authorization", "Ocp-Apim-Subscription-Key")


def check_key(key: str) -> None:
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise ma.ValidationError("It has characters that no key has: copy it again from the portal.")


def check_base_url(url: str) -> None:
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise ma.ValidationError("It has a user or a password in it, which everybody can read: send the key as 'key'.")
    try:
        # The version is checked with the whole deployment.
        Endpoint.parse(url, "2024-10-21")
    except ValueError as error:
        raise ma.ValidationError(f"The address {error}.") from None
    if any(_SECRET.search(name) for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)):
        raise ma.ValidationError("It has a key in its query, where everybody can read it: send it as 'key'.")
    if sends_key_in_the_clear(url):
        raise ma.ValidationError("Write https: over http the key would cross the internet in the clear.")


check_api_version = validate.Regexp(r"^[A-Za-z0-9.-]{1,40}(?!\n)$", error="Must be a version such as 2024-10-21.")


def check_deployment_name(name: str) -> None:
    if not is_deployment_name(name):
        raise ma.ValidationError("Must be the name of a deployment: letters, digits, '.', '-' and '_'.")


def _check_alias(alias: str) -> None:
    if not alias.isprintable() or not _NO_PART_OF_ALIASES.isdisjoint(alias):
        raise ma.ValidationError("Must be a name without blanks and '?[]', or a pattern with '*' for any text.")


class DeploymentSchema(ma.Schema):
    """One deployment at Azure."""

    name = ma.fields.String(
        required=True,
        validate=[validate.Length(min=1, max=100), check_deployment_name],
        metadata={"description": "As you want to see it in records; unique within the model.", "example": "sweden"},
    )
    base_url = ma.fields.String(
        required=True,
        validate=[validate.Length(max=1000), check_base_url],
        metadata={
            "description": "As `LLM_BASE_URL`, in any form that the portal shows.",
            "example": "https://NAME.openai.azure.com/openai/v1",
        },
    )
    deployment = ma.fields.String(
        required=True,
        validate=check_deployment_name,
        metadata={"description": "Its name at Azure.", "example": examples.MODEL},
    )
    api_version = ma.fields.String(
        validate=check_api_version,
        metadata={"description": "For the classic form of the address.", "example": "2024-10-21"},
    )
    identity = ma.fields.Boolean(
        load_default=False,
        metadata={"description": "Sign in with the gateway's own identity at Entra ID, without a key."},
    )
    key_header = ma.fields.String(
        validate=validate.OneOf(KEY_HEADERS),
        metadata={"description": "`LLM_KEY_HEADER` if it is not given.", "example": "api-key"},
    )
    priority = ma.fields.Integer(
        strict=True,
        load_default=1,
        validate=validate.Range(min=0, max=1000),
        metadata={"description": "Those with the smallest number are asked first.", "example": 1},
    )
    weight = ma.fields.Float(
        load_default=1.0,
        validate=validate.Range(min=0, max=1_000_000, min_inclusive=False),
        metadata={"description": "Its part of the requests among those with the same priority.", "example": 1.0},
    )
    active = ma.fields.Boolean(load_default=True, metadata={"description": "False: it is not asked."})


class NewDeploymentSchema(DeploymentSchema):
    """A deployment, with its key."""

    key = ma.fields.String(
        load_only=True,
        validate=[validate.Length(min=1, max=1000), check_key],
        metadata={
            "description": "Of its resource; it can never be read again. If it is not given, the one that is stored "
            "for this name stays, or else the key of `LLM_BASE_URL` is sent.",
            "example": "the key of the resource",
        },
    )
    has_key = ma.fields.Boolean(
        load_only=True,
        metadata={"description": "As `GET` shows it, so that what it shows can be sent back. It changes nothing."},
    )

    @ma.validates_schema
    def _whole(self, data: dict[str, Any], **_: Any) -> None:
        if data.get("identity") and data.get("key"):
            raise ma.ValidationError("Give a key, or choose the identity.", field_name="key")
        try:
            endpoint = Endpoint.parse(data["base_url"], data.get("api_version"))
        except ValueError as error:
            raise ma.ValidationError(f"The address {error}.", field_name="base_url") from None
        if endpoint.deployment and endpoint.deployment.lower() != data["deployment"].lower():
            raise ma.ValidationError(
                f"The address leads to the deployment {endpoint.deployment!r}: name the same one, or leave "
                "'/deployments/…' out of the address.",
                field_name="deployment",
            )


class StoredDeploymentSchema(DeploymentSchema):
    """A deployment, without its key."""

    has_key = ma.fields.Boolean(metadata={"description": "Whether it has a key of its own.", "example": True})


_OPERATIONS = sorted(OPERATIONS)


class ModelPartsSchema(ma.Schema):
    """What can be set for a model or a deployment."""

    endpoints = ma.fields.List(
        ma.fields.String(validate=validate.OneOf(_OPERATIONS)),
        allow_none=True,
        metadata={"description": "What it can do; everything if it is not given.", "example": ["chat/completions"]},
    )
    aliases = ma.fields.List(
        ma.fields.String(validate=[validate.Length(min=1, max=256), _check_alias]),
        allow_none=True,
        validate=validate.Length(max=100),
        metadata={"description": "Other names for it, with `*` for any text.", "example": ["gpt-4o-*"]},
    )

    prices = ma.fields.Nested(
        PricesSchema, allow_none=True, metadata={"description": "Without it, the list price counts."}
    )
    max_output_tokens = ma.fields.Integer(
        strict=True,
        allow_none=True,
        validate=validate.Range(min=1, max=100_000_000),
        metadata={"description": "The most tokens of one answer, with what is thought unseen.", "example": 16_384},
    )
    tokens_per_second = ma.fields.Float(
        allow_none=True,
        validate=validate.Range(min=0, max=1_000_000, min_inclusive=False),
        metadata={
            "description": "How fast it writes at most; decides what is booked for answers whose count never came.",
            "example": 120.0,
        },
    )
    reasoning = ma.fields.Boolean(
        allow_none=True, metadata={"description": "Whether it thinks unseen before it answers.", "example": False}
    )


class ModelSettingsSchema(ModelPartsSchema):
    """Settings to change. A part that is not named stays; `null` removes one."""

    name = ma.fields.String(
        load_only=True,
        metadata={
            "description": "As `GET` shows it, so that what it shows can be sent back: that of the address.",
            "example": examples.MODEL,
        },
    )
    deployments = ma.fields.List(
        ma.fields.Nested(NewDeploymentSchema),
        allow_none=True,
        validate=validate.Length(max=100),
        metadata={
            "description": "Where it is. An empty list removes them; then `LLM_BASE_URL` answers. Without this field "
            "the stored ones stay."
        },
    )

    @ma.validates("deployments")
    def _unique(self, deployments: list[dict[str, Any]] | None, **_: Any) -> None:
        # Those with other problems are here, too; their names may be among what is wrong.
        names = [each["name"].lower() for each in deployments or () if "name" in each]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ma.ValidationError(f"Two deployments have the name {twice[0]!r}.")

    @ma.validates("aliases")
    def _unique_aliases(self, aliases: list[str] | None, **_: Any) -> None:
        folded = [alias.lower() for alias in aliases or ()]
        if twice := sorted({alias for alias in folded if folded.count(alias) > 1}):
            raise ma.ValidationError(f"{twice[0]!r} is there twice.")

    @ma.validates_schema
    def _some(self, data: dict[str, Any], **_: Any) -> None:
        if not data:
            parts = ", ".join(name for name in self.fields if name != "name")
            raise ma.ValidationError(f"Name at least one of: {parts}.", field_name="prices")


class NamedModelSettingsSchema(ModelPartsSchema):
    """The settings of a model. Only what was set is there."""

    class Meta:
        unknown = ma.EXCLUDE

    name = ma.fields.String(required=True, metadata={"example": examples.MODEL})
    deployments = ma.fields.List(ma.fields.Nested(StoredDeploymentSchema), metadata={"description": "Where it is."})


class ModelSettingsListSchema(AnswerSchema):
    items = ma.fields.List(ma.fields.Nested(NamedModelSettingsSchema))
    next = ma.fields.String(allow_none=True, metadata={"description": "Always null: all are here.", "example": None})
