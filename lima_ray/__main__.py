"""LIMA on Ray: the commands, a line each.

lima_ray COMMAND --help
lima_ray --version
"""

import sys

from lima_ray import __version__
from lima_ray.config.command_line import COMMANDS, docstring, make_importable, run_command
from lima_ray.config.errors import UserError, exit_on_user_error
from lima_ray.config.flags import did_you_mean


def main() -> None:
    name, *args = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        run_command(name, args)
        return
    with exit_on_user_error():
        if name == "--version":
            print(f"lima_ray {__version__}")
        elif name in ("--help", "-h", "help"):
            print(list_commands())
        else:
            names = list(COMMANDS)
            raise UserError(
                f"no command {name!r}; there are {', '.join(names)}{did_you_mean(name, names)}"
            )


def list_commands() -> str:
    """Return every command with the first line of what it says of itself."""
    lines = ["usage: lima_ray COMMAND [ARGUMENTS], or python -m MODULE [ARGUMENTS]", ""]
    for name, command in COMMANDS.items():
        try:
            make_importable(command.module)
        except UserError:
            continue  # installed without its checkout
        lines.append(f"{name:10} {docstring(command.module).splitlines()[0]}")
        lines.append(f"{'':10} python -m {command.module}")
    lines += ["", "lima_ray COMMAND --help says more; lima_ray --version tells the version."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
