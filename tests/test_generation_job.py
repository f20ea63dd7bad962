"""Prompts to replies: scripts, resuming after a kill, refusing to mix, engines and Ray."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from conftest import ray_cluster

from benchmarks.local_servers.chat_server import KEY, ChatServer, refused, said, serving
from lima_ray.config.command_line import COMMANDS
from lima_ray.config.command_line import parse_arguments as command_arguments
from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling
from lima_ray.data.tokenizer import eot_id, load_tokenizer
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Request
from lima_ray.generate import GenerationJob
from lima_ray.generation.endpoint import Endpoint
from lima_ray.generation.job import generate
from lima_ray.generation.reply_directory import ReplyDirectory
from lima_ray.model.loading import add_tokens, save_tokenizer_and_config
from lima_ray.records.reply import Reply, read_replies
from lima_ray.records.run import model_name

SHORT = Sampling(context=40)
WORDS = ("the", "cat", "sun", "reads", "moon", "writes", "slowly", "green", "river", "why", "how")


@pytest.fixture(scope="module")
def export_dir(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base as a run exports it, with EOT made likely and a context of 64 tokens."""
    from transformers import AutoModelForCausalLM

    path = tmp_path_factory.mktemp("runs") / "tiny" / "export"
    tokenizer = load_tokenizer(str(base_dir))
    loader: Any = AutoModelForCausalLM
    model = loader.from_pretrained(base_dir, max_position_embeddings=64)
    add_tokens(model, len(tokenizer))
    model.lm_head.weight.data[eot_id(tokenizer)] *= 30
    model.config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(path)
    save_tokenizer_and_config(model, tokenizer, path, model.dtype)
    (path.parent / "recipe.yaml").touch()
    return path


def prompts_file(folder: Path, rows: list[dict[str, Any]]) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def some_rows(count: int) -> list[dict[str, Any]]:
    words = [f"{WORDS[i % 11]} {WORDS[i // 11 % 11]}" for i in range(count)]
    return [{"id": f"row-{i}", "conversations": [f"{w} {i}"]} for i, w in enumerate(words)]


def asking(
    server: ChatServer, folder: Path, rows: list[dict[str, Any]], **changes: Any
) -> GenerationJob:
    """A generation by the server's model `lima`, into `folder/out`."""
    endpoint = {"url": server.url, "backoff_s": 0.01, "retries": 1, "concurrency": 2}
    fields = {"prompts": prompts_file(folder, rows), "out": folder / "out", "server": endpoint}
    return GenerationJob.model_validate({"model": "lima"} | fields | changes)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def replied(records: list[Reply]) -> list[tuple[str, int, int, str]]:
    """What was said to what."""
    return [(r.id, r.sample, r.turn, r.reply) for r in records]


# Behind an endpoint


def test_every_reply_holds_what_it_replies_to(server: ChatServer, tmp_path: Path) -> None:
    system = [{"role": "system", "content": "Be kind"}, {"role": "user", "content": "one"}]
    rows = [
        {"id": "q", "conversations": ["why?"], "source": "dev", "about": "sun", "model": "mine"},
        {"id": "answered", "conversations": ["a", "b", "c", "the reference"]},
        {"id": "talk", "messages": system, "follow_ups": ["two", "three"]},
    ]
    server.first = {"c": [said("cut", "length", 9)]}
    records = generate(asking(server, tmp_path, rows, samples=2))
    assert replied(records) == [
        ("q", 0, 0, "re: why?"),
        ("q", 1, 0, "re: why?"),
        ("answered", 0, 0, "cut"),
        ("answered", 1, 0, "re: c"),
        *(
            ("talk", s, t, f"re: {q}")
            for s in (0, 1)
            for t, q in enumerate(("one", "two", "three"))
        ),
    ]
    assert read_replies(tmp_path / "out" / "replies.jsonl") == records
    assert {r["seed"] for r in server.requests} == {r.seed for r in records}
    first = lines(tmp_path / "out" / "replies.jsonl")[0]
    assert first.pop("seed") >= 0
    assert first == {
        "id": "q",
        "conversations": ["why?"],
        "model": "lima",
        "sample": 0,
        "turn": 0,
        "reply": "re: why?",
        "stopped": True,
        "n_tokens": 3,
        "source": "dev",
        "about": "sun",
    }
    assert records[2].conversations == ("a", "b", "c")
    assert (records[2].stopped, records[2].n_tokens) == (False, 9)
    last = records[6]
    assert last.conversations == ("one", "re: one", "two", "re: two", "three")
    assert last.system == "Be kind" and "follow_ups" not in last.extra
    roles = ["system", "user", "assistant", "user", "assistant", "user"]
    sent = [r for r in server.requests if r["messages"][-1]["content"] == "three"]
    assert [[m["role"] for m in r["messages"]] for r in sent] == [roles, roles]


