"""Waits that a server asks for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from lima_ray.generation.responses import retry_after_s


@pytest.mark.parametrize(
    ("header", "expected"),
    [("7", 7), ("0.5", 0.5), ("99999", 600), ("-3", 0), ("nan", 0), ("soon", 0), ("", 0)],
)
def test_retry_after_in_seconds(header: str, expected: float) -> None:
    assert retry_after_s(httpx2.Response(429, headers={"Retry-After": header})) == expected


def test_retry_after_as_a_date() -> None:
    for seconds, expected in ((30, 29), (-30, 0)):
        at = format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)
        found = retry_after_s(httpx2.Response(429, headers={"Retry-After": at}))
        assert expected - 1 <= found <= expected + 1
