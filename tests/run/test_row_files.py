import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sia.errors import UserError
from sia.run.row_files import append_row, read_rows, read_sound_rows, write_rows

ROWS = [{"epoch": 1, "train/loss": 0.5}, {"epoch": 2, "train/loss": 0.25}, {"epoch": 3, "train/loss": 0.125}]


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    for row in ROWS:
        append_row(path, row)
    return path


def test_rows_come_back(log):
    assert read_rows(log) == ROWS
    assert log.read_bytes().count(b"\n") == 3


def test_a_row_that_fits_in_part_alone_is_told_and_leaves_no_row(log):
    """As on a full disk: the system takes what fits, and says so by the count alone."""
    room = log.stat().st_size + 10
    code = "import resource, signal, sys; from pathlib import Path; from sia.run.row_files import append_row\n"
    code += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))\n"
    code += "append_row(Path(sys.argv[1]), {'epoch': 4, 'train/loss': 0.0625})"
    done = subprocess.run([sys.executable, "-c", code, str(log)], capture_output=True, text=True)
    assert done.returncode == 1 and "No space left on device" in done.stderr
    assert read_rows(log) == ROWS
    append_row(log, {"epoch": 4})
    assert read_rows(log) == [*ROWS, {"epoch": 4}]


def test_missing_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "metrics.jsonl") == []


def test_torn_last_line_is_left_out_until_it_is_whole(log):
    append_row(log, {"epoch": 4})
    line = log.read_bytes().splitlines(keepends=True)[-1]
    log.write_bytes(log.read_bytes()[: -len(line)] + line[:10])
    assert read_rows(log) == ROWS
    with open(log, "ab") as stream:
        stream.write(line[10:])
    assert read_rows(log)[-1] == {"epoch": 4}


def test_append_repairs_a_torn_line(log):
    with open(log, "a") as stream:
        stream.write('{"epoch": 4, "tra')
    append_row(log, {"epoch": 4})
    assert read_rows(log) == [*ROWS, {"epoch": 4}]


def test_broken_line_names_file_and_line(log):
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(lines[0] + '{"epoch": 2, "tr\n' + lines[2])
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 "):
        read_rows(log)


@settings(max_examples=200)
@given(place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_one_bit_is_noticed(place: int, bit: int) -> None:
    """Or it is the last line's end, so that this line is still to come."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "metrics.jsonl"
        write_rows(log, ROWS)
        content = bytearray(log.read_bytes())
        content[place % len(content)] ^= 1 << bit
        log.write_bytes(content)
        found = read_sound_rows(log)
    assert found.rows == ROWS[: len(found.rows)]
    assert found.fault or len(found.rows) == 2


@pytest.mark.parametrize("change", ["lost", "doubled", "swapped"])
def test_a_line_that_is_lost_doubled_or_swapped_is_noticed(log, change):
    first, second, third = log.read_bytes().splitlines(keepends=True)
    lines = {"lost": (first, third), "doubled": (first, second, second, third), "swapped": (second, first, third)}
    log.write_bytes(b"".join(lines[change]))
    with pytest.raises(UserError, match="is not as it was written, or one is missing"):
        read_rows(log)


def test_rows_can_be_written_anew(log):
    write_rows(log, ROWS[:2])
    append_row(log, ROWS[2])
    assert read_rows(log) == ROWS


def test_a_line_that_is_no_object_is_broken(log):
    log.write_text("3\n")
    with pytest.raises(UserError, match="line 1"):
        read_rows(log)


def test_not_a_number_survives(tmp_path):
    append_row(tmp_path / "m.jsonl", {"train/loss": float("nan"), "train/gradient": float("inf")})
    row = read_rows(tmp_path / "m.jsonl")[0]
    assert row["train/loss"] != row["train/loss"] and row["train/gradient"] == float("inf")
