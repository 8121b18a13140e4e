import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from written_runs import begin_run, epoch_row, experiment, finish_run

from sia.config import Stage
from sia.gallery import page
from sia.report.by_epoch import cycles_drawn, recall_by_epoch, segments
from sia.report.chance import chance
from sia.report.figures import MANY_GROUPS, Compared, pareto, recall_by_size, recall_on_test, trained_and_test
from sia.report.groups import grouped
from sia.report.style import COLOURS, INK, inline_svg, png, swatch
from sia.report.summary import Restart, restarts, summarise
from sia.run.records import StagePlan
from sia.run.row_files import append_row
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


def compared(summaries, **pools):
    return Compared(grouped(summaries), {split: chance(*pool) for split, pool in pools.items()})


def labels(drawn):
    return [label for label, _ in drawn.key]


def test_figures_are_pngs_and_inline_svgs_of_all_runs(tmp_path):
    """More configurations than the palette has colours, several seeds, and a run that has just begun."""
    configs = [experiment(**{"loss.margin": margin / 10, "model.gru_layers": 1 + margin % 3}) for margin in range(9)]
    runs = [finish_run(tmp_path, "size", config) for config in (*configs, experiment(**{"training.seed": 1}))]
    runs.append(begin_run(tmp_path, "size", experiment(**{"training.seed": 2})))
    append_row(runs[-1].metrics, epoch_row(1, 1, 1, 0.1))
    study = compared([summarise(run) for run in runs])
    for draw in (recall_on_test, recall_by_epoch, recall_by_size):
        image = Image.open(io.BytesIO(png(draw(study))))
        image.load()
        assert image.format == "PNG" and min(image.size) > 400
        assert len(image.convert("RGB").getcolors(maxcolors=1 << 20)) > 20


def test_an_svg_takes_the_pages_ink_and_shares_no_id_with_another(tmp_path):
    study = compared([summarise(finish_run(tmp_path, "size", experiment()))])
    one, other = (
        inline_svg(recall_by_epoch(study, ["speech_to_image"]).figure, name, "<R@10>") for name in ("one", "other")
    )
    assert "currentColor" in one and "var(--c1)" in one and "&lt;R@10&gt;" in one
    assert "http" not in one and "#1b1b1f" not in one
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (one, other)]
    assert not ids[0] & ids[1]
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', one)) <= ids[0], "what is referred to is there"


def test_a_name_is_no_formula(tmp_path):
    runs = [finish_run(tmp_path, "size", experiment(**{"data.corpus": name})) for name in ("a$b^{c$d", "plain")]
    drawn = recall_by_epoch(compared([summarise(run) for run in runs]))
    assert "a$b^{c$d" in labels(drawn) and png(drawn)
    assert r"a\$b^{c\$d" in [text.get_text() for text in drawn.figure.legends[0].get_texts()]


def test_a_name_is_no_markup_either(tmp_path):
    names = ("--><script>alert(1)</script><!--", "plain")
    runs = [finish_run(tmp_path, "size", experiment(**{"data.corpus": name})) for name in names]
    drawn = recall_on_test(compared([summarise(run) for run in runs]), ["speech_to_image"])
    svg = inline_svg(drawn.figure, "one", names[0])
    assert "<script" not in svg and "--><" not in svg.replace("-->\n", "")


def test_chance_is_a_line_in_every_figure_that_knows_it(tmp_path):
    runs = [finish_run(tmp_path, "size", experiment(**{"model.gru_layers": layers})) for layers in (1, 2)]
    for run in runs:
        trained = {f"train/{one}/R_at_10": 0.9 for one in ("speech_to_image", "image_to_speech")}
        append_row(run.metrics, {**epoch_row(6, 2, 3, 0.4), **trained})
    summaries = [summarise(run) for run in runs]
    for draw in (recall_on_test, recall_by_epoch, recall_by_size, trained_and_test):
        known, unknown = draw(compared(summaries, test=(400, 400), validation=(50, 50))), draw(compared(summaries))
        at = 20.0 if draw is recall_by_epoch else 2.5
        along = "get_xdata" if draw is recall_on_test else "get_ydata"
        lines = [line for line in known.figure.axes[0].lines if [*getattr(line, along)()] == [at, at]]
        assert len(lines) == 1 and "chance" in labels(known) and "chance" not in labels(unknown)


