"""Make a line of the login file: a name, and the hash of a password that is asked for.

    python -m serve.login anna >> logins.txt

Where the input is no terminal, its first line is the password.
"""

import sys
from getpass import getpass

import tyro

from lima_ray.config import flags
from lima_ray.config.errors import UserError
from lima_ray.web.passwords import login_line


def login(name: tyro.conf.Positional[str]) -> None:
    """Print a line of the login file.

    Args:
        name: of the login.
    """
    if sys.stdin.isatty():
        password = getpass(f"password of {name}: ")
        if getpass("again: ") != password:
            raise UserError("the two passwords differ; nothing is made")
    else:
        password = sys.stdin.readline().rstrip("\n")
    print(login_line(name, password))


def main(argv: list[str] | None = None) -> None:
    flags.parse(login, "python -m serve.login", __doc__, argv)


if __name__ == "__main__":
    from lima_ray.config.command_line import run_command

    run_command("login")
