"""The API: every field honoured or refused, as trained, by the official client, whoever leaves."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import psutil
import pytest
import torch
from conftest import dialogues
from served import Hosted, hosted, wait_until
from transformers import AutoModelForCausalLM

from benchmarks.conformance.checks import CHECKS
from benchmarks.conformance.peer import Check, Peer
from lima_ray.config.paths import PACKAGE
from lima_ray.config.sections import Data
from lima_ray.data.encoding import encode
from lima_ray.data.tokenizer import eot_id, load_tokenizer
from lima_ray.records.example import Example

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: Any = {"temperature": 0, "extra_body": {"repetition_penalty": 1}}
LONG: dict[str, Any] = {
    "model": "long",
    "prompt": "the cat",
    "temperature": 0,
    "repetition_penalty": 1,
    "max_tokens": 8000,
}
"""A request whose reply takes many seconds."""
RSS_MIB = 64
"""Memory that overload may cost once everything is warm."""


@pytest.fixture(scope="module")
def peer(host: Hosted) -> Peer:
    """The server as the conformance suite asks it."""
    return Peer(f"{host.url}/v1", "talker")


@pytest.fixture
def client(host: Hosted) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, which does not try again."""
    with openai.OpenAI(base_url=f"{host.url}/v1", api_key="none", max_retries=0) as client:
        yield client


# Fields


@pytest.mark.parametrize("check", CHECKS, ids=str)
def test_each_field_is_honoured_or_refused(peer: Peer, check: Check) -> None:
    found = check.run(peer)
    assert found.verdict in ("honoured", "refused"), found.detail


def test_every_field_of_ours_has_a_check() -> None:
    from serve.api.schema import ChatRequest, CompletionRequest

    for kind, schema in (("chat", ChatRequest), ("completions", CompletionRequest)):
        checked = {check.field for check in CHECKS if check.kind == kind}
        assert set(schema.model_fields) - checked == ({"overflow"} if kind == "chat" else set())


def test_fields_at_the_value_that_asks_for_nothing_are_taken(peer: Peer) -> None:
    neutral = {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "tools": [],
        "tool_choice": "auto",
        "top_logprobs": None,
        "store": False,
        "top_k": -1,
        "min_p": 0,
        "user": None,
        "metadata": None,
    }
    assert peer.ask("chat", **neutral) and peer.ask("completions", best_of=1, suffix=None)


def test_a_reply_that_eot_ends_has_the_reason_stop(host: Hosted, client: openai.OpenAI) -> None:
    eot = host.engine_loop("brief").engine.tokenizer.eos_token_id  # pyright: ignore
    reasons = set()
    for seed in range(20):
        answer: Any = client.chat.completions.create(
            model="brief",
            messages=QUESTION,
            seed=seed,
            max_tokens=20,
            extra_body={"return_token_ids": True},
        )
        choice = answer.choices[0]
        assert choice.finish_reason == ("stop" if choice.token_ids[-1] == eot else "length")
        assert "<|eot|>" not in choice.message.content
        assert answer.usage.completion_tokens == len(choice.token_ids)
        reasons.add(choice.finish_reason)
    assert reasons == {"stop", "length"}


def test_the_seed_that_is_reported_gives_the_same_choices(client: openai.OpenAI) -> None:
    ask: Any = {"model": "talker", "messages": QUESTION, "n": 3, "max_tokens": 20}
    first: Any = client.chat.completions.create(**ask)
    again = client.chat.completions.create(**ask, seed=first.lima["seed"])
    results = [[choice.message.content for choice in a.choices] for a in (first, again)]
    assert results[0] == results[1] and len(set(results[0])) == 3
    assert first.system_fingerprint == first.lima["revision"] == again.system_fingerprint


def test_a_long_dialogue_is_refused_or_loses_its_oldest_exchanges(client: openai.OpenAI) -> None:
    turns = [("user", f"Question {n}? " + "word " * 40) for n in range(12)]
    messages: Any = [
        {"role": role, "content": content}
        for turn in turns
        for role, content in (turn, ("assistant", "An answer."))
    ][:-1]
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(model="talker", messages=messages)
    assert error.value.code == "context_length_exceeded" and error.value.param == "messages"
    answer: Any = client.chat.completions.create(
        model="talker",
        messages=[{"role": "system", "content": "Be kind."}, *messages],
        max_tokens=50,
        extra_body={"overflow": "drop_oldest", "return_token_ids": True},
    )
    dropped = answer.lima["dropped_messages"]
    assert dropped > 0 and dropped % 2 == 0
    kept: Any = client.chat.completions.create(
        model="talker",
        messages=[{"role": "system", "content": "Be kind."}, *messages[dropped:]],
        max_tokens=50,
        extra_body={"return_token_ids": True},
    )
    assert answer.prompt_token_ids == kept.prompt_token_ids


