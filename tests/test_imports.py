"""Imports go downwards from room to room, in no circle, and stand at the top of a file."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lima_ray", "tune", "serve", "benchmarks")
FLOORS = (
    *("config", "records", "web", "data", "results", "model", "curation", "training", "planning"),
    *("engine", "generation", "attribution", "judging", "commands", "miniature", "tune", "serve"),
    *("benchmarks",),
)
"""The lowest first. The files at the front of lima_ray are commands."""
LATE = {
    # Ray's controller unpickles the worker's function, and needs none of what training imports.
    ("lima_ray.training.worker", "lima_ray.training.loop"),
    ("tune.workers.training_worker", "lima_ray.training.loop"),
    # What asks a server loads no torch: 0.3 s of start-up, with it 4 s.
    ("lima_ray.generation.job", "lima_ray.generation.local"),
    ("lima_ray.generation.reply_stream", "lima_ray.engine.engine"),
    # The engines' replicas import no Gradio.
    ("serve.app", "serve.page.layout"),
    # A dataset is made without Gradio.
    ("lima_ray.curation.review.server", "lima_ray.curation.review.page"),
    # What answers say of a study is told without Gradio.
    ("lima_ray.judging.study.serving", "lima_ray.judging.study.page"),
}
"""Imports inside a function, each with its reason; a file's command line is free to have them."""
WITHOUT_TORCH = ("config", "records", "results", "curation")
GRADIO = ("lima_ray.curation.review.page", "lima_ray.curation.review.handlers")
"""Pages in rooms that are otherwise without it."""
MOST_MODULES = 12
"""In a room."""


def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = file
    return found


MODULES = modules()


def imported(module: str) -> Iterator[tuple[str, bool]]:
    """Yield what a module imports, and whether inside a function; ours by the module's name."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for scope in ast.walk(tree):
        inside = isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef)
        if not inside and not isinstance(scope, ast.Module):
            continue
        for node in ast.walk(scope) if inside else tree.body:
            if isinstance(node, ast.Import):
                yield from ((alias.name, inside) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    yield (name if name in MODULES else node.module), inside


def floor(module: str) -> int:
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0] if "." in rest else "commands"
    return FLOORS.index(room if package == "lima_ray" else package)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downwards_and_stand_at_the_top(module: str) -> None:
    for name, inside in imported(module):
        if name in MODULES and name != module:
            assert floor(name) <= floor(module), f"{module} imports {name}, which is above it"
            assert not inside or (module, name) in LATE, f"{module} imports {name} in a function"


def test_no_imports_go_in_a_circle() -> None:
    graph = {m: {n for n, _ in imported(m) if n in MODULES and n != m} for m in MODULES}
    TopologicalSorter(graph).prepare()


def test_lower_rooms_import_no_torch_at_the_top() -> None:
    for module in MODULES:
        if FLOORS[floor(module)] in WITHOUT_TORCH:
            heavy = {n.partition(".")[0] for n, inside in imported(module) if not inside}
            allowed = {"gradio"} if module in GRADIO else set()
            banned = {"torch", "deepspeed", "transformers", "gradio"} - allowed
            assert not heavy & banned, module


def test_clients_of_a_server_load_no_torch() -> None:
    said = "import lima_ray.chat, lima_ray.generate, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", said], check=True, cwd=ROOT)


def test_a_command_that_starts_without_a_gpu_says_nothing_of_it() -> None:
    environment = {name: v for name, v in os.environ.items() if name != "DS_ACCELERATOR"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-c", "import lima_ray.train"]
    done = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout + done.stderr == ""


def test_a_room_holds_at_most_a_dozen_modules() -> None:
    rooms: dict[Path, int] = {}
    for module, file in MODULES.items():
        if file.name != "__init__.py" and "." in module:
            rooms[file.parent] = rooms.get(file.parent, 0) + 1
    front = ROOT / "lima_ray"
    large = {str(r): n for r, n in rooms.items() if n > MOST_MODULES and r != front}
    assert not large
