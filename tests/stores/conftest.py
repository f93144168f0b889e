"""Names of a test's own on servers that all tests share."""

from __future__ import annotations

import secrets

import pymongo
import pytest


@pytest.fixture
def database_name(request):
    """A MongoDB database for this test alone, gone after it."""
    name = f"test_{secrets.token_hex(6)}"
    yield name
    if "mongo_server" in request.fixturenames:
        with pymongo.MongoClient(request.getfixturevalue("mongo_server").url) as client:
            client.drop_database(name)


@pytest.fixture
def namespace():
    """A hash tag for this test alone, on a Redis that all tests share."""
    return f"test-{secrets.token_hex(6)}"
