"""Flags of every command: one dialect of switches, and unknown ones refused with the nearest.

A switch is turned on by its name alone and off by `no_` before its name (`--dry_run`,
`--model.no_liger`); `--name True` and `--name False` do the same. Dashes count as underscores.
"""

import difflib
import inspect
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from functools import partial
from itertools import zip_longest
from typing import Any, get_args, get_type_hints

import tyro
from pydantic import BaseModel, ValidationError

from lima_ray.config.differences import REPLACED
from lima_ray.config.errors import UserError, describe_invalid, dotted

Flags = dict[str, bool]
"""Flags without their dashes, and whether each is a switch."""
SWITCHES = "A switch is turned on by its name alone, and off by no_ before it or by False after it."
SWITCH_VALUES = {"true": "True", "false": "False", "auto": "auto"}
ALSO_CALLED = {
    "lr": "learning_rate",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "batch_size": "batch_examples",
    "train_batch_size": "batch_examples",
    "wd": "weight_decay",
    "max_grad_norm": "clip_norm",
    "grad_clip": "clip_norm",
    "max_length": "max_tokens",
    "max_seq_length": "max_tokens",
    "sampling.max_length": "context",
    "dropout": "residual_dropout",
    "model_name_or_path": "base",
    "dataset": "train",
    "eval": "dev",
    "validation": "dev",
    "gradient_checkpointing": "activation_checkpointing",
    "lora_r": "lora_rank",
    "num_workers": "workers",
    "gpus": "workers",
    "dtype": "precision",
    "bf16": "precision",
    "output_dir": "runs_dir",
    "report_to": "tracker",
}
"""What others call a field of ours, by its last part or its whole name."""


def parse(
    what: Any,
    prog: str,
    doc: str | None,
    argv: Sequence[str] | None = None,
    default: Any = tyro.MISSING_NONPROP,
) -> Any:
    """Read flags into a section, or call a function with them; wrong values are told, with exit 2.

    Args:
        what: a pydantic model, or a function.
        default: a section that holds what stands where a flag is not given.

    Raises:
        UserError: an unknown flag, with the nearest right one, or a value that its field refuses.
        ValidationError: flags that do not agree with each other.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    known = dict(find_flags(what))
    read = partial(
        tyro.cli,
        what,
        default=default,
        args=normalise_switches(args, known),
        prog=prog,
        description=f"{(doc or '').strip()}\n\n{SWITCHES}" if any(known.values()) else doc,
        config=(tyro.conf.FlagConversionOff,),
        use_underscores=True,
    )
    if not (inspect.isclass(what) and issubclass(what, BaseModel)):
        return read()
    try:
        with redirect_stderr(io.StringIO()):
            return read()
    except SystemExit as exit:
        if exit.code:
            refuse_value(exit)
    return read()  # which ends as before, and is heard


def refuse_value(exit: SystemExit) -> None:
    """Say which flag's value its field refuses, where that is why tyro ended; else do nothing.

    Tyro shows pydantic's own message, with the name of our class and without that of the flag.

    Raises:
        UserError: the flag and the value.
    """
    error, section = exit.__context__, ""
    while error is not None and not isinstance(error, ValidationError):
        found = getattr(error, "arg", "")
        section = found if isinstance(found, str) else ""
        error = error.__context__
    if error is None:
        return
    prefix = section.removeprefix("recipe").lstrip(".")

    def flag_of(keys: Sequence[int | str]) -> str:
        return f"--{dotted([*([prefix] if prefix else []), *keys])}" if keys else ""

    said = describe_invalid(error, "command line", lambda name, _: name, flag_of)
    raise UserError(said) from None


def find_flags(what: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    fields: dict[str, tuple[Any, list[Any]]] = {}
    if inspect.isclass(what) and issubclass(what, BaseModel):
        for name, field in what.model_fields.items():
            fields[name] = field.annotation, list(field.metadata)
    else:
        for name, hint in get_type_hints(what, include_extras=True).items():
            fields[name] = (
                getattr(hint, "__origin__", hint),
                list(getattr(hint, "__metadata__", ())),
            )
        fields.pop("return", None)
    for name, (kind, metadata) in fields.items():
        if tyro.conf.Positional in metadata:
            continue
        given = [n for m in metadata if (n := getattr(m, "name", None)) is not None]
        flag = given[0] if given else name
        if inspect.isclass(kind) and issubclass(kind, BaseModel):
            yield from find_flags(kind, f"{prefix}{flag}." if flag else prefix)
        else:
            yield f"{prefix}{flag}", kind is bool or bool in get_args(kind)


def normalise_switches(args: list[str], known: Flags) -> list[str]:
    """Return arguments with every switch followed by its value; refuse unknown flags."""
    done: list[str] = []
    for arg, following in zip_longest(args, args[1:], fillvalue=""):
        if not arg.startswith("--") or arg == "--":
            truth = bool(done) and known.get(done[-1].removeprefix("--"))
            done.append(SWITCH_VALUES.get(arg.lower(), arg) if truth else arg)
            continue
        name, equals, value = arg.removeprefix("--").replace("-", "_").partition("=")
        value = arg.partition("=")[2]  # as it was given
        section, dot, last = name.rpartition(".")
        positive = f"{section}{dot}{last.removeprefix('no_')}"
        if known.get(name):
            has_value = equals or following.lower() in SWITCH_VALUES
            done += [
                f"--{name}",
                *(
                    [SWITCH_VALUES.get(value.lower(), value)]
                    if equals
                    else []
                    if has_value
                    else ["True"]
                ),
            ]
        elif last.startswith("no_") and known.get(positive) and not equals:
            done += [f"--{positive}", "False"]
        elif name in known or name == "help":
            done.append(f"--{name}{equals}{value}")
        else:
            raise UserError(f"there is no flag --{name}{did_you_mean(name, list(known), '--')}")
    return done


def did_you_mean(name: str, names: list[str], dashes: str = "") -> str:
    """Return `; did you mean X?` with dashes before X, or what to write for an earlier name."""
    if name in REPLACED:
        return f"; {REPLACED[name]}"
    last = name.rsplit(".", 1)[-1]
    meant = ALSO_CALLED.get(name, ALSO_CALLED.get(last, last))
    same_field = [n for n in names if n.rsplit(".", 1)[-1] == meant]
    found = same_field or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    section = name.rpartition(".")[0]
    found = [n for n in same_field if n.rpartition(".")[0] == section] or found
    return f"; did you mean {dashes}{found[0]}?" if found else ""
