"""What tells the runs of a study apart."""

from written_runs import experiment

from sia.report.settings import differing, in_short


def short(*experiments) -> list[list[str]]:
    return in_short(differing(experiments))


def test_nothing_differs():
    assert short(experiment(), experiment()) == [[], []]
    assert short(experiment(), experiment(**{"data.folder": "/elsewhere", "runtime.num_workers": 7})) == [[], []]
    assert differing([]) == []


def test_keys_are_short_where_that_tells_enough():
    changed = {"optimizer.learning_rate": 0.003, "loss.name": "info_nce", "stages.2.lr_scale": 0.25}
    assert short(experiment(), experiment(**changed)) == [
        ["loss.name=hinge", "learning_rate=0.0002", "stages.2.lr_scale=0.5"],
        ["loss.name=info_nce", "learning_rate=0.003", "stages.2.lr_scale=0.25"],
    ]
    two = [{"one.margin": 1, "other.margin": 2, "other.scale": 0.1 + 0.2}]
    assert in_short(two) == [["one.margin=1", "other.margin=2", "scale=0.3"]]


def test_settings_that_not_every_kind_has_are_told_where_they_differ():
    cold, warm = (experiment(loss={"name": "info_nce", "temperature": value}) for value in (0.05, 0.1))
    assert short(experiment(), cold, warm) == [
        ["loss.name=hinge"],
        ["loss.name=info_nce", "temperature=0.05"],
        ["loss.name=info_nce", "temperature=0.1"],
    ]


def test_the_pair_is_told_by_its_name_and_kept_for_programs():
    wide = experiment(**{"model.latent_size": 128, "training.seed": 1})
    assert short(experiment(), wide) == [["seed=0"], ["seed=1"]]
    assert differing([experiment(), wide])[1] == {"model.latent_size": 128, "training.seed": 1}


def test_chains_of_different_length_are_told_in_words():
    one = experiment(stages=[{"epochs": 3, "schedule": "calr"}])
    assert short(one, experiment()) == [
        ["stages=3 calr 0.0002"],
        ["stages=3 calwr 0.0002, then 2 calr 0.0001"],
    ]
