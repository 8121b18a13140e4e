"""From files on disk to shards: what is dropped, what is kept, and what a killed preparation leaves."""

import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import tiny_corpus
from readings import described, prepare_reading

from sia.data.images import pixels, read_image
from sia.data.loader import decoded
from sia.data.prepare import finish, is_written, read_plan, summary, write_shard
from sia.data.prepared_corpus import PreparedCorpus, shard_path
from sia.errors import UsageError, UserError


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """16 captions of 12 images."""
    tiny_corpus.write_corpus(tmp_path / "raw", kinds=2)
    return tmp_path / "raw"


def test_frames_and_images_are_those_of_the_files(raw: Path, tmp_path: Path) -> None:
    import soundfile

    from sia.data.mfcc import mfcc

    corpus = tiny_corpus.prepare(raw, tmp_path / "out")
    for index, caption in enumerate(corpus.captions):
        wave, rate = soundfile.read(raw / f"{caption.utterance_id}.wav", dtype="float32")
        assert np.array_equal(corpus.frames(index), mfcc(wave, rate).numpy())
        original = pixels(read_image(raw / f"{caption.image_id}.png"))
        assert np.array_equal(pixels(read_image(io.BytesIO(corpus.image(index)))), original)


@pytest.mark.parametrize("num_shards", [1, 3, 7, 20])
def test_identity_does_not_depend_on_the_number_of_shards(raw: Path, tmp_path: Path, num_shards: int) -> None:
    """Twenty: more than there are images, so that some shards are empty."""
    expected = tiny_corpus.prepare(raw, tmp_path / "two", num_shards=2)
    corpus = tiny_corpus.prepare(raw, tmp_path / "out", num_shards=num_shards)
    assert corpus.identity == expected.identity
    assert corpus.description["num_shards"] == num_shards
    for key, value in expected.description.items():
        if key == "num_shards":
            continue
        approximate = isinstance(value, list)  # sums of floats, in another order
        assert corpus.description[key] == (pytest.approx(value) if approximate else value)
    assert len({caption.shard for caption in corpus.captions}) <= num_shards


def test_identity_stays_when_the_files_are_moved(raw: Path, tmp_path: Path) -> None:
    first = tiny_corpus.prepare(raw, tmp_path / "first")
    moved = Path(shutil.move(raw, tmp_path / "elsewhere"))
    captions = tiny_corpus.read(moved).captions
    renamed = [tiny_corpus.caption(moved, c.utterance_id, c.image_id, c.split) for c in captions]
    assert described(moved, renamed, tmp_path / "second").identity == first.identity


def test_identity_tells_corpora_apart(raw: Path, tmp_path: Path) -> None:
    captions = tiny_corpus.read(raw).captions
    identities = [
        described(raw, captions, tmp_path / "all").identity,
        described(raw, captions[1:], tmp_path / "fewer").identity,
        described(raw, captions, tmp_path / "larger", short_side=40).identity,
        described(raw, [replace(captions[0], utterance_id="new"), *captions[1:]], tmp_path / "renamed").identity,
    ]
    tiny_corpus.speak(Path(captions[0].speech_path), 5, 5, seed=99)
    identities.append(described(raw, captions, tmp_path / "spoken anew").identity)
    assert len(set(identities)) == 5


def test_captions_of_an_image_lie_in_one_shard(raw: Path, tmp_path: Path) -> None:
    corpus = tiny_corpus.prepare(raw, tmp_path / "out", num_shards=5)
    shards_of = {(caption.image_id, caption.shard) for caption in corpus.captions}
    assert len(shards_of) == corpus.description["num_images"] == 12


def test_statistics_are_those_of_the_training_split(raw: Path, tmp_path: Path) -> None:
    corpus = tiny_corpus.prepare(raw, tmp_path / "out", num_shards=3)
    train = corpus.split("train")
    shown = {corpus.captions[index].image_id: corpus.image(index) for index in train}
    colours = np.concatenate([pixels(read_image(io.BytesIO(image))).reshape(-1, 3) / 255 for image in shown.values()])
    frames = np.concatenate([corpus.frames(index) for index in train])
    assert corpus.description["pixel_mean"] == pytest.approx(colours.mean(axis=0).tolist())
    assert corpus.description["pixel_std"] == pytest.approx(colours.std(axis=0).tolist())
    assert corpus.description["frame_mean"] == pytest.approx(frames.mean(axis=0, dtype=float).tolist())
    assert corpus.description["frame_std"] == pytest.approx(frames.std(axis=0, dtype=float).tolist())


def test_an_image_of_two_splits_counts_where_it_is_trained_on(raw: Path, tmp_path: Path) -> None:
    """Where captions are held out, the first caption of an image may be one of validation or test."""
    train = [caption for caption in tiny_corpus.read(raw).captions if caption.split == "train"]
    tested_first = [replace(caption, split="test" if i % 2 == 0 else "train") for i, caption in enumerate(train)]
    trained_first = [replace(caption, split="train" if i % 2 == 0 else "test") for i, caption in enumerate(train)]
    means = []
    for number, captions in enumerate((trained_first, tested_first)):
        tiny_corpus.describe(raw, captions, held_out="captions")
        means.append(tiny_corpus.prepare(raw, tmp_path / str(number)).description["pixel_mean"])
    assert means[1] == pytest.approx(means[0]) and min(means[0]) > 0


