"""One holder at a time, known to be alive by its process or its heartbeat; real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from desk import wait_until

from sia.run import lock as lock_module
from sia.run.lock import STALE_SECONDS, HeartbeatLock, LockHeld, holder_of, is_alive

HOLD = """
import sys, time
from pathlib import Path
from sia.run.lock import HeartbeatLock, LockHeld

path, job_id, starts_at = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
time.sleep(max(0, starts_at - time.time()))
try:
    HeartbeatLock(path, job_id=job_id).acquire()
except LockHeld:
    print("refused", flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path, job_id: str = "", starts_at: float = 0.0) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", HOLD, str(path), job_id, str(starts_at)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: "subprocess.Popen[str]") -> str:
    return process.stdout.readline().strip()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "writer.lock"


@pytest.fixture
def other(path):
    """A process that holds the lock."""
    process = holder(path, job_id="17")
    assert said(process) == "held"
    yield process
    process.kill()
    process.communicate()


def of_another_host(path: Path, age: float, **who) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "theirs", **who}))
    then = time.time() - age
    os.utime(path, (then, then))


def answers_of_five_at_once(path: Path) -> list[str]:
    starts_at = time.time() + 2.0
    processes = [holder(path, starts_at=starts_at) for _ in range(5)]
    answers = sorted(said(process) for process in processes)
    for process in processes:
        process.kill()
        process.communicate()
    return answers


def test_of_several_processes_at_once_one_holds(path):
    assert answers_of_five_at_once(path) == ["held"] + ["refused"] * 4


def test_of_several_processes_that_find_a_dead_holder_one_takes_over(path):
    for _ in range(3):
        of_another_host(path, age=STALE_SECONDS + 1)
        assert answers_of_five_at_once(path) == ["held"] + ["refused"] * 4


def test_a_living_holder_is_named_and_keeps_the_lock(path, other):
    before = path.read_text()
    with pytest.raises(LockHeld, match=f"process {other.pid}") as caught:
        HeartbeatLock(path, job_id="18").acquire()
    assert caught.value.holder.job_id == "17"
    assert path.read_text() == before
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_a_holder_that_was_killed_is_replaced_at_once(path, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert holder_of(path).pid == other.pid and time.time() - path.stat().st_mtime < STALE_SECONDS
    with HeartbeatLock(path, job_id="18"):
        assert holder_of(path).pid == os.getpid()
        assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert not path.exists()


def test_another_hosts_holder_is_dead_once_its_heartbeat_is_old(path):
    of_another_host(path, age=STALE_SECONDS - 10)
    with pytest.raises(LockHeld):
        HeartbeatLock(path).acquire()
    of_another_host(path, age=STALE_SECONDS + 1)
    assert not is_alive(path, holder_of(path))
    with HeartbeatLock(path):
        assert holder_of(path).pid == os.getpid()


@pytest.mark.parametrize("skew", [-1000.0, 1000.0])
def test_a_host_whose_clock_is_wrong_neither_robs_the_living_nor_waits_for_the_dead(path, monkeypatch, skew):
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + skew)
    of_another_host(path, age=0)
    os.utime(path, (real() - STALE_SECONDS / 2,) * 2)
    with pytest.raises(LockHeld):
        HeartbeatLock(path).acquire()
    os.utime(path, (real() - 2 * STALE_SECONDS,) * 2)
    with HeartbeatLock(path) as lock:
        assert holder_of(path).token == lock.who.token


def test_a_former_life_that_still_lives_has_noticed_before_the_next_begins(path, monkeypatch):
    """As where a node was cut off, and its job requeued on another one."""
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.3)
    noticed = threading.Event()
    former = HeartbeatLock(path, on_lost=noticed.set, job_id="17", cluster="slurm")
    former.acquire()
    former.confirm()
    assert not noticed.is_set()
    with HeartbeatLock(path, job_id="17", cluster="slurm"):
        assert noticed.is_set()
        noticed.clear()
        former.confirm()
        assert noticed.is_set(), "nor may it write anything"
        former.release()
        assert path.exists()


