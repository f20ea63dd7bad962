"""The API over vLLM, where LIMA_VLLM_PYTHON names the interpreter of an environment that has it.

`benchmarks/serve.py` says how to install vLLM's CPU build.
"""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import ray_cluster
from served import Hosted, hosted, wait_until

from benchmarks.conformance.checks import CHECKS
from benchmarks.conformance.peer import Peer
from lima_ray.config.sections import Sampling
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Request

PYTHON = os.environ.get("LIMA_VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON, reason="LIMA_VLLM_PYTHON names no interpreter with vLLM"),
]
ON_CPU = "--dtype float32 --enforce-eager --max-model-len 256"
GREEDY: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1, "max_tokens": 40}
PROMPTS = ["The capital of France is", "Iron is a", "To boil an egg"]


@pytest.fixture(scope="module")
def host(talker_dir: Path) -> Iterator[Hosted]:
    """One model of the miniature's size."""
    settings = {"engine": "vllm", "vllm_python": PYTHON, "vllm_args": ON_CPU, "start_s": 300}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        with ray_cluster(2), hosted({"talker": talker_dir}, **settings) as host:
            yield host


def test_every_field_is_honoured_or_refused(host: Hosted) -> None:
    peer = Peer(f"{host.url}/v1", "talker")
    found = {str(check): check.run(peer) for check in CHECKS}
    right = ("honoured", "refused")
    assert {name: f for name, f in found.items() if f.verdict not in right} == {}


def test_greedy_tokens_are_those_of_our_engine(host: Hosted, talker_dir: Path) -> None:
    engine = Engine(talker_dir, device=torch.device("cpu"))
    for prompt in PROMPTS:
        ids = engine.text_ids(prompt)
        sampling = Sampling(temperature=0, repetition_penalty=1, max_new_tokens=40)
        (reply,) = engine.generate([Request(prompt, ids, sampling)])
        body = GREEDY | {"model": "talker", "prompt": prompt, "return_token_ids": True}
        with host.client() as client:
            choice = client.post("/v1/completions", json=body).json()["choices"][0]
        assert (choice["token_ids"], choice["text"]) == (reply.ids, reply.text)


def test_a_client_that_leaves_stops_the_work(host: Hosted) -> None:
    body = GREEDY | {"model": "talker", "prompt": PROMPTS[0], "stream": True, "max_tokens": 200}
    with host.client() as client:
        with client.stream("POST", "/v1/completions", json=body | {"n": 8}) as response:
            next(response.iter_lines())
        served = host.models.entries["talker"].served
        wait_until(lambda: served and served.loop.in_flight == 0, 5)
        assert client.post("/v1/completions", json=body | {"stream": False}).status_code == 200


def test_a_server_that_dies_is_reported(host: Hosted) -> None:
    """Last: nothing replaces it but a new replica."""
    mine = psutil.Process().children(recursive=True)
    (server,) = [p for p in mine if "vllm.entrypoints.openai.api_server" in p.cmdline()]
    server.send_signal(signal.SIGKILL)
    wait_until(lambda: host.models.problem, 20)
    assert "vLLM's server of talker is broken" in str(host.models.problem)
    began_s = time.monotonic()
    with host.client() as client:
        response = client.post("/v1/completions", json=GREEDY | {"model": "talker", "prompt": "a"})
    assert response.json()["error"]["code"] == "engine_failed"
    assert response.status_code == 500 and time.monotonic() - began_s < 5