def test_notes_are_told_and_change_no_shard(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    identity = tiny_corpus.prepare(raw, out).identity
    times = [shard_path(out, number).stat().st_mtime_ns for number in range(2)]
    reading = tiny_corpus.read(raw)._replace(notes=("val is the test split",))
    prepare_reading(reading, out)
    corpus = PreparedCorpus.open(out)
    assert read_plan(out)["notes"] == corpus.description["notes"] == ["val is the test split"]
    assert "val is the test split" in summary(corpus.description) and corpus.identity == identity
    assert [shard_path(out, number).stat().st_mtime_ns for number in range(2)] == times


def test_the_summary_counts_all(raw: Path, tmp_path: Path) -> None:
    description = tiny_corpus.prepare(raw, tmp_path / "out").description
    said = summary(description)
    for part in ("8 train, 4 validation, 4 test captions", "16 pairs", "12 images", "h of speech", "frames (mfcc, 40"):
        assert part in said
    assert "h of speech" not in summary({**description, "hours": None})


def test_shards_that_are_there_are_kept(raw: Path, tmp_path: Path) -> None:
    first = tiny_corpus.prepare(raw, tmp_path / "out", num_shards=3)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").iterdir()}
    assert len(written) == 3
    second = tiny_corpus.prepare(raw, tmp_path / "out", num_shards=3)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").iterdir()} == written
    assert second.description == first.description and list(second.captions) == list(first.captions)


def test_shards_of_another_plan_are_written_anew(raw: Path, tmp_path: Path) -> None:
    tiny_corpus.prepare(raw, tmp_path / "out", num_shards=3)
    again = tiny_corpus.prepare(raw, tmp_path / "out", num_shards=3, short_side=48, replace=True)
    assert min(read_image(io.BytesIO(again.image(0))).size) == 48


def test_a_new_plan_takes_the_finished_corpus_away_until_it_is_done(raw: Path, tmp_path: Path) -> None:
    tiny_corpus.prepare(raw, tmp_path / "out")
    tiny_corpus.begin(raw, tmp_path / "out", short_side=48, replace=True)
    with pytest.raises(UserError, match="not finished"):
        PreparedCorpus.open(tmp_path / "out")


@pytest.mark.parametrize("damage", ["missing", "truncated", "overwritten", "without its plan"])
def test_only_what_is_not_whole_is_written_again(raw: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    first = tiny_corpus.prepare(raw, out, num_shards=3)
    times = {number: shard_path(out, number).stat().st_mtime_ns for number in range(3)}
    if damage == "missing":
        shard_path(out, 1).unlink()
    elif damage == "truncated":
        os.truncate(shard_path(out, 1), shard_path(out, 1).stat().st_size - 1)
    elif damage == "overwritten":
        content = shard_path(out, 1).read_bytes()
        shard_path(out, 1).write_bytes(content[:48] + bytes(1000) + content[1048:])
    else:
        with h5py.File(shard_path(out, 1), "r+") as shard:
            del shard.attrs["plan"]
    assert [is_written(out, number) for number in range(3)] == [True, False, True]
    if damage != "without its plan":
        with pytest.raises(UserError, match=str(shard_path(out, 1))):
            finish(out)
    second = tiny_corpus.prepare(raw, out, num_shards=3)
    assert second.identity == first.identity
    changed = {number for number in range(3) if shard_path(out, number).stat().st_mtime_ns != times[number]}
    assert changed == {1}


@pytest.mark.slow
def test_a_task_killed_while_it_writes_leaves_nothing_to_read(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    tiny_corpus.begin(raw, out, num_shards=2)
    write_shard(out, 0)
    task = f"""
        import os, signal
        from pathlib import Path
        import sia.atomic
        from sia.data.prepare import write_shard
        # The file's content is written, and has not been renamed yet.
        sia.atomic.os.fsync = lambda number: os.kill(os.getpid(), signal.SIGKILL)
        write_shard(Path({str(out)!r}), 1)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(task)], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert [is_written(out, number) for number in range(2)] == [True, False]
    write_shard(out, 1)
    finish(out)
    assert PreparedCorpus.open(out).identity == tiny_corpus.prepare(raw, tmp_path / "other").identity


def test_a_limit_takes_captions_of_the_whole_corpus(raw: Path, tmp_path: Path) -> None:
    tiny_corpus.begin(raw, tmp_path / "out", num_shards=1, limit=8)
    write_shard(tmp_path / "out", 0)
    finish(tmp_path / "out")
    splits = Counter(caption.split for caption in PreparedCorpus.open(tmp_path / "out").captions)
    assert splits == {"train": 4, "validation": 2, "test": 2}


def test_damaged_pixels_in_a_shard_name_their_caption(raw: Path, tmp_path: Path) -> None:
    corpus = tiny_corpus.prepare(raw, tmp_path / "out", num_shards=1)
    with h5py.File(shard_path(corpus.folder, 0), "r+") as shard:
        shard["image_bytes"][:] = 0
    with pytest.raises(UserError, match=corpus.captions[3].utterance_id):
        decoded(corpus, 3)


def test_no_plan_and_no_such_corpus(tmp_path: Path) -> None:
    from sia.data import corpora

    with pytest.raises(UserError, match=r"no plan\.json"):
        finish(tmp_path)
    with pytest.raises(UsageError, match="scenes"):
        corpora.read("nothing", tmp_path)


def test_a_corpus_without_captions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    tiny_corpus.describe(tmp_path / "raw", [])
    with pytest.raises(UserError, match=str(tmp_path / "raw")):
        tiny_corpus.prepare(tmp_path / "raw", tmp_path / "out")
