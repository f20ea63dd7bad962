"""Check shell commands of documents and manifests by the parsers of the programs they call."""

import os
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import yaml
from ray.scripts.scripts import cli as ray_cli
from ray.serve.scripts import cli as serve_cli

from lima_ray.config.command_line import COMMANDS, parse_arguments
from lima_ray.config.storage.bucket import parse_url
from serve.arguments import Args

ROOT = Path(__file__).parents[2]
BY_MODULE = {command.module: command for command in COMMANDS.values()}
POSITIONALS = {"serve.login": 1, "serve.haproxy": 0}
"""Of modules that read their command line themselves."""
HARMLESS = {
    *(
        "cat",
        "cd",
        "chmod",
        "chown",
        "command",
        "date",
        "dpkg",
        "export",
        "head",
        "hf",
        "install",
        "mkdir",
    ),
    *("mountpoint", "openssl", "read", "sudo", "test", "tr", "ulimit", "umask"),
}
"""Programs whose arguments are not looked at."""
KUBECTL = {"create", "delete", "get", "logs", "port-forward", "wait"}


def blocks(markdown: str) -> Iterator[str]:
    """Yield the shell blocks of a document."""
    yield from re.findall(r"^```bash\n(.*?)^```", markdown, re.M | re.S)


def commands(script: str) -> Iterator[list[str]]:
    """Yield a script's commands as words, without variables before one and redirections."""
    script = script.replace("\\\n", " ").replace("~/lima_ray/", "")
    for inner in re.findall(r"\$\(([^()]*)\)", script):
        yield from commands(inner)
    script = re.sub(r"\$\([^()]*\)", "VALUE", script)
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("&|;(){}") and word != "{}":
                if words:
                    yield without_redirections(words)
                words = []
            else:
                words.append(word)


def without_redirections(words: list[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if skip or set(word) <= set("<>&"):
            skip = not skip
            continue
        kept.append(word)
    if kept and kept[-1] == "2":  # of 2>&1
        kept.pop()
    while kept and re.match(r"\w+=", kept[0]):
        kept.pop(0)
    return kept


def check(words: list[str]) -> None:
    """Refuse, by whatever error its parser raises, what a program would refuse."""
    if not words:
        return
    program, args = Path(words[0]).name, words[1:]
    if program in ("python", "python3"):
        check_python(args)
    elif program == "ray":
        check_ray(args)
    elif program == "serve":
        check_serve(args)
    elif program == "sbatch":
        script = next(n for n, word in enumerate(args) if not word.startswith("-"))
        assert (ROOT / args[script]).is_file(), f"no {args[script]}"
        check(args[script + 1 :])
    elif program in ("nohup", "setsid"):
        check(args)
    elif program.endswith(".sh"):
        assert os.access(ROOT / words[0], os.X_OK), f"no program {words[0]}"
    elif program == "kubectl":
        check_kubectl(args)
    elif program == "helm":
        check_helm(args)
    elif program == "aws":
        check_aws(args)
    elif program == "docker":
        check_docker(args)
    elif program == "make":
        assert re.search(rf"^{args[0]}:", (ROOT / "Makefile").read_text(), re.M), (
            f"no make {args[0]}"
        )
    elif program == "pip":
        check_files(args, "-c")
    elif program == "prometheus":
        check_files([word for arg in args for word in arg.split("=")], "--config.file")
    elif program == "source":
        assert args[0] == ".venv/bin/activate" or (ROOT / args[0]).is_file(), f"no {args[0]}"
    else:
        assert program in HARMLESS, f"unknown program {program}"


def check_files(args: list[str], *flags: str) -> None:
    for flag, value in pairwise(args):
        assert flag not in flags or (ROOT / value).exists(), f"no {value}"


def check_python(args: list[str]) -> None:
    assert args[0] == "-m", args
    module, rest = args[1], args[2:]
    if module == "venv":
        return
    assert module in BY_MODULE, f"no command {module}"
    command = BY_MODULE[module]
    if command.arguments:
        parse_arguments(command, list(rest))
    else:
        assert len(rest) == POSITIONALS[module] and rest[:1] != ["-"], rest


def check_ray(args: list[str]) -> None:
    parsed = parse_click(ray_cli, args)
    if "entrypoint" in parsed:
        assert parsed["entrypoint"], "no entrypoint"
        check(list(parsed["entrypoint"]))
    if file := parsed.get("cluster_config_file"):
        assert (ROOT / file).is_file(), f"no {file}"


def check_serve(args: list[str]) -> None:
    parsed = parse_click(serve_cli, args)
    target = parsed.get("config_or_import_path")
    if target is None:
        return
    if target.endswith(".yaml"):
        assert (ROOT / target.removeprefix("$PWD/")).is_file(), f"no {target}"
    else:
        assert target == "serve.app:build", target
        names = {argument.partition("=")[0] for argument in parsed["arguments"]}
        assert names <= set(Args.model_fields), names


def parse_click(command: click.Command, args: list[str]) -> dict[str, Any]:
    """Return the parameters of a command of click, found through its groups."""
    name = command.name or ""
    while isinstance(command, click.Group):
        name, args = args[0], args[1:]
        assert name in command.commands, f"no command {name}"
        command = command.commands[name]
    return command.make_context(name, list(args)).params


def check_kubectl(args: list[str]) -> None:
    if args[0] == "--namespace":
        args = args[2:]
    if args[0] != "apply":
        assert args[0] in KUBECTL, args
        return
    folder = ROOT / args[2]
    assert (folder / "kustomization.yaml" if args[1] == "-k" else folder).is_file(), args


def check_helm(args: list[str]) -> None:
    check_files(args, "--values")
    versions = [b for a, b in pairwise(args) if a == "--version"]
    assert args[0] == "repo" or versions, "helm installs whatever is newest"


def check_aws(args: list[str]) -> None:
    """Copies into the bucket are all that is asked of it."""
    *command, local, remote = args
    assert command in (["s3", "cp"], ["s3", "cp", "--recursive"]), f"unknown {command}"
    assert parse_url(remote).scheme == "s3" and "://" not in local


def check_docker(args: list[str]) -> None:
    check_files(args, "--file")
    options = dict(pairwise(args))
    tag = options.get("--tag") or args[-1]
    component = yaml.safe_load((ROOT / "cluster/kuberay/image/kustomization.yaml").read_text())
    names = {f"{image['newName']}:{image['newTag']}" for image in component["images"]}
    assert tag in names, f"{tag} is no image of kuberay/image"
    if args[0] == "build":
        dockerfile = (ROOT / options["--file"]).read_text()
        assert re.search(rf"^FROM .* AS {options['--target']}$", dockerfile, re.M), options[
            "--target"
        ]
