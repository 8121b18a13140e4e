"""Each check against what it is for: real folders, a real MLflow, processes that hang."""

import contextlib
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from desk import Desk

from sia.checks import Finding, ask, check, ok
from sia.cluster.profile import Profile
from sia.command import console
from sia.doctor import files, machine
from sia.doctor.diagnose import diagnose, findings_table, line_of
from sia.trackers.mlflow import check as store
from sia.trackers.mlflow.mirror import MlflowMirror

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /net nfs4 rw 0 0
thing /odd oddfs rw 0 0
"""


def test_what_a_check_did_not_expect_is_a_warning_with_its_exception():
    found = check("luck")(lambda: ok(str(1 / 0)))()
    assert (found.check, found.level) == ("luck", "warning")
    assert "ZeroDivisionError: division by zero" in found.said and found.cure


def test_a_folder_that_is_good_and_is_left_as_it_was(tmp_path):
    runs = tmp_path / "not" / "made" / "runs"
    checks = (files.writable, files.atomic_rename, files.hard_links, files.clock)
    assert [one(runs).level for one in checks] == ["ok"] * 4
    assert files.room(runs).check == "disk space" and "GB free" in files.room(runs).said
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_or_that_others_can_write(tmp_path):
    (tmp_path / "file").write_text("")
    found = files.writable(tmp_path / "file" / "runs")
    assert found.level == "problem" and "SIA_RUNS" in found.cure
    tmp_path.chmod(0o775)
    found = files.writable(tmp_path)
    assert found.level == "problem" and "by others" in found.said and found.cure == f"chmod -R go-w {tmp_path}"


@pytest.mark.parametrize("error", [None, OSError(1, "Operation not permitted")])
def test_links_that_are_refused_or_take_anothers_place_hold_no_lock(tmp_path, monkeypatch, error):
    def link(*_):
        if error:
            raise error

    monkeypatch.setattr("os.link", link)
    found = files.hard_links(tmp_path)
    assert found.level == "problem" and ("refused" in found.said) == bool(error)


@pytest.mark.parametrize(
    ("runs", "others", "level"),
    [("/", {"far"}, "problem"), ("/", set(), "ok"), ("/net", {"far"}, "ok"), ("/odd", {"far"}, "warning")],
)
def test_other_hosts_must_see_the_runs_folder(runs, others, level, monkeypatch):
    monkeypatch.setattr(files, "existing", lambda path: path)
    found = files.shared(Path(runs), others, MOUNTS)
    assert found.level == level and ("far" in found.said) == (level in ("problem", "warning"))


@pytest.mark.parametrize(("ahead_s", "level"), [(0.0, "ok"), (4.0, "warning"), (-400.0, "problem")])
def test_a_clock_that_is_another_than_the_file_servers(tmp_path, monkeypatch, ahead_s, level):
    now = time.time
    monkeypatch.setattr(files.time, "time", lambda: now() - ahead_s)
    found = files.clock(tmp_path)
    assert found.level == level and f"{abs(ahead_s):.1f} s" in found.said


def test_sqlite_on_a_network_mount_is_a_warning_and_one_that_is_not_there_is_not_made(tmp_path):
    found = store.place("sqlite:////net/mlflow.db", MOUNTS)
    assert found.level == "warning" and "MLFLOW_TRACKING_URI" in found.cure
    assert store.place("sqlite:////var/mlflow.db", MOUNTS).level == "ok"
    found = store.opens(f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}")
    assert found.level == "ok" and "first submit" in found.said
    assert list(tmp_path.iterdir()) == []


def told_to_another_user(uri: str) -> Finding:
    """What `store.opens` tells a user who may not read the store; the superuser may read everything."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            if os.geteuid() == 0:
                os.setuid(65534)
            os.write(writing, json.dumps(asdict(store.opens(uri))).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return Finding(**json.loads(told))


@pytest.mark.parametrize(("folders_mode", "files_mode"), [(0o755, 0o000), (0o000, 0o644)])
def test_a_store_of_another_user_is_left_where_it_is(folders_mode, files_mode):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mlflow.db").write_text("theirs")
        (folder / "mlflow.db").chmod(files_mode)
        folder.chmod(folders_mode)
        found = told_to_another_user(f"sqlite:///{folder / 'mlflow.db'}")
        folder.chmod(0o700)
    assert found.level == "problem" and "may not be read" in found.said
    assert "MLFLOW_TRACKING_URI=sqlite:" in found.cure and "move" not in found.cure


def test_a_store_of_another_version_or_that_is_none(tmp_path, migrated_database):
    path = Path(shutil.copy(migrated_database, tmp_path))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    database.close()
    found = store.opens(f"sqlite:///{path}")
    assert found.level == "problem" and "mlflow db upgrade" in found.cure
    path.write_text("no database" * 100)
    found = store.opens(f"sqlite:///{path}")
    assert found.level == "problem" and "not a database" in found.said and "jobs/track.py" in found.cure


def test_versions_outside_their_ranges_are_listed():
    found = machine.packages(["pyyaml >= 99", "numpy >= 1", "no-such-package >= 1", 'pytest < 1; extra == "test"'])
    assert found.level == "problem" and "numpy" not in found.said and "pytest" not in found.said
    assert "pyyaml" in found.said and "needs >=99" in found.said and "no-such-package missing" in found.said
    assert machine.packages().level == "ok"


def test_memory(tmp_path, monkeypatch):
    assert "GB free" in machine.memory().said
    for name, size in (("max", 3 * 10**9), ("current", 2 * 10**9)):
        (tmp_path / name).write_text(f"{size}\n")
    monkeypatch.setattr(machine, "CGROUPS", [(tmp_path / "max", tmp_path / "current")])
    found = machine.memory()
    assert found.level == "warning" and found.said.startswith("1.0 GB free")


def test_a_program_that_hangs_or_is_missing():
    answer = ask(["sh", "-c", "echo so far; exec sleep 60"], 1.0)
    assert (answer.status, answer.output.strip(), answer.reason) == (None, "so far", "no answer within 1 s")
    assert "no-such-program" in ask(["no-such-program"], 1.0).reason
    assert ask(["cat"], 5.0, "given").output == "given"


IMPORTED = {"step": "import", "version": "2.11"}


def probed(*told: dict, then: str = "true") -> machine.Probed:
    lines = "".join(f"echo '{json.dumps(one)}'; " for one in told)
    return machine.probe_torch(["sh", "-c", lines + then], timeout_s=1.0)


def test_a_torch_that_hangs_tells_how_far_it_came():
    found = probed(IMPORTED, then="exec sleep 60")
    assert machine.torch_imports(found).level == "ok"
    assert machine.gpu(found, 0).level == "problem"
    told = machine.collectives(found)
    assert told.level == "problem" and "as far as: import" in told.said and "no answer within 1 s" in told.said


def test_a_torch_that_cannot_be_imported():
    found = machine.torch_imports(probed(then="echo no module named torch >&2; exit 1"))
    assert found.level == "problem" and "no module named torch" in found.said


def test_a_gpu_that_torch_does_not_see(monkeypatch):
    blind = {"step": "gpus", "gpus": 0, "names": [], "built_for": None, "nccl": False}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    found = machine.gpu(probed(IMPORTED, blind), 0)
    assert found.level == "problem" and "2 here" in found.said and "built without CUDA" in found.said
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.gpu(probed(IMPORTED, blind), 8).level == "ok"
    seeing = {**blind, "gpus": 1, "names": ["H100"], "built_for": "13.0"}
    found = probed(IMPORTED, seeing, {"step": "all_reduce", "backend": "gloo", "total": 4.0})
    assert "H100" in machine.gpu(found, 1).said and machine.collectives(found).level == "warning"


@pytest.mark.slow
def test_the_command_on_this_machine(tmp_path):
    desk = Desk(tmp_path / "desk")
    done = desk.call("doctor.py", "--json", CUDA_VISIBLE_DEVICES="", PATH=str(Path(sys.executable).parent))
    found = json.loads(done.stdout)
    assert done.returncode == int(any(one["level"] == "problem" for one in found)), done.stderr
    assert {one["check"]: one for one in found}["collectives"]["said"] == "an all-reduce of gloo works"
    assert all(one["said"] and "\n" not in one["said"] + one["cure"] for one in found)
    assert all(bool(one["cure"]) == (one["level"] != "ok") for one in found)
    assert len({one["check"] for one in found}) == len(found) > 15
    assert list(desk.folder.iterdir()) == []


def test_a_profile_that_cannot_be_read_is_one_line(tmp_path):
    desk = Desk(tmp_path / "desk")
    desk.write("wrong.yaml", "gpus: 3\n")
    for name, status in (("none.yaml", 1), ("wrong.yaml", 2)):
        done = desk.call("doctor.py", "--profile", name)
        assert done.returncode == status and name in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_a_problem_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(machine, "PROBE", ["true"])
    (tmp_path / "file").write_text("")
    tracker = MlflowMirror(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = list(diagnose(Profile(), "none", tmp_path / "file" / "runs", tracker))
    assert [one.check for one in found if one.level == "problem"] == ["runs folder", "torch"]
    lines = [line_of(one) for one in found]
    assert any(line.startswith("problem  runs folder: ") and "; cure: " in line for line in lines)
    console().print(findings_table([*found, Finding("warning", "environment [a]", "set [b]", "odd")]))
    printed = capsys.readouterr().out
    assert "environment [a]" in printed and "cure: set [b]" in printed and all(one.check in printed for one in found)
