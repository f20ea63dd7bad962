"""The keys of the API."""

from pathlib import Path

import pytest

from lima_ray.config.errors import UserError
from serve.api.authentication import read_keys


def test_a_key_file_has_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    file.write_text("# two of them\n sk-one \n\n  # the other\nsk-two\n")
    assert read_keys(str(file)) == {"sk-one", "sk-two"}
    file.write_text("\n# sk-old\n")
    with pytest.raises(UserError, match="has no key"):
        read_keys(str(file))
    assert read_keys(None) == frozenset()