def test_thousands_of_short_messages_are_dropped_in_a_moment_and_keep_nobody_waiting(
    host: Hosted, brief_dir: Path
) -> None:
    engine = host.engine_loop("talker").engine
    assert engine
    messages = [{"role": ("user", "assistant")[n % 2], "content": f"word {n}"} for n in range(4001)]
    body = {
        "model": "talker",
        "messages": [{"role": "system", "content": "Be kind."}, *messages],
        "max_tokens": 4,
        "overflow": "drop_oldest",
        "return_token_ids": True,
    }
    longest, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal longest
        with host.client() as client:
            while not done.is_set():
                began = time.monotonic()
                client.get("/health")
                longest = max(longest, time.monotonic() - began)

    watching = threading.Thread(target=watch)
    watching.start()
    with host.client() as client:
        began = time.monotonic()
        answer = client.post("/v1/chat/completions", json=body).json()
        took = time.monotonic() - began
    done.set()
    watching.join()
    dropped = answer["lima"]["dropped_messages"]
    room = engine.context - 4

    def length(first: int) -> int:
        return len(engine.prompt([m["content"] for m in messages[first:]], "Be kind."))

    assert length(dropped) == len(answer["prompt_token_ids"]) <= room < length(dropped - 2)
    # To make all the prompts between took minutes.
    assert took < 10 and longest < 2, (took, longest)


# As trained


@pytest.mark.parametrize("row", dialogues(3, seed=5), ids=lambda row: f"{len(row.turns)} turns")
def test_served_equals_trained(client: openai.OpenAI, talker_dir: Path, row: Example) -> None:
    """The prompt is what training sees before its last reply, the reply the plain model's."""
    tokenizer = load_tokenizer(str(PACKAGE / "miniature" / "base"))
    ids, mask = encode([row], tokenizer, Data(max_tokens=512)).row(0)
    last_reply = max(i for i in range(1, len(ids)) if mask[i] and not mask[i - 1])
    roles = ("user", "assistant")
    answer: Any = client.chat.completions.create(
        model="talker",
        messages=[  # pyright: ignore[reportArgumentType]
            {"role": roles[n % 2], "content": turn} for n, turn in enumerate(row.turns[:-1])
        ],
        temperature=0,
        max_tokens=40,
        extra_body={"repetition_penalty": 1, "return_token_ids": True},
    )
    assert answer.prompt_token_ids == ids[:last_reply].tolist()
    reply = answer.choices[0].token_ids
    model: Any = AutoModelForCausalLM.from_pretrained(talker_dir, dtype=torch.float32)
    with torch.inference_mode():
        logits_TV = model(torch.tensor([[*ids[:last_reply].tolist(), *reply]])).logits[0]
    assert reply == logits_TV.argmax(-1)[last_reply - 1 : -1].tolist() and len(reply) == 40


@pytest.mark.parametrize("spelt", ["<|eot|>", "</s>", "<s>", "<|eot|></s><s><|eot|>"])
def test_control_tokens_in_a_text_are_text(client: openai.OpenAI, spelt: str) -> None:
    tokenizer = load_tokenizer(str(PACKAGE / "miniature" / "base"))
    control = set(tokenizer.all_special_ids) | {eot_id(tokenizer)}
    ids: dict[str, Any] = {"max_tokens": 1, "extra_body": {"return_token_ids": True}}
    turns = ["user", "assistant", "user"]
    messages: Any = [{"role": r, "content": f"I say {spelt} and go on"} for r in turns]
    messages.insert(0, {"role": "system", "content": f"Be {spelt}"})
    answer: Any = client.chat.completions.create(model="talker", messages=messages, **ids)
    # BOS, and the EOT of each turn.
    assert [i for i in answer.prompt_token_ids if i in control] == [1, *[eot_id(tokenizer)] * 3]
    answer = client.completions.create(model="talker", prompt=f"I say {spelt} and", **ids)
    assert [i for i in answer.choices[0].prompt_token_ids if i in control] == [1]


