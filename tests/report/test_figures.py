import io

import pytest
from PIL import Image
from written_runs import begin_run, epoch_row, experiment, finish_run

from sia.config import Stage
from sia.report.figures import MANY_GROUPS, curves, cycles_drawn, recall_by_epoch, recall_by_size, segments, sizes
from sia.report.groups import grouped
from sia.report.summary import Restart, restarts, summarise
from sia.run.metrics import append_row
from sia.run.records import StagePlan
from sia.schedules import Calr, Calwr


@pytest.mark.parametrize(
    ("stage", "ends"),
    [
        (Stage(epochs=127), [1, 3, 7, 15, 31, 63]),
        (Stage(epochs=128), [1, 3, 7, 15, 31, 63, 127]),
        (Stage(epochs=1), []),
        (Stage(epochs=10, schedule=Calwr(first_cycle_epochs=3, multiplier=1)), [3, 6, 9]),
        (Stage(epochs=10, schedule=Calwr(first_cycle_epochs=20)), []),
        (Stage(epochs=120, schedule=Calr()), []),
    ],
)
def test_cycles_end_where_the_rate_restarts(stage, ends):
    assert stage.schedule.restarts(stage.epochs) == ends


PAPERS = (Stage(epochs=120, schedule=Calr()), 0, None), (Stage(epochs=30, schedule=Calr()), 120, 59)  # DG2A2048
LATER = (Stage(epochs=3), 0, None), (Stage(epochs=7), 3, 2)


@pytest.mark.parametrize(
    ("chain", "trained", "found"),
    [
        (PAPERS, 150, [(120, 59)]),
        (LATER, 10, [(1, None), (3, 2), (4, None), (6, None)]),
        # One after the last epoch has not happened.
        (LATER[:1], 3, [(1, None)]),
    ],
)
def test_stages_and_the_cycles_in_them_restart_the_rate(chain, trained, found):
    plans = [StagePlan(stage=stage, first_epoch=first, start_epoch=start, start_lr=1) for stage, first, start in chain]
    assert restarts(plans, trained) == [Restart(*one) for one in found]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_curves_of_the_split_that_chooses_break_between_stages(tmp_path, split):
    run = summarise(finish_run(tmp_path, "size", experiment(**{"training.select_on": split})))
    found = [*segments(run, f"{split}/speech_to_image/R_at_10")]
    assert found == [pytest.approx(one) for one in ({1: 30.0, 2: 45.0, 3: 40.0}, {4: 50.0, 5: 47.5})]
    assert not list(segments(run, "train/speech_to_image/R_at_10"))


def test_figures_are_pngs_of_all_runs(tmp_path):
    """More configurations than the palette has colours, several seeds, and a run that has just begun."""
    configs = [experiment(**{"loss.margin": margin / 10}) for margin in range(9)]
    runs = [finish_run(tmp_path, "size", config) for config in (*configs, experiment(**{"training.seed": 1}))]
    runs.append(begin_run(tmp_path, "size", experiment(**{"training.seed": 2})))
    append_row(runs[-1].metrics, epoch_row(1, 1, 1, 0.1))
    summaries = [summarise(run) for run in runs]
    for png in (recall_by_epoch(summaries), recall_by_size(summaries)):
        image = Image.open(io.BytesIO(png))
        image.load()
        assert image.format == "PNG" and min(image.size) > 400
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 20)) > 20


def test_the_axes_name_the_split_that_chose_the_epoch(tmp_path):
    runs = [finish_run(tmp_path, "size", experiment(**{"training.select_on": one})) for one in ("validation", "test")]
    validation, test = map(summarise, runs)
    by_epoch = [curves(one).axes[0].get_ylabel() for one in ([validation], [test], [validation, test])]
    assert by_epoch == [
        "R@10 on the validation split (%)",
        "R@10 on the test split, which chose the best epoch (%)",
        "R@10 on the split that chose the best epoch (%)",
    ]
    by_size = [sizes(grouped(one)) for one in ([validation], [test], [validation, test])]
    labels = [figure.axes[0].get_ylabel() for figure in by_size]
    assert ["chosen on test" in label for label in labels] == [False, True, False]
    assert "chosen on test" in "".join(text.get_text() for text in by_size[2].axes[0].texts)


def test_a_cycle_is_in_the_legend_only_where_one_is_drawn(tmp_path):
    one_cycle = [Stage(epochs=epochs, schedule=Calr()).model_dump() for epochs in (3, 2)]
    runs = [finish_run(tmp_path, "size", experiment(**stages)) for stages in ({}, {"stages": one_cycle})]
    with_cycles, without = map(summarise, runs)
    assert cycles_drawn([with_cycles, without]) == [1] and cycles_drawn([without]) == []
    legends = [curves([run]).axes[-1].get_legend() for run in (with_cycles, without)]
    told = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    assert ["new cycle of the rate" in texts for texts in told] == [True, False]


def test_of_many_configurations_the_best_are_named_and_the_others_counted(tmp_path):
    configs = [experiment(**{"loss.margin": margin / 100}) for margin in range(MANY_GROUPS + 3)]
    runs = [finish_run(tmp_path, "size", config, peak=0.5 - config.loss.margin) for config in configs]
    figure = curves([summarise(run) for run in runs])
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told[-1] == "3 others" and len(told) == MANY_GROUPS + 1
    assert not any(f"margin={margin}" in text for margin in (0.2, 0.21, 0.22) for text in told)


def test_nothing_to_draw_is_no_figure(tmp_path):
    waiting = [summarise(begin_run(tmp_path, "size", experiment()))]
    assert recall_by_epoch(waiting) is None and recall_by_size(waiting) is None
