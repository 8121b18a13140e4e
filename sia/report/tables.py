"""The paper's Table 1 and Table 2 with our rows, and a table of every run, as Markdown and CSV."""

import csv
import io
from typing import Any

from sia.report.groups import Group, Spread, grouped
from sia.report.summary import RunSummary
from sia.run.selection import protocol

MEASURES = [
    f"{direction}/{measure}"
    for direction in ("speech_to_image", "image_to_speech")
    for measure in ("R_at_1", "R_at_5", "R_at_10", "median_rank", "mean_rank")
]
SPEECH_TO_IMAGE, IMAGE_TO_SPEECH = "speech_to_image/R_at_10", "image_to_speech/R_at_10"
BOTH = (SPEECH_TO_IMAGE, IMAGE_TO_SPEECH)
RECORDED = [*MEASURES, *(f"{measure}_{bound}" for measure in BOTH for bound in ("low", "high"))]
PAPER = "Mortazavi 2020"
PAPER_CORPUS = "places205"
PAPER_PAIRS = ("DG4A2048", "DG4A1024", "DG3A1024", "DG2A2048", "DG2A1024")
UNKNOWN = "unknown"
NONE_YET = "–"

Table = tuple[list[str], list[list[str]]]


def table1(summaries: list[RunSummary], thousands: str = ",") -> Table:
    """Sizes of the study's encoder pairs, as trainable parameters; `thousands` separates digits ("" for programs)."""
    header = ["Pair", "Speech parameters", "Image parameters", "GRU layers", "Latent size"]
    rows = [_table1_row(group.runs[0], thousands) for group in grouped(summaries)]
    return header, list({tuple(row): row for row in rows}.values())


def _table1_row(run: RunSummary, thousands: str) -> list[str]:
    sizes = [f"{size:,}".replace(",", thousands) for size in (run.speech_parameters, run.image_parameters)]
    return [run.pair, *sizes, str(run.experiment.model.gru_layers), str(run.experiment.model.latent_size)]


def table2(summaries: list[RunSummary]) -> Table:
    """One row a configuration: R@10 in percent on the test split, mean ± spread over seeds or the interval of one.

    The paper's own rows come first where a run was trained on its corpus: they compare with no other.
    """
    header = ["Source", "Dataset", "TL", "Image encoder", "R@10 speech→image", "R@10 image→speech"]
    header += ["Test pool", "Best epoch chosen on", "Seeds"]
    # The text we have of the paper lost the numbers of its Table 2; nobody fills them in from memory.
    measured = [UNKNOWN, UNKNOWN, "999 captions, 999 images", protocol("test"), UNKNOWN]
    papers = [[f"{PAPER}, {pair}", "P205 (400k)", "No", "DenseNet", *measured] for pair in paper_pairs(summaries)]
    return header, papers + [_table2_row(group) for group in grouped(summaries)]


def paper_pairs(summaries: list[RunSummary]) -> tuple[str, ...]:
    """The paper's rows that a study's rows may be compared with: none where no run was trained on its corpus."""
    return PAPER_PAIRS if any(run.corpus == PAPER_CORPUS for run in summaries) else ()


def _table2_row(group: Group) -> list[str]:
    one = group.runs[0]
    recalls = [percent(group.spread(measure)) for measure in BOTH]
    tail = [_pool(group), protocol(one.selected_on), _seeds(group)]
    return [f"ours, {group.label}", one.corpus, "No", one.experiment.model.image.title, *recalls, *tail]


def _pool(group: Group) -> str:
    pools = {f"{run.num_test_captions} captions, {run.num_test_images} images" for run in group.finished}
    return " or ".join(sorted(pools)) or NONE_YET


def _seeds(group: Group) -> str:
    """'3', or '2 of 3 (1 unfinished)'."""
    if len(group.finished) == len(group.runs):
        return str(len(group.runs))
    states = [run.state for run in group.runs if not run.finished]
    told = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    return f"{len(group.finished)} of {len(group.runs)} ({told})"


def table2_records(summaries: list[RunSummary]) -> Table:
    """Table 2 for programs: shares from 0 to 1; mean, sample standard deviation, bounds of one seed's interval."""
    header = ["source", "dataset", "transfer_learning", "image_encoder"]
    header += [f"{measure}_{kind}" for measure in BOTH for kind in ("mean", "deviation", "low", "high")]
    header += ["num_test_captions", "num_test_images", "selected_on", "seeds_finished", "seeds"]
    measured = [*[UNKNOWN] * 8, "999", "999", "test", UNKNOWN, UNKNOWN]
    papers = [[f"{PAPER}, {pair}", "P205 (400k)", "No", "DenseNet", *measured] for pair in paper_pairs(summaries)]
    return header, papers + [_table2_record(group) for group in grouped(summaries)]


