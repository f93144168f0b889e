"""A blueprint whose views document their purpose, the key that they need, and their errors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import flask_smorest
from flask import request

from ..errors import InvalidFields
from .body import BodyParser
from .error_docs import BODY_REFUSALS, QUERY_REFUSALS, responses

_NOT_THE_EXAMPLE = "This is the documentation's example, and nothing was changed. Put your own values in its place."

View = TypeVar("View", bound=Callable[..., Any])


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """flask-smorest's blueprint. Its name is the tag of its operations.

    Args:
        key: Name of the security scheme of every operation; None if no key is needed.
        refusals: Names in :data:`~.error_docs.REFUSALS` of the errors that every operation can return.
    """

    ARGUMENTS_PARSER = BodyParser()

    def __init__(self, *args: Any, key: str | None = None, refusals: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._security: list[dict[str, list[str]]] = [{key: []}] if key else []
        self._refusals = refusals

    def operation(self, summary: str, *refusals: str, **doc: Any) -> Callable[[View], View]:
        """Document a view. The name of the view becomes the name of the method in generated clients.

        Args:
            refusals: Names of further errors that only this operation can return.
            doc: Further fields of OpenAPI's operation object.
        """

        answers = {**doc.pop("responses", {}), **responses(*self._refusals, *refusals)}

        def decorate(view: View) -> View:
            # A single call of doc(), because each call wraps the view in another function.
            described: View = self.doc(
                operationId=view.__name__, summary=summary, security=self._security, responses=answers, **doc
            )(view)
            return described

        return decorate

    def arguments(
        self, schema: Any, *, location: str = "json", template: dict[str, Any] | None = None, **kwargs: Any
    ) -> Callable[[View], View]:
        """Like the method of flask-smorest, and document the errors of a body or a query.

        Args:
            template: An example of the body that is refused, in place of ``example``. It is for operations that replace
                what is in force: a person who only presses "Execute" in the documentation must change nothing.
        """
        if template is not None:
            kwargs["example"] = template
        parse = super().arguments(schema, location=location, **kwargs)
        refused = self.doc(responses=responses(*(BODY_REFUSALS if location == "json" else QUERY_REFUSALS)))
        return lambda view: refused(parse(view if template is None else _refusing(template, view)))


def _refusing(template: dict[str, Any], view: View) -> View:
    @functools.wraps(view)
    def checked(*args: Any, **kwargs: Any) -> Any:
        if request.get_json(force=True) == template:
            raise InvalidFields(_NOT_THE_EXAMPLE, param="body", fields={"body": [_NOT_THE_EXAMPLE]})
        return view(*args, **kwargs)

    return cast(View, checked)
