import io

import pytest
from rich.console import Console
from written_runs import measures

from sia.evaluation.table import comparison_heading, comparison_table, heading, pool_line, recall_table


def printed(table):
    console = Console(width=96, file=io.StringIO())
    console.print(table)
    return [line.split() for line in console.file.getvalue().splitlines() if line.strip()]


def test_recalls_are_in_percent_and_ranks_as_they_are():
    lines = printed(recall_table(measures(0.5)))
    assert lines[0] == ["speech→image", "image→speech"]
    assert [line[-2:] for line in lines[2:]] == [
        *(["5.0", "4.5"], ["25.0", "22.5"], ["50.0", "45.0"], ["7.0", "7.0"], ["9.5", "9.5"])
    ]
    assert [" ".join(line[:-2]) for line in lines[2:]] == ["R@1 (%)", "R@5 (%)", "R@10 (%)", "median rank", "mean rank"]


def test_intervals_stand_in_brackets_beside_their_measure():
    bounds = {f"{key}_{side}": value * by for key, value in measures(0.5).items() for side, by in SIDES}
    lines = printed(recall_table({**measures(0.5), **bounds}))
    assert " ".join(lines[4]) == "R@10 (%) 50.0 [40.0, 60.0] 45.0 [36.0, 54.0]"


SIDES = (("low", 0.8), ("high", 1.2))


@pytest.mark.parametrize(
    ("sizes", "candidates", "wanted", "line"),
    [
        ([999], 999, None, "pool of 999 images"),
        ([999], 999, 1000, "pool of 999 images: the split has no more"),
        ([1000], 1000, 1000, "pool of 1,000 images"),
        ([1000], 5000, 1000, "pool of 1,000 images of 5,000"),
        ([1000] * 5, 5000, 1000, "mean of 5 pools of 1,000 images"),
        ([1000, 1000, 640], 2640, 1000, "mean of 3 pools of 1,000 images, the last of 640"),
    ],
)
def test_the_pool_in_words(sizes, candidates, wanted, line):
    assert pool_line({"pool_sizes": sizes, "num_candidates": candidates}, wanted) == line


def test_the_heading_tells_the_protocol():
    result = {"run": "DG2A64-0123456789", "stage": 2, "epoch": 4, "corpus": "corpora/scenes", "selected_on": "test"}
    assert heading({**result, "num_captions": 1200, "num_images": 400}, "best", "test") == (
        "DG2A64-0123456789, best checkpoint (stage 2, epoch 4); best epoch chosen on: test (the paper's protocol)\n"
        "test split of corpora/scenes: 1,200 captions, 400 images"
    )


def result(name, value, **different):
    bounds = {f"{key}_{side}": number * by for key, number in measures(value).items() for side, by in SIDES}
    pool = {"num_captions": 400, "pool_sizes": [400], "num_candidates": 400, "corpus": "corpora/scenes"}
    place = {"run": name, "epoch": 12, "selected_on": "validation"}
    return {**place, **pool, "measures": {**measures(value), **bounds}, **different}


def test_several_runs_stand_side_by_side_the_best_first():
    several = [result("DG2A32-0123456789", 0.4), result("DG4A64-0123456789", 0.8)]
    lines = printed(comparison_table(several))
    assert lines[0] == ["R@10", "(%)", "R@10", "(%)", "R@1", "(%)", "R@1", "(%)"]
    assert lines[1] == ["Run", "Epoch", *["speech→image", "image→speech"] * 2]
    assert lines[3] == ["DG4A64-0123456789", "12", "80.0", "72.0", "8.0", "7.2"]
    assert lines[4][:2] == ["[64.0,", "96.0]"] and lines[5][0] == "DG2A32-0123456789"
    assert comparison_heading(several, "best", "test", None) == (
        "best checkpoints of 2 runs; best epoch chosen on: validation\ntest split: 400 captions, pool of 400 images"
    )


def test_runs_that_chose_among_other_images_are_said_not_to_compare():
    other = result("b", 0.4, corpus="corpora/other", num_captions=90, pool_sizes=[80], num_candidates=80)
    several = [result("a", 0.4), other]
    heading = comparison_heading(several, "best", "test", None)
    assert "400 captions, pool of 400 images; 90 captions, pool of 80 images; they do not compare" in heading
    rows = [line for line in printed(comparison_table(several)) if line[0] in "ab"]
    assert [row[-1] for row in rows] == ["corpora/scenes", "corpora/other"]
