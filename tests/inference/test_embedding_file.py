"""The file of embeddings and states, against the embedder and the pair it was made with."""

import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from desk import REPOSITORY, Desk

from sia.atomic import read_json, write_json
from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.embedding import Embedder, recalls
from sia.errors import UsageError, UserError
from sia.inference import prepared
from sia.inference.embedding_file import write_embeddings
from sia.inference.trained_pair import TrainedPair
from sia.models.speech_encoder import valid_steps
from sia.models.unit import unit
from sia.recall import recall_report
from sia.run.folder import RunFolder


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces smaller than a split."""
    monkeypatch.setattr(prepared, "PIECE", 5)


def names(file: h5py.File, key: str) -> list[str]:
    return [name.decode() for name in file[key][:]]


@pytest.mark.usefixtures("pieces")
@pytest.mark.parametrize("split", ["train", "test"])
def test_embeddings_equal_the_embedders_and_recall_follows_from_them(
    pair: TrainedPair, corpus: Path, tmp_path: Path, split: str
) -> None:
    rows = write_embeddings(pair, corpus, split, tmp_path / "out.h5")
    prepared = PreparedCorpus.open(corpus)
    embedder = Embedder(pair.network, prepared, pair.settings.data, Ranks(), 64)
    indices = prepared.split(split)
    captions = [prepared.captions[index] for index in indices]
    with h5py.File(tmp_path / "out.h5") as file:
        assert names(file, "utterance_ids") == [caption.utterance_id for caption in captions]
        images = names(file, "image_ids")
        speech, pool, own = (torch.from_numpy(file[key][:]) for key in ("speech", "images", "image_of_speech"))
    assert sorted(images) == sorted({caption.image_id for caption in captions})
    assert [images[row] for row in own] == [caption.image_id for caption in captions]
    assert rows == {"speech": len(indices), "images": len(images)}
    torch.testing.assert_close(speech, embedder.speech(indices), rtol=0, atol=1e-6)
    torch.testing.assert_close(pool[own], embedder.images(indices), rtol=0, atol=1e-6)
    found = {f"{split}/{key}": value for key, value in recall_report(speech, pool, own).items()}
    assert found == pytest.approx(recalls(embedder, {split: indices}))


@pytest.mark.usefixtures("pieces")
def test_states_of_the_last_layer_attend_to_the_embedding(pair: TrainedPair, corpus: Path, tmp_path: Path) -> None:
    write_embeddings(pair, corpus, "train", tmp_path / "out.h5", "gru2")
    with h5py.File(tmp_path / "out.h5") as file:
        offsets, states = file["state_offsets"][:], torch.from_numpy(file["states"][:])
        assert offsets[0] == 0 and offsets[-1] == len(states) and len(offsets) == len(file["speech"]) + 1
        for row in range(len(offsets) - 1):
            own = states[offsets[row] : offsets[row + 1]][None]
            with torch.no_grad():
                embedded = unit(pair.network.speech.attention(own, valid_steps(torch.tensor([own.shape[1]]), own)))
            np.testing.assert_allclose(embedded[0].numpy(), file["speech"][row], rtol=0, atol=1e-5)


def test_states_of_the_convolution(pair: TrainedPair, corpus: Path, tmp_path: Path) -> None:
    rows = write_embeddings(pair, corpus, "test", tmp_path / "out.h5", "conv")
    prepared = PreparedCorpus.open(corpus)
    frames = pair.standardised(torch.from_numpy(prepared.frames(prepared.split("test")[3])))
    with torch.no_grad():
        expected = pair.network.speech.conv(frames.T[None])[0].T
    with h5py.File(tmp_path / "out.h5") as file:
        first, end = file["state_offsets"][3:5]
        np.testing.assert_allclose(file["states"][first:end], expected.numpy(), rtol=0, atol=1e-5)
        assert file.attrs["layer"] == "conv" and rows["states"] == len(file["states"])
        # Six frames of 25 ms every 12.5 ms: the first state's middle lies between frames 2 and 3.
        assert file.attrs["seconds_a_state"] == pytest.approx(0.025)
        assert file.attrs["first_state_centre_seconds"] == pytest.approx(0.03125)


def test_the_states_of_features_of_unknown_times_say_no_times(pair: TrainedPair, corpus: Path, tmp_path: Path) -> None:
    features = {"kind": "melspec", "coefficients": 40}
    other = Path(shutil.copytree(corpus, tmp_path / "other"))
    write_json(other / "corpus.json", {**read_json(corpus / "corpus.json"), "features": features})
    settings = replace(pair.settings, corpus={**pair.settings.corpus, "features": features})
    write_embeddings(TrainedPair(pair.network, settings, pair.device), other, "test", tmp_path / "out.h5", "gru1")
    with h5py.File(tmp_path / "out.h5") as file:
        assert "seconds_a_state" not in file.attrs and file.attrs["layer"] == "gru1"
    with pytest.raises(UserError, match=r"features|frames"):
        write_embeddings(pair, other, "test", tmp_path / "refused.h5")
    assert not (tmp_path / "refused.h5").exists()


def test_a_layer_or_split_that_is_not_there_writes_nothing(pair: TrainedPair, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--layer gru3: .* use one of conv, gru1, gru2"):
        write_embeddings(pair, corpus, "test", tmp_path / "out.h5", "gru3")
    with pytest.raises(UserError, match="no caption of split 'dev'"):
        write_embeddings(pair, corpus, "dev", tmp_path / "out.h5")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_whence_the_embeddings_come(run: RunFolder, corpus: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    done = desk.call("embed.py", run.path, "--layer", "gru1", "--out", "out.h5", "--checkpoint", "last")
    assert done.returncode == 0, done.stderr
    with h5py.File(desk.folder / "out.h5") as file:
        attributes = dict(file.attrs)
        assert f"{len(file['states'])} states of epoch 2" in done.stdout
    expected = {"run": run.name, "study": "study", "signature": run.experiment().signature, "checkpoint": "last"}
    expected |= {"epoch": 2, "stage": 1, "split": "test", "layer": "gru1"}
    expected |= {"corpus": "tiny", "corpus_identity": read_json(corpus / "corpus.json")["identity"]}
    assert attributes.items() >= expected.items()


def test_wrong_flags_are_one_line(run: RunFolder, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    for flags, status, said in (
        (("--layer", "gru7"), 2, "--layer gru7: this pair has no such layer; use one of conv, gru1, gru2"),
        (("--corpus", "gone"), 1, "gone: no prepared corpus there"),
        (("--checkpoint", "newest"), 2, "use best, last or epoch=N"),
    ):
        done = desk.call("embed.py", run.path, *flags)
        assert done.returncode == status and said in done.stderr and done.stderr.count("\n") == 1
    assert list(desk.folder.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ("embed.py", "--layer", "gru7"),
        ("export.py", "--checkpoint", "epoch=9"),
        ("search.py", "--speech", "none.wav", "--images", "."),
    ],
)
def test_a_wrong_flag_is_told_before_torch_is_loaded(run: RunFolder, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was loaded')")
    name, *flags = command
    done = Desk(tmp_path / "desk").run(name, run.path, *flags, PYTHONPATH=f"{tmp_path}:{REPOSITORY}")
    assert done.returncode in (1, 2) and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