def _table2_record(group: Group) -> list[str]:
    one = (group.finished or group.runs)[0]
    recalls = [text for measure in BOTH for text in _numbers(group.spread(measure))]
    pool = [_text(one.num_test_captions), _text(one.num_test_images)]
    counts = [str(len(group.finished)), str(len(group.runs))]
    return [
        f"ours, {group.label}",
        one.corpus,
        "No",
        one.experiment.model.image.title,
        *recalls,
        *pool,
        one.selected_on,
        *counts,
    ]


def _numbers(spread: Spread | None) -> list[str]:
    if spread is None:
        return [""] * 4
    return [_text(value) for value in (spread.mean, spread.deviation, *(spread.interval or (None, None)))]


def runs_table(summaries: list[RunSummary]) -> Table:
    """Every run, finished or not."""
    header = ["Run", "State", "Seed", "Best epoch", "Chosen on", "Stage", "Epochs", "Stage restarts"]
    header += ["R@1", "R@5", "R@10", "Median rank", "R@10 trained", "Wall time", "Commit", "Settings"]
    return header, [_runs_row(run, group) for group in grouped(summaries) for run in group.runs]


def _runs_row(run: RunSummary, group: Group) -> list[str]:
    planned = sum(stage.epochs for stage in run.stages)
    begun = [f"{one.after_epoch} (from {one.from_epoch})" for one in run.restarts if one.from_epoch is not None]
    epochs = [_text(run.best_epoch, NONE_YET), protocol(run.selected_on), _text(run.best_stage, NONE_YET)]
    epochs += [f"{run.epochs_trained} of {planned}"]
    recalls = [both_directions(run, measure) for measure in ("R_at_1", "R_at_5", "R_at_10", "median_rank")]
    tail = [on_trained(run), duration(run.seconds), run.commit[:8] or NONE_YET, ", ".join(group.settings)]
    return [run.name, run.state, str(run.seed), *epochs, ", ".join(begun) or "none", *recalls, *tail]


def runs_records(summaries: list[RunSummary]) -> Table:
    """Every run for programs: shares from 0 to 1, seconds, whole commits."""
    header = ["run", "state", "pair", "seed", "speech_parameters", "image_parameters", "corpus", "corpus_identity"]
    header += [
        "best_epoch",
        "best_stage",
        "epochs_trained",
        "selected_on",
        "restarts_after_epochs",
        "seconds",
        "commit",
    ]
    header += [f"test/{measure}" for measure in RECORDED] + ["num_test_captions", "num_test_images"]
    return header, [_runs_record(run) for group in grouped(summaries) for run in group.runs]


def _runs_record(run: RunSummary) -> list[str]:
    sizes = [run.speech_parameters, run.image_parameters, run.corpus, run.corpus_identity]
    course = [run.best_epoch, run.best_stage, run.epochs_trained, run.selected_on]
    after = " ".join(str(restart.after_epoch) for restart in run.restarts)
    tests = [run.test.get(measure) for measure in RECORDED]
    pool = [run.num_test_captions, run.num_test_images]
    values = [run.name, run.state, run.pair, run.seed, *sizes, *course, after, run.seconds, run.commit, *tests, *pool]
    return [_text(value) for value in values]


def on_trained(run: RunSummary) -> str:
    """R@10 in percent over the sample of trained captions after the last epoch, where it was measured."""
    last = run.epoch_rows[-1] if run.epoch_rows else {}
    values = [last.get(f"train/{measure}") for measure in (SPEECH_TO_IMAGE, IMAGE_TO_SPEECH)]
    return " / ".join(f"{value * 100:.1f}" for value in values if value is not None) or NONE_YET


def both_directions(run: RunSummary, measure: str) -> str:
    """'48.2 / 46.0' in percent, speech to image first; ranks as they are."""
    values = [run.test.get(f"{direction}/{measure}") for direction in ("speech_to_image", "image_to_speech")]
    scale = 1 if measure == "median_rank" else 100
    return " / ".join(f"{value * scale:.1f}" for value in values if value is not None) or NONE_YET


def percent(spread: Spread | None) -> str:
    """'48.2 ± 0.9' of several seeds, '48.2 [45.1, 51.4]' of one."""
    if spread is None:
        return NONE_YET
    if spread.interval is not None:
        return f"{spread.mean * 100:.1f} [{spread.interval[0] * 100:.1f}, {spread.interval[1] * 100:.1f}]"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation * 100:.1f}"
    return f"{spread.mean * 100:.1f}{deviation}"


def duration(seconds: float) -> str:
    """'2:05:09', hours first."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def markdown(table: Table) -> str:
    header, rows = table
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def csv_text(table: Table) -> str:
    header, rows = table
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([header, *rows])
    return stream.getvalue()


def _text(value: Any, missing: str = "") -> str:
    return missing if value is None else str(value)
