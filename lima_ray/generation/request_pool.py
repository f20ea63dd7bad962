"""Many items asked of one endpoint, a bounded number of them at once.

async def handle(client: Client, question: str) -> None:
    print(await client.chat([{"role": "user", "content": question}], Sampling()))

request_all(Endpoint(url="http://localhost:8000/v1"), "lima-7b", questions, handle, on_failure)
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from lima_ray.config.errors import UserError
from lima_ray.generation.client import Client, Unanswered
from lima_ray.generation.endpoint import Endpoint

MOST_FAILURES = 8
"""In a row, before the endpoint counts as down; at least as many as are asked at once."""

Item = TypeVar("Item")


def request_all(
    endpoint: Endpoint,
    model: str,
    items: Iterable[Item],
    handle: Callable[[Client, Item], Awaitable[None]],
    on_failure: Callable[[Item, str], None],
) -> None:
    """Do what `request_concurrently` does in an event loop of its own, for blocking callers."""
    asyncio.run(request_concurrently(endpoint, model, items, handle, on_failure))


async def request_concurrently(
    endpoint: Endpoint,
    model: str,
    items: Iterable[Item],
    handle: Callable[[Client, Item], Awaitable[None]],
    on_failure: Callable[[Item, str], None],
) -> None:
    """Run `handle(client, item)` for all items, `endpoint.concurrency` of them at a time.

    Args:
        items: taken as others finish.
        handle: asks what it wants about one item and keeps the completions.
        on_failure: told of each item whose `handle` raised `Unanswered`, and why.

    Raises:
        UserError: wrong URL, key, path or model; or so many failures in a row that the endpoint
            must be down. Requests on their way are then dropped.
    """
    waiting, failures = iter(items), 0
    most_failures = max(MOST_FAILURES, endpoint.concurrency)

    async def worker() -> None:
        nonlocal failures
        for item in waiting:
            try:
                await handle(client, item)
                failures = 0
            except Unanswered as error:
                on_failure(item, str(error))
                failures += 1
                if failures >= most_failures:
                    raise UserError(
                        f"{endpoint.url} failed {failures} times in a row, the last time with: "
                        f"{error}. What was answered is kept; the same command goes on there"
                    ) from error

    try:
        async with Client(endpoint, model) as client, asyncio.TaskGroup() as group:
            for _ in range(endpoint.concurrency):
                group.create_task(worker())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
