"""Sites of a dump: which files hold their posts, and which sets they stand in."""

from pathlib import Path

import pytest

from lima_ray.config.errors import UserError
from lima_ray.curation.sources.sites import find_sites, host, site_sets


def make(folder: Path, *names: str) -> Path:
    """Write files that are never read."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    return folder


def test_the_sets_have_the_papers_sizes_and_share_nothing() -> None:
    former = {"avp", "beer", "cogsci", "health", "moderators", "programmers", "writers"}
    sets = site_sets()
    assert {name: len(sites - former) for name, sites in sets.items()} == {
        "stem": 75,
        "other": 99,
        "discarded": 5,
    }
    assert sum(map(len, sets.values())) == len(frozenset().union(*sets.values())) == 179 + 7
    assert {"stackoverflow", "math", "physics", "programmers"} <= sets["stem"]
    assert {"english", "cooking", "travel", "beer", "alcohol"} <= sets["other"]


def test_archives_folders_and_split_archives_are_sites(tmp_path: Path) -> None:
    make(
        tmp_path,
        "cooking.stackexchange.com.7z",
        "stackoverflow.com-Posts.7z",
        "stackoverflow.com-Comments.7z",
        "Beer.StackExchange.com/posts.xml",
        "meta_history/Posts.xml",
        "meta_history/Comments.xml",
        "math.meta.stackexchange.com.7z",
        "mathoverflow.net.7z",
        "ru.stackoverflow.com.7z",
    )
    assert {site.name: site.host for site in find_sites(tmp_path, "all")} == {
        "beer": "beer.stackexchange.com",
        "cooking": "cooking.stackexchange.com",
        "math.meta": "math.meta.stackexchange.com",
        "mathoverflow": "mathoverflow.net",
        "meta.history": "meta.history.stackexchange.com",
        "ru.stackoverflow": "ru.stackoverflow.com",
        "stackoverflow": "stackoverflow.com",
    }
    assert [s.name for s in find_sites(tmp_path, "stem")] == ["mathoverflow", "stackoverflow"]
    assert [s.name for s in find_sites(tmp_path, ("math.meta", "beer"))] == ["beer", "math.meta"]
    assert host("meta.superuser") == "meta.superuser.com"


def test_a_site_of_no_set_is_told_and_the_number_of_meta_sites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, "cooking.stackexchange.com.7z", "genai.stackexchange.com.7z")
    make(tmp_path, "cooking.meta.stackexchange.com.7z", "eosio.stackexchange.com.7z")
    assert [site.name for site in find_sites(tmp_path, "other")] == ["cooking"]
    assert "left out: genai and 1 meta site, neither STEM nor other" in capsys.readouterr().out
    assert len(find_sites(tmp_path, "all")) == 4
    assert not capsys.readouterr().out


def test_what_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, "cooking.stackexchange.com.7z")
    with pytest.raises(UserError, match=r"no site cookin; did you mean cooking\?"):
        find_sites(tmp_path, ("cookin",))
    assert not find_sites(tmp_path, "stem")
    assert "no site of the set stem; it has cooking" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no posts\.xml or"):
        find_sites(make(tmp_path / "empty", "Users.xml"), "all")


def test_a_site_in_two_files_is_refused(tmp_path: Path) -> None:
    make(tmp_path, "beer.stackexchange.com.7z", "beer.stackexchange.com/Posts.xml")
    with pytest.raises(UserError, match="the posts of beer stand in"):
        find_sites(tmp_path, "all")
