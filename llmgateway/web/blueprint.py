"""Views that say for the documentation what they are, whose key they need, and what can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import flask_smorest

from .body import BodyParser
from .error_docs import BODY_REFUSALS, QUERY_REFUSALS, responses

View = TypeVar("View", bound=Callable[..., Any])


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """flask-smorest's, whose name is the tag of its operations.

    Args:
        key: Name of the security scheme of every operation; None for the public.
        refusals: Names in :data:`~.refusals.REFUSALS` of what every operation can be answered with.
    """

    ARGUMENTS_PARSER = BodyParser()

    def __init__(self, *args: Any, key: str | None = None, refusals: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._security: list[dict[str, list[str]]] = [{key: []}] if key else []
        self._refusals = refusals

    def operation(self, summary: str, *refusals: str, **doc: Any) -> Callable[[View], View]:
        """Document a view; its own name becomes the method's name in generated clients.

        Args:
            refusals: As for the blueprint, for this operation alone.
            doc: More parts of OpenAPI's operation object.
        """

        answers = {**doc.pop("responses", {}), **responses(*self._refusals, *refusals)}

        def decorate(view: View) -> View:
            # Once for all: each use puts one more function around the view.
            described: View = self.doc(
                operationId=view.__name__, summary=summary, security=self._security, responses=answers, **doc
            )(view)
            return described

        return decorate

    def arguments(self, schema: Any, *, location: str = "json", **kwargs: Any) -> Callable[[View], View]:
        """As flask-smorest's, with what a body or a query can be refused for."""
        parse = super().arguments(schema, location=location, **kwargs)
        refused = self.doc(responses=responses(*(BODY_REFUSALS if location == "json" else QUERY_REFUSALS)))
        return lambda view: refused(parse(view))
