"""Bad input of each command: one line that names the cure, the right exit status, nothing half-written."""

import json
import shutil
import sys
from pathlib import Path

import h5py
import pytest
import tiny_corpus
import torch
import yaml
from desk import REPOSITORY, Desk, values

from sia.atomic import read_json, write_json
from sia.run.folder import RunFolder
from sia.run.lock import HeartbeatLock

COMMANDS = sorted(path.name for path in (REPOSITORY / "jobs").glob("*.py"))
SIZE = REPOSITORY / "sweeps" / "size.yaml"


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "desk")


@pytest.fixture(scope="module")
def trained(corpus, migrated_database, tmp_path_factory) -> Desk:
    """A desk with one finished run, study `single`; tests that change it copy it."""
    desk = Desk(tmp_path_factory.mktemp("trained"))
    shutil.copy(migrated_database, desk.folder / "mlflow.db")
    config = desk.write("pair.yaml", values(corpus, stages=[{"epochs": 1, "schedule": "calr"}]))
    done = desk.call("train.py", "--config", config, "--cluster", "debug")
    assert done.returncode == 0, done.stderr
    return desk


@pytest.fixture
def copied(trained, tmp_path) -> tuple[Desk, RunFolder]:
    shutil.copytree(trained.folder, tmp_path / "desk", dirs_exist_ok=True)
    desk = Desk(tmp_path / "desk")
    return desk, desk.runs("single")[0]


def listing(desk: Desk) -> list[Path]:
    return sorted(path for path in desk.folder.rglob("*"))


def refused(desk: Desk, status: int, *arguments: object, lines: int = 1, **environment: str) -> str:
    """The message of a command that is refused and leaves the working folder as it was."""
    before = listing(desk)
    done = desk.call(*arguments, **environment)
    assert done.returncode == status, done.stderr
    said = done.stderr.strip().splitlines()
    assert len(said) == lines or (status == 2 and said[0].startswith("usage:")), done.stderr
    assert listing(desk) == before, "nothing half-written"
    return "\n".join(said)


