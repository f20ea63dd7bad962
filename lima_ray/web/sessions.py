"""Who is there: one signed cookie.

The cookie `lima_session` holds who its bearer is, since when, and a signature: any replica that has
the store's secret accepts it until it expires, also after a restart, unless its bearer logged out,
which the store keeps. It keeps its value, so that a load balancer can hold a browser to one replica
by it.
"""

import base64
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from time import time
from typing import Any

from lima_ray.errors import UserError

COOKIE = "lima_session"
DAY_S = 86400
LOGIN_DAYS = 30
VISIT_DAYS = 365
"""How long a cookie is good, of a login and of a browser without one; the latter is renewed when
half of that is over, since without it a browser's conversations are lost."""


@dataclass(frozen=True)
class Session:
    """A login, or a browser without one."""

    id: str
    """Random; the owner of what a browser without a login writes."""
    user: str | None = None
    issued_s: float = field(default=0, compare=False)
    """When the cookie was made, in Unix seconds."""

    @property
    def max_age_s(self) -> float:
        """How long the cookie is good."""
        return DAY_S * (LOGIN_DAYS if self.user else VISIT_DAYS)

    @property
    def needs_renewal(self) -> bool:
        """Whether the cookie should be renewed."""
        return self.user is None and time() - self.issued_s > self.max_age_s / 2

    @property
    def owner(self) -> str:
        """Whose conversations and votes these are."""
        return f"user:{self.user}" if self.user else f"session:{self.id}"

    @property
    def annotator(self) -> str:
        """The name in verdicts; without a login one that does not give the session away."""
        return self.user or f"anonymous-{hashlib.sha256(self.id.encode()).hexdigest()[:8]}"


class SessionCookies:
    """Makes and reads cookies."""

    def __init__(self, secrets: list[bytes], logins: dict[str, str] | None) -> None:
        """Know the keys and the logins.

        Args:
            secrets: signing keys; the last signs, any is accepted.
            logins: passwords by name, or none where nobody needs to log in.
        """
        self.secrets = secrets
        self.logins = logins
        self.ended: set[str] = set()
        """Sessions whose bearers logged out."""

    def issue(self, session: Session) -> str:
        """A cookie's value. With another password of that name it is no longer accepted."""
        claims: dict[str, Any] = {"s": session.id, "t": int(time())}
        if session.user is not None:
            claims |= {"n": session.user, "p": self.fingerprint(session.user, self.secrets[-1])}
        payload = encode(json.dumps(claims).encode())
        return f"{payload}.{signature(payload, self.secrets[-1])}"

    def read(self, value: str) -> Session | None:
        """The bearer of a cookie; none where it is not ours, or its login no longer holds."""
        payload, _, signed = value.partition(".")
        key = next((k for k in self.secrets if same(signature(payload, k), signed)), None)
        if key is None:
            return None
        claims: dict[str, Any] = json.loads(decode(payload))
        user = claims.get("n")
        # Cookies of earlier releases say no time; those without a login hold conversations, and are
        # taken for half over, so that they are renewed.
        unknown_s = 0 if user else time() - DAY_S * VISIT_DAYS * 0.6
        session = Session(claims["s"], user, claims.get("t", unknown_s))
        if session.id in self.ended or time() > session.issued_s + session.max_age_s:
            return None
        if session.user is None:
            return session if self.logins is None else None
        if not self.logins or session.user not in self.logins:
            return None
        current = same(self.fingerprint(session.user, key), claims.get("p", ""))
        return session if current else None

    def log_in(self, user: str, password: str) -> Session | None:
        """The session of a right name and password; a wrong name takes as long as a wrong one."""
        logins = self.logins or {}
        right = same(password, logins.get(user, secrets.token_hex(16)))
        return Session(secrets.token_hex(16), user) if right and user in logins else None

    def fingerprint(self, user: str, key: bytes) -> str:
        """What ties a cookie to a password without telling it."""
        return signature(f"{user}:{(self.logins or {})[user]}", key)[:16]


def read_logins(path: Path) -> dict[str, str]:
    """Passwords by name, from lines `name:password`; blank lines and `#` comments are passed over.

    Raises:
        UserError: no such file, or a line that is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"the login file {path} cannot be read: {error.strerror}") from error
    logins: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, password = line.partition(":")
        if not (user.strip() and colon and password.strip()) or user.strip() in logins:
            raise UserError(f"{path}:{number} is no new login; a line is name:password")
        logins[user.strip()] = password.strip()
    if not logins:
        raise UserError(f"the login file {path} holds no login; a line is name:password")
    return logins


def set_cookie_header(value: str, secure: bool) -> str:
    """The `Set-Cookie` header; an empty value takes the cookie away."""
    jar = SimpleCookie({COOKIE: value})
    jar[COOKIE] |= {"path": "/", "httponly": True, "samesite": "Lax"}
    jar[COOKIE]["max-age"] = VISIT_DAYS * DAY_S if value else 0
    if secure:
        jar[COOKIE]["secure"] = True
    return jar[COOKIE].OutputString()


def signature(text: str, key: bytes) -> str:
    """HMAC-SHA-256 in hex."""
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def same(left: str, right: str) -> bool:
    """Compare in a time that tells nothing."""
    return hmac.compare_digest(left.encode(), right.encode())


def encode(raw: bytes) -> str:
    """Base 64 that a cookie may hold."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(text: str) -> Any:
    """The bytes of `encode`."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
