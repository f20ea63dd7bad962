"""Code that a model brings along is never run: wherever one is loaded, that is said explicitly."""

import ast
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from lima_ray.config.errors import UserError
from lima_ray.data.tokenizer import load_tokenizer
from lima_ray.records.lineage import hash_base
from serve.engines.settings import EngineSettings

ROOT = Path(__file__).parents[1]
FILES = [
    file
    for part in ("lima_ray", "serve", "tune", "benchmarks")
    for file in (ROOT / part).rglob("*.py")
]
LOADERS = ("from_pretrained", "from_config")


def loads(file: Path) -> list[tuple[int, bool]]:
    """Lines of a file that load something of `transformers`, and whether each refuses code."""
    tree = ast.parse(file.read_text())
    found = []
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        named = [call.func, *call.args]
        if any(isinstance(n, ast.Attribute) and n.attr in LOADERS for n in named):
            told = {k.arg: ast.unparse(k.value) for k in call.keywords}
            found.append((call.lineno, told.get("trust_remote_code") == "False"))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_load_refuses_code(file: Path) -> None:
    assert [line for line, refuses in loads(file) if not refuses] == []


def test_loads_are_found() -> None:
    assert sum(len(loads(file)) for file in FILES) > 10


def test_a_tokenizer_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    auto = {"auto_map": {"AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Evil"} | auto))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil"} | auto))
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(UserError, match="brings code of its own along, which is not run here"):
        load_tokenizer(str(tmp_path))
    assert hash_base(str(tmp_path))
    assert not ran.exists()


@pytest.mark.parametrize("flag", ["--trust-remote-code", "--dtype half --trust_remote_code=true"])
def test_vllm_is_not_told_to_run_code_either(flag: str) -> None:
    with pytest.raises(ValidationError, match="runs code that comes with a model"):
        EngineSettings(engine="vllm", vllm_args=flag)
    assert EngineSettings(vllm_args="--dtype float32").vllm_args == "--dtype float32"
