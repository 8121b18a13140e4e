"""Jobs run the code as it was at submission, and say which that was."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from desk import REPOSITORY, wait_until

from sia.atomic import read_json
from sia.cluster import snapshot as of_snapshot
from sia.cluster.profile import Profile
from sia.cluster.snapshot import check_snapshot, snapshot
from sia.cluster.stage_job import TrainStage
from sia.cluster.submit import submit
from sia.errors import UserError
from sia.run.queue import is_in_queue
from sia.run.records import Failed, Job


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A working tree with one commit."""
    for part in ("sia", "jobs"):
        shutil.copytree(REPOSITORY / part, tmp_path / "tree" / part, ignore=shutil.ignore_patterns("__pycache__"))
    git(tmp_path / "tree", "init", "--quiet")
    commit(tmp_path / "tree")
    return tmp_path / "tree"


def commit(tree: Path) -> None:
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "--message", "all")


def git(tree: Path, *arguments: str) -> str:
    who = {f"GIT_{role}_{what}": "a@b.c" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    command = ["git", "-C", str(tree), *arguments]
    return subprocess.run(command, env={**os.environ, **who}, capture_output=True, text=True, check=True).stdout


def edit(tree: Path, said: str) -> None:
    module = tree / "sia" / "run" / "folder.py"
    module.write_text(module.read_text().replace("no run there", said))


def error_of_a_job(code: Path, folder: Path) -> str:
    """What a job says that finds no run: the words are the code's."""
    task = TrainStage(str(folder / "study" / "DG1A8-0123456789"), 1, threads=1)
    submit(task, "local", Profile(), code)
    wait_until(lambda: not is_in_queue(Job.read(task.job_record)), 60, "the job's end")
    return Failed.read(task.run.stage(1).failed).error  # type: ignore[union-attr]


def test_a_job_runs_the_code_as_it_was(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tree holds by then, also where the job starts in the tree's own folder."""
    edit(tree, "none as it was")
    code = snapshot(tree)
    edit_back = (tree / "sia" / "run" / "folder.py").read_text().replace("none as it was", "none as it is now")
    (tree / "sia" / "run" / "folder.py").write_text(edit_back)
    monkeypatch.chdir(tree)
    assert "none as it was" in error_of_a_job(code, tmp_path)


def told_of(code: Path) -> dict:
    return read_json(code / "code.json") or {}


def test_it_says_which_commit_and_what_was_changed(tree: Path) -> None:
    """As a patch, in any encoding, with an empty last line of context, and however git is configured."""
    texts = {"blank.py": b"a\nb\n\nc\n\n", "latin.py": "caf\xe9\n".encode("latin-1"), "data.bin": bytes(range(256))}
    for name in texts:
        (tree / "sia" / name).write_bytes(bytes(range(255, -1, -1)) if name == "data.bin" else b"x\n\n\n\n")
    for key, value in {"color.ui": "always", "diff.noprefix": "true", "diff.external": "false"}.items():
        git(tree, "config", key, value)
    commit(tree)
    for name, content in texts.items():
        (tree / "sia" / name).write_bytes(content if name == "data.bin" else content + b"x\n\n\n\n")
    changed = {name: (tree / "sia" / name).read_bytes() for name in texts}
    edit(tree, "something else")
    (tree / "sia" / "new_module.py").write_text("x = 1\n")
    code = snapshot(tree)
    told = told_of(code)
    assert told["git_commit"] == git(tree, "rev-parse", "HEAD").strip()
    assert told["git_dirty"] is True and told["digest"] == code.name
    assert {"torch", "ray", "mlflow"} <= told["packages"].keys()
    assert (code / "sia" / "new_module.py").is_file(), "files that git does not know yet are part of the code"
    git(tree, "checkout", "--quiet", ".")
    git(tree, "apply", str(code / "changes.diff"))
    assert {name: (tree / "sia" / name).read_bytes() for name in texts} == changed
    assert "something else" in (tree / "sia" / "run" / "folder.py").read_text()


def test_a_clean_tree_has_no_difference_whatever_lies_beside_the_code(tree: Path) -> None:
    (tree / "sweeps").mkdir()
    (tree / "sweeps" / "mine.yaml").write_text("grid: {}\n")
    code = snapshot(tree)
    assert told_of(code)["git_dirty"] is False and not (code / "changes.diff").exists()
    git(tree, "config", "status.showUntrackedFiles", "no")
    (tree / "jobs" / "mine.py").write_text("x = 1\n")
    assert told_of(snapshot(tree))["git_dirty"] is True
    shutil.rmtree(tree / ".git")
    edit(tree, "something else")
    told = told_of(snapshot(tree))
    assert (told["git_commit"], told["git_dirty"]) == ("", None)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give its checkout to somebody else")
def test_a_colleagues_checkout_tells_its_commit(tree: Path) -> None:
    checked_out = git(tree, "rev-parse", "HEAD").strip()
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 4711, 4711)
    told = told_of(snapshot(tree))
    assert (told["git_commit"], told["git_dirty"]) == (checked_out, False)


def test_a_full_disk_leaves_no_half_copy(tree: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on the size of files stands for it."""
    code = f"""
import resource, signal
from pathlib import Path
from sia.cluster import snapshot as of_snapshot
from sia.cluster.snapshot import check_snapshot, snapshot
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    snapshot(Path({str(tree)!r}))
except OSError as error:
    print(error.filename)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert Path(said).parent == runs / ".code" and list((runs / ".code").iterdir()) == []


def test_what_a_broken_installation_left_behind_is_no_package(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "site" / "~orch-2.1.dist-info").mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    packages = told_of(snapshot(tree))["packages"]
    assert "torch" in packages and all(isinstance(version, str) for version in packages.values())


def test_equal_content_is_copied_once(tree: Path, runs: Path) -> None:
    first = snapshot(tree)
    (tree / "sia" / "__pycache__").mkdir(exist_ok=True)
    (tree / "sia" / "__pycache__" / "x.pyc").write_bytes(b"0")
    git(tree, "commit", "--quiet", "--allow-empty", "--message", "two")
    assert snapshot(tree) == first
    edit(tree, "other")
    assert snapshot(tree) != first
    assert len(list((runs / ".code").iterdir())) == 2
    assert snapshot(first) == first, "a snapshot of a snapshot, as a driver that runs from one takes it"


def copied(code: Path) -> set[str]:
    return {path.relative_to(code).as_posix() for path in code.rglob("*") if not path.is_dir()}


KEYS = ("sia/.env", "jobs/credentials.json", "sia/deploy.pem", "sia/data/id_rsa", "jobs/API_TOKEN", "sia/Secrets.yaml")


@pytest.mark.parametrize("known", [True, False], ids=["git", "no git"])
def test_ignored_files_and_keys_are_no_code(tree: Path, capfd: pytest.CaptureFixture[str], known: bool) -> None:
    (tree / ".gitignore").write_text("*.local\n")
    for name in (*KEYS, "sia/mine.local"):
        (tree / name).write_text("hunter2")
    (tree / "sia" / "tokens.py").write_text("x = 1\n")
    if not known:
        shutil.rmtree(tree / ".git")
    code = snapshot(tree)
    assert "sia/tokens.py" in copied(code) and "sia/py.typed" in copied(code)
    assert not [name for name in copied(code) if b"hunter2" in (code / name).read_bytes()]
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "jobs/credentials.json" in said
    assert snapshot(code) == code and capfd.readouterr().err == ""


def test_a_key_that_git_knows_is_in_no_difference(tree: Path) -> None:
    (tree / "sia" / ".env").write_text("hunter1")
    commit(tree)
    (tree / "sia" / ".env").write_text("hunter2")
    edit(tree, "something else")
    code = snapshot(tree)
    patch = (code / "changes.diff").read_text()
    assert "something else" in patch and "hunter" not in patch
    assert (code / "changes.diff").stat().st_mode & 0o777 == 0o600, "a password may be taken out by it"


def test_a_link_is_followed_within_the_tree_alone(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outside, key = tree.parent / "shadow.py", tree / ".env"
    for path in (outside, key):
        path.write_text("hunter2")
    (tree / "sia" / "out.py").symlink_to(outside)
    (tree / "sia" / "key.py").symlink_to(key)
    (tree / "sia" / "within.py").symlink_to("errors.py")
    code = snapshot(tree)
    assert {"sia/out.py", "sia/key.py"} & copied(code) == set()
    assert "sia/key.py, sia/out.py" in capfd.readouterr().err
    within = code / "sia" / "within.py"
    assert not within.is_symlink() and within.read_bytes() == (tree / "sia" / "errors.py").read_bytes()


def change(code: Path) -> None:
    edit(code, "poisoned")
    (code / "torch.py").write_text("raise SystemExit('poisoned')\n")
    (code / "sia" / "losses.py").unlink()
    (code / "sia" / "data").chmod(0o777)


def test_a_changed_copy_is_laid_down_again(tree: Path, runs: Path) -> None:
    code = snapshot(tree)
    whole = {name: (code / name).read_bytes() for name in copied(code) - {"code.json"}}
    change(code)
    assert snapshot(tree) == code
    assert {name: (code / name).read_bytes() for name in copied(code) - {"code.json"}} == whole
    assert (code / "sia" / "data").stat().st_mode & 0o022 == 0
    assert list((runs / ".code").iterdir()) == [code]


def test_before_a_submission_it_is_mended_from_a_tree_of_the_same_content_or_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a driver submits for days."""
    code = snapshot(tree)
    monkeypatch.setattr(of_snapshot, "this_tree", lambda: tree)
    edit(code, "poisoned")
    assert "no run there" in error_of_a_job(code, tmp_path)
    edit(code, "poisoned")
    edit(tree, "something else")
    task = TrainStage(str(code.parents[1] / "size" / "DG1A8-0123456789"), 1, threads=1)
    with pytest.raises(UserError, match=rf"^{code / 'sia' / 'run' / 'folder.py'} is not as it was .* --again size cop"):
        submit(task, "local", Profile(), code)
    with pytest.raises(UserError, match="is not as it was"):
        check_snapshot(code)
    with pytest.raises(UserError, match=r"folder.py is not as it was"):
        snapshot(code)  # as a driver that runs from it


def test_nobody_else_may_write_into_a_copy_whatever_the_umask(tree: Path) -> None:
    before = os.umask(0)
    try:
        code = snapshot(tree)
    finally:
        os.umask(before)
    assert [
        path for path in (code.parents[1], code.parent, code, *code.rglob("*")) if path.stat().st_mode & 0o022
    ] == []


def test_runs_that_others_can_write_are_refused_with_the_cure(tree: Path, runs: Path) -> None:
    runs.mkdir()
    runs.chmod(0o775)
    with pytest.raises(UserError, match=f"^{runs} can be written by others.*; chmod -R go-w {runs}$"):
        snapshot(tree)
    runs.chmod(0o1777)
    snapshot(tree)
