"""The curate command, from a dump to a dataset with its card, through Ray Data and without."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import py7zr
import pytest
import yaml
from pyarrow import parquet

from lima_ray.config.command_line import run_command
from lima_ray.config.errors import UserError
from lima_ray.curation.arguments import parse_curate

SENTENCE = (
    "Copper pans number {n} spread the heat evenly and so a thin sauce does not burn at all. "
)


def row(id: int, kind: int, **attributes: object) -> str:
    """Return a post; Id and type stand first, as in a dump."""
    said = "".join(f" {name}={quoteattr(str(value))}" for name, value in attributes.items())
    return f'  <row Id="{id}" PostTypeId="{kind}"{said} />\n'


@pytest.fixture
def dumps(tmp_path: Path) -> Path:
    """A site of 12 questions, of whose top answers 8 pass, and a file of test prompts."""
    site = tmp_path / "dumps" / "cooking.stackexchange.com"
    site.mkdir(parents=True)
    lines = ['<?xml version="1.0" encoding="utf-8"?>\n', "<posts>\n"]
    for n in range(12):
        day = f"2014-01-{n + 1:02}T10:00:00.000"
        title = f"Which pan suits sauce number {n}?"
        question = {"CreationDate": day, "Score": n, "Title": title, "OwnerUserId": 7}
        question |= {"Body": f"<p>{title} The stove is electric.</p>", "AnswerCount": 1}
        lines.append(row(2 * n + 1, 1, **question))
        opening = "I think so. " if n in (0, 1) else ""
        text = opening + "".join(SENTENCE.format(n=100 * n + i) for i in range(16))
        answer = {"ParentId": 2 * n + 1, "CreationDate": day, "Score": 3 if n in (2, 3) else 20}
        lines.append(row(2 * n + 2, 2, **answer, Body=f"<p>{text}</p>", OwnerUserId=8))
    (site / "Posts.xml").write_text("".join([*lines, "</posts>\n"]), encoding="utf-8")
    prompt = {"conversations": ["Which pan suits sauce number 11?"], "id": "t"}
    (tmp_path / "dumps" / "test.jsonl").write_text(json.dumps(prompt), encoding="utf-8")
    return tmp_path / "dumps"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    cooking = {"kind": "stackexchange", "path": ".", "rows": 5, "prompt": "title"}
    tree = {"decontaminate": ["test.jsonl"], "overlap": 6, "sources": {"cooking": cooking}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return file


def curate(*args: object) -> None:
    run_command("curate", [str(arg) for arg in args])


def read_rows(out: Path, name: str = "train.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / name).read_text(encoding="utf-8").splitlines()]


def test_a_dataset_with_its_reasons_card_and_attribution(
    dumps: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    curate(recipe, "--inputs", dumps, "--out", out, "--workers", 0)
    rows = read_rows(out)
    # The questions of highest score, without the one that is a test prompt.
    assert [r["id"] for r in rows] == [f"cooking/{2 * n + 1}" for n in (10, 9, 8, 7, 6)]
    assert rows[0]["conversations"][0] == "Which pan suits sauce number 10?"
    assert rows[0]["licence"] == "CC BY-SA 3.0"
    reasons = parquet.read_table(out / "dropped.parquet").to_pylist()
    assert {r["id"]: r["reason"] for r in reasons} == {
        "cooking/1": "first_person",
        "cooking/3": "first_person",
        "cooking/5": "answer_score",
        "cooking/7": "answer_score",
        "cooking/9": "not_chosen",
        "cooking/11": "not_chosen",
        "cooking/23": "contaminated",
    }
    card = json.loads((out / "data_card.json").read_text(encoding="utf-8"))
    assert card["rows"]["count"] == 5
    assert "cooking.stackexchange.com/a/22" in (out / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "5 rows in" in capsys.readouterr().out


def test_fields_of_a_source_are_flags_and_too_few_rows_stop(
    dumps: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    args = (recipe, "--inputs", dumps, "--out", out, "--workers", 0)
    with pytest.raises(SystemExit):
        curate(*args, "--sources.cooking.rows", 9)
    said = capsys.readouterr().err
    assert "cooking: 7 rows, 2 fewer than the 9 asked for" in said
    assert not (out / "train.jsonl").exists()
    curate(*args, "--sources.cooking.rows=9", "--too_few", "take")
    assert len(read_rows(out)) == 7
    with pytest.raises(SystemExit):
        curate(*args)
    assert "other choices made" in capsys.readouterr().err
    curate(*args, "--overwrite")
    assert len(read_rows(out)) == 5


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--sources.baking.rows", 3), "has no 'baking' there; it has cooking"),
        (("--sources.cooking.choose", "best"), "choose"),
        (("--sources.cooking.rows.most", 3), "rows is a value, 5, and has no 'most'"),
        (("--sources.cooking.path", "[a"), "'[a' is no YAML"),
        (("--review", "--host", "0.0.0.0"), "open to others on 0.0.0.0 and has no login file"),
        (("--review", "--login_file", "none.txt"), "none.txt: no such file"),
        (("--review", "--overlaps"), "two things to do"),
        (("--lead", "ana"), "--lead ana has decided nothing; nobody did"),
        (("--sources.cooking.row", 3), "sources.cooking.row (value 3); did you mean sources."),
        (("--sources.cooking.kind", "x"), "sources.cooking.kind is 'x'; it is one of 'stackex"),
        (("--sources.cooking.rows", "x"), "sources.cooking.rows is 'x': input should be"),
        (("--sources.cooking.sites", "baking"), "no site baking; did you mean cooking?"),
        (("--near-duplicates", 2), "near_duplicates is 2: input should be less"),
        (("--decontaminate", "[a.jsonl, b.jsonl]"), "b.jsonl: no such file, and no row"),
        (("--inputs", "none"), "no folder none: --inputs names the folder of the dumps"),
        (("--sources.cooking.choose", "graded"), "needs endpoint and endpoint_model"),
        (("--sources.cooking.path", "none"), "no such file or folder"),
        (("--near_duplicate", 1), "no flag --near_duplicate; did you mean --near_duplicates?"),
        (("--decontaminat=[]",), "did you mean --decontaminate?"),
        (("--source.cooking.rows", 3), "did you mean --sources.cooking.rows?"),
        (("--worker", 0), "did you mean --workers?"),
        (("--embedder", "no_such.module:f"), "embedder no_such.module:f is not there: No module"),
        (("--embedder", "math:pi"), "embedder math:pi is no function"),
    ],
)
def test_a_wrong_flag_is_said_before_work_starts(
    args: Sequence[object],
    said: str,
    dumps: Path,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        curate(recipe, "--inputs", dumps, "--out", tmp_path / "out", "--workers", 0, *args)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "name:\n", "name: ''\n", "name: other\n"])
def test_names_of_a_recipe_and_of_a_source_with_a_hyphen(tmp_path: Path, name: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"{name}sources: {{my-own: {{kind: examples, path: own.jsonl}}}}\n")
    args = [str(file), "--sources.my-own.written-before", "2020-01-01"]
    curation = parse_curate(args, "", "").curation
    assert curation
    expected = "other" if "other" in name else "mine"
    assert (curation.name, Path(curation.out).name) == (expected, expected)
    assert curation.sources["my-own"].written_before == date(2020, 1, 1)


def test_a_source_is_no_path_out_of_the_dataset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("sources: {../../up: {kind: examples, path: own.jsonl}}\n")
    with pytest.raises(UserError, match=r"up.* should match pattern"):
        parse_curate([str(file)], "", "")


def test_rows_that_no_curation_made_are_not_replaced(
    dumps: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "train.jsonl").write_text("mine\n")
    args = (recipe, "--inputs", dumps, "--out", out, "--workers", 0)
    with pytest.raises(SystemExit):
        curate(*args)
    assert "train.jsonl, which this command did not make" in capsys.readouterr().err
    assert (out / "train.jsonl").read_text() == "mine\n"
    curate(*args, "--overwrite")
    assert len(read_rows(out)) == 5


def test_a_missing_file_of_prompts_is_said_first(
    dumps: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dumps / "test.jsonl").unlink()
    with pytest.raises(SystemExit):
        curate(recipe, "--inputs", dumps, "--out", tmp_path / "out", "--workers", 0)
    assert "test.jsonl: no such file" in capsys.readouterr().err
    assert not (tmp_path / "out" / "work").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; a curation recipe is a mapping"),
        ("source: {}", "sources is missing"),
        ("sources: {a: {path: x}}", "sources.a.kind is missing"),
        ("sources: {a: {kind: wikihow}}", "sources.a.path is missing"),
        (
            "sources: {a: {kind: wikihow, path: x}, b: {kind: reddit, path: y}}",
            "dumps/x: no such file or folder; give the dump's place by `inputs` and `path`\n  ",
        ),
        ("sources: {a: {kind: examples, path: a.txt}}", "a.txt ends in '.txt'; data files end in"),
        (
            "sources: {a-b: {kind: examples, path: test.jsonl, only: [x]}}",
            "a-b: 0 rows; of 1, other_source took 1",
        ),
    ],
)
def test_a_wrong_recipe_is_said_before_work_starts(
    text: str, said: str, dumps: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dumps / "a.txt").write_text("text")
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit):
        curate(recipe, "--inputs", dumps, "--out", tmp_path / "out", "--workers", 0)
    assert said in capsys.readouterr().err


def test_what_people_decided_is_taken_in(
    dumps: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "review").mkdir(parents=True)
    decision = {"id": "cooking/21", "verdict": "drop", "reviewer": "ana", "at": "2026-01-01"}
    edit = decision | {"id": "cooking/19", "verdict": "edit", "turns": ["Which pan?", "Copper."]}
    divided = [
        decision | {"id": "cooking/17", "verdict": verdict, "reviewer": name}
        for verdict, name in (("keep", "ana"), ("drop", "ben"))
    ]
    lines = "".join(f"{json.dumps(d)}\n" for d in (decision, edit, *divided))
    (out / "review" / "decisions.jsonl").write_text(lines, encoding="utf-8")
    curate(recipe, "--inputs", dumps, "--out", out, "--workers", 0)
    rows = read_rows(out)
    assert [r["id"] for r in rows] == [f"cooking/{2 * n + 1}" for n in (9, 8, 7, 6, 5)]
    assert rows[0]["conversations"] == ["Which pan?", "Copper."]
    reasons = parquet.read_table(out / "dropped.parquet").to_pylist()
    dropped = {"source": "cooking", "id": "cooking/21", "reason": "review", "detail": "ana drop"}
    assert dropped in reasons
    said = "equally divided, so these stay; --lead NAME decides: cooking/17 (ana keep, ben drop)"
    assert said in capsys.readouterr().out
    made = json.loads((out / "data_card.json").read_text(encoding="utf-8"))["made"]
    assert made["reviewers"] == {"ana": 3, "ben": 1}
    assert made["equally_divided"] == {"cooking/17": "ana keep, ben drop"}
    curate(recipe, "--inputs", dumps, "--out", out, "--workers", 0, "--lead", "ben")
    assert "cooking/17" not in [r["id"] for r in read_rows(out)]


def test_a_cut_archive_is_curated_up_to_the_cut(dumps: Path, recipe: Path, tmp_path: Path) -> None:
    folder = next(dumps.rglob("Posts.xml")).parent
    archive = folder.with_name(f"{folder.name}.7z")
    users = '<users><row Id="7" DisplayName="Ann" /></users>'
    with py7zr.SevenZipFile(archive, "w", filters=[{"id": py7zr.FILTER_BZIP2}]) as packed:
        packed.write(folder / "Posts.xml", "Posts.xml")
        packed.writestr(users, "Users.xml")
    archive.write_bytes(archive.read_bytes()[:-40])
    shutil.rmtree(folder)
    out = tmp_path / "out"
    args = (recipe, "--inputs", dumps, "--out", out, "--workers", 0, "--too_few", "take")
    with pytest.raises(SystemExit):
        curate(*args)
    assert not (out / "train.jsonl").exists()
    curate(*args, "--damaged", "keep")
    assert read_rows(out)
    assert "curate recipe.yaml --damaged keep" in (out / "card.md").read_text(encoding="utf-8")


def test_a_source_of_no_rows_is_left_out(dumps: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(SystemExit):
        curate(recipe, "--inputs", dumps, "--out", out, "--sources.cooking.rows", 0)
    tree = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    tree["sources"]["more"] = {"kind": "wikihow", "path": "nowhere"}
    recipe.write_text(yaml.safe_dump(tree), encoding="utf-8")
    curate(recipe, "--inputs", dumps, "--out", out, "--workers", 0, "--sources.more.rows", 0)
    assert len(read_rows(out)) == 5


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--workers", -1), "command line: --workers is -1: input should be greater than or"),
        (("--sources.cooking.min_chars", 9999), "min_chars 9999 is above max_chars"),
        (("--sources.cooking.written_before", "tomorrow"), "write a day as 2022-11-30, or null"),
    ],
)
def test_values_that_cannot_be_are_refused(
    flags: tuple[object, ...], said: str, recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        curate(recipe, *flags)
    told = capsys.readouterr().err
    assert said in told and "pydantic" not in told


def test_selectors_are_compared(
    dumps: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    curate(recipe, "--inputs", dumps, "--out", tmp_path / "out", "--workers", 0, "--overlaps")
    said = capsys.readouterr().out
    assert "cooking: 5 of 7 candidates" in said and "Jaccard" in said
    assert all(name in said for name in ("score", "random", "longest", "spread"))
    assert not (tmp_path / "out" / "train.jsonl").exists()


def test_selectors_are_compared_beside_a_dataset_of_other_choices(
    dumps: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    args = (recipe, "--inputs", dumps, "--out", out, "--workers", 0)
    curate(*args)
    made = (out / "train.jsonl").read_bytes()
    curate(*args, "--sources.cooking.rows", 3, "--overlaps")
    assert "cooking: 3 of 7 candidates" in capsys.readouterr().out
    assert (out / "train.jsonl").read_bytes() == made


@pytest.mark.slow
def test_rows_are_the_same_over_ray(dumps: Path, recipe: Path, tmp_path: Path) -> None:
    here, ray = tmp_path / "here", tmp_path / "ray"
    curate(recipe, "--inputs", dumps, "--out", here, "--workers", 0)
    command = [sys.executable, "-m", "lima_ray.curate", str(recipe), "--inputs", str(dumps)]
    environment = os.environ | {"RAY_AUTH_MODE": "disabled"}
    subprocess.run([*command, "--out", str(ray)], check=True, env=environment, timeout=300)
    for name in ("train.jsonl", "ATTRIBUTION.md"):
        assert (ray / name).read_bytes() == (here / name).read_bytes()
    tables = [parquet.read_table(out / "dropped.parquet") for out in (here, ray)]
    assert tables[0].equals(tables[1])


def test_work_that_no_step_uses_is_removed_and_nothing_else(
    dumps: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    args = (recipe, "--inputs", dumps, "--out", out, "--workers", 0, "--overwrite")
    curate(*args)
    first = sorted(path.name for path in (out / "work").iterdir())
    assert "removed" not in capsys.readouterr().out
    own = out / "work" / "notes"
    own.mkdir()
    (own / "mine.txt").write_text("kept")
    (out / "work" / first[0] / "mine-01234567").mkdir()
    elsewhere = tmp_path / "elsewhere-01234567"
    elsewhere.mkdir()
    (out / "work" / "link-01234567").symlink_to(elsewhere)
    (out / "work" / "backup-20240101").mkdir()
    curate(*args, "--sources.cooking.min_chars", 900)
    assert re.search(r"removed [1-9]\d* KiB of", capsys.readouterr().out)
    left = sorted(path.name for path in (out / "work").iterdir())
    assert len(left) == 5 and {"notes", "link-01234567", "backup-20240101", first[0]} < set(left)
    assert [path.name for path in (out / "work" / first[0]).iterdir()] == ["mine-01234567"]
    before = sorted((path, path.stat().st_mtime_ns) for path in (out / "work").rglob("*.parquet"))
    curate(*args, "--sources.cooking.min_chars", 900)
    assert "removed" not in capsys.readouterr().out
    now = sorted((path, path.stat().st_mtime_ns) for path in (out / "work").rglob("*.parquet"))
    assert now == before


def test_an_embedder_of_ones_own_spreads_the_rows(
    dumps: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_encoder.py").write_text(
        "import numpy as np\n"
        "def encode(texts):\n"
        "    numbers = [float(t.split('sauce number ')[1].split('?')[0]) for t in texts]\n"
        "    return np.array([[np.cos(n / 4), np.sin(n / 4)] for n in numbers])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    out = tmp_path / "out"
    args = (recipe, "--inputs", dumps, "--out", out, "--workers", 0)
    curate(*args, "--sources.cooking.choose", "spread", "--embedder", "my_encoder:encode",
           "--sources.cooking.rows", 2)  # fmt: skip
    # The row of highest score first, and then the one farthest from it.
    assert [row["id"] for row in read_rows(out)] == ["cooking/21", "cooking/9"]


def test_an_edit_to_another_number_of_turns_is_refused(
    dumps: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    (out / "review").mkdir(parents=True)
    row = {"id": "cooking/21", "verdict": "edit", "reviewer": "ana", "at": "2026"}
    (out / "review" / "decisions.jsonl").write_text(
        json.dumps(row | {"turns": ["a", "b", "c"]}) + "\n"
    )
    with pytest.raises(SystemExit):
        curate(recipe, "--inputs", dumps, "--out", out, "--workers", 0)
    assert "cooking/21 was edited to 3 turns, and has 2" in capsys.readouterr().err
