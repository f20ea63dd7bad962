"""`stats verify` and `stats power`, and the published figures behind them."""

import csv
import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lima_ray import stats
from lima_ray.config.errors import UserError
from lima_ray.results.published import shipped
from lima_ray.results.published.alpaca_eval import alpaca_eval
from lima_ray.results.published.anchor import Anchor, Missing, bounded, printed
from lima_ray.results.published.tulu import tulu

ROOT = Path(__file__).parents[1]
DATA = os.environ.get("LIMA_RAY_EVALUATION_DATA", "")
needs_data = pytest.mark.skipif(
    not DATA, reason="LIMA_RAY_EVALUATION_DATA names no folder with alpaca_eval and open_instruct"
)


def test_every_shipped_figure_is_the_published_one() -> None:
    figures = list(shipped.shipped())
    assert len(figures) > 50
    assert not [one for one in figures if not one.equal]
    assert len({(one.source, one.figure) for one in figures}) == len(figures)


def test_a_figure_is_equal_if_it_rounds_to_what_was_printed() -> None:
    for got, equal in ((54.9569, True), (54.955, True), (54.9649, True), (54.97, False)):
        assert printed("a", "b", got, 54.96, 2).equal is equal
    assert not printed("a", "b", float("nan"), 0.0, 2).equal
    assert bounded("a", "b", 1.0, 0.93, 1.04, 2).equal
    assert not bounded("a", "b", 1.05, 0.93, 1.04, 2).equal


def test_slices_name_their_source_and_are_small() -> None:
    slices = sorted(Path(shipped.__file__).parent.glob("*.csv"))
    assert len(slices) == 3
    for file in slices:
        head = file.read_text(encoding="utf-8").splitlines()[:2]
        assert all(line.startswith("# ") for line in head) and "@" in " ".join(head)
        assert file.stat().st_size < 8000


def test_the_command_prints_and_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    stats.main(["verify"])
    said = capsys.readouterr().out
    assert "consistent and right, all" in said and "54.96" in said
    assert "skipped: AlpacaEval 1, AlpacaEval 2, Tulu 1 human study" in said
    assert "NO" not in said


def test_a_different_figure_ends_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(shipped.BASEBALL_PUBLISHED, "Boston", 1.12)
    with pytest.raises(SystemExit) as ended:
        stats.main(["verify"])
    assert ended.value.code == 1
    assert "strength of Boston" in capsys.readouterr().out.split("NO")[0].splitlines()[-1]


def test_a_folder_without_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no alpaca_eval or open_instruct"):
        stats.main(["verify", "--data", str(tmp_path)])


def test_what_is_missing_is_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "alpaca_eval").mkdir()
    stats.main(["verify", "--data", str(tmp_path)])
    said = capsys.readouterr().out
    assert said.count("skipped: there is no") == 3
    assert [type(one) for one in tulu(tmp_path)] == [Missing]


def test_a_leaderboard_is_recomputed_from_its_preferences(tmp_path: Path) -> None:
    """Two models of four instructions; the second's rate is printed wrong."""
    folder = tmp_path / "alpaca_eval"
    folder.mkdir()
    points = {"good": [1, 1, 0, 0.5], "other": [0, 1, 0, 0]}
    for name in ("alpaca_eval_gpt4", "weighted_alpaca_eval_gpt4_turbo"):
        with gzip.open(folder / f"{name}_preferences.csv.gz", "wt", newline="") as file:
            out = csv.writer(file)
            out.writerow(["model", "preference", "len_output_1", "len_output_2"])
            for model, won in points.items():
                out.writerows([model, 1 + y, 100 + 7 * n, 90 + n * n] for n, y in enumerate(won))
                out.writerow([model, "", 1, 1])
        with (folder / f"{name}_leaderboard.csv").open("w", newline="") as file:
            out = csv.writer(file)
            out.writerow(["", "win_rate", "standard_error", "length_controlled_winrate"])
            out.writerow(["good", 62.5, 100 * 0.23935677693908453, 60])
            out.writerow(["other", 26, 25, 20])
    found = {one.figure: one for one in alpaca_eval(tmp_path) if isinstance(one, Anchor)}
    assert found["win rates equal to 1e-9"].got == 1
    assert found["standard errors equal to 1e-9"].got == 2
    assert not found["win rates equal to 1e-9"].equal  # the published have 57


@needs_data
def test_every_figure_of_the_full_data_is_the_published_one() -> None:
    figures = [*tulu(Path(DATA)), *alpaca_eval(Path(DATA))]
    assert len(figures) == 21
    assert not [one for one in figures if isinstance(one, Missing) or not one.equal]


def test_power_says_what_a_study_would_find(capsys: pytest.CaptureFixture[str]) -> None:
    stats.main(["power", "--prompts", "300", "--ties", "0.45", "--difference", "0.06"])
    said = capsys.readouterr().out
    assert "56.0 % instead of 50 %" in said
    assert re.search("of 56.0 % needs 30[0-9] prompts", said)
    assert "after 20 more answers" in said
    stats.main(["power", "--prompts", "3", "--ties", "0.5"])
    assert "against another: none, not even" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompts", "1"], "two prompts or more"),
        (["--ties", "1"], "share of ties"),
        (["--difference", "6"], "no share between 0 and 0.395"),
        (["--difference", "0.3", "--ties", "0.5"], "has a win rate of 75.0 %"),
    ],
)
def test_impossible_studies_are_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        stats.main(["power", *flags])


def test_the_command_loads_no_torch() -> None:
    said = "import lima_ray.stats, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", said], check=True, cwd=ROOT)