def test_seeds_depend_on_row_sample_and_turn_alone(server: ChatServer, tmp_path: Path) -> None:
    rows = [*some_rows(4), {"id": "talk", "conversations": ["one"], "follow_ups": ["two"]}]

    def seeds(name: str, rows: list[dict[str, Any]], **changes: Any) -> dict[Any, int | None]:
        (tmp_path / name).mkdir()
        records = generate(asking(server, tmp_path / name, rows, **changes))
        return {(r.id, r.sample, r.turn): r.seed for r in records}

    seen = seeds("all", rows, samples=3)
    assert len(set(seen.values())) == len(seen) == 18
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seen.values())
    fewer = seeds("fewer", rows[::-1][:3], samples=2)
    assert fewer == {key: seen[key] for key in fewer} and len(fewer) == 8
    other = seeds("other", rows, samples=3, sampling=Sampling(seed=1))
    assert not set(other.values()) & set(seen.values())
    assert seen["row-0", 0, 0] == 830_550_268  # the same on every machine, for ever


def test_a_killed_generation_resumes_and_requests_nothing_twice(
    server: ChatServer, tmp_path: Path
) -> None:
    rows = [*some_rows(20), {"id": "talk", "conversations": ["one"], "follow_ups": ["two", "2b"]}]
    answered = 0

    def hold(question: str) -> bool:
        nonlocal answered
        answered += 1
        return answered > 9 or question == "two"

    server.held = hold
    prompts, out = prompts_file(tmp_path, rows[::-1]), tmp_path / "out"
    argv = ["lima", prompts, "--out", str(out), "--endpoint", server.url, "--samples", "2"]
    environment = os.environ | {"OPENAI_API_KEY": KEY, "NO_PROXY": "127.0.0.1"}
    shell = [sys.executable, "-m", "lima_ray.generate", *argv]
    process = subprocess.Popen(shell, env=environment, stdout=subprocess.PIPE)
    replies = out / "replies.jsonl"
    deadline = time.monotonic() + 60
    while len(server.requests) < 16 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done = lines(replies)
    assert 5 <= len(done) <= 9 and "one" in [r["conversations"][-1] for r in done]
    with replies.open("a") as half:
        half.write('{"id": "row-1", "conversations": ["half wri')
    before = len(server.requests)
    server.held = lambda question: False
    ended = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert f"46 replies ({46 - len(done)} new), 100% stopped, 0 failed" in ended.stdout
    asked_again = Counter(r["seed"] for r in server.requests[before:])
    assert not asked_again.keys() & {r["seed"] for r in done}
    assert max(asked_again.values()) == 1 and asked_again.total() == 46 - len(done)
    records = lines(replies)
    assert all(record in records for record in done)
    order = [row["id"] for row in rows[::-1]]
    assert [r["id"] for r in records] == sorted((r["id"] for r in records), key=order.index)
    assert Counter((r["id"], r["sample"]) for r in records) == {
        (row["id"], sample): 3 if row["id"] == "talk" else 1 for row in rows for sample in (0, 1)
    }
    assert all(r["reply"] == f"re: {r['conversations'][-1]}" for r in records)
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert not any(KEY.encode() in file.read_bytes() for file in out.iterdir())
    subprocess.run(shell, env=environment, capture_output=True, check=True)
    assert len(server.requests) == before + asked_again.total() and lines(replies) == records


