"""The command that judges, against a real server whose judgements and faults are known."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import ray_cluster
from served import Hosted

from benchmarks.local_servers.chat_server import serving
from benchmarks.local_servers.judge_server import JudgeServer, always_a, honest, longer
from lima_ray import judge as command
from lima_ray.config.command_line import COMMANDS, parse_arguments
from lima_ray.config.errors import UserError
from lima_ray.judging.questions.item import Item
from lima_ray.judging.questions.verdicts import Annotator, record_verdict
from lima_ray.judging.summary import summarise
from lima_ray.records.files import write_json, write_jsonl
from lima_ray.records.lineage import hash_base
from lima_ray.records.reply import Reply, read_replies
from lima_ray.records.verdict import Verdict, read_verdicts

Start = Callable[..., JudgeServer]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start judge servers that end with the test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(JudgeServer(**settings)))


def replies(model: str, texts: dict[str, str]) -> list[Reply]:
    return [Reply(i, (f"Why {i}?",), model, 0, 0, t, True) for i, t in texts.items()]


def written(folder: Path, model: str, texts: dict[str, str]) -> str:
    (folder / model).mkdir()
    rows = [reply.to_json() for reply in replies(model, texts)]
    write_jsonl(rows, folder / model / "replies.jsonl")
    return f"{model}={folder / model}"


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    """Twelve prompts: ours is good on eight, theirs on two, neither on two."""
    ours = {f"p{n}": "good" if n < 8 else "so" for n in range(12)}
    theirs = {f"p{n}": "good" if 8 <= n < 10 else "so" for n in range(12)}
    return [written(tmp_path, "ours", ours), written(tmp_path, "theirs", theirs)]


def judge_with(server: JudgeServer, **fields: Any) -> str:
    settings = {"backoff_s": 0.01, "timeout_s": 30} | fields
    return "".join([f"judge@{server.url}", *(f",{k}={v}" for k, v in settings.items())])


def run(*args: str | Path) -> None:
    command.main(parse_arguments(COMMANDS["judge"], list(map(str, args))))


def verdicts(out: Path) -> list[Verdict]:
    return read_verdicts(out / "verdicts.jsonl")


def test_pairs_are_judged_in_both_orders_and_summarised(
    start: Start, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, out = start(), tmp_path / "out"
    run(*models, "--judges", judge_with(server), "--out", out)
    found = verdicts(out)
    assert len(found) == 24 and all(v.was_read for v in found)
    assert {v.order for v in found} == {(0, 1), (1, 0)}
    assert {v.extra["snapshot"] for v in found} == {"judge-2026-11-01 fp_old"}
    said = capsys.readouterr().out
    assert "ours against theirs: win 66.7 [" in said and "tie 16.7 [" in said
    assert "both orders give the same verdict 100.0" in said
    assert "no passport of judge" in said
    settings = json.loads((out / "judge.json").read_text())
    assert set(settings["models"]) == {"ours", "theirs"}


def test_faults_are_waited_out_and_what_is_no_verdict_is_told_of_each_model(
    start: Start, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = {0: "429", 1: "500", 2: "drop", 3: "garbage", 4: "hang", 8: "off menu", 9: "cut"}
    faults |= {10: "contradiction"}
    server, out = start(faults=faults), tmp_path / "out"
    began = time.monotonic()
    run(*models, "--judges", judge_with(server, retries=5, timeout_s=2), "--out", out)
    assert time.monotonic() - began >= 1, "Retry-After and timeout_s were waited for"
    found = verdicts(out)
    assert len(found) == 24
    lost = [v for v in found if not v.was_read]
    assert [v.status for v in lost] == ["unreadable", "unreadable"]
    assert all(v.verdict is None and v.grade is None for v in lost)
    said = capsys.readouterr().out
    for model in ("ours", "theirs"):
        assert f"{model}: 2 unreadable and 0 unanswered of 24 verdicts, neither a tie" in said
    assert "with all not read)" in said
    assert "1 verdict of 24 contradict the last sentence" in said


def test_what_was_not_answered_is_apart_and_asked_again(
    start: Start, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, out = start(faults={5: "500", 6: "off menu"}), tmp_path / "out"
    args = [*models, "--judges", judge_with(server, retries=0), "--out", out]
    run(*args)
    assert [v.status for v in verdicts(out) if not v.was_read].count("unanswered") == 1
    said = capsys.readouterr().out
    assert "1 unreadable and 1 unanswered of 24" in said
    assert "judge: 1 question got no answer, the last one because: 500" in said
    run(*args)
    assert server.number == 25, "the unanswered one alone"
    run(*args, "--unreadable", "ask")
    assert server.number == 26
    said = capsys.readouterr().out
    assert "win 66.7 [" in said.split("about")[-1] and "unreadable" not in said.split("about")[-1]
    assert max(server.answered.values()) == 2


def test_a_killed_run_goes_on_and_pays_for_nothing_twice(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    server, out = start(seconds=0.1), tmp_path / "out"
    args = [*models, "--judges", judge_with(server, concurrency=2), "--out", str(out)]
    running = subprocess.Popen([sys.executable, "-m", "lima_ray.judge", *args])
    file = out / "verdicts.jsonl"
    deadline = time.monotonic() + 60
    while not (file.exists() and file.read_bytes().count(b"\n") >= 6):
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    before = file.read_bytes().count(b"\n")
    assert 6 <= before < 24
    time.sleep(0.3)
    asked = server.number
    server.seconds = 0
    run(*args)
    assert server.number - asked == 24 - before, "what stood in the journal is not asked again"
    found = verdicts(out)
    assert len({v.extra["asked"] for v in found}) == len(found) == 24


def test_calls_tokens_and_money_are_told_before_the_first_call(
    start: Start,
    models: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, out = start(), tmp_path / "out"
    priced = judge_with(server, input_usd=1000, output_usd=2000, max_new_tokens=500)
    args = [*models, "--judges", priced, "--out", str(out)]
    run(*args, "--dry_run")
    said = capsys.readouterr().out
    assert "judge: 24 calls, about " in said and "at most $" in said
    assert not server.requests and not out.exists()
    with pytest.raises(UserError, match=r"may cost \$.*more than limit_usd \$5\.00; --yes"):
        run(*args)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda _: True})())
    monkeypatch.setattr("builtins.input", lambda _: "n")
    with pytest.raises(UserError, match="nothing was asked"):
        run(*args)
    assert not server.requests
    monkeypatch.setattr("builtins.input", lambda _: "y")
    run(*args)
    assert len(verdicts(out)) == 24, "what was accepted is no limit"
    assert "tokens in (+33% of four characters a token)" in capsys.readouterr().out
    run(*args, "--dry_run")
    assert "0 calls" in capsys.readouterr().out


def test_a_run_that_costs_more_than_was_told_stops_and_loses_no_answer(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    # The server counts a third more tokens than are estimated.
    server, out = start(seconds=0.05), tmp_path / "out"
    priced = judge_with(server, input_usd=720, output_usd=0, concurrency=4)
    args = [*models, "--judges", priced, "--out", str(out)]
    with pytest.raises(UserError, match=r"have cost more than limit_usd \$5\.00; they are kept"):
        run(*args)
    assert 12 < len(verdicts(out)) < 24
    assert len(verdicts(out)) == server.number, "those on their way were waited for"
    run(*args)
    assert server.number == 24


def test_money_is_estimated_where_a_server_counts_no_tokens(
    start: Start, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, out = start(seconds=0.02, counts=0), tmp_path / "out"
    # It answers at greater length than it was told to, so it costs more than "at most".
    priced = judge_with(server, input_usd=0, output_usd=1e6, concurrency=2, max_new_tokens=1)
    args = [*models, "--judges", priced, "--out", str(out)]
    with pytest.raises(UserError, match=r"have cost more than limit_usd \$30"):
        run(*args, "--limit_usd", "30")
    assert 3 <= server.number < 8
    run(*args, "--dry_run")
    assert "about 0 tokens" not in capsys.readouterr().out


def test_several_judges_are_asked_at_once_and_one_that_fails_holds_up_no_other(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    good, biased, broken = (
        start(),
        start(decide=always_a),
        start(faults=dict.fromkeys(range(99), "500")),
    )
    out = tmp_path / "out"
    specifications = [
        judge_with(good),
        judge_with(biased, name="biased"),
        judge_with(broken, name="broken", retries=0),
    ]
    with pytest.raises(UserError, match="failed 8 times in a row"):
        run(*models, "--judges", *specifications, "--out", out)
    counts = {name: 0 for name in ("judge", "biased", "broken")}
    for verdict in verdicts(out):
        counts[verdict.annotator] += verdict.was_read
    assert counts == {"judge": 24, "biased": 24, "broken": 0}


def test_a_judge_that_follows_no_request_is_stopped_early(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    server = start(faults=dict.fromkeys(range(99), "off menu"))
    with pytest.raises(UserError, match="gave no verdict on its last line in 16 judgements"):
        run(*models, "--judges", judge_with(server, concurrency=1), "--out", tmp_path / "out")
    assert server.number == 16


def test_requests_keep_to_so_many_a_minute(start: Start, models: list[str], tmp_path: Path) -> None:
    server = start()
    limited = judge_with(server, requests_per_minute=1200)
    run(*models, "--judges", limited, "--out", tmp_path / "out")
    # The first may arrive late on a busy machine, its connection being new.
    assert server.times[-1] - server.times[0] >= 23 * 0.05 * 0.6


def test_a_change_of_the_judge_within_a_study_is_told(
    start: Start, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start(drifts_at=10)
    run(*models, "--judges", judge_with(server), "--out", tmp_path / "out")
    said = capsys.readouterr().out
    assert "the judge changed within this study: 14 by judge-2026-11-01 fp_new, 10 by" in said
    keys = {v.key for v in verdicts(tmp_path / "out")}
    assert len(keys) == 24


def test_a_model_does_not_judge_its_own_replies(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    server, out = start(), tmp_path / "out"
    own = f"owner/Ours@{server.url}"
    with pytest.raises(UserError, match=r"would judge its own replies \(ours\)"):
        run(*models, "--judges", own, "--out", out)
    assert not server.requests
    run(*models, "--judges", own, "--out", out, "--allow_self")
    assert len(verdicts(out)) == 24


def test_our_own_server_is_known_by_the_weights_behind_it(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    write_json(tmp_path / "ours" / "generate.json", {"model": "x", "model_hash": "fp_old"})
    server, out = start(), tmp_path / "out"
    with pytest.raises(UserError, match="turns out to be a model it judges"):
        run(*models, "--judges", judge_with(server), "--out", out)
    before = server.number
    listed = {"data": [{"id": "judge", "revision": "fp_old"}]}
    server.models = (200, {}, json.dumps(listed).encode())
    with pytest.raises(UserError, match="would judge its own replies"):
        run(*models, "--judges", judge_with(server), "--out", out)
    assert server.number == before


def test_a_model_of_our_own_server_judges_others_and_not_itself(
    host: Hosted, long_dir: Path, models: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    judge = f"long@{host.url}/v1,max_new_tokens=4,backoff_s=0.01"
    # A random model never ends its answer, so each is cut off, and none is a verdict.
    with pytest.raises(UserError, match="gave no verdict on its last line in 16 judgements"):
        run(*models, "--judges", judge, "--out", out)
    assert {v.status for v in verdicts(out)} == {"unreadable"}
    assert {v.extra["snapshot"] for v in verdicts(out)} == {f"long {hash_base(str(long_dir))}"}
    own = {"model": "another-name", "model_hash": hash_base(str(long_dir))}
    write_json(tmp_path / "theirs" / "generate.json", own)
    with pytest.raises(UserError, match="would judge its own replies"):
        run(*models, "--judges", judge, "--out", tmp_path / "other")


def test_a_table_tells_who_made_its_replies_and_its_neighbours_do_not(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    write_json(tmp_path / "ours" / "generate.json", {"model": "x", "model_hash": "fp_old"})
    table = tmp_path / "ours" / "outputs.csv"
    rows = [f"p{n},so,Judge" for n in range(12)]
    table.write_text("\n".join(["id,output,generator", *rows]))
    server, out = start(), tmp_path / "out"
    with pytest.raises(UserError, match=r"would judge its own replies \(judge, other\)"):
        run(models[1], f"other={table}", "--judges", judge_with(server), "--out", out)
    table.write_text(table.read_text().replace("Judge", "gpt"))
    run(models[1], f"other={table}", "--judges", judge_with(server), "--out", out)
    assert json.loads((out / "judge.json").read_text())["models"]["other"]["made_by"] is None


def test_another_model_under_the_same_name_is_asked_as_well(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    server, out = start(), tmp_path / "out"
    for model, asked in (("one", 24), ("two", 48), ("two", 48)):
        run(*models, "--judges", f"{model}@{server.url},name=j", "--out", out)
        assert server.number == asked


def test_other_replies_under_the_same_name_are_refused(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    server, out = start(), tmp_path / "out"
    run(*models, "--judges", judge_with(server), "--out", out)
    changed = [reply.to_json() for reply in replies("ours", {f"p{n}": "new" for n in range(12)})]
    write_jsonl(changed, tmp_path / "ours" / "replies.jsonl")
    with pytest.raises(UserError, match=r"holds verdicts on other replies of ours on p0"):
        run(*models, "--judges", judge_with(server), "--out", out)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no judge: --judges exact"),
        (["gpt"], "'gpt' is no judge"),
        (["m@http://x/v1,price=3"], "there is no price"),
        (["m@http://x/v1,concurrency=0"], "concurrency is '0'"),
        (["m@http://x/v1,input_usd=nan"], "input_usd"),
        (["m@http://x/v1,input_usd=3"], "one price alone tells no cost"),
        (["m@http://x/v1", "m@http://y/v1"], "several judges are called m"),
        (["exact@http://x/v1"], "several judges are called exact"),
    ],
)
def test_judges_that_cannot_be_read_are_refused(
    models: list[str], tmp_path: Path, given: list[str], message: str
) -> None:
    flags = ["--judges", *given] if given else []
    with pytest.raises(UserError, match=message):
        run(*models, *flags, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_key_given_for_the_name_of_its_variable_is_shown_and_written_nowhere(
    models: list[str], tmp_path: Path
) -> None:
    judge = "m@http://localhost:9/v1,api_key_env=sk-proj-Secret,retries=0"
    with pytest.raises(UserError, match="api_key_env is no name") as error:
        run(*models, "--judges", judge, "--allow_self", "--out", tmp_path / "out")
    assert "Secret" not in str(error.value) and not (tmp_path / "out").exists()


def test_html_in_a_reply_is_text_to_the_judge(start: Start, tmp_path: Path) -> None:
    script = "good <script>alert(1)</script>"
    pair = [written(tmp_path, "ours", {"p": script}), written(tmp_path, "theirs", {"p": "x"})]
    server = start()
    run(*pair, "--judges", judge_with(server), "--out", tmp_path / "out")
    assert script in server.asked[0]


def test_grades_keep_to_the_scale(start: Start, models: list[str], tmp_path: Path) -> None:
    said = iter(["7", "0", "nan", "5", "4.5", *["3"] * 99])
    server, out = start(decide=lambda *_: next(said)), tmp_path / "out"
    limited = judge_with(server, concurrency=1)
    run(models[0], "--kind", "grade", "--judges", limited, "--out", out)
    found = verdicts(out)
    assert [v.status for v in found].count("unreadable") == 4
    assert sorted(v.grade for v in found if v.grade is not None) == [3] * 7 + [5]


def people(out: Path, models: list[str], decide: Callable[[str, str], str]) -> Path:
    """Write verdicts of two people on the replies of two models."""
    sides = [read_replies_of(reference) for reference in models]
    rows = []
    for ours, theirs in zip(*sides, strict=True):
        item = Item("pairwise", (ours.model, theirs.model), ((ours,), (theirs,)))
        for name in ("anna", "ben"):
            choice = decide(ours.reply, theirs.reply)
            rows.append(record_verdict(item, Annotator(name), choice).to_json())
    write_jsonl(rows, out)
    return out


def read_replies_of(reference: str) -> list[Reply]:
    return read_replies(Path(reference.partition("=")[2]) / "replies.jsonl")


def test_a_passport_tells_biased_judges_from_an_honest_one(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Quality and length are independent of each other: good is worth nothing to the longer judge.
    ours = {f"p{n}": "good " * (n % 3) + "long " * (n % 5) for n in range(60)}
    theirs = {f"p{n}": "good " * (n // 3 % 3) + "long " * (n // 5 % 5) for n in range(60)}
    models = [written(tmp_path, "ours", ours), written(tmp_path, "theirs", theirs)]
    servers = {"fair": start(), "first": start(decide=always_a), "long": start(decide=longer)}
    judges = [judge_with(server, name=name) for name, server in servers.items()]
    theirs_file = people(tmp_path / "people.jsonl", models, honest)
    out = tmp_path / "out"
    args = [*models, "--judges", *judges, "--out", out]
    run(*args, "--passport", "--people", theirs_file)
    said = capsys.readouterr().out
    assert "no passport" not in said
    passports = json.loads((out / "passport.json").read_text())
    assert passports["fair"]["problems"] == []
    assert passports["fair"]["consistency"]["value"] == 1
    assert passports["fair"]["agreement"]["tie_discounted"]["value"] == 1
    assert passports["first"]["first_slot"]["value"] == 1
    assert passports["first"]["consistency"]["value"] == 0
    assert "prefers the reply shown first" in passports["first"]["problems"]
    assert passports["long"]["longer_preferred"]["value"] == 1
    assert "prefers longer replies more than people do" in passports["long"]["problems"]
    assert "does not agree with people beyond chance" in passports["first"]["problems"]
    run(*args, "--passport")
    assert "agreement" in json.loads((out / "passport.json").read_text())["fair"]


def test_a_passport_tells_a_judge_that_favours_its_own_family(start: Start, tmp_path: Path) -> None:
    """On 20 of 60 prompts both replies are equally good; there it prefers its own house's."""

    def favours(a: str, b: str) -> str:
        own = "A" if "house" in a else "B"
        return own if (fair := honest(a, b)) == "neither" else fair

    ours = {f"p{n}": "good " * (n % 3) + "house" for n in range(60)}
    theirs = {f"p{n}": "good " * (n // 3 % 3) + "other" for n in range(60)}
    models = [written(tmp_path, "ours", ours), written(tmp_path, "theirs", theirs)]
    file = people(tmp_path / "people.jsonl", models, honest)
    servers = {"fair": start(), "kin": start(decide=favours)}
    judges = [judge_with(server, name=n, family="gpt") for n, server in servers.items()]
    args = [*models, "--judges", *judges, "--out", tmp_path / "out", "--passport"]
    for family, sign in (("ours=gpt", 1), ("theirs=gpt", -1)):
        run(*args, "--people", file, "--families", family)
        found = json.loads((tmp_path / "out" / "passport.json").read_text())
        gap = found["kin"]["family_gap"]
        assert gap["mean"] == pytest.approx(sign * 20 * 0.5 / 60)
        assert gap["low"] < gap["mean"] < gap["high"] and gap["n_prompts"] == 60
        assert found["fair"]["family_gap"]["mean"] == 0 and found["fair"]["problems"] == []
        assert ("prefers its own family" in found["kin"]["problems"]) == (sign > 0)
    run(*args, "--people", file, "--families", "ours=gpt", "theirs=gpt")
    found = json.loads((tmp_path / "out" / "passport.json").read_text())
    assert found["kin"]["family_gap"] is None, "both are relatives"


def test_people_who_judged_something_else_are_refused(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = [written(tmp_path / "other", n, {"zz": "good"}) for n in ("ours", "theirs")]
    file = people(tmp_path / "people.jsonl", other, honest)
    server = start()
    args = [*models, "--judges", judge_with(server), "--out", tmp_path / "out", "--passport"]
    with pytest.raises(UserError, match="about none of these pairs; the first is on prompt zz"):
        run(*args, "--people", file)
    with pytest.raises(UserError, match="no verdicts of people at"):
        run(*args, "--people", tmp_path / "nothing")
    with pytest.raises(UserError, match="is not NAME=FAMILY of one of ours, theirs"):
        run(*args, "--families", "unknown=gpt")
    with pytest.raises(UserError, match="needs judges of a family"):
        run(*args, "--families", "ours=gpt")
    (tmp_path / "again").mkdir()
    again = [written(tmp_path / "again", n, {"p0": "another"}) for n in ("ours", "theirs")]
    with pytest.raises(UserError, match="people judged other replies of ours on p0; theirs on p0"):
        run(*args, "--people", people(tmp_path / "people.jsonl", again, honest))
    assert not server.requests, "before anything is paid for"


def test_a_judge_asked_in_another_way_is_another_judge(
    start: Start, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, out = start(), tmp_path / "out"
    run(*models, "--judges", judge_with(server), "--out", out)
    run(*models, "--judges", judge_with(server, temperature=0.5), "--out", out)
    assert server.number == 48 and len(verdicts(out)) == 48
    assert "judge: 24 verdicts" in capsys.readouterr().out, "of this command's judge alone"
    assert sum("judge (protocol " in line for line in summarise(verdicts(out))) == 2


@pytest.mark.slow
def test_questions_of_an_actor_that_dies_are_asked_by_others(
    start: Start, models: list[str], tmp_path: Path
) -> None:
    server, out = start(seconds=0.1), tmp_path / "out"
    killed: list[int] = []
    original = server.decide

    def decide(a: str, b: str) -> str:
        if server.number > 6 and not killed:
            own = psutil.Process().children(recursive=True)
            killed.append(next(p.pid for p in own if "AskingWorker" in " ".join(p.cmdline())))
            os.kill(killed[0], signal.SIGKILL)
        return original(a, b)

    server.decide = decide
    with ray_cluster(2):
        run(*models, "--judges", judge_with(server, concurrency=4), "--out", out, "--workers", "2")
    found = verdicts(out)
    assert killed and len(found) == 24 and all(v.was_read for v in found)


@pytest.mark.slow
def test_actors_of_a_cluster_ask_as_well(start: Start, models: list[str], tmp_path: Path) -> None:
    server, out = start(faults={3: "500", 4: "off menu"}, seconds=0.05), tmp_path / "out"
    broken = start(faults=dict.fromkeys(range(99), "500"))
    judges = [judge_with(server), judge_with(broken, name="broken", retries=0)]
    with ray_cluster(2):
        args = [*models, "--judges", *judges, "--out", out, "--workers", "2"]
        with pytest.raises(UserError, match="times in a row"):
            run(*args)
    found = [v for v in verdicts(out) if v.annotator == "judge"]
    assert len(found) == 24 and sum(v.was_read for v in found) == 23
    assert broken.number < 24
