"""Questions asked by Ray actors, spread over the nodes of a cluster."""

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lima_ray.config.cluster import NO_GPU, connect, forwarded_environment
from lima_ray.config.errors import UserError
from lima_ray.config.secrets.sharing import SharedSecrets
from lima_ray.generation.client import Client, Unanswered
from lima_ray.generation.request_pool import MOST_FAILURES
from lima_ray.judging.asking.judges import EndpointJudge, ask, unanswered
from lima_ray.judging.questions.item import Item
from lima_ray.records.verdict import Verdict

Question = tuple[EndpointJudge, Item]
MAX_CONSECUTIVE_DEATHS = 3
"""Actors that may die without an answer between."""


class AskingWorker:
    """An actor that asks many questions at once."""

    def __init__(self, secrets: SharedSecrets) -> None:
        secrets.enter_environment()
        self.clients: dict[str, Client] = {}

    async def ask(self, judge: EndpointJudge, item: Item) -> Verdict:
        name = judge.annotator.name
        if name not in self.clients:
            self.clients[name] = Client(judge.endpoint, judge.model)
        try:
            return await ask(self.clients[name], judge, item)
        except Unanswered as error:
            return unanswered(judge, item, str(error))


def ask_on_cluster(
    judges: Sequence[EndpointJudge],
    questions: Mapping[str, Iterator[Item]],
    workers: int,
    keep: Callable[[EndpointJudge, Verdict], None],
    give_up: Callable[[EndpointJudge, str], None],
) -> None:
    """Ask questions by actors, and hand on each verdict as it comes.

    A judge's `concurrency` and `requests_per_minute` hold for all actors together.

    Args:
        questions: of each judge, by its name; taken as others are answered.
        give_up: told of a judge that cannot be asked further, and why, so that `questions` has no
            more of its own: its endpoint refuses or is down. Others are asked on.

    Raises:
        UserError: actors that die without an answer between.
    """
    import ray
    from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

    connect()
    worker: Any = ray.remote(AskingWorker).options(
        num_cpus=0,
        max_concurrency=sum(judge.concurrency for judge in judges),
        scheduling_strategy="SPREAD",
        runtime_env={"env_vars": forwarded_environment() | NO_GPU},
    )
    secrets = SharedSecrets.of_driver(*(judge.api_key_env for judge in judges))
    actors = [worker.remote(secrets) for _ in range(workers)]
    busy: dict[Any, tuple[Any, Question]] = {}
    again: dict[str, deque[Item]] = {name: deque() for name in questions}
    asked, failures, deaths = Counter[str](), Counter[str](), 0
    given_up: set[str] = set()

    def stop(judge: EndpointJudge, problem: str) -> None:
        given_up.add(judge.annotator.name)
        again[judge.annotator.name].clear()
        give_up(judge, problem)

    try:
        while True:
            for judge in judges:
                name = judge.annotator.name
                while asked[name] < judge.concurrency:
                    item = again[name].popleft() if again[name] else next(questions[name], None)
                    if item is None:
                        break
                    held = Counter(actor for actor, _ in busy.values())
                    actor = min(actors, key=lambda one: held[one])
                    busy[actor.ask.remote(share(judge, workers), item)] = actor, (judge, item)
                    asked[name] += 1
            if not busy:
                return
            ref = ray.wait(list(busy), num_returns=1)[0][0]
            actor, (judge, item) = busy.pop(ref)
            name = judge.annotator.name
            asked[name] -= 1
            try:
                verdict: Verdict = ray.get(ref)
            except (RayActorError, OutOfMemoryError) as error:
                if name not in given_up:
                    again[name].append(item)
                if actor in actors:  # its other questions come back in the same way
                    deaths += 1
                    actors[actors.index(actor)] = worker.remote(secrets)
                if deaths >= MAX_CONSECUTIVE_DEATHS:
                    raise UserError(
                        f"actors died {deaths} times without an answer between. What was answered "
                        f"is kept; the same command goes on there. The last error was:\n{error}"
                    ) from error
                continue
            except RayTaskError as error:
                if not isinstance(error.cause, UserError):
                    raise
                stop(judge, str(error.cause))
                continue
            deaths = 0
            keep(judge, verdict)
            failures[name] = failures[name] + 1 if verdict.status == "unanswered" else 0
            if failures[name] >= max(MOST_FAILURES, judge.concurrency):
                stop(
                    judge,
                    f"{judge.url} failed {failures[name]} times in a row, the last time with: "
                    f"{verdict.explanation}. What was answered is kept; the same command goes on "
                    "there",
                )
    finally:
        for actor in actors:
            ray.kill(actor)


def share(judge: EndpointJudge, workers: int) -> EndpointJudge:
    """Return a judge as one of several actors asks it."""
    rate = judge.requests_per_minute / workers
    return judge.model_copy(update={"requests_per_minute": rate})
