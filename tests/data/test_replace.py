"""A finished corpus is not changed under its runs."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_corpus

from sia.atomic import write_json
from sia.data.prepared_corpus import PreparedCorpus, shard_path
from sia.errors import UserError
from sia.run.folder import RunFolder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """16 captions of 12 images."""
    tiny_corpus.write_corpus(tmp_path / "raw", kinds=2)
    return tmp_path / "raw"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def begun_run(runs: Path, name: str, corpus: PreparedCorpus | None, folder: Path) -> None:
    run = RunFolder(runs / "size" / name)
    run.create(tiny_corpus.experiment(**{"data.folder": str(folder)}))
    if corpus is not None:
        write_json(run.corpus, {**corpus.description, "folder": str(folder)})


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("change", [{"short_side": 48}, {"num_shards": 3}, {"limit": 5}])
def test_another_plan_is_refused_and_changes_nothing(
    raw: Path, tmp_path: Path, runs: Path, change: dict[str, int]
) -> None:
    corpus = tiny_corpus.prepare(raw, tmp_path / "out")
    begun_run(runs, "trained", corpus, tmp_path / "out")
    begun_run(runs, "planned", None, tmp_path / "out")
    begun_run(runs, "of-another", None, tmp_path / "elsewhere")
    before = content(tmp_path / "out")
    with pytest.raises(UserError, match="--replace") as caught:
        tiny_corpus.begin(raw, tmp_path / "out", **change)
    said = str(caught.value)
    assert "2 runs use it (size/planned, size/trained)" in said and str(tmp_path / "out") in said and "\n" not in said
    assert content(tmp_path / "out") == before
    tiny_corpus.begin(raw, tmp_path / "out", **change, replace=True)


def test_without_runs_it_is_refused_too(raw: Path, tmp_path: Path, runs: Path) -> None:
    tiny_corpus.prepare(raw, tmp_path / "out")
    with pytest.raises(UserError, match=r"no run under .*runs uses it"):
        tiny_corpus.prepare(raw, tmp_path / "out", short_side=48)


@pytest.mark.parametrize("gone", ["shard", "plan.json", "captions.jsonl", "corpus.json"])
def test_the_same_plan_mends_what_is_gone(raw: Path, tmp_path: Path, gone: str) -> None:
    first = tiny_corpus.prepare(raw, tmp_path / "out")
    frames = [first.frames(index) for index in range(16)]
    (shard_path(first.folder, 1) if gone == "shard" else first.folder / gone).unlink()
    again = tiny_corpus.prepare(raw, tmp_path / "out")
    assert again.identity == first.identity and again.checksums == first.checksums
    assert all((again.frames(index) == frames[index]).all() for index in range(16))


def test_a_damaged_description_is_written_again(raw: Path, tmp_path: Path) -> None:
    first = tiny_corpus.prepare(raw, tmp_path / "out")
    os.truncate(first.folder / "corpus.json", 100)
    assert tiny_corpus.prepare(raw, tmp_path / "out").identity == first.identity


def test_a_shard_that_is_read_again_from_other_files_is_refused(raw: Path, tmp_path: Path) -> None:
    """The plan names paths, not what lies there."""
    corpus = tiny_corpus.prepare(raw, tmp_path / "out")
    captions = tiny_corpus.read(raw).captions
    tiny_corpus.speak(Path(captions[0].speech_path), 5, 5, seed=99)
    shard_path(corpus.folder, 0).unlink()
    with pytest.raises(UserError, match=r"have another content.*--replace"):
        tiny_corpus.prepare(raw, tmp_path / "out")
    assert tiny_corpus.prepare(raw, tmp_path / "out", replace=True).identity != corpus.identity


def test_a_preparation_that_was_not_finished_may_change_its_plan(raw: Path, tmp_path: Path) -> None:
    tiny_corpus.begin(raw, tmp_path / "out")
    assert tiny_corpus.prepare(raw, tmp_path / "out", short_side=48).description["short_side"] == 48


@pytest.mark.parametrize("limit", [1, 9, 15])
def test_a_limit_keeps_so_many(raw: Path, tmp_path: Path, limit: int) -> None:
    tiny_corpus.begin(raw, tmp_path / "out", num_shards=1, limit=limit)
    lines = (tmp_path / "out" / "plan" / "00000.jsonl").read_text().splitlines()
    assert len(set(lines)) == limit


def test_an_image_file_under_two_ids_is_refused(raw: Path, tmp_path: Path) -> None:
    captions = tiny_corpus.read(raw).captions
    shown = [replace(c, image_id=c.utterance_id) if c.split == "train" else c for c in captions]
    tiny_corpus.describe(raw, shown)
    with pytest.raises(UserError, match=r"4 image files have several ids \(.*train-0-0-0 and train-0-0-1\)"):
        tiny_corpus.begin(raw, tmp_path / "out")


def test_a_recording_in_two_splits_is_refused(raw: Path, tmp_path: Path) -> None:
    captions = tiny_corpus.read(raw).captions
    heard = [*captions[:-1], replace(captions[-1], speech_path=captions[0].speech_path)]
    tiny_corpus.describe(raw, heard, held_out="captions")
    with pytest.raises(UserError, match=r"1 recording has several splits \(.*test and train\)"):
        tiny_corpus.begin(raw, tmp_path / "out")


@pytest.mark.parametrize("link", [shutil.copyfile, os.link, os.symlink])
def test_copies_are_counted(raw: Path, tmp_path: Path, link: object) -> None:
    """Of two images of different splits, of two of one, and of a recording."""
    from sia.data.prepare import summary

    def copied(source: str, target: str) -> None:
        os.unlink(target)
        link(source, target)  # type: ignore[operator]

    by_name = {caption.utterance_id: caption for caption in tiny_corpus.read(raw).captions}
    copied(by_name["train-0-0-0"].image_path, by_name["test-0-0-0"].image_path)
    copied(by_name["train-0-1-0"].image_path, by_name["train-1-0-0"].image_path)
    copied(by_name["train-0-1-0"].speech_path, by_name["validation-0-0-0"].speech_path)
    description = tiny_corpus.prepare(raw, tmp_path / "out").description
    assert description["repeated"] == {
        "images": 2,
        "images_in_several_splits": 1,
        "first_images": ["test-0-0", "train-0-0"],
        "recordings_in_several_splits": 1,
    }
    said = summary(description)
    assert "warning: 2 images lie under several ids" in said and "1 of them in several splits" in said
    assert "warning: 1 recordings lie in several splits" in said