def test_a_holder_that_has_ended_but_was_not_waited_for_is_dead(path):
    ended = subprocess.Popen(["true"])
    wait_until(lambda: Path(f"/proc/{ended.pid}/stat").read_text().split()[2] == "Z", 10, "the process's end")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": ended.pid, "token": "theirs"}))
    with HeartbeatLock(path) as lock:
        assert holder_of(path).token == lock.who.token
    ended.wait()


def test_a_requeued_job_takes_over_from_its_former_life(path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.05)
    of_another_host(path, age=0, job_id="17")
    with pytest.raises(LockHeld):
        HeartbeatLock(path, job_id="18").acquire()
    with HeartbeatLock(path, job_id="17"):
        assert holder_of(path).host != "elsewhere"


@pytest.mark.parametrize(("cluster", "host"), [("slurm", "elsewhere"), ("local", "elsewhere")])
def test_a_job_of_another_cluster_or_host_may_have_the_same_number(path, cluster, host):
    """A local job's number is that of a process, and any host may have such a process."""
    of_another_host(path, age=0, job_id="17", cluster=cluster, host=host)
    with pytest.raises(LockHeld):
        HeartbeatLock(path, job_id="17", cluster="local").acquire()


def test_a_requeued_slurm_job_may_come_back_on_another_host(path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.05)
    of_another_host(path, age=0, job_id="17", cluster="slurm")
    with HeartbeatLock(path, job_id="17", cluster="slurm"):
        assert holder_of(path).host != "elsewhere"


def test_an_empty_job_id_is_nobodys_former_life(path):
    of_another_host(path, age=0, job_id="")
    with pytest.raises(LockHeld):
        HeartbeatLock(path, job_id="").acquire()


def test_release_does_not_remove_anothers_lock(path):
    lock = HeartbeatLock(path)
    lock.acquire()
    of_another_host(path, age=0)
    lock.release()
    assert holder_of(path).host == "elsewhere"


def test_release_twice_and_without_a_file_is_harmless(path):
    lock = HeartbeatLock(path)
    lock.acquire()
    path.unlink()
    lock.release()
    lock.release()
    assert not path.exists()


def test_the_lock_is_released_when_its_block_raises(path):
    with pytest.raises(RuntimeError), HeartbeatLock(path):
        raise RuntimeError
    assert not path.exists()


def test_the_heartbeat_renews_the_files_time_until_release(path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.05)
    with HeartbeatLock(path):
        os.utime(path, (0, 0))
        wait_until(lambda: time.time() - path.stat().st_mtime < 5, 5, "a heartbeat")
    path.write_text("somebody else's")
    os.utime(path, (0, 0))
    time.sleep(0.3)
    assert path.stat().st_mtime == 0


def test_a_file_server_that_is_away_for_a_moment_does_not_end_the_heartbeat(path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.05)
    really, answers = lock_module.holder_of, []

    def holder_of(asked):
        if len(answers) < 2 and threading.current_thread() is not threading.main_thread():
            answers.append(asked)
            raise OSError(116, "Stale file handle")
        return really(asked)

    monkeypatch.setattr(lock_module, "holder_of", holder_of)
    with HeartbeatLock(path):
        wait_until(lambda: len(answers) == 2, 5, "two beats without the server")
        os.utime(path, (0, 0))
        wait_until(lambda: time.time() - path.stat().st_mtime < 5, 5, "a heartbeat after it")


def test_who_lost_the_lock_in_a_stall_is_told_and_does_not_keep_the_new_one_alive(path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.05)
    told = threading.Event()
    stalled = HeartbeatLock(path, on_lost=told.set)
    stalled.acquire()
    path.write_text(json.dumps({"token": "another", "host": "elsewhere", "pid": 1}))
    os.utime(path, (0, 0))
    assert told.wait(5)
    time.sleep(0.2)
    assert path.stat().st_mtime == 0
    stalled.release()
    assert path.exists()


