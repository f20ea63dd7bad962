"""The login file: who may enter, each with the hash of a password.

A line is `name:$argon2id$...`, as `python -m serve.login NAME` makes it. `name:password` in plain
text is read too, with a warning. Blank lines and `#` comments are passed over.
"""

import hmac
import logging
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from lima_ray.config.errors import UserError

HASH = "$argon2"
"""Begins a hash; anything else is a password in plain text."""
HASHER = PasswordHasher()
log = logging.getLogger("lima_ray")


def read_logins(path: Path) -> dict[str, str]:
    """Return hashes, or passwords in plain text, by name; refuse a missing file and a bad line.

    Of several lines of a name the last counts, so a password is changed by one more.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"the login file {path} cannot be read: {error.strerror}") from error
    logins: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, kept = (part.strip() for part in line.partition(":"))
        if not (name and colon and kept):
            raise UserError(f"{path}:{number} is no login; a line is name:hash")
        check_hash(kept, f"{path}:{number}")
        logins[name] = kept
    if not logins:
        raise UserError(f"the login file {path} holds no login; a line is name:hash")
    if plain := [name for name, kept in logins.items() if not kept.startswith(HASH)]:
        log.warning(
            "%s holds the passwords of %s in plain text; `python -m serve.login NAME` makes a line "
            "with a hash instead",
            path,
            ", ".join(plain),
        )
    return logins


def check_hash(kept: str, place: str) -> None:
    """Refuse what begins as a hash and is none."""
    if not kept.startswith(HASH):
        return
    try:
        HASHER.check_needs_rehash(kept)
    except InvalidHashError as error:
        way_out = "`python -m serve.login NAME` makes a line"
        raise UserError(f"{place} holds a broken hash; {way_out}") from error


def login_line(name: str, password: str) -> str:
    """Return a line for the login file, with the password's hash; refuse what none can hold."""
    if not name.strip() or ":" in name or name.startswith("#") or not name.isprintable():
        raise UserError(f"{name!r} is no name: it may hold no colon, and not begin with #")
    if not password.strip():
        raise UserError("the password is empty")
    return f"{name.strip()}:{HASHER.hash(password)}"


def matches(kept: str, password: str) -> bool:
    """Whether a password is the one that a line of the login file keeps."""
    if not kept.startswith(HASH):
        return hmac.compare_digest(kept.encode(), password.encode())
    try:
        return HASHER.verify(kept, password)
    except VerificationError:
        return False
