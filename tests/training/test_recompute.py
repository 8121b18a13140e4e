"""With `training.recompute` a step learns what it does without, in less memory; test_gradient.py has it on ranks."""

from pathlib import Path
from typing import Any

import pytest
import stages
import torch
from torch.profiler import ProfilerActivity, profile

from sia.data.prepared_corpus import PreparedCorpus
from sia.distributed import Ranks
from sia.training.trainer import Trainer, build_trainer

WIDE = {"model.image": {"blocks": [8, 8], "growth_rate": 4, "initial_features": 8}}


def trainer(corpus: Path, **dotted: Any) -> Trainer:
    settings = stages.experiment(corpus, **WIDE, **dotted)
    return build_trainer(settings, settings.stages[0], PreparedCorpus.open(corpus), Ranks())


@pytest.mark.parametrize(
    "dotted", [{}, {"training.chunk_size": 6}, {"training.precision": "bf16"}], ids=["whole", "chunks", "bf16"]
)
def test_a_step_is_the_same_to_the_bit(corpus: Path, dotted: dict[str, Any]) -> None:
    """Running statistics among it: a batch is counted once."""
    plain, less = (trainer(corpus, **dotted, **{"training.recompute": value}) for value in (False, True))
    assert less.state.model.state_dict().keys() == plain.state.model.state_dict().keys()
    for _ in range(2):
        batch = stages.first_batch(plain)
        assert torch.equal(less.step(batch), plain.step(batch))
    gradients = [[weight.grad for weight in one.state.model.parameters()] for one in (less, plain)]
    assert stages.same(*gradients) and stages.same(*(one.state.model.state_dict() for one in (less, plain)))


def test_a_layer_keeps_what_it_adds_and_not_what_it_concatenates(corpus: Path) -> None:
    """What is taken and not given back until the gradient is due."""
    taken = []
    for recompute in (False, True):
        image = trainer(corpus, **{"training.recompute": recompute}).state.model.image
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
            embedded = image(torch.randn(16, 3, 30, 30))
        taken.append(sum(event.self_cpu_memory_usage for event in seen.key_averages()))
        del embedded
    assert 0 < taken[1] < taken[0] / 2