def test_a_heartbeat_does_not_end_for_a_folder_that_is_away(path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.05)
    with HeartbeatLock(path):
        away = path.parent.with_name("away")
        path.parent.rename(away)
        time.sleep(0.3)
        os.utime(away / path.name, (0, 0))
        away.rename(path.parent)
        wait_until(lambda: time.time() - path.stat().st_mtime < 5, 5, "a heartbeat")


GARBAGE = (b"", b"{ha", b"[1]", b"null", b"\x00" * 80, b"\xff\xfe", b"[" * 100_000, b'{"pid": "x"}')
WRONG = ({"pid": "x"}, {"pid": True}, {"pid": -1}, {"pid": 2**40}, {"host": 7}, {"token": None}, {"stage": "two"})


@pytest.mark.parametrize(
    "content",
    [*GARBAGE, *(json.dumps({"host": "elsewhere", "pid": 1, "token": "t", **one}).encode() for one in WRONG)],
    ids=lambda content: repr(content[:60]),
)
def test_a_lock_that_cannot_be_read_is_held_until_its_file_is_old(path, content):
    """Its holder may live: the heartbeat renews the file's time whatever is in it."""
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert is_alive(path, holder_of(path))
    with pytest.raises(
        LockHeld, match=r"writer\.lock is held by a process that its lock does not name, until 45 s after"
    ):
        HeartbeatLock(path, job_id="17").acquire()
    os.utime(path, (time.time() - STALE_SECONDS - 1,) * 2)
    assert not is_alive(path, holder_of(path))
    with HeartbeatLock(path, job_id="17") as lock:
        assert holder_of(path).token == lock.who.token
    assert [*path.parent.iterdir()] == []


def test_no_lock_has_no_holder(path):
    assert holder_of(path) is None


def test_a_holder_whose_lock_was_damaged_goes_on(path, monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.05)
    told = threading.Event()
    with HeartbeatLock(path, on_lost=told.set) as lock:
        path.write_bytes(b"")
        os.utime(path, (0, 0))
        wait_until(lambda: time.time() - path.stat().st_mtime < 5, 5, "a heartbeat")
        lock.confirm()
        assert not told.is_set()


def test_a_lock_is_on_the_disk_before_it_counts(path, monkeypatch):
    """The file's content before it has its name, and the name before anybody goes on."""
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    with HeartbeatLock(path):
        content, folder = synced
    assert content.name.startswith(".writer.lock.") and folder == path.parent


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_lives_are_told_by_the_file_servers_clock(path, monkeypatch, skew):
    """As on a host whose clock is an hour off."""
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + skew)
    of_another_host(path, age=0)
    for age, alive in ((STALE_SECONDS / 2, True), (2 * STALE_SECONDS, False)):
        os.utime(path, (real() - age,) * 2)
        assert is_alive(path, holder_of(path)) is alive


def test_who_holds_is_written_down(path):
    with HeartbeatLock(path, job_id="17", stage=2):
        found = holder_of(path)
    assert (found.job_id, found.stage, found.pid) == ("17", 2, os.getpid())


def test_many_that_find_a_dead_holder_at_the_same_moment_never_hold_twice(tmp_path):
    """Of each round's, one holds: one that looked before another took over looks again."""
    for number in range(40):
        path = tmp_path / str(number) / "writer.lock"
        of_another_host(path, age=STALE_SECONDS + 1)
        ready, held = threading.Barrier(8), []

        def take(path=path, ready=ready, held=held) -> None:
            lock = HeartbeatLock(path)
            ready.wait()
            try:
                lock.acquire()
            except LockHeld:
                return
            held.append(lock)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(held) == 1
        held[0].release()
        assert list(path.parent.iterdir()) == []


def test_who_looked_before_another_took_over_takes_nothing(path, monkeypatch):
    """Not for a moment either, in which a third one would find no lock."""
    of_another_host(path, age=STALE_SECONDS + 1)
    found, late, link = holder_of(path), HeartbeatLock(path), os.link

    def link_after_a_third(source, target) -> None:
        of_another_host(path, age=0)
        link(source, target)

    with HeartbeatLock(path) as first:
        monkeypatch.setattr(os, "link", link_after_a_third)
        late._remove_dead(found)
        assert holder_of(path).token == first.who.token
