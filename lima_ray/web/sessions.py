"""Sessions: a login, or a browser without one, named by one signed cookie.

The cookie `lima_session` holds the session's id, its login, since when it is, and a signature: any
replica that has the store's secret accepts it until it expires, also after a restart, unless its
bearer logged out, which the store keeps. It keeps its value, so that a load balancer can hold a
browser to one replica by it.
"""

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from time import time
from typing import Any

from itsdangerous import BadData, Signer, URLSafeSerializer
from itsdangerous.encoding import base64_decode

from lima_ray.web.passwords import matches

COOKIE = "lima_session"
SIGNED_BY: dict[str, Any] = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
DAY_S = 86400
LOGIN_DAYS = 30
BROWSER_DAYS = 365
"""How long a cookie is good, of a login and of a browser without one; the latter is renewed when
half of that is over, since without it a browser's conversations are lost."""


@dataclass(frozen=True)
class Session:
    id: str
    """Random; the owner of what a browser without a login writes."""
    user: str | None = None
    issued_s: float = field(default=0, compare=False)
    """When the cookie was made, in Unix seconds."""

    @property
    def max_age_s(self) -> float:
        return DAY_S * (LOGIN_DAYS if self.user else BROWSER_DAYS)

    @property
    def needs_renewal(self) -> bool:
        """Whether half of a browser's time is over."""
        return self.user is None and time() - self.issued_s > self.max_age_s / 2

    @property
    def owner(self) -> str:
        """Return whose conversations and votes these are."""
        return f"user:{self.user}" if self.user else f"session:{self.id}"

    @property
    def annotator(self) -> str:
        """Return the name in verdicts; without a login one that does not give the session away."""
        return self.user or f"anonymous-{hashlib.sha256(self.id.encode()).hexdigest()[:8]}"


class SessionCookies:
    def __init__(self, secrets: list[bytes], logins: dict[str, str] | None) -> None:
        """Know the keys and the logins.

        Args:
            secrets: signing keys; the last signs, any is accepted. More may be appended.
            logins: the login file's lines (`read_logins`), or none where nobody needs to log in.
        """
        self.secrets = secrets
        self.logins = logins
        self.ended: set[str] = set()
        """Ids of sessions whose bearers logged out."""

    def issue(self, session: Session) -> str:
        """Return a cookie's value; with another password of that login it is no longer accepted."""
        claims: dict[str, Any] = {"s": session.id, "t": int(time())}
        if session.user is not None:
            tie = self._signer.get_signature(self._login(session.user)).decode()
            claims |= {"n": session.user, "p": tie}
        return self._serializer.dumps(claims)

    def read(self, value: str) -> Session | None:
        """Return the session of a cookie; none where it is not ours, or no longer holds."""
        try:
            claims = self._serializer.loads(value)
        except BadData:
            claims = self._claims_of_earlier_release(value)
        if claims is None:
            return None
        session = Session(claims["s"], claims.get("n"), claims["t"])
        if session.id in self.ended or time() > session.issued_s + session.max_age_s:
            return None
        if session.user is None:
            return session if self.logins is None else None
        if not self.logins or session.user not in self.logins:
            return None
        current = self._signer.verify_signature(self._login(session.user), claims["p"])
        return session if current else None

    def log_in(self, user: str, password: str) -> Session | None:
        """Return a new session for a right name and password; takes tens of milliseconds."""
        logins = self.logins or {}
        # A wrong name takes as long as a wrong password.
        kept = logins.get(user) or next(iter(logins.values()), "")
        right = matches(kept, password)
        return Session(secrets.token_hex(16), user) if right and user in logins else None

    @property
    def _serializer(self) -> URLSafeSerializer:
        return URLSafeSerializer(self.secrets, salt=COOKIE, signer_kwargs=SIGNED_BY)

    @property
    def _signer(self) -> Signer:
        """Return what ties a cookie to a password without telling it."""
        return Signer(self.secrets, salt=f"{COOKIE}.login", **SIGNED_BY)

    def _login(self, user: str) -> str:
        return f"{user}:{(self.logins or {})[user]}"

    def _claims_of_earlier_release(self, value: str) -> dict[str, Any] | None:
        """Return what a cookie said before itsdangerous signed it; none where it is no such.

        A login's is not accepted: its bearer logs in again. A browser's without one holds
        conversations, and is taken for half over where it says no time, so that it is renewed.
        """
        payload, _, signed = value.partition(".")
        made = (hmac.new(key, payload.encode(), hashlib.sha256).hexdigest() for key in self.secrets)
        if not any([hmac.compare_digest(one.encode(), signed.encode()) for one in made]):
            return None
        claims: dict[str, Any] = json.loads(base64_decode(payload))
        half_over_s = time() - DAY_S * BROWSER_DAYS * 0.6
        return None if "n" in claims else {"t": half_over_s} | claims


def set_cookie_header(value: str, secure: bool) -> str:
    """Return the `Set-Cookie` header; an empty value takes the cookie away."""
    jar = SimpleCookie({COOKIE: value})
    jar[COOKIE] |= {"path": "/", "httponly": True, "samesite": "Lax"}
    jar[COOKIE]["max-age"] = BROWSER_DAYS * DAY_S if value else 0
    if secure:
        jar[COOKIE]["secure"] = True
    return jar[COOKIE].OutputString()
