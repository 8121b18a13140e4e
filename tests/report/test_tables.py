import csv
import io
from dataclasses import replace

import pytest
from written_runs import experiment, finish_run, measures

from sia.report import tables
from sia.report.console import sweep_table
from sia.report.groups import grouped
from sia.report.summary import RunSummary, summarise

PAPER_SIZE = {"model.image.blocks": [6, 12, 64, 48], "data.corpus": "places205"}


def summary(layers=3, latent=1024, seed=0, recall=0.5, **dotted) -> RunSummary:
    shape = {"model.gru_layers": layers, "model.latent_size": latent, "training.seed": seed}
    config = experiment(**{**PAPER_SIZE, **shape, **dotted})
    pool = {"num_test_captions": 999, "num_test_images": 990}
    tested = {"test": measures(recall), "best_epoch": 4, "best_stage": 2, "seconds": 7509.4, **pool}
    return RunSummary(config.run_name, "finished", config, corpus="places205", corpus_identity="0123", **tested)


def unfinished(run: RunSummary, state="unfinished") -> RunSummary:
    return replace(run, state=state, test={}, best_epoch=None, num_test_captions=None, num_test_images=None)


def test_table_1_is_the_papers():
    pairs = [(2, 1024), (2, 2048), (3, 1024), (4, 1024), (4, 2048)]
    _, rows = tables.table1([summary(*pair) for pair in pairs])
    assert rows == [
        ["DG4A2048", "63,898,816", "36,155,776", "4", "2048"],
        ["DG4A1024", "16,228,544", "33,402,240", "4", "1024"],
        ["DG3A1024", "11,503,808", "33,402,240", "3", "1024"],
        ["DG2A2048", "26,125,504", "36,155,776", "2", "2048"],
        ["DG2A1024", "6,779,072", "33,402,240", "2", "1024"],
    ]


def test_table_1_names_a_pair_once():
    assert len(tables.table1([summary(seed=0), summary(seed=1), summary(**{"loss.margin": 0.1})])[1]) == 1


def test_runs_of_one_pair_are_told_apart_by_their_settings():
    chains = [[{"epochs": 6, "schedule": "calr"}], [{"epochs": 6, "schedule": "calr"}] * 2]
    chains.append([chains[0][0], {"epochs": 2, "schedule": "calr", "lr_scale": 0.5}])
    groups = grouped([replace(summary(stages=chain), corpus_identity="0") for chain in chains])
    assert sorted(group.label for group in groups) == [
        "DG3A1024 (stages=6 calr then 2 calr ×0.5)",
        "DG3A1024 (stages=6 calr then 6 calr)",
        "DG3A1024 (stages=6 calr)",
    ]
    by_loss = grouped([summary(**{"loss.name": name}) for name in ("hinge", "info_nce")])
    assert [group.settings for group in by_loss] in (
        [("loss.name=hinge",), ("loss.name=info_nce",)],
        [("loss.name=info_nce",), ("loss.name=hinge",)],
    )
    assert "loss.name=hinge" in "".join(
        str(cell) for column in sweep_table([*by_loss[0].runs, *by_loss[1].runs]).columns for cell in column.cells
    )


def test_recall_on_trained_captions_is_that_of_the_last_epoch():
    rows = tuple(
        {
            "epoch": epoch,
            "stage": 1,
            "stage_epoch": epoch,
            "train/speech_to_image/R_at_10": share,
            "train/image_to_speech/R_at_10": 0.5,
        }
        for epoch, share in ((1, 0.25), (2, 0.975))
    )
    assert tables.on_trained(replace(summary(), epoch_rows=rows)) == "97.5 / 50.0"
    assert tables.on_trained(summary()) == "–"


def test_the_papers_own_recalls_are_unknown_not_invented():
    _, rows = tables.table2([unfinished(summary())])
    papers = rows[:-1]
    assert [row[0] for row in papers] == [f"Mortazavi 2020, {pair}" for pair in tables.PAPER_PAIRS]
    assert {cell for row in papers for cell in (row[4], row[5], row[8])} == {"unknown"}
    assert {row[7] for row in papers} == {"test (the paper's protocol)"}
    records = tables.table2_records([unfinished(summary())])[1]
    assert not any(character.isdigit() for row in records[:-1] for character in "".join(row[4:12]))


def test_the_papers_rows_stand_beside_runs_on_its_corpus_only():
    miniature = replace(summary(), corpus="scenes")
    for table in (tables.table2, tables.table2_records):
        assert [row[0] for row in table([miniature])[1]] == ["ours, DG3A1024"]
        assert len(table([miniature, summary(layers=2)])[1]) == 7


