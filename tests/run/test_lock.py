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
import sys
from pathlib import Path
from sia.run.lock import HeartbeatLock, LockHeld

print("ready", flush=True)
sys.stdin.readline()
try:
    HeartbeatLock(Path(sys.argv[1]), job_id=sys.argv[2]).acquire()
except LockHeld:
    print("refused", flush=True)
else:
    print("held", flush=True)
    sys.stdin.read()
"""


class Other:
    """A process that takes the lock when it is told to."""

    def __init__(self, path: Path, job_id: str = "") -> None:
        command = [sys.executable, "-c", HOLD, str(path), job_id]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def takes(self) -> None:
        assert self.process.stdin is not None
        print(flush=True, file=self.process.stdin)

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "writer.lock"


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(lock_module, "HEARTBEAT_SECONDS", 0.05)


@pytest.fixture
def other(path):
    """A process that holds the lock."""
    one = Other(path, job_id="17")
    one.takes()
    assert [one.says(), one.says()] == ["ready", "held"]
    yield one
    one.end()


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def of_another_host(path: Path, seconds: float = 0, **who: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "token": "theirs", **who}))
    age(path, seconds)


def wait_for_beat(path: Path) -> None:
    os.utime(path, (0, 0))
    wait_until(lambda: path.stat().st_mtime > 0, 30, "a heartbeat")


def test_of_several_processes_at_once_one_holds_or_takes_over(path):
    for dead in (False, True):
        if dead:
            of_another_host(path, STALE_SECONDS + 1)
        others = [Other(path) for _ in range(5)]
        assert {one.says() for one in others} == {"ready"}
        for one in others:
            one.takes()
        assert sorted(one.says() for one in others) == ["held"] + ["refused"] * 4
        for one in others:
            one.end()
        path.unlink()


def test_many_that_find_a_dead_holder_at_the_same_moment_never_hold_twice(tmp_path):
    """Of each round's, one holds: one that looked before another took over looks again."""
    for number in range(20):
        path = tmp_path / str(number) / "writer.lock"
        of_another_host(path, STALE_SECONDS + 1)
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
    of_another_host(path, STALE_SECONDS + 1)
    found, late, link = holder_of(path), HeartbeatLock(path), os.link

    def link_after_a_third(source, target) -> None:
        of_another_host(path)
        link(source, target)

    with HeartbeatLock(path) as first:
        monkeypatch.setattr(os, "link", link_after_a_third)
        late._remove_dead(found)
        assert holder_of(path).token == first.who.token


def test_a_living_holder_keeps_the_lock_and_a_killed_one_is_replaced_at_once(path, other):
    before = path.read_text()
    with pytest.raises(LockHeld, match=f"process {other.process.pid}") as caught:
        HeartbeatLock(path, job_id="18").acquire()
    assert caught.value.holder.job_id == "17" and path.read_text() == before
    other.end()
    assert holder_of(path).pid == other.process.pid and time.time() - path.stat().st_mtime < STALE_SECONDS
    with HeartbeatLock(path, job_id="18", stage=2):
        found = holder_of(path)
        assert (found.pid, found.job_id, found.stage) == (os.getpid(), "18", 2)
        assert list(path.parent.iterdir()) == [path]
    assert not path.exists()


def test_a_holder_that_has_ended_but_was_not_waited_for_is_dead(path):
    ended = subprocess.Popen(["true"])
    wait_until(lambda: Path(f"/proc/{ended.pid}/stat").read_text().split()[2] == "Z", 10, "the process's end")
    of_another_host(path, host=socket.gethostname(), pid=ended.pid)
    with HeartbeatLock(path) as lock:
        assert holder_of(path).token == lock.who.token
    ended.wait()