@pytest.mark.parametrize(
    ("pool", "found"),
    [((400, 400), (0.025, 0.025)), ((5, 5), (1, 1)), ((20, 4), (1, 1 - 15 / 20 * 14 / 19 * 13 / 18 * 12 / 17))],
)
def test_chance_counts_what_guesses_reach(pool, found):
    k = 10 if pool[0] != 20 else 4
    assert [*chance(*pool, k).values()] == [pytest.approx(one) for one in found]


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 10.0), (2, 30.0), (3, 20.0), (4, 40.0)], [(1, 10.0), (2, 30.0), (4, 40.0)]),
        ([(2, 30.0), (1, 30.0), (1, 5.0)], [(1, 30.0)]),
    ],
)
def test_on_the_pareto_front_nothing_smaller_does_better(points, front):
    assert pareto(points) == front


def test_the_axes_name_the_split_that_chose_the_epoch(tmp_path):
    changes = [{"training.select_on": split, "model.gru_layers": n} for split in ("test", "validation") for n in (1, 2)]
    summaries = [summarise(finish_run(tmp_path, "size", experiment(**change))) for change in changes]
    test, validation = summaries[:2], summaries[2:]
    by_epoch = [recall_by_epoch(compared(one)).figure.axes[0].get_ylabel() for one in (validation, test, summaries)]
    assert by_epoch == [
        "R@10 on validation (%)",
        "R@10 on test, which chose the best epoch (%)",
        "R@10 on the split that chose (%)",
    ]
    by_size = [recall_by_size(compared(one)) for one in (validation, test, summaries)]
    assert ["chosen on test" in drawn.figure.axes[0].get_ylabel() for drawn in by_size] == [False, True, False]
    assert "chosen on test" in "".join(labels(by_size[2]))


def test_a_mark_is_in_the_legend_only_where_one_is_drawn(tmp_path):
    one_cycle = [Stage(epochs=epochs, schedule=Calr()).model_dump() for epochs in (3, 2)]
    runs = [finish_run(tmp_path, "size", experiment(**stages)) for stages in ({}, {"stages": one_cycle})]
    with_cycles, without = map(summarise, runs)
    assert cycles_drawn([with_cycles, without]) == [1] and cycles_drawn([without]) == []
    told = [labels(recall_by_epoch(compared([run]))) for run in (with_cycles, without)]
    assert ["new cycle" in texts for texts in told] == [True, False] and "new stage" in told[1]


def test_of_many_configurations_the_best_are_named_and_the_others_counted(tmp_path):
    configs = [experiment(**{"loss.margin": margin / 100}) for margin in range(MANY_GROUPS + 3)]
    runs = [finish_run(tmp_path, "size", config, peak=0.5 - config.loss.margin) for config in configs]
    told = labels(recall_by_epoch(compared([summarise(run) for run in runs])))
    assert "3 others" in told and sum("margin" in text for text in told) == MANY_GROUPS
    assert not any(f"margin {margin}" in text for margin in (0.07, 0.08, 0.09) for text in told)


def test_pairs_below_chance_are_drawn_beside_its_line(tmp_path):
    runs = [finish_run(tmp_path, "size", experiment(**{"loss.margin": margin}), 0.01) for margin in (0.1, 0.2)]
    (axes,) = recall_on_test(compared([summarise(run) for run in runs], test=(40, 40)), ["speech_to_image"]).figure.axes
    assert axes.get_xlim()[1] > 25 == chance(40, 40)["speech_to_image"] * 100


