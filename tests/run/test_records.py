"""The typed files of a run: each is a whole record, or its damage is named with the cure."""

from pathlib import Path

import pytest

from sia.atomic import write_json
from sia.errors import UserError
from sia.run.records import Failed, Job, Stopped, Submission

LOCAL = {"cluster": "local", "job_id": "17", "host": "node3", "folder": "/runs/size/DG/jobs"}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "job.json"
    assert Job.read(path) is None
    begun = Submission(cluster="slurm", code="/c", profile={"nodes": 2}, element=3)
    job = Job(**begun.model_dump(), job_id="17_3")
    job.write(path)
    assert Job.read(path) == job


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (None, "damaged"),
        ({}, "cluster: it is missing"),
        ({"cluster": "slurm"}, "job_id: it is missing"),
        ({"cluster": "slurm", "job_id": 17}, "job_id: "),
        ({"cluster": "slurm", "job_id": "17", "of_a_later_version": 1}, "of_a_later_version: "),
        ({**LOCAL, "job_id": "../17"}, "a local job has a host, a folder"),
        ({key: value for key, value in LOCAL.items() if key != "host"}, "a local job has a host, a folder"),
    ],
)
def test_a_file_that_is_no_record_of_a_job_is_named_with_the_cure(
    tmp_path: Path, values: dict[str, object] | None, said: str
) -> None:
    path = tmp_path / "job.json"
    path.touch() if values is None else write_json(path, values)
    with pytest.raises(UserError, match=f"^{path}: ") as error:
        Job.read(path)
    assert said in str(error.value) and "delete it" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [Failed, Stopped])
def test_a_marker_that_says_nothing_is_no_marker(tmp_path: Path, kind: type[Failed] | type[Stopped]) -> None:
    write_json(tmp_path / "marker.json", {})
    with pytest.raises(UserError, match=f"not a {kind.__name__} of this program"):
        kind.read(tmp_path / "marker.json")
