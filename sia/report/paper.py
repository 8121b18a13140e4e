"""What is known of the paper (Mortazavi 2020), and what a study has to say to it.

The text we have of it lost the numbers of its Table 2; nobody fills them in from memory.
"""

from typing import Any

from sia.report.finding import recall_of
from sia.report.groups import grouped
from sia.report.summary import RunSummary
from sia.run.selection import DIRECTIONS, selection_value

PAPER = "Mortazavi 2020"
CORPUS = "places205"
# Its Table 1: trainable parameters of the speech and of the image encoder, GRU layers, latent size.
PAIRS = {
    "DG4A2048": (63_898_816, 36_155_776, 4, 2048),
    "DG4A1024": (16_228_544, 33_402_240, 4, 1024),
    "DG3A1024": (11_503_808, 33_402_240, 3, 1024),
    "DG2A2048": (26_125_504, 36_155_776, 2, 2048),
    "DG2A1024": (6_779_072, 33_402_240, 2, 1024),
}
# Its Table 2, without the five pairs: source, data set, transfer learning (None: lost), image encoder.
EARLIER = (
    ("[10] Harwath 2020", "P205 (400k)", None, "ResNet-50"),
    ("[16] Harwath 2018, MISA", "P205 (400k)", None, "VGG16"),
    ("[13, 16] Harwath 2016", "P205 (120k)", None, "VGG16"),
    ("[14, 16] Harwath 2017", "P205 (200k)", None, "VGG16"),
    ("[14] Harwath 2017", "P205 (200k)", None, "VGG16"),
    ("[12] Harwath 2015", "F8K (40k/8k)", None, "RCNN"),
    ("[17] Merkx 2019", "F8K (40k/8k)", None, "ResNet-152"),
    ("[17] Merkx 2019", "F8K (40k/8k)", None, "ResNet-152"),
    ("[15] Chrupała 2017", "F8K (40k/8k)", None, "VGG16"),
    *[("[33] Ilharco 2019", "F8K (40k/8k)", None, "IncResNetV2")] * 3,
    ("[33] Ilharco 2019", "F8K (40k/8k)", "No", "IncResNetV2"),
    ("[16] Harwath 2018, MISA", "P205 (400k)", "No", "VGG16"),
    ("[13] Harwath 2016, mean", "P205 (120k)", "No", "VGG16"),
    ("[13] Harwath 2016, max", "P205 (120k)", "No", "VGG16"),
)
UNKNOWN = "unknown"
SAID = (
    "A warm restart from the best checkpoint, at half the rate, gained 1.5 % R@10 (DG2A2048: 120 epochs, the 59th "
    "best, then 30) and 10 % (DG4A2048: 50 epochs, then 10).",
    "DG3A1024, of middle size, did best of five pairs: larger ones overfit, smaller ones lack capacity.",
    "On Flickr8k, cosine annealing reached an R@10 of 80 to 98 % on the training set, the cyclic rate 70s.",
    "Trained with mini-batches of 16 to 64, Table 2 with 64: larger ones tend to do better.",
    "DG3A1024 and DG4A1024 restarted the rate in cycles, the first of one epoch, each next one twice as long: after 1, "
    "3, 7, 15, 31 epochs, and so on, for up to 127.",
)


def table2() -> list[dict[str, Any]]:
    """The rows of the paper's Table 2, without its recalls."""
    rows = [*EARLIER, *((pair, "P205 (400k)", "No", "DenseNet") for pair in PAIRS)]
    headings = ("Source", "Dataset", "TL", "Image encoder")
    return [{key: cell or UNKNOWN for key, cell in zip(headings, row, strict=True)} for row in rows]


def beside(summaries: list[RunSummary]) -> list[dict[str, Any]]:
    """What the paper says, with what this study found of the same; only of what it looked at."""
    ours = (_restarts, _sizes, _trained, _batches, _cycles)
    found = ((said, of_ours(summaries)) for said, of_ours in zip(SAID, ours, strict=True))
    return [{PAPER: said, "Here": here} for said, here in found if here]


def _restarts(summaries: list[RunSummary]) -> str:
    gains = [gain for run in summaries for gain in restart_gains(run)]
    if not gains:
        return ""
    average, split = sum(gains) / len(gains), summaries[0].selected_on
    spread = f" ({min(gains):+.1f} to {max(gains):+.1f})" if len(gains) > 1 else ""
    times = "one restart" if len(gains) == 1 else f"{len(gains)} restarts"
    return f"{average:+.1f} points of R@10 on {split}, by {times}{spread}."


def restart_gains(run: RunSummary) -> list[float]:
    """What each warm restart of a run added to its best R@10 so far (percent), on the split that chooses."""
    begun = [number for number, plan in enumerate(run.begun, start=1) if number > 1 and plan.start_epoch is not None]
    if not begun:
        return []
    best: dict[int, float] = {}
    for row in run.epoch_rows:
        best[row["stage"]] = max(best.get(row["stage"], 0.0), selection_value(row) * 100)
    return [best[stage] - max(best[one] for one in best if one < stage) for stage in begun if stage in best]


def _sizes(summaries: list[RunSummary]) -> str:
    of_pair: dict[str, list[RunSummary]] = {}
    for group in grouped(summaries):
        of_pair.setdefault(group.runs[0].pair, []).extend(group.finished)
    done = {pair: runs for pair, runs in of_pair.items() if runs}
    if len(done) < 3:
        return ""
    best = max(done, key=lambda pair: max(recall_of(run) for run in done[pair]))
    ordered = sorted(done, key=lambda pair: done[pair][0].speech_parameters)
    place = ordered.index(best)
    where = f"{place} smaller and {len(ordered) - 1 - place} larger ones by speech parameters"
    return f"{best} did best of {len(ordered)} pairs; there are {where}."


def _trained(summaries: list[RunSummary]) -> str:
    keys = [f"train/{direction}/R_at_10" for direction in DIRECTIONS]
    done = [run for run in summaries if run.finished and all(key in (run.epoch_rows or ({},))[-1] for key in keys)]
    if not done:
        return ""
    trained = [run.epoch_rows[-1][key] * 100 for run in done for key in keys]
    tested = [recall_of(run) * 100 for run in done]
    return (
        f"{min(trained):.0f} to {max(trained):.0f} % on trained captions; "
        f"{min(tested):.0f} to {max(tested):.0f} % on test."
    )


def _batches(summaries: list[RunSummary]) -> str:
    by_size: dict[int, list[float]] = {}
    for run in summaries:
        if run.finished:
            by_size.setdefault(run.experiment.training.batch_size, []).append(recall_of(run) * 100)
    if len(by_size) < 2:
        return ""
    means = [f"{sum(found) / len(found):.1f} with {size}" for size, found in sorted(by_size.items())]
    return f"R@10 on test, the mean of both directions: {', '.join(means)}."


def _cycles(summaries: list[RunSummary]) -> str:
    starts = {
        tuple(restart.after_epoch for restart in run.restarts if restart.from_epoch is None) for run in summaries
    } - {()}
    told = sorted(", ".join(map(str, after[:8])) + ", ..." * (len(after) > 8) for after in starts)
    return f"After epoch {'; or '.join(told)}." if told else ""