SUBMIT, POINT = "submit.py --cluster debug --grid", "run.py --grid grid.yaml --point"
FILES = {
    "unknown.yaml": "grids: {}\n",
    "twice.yaml": "grid: {model.gru_layers: [1]}\ngrid: {}\n",
    "modle.yaml": "modle: {}\n",
    "gpus.yaml": "gpus: 3\n",
    "two.yaml": "nodes: 2\n",
    "no.deb": "not a package",
    # This corpus would be made if it were come to.
    "grid-of-scenes.yaml": {"experiment": {"data": {"corpus": "scenes"}}},
    "pair-of-scenes.yaml": {"data": {"corpus": "scenes"}},
}
OF_SCENES = ("submit.py --grid grid-of-scenes.yaml", "train.py --config pair-of-scenes.yaml")
WRONG = [
    *((f"{command} --frobnicate", 2, "usage: ") for command in COMMANDS),
    ("submit.py", 2, "--grid"),
    ("submit.py --grid grid.yaml --scheduler fifo", 2, "--scheduler"),
    ("submit.py --grid grid.yaml --cluster kubernetes", 2, "--cluster"),
    (f"{SUBMIT} grid.yaml --set optimizer.learning_rat=1", 2, "nearest valid one is 'optimizer.learning_rate'"),
    (f"{SUBMIT} grid.yaml --set training.batch_size=0", 2, "training.batch_size"),
    (f"{SUBMIT} grid.yaml --set training.batch_size", 2, "expected key=value"),
    (f"{SUBMIT} grid.yaml --max-concurrent 0", 2, "--max-concurrent 0: give 1 or more"),
    (f"{SUBMIT} grid.yaml --miniature", 2, "no `miniature:` section"),
    (f"{SUBMIT} grid.yaml --dry-run --set loss.margin=wide", 2, "loss.margin"),
    (f"{SUBMIT} unknown.yaml", 2, "unknown.yaml: unknown key 'grids'; the nearest valid one is 'grid'"),
    (f"{SUBMIT} twice.yaml", 2, "'grid' is given twice"),
    (f"{SUBMIT} none.yaml", 1, "none.yaml: No such file"),
    ("train.py", 2, "--config"),
    ("train.py --config none.yaml", 1, "none.yaml"),
    ("train.py --config modle.yaml", 2, "modle.yaml: unknown key 'modle'"),
    *((f"{one} --cluster local --profile none.yaml", 1, "none.yaml: No such file") for one in OF_SCENES),
    *((f"{one} --cluster local --profile .", 1, "Is a directory") for one in OF_SCENES),
    *((f"{one} --cluster local --profile gpus.yaml", 2, "'gpus_per_node'") for one in OF_SCENES),
    *((f"{one} --cluster local --profile two.yaml", 2, "nodes is 2") for one in OF_SCENES),
    ("run.py", 2, "give either RUN, or --grid FILE"),
    ("run.py run --grid grid.yaml", 2, "give either RUN, or --grid FILE"),
    ("run.py run --set training.seed=1", 2, "a run's configuration is fixed"),
    ("run.py --grid grid.yaml --stage 1", 2, "give --point N too"),
    (f"{POINT} 1 --cluster slurm", 2, "--cluster"),
    (f"{POINT} 3", 2, "--point 3: the grid has points 1 to 2"),
    (f"{POINT} 1 --stage 2", 2, "--stage 2: stage 1 comes next"),
    (f"{POINT} 1 --set training.sed=1", 2, "training.seed"),
    ("prepare.py --corpus scenes", 2, "--out"),
    ("prepare.py --out out --corpus flickr8", 2, "unknown corpus; use one of "),
    ("prepare.py --out out --corpus stamps --root nowhere", 1, "nowhere"),
    ("prepare.py --out out --corpus stamps", 1, "out/raw"),
    ("prepare.py --out out --corpus stamps --shards 0", 2, "--shards"),
    ("prepare.py --out out --corpus stamps --shards -2", 2, "--shards"),
    ("prepare.py --out out --corpus stamps --limit -1", 2, "--limit"),
    ("prepare.py --out out --corpus stamps --image-short-side 0", 2, "--image-short-side"),
    ("prepare.py --out out --corpus stamps --profile none.yaml", 1, "none.yaml"),
    ("fetch_stamps.py --out raw --deb no.deb", 1, "no.deb"),
    ("fetch_stamps.py --out raw --deb none.deb", 1, "none.deb"),
    ("evaluate.py", 2, "usage: "),
    ("evaluate.py run --split dev", 2, "--split"),
    ("evaluate.py DG9A9-none", 1, "DG9A9-none: no such run"),
    ("resume.py", 2, "usage: "),
    ("resume.py run --from best", 2, "--epochs"),
    ("resume.py run --epochs 3", 2, "--from"),
    ("resume.py DG9A9-none --cluster debug", 1, "DG9A9-none: no such run"),
    ("resume.py DG9A9-none --cluster debug --from best --epochs 1", 1, "DG9A9-none: no such run"),
    ("run.py DG9A9-none", 1, "jobs/status.py"),
    ("report.py", 2, "usage: "),
    ("report.py no-such-study", 1, "none"),
    ("status.py no-such-study", 1, "none"),
    ("status.py", 1, "none"),
]


@pytest.mark.parametrize(("line", "status", "said"), WRONG, ids=[line for line, _, _ in WRONG])
def test_what_is_wrong_is_told_and_nothing_is_made(desk, corpus, line, status, said):
    desk.write("grid.yaml", {"experiment": values(corpus), "grid": {"training.seed": [0, 1]}})
    for name, content in FILES.items():
        desk.write(name, content)
    assert said in refused(desk, status, *line.split())


def test_a_missing_corpus_names_the_folder_and_the_command_that_works_now(desk, tmp_path):
    message = refused(desk, 1, "submit.py", "--grid", SIZE, "--cluster", "local", lines=2)
    assert "corpora/places205: no prepared corpus there" in message
    assert "python jobs/prepare.py --corpus" in message
    assert f"this works now: python jobs/submit.py --grid {SIZE} --miniature" in message
    desk.write("pair.yaml", values(tmp_path / "nowhere"))
    message = refused(desk, 1, "train.py", "--config", "pair.yaml", "--cluster", "debug")
    assert str(tmp_path / "nowhere") in message and "python jobs/prepare.py" in message


