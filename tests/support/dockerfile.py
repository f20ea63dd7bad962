"""Check a Dockerfile for what makes an image safe to run and the same at each build."""

import re
from dataclasses import dataclass, field
from pathlib import Path

SECRET = re.compile(r"\w*(TOKEN|SECRET|PASSWORD|API_?KEY|CREDENTIAL)\w*(=| |$)")
PINNED = re.compile(r"@sha256:[0-9a-f]{64}$|:\d+\.\d+\.\d+[\w.-]*$")


@dataclass
class Stage:
    """A stage of a build: its base, and what is in force at its end."""

    base: str
    user: str = "root"
    instructions: list[tuple[str, str]] = field(default_factory=list)


def stages(text: str) -> dict[str, Stage]:
    """Return the stages by name, the user inherited from a stage they build on."""
    found: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    stage: Stage | None = None
    joined = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.M))
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        word = word.upper()
        if word == "FROM":
            base, _, name = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], rest).partition(
                " AS "
            )
            stage = Stage(base, found[base].user if base in found else "root")
            found[name or str(len(found))] = stage
        elif word == "ARG" and stage is None:
            name, _, default = rest.partition("=")
            arguments[name] = default
        elif word and stage:
            stage.instructions.append((word, rest))
            if word == "USER":
                stage.user = rest
    return found


def problems(text: str, folder: Path) -> list[str]:
    """Return what is wrong with a Dockerfile whose context is `folder`."""
    found, told = stages(text), []
    bases = {stage.base for stage in found.values()}
    for name, stage in found.items():
        if stage.base not in found and not PINNED.search(stage.base):
            told.append(f"{name}: {stage.base} is no exact version")
        if name not in bases and re.match(r"(root|0)(:|$)", stage.user):
            told.append(f"{name} runs as root")
        for word, rest in stage.instructions:
            if word in ("ENV", "ARG") and SECRET.search(rest):
                told.append(f"{name}: a secret in {word}")
            if word == "ADD" or (word == "RUN" and re.search(r"\b(curl|wget) \S*http", rest)):
                told.append(f"{name}: {word} fetches what nothing checks")
            if word == "COPY" and "--from" not in rest:
                missing = [one for one in rest.split()[:-1] if not (folder / one).exists()]
                told.extend(f"{name}: no {one} to copy" for one in missing)
            if word == "COPY" and re.search(r"(^| )\.{1,2}/? ", rest):
                told.append(f"{name}: COPY takes all there is")
            if (
                word == "RUN"
                and "pip install" in rest
                and "--constraint constraints.txt" not in rest
            ):
                told.append(f"{name}: pip without constraints.txt")
    return told
