"""Talk to a model in the terminal: an export, or one behind any OpenAI-compatible server.

    python -m lima_ray.chat runs/miniature/export
    python -m lima_ray.chat http://127.0.0.1:8000/v1 --name miniature

Each line is a turn. /new begins a new conversation (an empty line does too), /retry asks again with
another seed, /undo takes the last exchange back, /save FILE appends the conversation as LIMA JSONL,
/help shows this. Ctrl-C stops a reply, Ctrl-D ends.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run_command

    sys.exit(run_command("chat"))

import sys
import time
from contextlib import closing, suppress
from pathlib import Path

from lima_ray.config.errors import UserError
from lima_ray.config.terminal import printable
from lima_ray.generation.arguments import ChatCommand
from lima_ray.generation.reply_stream import StreamReply, stream_from_model, stream_from_server
from lima_ray.records.example import Example

HELP = "/new  /retry  /undo  /save FILE  /help; Ctrl-C stops a reply, Ctrl-D ends"


def main(given: ChatCommand) -> None:
    """Read turns from the terminal and print the model's replies as they come."""
    model, system, seed = given.model, given.system, given.seed
    if model.startswith(("http://", "https://")):
        stream = stream_from_server(model, given.name, system, given.sampling)
    else:
        stream = stream_from_model(model, system, given.sampling, given.weights)
    if sys.stdin.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401  # gives input() its line editing and history
        print(HELP)
    turns: list[str] = []
    while True:
        try:
            line = input("you: ").strip()
        except EOFError:
            return
        command, _, rest = line.partition(" ")
        if not line or command == "/new":
            turns = []
            print("(new conversation)")
        elif command == "/undo":
            turns = turns[:-2]
            print(f"({len(turns) // 2} exchanges left)")
        elif command == "/save":
            save(turns, system, rest.strip())
        elif command == "/retry" and turns:
            turns, seed = print_reply(stream, turns[:-1], seed), seed + 1
        elif command.startswith("/") and command[1:].isalpha():
            print(HELP)
        else:
            turns, seed = print_reply(stream, [*turns, line], seed), seed + 1


def print_reply(stream: StreamReply, turns: list[str], seed: int) -> list[str]:
    """Print a reply as it comes, and return the dialogue with it.

    Ctrl-C ends the reply, and what was said of it stays; a turn without a reply is taken back.
    """
    print("model: ", end="", flush=True)
    said = ""
    try:
        with closing(stream(turns, seed)) as pieces:  # pyright: ignore[reportArgumentType]
            for piece in pieces:
                print(printable(piece), end="", flush=True)
                said += piece
        print()
    except KeyboardInterrupt:
        print(" (stopped)")
    except UserError as error:
        print(printable(f"({error})"))
    return [*turns, said] if said.strip() else turns[:-1]


def save(turns: list[str], system: str, name: str) -> None:
    """Append the conversation to a file of LIMA JSONL."""
    if not name or not turns:
        print("(nothing to save yet)" if name else "(/save FILE)")
        return
    row = Example(tuple(turns), id=f"chat-{time.time_ns()}", source="chat", system=system or None)
    try:
        with Path(name).expanduser().open("a", encoding="utf-8") as out:
            out.write(f"{row.to_line()}\n")
        print(f"({len(turns) // 2} exchanges appended to {name})")
    except OSError as error:
        print(f"({name} cannot be written: {error.strerror})")
