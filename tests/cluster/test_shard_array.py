"""A corpus prepared by processes on this machine and by a job array on Slurm is the same corpus."""

from pathlib import Path

import h5py
import pytest
import tiny_corpus
from desk import Desk

from sia.cluster.corpus_jobs import write_shards
from sia.cluster.profile import Profile
from sia.data.prepare import finish
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.shards import shard_path

SHARDS = 3


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    tiny_corpus.write_corpus(root, kinds=3)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("cores", [2, 4])
def test_processes_write_every_shard(raw: Path, tmp_path: Path, cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the three as tasks, or none: the rest in pieces, which make the same files."""
    here = tiny_corpus.prepare(raw, tmp_path / "here", SHARDS)
    monkeypatch.setattr("sia.cluster.corpus_jobs.usable_cores", lambda: cores)
    monkeypatch.setattr("sia.data.prepare.CAPTIONS_A_PIECE", 5)
    tiny_corpus.begin(raw, tmp_path / "out", SHARDS)
    assert sorted(write_shards(tmp_path / "out", SHARDS, "local", Profile())) == list(range(SHARDS))
    assert finish(tmp_path / "out") == here.description
    for number in range(SHARDS):
        assert shard_path(tmp_path / "out", number).read_bytes() == shard_path(here.folder, number).read_bytes()


@pytest.mark.slow
@pytest.mark.slurm
def test_a_job_array_writes_the_same_corpus(raw: Path, tmp_path: Path) -> None:
    here = tiny_corpus.prepare(raw, tmp_path / "here", SHARDS)
    tiny_corpus.begin(raw, tmp_path / "there", SHARDS)
    profile = Profile(partition="dev", timeout_min=10)
    assert sorted(write_shards(tmp_path / "there", SHARDS, "slurm", profile)) == list(range(SHARDS))
    assert finish(tmp_path / "there").identity == here.identity


def test_a_missing_root_is_one_line(tmp_path: Path) -> None:
    done = Desk(tmp_path).call(
        "prepare.py", "--corpus", "stamps", "--root", tmp_path / "nowhere", "--out", tmp_path / "out"
    )
    assert done.returncode == 1
    assert str(tmp_path / "nowhere") in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command_verifies_a_corpus(raw: Path, tmp_path: Path) -> None:
    corpus = tiny_corpus.prepare(raw, tmp_path / "out", SHARDS)
    desk = Desk(tmp_path)
    good = desk.call("prepare.py", "--out", corpus.folder, "--verify")
    assert good.returncode == 0, good.stderr
    assert good.stdout.splitlines() == [
        f"3 shards, 36 captions, 27 images, {corpus.description.num_frames:,} frames: all good"
    ]
    with h5py.File(shard_path(corpus.folder, 1), "r+") as shard:
        shard["frames"][0, 0] += 1
    bad = desk.call("prepare.py", "--out", corpus.folder, "--verify")
    assert bad.returncode == 1 and len(bad.stderr.splitlines()) == 1 and "1 fault;" in bad.stderr
    name = next(caption.utterance_id for caption in corpus.captions if (caption.shard, caption.row) == (1, 0))
    assert str(shard_path(corpus.folder, 1)) in bad.stdout and repr(name) in bad.stdout


def test_what_to_prepare_must_be_said(tmp_path: Path) -> None:
    done = Desk(tmp_path).call("prepare.py", "--out", tmp_path / "out")
    assert done.returncode == 2 and "--corpus" in done.stderr and len(done.stderr.splitlines()) == 1
    unfinished = Desk(tmp_path).call("prepare.py", "--out", tmp_path / "out", "--verify")
    assert unfinished.returncode == 1 and "no prepared corpus there" in unfinished.stderr


@pytest.mark.slow
def test_the_command_keeps_original_images(raw: Path, tmp_path: Path) -> None:
    arguments = ("--corpus", "table", "--root", raw, "--out", "out", "--images", "original")
    done = Desk(tmp_path).call("prepare.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "27 images (original)" in done.stdout
    corpus = PreparedCorpus.open(tmp_path / "out")
    for index, caption in enumerate(corpus.captions):
        assert corpus.image(index) == (raw / f"{caption.image_id}.png").read_bytes()
