"""What others wrote does not command the terminal."""

from collections.abc import Iterator

import pytest

from lima_ray.chat import print_reply
from lima_ray.config.errors import UserError, exit_on_user_error
from lima_ray.config.terminal import printable

EVIL = "a\x1b]0;title\x07b\x1b[2Jc\x9b31md\rover\x7f\u202eabc\u2066\ttab\nline"
EVIL += "\u200e\u200f\u061c\ud800"
SAFE = "a\\x1b]0;title\\x07b\\x1b[2Jc\\x9b31mdover\\x7f\\u202eabc\\u2066\ttab\nline"
SAFE += "\\u200e\\u200f\\u061c\\ud800"


def test_control_characters_are_escaped_and_the_rest_is_unchanged() -> None:
    assert printable(EVIL) == SAFE
    plain = "Grüße, 你好 👩\u200d🔬\n\tשלום"
    assert printable(plain) == plain


def test_replies_and_errors_are_printed_so(capsys: pytest.CaptureFixture[str]) -> None:
    def speak(turns: list[str], seed: int) -> Iterator[str]:
        yield from EVIL

    assert print_reply(speak, ["hi"], 0) == ["hi", EVIL], "what is kept is what was said"
    assert SAFE in capsys.readouterr().out

    def fail(turns: list[str], seed: int) -> Iterator[str]:
        raise UserError(EVIL)
        yield ""

    print_reply(fail, ["hi"], 0)
    assert f"({SAFE})" in capsys.readouterr().out
    with pytest.raises(SystemExit), exit_on_user_error():
        raise UserError(EVIL)
    assert capsys.readouterr().err == f"error: {SAFE}\n"
