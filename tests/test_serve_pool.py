"""The models of a replica: in memory, promoted, let go."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from served import Hosted, hosted, wait_until

from lima_ray.config.errors import UserError
from lima_ray.web.requests import HttpError
from serve.api import completion, responses
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
        released = threading.Event()

        def hold(*_: object) -> None:
            released.wait(60)

        engine: Any = host.engine_loop("long").engine
        engine.model.get_decoder().layers[0].register_forward_pre_hook(hold)
        body = {"model": "long", "prompt": "the cat", "max_tokens": 3, "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as response:
            answers(host, "c")
            assert loaded(host) == {"a", "long", "c"}
            released.set()
            assert response.read().endswith(b"data: [DONE]\n\n")


def test_a_model_that_cannot_be_loaded_is_reported_once_and_tried_again(
    brief_dir: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(brief_dir, broken)
    weights = broken / "model.safetensors"
    intact = weights.read_bytes()
    weights.write_bytes(b"nothing")
    with hosted({"a": brief_dir, "b": broken}) as host:
        assert ask(host, "b").status_code == 503
        entry = host.models.entries["b"]
        wait_until(lambda: entry.problem)
        refusal = ask(host, "b").json()["error"]
        assert refusal["code"] == "model_unavailable" and str(broken) in refusal["message"]
        assert host.client().get("/health").status_code == 200
        weights.write_bytes(intact)
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
