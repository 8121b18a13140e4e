"""YAML that was written to be read for ever."""

import time
from itertools import pairwise

import pytest

from sia.config import load_experiment
from sia.errors import UsageError
from sia.run.folder import RunFolder


def repeated(names: str, form: str) -> str:
    """YAML in which each name stands for nine of the one before."""
    lines = (f"{new}: &{new} {form.format(', '.join([f'*{old}'] * 9))}" for old, new in pairwise(names))
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        f"model: {'[' * 1200}{']' * 1200}",
        f"model: {'{a: ' * 3000}1{'}' * 3000}",
        "\n".join(f"{' ' * level}a:" for level in range(3000)),
        "a: &a [x, x, x, x, x, x, x, x, x]\n" + repeated("abcdefghi", "[{}]"),
        "a: &a {x: 1}\n" + repeated("abcdefgh", "{{<<: [{}]}}"),
        "model: &a {gru_layers: *a}",
    ],
    ids=["lists", "mappings", "indented", "aliases", "merges", "circle"],
)
def test_what_would_take_for_ever_is_refused_in_a_line(tmp_path, text):
    file = tmp_path / "config.yaml"
    file.write_text(text)
    began = time.monotonic()
    for read in (load_experiment, lambda path: RunFolder(path.parent).experiment()):
        with pytest.raises(UsageError, match=r"config\.yaml: ") as caught:
            read(file)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert time.monotonic() - began < 20
