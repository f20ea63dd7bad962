"""Talk to an export in the terminal, with the paper's decoding.

    python -m lima_ray.chat runs/miniature/export

Each line you type is a turn; an empty line starts a new conversation, Ctrl-D ends.
"""

from pathlib import Path

import tyro

from lima_ray.config import Sampling
from lima_ray.errors import UserError, plain_errors


def chat(model: tyro.conf.Positional[Path], seed: int = 0) -> None:
    """Read turns from the terminal and print the model's replies as they come.

    Args:
        model: directory of an export.
        seed: seed of the first reply's draws; each later reply has the next.

    Raises:
        UserError: no model there.
    """
    if not (model / "config.json").is_file():
        raise UserError(f"no model at {model}; `make demo` leaves one in runs/miniature/export")
    from lima_ray.engine import Engine, Request

    engine = Engine(model, slots=1)
    dialogue: list[str] = []
    number = 0
    while True:
        try:
            turn = input("you: ")
        except EOFError:
            return
        if not turn.strip():
            dialogue = []
            print("(new conversation)")
            continue
        ids = engine.prompt([*dialogue, turn])
        sampling = Sampling(seed=seed + number, max_tokens=engine.context)
        try:
            engine.submit(Request(str(number), ids, sampling, stream=True))
        except UserError as error:
            print(f"({error}; new conversation)")
            dialogue = []
            continue
        print("model: ", end="", flush=True)
        said = ""
        while engine.in_flight:
            for event in engine.step():
                print(event.text, end="", flush=True)
                said += event.text
        print()
        dialogue += [turn, said]
        number += 1


if __name__ == "__main__":
    with plain_errors():
        tyro.cli(chat, prog="python -m lima_ray.chat", description=__doc__)
