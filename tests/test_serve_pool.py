"""The models of a replica, and the arguments that name them."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema
from served import Hosted, hosted, wait_until

from lima_ray.config import Recipe
from lima_ray.errors import UserError
from lima_ray.tokenizer import load_tokenizer
from lima_ray.web.requests import HttpError, is_known_host, is_loopback
from serve.api import completion, prompts, responses
from serve.api.authentication import read_keys
from serve.app import build, refuse_open_port
from serve.arguments import Args
from serve.engines.catalogue import catalogue, examples_of
from serve.engines.pool import ModelPool
from serve.engines.settings import EngineSettings

REPOSITORY = Path(__file__).parents[1]


def ask(host: Hosted, model: str) -> Any:
    """The response to a short request."""
    body = {"model": model, "prompt": "the cat", "max_tokens": 1}
    with host.client() as client:
        return client.post("/v1/completions", json=body)


def answers(host: Hosted, model: str) -> None:
    """Ask until a model is loaded."""
    wait_until(lambda: ask(host, model).status_code == 200)


def loaded(host: Hosted) -> set[str]:
    """Names of the models in memory."""
    with host.client() as client:
        return {m["id"] for m in client.get("/v1/models").json()["data"] if m["loaded"]}


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run on a new event loop."""
    return asyncio.run(asyncio.wait_for(work(), 60))


# In memory


def test_models_are_loaded_by_name_and_let_go_when_idle_for_longest(brief_dir: Path) -> None:
    with hosted({name: brief_dir for name in "abcd"}, keep_loaded=2) as host:
        assert loaded(host) == {"a"}
        first = ask(host, "b")
        assert first.status_code == 503 and first.headers["retry-after"] == "3"
        assert first.json()["error"]["code"] == "model_loading"
        answers(host, "b")
        assert loaded(host) == {"a", "b"}
        answers(host, "c")
        assert loaded(host) == {"a", "c"}
        answers(host, "a")
        answers(host, "b")
        answers(host, "d")
        assert loaded(host) == {"a", "d"}, "the default model stays, and so does the newest"


def test_the_newest_model_stays_where_only_one_is_kept(brief_dir: Path) -> None:
    with hosted({"a": brief_dir, "b": brief_dir, "c": brief_dir}, keep_loaded=1) as host:
        answers(host, "b")
        assert ask(host, "b").status_code == 200
        answers(host, "c")
        assert loaded(host) == {"a", "c"}