def test_a_figure_of_one_point_is_none(tmp_path):
    waiting = compared([summarise(begin_run(tmp_path, "size", experiment()))])
    one = compared([summarise(finish_run(tmp_path, "size", experiment()))])
    assert [draw(waiting) for draw in (recall_on_test, recall_by_epoch, recall_by_size, trained_and_test)] == [None] * 4
    assert [draw(one) for draw in (recall_on_test, recall_by_size, trained_and_test)] == [None] * 3


def test_the_best_on_test_stands_first_with_its_interval(tmp_path):
    peaks = {0.1: 0.3, 0.2: 0.9, 0.3: 0.6}
    runs = [finish_run(tmp_path, "size", experiment(**{"loss.margin": one}), peak) for one, peak in peaks.items()]
    summaries = [replace(run, test=with_interval(run.test)) for run in map(summarise, runs)]
    axes = recall_on_test(compared(summaries), ["speech_to_image"]).figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["margin 0.2", "margin 0.3", "margin 0.1"]
    assert [text.get_text() for text in axes.texts] == ["90.0", "60.0", "30.0"] and axes.yaxis_inverted()
    bars = [bar.get_segments()[0][:, 0] for bar in axes.collections]
    assert bars[0] == pytest.approx([88.0, 91.0])


def with_interval(test):
    key = "speech_to_image/R_at_10"
    return {**test, f"{key}_low": test[key] - 0.02, f"{key}_high": test[key] + 0.01}


def test_pairs_that_differ_in_the_image_branch_alone_are_drawn_by_its_size(tmp_path):
    blocks = ([2, 2], [3, 3])
    runs = [finish_run(tmp_path, "size", experiment(**{"model.image.blocks": one})) for one in blocks]
    axes = recall_by_size(compared([*map(summarise, runs)])).figure.axes[0]
    assert axes.get_xlabel() == "image parameters"


def test_what_configurations_share_is_drawn_once_in_ink_and_no_star_hides_another(tmp_path):
    one_stage = {"stages": [Stage(epochs=3).model_dump()]}
    runs = [finish_run(tmp_path, "size", experiment(**{"loss.margin": one})) for one in (0.1, 0.2)]
    drawn = recall_by_epoch(compared([*map(summarise, runs)]), ["speech_to_image"])
    axes, rate = drawn.figure.axes
    assert [line.get_color() for line in rate.lines] == [INK] * 2, "two stages"
    assert [line.get_color() for line in axes.lines if line.get_linestyle() == "--"] == [INK]
    drawn.figure.draw_without_rendering()
    stars = [line for line in axes.lines if line.get_marker() == "*"]
    at = [line.get_transform().transform(line.get_xydata())[0] for line in stars]
    assert len(at) == 2 and abs(at[0][0] - at[1][0]) > 5 and at[0][1] == at[1][1]
    other = summarise(begin_run(tmp_path, "size", experiment(**one_stage)))
    rows = tuple({**row, "train/learning_rate": 1e-3} for row in summarise(runs[0]).epoch_rows[:3])
    drawn = recall_by_epoch(compared([summarise(runs[0]), replace(other, epoch_rows=rows)]), ["speech_to_image"])
    assert {line.get_color() for line in drawn.figure.axes[1].lines} == {*COLOURS[:2]}


def test_every_mark_has_a_swatch_in_the_pages_colours(tmp_path):
    runs = [finish_run(tmp_path, "size", experiment(**{"loss.margin": one})) for one in (0.1, 0.2)]
    drawn = recall_by_epoch(compared([*map(summarise, runs)], test=(400, 400), validation=(50, 50)))
    told = {label: swatch(look) for label, look in drawn.key}
    assert "var(--c2)" in told["margin 0.2"] and 'stroke-dasharray="6 2 1 2"' in told["chance"]
    assert "nan" not in "".join(told.values()) and told["best epoch"].count("L") == 10


def test_the_pages_palette_is_the_figures(tmp_path):
    palette = (Path(page.__file__).parent / "templates" / "palette.css").read_text()
    assert re.findall(r"--c\d: (#\w+)", palette)[:6] == list(COLOURS[:-1])
