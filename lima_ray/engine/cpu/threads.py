"""How many threads PyTorch and our kernels take for one operation."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Allowed(threading.local):
    """Threads that the outermost `threads_if` of a thread found."""

    threads = 0


allowed = Allowed()


@contextmanager
def threads_if(worth: bool) -> Iterator[None]:
    """Keep PyTorch to this thread unless more are worth it; the innermost decides."""
    before, outermost = torch.get_num_threads(), not allowed.threads
    if outermost:
        allowed.threads = before
    # To wait for another thread takes microseconds on idle cores, and on busy ones some
    # milliseconds for every small operation.
    torch.set_num_threads(allowed.threads if worth else 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if outermost:
            allowed.threads = 0


def threads_allowed() -> int:
    """Threads that work may take, also inside a `threads_if` that keeps it to one."""
    return allowed.threads or torch.get_num_threads()
