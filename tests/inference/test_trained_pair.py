"""A pair that embeds one clip, against evaluation's embedder over the prepared corpus."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_corpus
import torch
from PIL import Image
from torch import Tensor

import sia
from sia.atomic import read_json, write_json
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.embedding import Embedder
from sia.errors import UsageError, UserError
from sia.inference.trained_pair import TrainedPair
from sia.run.folder import RunFolder

KEPT = ("test-0-1-0", "test-3-2-0", "train-2-2-1")


@pytest.fixture(scope="module")
def prepared(corpus: Path) -> PreparedCorpus:
    return PreparedCorpus.open(corpus)


@pytest.fixture(scope="module")
def embedder(prepared: PreparedCorpus, pair: TrainedPair, run: RunFolder) -> Embedder:
    return Embedder(pair.network, prepared, run.experiment().data, Ranks(), 8)


def indices(prepared: PreparedCorpus) -> list[int]:
    place = {caption.utterance_id: index for index, caption in enumerate(prepared.captions)}
    return [place[name] for name in KEPT]


def close(one: Tensor, other: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def changed(run: RunFolder, into: Path, **corpus: object) -> RunFolder:
    """A copy of the run, whose corpus.json says something else."""
    copy = RunFolder(Path(shutil.copytree(run.path, into / run.name)))
    write_json(copy.corpus, {**read_json(copy.corpus), **corpus})
    return copy


def test_clips_embed_as_those_of_the_prepared_corpus(
    pair: TrainedPair, embedder: Embedder, prepared: PreparedCorpus, raw: Path
) -> None:
    recordings, images = [raw / f"{name}.wav" for name in KEPT], [raw / f"{name[:-2]}.png" for name in KEPT]
    own = indices(prepared)
    for together, alone, paths, expected in (
        (pair.embed_speeches, pair.embed_speech, recordings, embedder.speech(own)),
        (pair.embed_images, pair.embed_image, images, embedder.images(own)),
    ):
        close(together(paths), expected)
        close(torch.stack([alone(path) for path in paths]), expected)
    close(pair.embed_frames(prepared.frames(own[0])), pair.embed_speech(recordings[0]))


def test_every_form_of_a_query_gives_the_same_embedding(pair: TrainedPair, raw: Path) -> None:
    sound, picture = raw / f"{KEPT[0]}.wav", raw / "test-0-1.png"
    samples = soundfile.read(sound, dtype="float32")[0]
    expected = pair.embed_speech(sound)
    for speech in (str(sound), sound.read_bytes(), samples, torch.from_numpy(samples), samples.astype(np.float64)):
        close(pair.embed_speech(speech), expected)
    expected = pair.embed_image(picture)
    for image in (str(picture), picture.read_bytes(), Image.open(picture), Image.open(picture).convert("RGBA")):
        close(pair.embed_image(image), expected)


def test_embeddings_are_unit_vectors_that_can_be_trained_on(pair: TrainedPair, raw: Path) -> None:
    for embedded in (pair.embed_speech(raw / f"{KEPT[0]}.wav"), pair.embed_image(raw / "test-0-1.png")):
        assert embedded.shape == (16,) and embedded.dtype == torch.float32 and embedded.device.type == "cpu"
        assert float(embedded.norm()) == pytest.approx(1, abs=1e-6) and not embedded.is_inference()
    assert pair.embed_speeches([]).shape == pair.embed_images([]).shape == (0, 16)


def test_a_clips_embedding_does_not_depend_on_those_beside_it(pair: TrainedPair) -> None:
    """More than a batch of them, of all lengths; their order is kept."""
    chance = np.random.default_rng(1)
    clips = [chance.standard_normal(length) for length in (80_000, *chance.integers(2000, 8000, 40), 80_000)]
    close(pair.embed_speeches(clips), torch.stack([pair.embed_speech(clip) for clip in clips]), 1e-5)


def test_another_rate_and_two_channels(pair: TrainedPair, tmp_path: Path) -> None:
    time = np.arange(48_000) / 48_000
    wave = 0.3 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "two.flac", np.stack([wave, wave], axis=1), 48_000)
    assert pair.embed_speech(tmp_path / "two.flac") @ pair.embed_speech(wave, sample_rate=48_000) > 0.999
    close(pair.embed_speech(wave[::3], 16_000), pair.embed_speech(wave[::3]))


def test_a_large_or_upright_photograph_is_resized_and_cropped(pair: TrainedPair, tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for height, width in ((100, 300), (300, 100), (10, 12), (32, 32)):
        Image.fromarray(chance.integers(0, 255, (height, width, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
        assert pair.view(tmp_path / "a.jpg").shape == (tiny_corpus.SIDE - 2, tiny_corpus.SIDE - 2, 3)


def test_neither_the_corpus_nor_its_raw_files_are_needed(run: RunFolder, pair: TrainedPair, tmp_path: Path) -> None:
    copy = changed(run, tmp_path, folder="gone")
    text = copy.config.read_text()
    copy.config.write_text(text.replace(str(run.experiment().data.folder), str(tmp_path / "gone")))
    wave = np.random.default_rng(0).standard_normal(8000)
    close(sia.load(copy.path).embed_speech(wave), pair.embed_speech(wave))


def test_a_run_is_found_by_its_name_and_by_its_checkpoint(
    run: RunFolder, pair: TrainedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIA_RUNS", str(run.path.parents[1]))
    last = sia.load(run.name, "last", device="cpu")
    assert last.settings.provenance["epoch"] == 2 and last.settings.provenance["checkpoint"] == "last"
    wave = np.random.default_rng(0).standard_normal(8000)
    best = read_json(run.finished)["best_epoch"]
    assert torch.equal(sia.load(f"study/{run.name}").embed_speech(wave), pair.embed_speech(wave))
    assert torch.allclose(last.embed_speech(wave), pair.embed_speech(wave)) == (best == 2)


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("speech", "said"),
    [
        ("none.wav", "none.wav: unreadable speech.*mend"),
        (b"noise", "no readable sound; give a wav"),
        (np.zeros(100), "100 samples at 16 kHz.*give a longer recording"),
        (np.zeros(900), "5 frames; give at least 6"),
        (np.zeros((2, 8000)), r"shape \[2, 8000\]; give one channel"),
        (np.zeros(8000, dtype=np.int16), "samples of int16; give floats"),
        (np.full(8000, np.nan), "no numbers"),
    ],
)
def test_speech_that_cannot_be_embedded(pair: TrainedPair, speech: object, said: str) -> None:
    with pytest.raises(UserError, match=said) as refusal:
        pair.embed_speech(speech)  # type: ignore[arg-type]
    assert "\n" not in str(refusal.value)


def test_images_and_frames_that_cannot_be_embedded(pair: TrainedPair) -> None:
    cut_off = encoded(Image.new("RGB", (9, 9)))[:40]
    for image, said in (
        ("none.png", "none.png: unreadable image"),
        (b"noise", "no readable"),
        (cut_off, "no readable"),
    ):
        with pytest.raises(UserError, match=said):
            pair.embed_image(image)  # type: ignore[arg-type]
    for frames in (np.zeros((20, 39)), np.zeros(40), np.zeros((5, 40)), np.full((9, 40), np.inf)):
        with pytest.raises(UserError, match="the frames: "):
            pair.embed_frames(frames)


@pytest.mark.parametrize(("key", "value"), [("kind", "melspec"), ("hop_length", 160)])
def test_a_pair_of_other_features_reads_frames_alone(
    run: RunFolder, tmp_path: Path, pair: TrainedPair, key: str, value: object
) -> None:
    features = {**pair.settings.features, key: value}
    other = sia.load(changed(run, tmp_path, features=features).path)
    with pytest.raises(UserError, match=rf"trained on frames of {key} {value!r}.*embed_frames"):
        other.embed_speech(np.zeros(8000))
    frames = np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)
    close(other.embed_frames(frames), pair.embed_frames(frames))


def test_a_run_without_its_statistics_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.json: says nothing of 'frame_mean'"):
        sia.load(changed(run, tmp_path, frame_mean=None).path)


def test_wrong_sources_are_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such run"):
        sia.load(tmp_path / "none")
    with pytest.raises(UsageError, match="use best, last or epoch=N"):
        sia.load(run.path, "newest")
    with pytest.raises(UserError, match="device 'abacus'"):
        sia.load(run.path, device="abacus")
