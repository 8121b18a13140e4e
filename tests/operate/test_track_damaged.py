"""A damaged run is its own fault: named with its file, told in a line, and no other run is left out for it."""

import socket

import pytest
from desk import Desk
from written_runs import begin_run, epoch_row, experiment, finish_run

from sia.atomic import read_json
from sia.operate.track import Tracked, track
from sia.run.folder import RunFolder
from sia.run.metrics import append_row
from sia.trackers.mlflow.mirror import mirrored_at, note_file

STUDY = "size"


@pytest.fixture
def runs(tmp_path) -> list[RunFolder]:
    """Three finished runs, in the order in which they are mirrored."""
    made = [finish_run(tmp_path / "runs", STUDY, experiment(**{"training.seed": seed})) for seed in range(3)]
    return sorted(made, key=lambda run: run.name)


def put(run: RunFolder, file: str, content: str | None) -> None:
    """The content in place of the file's, or a folder of its name, which is an error of the system to its readers."""
    path = run.path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.unlink(missing_ok=True)
        path.mkdir()
    else:
        path.write_text(content)


FINISHED = [
    ("metrics.jsonl", None),
    *(("finished.json", text) for text in (None, "{", "[1]", '"yes"')),
    *(("corpus.json", text) for text in (None, "{", "[1]")),
    *(("provenance.jsonl", text) for text in (None, "nonsense\n")),
    *(("stages/2/plan.json", text) for text in (None, "{", "[1]")),
    *(("stages/2/done.json", text) for text in (None, "{", "[1]")),
    *(("stages/3/plan.json", text) for text in ("{}", "[1]", '{"stage": {"epochs": "many"}}')),
    *(("run_id.json", text) for text in (None, "{", "[1]", "{}", '{"id": 7}')),
    *(("config.yaml", text) for text in ("model: [\n", "- 1\n")),
]
BEGUN = [
    *(("stages/1/job.json", text) for text in ("{}", "[1]", "{")),
    *(("stages/1/failed.json", text) for text in ("[1]", "{", None)),
    *(("stopped.json", text) for text in ("[1]", "{", "{}", None)),
]


def test_damaged_runs_are_named_with_their_files_and_hold_up_no_other(uri, tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    broken = {}
    for seed, (file, content) in enumerate([*FINISHED, *BEGUN]):
        make = finish_run if seed < len(FINISHED) else begin_run
        run = make(tmp_path / "runs", STUDY, experiment(**{"training.seed": seed}))
        put(run, file, content)
        broken[run.path / file] = content
    whole = [finish_run(tmp_path / "runs", STUDY, experiment(**{"training.seed": 1000 + seed})) for seed in range(5)]
    tracked = track(STUDY, uri)
    told = {file: [line for line in tracked.troubles if str(file) in line] for file in broken}
    assert {file: lines for file, lines in told.items() if len(lines) != 1} == {}
    assert len(tracked.troubles) == len(broken)
    assert not [line for line in tracked.troubles if "\n" in line or "MLflow at" in line]
    assert all(mirrored_at(run, uri)["rows"] == 6 for run in whole)


@pytest.mark.parametrize("content", ["{}", "[1]", "{", '{"tracking_uri": 7, "rows": "many"}'])
def test_a_damaged_note_of_the_mirror_is_written_anew(uri, runs, content):
    note_file(runs[0]).write_text(content)
    assert mirrored_at(runs[0], uri) is None
    assert track(STUDY, uri) == Tracked(STUDY, 3, 18, 0)
    assert mirrored_at(runs[0], uri)["rows"] == 6


def test_what_is_no_float_is_left_out_alone(uri, tmp_path):
    run = begin_run(tmp_path / "runs", STUDY, experiment(**{"training.seed": 9}))
    append_row(run.metrics, {**epoch_row(1, 1, 1, 0.1), "train/loss": 10**400})
    assert track(STUDY, uri).troubles == ()


def test_a_driver_that_cannot_be_told_leaves_runs_open(uri, runs, tmp_path):
    append_row(begin_run(tmp_path / "runs", STUDY, experiment(**{"training.seed": 7})).metrics, epoch_row(1, 1, 1, 0.1))
    (tmp_path / "runs" / STUDY / "driver.json").write_text("[1]")
    tracked = track(STUDY, uri)
    assert tracked.num_runs == 4 and tracked.num_closed == 0
    assert len(tracked.troubles) == 1 and "driver" in tracked.troubles[0]


def test_the_command_prints_nothing_that_it_did_not_do(tmp_path, runs, uri, monkeypatch):
    """An earlier mirroring is no proof of this one."""
    assert track(STUDY, uri).num_rows == 18 and read_json(note_file(runs[0]))["rows"] == 6
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = Desk(tmp_path).run("track.py", "--uri", address, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["size: 0 of 3 runs, 0 rows, 0 closed"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: size: MLflow at {address}")


def test_the_command_goes_on_to_the_next_study_and_exits_with_1(tmp_path, runs, uri):
    put(runs[0], "finished.json", None)
    finish_run(tmp_path / "runs", "width", experiment())
    done = Desk(tmp_path).run("track.py", "--uri", uri)
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["size: 2 of 3 runs, 12 rows, 0 closed", "width: 1 runs, 6 rows, 0 closed"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: size: {runs[0].name}: {runs[0].finished}: ")
