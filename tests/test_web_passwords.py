"""The login file."""

import io
from pathlib import Path

import pytest

from lima_ray.config.command_line import run_command
from lima_ray.config.errors import UserError
from lima_ray.web.passwords import login_line, read_logins
from lima_ray.web.sessions import SessionCookies

KEY = b"k" * 32


def test_login_file_is_read_or_its_line_named(tmp_path: Path) -> None:
    path = tmp_path / "logins"
    path.write_text("# people\n\nanna:pass:word\nbert: x\n")
    assert read_logins(path) == {"anna": "pass:word", "bert": "x"}
    for text, complaint in (("anna\n", ":1 "), ("a:b\n:c\n", ":2 "), ("# none\n", "no login")):
        path.write_text(text)
        with pytest.raises(UserError, match=complaint):
            read_logins(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_logins(tmp_path / "missing")


def test_a_hash_of_the_login_file_takes_its_password_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "logins"
    path.write_text(login_line("anna", "sesame") + "\n")
    logins = read_logins(path)
    assert "sesame" not in path.read_text() and not caplog.messages
    cookies = SessionCookies([KEY], logins)
    session = cookies.log_in("anna", "sesame")
    assert session is not None and cookies.read(cookies.issue(session)) == session
    for wrong in (("anna", "other"), ("anna", logins["anna"]), ("carl", "sesame"), ("", "")):
        assert cookies.log_in(*wrong) is None
    changed = {"anna": login_line("anna", "sesame").partition(":")[2]}
    assert SessionCookies([KEY], changed).read(cookies.issue(session)) is None, "made anew"
    path.write_text(f"anna:{logins['anna']}\nbert:plain\n")
    assert SessionCookies([KEY], read_logins(path)).log_in("bert", "plain") is not None
    assert "bert in plain text" in caplog.text and "anna" not in caplog.text
    path.write_text("anna:$argon2id$broken\n")
    with pytest.raises(UserError, match=r":1 holds a broken hash; .*serve.login"):
        read_logins(path)
    for name, password in (("a:b", "x"), ("#a", "x"), ("", "x"), ("a\nb", "x"), ("anna", " ")):
        with pytest.raises(UserError):
            login_line(name, password)


def test_the_command_makes_a_line_of_the_password_that_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("sesame and more\n"))
    run_command("login", ["anna"])
    path = tmp_path / "logins"
    path.write_text(capsys.readouterr().out)
    cookies = SessionCookies([KEY], read_logins(path))
    assert cookies.log_in("anna", "sesame and more") and not cookies.log_in("anna", "sesame")


def test_one_more_line_of_a_name_changes_its_password(tmp_path: Path) -> None:
    file = tmp_path / "logins"
    lines = [login_line("anna", "sesame"), login_line("ben", "rose"), login_line("anna", "open")]
    file.write_text("\n".join(lines))
    logins = read_logins(file)
    assert logins == {"anna": lines[2].partition(":")[2], "ben": lines[1].partition(":")[2]}
