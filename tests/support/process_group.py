"""Run a function in several processes joined by gloo, as Ray Train's workers are."""

import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch.multiprocessing


def in_process_group(workers: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Call `function(*args)` in every process and return what each gave, by rank."""
    with socket.socket() as free, TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        torch.multiprocessing.spawn(
            _member, args=(workers, port, folder, function, args), nprocs=workers
        )
        results = [(Path(folder) / str(rank)).read_bytes() for rank in range(workers)]
    return [pickle.loads(result) for result in results]


def _member(
    rank: int, workers: int, port: int, folder: str, function: Callable[..., Any], args: Any
) -> None:
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(workers),
        "DS_ACCELERATOR": "cpu",
    }
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=workers)
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(function(*args)))
    torch.distributed.barrier()
    # Threads of gloo's that outlive their groups abort now and then while a process tears down.
    os._exit(0)
