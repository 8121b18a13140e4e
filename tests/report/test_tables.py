import csv
import io
from dataclasses import replace

import pytest
from written_runs import experiment, finish_run, measures

from sia.report import tables
from sia.report.groups import grouped
from sia.report.paper import PAIRS
from sia.report.summary import RunSummary, summarise

PAPER_SIZE = {"model.image.blocks": [6, 12, 64, 48], "data.corpus": "places205"}
RECALLS = ("R@10 speech→image", "R@10 image→speech")


def summary(layers=3, latent=1024, seed=0, recall=0.5, **dotted) -> RunSummary:
    shape = {"model.gru_layers": layers, "model.latent_size": latent, "training.seed": seed}
    config = experiment(**{**PAPER_SIZE, **shape, **dotted})
    pool = {"num_test_captions": 999, "num_test_images": 990}
    tested = {"test": measures(recall), "best_epoch": 4, "best_stage": 2, "seconds": 7509.4, **pool}
    return RunSummary(config.run_name, "finished", config, corpus="places205", corpus_identity="0123", **tested)


def unfinished(run: RunSummary, state="unfinished") -> RunSummary:
    return replace(run, state=state, test={}, best_epoch=None, num_test_captions=None, num_test_images=None)


def with_intervals(run: RunSummary) -> RunSummary:
    sides = {"low": -0.02, "high": 0.02}
    bounds = {f"{key}_{side}": run.test[key] + by for key in tables.R_AT_10.values() for side, by in sides.items()}
    return replace(run, test={**run.test, **bounds})


def test_table_1_is_the_papers():
    pairs = [(2, 1024), (2, 2048), (3, 1024), (4, 1024), (4, 2048), (4, 2048, 1)]
    assert [list(row.values()) for row in tables.table1([summary(*pair) for pair in pairs])] == [
        ["DG4A2048", "63,898,816", "36,155,776", 4, 2048],
        ["DG4A1024", "16,228,544", "33,402,240", 4, 1024],
        ["DG3A1024", "11,503,808", "33,402,240", 3, 1024],
        ["DG2A2048", "26,125,504", "36,155,776", 2, 2048],
        ["DG2A1024", "6,779,072", "33,402,240", 2, 1024],
    ]


def test_the_papers_own_table_1_stands_above_ours():
    rows = tables.table1_beside([summary(*pair) for pair in ((4, 2048), (2, 1024))])
    assert [row.pop("Source") for row in rows] == ["Mortazavi 2020"] * 5 + ["ours"] * 2
    assert rows[5:] == [rows[0], rows[4]], "the counts of its pairs are ours to the last digit"


def test_what_all_rows_have_in_common_is_told_once():
    row = {"Run": "a", "Seed": 1, "State": "failed", "R@10": 5, "Settings": ""}
    rows, common = tables.narrowed([row, {**row, "State": "lost"}])
    assert common == "In every row: Seed 1."
    assert rows == [{"Run": "a", "State": state, "R@10": 5} for state in ("failed", "lost")]
    assert tables.narrowed([row]) == ([{"Run": "a", "R@10": 5}], "In every row: Seed 1, State failed.")
    assert tables.narrowed([{"Run": "a", "Stage": 1}]) == ([{"Run": "a", "Stage": 1}], "")


def test_the_papers_rows_claim_no_number_and_stand_beside_runs_on_its_corpus_only():
    papers = tables.table2([unfinished(summary())])[:-1]
    assert [row["Source"].rpartition(" ")[2] for row in papers] == list(PAIRS)
    assert {row[key] for row in papers for key in (*RECALLS, "Seeds")} == {"unknown"}
    assert {row["Best epoch chosen on"] for row in papers} == {"test (the paper's protocol)"}
    records = tables.table2_records([unfinished(summary())])[:-1]
    assert {value for row in records for key, value in row.items() if "R_at_10" in key} == {"unknown"}
    miniature = replace(summary(), corpus="scenes")
    for table in (tables.table2, tables.table2_records):
        assert [next(iter(row.values())) for row in table([miniature])] == ["ours, DG3A1024"]
        assert len(table([miniature, summary(layers=2)])) == 7


THREE_SEEDS = [summary(seed=seed, recall=recall) for seed, recall in enumerate((0.4, 0.5, 0.6))]


@pytest.mark.parametrize(
    ("runs", "told"),
    [
        ([summary()], ("50.0", "45.0", "1")),
        ([with_intervals(summary())], ("50.0 [48.0, 52.0]", "45.0 [43.0, 47.0]", "1")),
        ([*map(with_intervals, THREE_SEEDS)], ("50.0 ± 10.0", "45.0 ± 9.0", "3")),
        (
            [summary(), unfinished(summary(seed=1)), unfinished(summary(seed=2), "failed")],
            ("50.0", "45.0", "1 of 3 (1 failed, 1 unfinished)"),
        ),
        ([unfinished(summary())], ("–", "–", "0 of 1 (1 unfinished)")),
    ],
)
def test_a_configuration_has_a_row_of_its_finished_seeds(runs, told):
    row = tables.table2(runs)[-1]
    assert tuple(row[key] for key in (*RECALLS, "Seeds")) == told
    assert row["Test pool"] == ("–" if told[0] == "–" else "999 captions, 990 images")


