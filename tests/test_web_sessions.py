"""The cookies of sessions: who is known, and for how long."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from lima_ray.web.sessions import Session, SessionCookies

KEY = b"k" * 32
LOGINS = {"anna": "sesame", "bert": "other"}


def claims_of(cookie: str) -> dict[str, Any]:
    payload = cookie.partition(".")[0]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_cookie_names_its_bearer_and_cannot_be_made_up() -> None:
    cookies = SessionCookies([KEY], None)
    session = Session("abc")
    value = cookies.issue(session)
    assert cookies.read(value) == session
    payload, _, signed = value.partition(".")
    for forged in (payload, f"{payload}.", f"{payload}x.{signed}", f".{signed}", "", "é.é"):
        assert cookies.read(forged) is None
    assert SessionCookies([b"x" * 32], None).read(value) is None
    assert SessionCookies([KEY, b"new" * 9], None).read(value) == session, (
        "an older key still counts"
    )


def test_login_ends_with_the_password_and_the_name() -> None:
    cookies = SessionCookies([KEY], LOGINS)
    session = cookies.log_in("anna", "sesame")
    assert session is not None and session.owner == "user:anna"
    value = cookies.issue(session)
    assert cookies.read(value) == session
    for wrong in (("anna", "other"), ("carl", "sesame"), ("", ""), ("anna", "")):
        assert cookies.log_in(*wrong) is None
    assert SessionCookies([KEY], {"anna": "changed"}).read(value) is None
    assert SessionCookies([KEY], {"bert": "sesame"}).read(value) is None
    assert cookies.read(SessionCookies([KEY], None).issue(Session("abc"))) is None, (
        "no way round the login"
    )


def test_a_cookie_ends_with_its_time_and_at_logout(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    for cookies, session, days in (
        (SessionCookies([KEY], LOGINS), Session("abc", "anna"), 30),
        (SessionCookies([KEY], None), Session("abc"), 365),
    ):
        value = cookies.issue(session)
        for age, good in ((days - 0.1, True), (days + 0.1, False)):
            monkeypatch.setattr("lima_ray.web.sessions.time", lambda age=age: now + age * 86400)
            assert (cookies.read(value) == session) == good
        monkeypatch.setattr("lima_ray.web.sessions.time", lambda: now)
        cookies.ended.add("abc")
        assert cookies.read(value) is None


def test_cookies_of_earlier_releases_keep_conversations_but_no_login() -> None:
    def of_earlier(session: Session, cookies: SessionCookies) -> str:
        claims = claims_of(cookies.issue(session))
        del claims["t"]
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return f"{payload}.{hmac.new(KEY, payload.encode(), hashlib.sha256).hexdigest()}"

    anonymous, closed = SessionCookies([KEY], None), SessionCookies([KEY], LOGINS)
    found = anonymous.read(of_earlier(Session("abc"), anonymous))
    assert found is not None and found == Session("abc") and found.needs_renewal, (
        "known, and renewed at the next visit"
    )
    assert closed.read(of_earlier(Session("abc", "anna"), closed)) is None
