import io

import pytest
from PIL import Image
from written_runs import begin_run, epoch_row, experiment, finish_run

from sia.config import Stage
from sia.report.figures import (
    curves,
    cycles_drawn,
    epochs_label,
    recall_by_epoch,
    recall_by_size,
    segments,
    sizes_label,
)
from sia.report.groups import grouped
from sia.report.restarts import Begun, Restart, restarts
from sia.report.summary import summarise
from sia.run.metrics import append_row
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


def test_the_papers_dg2a2048_restarts_once_from_epoch_59():
    chain = [Begun(Stage(epochs=120, schedule=Calr())), Begun(Stage(epochs=30, schedule=Calr()), 120, 59)]
    assert restarts(chain, epochs_trained=150) == [Restart(120, stage=2, from_epoch=59)]


def test_cycles_of_a_later_stage_count_on():
    chain = [Begun(Stage(epochs=3)), Begun(Stage(epochs=7), 3, 2)]
    assert [(one.after_epoch, one.from_epoch) for one in restarts(chain, 10)] == [
        (1, None),
        (3, 2),
        (4, None),
        (6, None),
    ]


def test_a_restart_after_the_last_epoch_has_not_happened():
    assert restarts([Begun(Stage(epochs=127))], epochs_trained=7) == [Restart(1, stage=1), Restart(3, stage=1)]


def test_curves_break_between_stages(tmp_path):
    run = summarise(finish_run(tmp_path, "size", experiment(), peak=0.5))
    found = [(epochs, [round(value, 6) for value in values]) for epochs, values in segments(run, KEY)]
    assert found == [([1, 2, 3], [30.0, 45.0, 40.0]), ([4, 5], [50.0, 47.5])]


KEY = "validation/speech_to_image/R_at_10"


def test_figures_are_pngs_of_all_runs(tmp_path):
    configs = [
        experiment(**{"training.seed": seed, "model.gru_layers": layers}) for seed in (0, 1) for layers in (1, 2)
    ]
    runs = [finish_run(tmp_path, "size", config) for config in configs]
    runs.append(begin_run(tmp_path, "size", experiment(**{"training.seed": 2})))
    append_row(runs[-1].metrics, epoch_row(1, 1, 1, 0.1))
    summaries = [summarise(run) for run in runs]
    for png in (recall_by_epoch(summaries), recall_by_size(summaries)):
        image = Image.open(io.BytesIO(png))
        image.load()
        assert image.format == "PNG" and min(image.size) > 400
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 20)) > 20


def test_the_axis_names_the_split_that_chose_the_epoch(tmp_path):
    by_split = {
        split: summarise(finish_run(tmp_path, "size", experiment(**{"training.select_on": split})))
        for split in ("validation", "test")
    }
    validation, test, mixed = (
        grouped(runs) for runs in ([by_split["validation"]], [by_split["test"]], list(by_split.values()))
    )
    assert epochs_label(validation) == "R@10 on the validation split (%)"
    assert epochs_label(test) == "R@10 on the test split, which chose the best epoch (%)"
    assert epochs_label(mixed) == "R@10 on the split that chose the best epoch (%)"
    assert "chosen on test" in sizes_label(test) and "chosen" not in sizes_label(validation)
    assert recall_by_epoch(list(by_split.values())) and recall_by_size(list(by_split.values()))


def test_curves_of_the_papers_protocol_are_those_of_test(tmp_path):
    run = summarise(finish_run(tmp_path, "size", experiment(**{"training.select_on": "test"})))
    assert [epochs for epochs, _ in segments(run, "test/speech_to_image/R_at_10")] == [[1, 2, 3], [4, 5]]
    assert not list(segments(run, KEY))


def test_a_cycle_is_in_the_legend_only_where_one_is_drawn(tmp_path):
    one_cycle = [Stage(epochs=3, schedule=Calr()).model_dump(), Stage(epochs=2, schedule=Calr()).model_dump()]
    with_cycles = summarise(finish_run(tmp_path, "size", experiment()))
    without = summarise(finish_run(tmp_path, "size", experiment(stages=one_cycle)))
    assert cycles_drawn([with_cycles, without]) == [1] and cycles_drawn([without]) == []
    assert "new cycle of the rate" in legend_of(with_cycles) and "new cycle of the rate" not in legend_of(without)


def legend_of(run):
    figure = curves([run])
    return [text.get_text() for text in figure.axes[-1].get_legend().get_texts()]


def test_nothing_to_draw_is_no_figure(tmp_path):
    waiting = [summarise(begin_run(tmp_path, "size", experiment()))]
    assert recall_by_epoch(waiting) is None and recall_by_size(waiting) is None


def test_many_configurations_fit(tmp_path):
    configs = [experiment(**{"loss.margin": margin / 10}) for margin in range(9)]
    summaries = [summarise(finish_run(tmp_path, "size", config)) for config in configs]
    assert recall_by_epoch(summaries)
