"""What tells the runs of a study apart."""

import pytest
from written_runs import experiment

from sia.report.differences import differing, in_short

WARM, COLD = ({"name": "info_nce", "temperature": value} for value in (0.1, 0.05))
CHANGED = {"optimizer.learning_rate": 0.003, "loss.name": "info_nce", "stages.2.lr_scale": 0.25}
PAIR = {"model.latent_size": 128, "training.seed": 1}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ([], []),
        ([{}, {"data.folder": "/elsewhere", "runtime.num_workers": 7}], ["", ""]),
        (
            [{}, CHANGED],
            [
                "loss.name=hinge learning_rate=0.0002 stages.2.lr_scale=0.5",
                "loss.name=info_nce learning_rate=0.003 stages.2.lr_scale=0.25",
            ],
        ),
        # Settings that not every kind has are told where they differ.
        (
            [{}, {"loss": COLD}, {"loss": WARM}],
            ["loss.name=hinge", "loss.name=info_nce temperature=0.05", "loss.name=info_nce temperature=0.1"],
        ),
        # The pair is told by its name.
        ([{}, PAIR], ["seed=0", "seed=1"]),
        (
            [{"stages": [{"epochs": 3, "schedule": "calr"}]}, {}],
            ["stages=3 calr 0.0002", "stages=3 calwr 0.0002, then 2 calr 0.0001"],
        ),
    ],
)
def test_what_differs_is_told_in_short(changes, told):
    assert [" ".join(one) for one in in_short(differing([experiment(**one) for one in changes]))] == told


def test_keys_are_whole_where_two_end_alike_and_all_are_kept_for_programs():
    two = [{"one.margin": 1, "other.margin": 2, "other.scale": 0.1 + 0.2}]
    assert in_short(two) == [["one.margin=1", "other.margin=2", "scale=0.3"]]
    assert differing([experiment(), experiment(**PAIR)])[1] == PAIR