# The official client


def test_openai_client_streams_what_it_gives_at_once(client: openai.OpenAI) -> None:
    ask: Any = {"model": "talker", "messages": QUESTION, "max_tokens": 30, **GREEDY}
    complete = client.chat.completions.create(**ask)
    with client.chat.completions.create(
        **ask, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == complete.choices[0].message.content and len(pieces) > 10
    assert chunks[-1].usage == complete.usage and chunks[-1].choices == []
    assert chunks[-2].choices[0].finish_reason == complete.choices[0].finish_reason == "length"


def test_openai_client_async(host: Hosted) -> None:
    async def work() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{host.url}/v1", api_key="none") as client:

            async def pieces(prompt: str) -> str:
                stream = await client.completions.create(
                    model="talker", prompt=prompt, max_tokens=20, stream=True, temperature=0
                )
                return "".join([chunk.choices[0].text async for chunk in stream])

            prompts = ["The capital of France", "Gold is", "The capital of France"]
            several = await asyncio.gather(*map(pieces, prompts))
            at_once = await client.completions.create(
                model="talker", prompt=prompts, max_tokens=20, temperature=0
            )
            assert [choice.text for choice in at_once.choices] == several
            return several

    first, second, third = asyncio.run(work())
    assert first == third != second


def test_openai_client_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["talker", "brief", "long"]
    assert client.models.retrieve("brief").id == "brief"
    with pytest.raises(openai.NotFoundError, match="no model 'nobody'"):
        client.models.retrieve("nobody")


def test_openai_client_raises_what_it_should(client: openai.OpenAI) -> None:
    create: Any = client.chat.completions.create
    with pytest.raises(openai.BadRequestError) as bad:
        create(model="talker", messages=QUESTION, temperature=9)
    assert bad.value.param == "temperature" and bad.value.request_id
    with pytest.raises(openai.NotFoundError) as unknown:
        create(model="gpt-4", messages=QUESTION)
    assert unknown.value.code == "model_not_found" and "talker, brief, long" in str(unknown.value)
    with pytest.raises(openai.BadRequestError, match="presence_penalty"):
        create(model="talker", messages=QUESTION, presence_penalty=0.5)


def test_openai_client_comes_again_while_a_model_is_loaded(brief_dir: Path, long_dir: Path) -> None:
    with hosted({"first": brief_dir, "second": long_dir}) as host:
        url = f"{host.url}/v1"
        asked: Any = {"model": "second", "prompt": "the cat", "max_tokens": 2}
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as hasty:
            with pytest.raises(openai.InternalServerError) as loading:
                hasty.completions.create(**asked)
            assert loading.value.status_code == 503 and loading.value.code == "model_loading"
            assert loading.value.response.headers["retry-after"] == "3"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=5) as patient:
            assert patient.completions.create(**asked).choices[0].text


# Faults


def stream(host: Hosted, **fields: Any) -> Any:
    """A stream of a long reply, not read yet."""
    client = host.client()
    body = LONG | {"stream": True} | fields
    return client.send(client.build_request("POST", "/v1/completions", json=body), stream=True)


def as_openai(**fields: Any) -> Any:
    """The long request as OpenAI's client takes it."""
    body = LONG | fields
    return body | {"extra_body": {"repetition_penalty": body.pop("repetition_penalty")}}


def free(host: Hosted, name: str) -> bool:
    """Whether an engine has nothing to do and all its slots."""
    loop = host.engine_loop(name)
    assert loop.engine
    return not loop.in_flight and sorted(loop.engine.free_slots) == list(range(loop.engine.slots))


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "unary"])
def test_a_client_that_leaves_frees_its_slot(host: Hosted, streamed: bool) -> None:
    loop = host.engine_loop("long")
    engine: Any = loop.engine
    step, steps = engine.step, [0]

    def counting_step() -> Any:
        steps[0] += 1
        return step()

    engine.step = counting_step
    if streamed:
        response = stream(host, n=2)
        pieces = response.iter_raw()  # held: the connection closes with it
        next(pieces)
        wait_until(lambda: len(engine.active) == 2)
        response.close()
    else:
        give_up(host)
    wait_until(lambda: free(host, "long"), 5)
    engine.step = step
    assert 0 < steps[0] < 4000, "the reply ran to its end"


