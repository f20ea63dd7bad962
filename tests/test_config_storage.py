"""Working copies of a bucket: what goes to and fro, what is refused, and what is waited for."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.local_servers.s3_server import BUCKET, KEY, READ_ONLY_KEY, S3Server, s3_server
from lima_ray.config.errors import UserError
from lima_ray.config.paths import output_path, readable_path, resolve, stored_path
from lima_ray.config.storage import bucket, changing_files, lease, whole_folders
from lima_ray.config.storage.bucket import StorageError, parse_url
from lima_ray.config.storage.lease import Lease
from lima_ray.config.storage.working_copy import (
    CACHE,
    from_reference,
    local_path,
    location,
    reading_copy,
    reference,
)
from lima_ray.records.files import acquire_lock


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    monkeypatch.setenv(CACHE, str(tmp_path / "disk"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    changing_files.SEEN.clear()
    with s3_server() as server:
        yield server


def made(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        file = folder / name.replace("_", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/runs/first",
        "gs://bucket/a/b",
        "s3://bucket",
        "s3://bucket/runs?endpoint_override=127.0.0.1:9000&scheme=http",
    ],
)
def test_the_path_of_a_working_copy_tells_its_url(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE, str(tmp_path))
    path = local_path(url)
    assert reference(path) == str(parse_url(url)) == url
    assert from_reference(url) == path == stored_path(url)
    assert from_reference(url, like=local_path("s3://other/x", "read")) == reading_copy(path)
    monkeypatch.setenv(CACHE, str(tmp_path / "of another node"))
    assert from_reference(url) != path and reference(from_reference(url)) == url
    plain = tmp_path / "plain"
    assert location(plain) is None and reference(plain) == str(plain) == str(reading_copy(plain))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://", "a bucket's URL is"),
        ("s3://bucket/../other", r"without \. or \.\."),
        ("s3://key:secret@bucket/runs", r"s3://bucket: no credentials in a URL"),
        ("s3://bucket/runs?access_key=k", "a URL has no option access_key; it has endpoint_over"),
        ("gs://bucket/runs?region=x", "no option region"),
    ],
)
def test_a_wrong_url_is_refused_and_shows_no_secret(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)


def test_a_whole_folder_goes_there_and_back(store: S3Server) -> None:
    run = local_path(store.url("runs/one"))
    export = made(run / "export", config="{}", sub_weights="w" * 100_000)
    whole_folders.publish(export, {"hash": "abc"})
    assert store.names("runs/one/") == [
        ".export.manifest.json",
        "export/config",
        "export/sub/weights",
    ]
    there = reading_copy(run) / "export"
    assert whole_folders.fetch(there) == there
    assert (there / "sub" / "weights").read_text() == "w" * 100_000
    assert (whole_folders.read_manifest(there) or {})["hash"] == "abc"
    before = len(store.objects.requests)
    whole_folders.fetch(there)
    assert {name[-14:] for _, name in store.objects.requests[before:]} == {".manifest.json"}
    whole_folders.publish(made(export, config="{1}"))
    assert (whole_folders.fetch(there) / "config").read_text() == "{1}"
    whole_folders.copy_published(export, run / "epochs" / "01")
    assert whole_folders.names_of_whole(run / "epochs") == ["01"]
    assert (whole_folders.fetch(run / "epochs" / "01") / "config").read_text() == "{1}"
    whole_folders.remove(export)
    assert store.names("runs/one/export") == [] and not export.exists()
    with pytest.raises(UserError, match="is not there, or is being written"):
        whole_folders.fetch(there)


def test_a_reader_never_takes_half_of_a_folder(store: S3Server) -> None:
    run = local_path(store.url("runs/one"))
    export = made(run / "export", a="one", b="two")

    def break_off(method: str, name: str) -> None:
        if method == "PUT" and name.endswith("export/b"):
            raise ConnectionError

    store.objects.before = break_off
    with pytest.raises(StorageError, match="did not answer"), bucket.impatient(1):
        whole_folders.publish(export)
    assert "export/a" in store.names("runs/one/")
    there = reading_copy(run) / "export"
    with pytest.raises(UserError, match="is not there, or is being written"):
        whole_folders.fetch(there)
    changing_files.pull(there.parent)
    assert not whole_folders.is_whole(there) and not there.exists()
    store.objects.before = lambda method, name: None
    whole_folders.publish(export)
    assert whole_folders.fetch(there).is_dir()


def test_damage_in_the_store_is_named(store: S3Server) -> None:
    run = local_path(store.url("runs/one"))
    whole_folders.publish(made(run / "export", a="one"))
    name = f"{BUCKET}/runs/one/export/a"
    store.objects.by_name[name] = b"eno", store.objects.by_name[name][1]
    with pytest.raises(UserError, match=r"runs/one/export\?.* is damaged"):
        whole_folders.fetch(reading_copy(run) / "export")


def test_changing_files_are_the_stores(store: S3Server) -> None:
    run = local_path(store.url("runs/one"))
    with changing_files.Uploads(run / "dev", run / "metrics.jsonl") as uploads:
        made(run, **{"metrics.jsonl": "1", "dev_failed": "x", "lock": "", "dev_b.partial": ""})
        uploads.upload()
        assert store.names("runs/one/") == ["dev/failed", "metrics.jsonl"]
        seen = reading_copy(run)
        changing_files.pull(seen)
        made(run, **{"metrics.jsonl": "2"})  # of the same size, in the same second
        (run / "dev" / "failed").unlink()
    changing_files.pull(seen)
    assert (seen / "metrics.jsonl").read_text() == "2" and not (seen / "dev" / "failed").exists()
    made(run, **{"metrics.jsonl": "never sent", "more": "never sent"})
    changing_files.pull(run)
    assert (run / "metrics.jsonl").read_text() == "2" and not (run / "more").exists()
    changing_files.forget(run)
    assert store.names("runs/one") == []


def test_an_outage_is_waited_out_with_a_message(
    store: S3Server, capsys: pytest.CaptureFixture[str]
) -> None:
    at = parse_url(store.url("runs/x"))
    bucket.write_object(at, b"before")
    store.stop()
    returns = threading.Timer(6, store.start)
    returns.start()
    bucket.write_object(at, b"after")
    assert bucket.read_object(at) == b"after"
    said = capsys.readouterr().out
    assert f"{at} does not answer, trying again" in said and "answers again, after" in said
    returns.join()


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        (KEY, "other-bucket", "s3://other-bucket/runs.*there is no such bucket; make it"),
        (READ_ONLY_KEY, BUCKET, f"s3://{BUCKET}/runs.*these credentials may not do that"),
        ("nobody", BUCKET, f"s3://{BUCKET}/runs.*there are no valid credentials: give every node"),
    ],
)
def test_what_waiting_does_not_mend_is_refused_at_once(
    store: S3Server, monkeypatch: pytest.MonkeyPatch, key: str, name: str, message: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    url = store.url("runs").replace(BUCKET, name)
    started = time.monotonic()
    with pytest.raises(StorageError, match=message):
        changing_files.check_writable(local_path(url))
    assert time.monotonic() - started < 5


def test_a_lease_keeps_others_away_until_it_expires(
    store: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {"RENEW_S": 0.3, "EXPIRES_S": 2.0, "SETTLE_S": 0.2}.items():
        monkeypatch.setattr(lease, name, seconds)
    file = local_path(store.url("runs/one")) / "lock"
    at = parse_url(store.url("runs/one/lock"))
    held = acquire_lock(file, "busy", everywhere=True)
    with pytest.raises(UserError, match="busy"):
        Lease(at, "busy")
    with pytest.raises(UserError, match="busy"):  # on this disk, without asking the store
        acquire_lock(file, "busy")
    held.release()
    assert bucket.read_object(at) is None
    lost = threading.Event()
    mine = Lease(at, "busy", lost.set)
    bucket.write_object(at, b'{"token": "of another", "host": "elsewhere", "pid": 1}')
    assert lost.wait(5)
    mine.release()
    assert b"elsewhere" in (bucket.read_object(at) or b"")
    started = time.monotonic()
    Lease(at, "busy").release()  # nobody renews that one
    assert time.monotonic() - started >= 2.0
    gone = f'{{"token": "x", "host": "{os.uname().nodename}", "pid": {2**22 + 1}}}'
    bucket.write_object(at, gone.encode())
    started = time.monotonic()
    Lease(at, "busy").release()
    assert time.monotonic() - started < 2.0


def test_one_resolver_reads_what_a_url_names(store: S3Server) -> None:
    bucket.write_object(parse_url(store.url("rows/train.jsonl")), b'{"conversations": []}\n')
    bucket.write_object(parse_url(store.url("rows/more/x.txt")), b"x")
    found = resolve(store.url("rows/train.jsonl"))
    assert found is not None and found.read_text() == '{"conversations": []}\n'
    bucket.write_object(parse_url(store.url("rows/train.jsonl")), b'{"conversations": [1]}\n')
    assert found.read_text() != resolve(store.url("rows/train.jsonl")).read_text()  # pyright: ignore
    folder = readable_path(Path(store.url("rows")))
    assert sorted(file.name for file in folder.rglob("[!.]*.*")) == ["train.jsonl", "x.txt"]
    assert resolve(store.url("nothing")) is None
    with pytest.raises(UserError, match="there is nothing at s3://"):
        readable_path(Path(store.url("nothing")))
    with pytest.raises(UserError, match=r"s3://b/out is no folder: .* sweeps and datasets to s3"):
        output_path(Path("s3://b/out"))


def test_a_plain_path_is_left_alone(tmp_path: Path) -> None:
    folder = made(tmp_path / "export", a="one")
    whole_folders.publish(folder)
    whole_folders.withdraw(folder)
    changing_files.push(folder)
    changing_files.pull(folder)
    changing_files.check_writable(folder)
    with changing_files.Uploads(folder) as uploads:
        uploads.upload()
    assert whole_folders.fetch(folder) == folder and whole_folders.is_whole(folder)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a", "export"]
