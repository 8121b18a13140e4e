"""The logs of a run's jobs, as files grow, across a requeue, the next stage and its new job."""

import threading
from pathlib import Path

import pytest
from desk import Desk, wait_until
from written_runs import begin_run, experiment, write_finished

from sia.atomic import write_json
from sia.errors import UserError
from sia.operate import logs as logs_module
from sia.operate.logs import Follower, logs_of_driver, logs_of_run
from sia.run.folder import RunFolder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    return begin_run(tmp_path / "runs", "size", experiment())


def submitted(run: RunFolder, number: int, job_id: str, **changed: str) -> None:
    job = {"cluster": "local", "job_id": job_id, "host": "elsewhere", "folder": str(run.jobs)}
    write_json(run.stage(number).job, {**job, **changed})


def log(run: RunFolder, job_id: str, text: str, rank: int = 0, ending: str = "out") -> Path:
    path = run.jobs / f"{job_id}_{rank}_log.{ending}"
    with open(path, "a") as stream:
        stream.write(text)
    return path


def test_both_streams_of_the_latest_job(run: RunFolder) -> None:
    submitted(run, 1, "17")
    submitted(run, 2, "18")
    log(run, "17", "first\n")
    out, err = log(run, "18", "second\n"), log(run, "18", "warning\n", ending="err")
    source = logs_of_run(run, None)
    assert "".join(Follower(source, 0, False).news()) == f"==> {out} <==\nsecond\n==> {err} <==\nwarning\n"
    assert "".join(Follower(source, 0, True).news()) == f"==> {err} <==\nwarning\n"
    assert "first\n" in "".join(Follower(logs_of_run(run, 1), 0, False).news())


def test_only_what_is_new_is_handed_out(run: RunFolder) -> None:
    submitted(run, 1, "17")
    follower = Follower(logs_of_run(run, None), 0, False)
    assert list(follower.news()) == []
    path = log(run, "17", "one\n")
    assert list(follower.news()) == [f"==> {path} <==\n", "one\n"]
    assert list(follower.news()) == []
    log(run, "17", "two\n")
    assert list(follower.news()) == ["two\n"]
    path.write_text("anew\n")
    assert list(follower.news()) == ["anew\n"]


def test_it_follows_into_the_next_stage_until_the_run_is_finished(run: RunFolder, monkeypatch) -> None:
    monkeypatch.setattr(logs_module, "POLL_SECONDS", 0.05)
    monkeypatch.setattr("sia.run.state.is_in_queue", lambda job: True)
    submitted(run, 1, "17")
    log(run, "17", "one\n")
    heard: list[str] = []
    follower = threading.Thread(target=Follower(logs_of_run(run, None), 0, False).follow, args=(heard.append,))
    follower.start()
    wait_until(lambda: "one\n" in heard, 5, "the first stage's log")
    log(run, "17", "requeued\n")
    wait_until(lambda: "requeued\n" in heard, 5, "what a requeued job appends")
    submitted(run, 2, "18")
    log(run, "18", "two\n")
    wait_until(lambda: "two\n" in heard, 5, "the second stage's log")
    log(run, "18", "the end\n")
    write_finished(run, {})
    follower.join(5)
    assert not follower.is_alive() and heard[-1] == "the end\n"


def test_a_wrong_rank_or_stage_names_those_there_are(run: RunFolder) -> None:
    with pytest.raises(UserError, match="no job yet; it was never submitted"):
        logs_of_run(run, None)
    submitted(run, 1, "17")
    for rank in (0, 1, 10):
        log(run, "17", "x", rank)
    with pytest.raises(UserError, match=r"--rank 2: job 17 has ranks 0, 1, 10"):
        list(Follower(logs_of_run(run, None), 2, False).news())
    with pytest.raises(UserError, match="stage 2 has no job; stages 1 were submitted"):
        logs_of_run(run, 2)
    submitted(run, 1, "debug", cluster="debug")
    with pytest.raises(UserError, match="in that terminal"):
        logs_of_run(run, None)


def test_the_driver_of_a_study(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no detached driver"):
        logs_of_driver("size")
    folder = run.path.parent / "driver"
    folder.mkdir()
    record = {"cluster": "slurm", "job_id": "9", "host": "login", "folder": str(folder)}
    write_json(run.path.parent / "driver.json", record)
    (folder / "9_0_log.out").write_text("driving\n")
    desk = Desk(tmp_path)
    assert "driving\n" in desk.call("logs.py", "size").stdout
    told = desk.call("logs.py", run.name)
    assert told.returncode == 1 and "never submitted" in told.stderr


def test_a_job_without_files_says_where_they_will_be(run: RunFolder, tmp_path: Path) -> None:
    submitted(run, 1, "17")
    done = Desk(tmp_path).call("logs.py", run.name)
    assert (
        done.returncode == 0
        and "job 17 has written nothing to" in done.stderr
        and "cancelled before it began" in done.stderr
        and not done.stdout
    )


@pytest.mark.parametrize(("flags", "rank"), [((), 1), (("--stage", "1"), 1), (("--rank", "0"), 0)])
def test_the_rank_that_failed_is_shown(run: RunFolder, tmp_path: Path, flags: tuple[str, ...], rank: int) -> None:
    submitted(run, 1, "17")
    write_json(run.stage(1).failed, {"error": "loss is nan", "rank": 1, "job_id": "17", "time": 1.0})
    paths = [log(run, "17", f"rank {number} says\n", rank=number) for number in (0, 1)]
    done = Desk(tmp_path).call("logs.py", run.name, *flags)
    assert done.stdout == f"==> {paths[rank]} <==\nrank {rank} says\n"