def test_a_model_that_answers_is_not_let_go(brief_dir: Path, long_dir: Path) -> None:
    paths = {"a": brief_dir, "long": long_dir, "c": brief_dir}
    with hosted(paths, keep_loaded=2) as host, host.client() as client:
        answers(host, "long")
        gate = threading.Event()

        def hold(*_: object) -> None:
            gate.wait(60)

        engine: Any = host.engine_loop("long").engine
        engine.model.get_decoder().layers[0].register_forward_pre_hook(hold)
        body = {"model": "long", "prompt": "the cat", "max_tokens": 3, "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as response:
            answers(host, "c")
            assert loaded(host) == {"a", "long", "c"}
            gate.set()
            assert response.read().endswith(b"data: [DONE]\n\n")


def test_a_model_that_cannot_be_loaded_is_told_once_and_tried_again(
    brief_dir: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(brief_dir, broken)
    weights = broken / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"nothing")
    with hosted({"a": brief_dir, "b": broken}) as host:
        assert ask(host, "b").status_code == 503
        entry = host.models.entries["b"]
        wait_until(lambda: entry.problem)
        told = ask(host, "b").json()["error"]
        assert told["code"] == "model_unavailable" and str(broken) in told["message"]
        assert host.client().get("/health").status_code == 200
        weights.write_bytes(whole)
        answers(host, "b")
        assert ask(host, "a").status_code == 200


def test_the_default_model_must_load(tmp_path: Path, brief_dir: Path) -> None:
    shutil.copytree(brief_dir, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nothing")
    models = ModelPool(EngineSettings(threads=1))
    with pytest.raises(UserError, match="a cannot be loaded from"):
        run(lambda: models.configure({"a": str(tmp_path / "broken")}))


def test_promotion_changes_the_revision_and_removal_the_list(
    brief_dir: Path, long_dir: Path
) -> None:
    models = ModelPool(EngineSettings(threads=1, slots=2))
    first, second = str(brief_dir), str(long_dir)

    async def work() -> None:
        await models.configure({"a": first, "b": second})
        old = await models.get("a")
        await models.configure({"a": second})
        assert (await models.get("a")) is old, "the old one answers while the new one is loading"
        loading = models.entries["a"].loading
        assert loading
        await loading
        new = await models.get("a")
        assert new.path == second and new.revision != old.revision
        with pytest.raises(HttpError, match="no model 'b' here; there are a"):
            await models.get("b")
        # Back at once, while the way there is still under way.
        await models.configure({"a": first})
        await models.configure({"a": second})
        assert models.entries["a"].loading
        await models.entries["a"].loading
        assert (await models.get("a")).revision == new.revision
        for served in (old, await models.get("a")):
            served.loop.close()

    run(work)


def test_a_request_on_its_way_is_answered_by_the_model_it_found(
    brief_dir: Path, long_dir: Path
) -> None:
    """Between finding a model and asking it, a request may have to read a long prompt."""
    from serve.api.schema import CompletionRequest

    models = ModelPool(EngineSettings(threads=1, slots=2))

    async def work() -> None:
        await models.configure({"a": str(brief_dir)})
        found = CompletionRequest(model="a", prompt="the cat", max_tokens=3)
        late = await completion.prepare(models, found)
        await models.configure({"a": str(long_dir)})
        loading = models.entries["a"].loading
        assert loading
        await loading
        await asyncio.sleep(0.2)
        body = await responses.full_response(late)
        assert body["lima"]["revision"] == late.served.revision != models.entries["a"].served
        for served in (late.served, await models.get("a")):
            served.loop.close()

    run(work)


# By name


def test_a_run_brings_its_epochs_and_its_base(
    recipe: Recipe, base_dir: Path, brief_dir: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "tiny"
    run_dir.mkdir()
    recipe.save(run_dir / "recipe.yaml")
    with pytest.raises(UserError, match="has no export yet"):
        catalogue(str(run_dir))
    shutil.copytree(brief_dir, run_dir / "export")
    for epoch in ("01", "02"):
        shutil.copytree(brief_dir, run_dir / "epochs" / epoch)
    found = catalogue(str(run_dir))
    assert next(iter(found)) == "tiny" and found == catalogue(str(run_dir / "export"))
    assert found["base"] == str(base_dir) and {"tiny-01", "tiny-02"} < set(found)


def test_examples_are_never_training_rows(recipe: Recipe, brief_dir: Path, tmp_path: Path) -> None:
    run_dir, prompts = tmp_path / "tiny", tmp_path / "dev.jsonl"
    run_dir.mkdir()
    prompts.write_text('{"conversations": ["why does the moon read"]}\n')
    shutil.copytree(brief_dir, run_dir / "export")
    recipe.save(run_dir / "recipe.yaml")
    assert examples_of(run_dir / "export") == []
    for name in ("dev", "test"):
        recipe.override({f"data.{name}": str(prompts)}).save(run_dir / "recipe.yaml")
        assert examples_of(run_dir / "export") == ["why does the moon read"]


def test_several_models_are_named(brief_dir: Path, base_dir: Path) -> None:
    expected = {"aligned": str(brief_dir), "base": str(base_dir)}
    assert catalogue(f"aligned={brief_dir},base={base_dir}") == expected
    assert catalogue(expected) == expected


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"modle": "x"}, "modle"),
    ({"model": "no/such/dir"}, "no model at no/such/dir"),
    ({"model": "a=no/such/dir"}, "no model at no/such/dir"),
    ({"model": "a="}, "NAME=DIR"),
    ({"model": {}}, "NAME=DIR"),
    ({"model": "tests"}, r"no config\.json"),
    ({"slots": 0}, "greater than or equal to 1"),
    ({"queue": -1}, "greater than or equal to 0"),
    ({"keep_loaded": 0}, "greater than or equal to 1"),
    ({"stuck_after_s": 0}, "greater than 0"),
    ({"replicas": 0}, "greater than or equal to 1"),
    ({"replicas": 3, "max_replicas": 2}, "max_replicas 2 is below replicas 3"),
    ({"body_bytes": 10}, "greater than or equal to 1024"),
    ({"page": "maybe"}, "boolean"),
    ({"api_keys_file": "no/keys.txt"}, "there is no file"),
    ({"login_file": "no/logins.txt"}, "there is no file"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=str)
def test_wrong_arguments_are_refused(brief_dir: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Args.model_validate({"model": str(brief_dir)} | fields)


def test_a_password_is_in_no_message(brief_dir: Path) -> None:
    fields = {"model": str(brief_dir), "database": "postgresql://anna:sesame@db/lima"}
    for wrong in ({"replicas": 3, "max_replicas": 2}, {"databse": "x"}, {"slots": 0}):
        with pytest.raises(ValidationError) as error:
            Args.model_validate(fields | wrong)
        assert "sesame" not in str(error.value)


def test_arguments_come_as_text(brief_dir: Path, tmp_path: Path) -> None:
    """As `serve run serve.app:build NAME=VALUE` gives them."""
    args = Args.model_validate({"model": str(brief_dir), "slots": "7", "page": "false"})
    assert args.slots == 7 and args.page is False
    assert args.database.startswith("sqlite:////")


def test_the_config_file_builds_its_app(brief_dir: Path) -> None:
    config = yaml.safe_load((REPOSITORY / "serve" / "config.yaml").read_text())
    schema = ServeDeploySchema.model_validate(config)
    assert schema.http_options.host == "127.0.0.1"
    (app,) = schema.applications
    assert app.import_path == "serve.app:build"
    # Its model is a run's, which a fresh clone has yet to train.
    built = build(Args.model_validate((app.args or {}) | {"model": str(brief_dir)}))
    assert isinstance(built, Application)


def test_an_open_port_needs_keys_and_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    with pytest.raises(
        UserError, match=r"open on 0\.0\.0\.0 and there is no login.*LIMA_SERVE_OPEN"
    ):
        refuse_open_port("login for the page", "login_file")
    monkeypatch.setenv("LIMA_SERVE_OPEN", "1")
    refuse_open_port("key", "api_keys_file")


def test_loopback_alone_is_open_to_nobody() -> None:
    for host in ("127.0.0.1", "127.1", "localhost", "::1"):
        assert is_loopback(host)
    for host in ("", "0", "0.0.0.0", "::", "192.0.2.7", "no-such-host.invalid"):
        assert not is_loopback(host)


def test_a_request_is_for_an_address_or_a_known_name() -> None:
    names = frozenset({"lab.example"})
    hosts = ("127.0.0.1:8000", "[::1]:8000", "localhost", "a.localhost:1", "10.0.0.7", "")
    for host in (*hosts, "lab.example:80", "LAB.example."):
        assert is_known_host(host, names)
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::1", "x@y"):
        assert not is_known_host(host, names)


def test_a_key_file_has_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("# two of them\n sk-one \n\n  # the other\nsk-two\n")
    assert read_keys(str(file)) == {"sk-one", "sk-two"}
    file.write_text("\n# sk-old\n")
    with pytest.raises(UserError, match="has no key"):
        read_keys(str(file))
    assert read_keys(None) == frozenset()


def test_counting_a_long_dialogue_changes_nothing_for_others(brief_dir: Path) -> None:
    tokenizer = load_tokenizer(str(brief_dir))
    marker = tokenizer.eos_token
    engine: Any = SimpleNamespace(tokenizer=tokenizer)
    turns = [f"one two {marker}"] * (prompts.LARGE_DIALOGUE + 9)
    assert prompts.most_turns(engine, turns, 10_000, threading.Event()) == len(turns)
    assert prompts.most_turns(engine, turns, 20, threading.Event()) < len(turns)
    state = tokenizer.backend_tokenizer.encode_special_tokens
    assert state is False, "a prompt that is made meanwhile would lose its control tokens"
