"""An export and what reads it back."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from desk import Desk
from safetensors.torch import load_file, save_file

import sia
from sia.atomic import read_json, write_json
from sia.errors import UsageError, UserError
from sia.inference.load import write_export
from sia.inference.trained_pair import TrainedPair
from sia.run.folder import RunFolder


@pytest.fixture
def export(pair: TrainedPair, tmp_path: Path) -> Path:
    write_export(pair, tmp_path / "export")
    return tmp_path / "export"


def test_the_same_embeddings_come_back(pair: TrainedPair, export: Path, raw: Path) -> None:
    again = sia.load(export, device="cpu")
    for image, speech in (("test-0-1.png", "test-0-1-0.wav"), ("train-2-2.png", "train-2-2-1.wav")):
        assert torch.equal(again.embed_image(raw / image), pair.embed_image(raw / image))
        assert torch.equal(again.embed_speech(raw / speech), pair.embed_speech(raw / speech))
    assert again.settings.provenance == pair.settings.provenance


def test_the_two_files_say_all(pair: TrainedPair, run: RunFolder, export: Path, corpus: Path) -> None:
    assert sorted(path.name for path in export.iterdir()) == ["config.json", "model.safetensors"]
    weights = load_file(export / "model.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in pair.network.state_dict().items())
    config, finished = read_json(export / "config.json"), read_json(run.finished)
    assert config["model"] == run.experiment().model.model_dump(mode="json")
    assert config["corpus"]["frame_mean"] == read_json(corpus / "corpus.json")["frame_mean"]
    expected = {"run": run.name, "study": "study", "signature": run.experiment().signature, "checkpoint": "best"}
    expected |= {"epoch": finished["best_epoch"], "stage": 1, "test": finished["test"]}
    assert config["provenance"].items() >= expected.items()
    assert str(corpus) not in json.dumps(config)


def test_an_export_is_written_over_an_older_one_or_a_torn_one(pair: TrainedPair, run: RunFolder, export: Path) -> None:
    (export / "config.json").unlink()
    (export / ".model.safetensors.ab12.tmp").touch()
    with pytest.raises(UserError, match=r"config.json: not the config.json of an exported pair"):
        sia.load(export)
    write_export(sia.load(run.path, "last", "cpu"), export)
    provenance = sia.load(export).settings.provenance
    assert provenance["epoch"] == 2
    assert (provenance["test"] is not None) == (read_json(run.finished)["best_epoch"] == 2), (
        "recalls of another are none"
    )


def test_a_folder_of_something_else_is_left_alone(pair: TrainedPair, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match=r"holds 'thesis\.tex', no export does"):
        write_export(pair, tmp_path)
    with pytest.raises(UserError, match="a file is there"):
        write_export(pair, tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_another_checkpoint_than_the_exported_one_is_refused(export: Path, run: RunFolder) -> None:
    epoch = read_json(run.finished)["best_epoch"]
    assert sia.load(export, f"epoch={epoch}").settings.provenance["epoch"] == epoch
    with pytest.raises(UsageError, match=f"holds epoch {epoch} alone"):
        sia.load(export, "last")


def test_damaged_exports_are_named(export: Path) -> None:
    kept, config = (export / "model.safetensors").read_bytes(), read_json(export / "config.json")
    for content in (b"", kept[:-100], b"noise" * 100):
        (export / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=r"model.safetensors: not the weights of its config.json"):
            sia.load(export)
    save_file({"weight": torch.zeros(1)}, export / "model.safetensors")
    with pytest.raises(UserError, match=r"not the weights of its config.json .*export the run again"):
        sia.load(export)
    for key, value, said in (
        ("format_version", 99, "export version 99"),
        ("model", None, "model"),
        ("data", {"crop_size": -1}, "crop_size"),
        ("corpus", None, "says nothing of 'features'"),
    ):
        write_json(export / "config.json", {**config, key: value})
        with pytest.raises(UserError, match=said):
            sia.load(export)


def test_the_command_writes_an_export_beside_the_run(run: RunFolder, pair: TrainedPair, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.path, tmp_path / "runs" / "study" / run.name))
    desk = Desk(tmp_path / "desk")
    done = desk.call("export.py", copy, "--no-mlflow")
    assert done.returncode == 0, done.stderr
    out = copy / "exports" / f"epoch-{read_json(run.finished)['best_epoch']:04d}"
    wave = np.random.default_rng(0).standard_normal(8000)
    assert torch.equal(sia.load(out).embed_speech(wave), pair.embed_speech(wave))
    (desk.folder / "mine").mkdir()
    (desk.folder / "mine" / "thesis.tex").touch()
    for flags, status, said in (
        (("--checkpoint", "newest"), 2, "use best, last or epoch=N"),
        (("--checkpoint", "epoch=9"), 1, "no checkpoint epoch=9"),
        (("--out", "mine"), 1, "mine: holds 'thesis.tex', no export does; give a new folder with --out"),
    ):
        done = desk.call("export.py", run.path, *flags)
        assert done.returncode == status and said in done.stderr and done.stderr.count("\n") == 1
    assert len(list(desk.folder.rglob("*"))) == 2
