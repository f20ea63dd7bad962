"""The chat page over a real engine, on a real socket, in a real browser."""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp

from benchmarks.servers import free_port
from lima_ray.config.sections import Sampling
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Event, Request

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the machine's Chromium, as a Browser of Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class EngineChatClient:
    """The API's two calls, straight on engines in this process."""

    def __init__(self, engines: dict[str, Engine], examples: list[str]) -> None:
        """Answer as these models; the first is the default."""
        self.engines = engines
        self.examples = examples
        self.pause_s = 0.0
        """Waits between tokens, so that a test can act while a reply comes."""
        self.asked: list[dict[str, Any]] = []
        """Every request's body."""
        self.queues: dict[str, asyncio.Queue[Event]] = {}
        self.lock = asyncio.Lock()

    @property
    def in_flight(self) -> int:
        """Requests that the engines hold."""
        return sum(engine.in_flight for engine in set(self.engines.values()))

    async def models(self) -> list[dict[str, Any]]:
        """What `GET /v1/models` lists."""
        return [
            {
                "id": name,
                "object": "model",
                "revision": f"revision-of-{name}",
                "max_model_len": engine.context,
                "default": number == 0,
                "loaded": True,
                "examples": self.examples,
            }
            for number, (name, engine) in enumerate(self.engines.items())
        ]

    async def chat(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Stream a chat completion."""
        self.asked.append(body)
        engine, id = self.engines[body["model"]], f"chatcmpl-{len(self.asked)}"
        messages = list(body["messages"])
        system = messages.pop(0)["content"] if messages[0]["role"] == "system" else None
        turns = [message["content"] for message in messages]
        room = min(body.get("max_tokens", engine.context), engine.context // 2)
        dropped = 0
        while len(ids := engine.prompt(turns, system)) + room > engine.context and len(turns) > 1:
            turns, dropped = turns[2:], dropped + 2
        head = {"id": id, "object": "chat.completion.chunk", "model": body["model"]}
        head["system_fingerprint"] = revision = f"revision-of-{body['model']}"
        if len(ids) >= engine.context:
            yield head | {"error": {"message": f"The prompt has {len(ids)} tokens.", "code": None}}
            return
        about = {"revision": revision, "seed": body["seed"], "dropped_messages": dropped}
        yield head | {"lima": about, "choices": [{"index": 0, "delta": {"role": "assistant"}}]}
        sampling = Sampling(
            temperature=body["temperature"],
            top_p=body["top_p"],
            repetition_penalty=body["repetition_penalty"],
            penalise_prompt=body["penalise_prompt"],
            max_new_tokens=body.get("max_tokens"),
            context=engine.context,
            seed=body["seed"],
        )
        queue = self.queues[id] = asyncio.Queue()
        try:
            async with self.lock:
                engine.submit(Request(id, ids, sampling))
            tokens: list[int] = []
            said = ""
            while True:
                event = await self.next_event(engine, queue)
                tokens.append(event.token)
                text = engine.tokenizer.decode(tokens, skip_special_tokens=True)
                ended = event.reply and ("stop" if event.reply.stopped else "length")
                delta = {"content": text.removeprefix(said)}
                said = text
                yield head | {"choices": [{"index": 0, "delta": delta, "finish_reason": ended}]}
                if event.reply:
                    break
            usage = {"prompt_tokens": len(ids), "completion_tokens": len(tokens)}
            yield head | {"choices": [], "usage": usage}
        finally:
            async with self.lock:
                engine.cancel(id)
            del self.queues[id]

    async def next_event(self, engine: Engine, queue: asyncio.Queue[Event]) -> Event:
        """Step the engine, whoever's turn it is, until a token of this request comes."""
        await asyncio.sleep(self.pause_s)
        while queue.empty():
            async with self.lock:
                if queue.empty():
                    for event in await asyncio.to_thread(engine.step):
                        if event.id in self.queues:
                            self.queues[event.id].put_nowait(event)
        return queue.get_nowait()


@contextmanager
def served(page: ASGIApp, port: int | None = None, dies: bool = False) -> Iterator[str]:
    """The page below /chat on the loopback, as the Serve app hosts it; yields its address.

    Args:
        page: the app.
        port: of the loopback; none takes a free one.
        dies: at the end, connections break without a word, as where a replica is killed.
    """
    port = port or free_port()
    outer = Starlette(
        routes=[Mount("/chat", page)],
        lifespan=lambda _: page.router.lifespan_context(page),  # pyright: ignore
    )
    config = uvicorn.Config(
        outer, "127.0.0.1", port, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive() and time.monotonic() < deadline, "the page does not start"
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}/chat/"
    finally:
        if dies:
            server.servers[0].get_loop().call_soon_threadsafe(break_off, server)
            time.sleep(0.2)
        server.should_exit = True
        thread.join(20)


def break_off(server: uvicorn.Server) -> None:
    """Close all connections as they are."""
    for connection in list(server.server_state.connections):
        connection.transport.abort()