def test_programs_have_an_interval_of_one_seed_and_a_deviation_of_several():
    keys = [f"{RECALL}_{kind}" for kind in ("mean", "deviation", "low", "high")]
    one, several = (tables.table2_records(runs)[-1] for runs in ([with_intervals(summary())], THREE_SEEDS))
    assert [one[key] for key in keys] == [0.5, None, pytest.approx(0.48), pytest.approx(0.52)]
    assert [several[key] for key in keys] == [pytest.approx(0.5), pytest.approx(0.1), None, None]


RECALL = "speech_to_image/R_at_10"


def test_every_row_tells_the_split_that_chose_its_epoch():
    runs = [summary(), summary(layers=2, **{"training.select_on": "test"})]
    told = ["validation", "test (the paper's protocol)"]
    assert [row["Best epoch chosen on"] for row in tables.table2(runs)[-2:]] == told
    assert [row["Chosen on"] for row in tables.course_table(runs)] == told
    for rows in (tables.table2_records(runs), tables.runs_records(runs)):
        assert [row["selected_on"] for row in rows[-2:]] == ["validation", "test"]


ONE, TWO = {"epochs": 6, "schedule": "calr"}, {"epochs": 2, "schedule": "calr", "lr_scale": 0.5}


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        (
            [{"loss.margin": 0.2}, {"loss.margin": 0.1}, {"layers": 2}],
            ["G2A1024", *(f"DG3A1024 (margin {m})" for m in (0.1, 0.2))],
        ),
        (
            [{"stages": stages} for stages in ([ONE], [ONE, TWO])],
            ["2 more epochs at 0.0001", "no restart"],
        ),
        (
            [{"loss": {"name": "hinge"}}, *({"loss": {"name": "info_nce", "temperature": t}} for t in (0.05, 0.1))],
            ["hinge", *(f"info_nce, temperature {t}" for t in (0.05, 0.1))],
        ),
        # A key alone tells; what goes with it need not be said.
        (
            [{"loss": {"name": "hinge"}}, {"loss": {"name": "masked_margin_softmax", "scale": 20.0}}],
            ["hinge", "softmax"],
        ),
        (
            [{"training.select_on": split} for split in ("test", "validation")],
            ["select on test", "select on validation"],
        ),
        ([{"model.image.blocks": blocks} for blocks in ([2, 2], [12, 2])], ["blocks 12-2", "blocks 2-2"]),
        ([{"seed": 0}, {"seed": 1, "runtime.num_workers": 0, "data.folder": "elsewhere"}], ["G3A1024"]),
    ],
)
def test_configurations_of_one_pair_are_told_apart_by_what_differs(changes, labels):
    found = sorted(group.label for group in grouped([summary(**change) for change in changes]))
    assert [label.endswith(end) for label, end in zip(found, labels, strict=True)] == [True] * len(labels), found


def test_chains_that_are_told_alike_have_labels_of_their_own():
    first = {"epochs": 3, "schedule": {"name": "calwr"}}
    chains = [[first], [{**first, "schedule": {"name": "calwr", "multiplier": 3}}], [first, first]]
    labels = [group.label for group in grouped([summary(stages=chain) for chain in chains])]
    assert len({*labels}) == 3, labels


def test_a_corpus_tells_configurations_apart_and_a_run_that_has_none_yet_joins_its_own():
    waiting = replace(unfinished(summary(seed=1)), corpus_identity="")
    assert [group.label for group in grouped([summary(seed=0), waiting])] == ["DG3A1024"]
    other = replace(summary(seed=1), corpus_identity="4567")
    labels = {group.label for group in grouped([summary(seed=0), other])}
    assert labels == {"0123", "4567"}


def test_another_image_encoder_is_not_called_the_papers():
    assert tables.table2([summary(**{"model.image.blocks": [2, 2]})])[-1]["Image encoder"] == "DenseNet(2, 2)"


def test_runs_table_tells_stages_and_time(tmp_path):
    run = summarise(finish_run(tmp_path, "size", experiment()))
    (row,) = ([*row.values()] for row in tables.course_table([run]))
    assert row[1:] == [4, "validation", 2, "5 of 5", "3 (from 2)", "0:05:00", "aaaaaaaa"]
    (row,) = ([*row.values()] for row in tables.results_table([run]))
    assert row[1:4] == ["", 0, "finished"] and row[6:] == ["50.0 / 45.0", "7.0 / 7.0", "–"]
    train = {"epoch": 5, "train/speech_to_image/R_at_10": 0.975, "train/image_to_speech/R_at_10": 0.5}
    (row,) = tables.results_table([replace(run, epoch_rows=(*run.epoch_rows, train))])
    assert row["R@10 trained"] == "97.5 / 50.0"


def test_csv_and_markdown_have_every_cell():
    rows = tables.runs_records([summary(), unfinished(summary(seed=1))])
    read = [*csv.DictReader(io.StringIO(tables.csv_text(rows)))]
    assert read == [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows]
    assert tables.markdown([{"A": 1, "B": "x|y"}]) == "| A | B |\n| --- | --- |\n| 1 | x\\|y |\n"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (7509.4, "2:05:09")])
def test_duration(seconds, text):
    assert tables.duration(seconds) == text
