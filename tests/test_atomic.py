"""Files are whole or absent, whoever is killed while they are written."""

import errno
import json
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sia.atomic import read_json, write_atomically, write_json, write_json_lines, write_text
from sia.errors import UserError


def test_what_was_written_is_read_again_and_parents_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "value.json"
    assert read_json(path) is None
    write_json(path, {"name": "ü", "numbers": [1, 2.5]})
    assert read_json(path) == {"name": "ü", "numbers": [1, 2.5]}
    assert path.read_text().endswith("\n")


@settings(max_examples=100, deadline=None)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_one_bit_of_a_record_changes_nothing_or_is_noticed(place, bit):
    values = {"name": "ü", "epoch": 12, "share": 0.5, "none": None, "rows": [{"a": 1}, []]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "value.json"
        write_json(path, values)
        content = bytearray(path.read_bytes())
        content[place % len(content)] ^= 1 << bit
        path.write_bytes(content)
        try:
            assert read_json(path) == values  # a blank that became another
        except UserError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"by": "cancel"}', "", "{" * 3000, '{"a": ' * 3000])
def test_what_this_program_did_not_write_is_damaged(tmp_path, text):
    (tmp_path / "value.json").write_text(text)
    with pytest.raises(UserError, match=r"value\.json: damaged"):
        read_json(tmp_path / "value.json")


def test_json_lines_are_one_a_row_and_replace_the_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    for rows in ([{"epoch": 1}, {"epoch": 2}], [{"epoch": 3}], []):
        write_json_lines(path, rows)
        assert [json.loads(line) for line in path.read_text().splitlines()] == rows


def test_a_checkpoint_that_finds_no_room_names_its_file_and_leaves_the_old_one(tmp_path):
    """A limit on the size of files stands for a full disk, of which torch tells by an error of its own."""
    path = tmp_path / "last.pt"
    write_text(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OSError) as caught:
            write_atomically(path, lambda stream: torch.save(torch.zeros(100_000), stream))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


KILLED = """
import os, signal, sys
from pathlib import Path
from sia.atomic import write_atomically

def die(stream):
    stream.write(b"half of the n")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(Path(sys.argv[1]), die)
"""


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path):
    path = tmp_path / "state"
    write_text(path, "old")
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode == -signal.SIGKILL
    left = [other.read_text() for other in tmp_path.iterdir() if other != path]
    assert left == ["half of the n"], "it was killed while it wrote"
    assert path.read_text() == "old"


def test_of_many_writers_a_reader_never_sees_a_part(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"letters": ["a"] * 5000})
    seen = []

    def write(name: str) -> None:
        for _ in range(8):
            write_json(path, {"letters": [name] * 5000})

    writers = [threading.Thread(target=write, args=(name,)) for name in "abcdefgh"]
    for writer in writers:
        writer.start()
    while not seen or any(writer.is_alive() for writer in writers):
        seen.append(read_json(path)["letters"])
    assert all(len(letters) == 5000 and len(set(letters)) == 1 for letters in seen)
    assert list(tmp_path.iterdir()) == [path]
