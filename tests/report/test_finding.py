"""What a report says was found, made of the numbers alone."""

from dataclasses import replace

import pytest
from test_tables import summary, unfinished, with_intervals
from written_runs import experiment, finish_run

from sia.report.chance import chance
from sia.report.finding import finding
from sia.report.groups import grouped
from sia.report.paper import beside, restart_gains
from sia.report.summary import summarise

NARROW = [with_intervals(summary(layers=layers, recall=recall)) for layers, recall in ((2, 0.5), (3, 0.51), (4, 0.6))]


def seeds(layers, *recalls):
    runs = [summary(layers, seed=seed, recall=recall) for seed, recall in enumerate(recalls)]
    return [with_intervals(run) for run in runs]


@pytest.mark.parametrize(
    ("runs", "told", "not_told"),
    [
        ([unfinished(summary())], ["nothing is found"], ["%"]),
        ([with_intervals(summary())], ["DG3A1024", "50.0 % (48.0 to 52.0)", "chance is 2.5 %"], ["lead", "settled"]),
        # One seed each: what the test set explains is told, and that seeds are not.
        (
            NARROW,
            [
                "Of 3 pairs, DG4A1024 does best: it finds",
                "leads DG3A1024 and DG2A1024",
                "the largest of 3",
                "another seed may still change",
            ],
            ["Its lead over"],
        ),
        (NARROW[:2], ["Its lead over DG2A1024 is not settled", "another seed"], ["It leads"]),
        ([summary(), summary(layers=2)], ["Its lead over DG2A1024 is not settled"], ["( to"]),
        # Several seeds.
        (
            [*seeds(3, 0.7, 0.71, 0.72), *seeds(2, 0.5, 0.51, 0.52)],
            ["71.0 % (± 1.0 over 3 seeds)", "leads DG2A1024"],
            ["another seed"],
        ),
        ([*seeds(3, 0.7, 0.5), *seeds(2, 0.5, 0.51)], ["Its lead over DG2A1024 is not settled"], ["another seed"]),
        ([summary(), replace(summary(layers=2), num_test_images=50)], ["2 different sets"], ["%", "leads"]),
        ([summary(**{"training.select_on": "test"})], ["chosen on test, as in the paper"], []),
        ([with_intervals(summary(recall=0.03))], ["no more than chance, which is 2.5 %"], []),
        ([with_intervals(summary()), unfinished(summary(layers=2))], ["1 of 2 runs have not finished"], []),
    ],
)
def test_a_finding_tells_its_uncertainty(runs, told, not_told):
    text = str(finding(runs, chance(400, 400)))
    assert [part for part in told if part not in text] == [], text
    assert [part for part in not_told if part in text] == [], text


def test_a_pool_of_ten_is_told_as_chance():
    """A corpus of a few images: whatever a pair does, the right one is among the ten."""
    (run,) = seeds(3, 1.0)
    sure = {f"{direction}/R_at_10_{bound}": 1.0 for direction in chance(4, 4) for bound in ("low", "high")}
    told = finding([replace(run, test={**run.test, **sure})], chance(4, 4))
    assert "that is no more than chance, which is 100 %" in told.answer


@pytest.mark.parametrize(
    ("key", "values", "recalls", "told"),
    [
        ("loss.name", ("hinge", "hinge_hardest"), (0.4, 0.5), "Of 2 losses, hinge_hardest does best:"),
        (
            "training.batch_size",
            (16, 32, 128),
            (0.4, 0.5, 0.6),
            "R@10 rises with the batch size throughout, from 16 to",
        ),
        ("training.batch_size", (16, 32, 128), (0.6, 0.5, 0.4), "R@10 falls with the batch size throughout"),
        ("training.batch_size", (16, 32, 128), (0.4, 0.6, 0.5), "Of 3 batch sizes, batch size 32 does best:"),
        ("training.batch_size", (16, 32, 128), (0.4, 0.6, 0.5), "R@10 neither rises nor falls with the batch size"),
        ("training.batch_size", (16, 32, 128), (0.5, 0.5, 0.5), "R@10 neither rises nor falls with the batch size"),
        (
            "model.image.blocks",
            ([2, 2], [3, 3]),
            (0.4, 0.6),
            "By image parameters it is the largest of 2; the smallest,",
        ),
    ],
)
def test_a_finding_answers_in_the_questions_words(key, values, recalls, told):
    runs = [with_intervals(summary(recall=recall, **{key: one})) for one, recall in zip(values, recalls, strict=True)]
    assert told in str(finding(runs))


RATE = "optimizer.learning_rate"


@pytest.mark.parametrize("of_the_other", [[{}], [{RATE: 0.1}, {RATE: 0.2}]])
def test_a_number_that_several_pairs_have_is_not_taken_for_what_was_varied(of_the_other):
    runs = [summary(recall=0.4, **{RATE: 0.1}), summary(recall=0.5, **{RATE: 0.2})]
    told = str(finding(runs + [summary(layers=4, recall=0.6, **dotted) for dotted in of_the_other]))
    assert told.startswith(f"Of {len(runs) + len(of_the_other)} configurations, DG4A1024")
    assert "throughout" not in told


def test_what_the_paper_found_stands_beside_what_was_found_here(tmp_path):
    run = summarise(finish_run(tmp_path, "size", experiment()))
    assert restart_gains(run) == [pytest.approx((0.5 - 0.45) * 95)]
    row, cycles = beside([run])
    assert "3, 7, 15" in cycles["Mortazavi 2020"] and cycles["Here"] == "After epoch 1."
    assert "1.5 % R@10" in row["Mortazavi 2020"] and row["Here"] == "+4.7 points of R@10 on validation, by one restart."
    told = "DG4A1024 did best of 3 pairs; there are 2 smaller and 0 larger ones by speech parameters."
    rows = beside([summary(layers, recall=layers / 10) for layers in (2, 3, 4)])
    assert [row["Here"] for row in rows] == [told]
    assert len(grouped([run])) == 1 and beside([replace(run, begun=run.begun[:1], epoch_rows=())]) == []
    sizes = [summary(recall=0.4, **{"training.batch_size": 16}), summary(recall=0.5)]
    assert beside(sizes)[0]["Here"] == "R@10 on test, the mean of both directions: 38.0 with 16, 47.5 with 64."
