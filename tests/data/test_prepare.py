"""From files on disk to shards: what a preparation makes, keeps, and leaves where it is killed or asked for another."""

import io
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
import tiny_corpus
from desk import Desk, wait_until
from readings import add, described, moved, prepare_reading

from sia.atomic import write_json
from sia.data.images import pixels, read_image
from sia.data.mfcc import mfcc
from sia.data.prepare import finish, is_written, read_plan
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.shards import shard_path
from sia.errors import UserError
from sia.run.folder import RunFolder


def times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted((folder / "shards").iterdir())}


def test_frames_and_images_are_those_of_the_files(whole: PreparedCorpus) -> None:
    raw = whole.folder.parent / "raw"
    for index, caption in enumerate(whole.captions):
        wave, rate = soundfile.read(raw / f"{caption.utterance_id}.wav", dtype="float32")
        assert np.array_equal(whole.frames(index), mfcc(wave, rate).numpy())
        original = pixels(read_image(raw / f"{caption.image_id}.png"))
        assert np.array_equal(pixels(read_image(io.BytesIO(whole.image(index)))), original)


@pytest.mark.parametrize("num_shards", [1, 20])
def test_identity_depends_neither_on_the_number_of_shards_nor_on_where_the_files_lie(
    whole: PreparedCorpus, tmp_path: Path, num_shards: int
) -> None:
    """Twenty: more than there are images, so that some shards are empty."""
    raw = moved(whole.folder.parent / "raw", tmp_path / "elsewhere")
    corpus = tiny_corpus.prepare(raw, tmp_path / "out", num_shards)
    assert corpus.identity == whole.identity and corpus.description.num_shards == num_shards
    for key, value in whole.description:
        if key not in ("num_shards", "checksums"):
            approximate = isinstance(value, list)  # sums of floats, in another order
            assert getattr(corpus.description, key) == (pytest.approx(value) if approximate else value)
    shards_of = {(caption.image_id, caption.shard) for caption in corpus.captions}
    assert len(shards_of) == corpus.description.num_images == 12, "captions of an image lie in one shard"


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


def test_statistics_are_those_of_the_training_split(whole: PreparedCorpus) -> None:
    train, description = whole.split("train"), whole.description
    shown = {whole.captions[index].image_id: whole.image(index) for index in train}
    colours = np.concatenate([pixels(read_image(io.BytesIO(image))).reshape(-1, 3) / 255 for image in shown.values()])
    frames = np.concatenate([whole.frames(index) for index in train])
    assert description.pixel_mean == pytest.approx(colours.mean(axis=0).tolist())
    assert description.pixel_std == pytest.approx(colours.std(axis=0).tolist())
    assert description.frame_mean == pytest.approx(frames.mean(axis=0, dtype=float).tolist())
    assert description.frame_std == pytest.approx(frames.std(axis=0, dtype=float).tolist())


def test_an_image_of_two_splits_counts_where_it_is_trained_on(raw: Path, tmp_path: Path) -> None:
    """Where captions are held out, the first caption of an image may be one of validation or test."""
    train = [caption for caption in tiny_corpus.read(raw).captions if caption.split == "train"]
    means = []
    for order in (("train", "test"), ("test", "train")):
        captions = [replace(caption, split=order[place % 2]) for place, caption in enumerate(train)]
        tiny_corpus.describe(raw, captions, held_out="captions")
        means.append(tiny_corpus.prepare(raw, tmp_path / order[0]).description.pixel_mean)
    assert means[1] == pytest.approx(means[0]) and min(means[0]) > 0