@pytest.mark.parametrize("command", ["submit.py --grid grid.yaml", "train.py --config pair.yaml"])
def test_slurm_that_does_not_answer(desk, corpus, command):
    desk.write("pair.yaml", values(corpus))
    desk.write("grid.yaml", {"experiment": values(corpus)})
    path = str(Path(sys.executable).parent)
    message = refused(desk, 1, *command.split(), "--cluster", "slurm", PATH=path)
    assert "Slurm does not answer" in message and "--cluster local" in message


POOLS = "pool 8, folds 3: 16 images make 2 such pools; give a pool of at most 5 images"
RESTART = ("--cluster", "debug", "--from", "best", "--epochs", "1")


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("evaluate.py RUN --checkpoint newest", 2, "use best, last or epoch=N"),
        ("evaluate.py RUN --checkpoint epoch=7", 1, "epoch=7; it kept best of stage 1, last of stage 1"),
        ("evaluate.py RUN --sample 0", 2, "--sample"),
        ("evaluate.py RUN --sample -3", 2, "--sample"),
        ("evaluate.py RUN --pool 0", 2, "--pool 0: give 1 or more"),
        ("evaluate.py RUN --folds 2", 2, "with --pool N"),
        ("evaluate.py RUN --pool 8 --folds 3", 1, POOLS),
        ("evaluate.py RUN --corpus nowhere", 1, "nowhere: no prepared corpus there"),
        ("resume.py RUN --cluster debug --epochs 1 --from newest", 2, "use best, last or epoch=N"),
        ("resume.py RUN --cluster debug --epochs 1 --from epoch=7", 1, "no checkpoint epoch=7"),
        ("resume.py RUN --cluster debug --epochs 0 --from best", 2, "epochs"),
        ("resume.py RUN --cluster debug --epochs 1 --from best --lr-scale 0", 2, "lr_scale"),
        ("status.py sizes", 1, "no study 'sizes' there; it has single"),
        ("report.py sizes", 1, "single"),
    ],
)
def test_what_is_wrong_for_a_finished_run(trained, line, status, said):
    (run,) = trained.runs("single")
    assert said in refused(trained, status, *line.replace("RUN", run.name).split())
    assert run.finished.exists()


def test_a_checkpoint_of_another_architecture(copied):
    desk, run = copied
    content = torch.load(run.stage(1).best, weights_only=True)
    content["architecture"]["gru_layers"] = 4
    torch.save(content, run.stage(1).best)
    message = refused(desk, 1, "evaluate.py", run.name)
    assert "best.pt: a checkpoint of model.gru_layers 4 (this run has 1)" in message


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint", None])
def test_a_damaged_or_missing_checkpoint(copied, damage):
    desk, run = copied
    run.stage(1).last.unlink()
    run.stage(1).best.unlink()
    if damage is not None:
        run.stage(1).best.write_bytes(damage)
    done = desk.call("evaluate.py", run.name)
    *warned, error = done.stderr.splitlines()
    assert (done.returncode, "no checkpoint best" in error) == (1, True)
    assert [f"{run.stage(1).best}: damaged" in line for line in warned] == [True] * (damage is not None)


def moved(run: RunFolder, folder: Path) -> Path:
    """Have the run's corpus lie there from now on."""
    config = yaml.safe_load(run.config.read_text())
    config["data"]["folder"] = str(folder)
    run.config.write_text(yaml.safe_dump(config))
    return folder


def test_a_corpus_that_is_gone_or_of_another_version(copied, corpus):
    desk, run = copied
    moved(run, desk.folder / "gone")
    assert "gone: no prepared corpus there" in refused(desk, 1, "evaluate.py", run.name)
    shutil.copytree(corpus, moved(run, desk.folder / "corpus"))
    for shard in (desk.folder / "corpus" / "shards").glob("*.h5"):
        with h5py.File(shard, "a") as file:
            file.attrs["layout_version"] = 99
    message = refused(desk, 1, "evaluate.py", run.name)
    assert "shard of layout version 99, this program reads" in message and "jobs/prepare.py" in message


