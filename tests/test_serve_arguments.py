"""The arguments of the application, and what they refuse."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.serve import Application
from ray.serve.schema import ServeDeploySchema

from lima_ray.config.errors import UserError
from serve.app import build, refuse_open_port
from serve.arguments import Args

REPOSITORY = Path(__file__).parents[1]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"modle": "x"}, "modle"),
    ({"model": "no/such/dir"}, "no model at no/such/dir"),
    ({"model": "a=no/such/dir"}, "no model at no/such/dir"),
    ({"model": "a="}, "NAME=DIR"),
    ({"model": {}}, "NAME=DIR"),
    ({"model": "tests"}, r"no config\.json"),
    ({"slots": 0}, "greater than or equal to 1"),
    ({"weights": "int4"}, "'auto', 'fp32', 'bf16' or 'int8'"),
    ({"weights": "int8", "gpus": 1}, "weights is int8 on 1 GPUs"),
    ({"weights": "bf16", "engine": "vllm"}, "weights is bf16 with engine=vllm"),
    ({"queue": -1}, "greater than or equal to 0"),
    ({"keep_loaded": 0}, "greater than or equal to 1"),
    ({"stuck_after_s": 0}, "greater than 0"),
    ({"replicas": 0}, "greater than or equal to 1"),
    ({"replicas": 3, "max_replicas": 2}, "max_replicas 2 is below replicas 3"),
    ({"body_bytes": 10}, "greater than or equal to 1024"),
    ({"page": "maybe"}, "boolean"),
    ({"api_keys_file": "no/keys.txt"}, "there is no file"),
    ({"login_file": "no/logins.txt"}, "there is no file"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=str)
def test_wrong_arguments_are_refused(brief_dir: Path, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Args.model_validate({"model": str(brief_dir)} | fields)


def test_a_password_is_in_no_message(brief_dir: Path) -> None:
    fields = {"model": str(brief_dir), "database": "postgresql://anna:sesame@db/lima"}
    for wrong in ({"replicas": 3, "max_replicas": 2}, {"databse": "x"}, {"slots": 0}):
        with pytest.raises(ValidationError) as error:
            Args.model_validate(fields | wrong)
        assert "sesame" not in str(error.value)


def test_arguments_come_as_text(brief_dir: Path, tmp_path: Path) -> None:
    """As `serve run serve.app:build NAME=VALUE` gives them."""
    args = Args.model_validate({"model": str(brief_dir), "slots": "7", "page": "false"})
    assert args.slots == 7 and args.page is False
    assert args.database.startswith("sqlite:////")


def test_the_config_file_builds_its_app(brief_dir: Path) -> None:
    config = yaml.safe_load((REPOSITORY / "serve" / "config.yaml").read_text())
    schema = ServeDeploySchema.model_validate(config)
    assert schema.http_options.host == "127.0.0.1"
    (app,) = schema.applications
    assert app.import_path == "serve.app:build"
    # Its model is a run's, which a fresh clone has yet to train.
    built = build(Args.model_validate((app.args or {}) | {"model": str(brief_dir)}))
    assert isinstance(built, Application)


def test_an_open_port_needs_keys_and_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIMA_SERVE_OPEN", raising=False)
    for host in ("0.0.0.0", "::", "", "192.0.2.7"):
        with pytest.raises(UserError, match=r"open on .* and there is no login.*LIMA_SERVE_OPEN"):
            refuse_open_port(host, "login for the page", "login_file")
    for host in ("127.0.0.1", "::1", "localhost", None):
        refuse_open_port(host, "login for the page", "login_file")
    monkeypatch.setenv("LIMA_SERVE_OPEN", "1")
    refuse_open_port("0.0.0.0", "key", "api_keys_file")