def test_the_summary_counts_all_and_tells_notes_which_change_no_shard(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = tiny_corpus.prepare(raw, out)
    written = times(out)
    prepare_reading(tiny_corpus.read(raw)._replace(notes=("val is the test split",)), out)
    corpus = PreparedCorpus.open(out)
    assert corpus.identity == first.identity and times(out) == written
    said = corpus.description.summary()
    for part in ("8 train, 4 validation, 4 test captions", "16 pairs", "12 images", "h of speech", "frames (mfcc, 40"):
        assert part in said
    assert "val is the test split" in said and read_plan(out).notes == corpus.description.notes
    assert "h of speech" not in corpus.description.model_copy(update={"hours": None}).summary()


@pytest.mark.parametrize("damage", ["nothing", "missing", "truncated", "overwritten", "without its plan"])
def test_only_what_is_not_whole_is_written_again(copy: Path, whole: PreparedCorpus, damage: str) -> None:
    path, before = shard_path(copy, 1), times(copy)
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        os.truncate(path, path.stat().st_size - 1)
    elif damage == "overwritten":
        content = path.read_bytes()
        path.write_bytes(content[:48] + bytes(1000) + content[1048:])
    elif damage == "without its plan":
        with h5py.File(path, "r+") as shard:
            del shard.attrs["plan"]
    assert [is_written(copy, number) for number in range(3)] == [True, damage == "nothing", True]
    if damage not in ("nothing", "without its plan"):
        with pytest.raises(UserError, match=str(path)):
            finish(copy)
    again = tiny_corpus.prepare(whole.folder.parent / "raw", copy, num_shards=3)
    assert again.description == whole.description and list(again.captions) == list(whole.captions)
    assert {path for path, time in times(copy).items() if time != before[path]} == {path} - (
        {path} if damage == "nothing" else set()
    )


@pytest.mark.parametrize("gone", ["plan.json", "captions.jsonl", "captions.npy", "corpus.json", "half of corpus.json"])
def test_the_same_plan_mends_what_is_gone(copy: Path, whole: PreparedCorpus, gone: str) -> None:
    if gone.startswith("half"):
        os.truncate(copy / "corpus.json", 100)
    else:
        (copy / gone).unlink()
    again = tiny_corpus.prepare(whole.folder.parent / "raw", copy, num_shards=3)
    assert again.description == whole.description
    assert all(np.array_equal(again.frames(index), whole.frames(index)) for index in range(16))


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_command(raw: Path, tmp_path: Path) -> None:
    table = ("--corpus", "table", "--root", raw / "captions.jsonl", "--shards", 8)
    started = Desk(tmp_path).start("prepare.py", *table, "--out", tmp_path / "out")

    def workers() -> list[int]:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(place.name)) == started.pid and "spawn_main" in (place / "cmdline").read_text():
                    found.append(int(place.name))
            except OSError:
                continue
        return found

    wait_until(workers, 120, "the workers of the shards")
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    wait_until(lambda: not workers(), 20, "the workers' end")


@pytest.mark.parametrize("limit", [1, 8, 9, 15])
def test_a_limit_takes_captions_of_the_whole_corpus(raw: Path, tmp_path: Path, limit: int) -> None:
    tiny_corpus.begin(raw, tmp_path / "out", num_shards=1, limit=limit)
    lines = (tmp_path / "out" / "plan" / "00000.jsonl").read_text().splitlines()
    assert len(set(lines)) == limit
    assert limit != 8 or sum('"split": "train"' in line for line in lines) == 4


def test_what_cannot_be_prepared_is_refused(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no plan\.json"):
        finish(tmp_path)
    captions = [add(raw, "a"), add(raw, "b")]
    with pytest.raises(UserError, match=r"out: every caption .*'tiny' was dropped.*unreadable speech") as caught:
        described(raw, captions, tmp_path / "out")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="not finished"):
        PreparedCorpus.open(tmp_path / "out")
    tiny_corpus.describe(raw, [])
    with pytest.raises(UserError, match=f"{raw}: no caption"):
        tiny_corpus.prepare(raw, tmp_path / "out")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def begun_run(runs: Path, name: str, corpus: PreparedCorpus | None, folder: Path) -> None:
    run = RunFolder(runs / "size" / name)
    run.create(tiny_corpus.experiment(**{"data.folder": str(folder)}))
    if corpus is not None:
        write_json(run.corpus, {"name": "tiny", "identity": corpus.identity, "folder": str(folder)})