def test_another_corpus_under_a_finished_run_is_refused_unless_it_is_named(copied, corpus):
    desk, run = copied
    other = moved(run, desk.folder / "corpus")
    shutil.copytree(corpus, other)
    write_json(other / "corpus.json", {**read_json(other / "corpus.json"), "identity": "another"})
    for command, *flags in (("evaluate.py",), ("embed.py",), ("resume.py", *RESTART)):
        message = refused(desk, 1, command, run.name, *flags)
        assert "begun on corpus" in message and "is another" in message
    assert run.finished.exists() and not run.stage(3).plan.exists()
    assert desk.call("evaluate.py", run.name, "--corpus", other).returncode == 0


def test_a_damaged_config_or_metrics_file_is_named(copied):
    desk, run = copied
    kept = run.metrics.read_text()
    run.metrics.write_text("{half\n" + kept)
    measured = desk.call("evaluate.py", run.name)
    assert measured.returncode == 0 and "metrics.jsonl: line 1 is not as it was written" in measured.stderr
    assert "metrics.jsonl: line 1 is not as it was written" in desk.call("status.py").stdout
    run.metrics.write_text(kept)
    run.config.write_text("model: [\n")
    assert "config.yaml: not valid YAML" in refused(desk, 2, "evaluate.py", run.name)
    assert "config.yaml: not valid YAML" in desk.call("status.py").stdout


def test_a_study_that_another_driver_drives(copied):
    desk, run = copied
    lock = run.path.parent / "driver.lock"
    with HeartbeatLock(lock):
        message = refused(desk, 1, "resume.py", run.name, "--cluster", "debug")
        restart = refused(desk, 1, "resume.py", run.name, *RESTART)
    assert f"study single is already driven ({lock}" in message and restart == message
    assert run.finished.exists(), "a restart that nobody may train leaves the run as it is"


def test_the_right_input_works(trained):
    """So that the refusals above are not for another reason."""
    name = trained.runs("single")[0].name
    shown = trained.run("evaluate.py", name, "--json")
    assert shown.returncode == 0 and json.loads(shown.stdout)["num_captions"] == 16
    told = trained.call("evaluate.py", name, "--pool", "8", "--folds", "2", "--intervals").stdout
    assert "mean of 2 pools of 8 images" in told and "speech→image" in told and told.count("[") == 10
    assert name in trained.call("status.py").stdout
    assert trained.call("resume.py", name, "--cluster", "debug").returncode == 0


def test_an_unpacked_folder_stands_for_the_stamps_package(desk):
    stamps = desk.folder / "unpacked" / "usr/share/tuxpaint/stamps"
    stamps.mkdir(parents=True)
    for _ in range(2):
        done = desk.call("fetch_stamps.py", "--out", "corpora/stamps/raw", "--deb", "unpacked")
        assert done.returncode == 0, done.stderr
    assert (desk.folder / "corpora/stamps/raw/usr/share/tuxpaint/stamps").samefile(stamps)
    wrong = desk.call("fetch_stamps.py", "--out", "other", "--deb", "corpora")
    assert wrong.returncode == 1 and "dpkg -x" in wrong.stderr


def test_prepare_keeps_a_finished_corpus_unless_it_is_told_to_replace_it(corpus, desk):
    shutil.copytree(corpus, desk.folder / "own")
    rows = [
        f"u{number},i{number},u{number}.wav,i{number}.png,{split}"
        for number, split in enumerate(("train", "validation", "test"))
    ]
    (desk.folder / "raw").mkdir()
    desk.write("raw/a.csv", "\n".join(["utterance_id,image_id,speech_path,image_path,split", *rows]))
    for number in range(3):
        tiny_corpus.speak(desk.folder / f"raw/u{number}.wav", 1, 1, seed=number)
        tiny_corpus.draw(desk.folder / f"raw/i{number}.png", 1, 1, seed=number)
    prepare = ("prepare.py", "--corpus", "table", "--root", "raw", "--out", "own", "--image-short-side", "32")
    refused = desk.call(*prepare)
    assert refused.returncode == 1 and "--replace" in refused.stderr
    assert desk.call(*prepare, "--replace").returncode == 0
    assert "3 pairs" in desk.call(*prepare).stdout
