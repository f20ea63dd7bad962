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

LAST_ANSWERS_S = 5.0
"""For requests on their way when the endpoint refuses one for good."""

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
            must be down. Requests on their way then have `LAST_ANSWERS_S` for their answers, which
            may have been paid for.
    """
    waiting, failures = iter(items), 0
    errors = list[Exception]()
    most_failures = max(MOST_FAILURES, endpoint.concurrency)

    async def worker() -> None:
        try:
            await ask()
        except Exception as error:
            errors.append(error)
            raise

    async def ask() -> None:
        nonlocal failures
        for item in waiting:
            if errors:
                return
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

    async with Client(endpoint, model) as client:
        workers = [asyncio.create_task(worker()) for _ in range(endpoint.concurrency)]
        try:
            _, left = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            if left:
                await asyncio.wait(left, timeout=LAST_ANSWERS_S)
        finally:
            for one in workers:
                one.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
    if errors:
        raise errors[0]