def test_a_finished_corpus_is_not_changed_under_its_runs(whole: PreparedCorpus, copy: Path, runs: Path) -> None:
    raw = whole.folder.parent / "raw"
    before = {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()}
    with pytest.raises(UserError, match=r"no run under .*runs uses it"):
        tiny_corpus.begin(raw, copy, num_shards=2)
    begun_run(runs, "trained", whole, copy)
    begun_run(runs, "planned", None, copy)
    begun_run(runs, "of-another", None, copy / "elsewhere")
    for change in ({"short_side": 48}, {"num_shards": 2}, {"limit": 5}):
        with pytest.raises(UserError, match="--replace") as caught:
            tiny_corpus.begin(raw, copy, **{"num_shards": 3, **change})
        said = str(caught.value)
        assert "2 runs use it (size/planned, size/trained)" in said and str(copy) in said and "\n" not in said
    assert {path: path.read_bytes() for path in sorted(copy.rglob("*")) if path.is_file()} == before
    tiny_corpus.begin(raw, copy, short_side=48, replace=True)
    with pytest.raises(UserError, match="not finished"):
        PreparedCorpus.open(copy)
    assert min(read_image(io.BytesIO(tiny_corpus.prepare(raw, copy, short_side=48).image(0))).size) == 48


def test_a_shard_that_is_read_again_from_other_files_is_refused(raw: Path, copy: Path, whole: PreparedCorpus) -> None:
    """The plan names paths, not what lies there."""
    corpus = tiny_corpus.prepare(raw, copy, replace=True)
    tiny_corpus.speak(Path(tiny_corpus.read(raw).captions[0].speech_path), 5, 5, seed=99)
    shard_path(copy, 0).unlink()
    with pytest.raises(UserError, match=r"have another content.*--replace"):
        tiny_corpus.prepare(raw, copy)
    assert tiny_corpus.prepare(raw, copy, replace=True).identity != corpus.identity


def test_an_image_file_under_two_ids_and_a_recording_in_two_splits_are_refused(raw: Path, tmp_path: Path) -> None:
    captions = tiny_corpus.read(raw).captions
    tiny_corpus.describe(raw, [replace(c, image_id=c.utterance_id) if c.split == "train" else c for c in captions])
    with pytest.raises(UserError, match=r"4 image files have several ids \(.*train-0-0-0 and train-0-0-1\)"):
        tiny_corpus.begin(raw, tmp_path / "out")
    heard = [*captions[:-1], replace(captions[-1], speech_path=captions[0].speech_path)]
    tiny_corpus.describe(raw, heard, held_out="captions")
    with pytest.raises(UserError, match=r"1 recording has several splits \(.*test and train\)"):
        tiny_corpus.begin(raw, tmp_path / "out")


@pytest.mark.parametrize("link", [shutil.copyfile, os.symlink])
def test_copies_are_counted(raw: Path, tmp_path: Path, link: Callable[[str, str], object]) -> None:
    """Of two images of different splits, of two of one, and of a recording."""
    by_name = {caption.utterance_id: caption for caption in tiny_corpus.read(raw).captions}
    for source, target, what in (
        ("train-0-0-0", "test-0-0-0", "image_path"),
        ("train-0-1-0", "train-1-0-0", "image_path"),
        ("train-0-1-0", "validation-0-0-0", "speech_path"),
    ):
        os.unlink(getattr(by_name[target], what))
        link(getattr(by_name[source], what), getattr(by_name[target], what))
    description = tiny_corpus.prepare(raw, tmp_path / "out").description
    assert description.repeated == {
        "images": 2,
        "images_in_several_splits": 1,
        "first_images": ["test-0-0", "train-0-0"],
        "recordings_in_several_splits": 1,
    }
    said = description.summary()
    assert "warning: 2 images lie under several ids" in said and "1 of them in several splits" in said
    assert "warning: 1 recordings lie in several splits" in said