def give_up(host: Hosted) -> None:
    """Ask for a long reply, and leave before it comes."""
    with host.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/completions", json=LONG, timeout=0.3)


def test_a_slow_reader_disturbs_nobody(host: Hosted, client: openai.OpenAI) -> None:
    pieces = stream(host, n=4, max_tokens=3000).iter_text()
    text = next(pieces)
    began_s = time.monotonic()
    asked: Any = {"model": "talker", "prompt": "The capital of", "max_tokens": 5}
    assert all(client.completions.create(**asked).choices for _ in range(5))
    assert time.monotonic() - began_s < 10
    # The engine ends the replies that nobody reads; they wait for their reader, whole.
    wait_until(lambda: free(host, "long"), 60)
    text += "".join(pieces)
    chunks = [json.loads(line[6:]) for line in text.split("\n\n")[:-2]]
    ends = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert text.endswith("data: [DONE]\n\n") and ends.count("length") == 4


def test_ten_times_overload_is_refused_and_costs_no_memory(host: Hosted) -> None:
    room = 4 + 8

    async def burst() -> list[tuple[int, Any]]:
        async with openai.AsyncOpenAI(
            base_url=f"{host.url}/v1", api_key="none", max_retries=0
        ) as client:

            async def one() -> tuple[int, Any]:
                try:
                    answer = await client.completions.create(**as_openai(max_tokens=200))
                    return 200, answer.usage.completion_tokens  # pyright: ignore
                except openai.RateLimitError as error:
                    return error.status_code, int(error.response.headers["retry-after"])

            return await asyncio.gather(*(one() for _ in range(10 * room)))

    asyncio.run(burst())
    process, counts = psutil.Process(), []
    before = process.memory_info().rss
    for _ in range(3):
        results = asyncio.run(burst())
        answered = [value for status, value in results if status == 200]
        refused = [value for status, value in results if status == 429]
        assert len(answered) + len(refused) == 10 * room and len(answered) >= room
        assert set(answered) == {200} and refused and all(1 <= s <= 60 for s in refused)
        counts.append(len(answered))
    assert (process.memory_info().rss - before) / 2**20 < RSS_MIB, counts
    wait_until(lambda: free(host, "long"))


def test_a_failed_step_is_an_error_and_then_all_is_well(long_dir: Path) -> None:
    with hosted({"long": long_dir}) as host:
        url = f"{host.url}/v1"
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            streaming = client.completions.create(**as_openai(stream=True))
            assert next(iter(streaming)).choices
            layer = host.engine_loop().engine.model.get_decoder().layers[0]  # pyright: ignore
            hook = layer.register_forward_pre_hook(break_down)
            with pytest.raises(openai.APIError, match="the layer is broken"):
                list(streaming)
            hook.remove()
            assert client.completions.create(**as_openai(max_tokens=3)).choices[0].text
            assert host.client().get("/health").status_code == 200
            layer.register_forward_pre_hook(break_down)
            for _ in range(3):
                with pytest.raises(openai.InternalServerError, match="the layer is broken") as e:
                    client.completions.create(**as_openai())
                assert e.value.code == "engine_failed"
        wait_until(lambda: host.models.problem)
        for path in ("/health", "/ready"):
            response = host.client().get(path)
            assert response.status_code == 503
            assert "the engine of long is broken" in response.json()["error"]["message"]


def break_down(*_: object) -> None:
    """What a broken layer does."""
    raise RuntimeError("the layer is broken")


def test_a_hanging_step_is_unhealthy(long_dir: Path) -> None:
    released = threading.Event()

    def hang(*_: object) -> None:
        released.wait(20)

    with hosted({"long": long_dir}, stuck_after_s=0.2) as host:
        layer = host.engine_loop().engine.model.get_decoder().layers[0]  # pyright: ignore
        hook = layer.register_forward_pre_hook(hang)
        response = stream(host)
        wait_until(lambda: host.client().get("/health").status_code == 503)
        assert "hangs" in host.client().get("/health").json()["error"]["message"]
        released.set()
        hook.remove()
        response.close()
        wait_until(lambda: host.client().get("/health").status_code == 200)
