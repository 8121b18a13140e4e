"""Files are whole or absent, whoever is killed while they are written."""

import json
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia.atomic import read_json, write_atomically, write_json, write_json_lines, write_text
from sia.errors import UserError


def test_what_was_written_is_read_again_and_parents_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "value.json"
    write_json(path, {"name": "ü", "numbers": [1, 2.5]})
    assert read_json(path) == {"name": "ü", "numbers": [1, 2.5]}
    assert path.read_text().endswith("\n")


def test_a_missing_file_is_none(tmp_path):
    assert read_json(tmp_path / "none.json") is None
    assert read_json(tmp_path / "no folder" / "none.json") is None


@settings(max_examples=200)
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
    write_json_lines(path, [{"epoch": 1}, {"epoch": 2}])
    write_json_lines(path, [{"epoch": 3}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"epoch": 3}]
    write_json_lines(path, [])
    assert path.read_text() == ""


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "state"
    write_text(path, "old")

    def fail(stream):
        stream.write(b"half of the n")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


FILL = """
import resource, signal, sys
from pathlib import Path
import torch
from sia.atomic import write_atomically

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_atomically(Path(sys.argv[1]), lambda stream: torch.save(torch.zeros(100_000), stream))
except OSError as error:
    print(error.filename, error.strerror)
"""


def test_a_checkpoint_that_finds_no_room_names_its_file(tmp_path):
    """A limit on the size of files stands for a full disk, of which torch tells by an error of its own."""
    path = tmp_path / "last.pt"
    said = subprocess.run([sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, check=True).stdout
    assert said == f"{path} File too large\n"
    assert list(tmp_path.iterdir()) == []


def test_a_writer_that_is_killed_leaves_the_old_file(tmp_path):
    path = tmp_path / "state"
    write_text(path, "old")
    code = """
import os, signal, sys
from pathlib import Path
from sia.atomic import write_atomically

def die(stream):
    stream.write(b"half of the n")
    stream.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_atomically(Path(sys.argv[1]), die)
"""
    killed = subprocess.run([sys.executable, "-c", code, str(path)])
    assert killed.returncode == -signal.SIGKILL
    left = [other.read_text() for other in tmp_path.iterdir() if other != path]
    assert left == ["half of the n"], "it was killed while it wrote"
    assert path.read_text() == "old"


def test_a_reader_never_sees_a_part(tmp_path):
    path = tmp_path / "value.json"
    write_json(path, {"letters": ["a"] * 5000})
    over = threading.Event()

    def write() -> None:
        for number in range(60):
            write_json(path, {"letters": ["ab"[number % 2]] * 5000})
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not over.is_set():
        value = read_json(path)["letters"]
        assert len(value) == 5000 and len(set(value)) == 1
        reads += 1
    writer.join()
    assert reads > 10


def test_two_writers_of_one_file_both_finish_whole(tmp_path):
    path = tmp_path / "value.json"
    writers = [threading.Thread(target=write_json, args=(path, {"letters": [name] * 3000})) for name in "abcdefgh"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    letters = read_json(path)["letters"]
    assert len(set(letters)) == 1 and len(letters) == 3000
    assert list(tmp_path.iterdir()) == [path]
