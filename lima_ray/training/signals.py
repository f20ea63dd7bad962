"""Ctrl-C and SIGTERM while a run trains: the message says where it stands and how it goes on."""

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from lima_ray.config.errors import SignalExit
from lima_ray.records.run import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def raise_on_signals(run: Run) -> Iterator[None]:
    """Raise `SignalExit` at a signal inside; in other threads than the main one, do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)  # once is enough while this unwinds
        raise SignalExit(describe_position(run), 128 + number)

    # Ray has handlers of its own, which end the process without a word; they are back afterwards.
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe_position(run: Run) -> str:
    """Say at which step a run stands, and how it goes on."""
    steps = run.steps()
    state = run.latest_state()
    from_state = f" from the state of step {state.step}" if state else " from the beginning"
    return (
        f"stopped at step {steps[-1]['step'] if steps else 0}; the same command goes on{from_state}"
    )


def run_in_thread(work: Callable[[], Any]) -> Any:
    """Call a function in a thread of its own, while this can be interrupted; raise as it does."""
    done: Future[Any] = Future()

    def call() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)  # a join without end would hold up the signal
    return done.result()