def test_one_seed_has_no_spread():
    row = tables.table2([summary(recall=0.5)])[1][-1]
    pool = "999 captions, 990 images"
    assert row == ["ours, DG3A1024", "places205", "No", "DenseNet", "50.0", "45.0", pool, "validation", "1"]


def test_the_interval_of_one_seed_is_shown():
    run = with_intervals(summary(recall=0.5))
    assert tables.table2([run])[1][-1][4:6] == ["50.0 [48.0, 52.0]", "45.0 [43.0, 47.0]"]
    assert [float(text) for text in tables.table2_records([run])[1][-1][4:8] if text] == pytest.approx(
        [0.5, 0.48, 0.52]
    )
    both = [run, with_intervals(summary(seed=1, recall=0.6))]
    assert tables.table2(both)[1][-1][4] == "55.0 ± 7.1"


def with_intervals(run: RunSummary) -> RunSummary:
    bounds = {
        f"{key}_{side}": run.test[key] + by for key in tables.BOTH for side, by in (("low", -0.02), ("high", 0.02))
    }
    return replace(run, test={**run.test, **bounds})


def test_every_row_tells_the_split_that_chose_its_epoch():
    runs = [summary(), summary(layers=2, **{"training.select_on": "test"})]
    told = ["validation", "test (the paper's protocol)"]
    assert [row[7] for row in tables.table2(runs)[1][-2:]] == told
    assert [row[4] for row in tables.runs_table(runs)[1]] == told
    for header, rows in (tables.table2_records(runs), tables.runs_records(runs)):
        assert [row[header.index("selected_on")] for row in rows[-2:]] == ["validation", "test"]


def test_seeds_share_a_row_with_mean_and_sample_deviation():
    row = tables.table2([summary(seed=seed, recall=recall) for seed, recall in enumerate((0.4, 0.5, 0.6))])[1][-1]
    assert row[4:6] == ["50.0 ± 10.0", "45.0 ± 9.0"] and row[8] == "3"


def test_unfinished_seeds_are_told_not_averaged():
    runs = [summary(seed=0), unfinished(summary(seed=1)), unfinished(summary(seed=2), "failed")]
    row = tables.table2(runs)[1][-1]
    assert row[4] == "50.0" and row[8] == "1 of 3 (1 failed, 1 unfinished)"


def test_a_configuration_without_a_finished_run_is_listed():
    row = tables.table2([unfinished(summary())])[1][-1]
    assert row[4:] == ["–", "–", "–", "validation", "0 of 1 (1 unfinished)"]


def test_configurations_of_one_pair_are_told_apart_by_what_differs():
    runs = [summary(), summary(**{"loss.margin": 0.1}), summary(layers=2)]
    assert {group.label for group in grouped(runs)} == {"DG3A1024 (loss.margin=0.2)", "DG3A1024 (loss.margin=0.1)"} | {
        "DG2A1024"
    }


def test_runs_of_one_loss_are_told_apart_beside_another():
    losses = [{"name": "hinge"}, *({"name": "info_nce", "temperature": value} for value in (0.05, 0.1))]
    labels = [group.label for group in grouped([summary(loss=loss) for loss in losses])]
    assert len(set(labels)) == 3 and sum("temperature=0.05" in label for label in labels) == 1


def test_a_seed_that_has_not_begun_joins_its_configuration():
    waiting = replace(unfinished(summary(seed=1)), corpus_identity="")
    assert [group.label for group in grouped([summary(seed=0), waiting])] == ["DG3A1024"]


def test_what_does_not_change_learning_does_not_split_seeds():
    runs = [summary(seed=0), summary(seed=1, **{"runtime.num_workers": 0, "data.folder": "elsewhere"})]
    assert len(grouped(runs)) == 1


def test_another_image_encoder_is_not_called_the_papers():
    assert summary(**{"model.image.blocks": [2, 2]}).experiment.model.image.title == "DenseNet(2, 2)"


def test_runs_table_tells_stages_and_time(tmp_path):
    run = summarise(finish_run(tmp_path, "size", experiment()))
    _, [row] = tables.runs_table([run])
    assert row[1:8] == ["finished", "0", "4", "validation", "2", "5 of 5", "3 (from 2)"]
    assert row[10:] == ["50.0 / 45.0", "7.0 / 7.0", "–", "0:05:00", "aaaaaaaa", ""]


def test_csv_and_markdown_have_every_cell():
    header, rows = tables.runs_records([summary(), unfinished(summary(seed=1))])
    assert list(csv.reader(io.StringIO(tables.csv_text((header, rows))))) == [header, *rows]
    assert {len(row) for row in rows} == {len(header)}
    assert tables.markdown((["A", "B"], [["1", "x|y"]])) == "| A | B |\n| --- | --- |\n| 1 | x\\|y |\n"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (7509.4, "2:05:09")])
def test_duration(seconds, text):
    assert tables.duration(seconds) == text
