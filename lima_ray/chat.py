"""Talk to a model in the terminal: an export, or one behind any OpenAI-compatible server.

    python -m lima_ray.chat runs/miniature/export
    python -m lima_ray.chat http://127.0.0.1:8000/v1 --name miniature

Each line is a turn. /new begins a new conversation (an empty line does too), /retry asks again with
another seed, /undo takes the last exchange back, /save FILE appends the conversation as LIMA JSONL,
/help shows this. Ctrl-C stops a reply, Ctrl-D ends.
"""

if __name__ == "__main__":  # arguments first: the imports below take seconds
    import sys

    from lima_ray.config.command_line import run

    sys.exit(run("chat"))

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from lima_ray.config.errors import UserError
from lima_ray.config.sections import Sampling
from lima_ray.config.terminal import printable
from lima_ray.engine.engine import Engine
from lima_ray.engine.requests import Request
from lima_ray.generation.arguments import ChatCommand
from lima_ray.generation.endpoint import KEY_ENV, check_url, key_in, retry_after_s, shown
from lima_ray.generation.job import model_dir
from lima_ray.records.example import Example

Speak = Callable[[list[str], int], Iterator[str]]
"""A reply to a dialogue, with a seed, piece by piece; closing it cancels."""
HELP = "/new  /retry  /undo  /save FILE  /help; Ctrl-C stops a reply, Ctrl-D ends"
LOADING_TRIES = 100
PAPER = Sampling()


def chat(
    model: str,
    name: str = "",
    system: str = "",
    seed: int = 0,
    sampling: Sampling = PAPER,
) -> None:
    """Read turns from the terminal and print the model's replies as they come.

    Args:
        model: directory of a run, an export or a base; or the URL of a server, ending in /v1.
        name: the model's name on the server; without it the server's first.
        system: a system message before the dialogue.
        seed: seed of the first reply's draws; each later reply has the next.
        sampling: how to decode; its seed is not used, nor on a server its max_tokens.

    Raises:
        UserError: no model or no server there.
    """
    remote = model.startswith(("http://", "https://"))
    speak = behind(model, name, system, sampling) if remote else here(model, system, sampling)
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
            turns, seed = say(speak, turns[:-1], seed), seed + 1
        elif command.startswith("/") and command[1:].isalpha():
            print(HELP)
        else:
            turns, seed = say(speak, [*turns, line], seed), seed + 1


def say(speak: Speak, turns: list[str], seed: int) -> list[str]:
    """Print a reply as it comes, and return the dialogue with it.

    Ctrl-C ends the reply, and what was said of it stays; a turn without a reply is taken back.
    """
    print("model: ", end="", flush=True)
    said = ""
    try:
        with closing(speak(turns, seed)) as pieces:  # pyright: ignore[reportArgumentType]
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


def here(reference: str, system: str, sampling: Sampling) -> Speak:
    """A model in this process.

    Raises:
        UserError: no model there.
    """
    if not Path(reference).exists() and not reference.startswith("lima_ray/"):
        raise UserError(f"no model at {reference}; `make demo` leaves one in runs/miniature/export")
    engine = Engine(model_dir(reference), slots=1)
    room = min(sampling.max_tokens, engine.context)

    def speak(turns: list[str], seed: int) -> Iterator[str]:
        ids = engine.prompt(turns, system or None)
        how = sampling.model_copy(update={"seed": seed, "max_tokens": room})
        try:
            engine.submit(Request("reply", ids, how, stream=True))
        except UserError as error:
            raise UserError(f"{error}; /new begins a new conversation") from error
        try:
            while engine.in_flight:
                yield from (event.text for event in engine.step())
        finally:
            engine.cancel("reply")

    return speak


def behind(url: str, name: str, system: str, sampling: Sampling) -> Speak:
    """A model behind a server.

    Raises:
        UserError: no server there, or it has no such model.
    """
    import httpx2

    check_url(url)
    key = key_in(KEY_ENV)
    client = httpx2.Client(
        base_url=url.rstrip("/"),
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx2.Timeout(None, connect=10),
    )
    try:
        listed = client.get("/models")
    except httpx2.RequestError as error:
        raise UserError(f"no server at {url}: {error}") from error
    if listed.status_code != 200:
        raise UserError(f"{url}/models answers {listed.status_code} {shown(listed)}")
    names = [model["id"] for model in listed.json()["data"]]
    if name and name not in names:
        raise UserError(f"{url} has no model {name!r}; it has {', '.join(names)}")
    body: dict[str, Any] = {"model": name or names[0], "stream": True}
    body |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
    if sampling.repetition_penalty != 1:
        body["repetition_penalty"] = sampling.repetition_penalty
    body |= {"penalise_prompt": True} if sampling.penalise_prompt else {}

    def speak(turns: list[str], seed: int) -> Iterator[str]:
        messages = Example(tuple(turns), id="", system=system or None).messages()
        asked = body | {"messages": messages, "seed": seed}
        problem = ""
        for _ in range(LOADING_TRIES):
            with client.stream("POST", "/chat/completions", json=asked) as response:
                if response.status_code == 200:
                    yield from pieces(response)
                    return
                response.read()
                problem = f"{response.status_code} {shown(response)}"
                if response.status_code != 503:
                    break
                print("(loading) ", end="", flush=True)
                time.sleep(retry_after_s(response) or 1)
        raise UserError(problem)

    return speak


def pieces(response: Any) -> Iterator[str]:
    """The text of a stream of server-sent events.

    Raises:
        UserError: the server ends the reply with an error.
    """
    for line in response.iter_lines():
        if not line.startswith("data:") or line.endswith("[DONE]"):
            continue
        chunk = json.loads(line.removeprefix("data:"))
        if "error" in chunk:
            raise UserError(chunk["error"]["message"])
        for choice in chunk["choices"]:
            yield choice["delta"].get("content") or ""


def main(given: ChatCommand) -> None:
    """`python -m lima_ray.chat MODEL_OR_URL`."""
    chat(given.model, given.name, given.system, given.seed, given.sampling)
