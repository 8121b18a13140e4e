"""Search of folders and corpora, in process and as a person runs it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from desk import Desk
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sia.atomic import read_json, write_json
from sia.errors import UsageError, UserError
from sia.inference.search import Collection, captions_of, collections_of, images_of
from sia.inference.trained_pair import TrainedPair
from sia.run.folder import RunFolder


@pytest.fixture
def album(raw: Path, tmp_path: Path) -> Path:
    """Three images in folders, one file that only looks like an image, and recordings."""
    for place in ("b/second.png", "a.PNG", "c/d/third.png"):
        (tmp_path / "album" / place).parent.mkdir(parents=True, exist_ok=True)
    for name, place in (("test-0-1", "b/second.png"), ("test-1-1", "a.PNG"), ("test-2-3", "c/d/third.png")):
        shutil.copy(raw / f"{name}.png", tmp_path / "album" / place)
    (tmp_path / "album" / "b" / "broken.jpg").write_bytes(b"not a JPEG")
    (tmp_path / "album" / "notes.txt").write_text("no image")
    shutil.copy(raw / "test-0-1-0.wav", tmp_path / "album" / "b" / "spoken.wav")
    return tmp_path / "album"


def collection(rows: Tensor) -> Collection:
    return Collection(rows, [f"item {number}" for number in range(len(rows))], [""] * len(rows), Path)


@settings(deadline=None)
@given(values=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=12), count=st.integers(1, 15))
def test_the_nearest_come_first_and_ties_stay_in_order(values: list[float], count: int) -> None:
    hits = collection(torch.tensor(values)[:, None]).nearest(torch.ones(1), count)
    expected = sorted(range(len(values)), key=lambda row: -values[row])[:count]
    assert [(hit.name, hit.similarity) for hit in hits] == [(f"item {row}", values[row]) for row in expected]
    assert [hit.rank for hit in hits] == list(range(1, len(expected) + 1))


def test_images_or_recordings_below_a_folder_in_the_order_of_their_names(pair: TrainedPair, album: Path) -> None:
    found = images_of(pair, album)
    assert found.names == ["a.PNG", "b/second.png", "c/d/third.png"]
    torch.testing.assert_close(found.embeddings, pair.embed_images([album / name for name in found.names]))
    assert len(found.skipped) == 1 and "b/broken.jpg: unreadable image" in found.skipped[0]
    spoken = captions_of(pair, album)
    assert spoken.names == ["b/spoken.wav"] and not spoken.skipped
    torch.testing.assert_close(spoken.embeddings[0], pair.embed_speech(album / "b" / "spoken.wav"))


@pytest.mark.parametrize(("ending", "kind"), [("mp3", ("MP3", "MPEG_LAYER_III")), ("opus", ("OGG", "OPUS"))])
def test_a_phones_recordings_are_searched(
    pair: TrainedPair, raw: Path, tmp_path: Path, ending: str, kind: tuple[str, str]
) -> None:
    samples, rate = soundfile.read(raw / "test-0-1-0.wav")
    soundfile.write(tmp_path / f"memo.{ending}", samples, rate, format=kind[0], subtype=kind[1])
    assert captions_of(pair, tmp_path).names == [f"memo.{ending}"]


def test_what_is_served_lies_in_the_folder_at_every_look(pair: TrainedPair, album: Path, raw: Path) -> None:
    (album / "linked.png").symlink_to(raw / "test-0-2.png")
    assert "linked.png" in images_of(pair, album).names, "a person may search where links lead"
    found = images_of(pair, album, served=True)
    assert found.names == ["a.PNG", "b/second.png", "c/d/third.png"]
    assert any("linked.png: leads out of" in line for line in found.skipped)
    (album / "a.PNG").unlink()
    (album / "a.PNG").symlink_to(raw / "test-0-2.png")
    assert found.original(1) == album / "b/second.png"
    with pytest.raises(UserError, match="leads out of"):
        found.original(0)


def test_a_terminal_is_shown_how_far_a_large_folder_is(
    pair: TrainedPair, album: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    for quiet in (True, False):
        collections_of(pair, album, None, quiet=quiet)
        assert ("1/1" in capsys.readouterr().out) == (not quiet)


def test_a_corpus_has_each_image_once_and_every_caption(pair: TrainedPair, corpus: Path, raw: Path) -> None:
    images, captions = images_of(pair, corpus), captions_of(pair, corpus, "train")
    assert len(images.names) == len(set(images.names)) == 48 and len(captions.names) == 48
    assert len(images_of(pair, corpus, "train").names) == 16
    row, name = 20, images.names[20]
    torch.testing.assert_close(images.embeddings[row], pair.embed_image(raw / f"{name}.png"), rtol=0, atol=1e-6)
    row, name = 31, captions.names[31]
    torch.testing.assert_close(captions.embeddings[row], pair.embed_speech(raw / f"{name}.wav"), rtol=0, atol=1e-6)


def test_another_corpus_is_seen_with_the_statistics_of_the_trained_one(
    pair: TrainedPair, corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(corpus, tmp_path / "other")
    description = read_json(corpus / "corpus.json")
    write_json(tmp_path / "other" / "corpus.json", {**description, "pixel_mean": [9.0] * 3, "frame_std": [9.0] * 40})
    for of in (images_of, captions_of):
        assert torch.equal(of(pair, tmp_path / "other", "test").embeddings, of(pair, corpus, "test").embeddings)


def test_a_corpus_made_in_another_way_is_refused(pair: TrainedPair, corpus: Path, tmp_path: Path) -> None:
    other = {"short_side": 64}, {"features": {"kind": "melspec", "coefficients": 40}}
    for number, (changed, said) in enumerate(zip(other, ("short side of 64", "features|frames"), strict=True)):
        folder = Path(shutil.copytree(corpus, tmp_path / str(number)))
        write_json(folder / "corpus.json", {**read_json(corpus / "corpus.json"), **changed})
        with pytest.raises(UserError, match=said):
            images_of(pair, folder)


def test_a_folder_in_which_nothing_can_be_searched(pair: TrainedPair, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file that ends in \.png"):
        images_of(pair, tmp_path)
    (tmp_path / "a.wav").write_bytes(b"noise")
    with pytest.raises(UserError, match=r"no readable recording; the first: .*a\.wav"):
        captions_of(pair, tmp_path)
    with pytest.raises(UsageError, match=r"--split test: .* is no prepared corpus"):
        captions_of(pair, tmp_path, "test")


def test_the_command_finds_the_image_that_is_most_similar(
    run: RunFolder, pair: TrainedPair, raw: Path, album: Path, tmp_path: Path
) -> None:
    desk = Desk(tmp_path / "desk")
    query = raw / "test-0-1-0.wav"
    done = desk.call("search.py", run.path, "--speech", query, "--images", album, "--top", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert "skipped: " in done.stderr and "broken.jpg" in done.stderr
    answer = json.loads(done.stdout)
    found = images_of(pair, album)
    similarities = (found.embeddings @ pair.embed_speech(query)).numpy()
    best = np.argsort(-similarities)[:2]
    assert answer["searched"] == 3
    assert [hit["name"] for hit in answer["results"]] == [found.names[row] for row in best]
    assert [hit["similarity"] for hit in answer["results"]] == pytest.approx(similarities[best].tolist(), abs=1e-6)


def test_the_command_the_other_way_round(run: RunFolder, raw: Path, corpus: Path, tmp_path: Path) -> None:
    flags = ("--image", raw / "test-0-1.png", "--captions", corpus, "--split", "test", "--top", "4")
    done = Desk(tmp_path / "desk").call("search.py", run.path, *flags)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["1", "2", "3", "4"]
    assert all(row[2].startswith("test-") for row in rows)
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        ("", 2, "give --speech with --images, or --image with --captions; there is none of them"),
        ("--speech q.wav --captions d", 2, "there is --speech, --captions"),
        ("--speech q.wav --images d --image q.wav --captions d", 2, "--speech, --images, --image, --captions"),
        ("--speech q.wav --images d --html d", 2, "--html d: a folder; give the file that the page is to be"),
        ("--serve", 2, "give --images, --captions or both; there is none of them"),
        ("--serve --speech q.wav --images d", 2, "there is --speech, --images"),
        ("--speech q.wav --images d --top 0", 2, "--top 0: give 1 or more"),
        ("--speech none.wav --images d", 1, "none.wav: no such file"),
        ("--speech q.wav --images none", 1, "none: no such folder"),
        ("--speech q.wav --images d", 1, "nobody: no such run"),
    ],
)
def test_a_wrong_question_is_one_line(tmp_path: Path, flags: str, status: int, said: str) -> None:
    desk = Desk(tmp_path / "desk")
    (desk.folder / "d").mkdir()
    (desk.folder / "q.wav").touch()
    done = desk.call("search.py", "nobody", *flags.split())
    assert done.returncode == status and said in done.stderr and done.stderr.count("\n") == 1
