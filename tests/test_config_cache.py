"""The cache folder: made once, and nobody else's."""

import os
from pathlib import Path

import pytest

from lima_ray.config import cache


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def made(file: Path) -> None:
    """Write a file, as open as can be."""
    file.write_text("ours")
    file.chmod(0o777)


def test_what_is_kept_is_nobody_elses_to_write(home: Path) -> None:
    file = cache.cached_file("script", made)
    assert file == home / "lima_ray" / "script" and file.read_text() == "ours"
    assert file.stat().st_mode & 0o777 == 0o755
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_what_others_could_have_written_is_made_again(home: Path) -> None:
    file = cache.cached_file("script", made)
    file.write_text("theirs")
    assert cache.cached_file("script", made).read_text() == "theirs", "nobody else could have"
    for mode in (0o666, 0o664):
        file.write_text("theirs")
        file.chmod(mode)
        assert cache.cached_file("script", made).read_text() == "ours"
    file.parent.chmod(0o777)
    cache.cached_file("script", made)
    assert file.parent.stat().st_mode & 0o777 == 0o755


def test_another_users_folder_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache.cached_file("script", made).parent
    if os.geteuid():
        monkeypatch.setattr("lima_ray.config.cache.os.geteuid", lambda: folder.stat().st_uid + 1)
    else:
        os.chown(folder, 12345, -1)
    with pytest.raises(PermissionError, match=r"another user's; let XDG_CACHE_HOME"):
        cache.cached_file("script", made)


def test_a_folder_that_anyone_may_exchange_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    cache.cached_file("script", made)
    home.chmod(0o777)
    with pytest.raises(PermissionError, match=f"anyone may write {home}"):
        cache.cached_file("script", made)
    home.chmod(0o1777)
    cache.cached_file("script", made)
