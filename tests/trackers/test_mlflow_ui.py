"""jobs/ui.py: the addresses first, then a light server; or one line on why there is none."""

import os
import signal
import socket
import subprocess
import urllib.request
from contextlib import suppress

import pytest
from desk import Desk, wait_until
from mirrored import STUDY, mirrored
from written_runs import experiment, finish_run

from sia.errors import UserError
from sia.trackers.mlflow.check import UI_PORT
from sia.trackers.mlflow.ui import NEXT_PORTS, free_port


def taken():
    one = socket.socket()
    one.bind(("127.0.0.1", 0))
    one.listen()
    return one


def test_a_port_that_is_asked_for_and_taken_is_one_line_without_asking_the_next_is_found():
    with taken() as one, pytest.raises(UserError, match=f"port {one.getsockname()[1]}: taken; leave --port out"):
        free_port(one.getsockname()[1])
    assert UI_PORT <= free_port() < UI_PORT + NEXT_PORTS


def test_without_a_store_or_runs_in_it_it_says_what_fills_it(tmp_path):
    desk = Desk(tmp_path)
    done = desk.call("ui.py")
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "jobs/track.py fills it" in done.stderr
    finish_run(tmp_path / "runs", STUDY, experiment())
    done = desk.call("ui.py", "--uri", "http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (
        0,
        "http://127.0.0.1:9 has none of size; python jobs/track.py fills it\n",
    )


@pytest.mark.slow
def test_it_serves_the_study_and_a_ctrl_c_ends_all_of_it_quietly(tmp_path, uri, two_runs):
    mirrored(uri, two_runs)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = Desk(tmp_path).command("ui.py", "--uri", uri, "--port", port)
    with open(tmp_path / "log", "w") as log:
        environment = {**os.environ, "SIA_RUNS": str(tmp_path)}
        server = subprocess.Popen([*command], cwd=tmp_path, env=environment, stdout=log, stderr=log)

    def answers():
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return answer.status == 200

    wait_until(answers, 120, "the server")
    server.send_signal(signal.SIGINT)
    assert server.wait(30) == 0 and not answers()
    told = (tmp_path / "log").read_text()
    assert told.startswith(f"{STUDY}: http://127.0.0.1:{port}/#/experiments/1/runs") and "Traceback" not in told
