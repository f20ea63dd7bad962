"""Questions to an endpoint by our own client, all at once."""

from typing import Any

from benchmarks.local_servers.chat_server import ChatServer
from lima_ray.config.sections import Sampling
from lima_ray.generation.client import Client
from lima_ray.generation.endpoint import Endpoint
from lima_ray.generation.request_pool import request_all
from lima_ray.generation.responses import ChatCompletion

SAMPLING = Sampling()


def chats(
    server: ChatServer, questions: list[str], sampling: Sampling = SAMPLING, **settings: Any
) -> tuple[dict[str, ChatCompletion], dict[str, str]]:
    """Ask the server each question; return what was answered and what failed."""
    answers: dict[str, ChatCompletion] = {}
    failures: dict[str, str] = {}

    async def handle(client: Client, question: str) -> None:
        message = {"role": "user", "content": question}
        answers[question] = await client.chat([message], sampling)

    endpoint = Endpoint(**({"url": server.url, "backoff_s": 0.02, "timeout_s": 5} | settings))
    request_all(endpoint, "m", questions, handle, failures.__setitem__)
    return answers, failures
