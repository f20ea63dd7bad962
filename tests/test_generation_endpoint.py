"""URLs and keys that are refused before anything is sent."""

import pytest

from lima_ray.config.errors import UserError
from lima_ray.generation.client import Client
from lima_ray.generation.endpoint import Endpoint


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "is no URL such as"),
        ("ftp://host/v1", "is no URL such as"),
        ("http://", "is no URL such as"),
        ("http://host:port/v1", "is no URL such as"),
        ("http://me:secret@host/v1", "at host is given with a user"),
        ("https://host/v1?key=secret", "at host is given with a user"),
    ],
)
def test_urls_that_are_none_or_hold_a_secret_are_refused(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Client(Endpoint(url=url), "m")
    assert "secret" not in str(error.value)


def test_a_key_of_two_lines_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(UserError, match="characters that no key has") as error:
        Client(Endpoint(url="http://host/v1"), "m")
    assert "sk-" not in str(error.value)
