"""The front page's examples, and the guides' on the same study, run as they stand there, after a small `make sweep`."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_scenes
import yaml
from desk import REPOSITORY, Desk

PAGE = (REPOSITORY / "README.md").read_text()
COMMANDS = re.findall(r"^python (.*)", PAGE.partition("After `make sweep`:")[2].partition("\n```\n\n")[0], re.MULTILINE)
# Of the guide to the commands, those on the same study that neither wait nor ask.
GUIDE = (REPOSITORY / "jobs/README.md").read_text()
ON_THE_STUDY = [
    line
    for line in re.findall(r"^python (jobs/\w+\.py size-miniature\b.*)", GUIDE, re.MULTILINE)
    if not re.search(r"--watch|--only|--keep|ui\.py", line)
]
# What is added to a command, so that it takes seconds here.
IN_SHORT = {
    "jobs/submit.py --grid sweeps/losses.yaml --miniature": ["--dry-run"],
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Desk:
    """Where `make sweep` has been, on a few scenes, with one pair that was trained for an epoch."""
    desk = Desk(tmp_path_factory.mktemp("page"))
    shutil.copy(migrated_database, desk.folder / "mlflow.db")
    shutil.copytree(REPOSITORY / "sweeps", desk.folder / "sweeps")
    shutil.copytree(REPOSITORY / "slurm", desk.folder / "slurm", ignore=shutil.ignore_patterns("devcluster"))
    small_scenes.prepare(desk.folder / "corpora" / "scenes")
    grid = yaml.safe_load((REPOSITORY / "sweeps/size.yaml").read_text())
    one = {"grid": {"model.gru_layers": [2], "model.latent_size": [32]}, "stages": [{"epochs": 1}], "exclude": []}
    desk.write("sweeps/size.yaml", {**grid, "miniature": {**grid["miniature"], **one}})
    here = ("--cluster", "debug", "--scheduler", "none")
    trained = desk.call("submit.py", "--grid", "sweeps/size.yaml", "--miniature", *here)
    assert trained.returncode == 0, trained.stderr
    return desk


def expanded(desk: Desk, words: list[str]) -> Iterator[str]:
    """As a shell does it."""
    for word in words:
        found = sorted(desk.folder.glob(word)) if "*" in word else []
        yield from (str(path.relative_to(desk.folder)) for path in found) if found else (word,)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in COMMANDS + ON_THE_STUDY if "--serve" not in line])
def test_a_command_after_make_sweep_works_as_it_stands(desk: Desk, line: str) -> None:
    line = line.partition("#")[0].strip()
    script, *words = shlex.split(line)
    done = desk.call(Path(script).name, *expanded(desk, words), *IN_SHORT.get(line, []))
    assert done.returncode == 0 and done.stdout, done.stderr


@pytest.mark.slow
def test_the_example_of_one_clip_works_as_it_stands(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(desk.folder)
    monkeypatch.delenv("SIA_RUNS", raising=False)
    given: dict[str, object] = {}
    exec(example, given)
    assert -1 <= float(given["speech"] @ given["image"]) <= 1  # type: ignore[operator]


def test_the_page_has_examples() -> None:
    assert len(COMMANDS) >= 5 and len(ON_THE_STUDY) >= 5 and all(line in " ".join(COMMANDS) for line in IN_SHORT)
