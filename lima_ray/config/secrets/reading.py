"""Keys and tokens of this process: variables, or files that variables name."""

import os
from pathlib import Path

from lima_ray.config.errors import UserError

KEY_ENV = "OPENAI_API_KEY"
SECRETS = (
    KEY_ENV,
    "HF_TOKEN",
    "WANDB_API_KEY",
    "MLFLOW_TRACKING_URI",  # a user and a password may stand in it
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
"""Variables of the driver that workers need and nobody else may see."""
FILE_SUFFIX = "_FILE"
"""Of the variable that names a file with the secret in it, such as OPENAI_API_KEY_FILE."""


def read_secret(variable: str) -> str:
    """Return a variable's value, else what the file that VARIABLE_FILE names holds, else ''.

    A file that is not there holds no secret: a cluster's nodes name one for whoever puts it there.

    Raises:
        UserError: the file cannot be read.
    """
    file = os.environ.get(variable + FILE_SUFFIX)
    if variable in os.environ or not file:
        return os.environ.get(variable, "").strip()
    try:
        return Path(file).read_text().strip()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UserError(
            f"{variable + FILE_SUFFIX} names {file}, which cannot be read ({reason}); write the "
            "key into it, or unset the variable"
        ) from error


def describe_source(variable: str) -> str:
    """Say where `read_secret` looks, and what is there, for messages."""
    file = os.environ.get(variable + FILE_SUFFIX)
    if variable in os.environ:
        return f"{variable}, as it is set"
    if not file:
        return f"{variable}, which is not set, or the file that {variable + FILE_SUFFIX} names"
    there = "" if Path(file).exists() else ", which is not there"
    return f"{file} ({variable + FILE_SUFFIX}){there}"