def test_failed_requests_are_reported_and_sent_again(server: ChatServer, tmp_path: Path) -> None:
    rows = [*some_rows(3), {"id": "talk", "conversations": ["one"], "follow_ups": ["two", "end"]}]
    server.first = {"two": [said(None)] * 2, "cat the 1": [refused(500, "on fire")] * 2}
    job = asking(server, tmp_path, rows)
    with pytest.raises(UserError, match=r"2 of 4 prompts got no reply.*failed\.jsonl says why"):
        generate(job)
    failed = {row.pop("id"): row for row in lines(tmp_path / "out" / "failed.jsonl")}
    assert failed["row-1"] == {"sample": 0, "turn": 0, "error": "500 x on fire"}
    assert failed["talk"]["turn"] == 1 and "content" in failed["talk"]["error"]
    assert len(lines(tmp_path / "out" / "replies.jsonl")) == 3
    server.requests.clear()
    assert len(generate(job)) == 6
    assert sorted(server.asked) == ["cat the 1", "end", "two"]
    assert not (tmp_path / "out" / "failed.jsonl").exists()


def test_an_endpoint_that_refuses_stops_and_keeps_what_is_there(
    server: ChatServer, tmp_path: Path
) -> None:
    server.first = {"moon the 4": [refused(401, "who are you?")]}
    job = asking(server, tmp_path, some_rows(9))
    with pytest.raises(UserError, match=r"401 x who are you\?\n.*\n.*row-4"):
        generate(job)
    kept = lines(tmp_path / "out" / "replies.jsonl")
    assert 3 <= len(kept) < 9
    with serving(ChatServer()) as gone:
        pass
    down = gone.url.replace("127.0.0.1", "localhost")
    with pytest.raises(UserError, match="Give these an --out of their own"):
        generate(job.model_copy(update={"server": Endpoint(url=down)}))
    assert lines(tmp_path / "out" / "replies.jsonl") == kept
    assert len(generate(job)) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 2}, r"samples 1 \(now 2\)"),
        ({"sampling": Sampling(temperature=1)}, r"sampling\.temperature 0\.7 \(now 1\.0\)"),
        ({"sampling": Sampling(seed=2)}, r"sampling\.seed 0 \(now 2\)"),
        ({"model": "other"}, r"endpoint\.model 'lima' \(now 'other'\), model 'lima'"),
        ({"name": "LIMA"}, r"model 'lima' \(now 'LIMA'\)\."),
        ({"rows": 3}, "prompts_hash "),
    ],
)
def test_replies_to_other_things_are_not_mixed(
    server: ChatServer, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    generate(asking(server, tmp_path, some_rows(2)))
    before = (tmp_path / "out" / "replies.jsonl").read_bytes(), len(server.requests)
    rows = some_rows(change.pop("rows", 2))
    with pytest.raises(UserError, match=f"holds 2 replies made with another .*{message}"):
        generate(asking(server, tmp_path, rows, **change))
    assert ((tmp_path / "out" / "replies.jsonl").read_bytes(), len(server.requests)) == before


def write_as_before(folder: Path, limit: int) -> None:
    """Write a directory's settings as versions did in which max_tokens was both limits."""
    made = json.loads((folder / "generate.json").read_text())
    del made["sampling"]["max_new_tokens"], made["sampling"]["context"]
    made["sampling"]["max_tokens"] = limit
    (folder / "generate.json").write_text(json.dumps(made))


def test_replies_of_an_endpoint_that_an_earlier_version_asked_go_on(
    server: ChatServer, tmp_path: Path
) -> None:
    """There max_tokens was the reply's limit alone."""
    job = asking(server, tmp_path, some_rows(3), sampling=Sampling(max_new_tokens=99))
    records = generate(job)
    write_as_before(job.out, 99)
    replies = job.out / "replies.jsonl"
    replies.write_bytes(b"".join(replies.read_bytes().splitlines(keepends=True)[:2]))
    before = len(server.requests)
    assert generate(job) == records and len(server.requests) == before + 1
    write_as_before(job.out, 98)
    with pytest.raises(UserError, match=r"sampling\.max_new_tokens 98 \(now 99\)"):
        generate(job)


def test_a_directory_without_replies_may_change_its_mind(
    server: ChatServer, tmp_path: Path
) -> None:
    server.first = {"the the 0": [refused(404)]}
    with pytest.raises(UserError, match="404"):
        generate(asking(server, tmp_path, some_rows(1)))
    assert len(generate(asking(server, tmp_path, some_rows(1), samples=2))) == 2


def test_foreign_and_busy_directories_are_refused(server: ChatServer, tmp_path: Path) -> None:
    job = asking(server, tmp_path, some_rows(1))
    job.out.mkdir()
    (job.out / "replies.jsonl").write_text("precious")
    with pytest.raises(UserError, match=r"replies\.jsonl is there, but no generate\.json"):
        generate(job)
    assert (job.out / "replies.jsonl").read_text() == "precious"
    (job.out / "replies.jsonl").unlink()
    with ReplyDirectory(job.out) as replies:
        replies.resume({})
        with pytest.raises(UserError, match="another process is writing to"):
            generate(job)
    generate(job)
    (job.out / "replies.jsonl").write_text("{broken\n")
    with pytest.raises(UserError, match=r"replies\.jsonl:1 is not JSON"):
        generate(job)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a", "conversations": ["x"]}] * 2, "several rows with the id a;"),
        ([{"id": "a", "conversations": ["x"], "follow_ups": "y"}], "row a: follow_ups is 'y'"),
        ([{"id": "a", "conversations": ["x"], "follow_ups": [" "]}], "row a: follow_ups is"),
        ([{"id": "a", "conversations": []}], "has no turns"),
    ],
)
def test_rows_that_are_no_prompts_are_refused(
    server: ChatServer, tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        generate(asking(server, tmp_path, rows))
    assert not server.requests and not (tmp_path / "out").exists()


def test_a_url_with_a_secret_is_not_written_down(server: ChatServer, tmp_path: Path) -> None:
    job = asking(server, tmp_path, some_rows(1))
    secret = {"server": Endpoint(url="https://host/v1?key=secret")}
    with pytest.raises(UserError, match="at host is given with"):
        generate(job.model_copy(update=secret))
    assert not (tmp_path / "out").exists()


def test_a_penalty_that_is_not_sent_is_reported(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(asking(server, tmp_path, some_rows(1)))
    assert "sampling.repetition_penalty 1.2 is not sent" in capsys.readouterr().out


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    job = command_arguments(
        COMMANDS["generate"],
        ["runs/a", "data", "--out", "o", "--sampling.temperature", "0", "--slots", "4"],
    )
    assert job == GenerationJob(
        model="runs/a", prompts="data", out=Path("o"), sampling=Sampling(temperature=0), slots=4
    )
    job = command_arguments(
        COMMANDS["generate"],
        ["m", "d", "--out", "o", "--endpoint", "http://h/v1", "--endpoint_extra", "True"],
    )
    assert job.server == Endpoint(url="http://h/v1", extra=True)
    with pytest.raises(UserError, match="--samples is 0: input should be greater than or equal"):
        command_arguments(COMMANDS["generate"], ["m", "d", "--out", "o", "--samples", "0"])
    with pytest.raises(SystemExit, match="0"):
        command_arguments(COMMANDS["generate"], ["--help"])
    help_text = capsys.readouterr().out
    assert "MODEL PROMPTS" in help_text and "(default: 0.7)" in help_text


# By an engine


def decoding(
    export: Path, folder: Path, rows: list[dict[str, Any]], **changes: Any
) -> GenerationJob:
    """A generation by a local export, into `folder/out`."""
    fields: dict[str, Any] = {"model": str(export.parent), "prompts": prompts_file(folder, rows)}
    fields |= {"out": folder / "out", "sampling": SHORT, "slots": 4}
    return GenerationJob.model_validate(fields | changes)


def test_an_export_replies_in_this_process_and_resumes(export_dir: Path, tmp_path: Path) -> None:
    rows = [
        *some_rows(6),
        {"id": "talk", "conversations": ["the cat"], "follow_ups": ["why", "how"]},
    ]
    job = decoding(export_dir, tmp_path, rows, samples=2)
    records = generate(job, in_process=True)
    assert [r[:3] for r in replied(records)] == [
        *((f"row-{i}", s, 0) for i in range(6) for s in (0, 1)),
        *(("talk", s, t) for s in (0, 1) for t in range(3)),
    ]
    assert {r.model for r in records} == {"tiny"}
    stopped = [r.stopped for r in records]
    assert any(stopped) and not all(stopped)
    engine = Engine(export_dir, slots=1)
    for record in records[:4]:
        sampling = SHORT.model_copy(update={"seed": record.seed})
        request = Request("again", engine.prompt(record.conversations), sampling)
        (again,) = engine.generate([request])
        expected = again.text, again.stopped, again.n_tokens
        assert (record.reply, record.stopped, record.n_tokens) == expected
    dialogue = records[-1].conversations
    assert dialogue[:4:2] == ("the cat", "why") and dialogue[1] == records[-3].reply
    file = tmp_path / "out" / "replies.jsonl"
    half = file.read_bytes().splitlines(keepends=True)[:7]
    file.write_bytes(b"".join(half) + b'{"id"')
    assert generate(job.model_copy(update={"slots": 2}), in_process=True) == records
    assert file.read_bytes().splitlines(keepends=True)[:7] == half
    with pytest.raises(UserError, match="made with another weights"):
        generate(job.model_copy(update={"weights": "int8"}), in_process=True)
    (export_dir / "generation_config.json").write_text("{}")
    with pytest.raises(UserError, match="made with another model_hash"):
        generate(job, in_process=True)


def test_replies_of_an_export_that_an_earlier_version_made_go_on(
    export_dir: Path, tmp_path: Path
) -> None:
    """There max_tokens was the limit of prompt and reply together."""
    job = decoding(export_dir, tmp_path, some_rows(4))
    records = generate(job, in_process=True)
    write_as_before(job.out, SHORT.context)
    replies = job.out / "replies.jsonl"
    half = replies.read_bytes().splitlines(keepends=True)[:2]
    replies.write_bytes(b"".join(half))
    assert generate(job, in_process=True) == records
    write_as_before(job.out, SHORT.context + 1)
    with pytest.raises(UserError, match=r"sampling\.context 41 \(now 40\)"):
        generate(job, in_process=True)


def test_a_reply_ends_at_its_own_limit_or_the_contexts(export_dir: Path, tmp_path: Path) -> None:
    sampling = Sampling(temperature=1, max_new_tokens=3)
    job = decoding(export_dir, tmp_path, some_rows(6), samples=2, sampling=sampling)
    records = generate(job, in_process=True)
    assert any(not r.stopped for r in records)
    assert all(r.stopped or r.n_tokens == 3 for r in records)
    assert all((r.n_tokens or 0) <= 3 for r in records)


def test_prompts_without_room_are_named_before_any_reply(export_dir: Path, tmp_path: Path) -> None:
    rows = some_rows(9)
    for row in rows[2:]:
        row["conversations"] = [" ".join(WORDS * 9)]
    job = decoding(export_dir, tmp_path, rows, samples=2)
    with pytest.raises(UserError) as error:
        generate(job, in_process=True)
    message = str(error.value)
    assert message.startswith("7 of 9 prompts leave no room for a reply: prompt and reply together")
    assert "have 40 tokens" in message and "context 64" in message
    assert "row-2 (" in message and "row-6 (" in message and "and 2 more" in message
    assert "row-1 " not in message and "row-7" not in message
    assert (tmp_path / "out" / "replies.jsonl").read_bytes() == b""
    with pytest.raises(UserError, match=r"have 64 tokens, .* sampling\.context 2048"):
        generate(job.model_copy(update={"sampling": Sampling()}), in_process=True)


def test_a_dialogue_that_outgrows_the_context_ends_in_empty_replies(
    export_dir: Path, tmp_path: Path
) -> None:
    later = " ".join(WORDS * 9)
    rows = [{"id": "talk", "conversations": ["why"], "follow_ups": [later, "how"]}]
    records = generate(decoding(export_dir, tmp_path, rows), in_process=True)
    assert records[0].n_tokens
    for record in records[1:]:
        assert (record.reply, record.stopped, record.n_tokens) == ("", False, 0)
    assert [r.turn for r in records] == [0, 1, 2]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nowhere", "no model at nowhere: .* needs --endpoint URL"),
        ("empty", "empty has no config.json"),
        ("unfinished", "unfinished has no export yet"),
    ],
)
def test_what_is_no_model_is_refused(
    export_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("unfinished").mkdir()
    (tmp_path / "unfinished" / "recipe.yaml").touch()
    with pytest.raises(UserError, match=message):
        generate(decoding(export_dir, tmp_path, some_rows(1), model=model))


def test_models_are_called_by_their_run() -> None:
    assert model_name(Path("runs/lima-7b/export")) == "lima-7b"
    assert model_name(Path("runs/lima-7b/epochs/07")) == "lima-7b-07"
    assert model_name(Path("bases/llama")) == "llama"


# Over Ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_cluster(cpus=2):
        yield


def speakers() -> list[psutil.Process]:
    """The processes of Ray's that hold an engine."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and "ray::GenerationWorker" in process.cmdline()[0]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_workers_reply_as_one_process_does_though_one_is_killed(
    cluster: None, export_dir: Path, tmp_path: Path
) -> None:
    rows = [*some_rows(120), {"id": "talk", "conversations": ["the cat"], "follow_ups": ["why"]}]
    (tmp_path / "alone").mkdir()
    alone = generate(decoding(export_dir, tmp_path / "alone", rows, samples=2), in_process=True)
    job = decoding(export_dir, tmp_path, rows, samples=2, workers=2)
    before: list[int] = []

    def kill_a_worker() -> None:
        file = job.out / "replies.jsonl"
        while len(workers := speakers()) < 2:
            time.sleep(0.05)
        while not (file.exists() and file.read_bytes().count(b"\n") > 8):
            time.sleep(0.002)
        workers[0].kill()
        before.append(file.read_bytes().count(b"\n"))

    killer = threading.Thread(target=kill_a_worker, daemon=True)
    killer.start()
    records = generate(job)
    killer.join(10)
    assert before and before[0] < 244 - 2 * 8
    assert len(lines(job.out / "replies.jsonl")) == len(records) == 244
    assert replied(records) == replied(alone)


@pytest.mark.slow
def test_a_worker_without_claims_starts_beside_one_that_holds_everything(
    cluster: None, export_dir: Path, tmp_path: Path
) -> None:
    @ray.remote(num_cpus=2)
    class Training:
        def wait(self) -> None:
            """Be there."""

    training: Any = Training.remote()
    ray.get(training.wait.remote())
    rows = some_rows(3)
    rows[1]["conversations"] = [" ".join(WORDS * 9)]
    job = decoding(export_dir, tmp_path, rows, cpus_per_worker=0)
    with pytest.raises(UserError, match=r"1 of 3 prompts leave no room .* remove row-1") as error:
        generate(job)
    assert str(error.value).startswith("1 of 3 prompts")
    rows[1]["conversations"] = ["why"]
    assert len(generate(decoding(export_dir, tmp_path, rows, cpus_per_worker=0))) == 3
    with pytest.raises(UserError, match="3 workers need 6 CPUs, which the cluster does not have"):
        generate(
            decoding(export_dir, tmp_path, rows, workers=3, cpus_per_worker=2, out=tmp_path / "x")
        )
    ray.kill(training)
