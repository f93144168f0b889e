"""Days and times in requests and answers: a date alone is a whole day of the organisation, in its time zone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from llmgateway.local_time import SETTINGS
from llmgateway.web.context import EXTENSION
from tests.web.conftest import ADMIN_KEY

ADMIN = {"AdminKey": ADMIN_KEY}


@pytest.fixture
def in_zone(make_app):
    """A client of a gateway whose organisation is in this time zone."""

    def make(*zones: tuple[str, str | None]):
        app = make_app()
        document = {"timezones": [{"name": name, "since": since} for name, since in zones]}
        app.extensions[EXTENSION].policy.update_document(SETTINGS, lambda _: document)
        return app.test_client()

    return make


def made(client, status=201, **fields):
    answer = client.post("/admin/keys", json={"user": "ada", **fields}, headers=ADMIN)
    assert status == answer.status_code, answer.text
    return answer.json


@pytest.mark.parametrize(
    ("zone", "day", "starts", "expires"),
    [
        ("UTC", "2036-03-31", "2036-03-31T00:00:00+00:00", "2036-04-01T00:00:00+00:00"),
        ("Europe/Berlin", "2036-07-01", "2036-07-01T00:00:00+02:00", "2036-07-02T00:00:00+02:00"),
        ("Europe/Berlin", "2036-03-30", "2036-03-30T00:00:00+01:00", "2036-03-31T00:00:00+02:00"),  # 23 hours
        ("Europe/Berlin", "2036-10-26", "2036-10-26T00:00:00+02:00", "2036-10-27T00:00:00+01:00"),  # 25 hours
        ("America/Havana", "2036-03-09", "2036-03-09T01:00:00-04:00", "2036-03-10T00:00:00-04:00"),  # no midnight
        ("Asia/Kathmandu", "2036-12-31", "2036-12-31T00:00:00+05:45", "2037-01-01T00:00:00+05:45"),
    ],
)
def test_a_date_alone_is_a_whole_day(in_zone, zone, day, starts, expires):
    """From its first instant to the first one after it, which is shown with the offset of that time."""
    client = in_zone((zone, None))

    key = made(client, starts_at=day, expires_at=day)

    assert (starts, expires) == (key["starts_at"], key["expires_at"])
    changed = client.patch(f"/admin/keys/{key['id']}", json={"expires_at": day}, headers=ADMIN)
    assert expires == changed.json["expires_at"]
    group = client.put("/admin/groups/ml", json={"starts_at": day, "expires_at": day}, headers=ADMIN)
    assert (starts, expires) == (group.json["starts_at"], group.json["expires_at"])
    [listed] = client.get("/admin/keys", headers=ADMIN).json["items"]
    assert (starts, expires) == (listed["starts_at"], listed["expires_at"])


def test_instants_stay_what_they_are(in_zone):
    """A time with a zone is that time; only its offset is shown as the organisation has it."""
    client = in_zone(("Europe/Berlin", None))

    key = made(client, expires_at="2036-03-31T22:00:00Z")

    assert "2036-04-01T00:00:00+02:00" == key["expires_at"]
    [stored] = client.application.extensions[EXTENSION].keys.list()
    assert datetime(2036, 3, 31, 22, tzinfo=UTC) == stored.expires_at


def test_a_key_opens_until_its_last_day_is_over(in_zone, clock):
    """And from the beginning of its first one on, where the organisation is."""
    client = in_zone(("Pacific/Auckland", None))
    start = datetime.fromisoformat("2036-02-01T00:00:00+13:00").timestamp()
    key = made(client, starts_at="2036-02-01", expires_at="2036-02-01")["key"]

    def status(at):
        clock.advance(at - clock())
        return client.get("/v1/me", headers={"Authorization": f"Bearer {key}"}).status_code

    assert [401, 200, 200, 401] == [status(start + seconds) for seconds in (-1, 0, 86_399, 86_400)]


def test_users_see_their_end_with_the_organisations_offset(in_zone):
    """As admins do."""
    client = in_zone(("Europe/Berlin", None))
    key = made(client, expires_at="2036-03-31")

    answer = client.get("/v1/me", headers={"Authorization": f"Bearer {key['key']}"})

    assert "2036-04-01T00:00:00+02:00" == answer.json["expires_at"]


def test_a_day_is_read_in_the_zone_that_holds_then(in_zone):
    """A change of the zone holds from a midnight on; days before it are days of the old zone."""
    client = in_zone(("UTC", None), ("Europe/Berlin", "2036-06-30T22:00:00+00:00"))

    key = made(client, starts_at="2036-06-29", expires_at="2036-07-01")

    assert ("2036-06-29T00:00:00+00:00", "2036-07-02T00:00:00+02:00") == (key["starts_at"], key["expires_at"])


@pytest.mark.parametrize("day", ["2036-02-30", "2036-13-01", "9999-12-31", "0000-01-01", "2036-1-1", "tomorrow"])
def test_what_is_no_day_is_refused(in_zone, day):
    """Also the last day of the calendar, which has no end."""
    error = made(in_zone(("Europe/Berlin", None)), 422, expires_at=day)["error"]

    assert "until the end of that day" in error["errors"]["expires_at"][0]


def test_log_queries_take_days(in_zone):
    """From the beginning of one to the end of another, which may be the same day."""
    client = in_zone(("Europe/Berlin", None))

    same = client.get("/admin/logs?since=2026-10-01&until=2026-10-01", headers=ADMIN)
    turned = client.get("/admin/logs?since=2026-10-02&until=2026-10-01", headers=ADMIN)

    assert (200, 422) == (same.status_code, turned.status_code)
