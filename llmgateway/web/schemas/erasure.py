"""Schemas of the data of a person."""

from __future__ import annotations

import marshmallow as ma

from .. import examples
from .fields import AnswerSchema


class ErasureSchema(ma.Schema):
    dry_run = ma.fields.Boolean(
        load_default=False, metadata={"description": "true counts, and changes nothing.", "example": True}
    )


class ErasedSchema(AnswerSchema):
    erased_as = ma.fields.String(
        allow_none=True,
        metadata={
            "description": "What now stands for the person everywhere; null if nothing was changed.",
            "example": examples.ERASED["erased_as"],
        },
    )
    keys = ma.fields.List(
        ma.fields.String(),
        metadata={"description": "The keys of the person, also earlier ones.", "example": [examples.KEY_ID]},
    )
    counts = ma.fields.Dict(
        keys=ma.fields.String(),
        values=ma.fields.Integer(),
        metadata={"description": "What was there of each kind.", "example": examples.ERASED["counts"]},
    )
    complete = ma.fields.Boolean(
        metadata={"description": "Whether nothing is left to be done on this host.", "example": True}
    )
    pending = ma.fields.List(
        ma.fields.String(),
        metadata={"description": "What could not be done yet, and will be done without another call.", "example": []},
    )
    dry_run = ma.fields.Boolean(metadata={"description": "Whether nothing was changed.", "example": False})
