"""Identifiers and times of the records."""

from __future__ import annotations

import pickle
import uuid
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmgateway.records import KeyRecord, Lookup, Organisation, moment, new_id, new_request_id

NOW = 1_767_225_600.123
SECONDS = st.floats(0, 2**34)


def test_identifiers_sort_by_time():
    """What was made later comes later in an index, from one millisecond to the next."""
    times = [NOW, NOW + 0.002, NOW + 1, NOW + 86_400, NOW + 400 * 86_400]

    for make in (new_request_id, lambda seconds: new_id("key", seconds)):
        made = [make(seconds) for seconds in times]
        assert sorted(made) == made


def test_request_ids_are_uuids_of_version_7():
    """RFC 9562: 48 bits of milliseconds, then version and variant, then chance."""
    made = uuid.UUID(new_request_id(NOW))

    assert (7, uuid.RFC_4122) == (made.version, made.variant)
    assert int(NOW * 1000) == made.int >> 80


@given(SECONDS)
def test_request_ids_are_well_formed_at_any_time(seconds):
    """No reading of the clock makes an identifier that Azure would not take."""
    made = uuid.UUID(new_request_id(seconds))

    assert (7, uuid.RFC_4122) == (made.version, made.variant)


def test_identifiers_differ_within_a_millisecond():
    """Thousands made at once are thousands."""
    assert 2000 == len({new_request_id(NOW) for _ in range(2000)})
    assert 2000 == len({new_id("key", NOW) for _ in range(2000)})
    assert new_id("key", NOW).startswith("key_")


@given(SECONDS)
def test_moments_have_whole_milliseconds(seconds):
    """Times are cut to what every store keeps, never rounded into the future, and know their zone."""
    time = moment(seconds)

    assert 0 == time.microsecond % 1000
    assert UTC == time.tzinfo
    assert -0.0011 < time.timestamp() - seconds < 0.0001


def test_records_are_values():
    """Equal fields make equal records, and nobody can change one that somebody else holds."""
    fields = {"id": "key_1", "digest": "d", "user": "ada", "name": "n", "created_at": datetime(2026, 1, 1, tzinfo=UTC)}
    record = KeyRecord(**fields)

    assert record == KeyRecord(**fields)
    assert record == pickle.loads(pickle.dumps(record))
    with pytest.raises(FrozenInstanceError):
        record.active = False


def test_reprs_tell_no_secret():
    """A look-up in a traceback shows neither what look-ups go by nor the stored credential."""
    record = KeyRecord(id="k", digest="0123abcd", user="u", name="n", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    organisation = Organisation(credential=b"0123abcd")

    assert "0123abcd" not in repr(Lookup(record, "g")) + repr(organisation)
