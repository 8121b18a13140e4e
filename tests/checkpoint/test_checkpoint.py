"""What a restart finds again, and which files it refuses."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_corpus
import torch

from sia.checkpoint.chosen import damage_of
from sia.checkpoint.state import Progress, TrainingState, read_checkpoint, without_moments, write_checkpoint
from sia.config import Model, flatten, merge, nest
from sia.data.sampler import BucketBatchSampler
from sia.errors import UserError
from sia.models.dual_encoder import DualEncoder

torch.set_num_threads(1)
MODEL = tiny_corpus.experiment().model


def state(seed: int = 0, architecture: Model = MODEL, fused: bool = True) -> TrainingState:
    torch.manual_seed(seed)
    model = DualEncoder.from_config(architecture)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=fused)
    return TrainingState(model, optimizer, BucketBatchSampler([9] * 20, 4, 0), Progress(1), architecture)


def step(one: TrainingState) -> None:
    frames, images = torch.randn(3, 20, 40), torch.randn(3, 3, 32, 32)
    speech, image = one.model(frames, torch.tensor([20, 9, 14]), images)
    one.optimizer.zero_grad()
    (speech * image).sum().backward()
    one.optimizer.step()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A checkpoint after three steps."""
    one = state()
    for _ in range(3):
        step(one)
    one.sampler.set_position(4, 2)
    one.progress = Progress(2, epochs_done=4, step=22, loss_sum=1.5, best_value=0.25, best_epoch=3, rows=[{"epoch": 1}])
    one.save(tmp_path / "last.pt")
    return tmp_path / "last.pt"


def refused(path: Path, act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_what_was_saved_is_restored(written: Path) -> None:
    """The next step is the same to the bit, whatever the state held before it was loaded."""
    ends = []
    for seed in (1, 2):
        one = state(seed)
        step(one)
        one.load(written)
        assert (one.sampler.epoch, one.sampler.next_batch) == (4, 2)
        assert (one.progress.step, one.progress.loss_sum, one.progress.rows) == (22, 1.5, [{"epoch": 1}])
        step(one)
        ends.append(torch.cat([weight.detach().flatten() for weight in one.model.parameters()]))
        assert one.optimizer.state_dict()["state"][0]["step"] == 4
    assert torch.equal(*ends)


def test_how_adam_computes_is_the_programs_choice_not_the_files(tmp_path: Path) -> None:
    one, other = state(fused=False), state(1)
    step(one)
    one.save(tmp_path / "last.pt")
    other.load(tmp_path / "last.pt")
    step(other)
    assert other.optimizer.param_groups[0]["fused"] and other.optimizer.state_dict()["state"][0]["step"] == 2


def test_random_states_are_restored(tmp_path: Path) -> None:
    one = state()
    random.seed(3)
    random.gauss(0, 1)  # leaves a second number behind
    one.save(tmp_path / "last.pt")
    drawn = torch.rand(3).tolist(), random.gauss(0, 1), random.random()
    torch.manual_seed(9)
    random.seed(9)
    one.load(tmp_path / "last.pt")
    assert (torch.rand(3).tolist(), random.gauss(0, 1), random.random()) == drawn


def test_any_program_may_load_it_without_running_code(written: Path) -> None:
    content = torch.load(written, weights_only=True)
    assert {"model", "optimizer", "sampler", "progress", "random", "architecture"} <= content.keys()
    assert Model(**content["architecture"]) == MODEL


@pytest.mark.parametrize("keep_moments", [False, True])
def test_a_warm_restart_takes_weights_and_the_moments_that_it_is_asked_to(written: Path, keep_moments: bool) -> None:
    one, content = state(1), torch.load(written)
    one.start_from(written, keep_moments)
    assert all(map(torch.equal, one.model.state_dict().values(), content["model"].values()))
    moments = one.optimizer.state_dict()["state"]
    assert moments.keys() == (content["optimizer"]["state"].keys() if keep_moments else set())
    assert not keep_moments or torch.equal(moments[0]["exp_avg"], content["optimizer"]["state"][0]["exp_avg"])
    assert (vars(one.progress), one.sampler.epoch) == (vars(Progress(1)), 0)


def test_weights_alone_have_no_moments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Gone on with where nothing better is whole, and a line says what is lost."""
    path = tmp_path / "weights.pt"
    kept, other, third = state(), state(1), state(2)
    kept.sampler.set_position(4)
    write_checkpoint(path, without_moments(kept.content()))
    step(other)
    other.load(path)
    assert other.sampler.epoch == 4 and "no Adam moments" in capsys.readouterr().err
    assert "keep_moments" in refused(path, lambda: state().start_from(path, keep_moments=True))
    third.start_from(path, keep_moments=False)
    assert all(map(torch.equal, third.model.state_dict().values(), kept.model.state_dict().values()))


@pytest.mark.parametrize(
    ("key", "value"), [("gru_layers", 2), ("latent_size", 18), ("image.blocks", [1, 2]), ("image.growth_rate", 4)]
)
def test_another_architecture_is_refused(written: Path, key: str, value: object) -> None:
    values = MODEL.model_dump()
    other = state(0, Model.model_validate(merge(values, nest({key: value}))))
    for act in (lambda: other.load(written), lambda: other.start_from(written, keep_moments=False)):
        told = refused(written, act)
        assert f"model.{key} {flatten(values)[key]} (this run has {value})" in told


def test_what_is_no_checkpoint_is_refused(written: Path, tmp_path: Path) -> None:
    """A damaged file, another program's, text, one that would run code; and one that is missing, or of the future."""
    content, values, other = written.read_bytes(), torch.load(written), tmp_path / "other.pt"
    for share in (0.0, 0.3, 0.9):
        written.write_bytes(content[: int(share * len(content))])
        assert "not a checkpoint" in refused(written, lambda: state().load(written))
    evil = {"checkpoint_version": 1, "architecture": Touch(tmp_path / "ran")}
    for foreign in ({"model": {}}, [1, 2], {"checkpoint_version": 1, "architecture": {"layers": 3}}, evil):
        torch.save(foreign, other)
        assert "not a checkpoint" in refused(other, lambda: read_checkpoint(other, MODEL))
    assert not (tmp_path / "ran").exists()
    other.write_text("weights")
    assert "not a checkpoint" in refused(other, lambda: read_checkpoint(other, MODEL))
    assert "no such checkpoint" in refused(tmp_path / "no.pt", lambda: read_checkpoint(tmp_path / "no.pt", MODEL))
    torch.save({**values, "checkpoint_version": 99}, other)
    assert "checkpoint version 99" in refused(other, lambda: state().load(other))


def test_a_file_that_cannot_be_read_is_no_damaged_one(tmp_path: Path) -> None:
    """A folder in its place stands for a disk that errs and for permissions, which root does not meet."""
    (tmp_path / "last.pt").mkdir()
    told = refused(tmp_path / "last.pt", lambda: read_checkpoint(tmp_path / "last.pt", MODEL))
    assert "Is a directory" in told and "not a checkpoint" not in told
    with pytest.raises(IsADirectoryError):
        damage_of(tmp_path / "last.pt")


class Touch:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_save_that_fails_keeps_the_checkpoint_of_before(written: Path) -> None:
    before = written.read_bytes()
    one = state()
    one.progress.rows.append({"epoch": lambda: 1})  # cannot be written
    with pytest.raises(Exception, match="lambda"):
        one.save(written)
    assert written.read_bytes() == before
    assert [path.name for path in written.parent.iterdir()] == [written.name]