@pytest.mark.parametrize("skew", [-3600.0, -1000.0, 0.0, 1000.0, 3600.0])
def test_lives_are_told_by_the_file_servers_clock(path, monkeypatch, skew):
    """As on a host whose clock is wrong: it neither robs the living nor waits for the dead."""
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + skew)
    of_another_host(path)
    os.utime(path, (real() - STALE_SECONDS / 2,) * 2)
    assert is_alive(path, holder_of(path))
    with pytest.raises(LockHeld):
        HeartbeatLock(path).acquire()
    os.utime(path, (real() - STALE_SECONDS - 5,) * 2)
    assert not is_alive(path, holder_of(path))
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


@pytest.mark.parametrize(
    ("before", "now", "same"),
    [
        ({"job_id": "17"}, {"job_id": "17"}, True),
        ({"job_id": "17"}, {"job_id": "18"}, False),
        ({"job_id": ""}, {"job_id": ""}, False),
        ({"job_id": "17", "cluster": "slurm"}, {"job_id": "17", "cluster": "slurm"}, True),
        ({"job_id": "17", "cluster": "slurm"}, {"job_id": "17", "cluster": "local"}, False),
        ({"job_id": "17", "cluster": "local"}, {"job_id": "17", "cluster": "local"}, False),
    ],
)
def test_a_requeued_job_takes_over_from_its_former_life(path, fast, before, now, same):
    """On another host too, but for a local job: its number is that of a process, which any host may have."""
    of_another_host(path, **before)
    if same:
        with HeartbeatLock(path, **now):
            assert holder_of(path).host != "elsewhere"
    else:
        with pytest.raises(LockHeld):
            HeartbeatLock(path, **now).acquire()


def test_release_removes_ones_own_lock_alone(path):
    lock = HeartbeatLock(path)
    lock.acquire()
    of_another_host(path)
    lock.release()
    assert holder_of(path).host == "elsewhere"
    path.unlink()
    lock.release()
    assert holder_of(path) is None
    with pytest.raises(RuntimeError), HeartbeatLock(path):
        raise RuntimeError
    assert not path.exists()


def test_a_heartbeat_outlives_a_file_server_that_is_away_and_a_damaged_lock(path, fast, monkeypatch):
    really, away, told = lock_module.holder_of, [], threading.Event()

    def holder_of(asked):
        if len(away) < 2 and threading.current_thread() is not threading.main_thread():
            away.append(asked)
            raise OSError(116, "Stale file handle")
        return really(asked)

    monkeypatch.setattr(lock_module, "holder_of", holder_of)
    with HeartbeatLock(path, on_lost=told.set) as lock:
        wait_until(lambda: len(away) == 2, 30, "two beats without the server")
        wait_for_beat(path)
        path.parent.rename(path.parent.with_name("away"))
        time.sleep(0.2)
        path.parent.with_name("away").rename(path.parent)
        wait_for_beat(path)
        path.write_bytes(b"")
        wait_for_beat(path)
        lock.confirm()
        assert not told.is_set()


def test_who_lost_the_lock_in_a_stall_is_told_and_does_not_keep_the_new_one_alive(path, fast):
    told = threading.Event()
    stalled = HeartbeatLock(path, on_lost=told.set)
    stalled.acquire()
    of_another_host(path, token="another")
    os.utime(path, (0, 0))
    assert told.wait(30)
    time.sleep(0.2)
    assert path.stat().st_mtime == 0


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
    said = r"writer\.lock is held by a process that its lock does not name, until 45 s after"
    with pytest.raises(LockHeld, match=said):
        HeartbeatLock(path, job_id="17").acquire()
    age(path, STALE_SECONDS + 1)
    with HeartbeatLock(path, job_id="17") as lock:
        assert holder_of(path).token == lock.who.token
    assert list(path.parent.iterdir()) == []


def test_a_lock_is_on_the_disk_before_it_counts(path, monkeypatch):
    """The file's content before it has its name, and the name before anybody goes on."""
    synced, real = [], os.fsync

    def fsync(descriptor):
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    with HeartbeatLock(path):
        content, folder = synced
    assert ".writer.lock." in content.name and folder == path.parent
