"""The paper's Table 1 and Table 2 with our rows, and a table of every run, as Markdown and CSV."""

import csv
import io
import re
from typing import Any

from sia.report.groups import Group, Spread, grouped
from sia.report.paper import CORPUS, PAIRS, PAPER, UNKNOWN
from sia.report.summary import RunSummary
from sia.run.selection import DIRECTIONS, protocol

R_AT_10 = {"speech→image": "speech_to_image/R_at_10", "image→speech": "image_to_speech/R_at_10"}
MEASURES = [
    f"{direction}/{measure}"
    for direction in DIRECTIONS
    for measure in ("R_at_1", "R_at_5", "R_at_10", "median_rank", "mean_rank")
]
RECORDED = [*MEASURES, *(f"{measure}_{bound}" for measure in R_AT_10.values() for bound in ("low", "high"))]
NONE_YET = "–"
NUMBERS = re.compile(rf"[-–+±\d.,:/ \[\]]+|{UNKNOWN}")

Row = dict[str, Any]  # a table's cells by their headings, None where there is nothing


def table1(summaries: list[RunSummary], thousands: str = ",") -> list[Row]:
    """Sizes of the study's encoder pairs, as trainable parameters; `thousands` separates digits ("" for programs)."""
    rows = [
        {
            "Pair": run.pair,
            "Speech parameters": f"{run.speech_parameters:{thousands}}",
            "Image parameters": f"{run.image_parameters:{thousands}}",
            "GRU layers": run.experiment.model.gru_layers,
            "Latent size": run.experiment.model.latent_size,
        }
        for run in (group.runs[0] for group in grouped(summaries))
    ]
    return list({tuple(row.values()): row for row in rows}.values())


def table1_beside(summaries: list[RunSummary]) -> list[Row]:
    """Table 1 of the paper, and ours below it."""
    ours = table1(summaries)
    papers = [[pair, f"{speech:,}", f"{image:,}", *shape] for pair, (speech, image, *shape) in PAIRS.items()]
    return [
        {"Source": source, **dict(zip(ours[0], row, strict=True))}
        for source, rows in ((PAPER, papers), ("ours", [[*row.values()] for row in ours]))
        for row in rows
    ]


def table2(summaries: list[RunSummary]) -> list[Row]:
    """One row a configuration: R@10 in percent on the test split, mean ± spread over seeds or the interval of one."""
    rows = [
        {
            "Source": f"ours, {group.label}",
            "Dataset": group.runs[0].corpus,
            "TL": "No",
            "Image encoder": group.runs[0].experiment.model.image.title,
            **{f"R@10 {direction}": percent(group.spread(measure)) for direction, measure in R_AT_10.items()},
            "Test pool": _pool(group),
            "Best epoch chosen on": protocol(group.runs[0].selected_on),
            "Seeds": _seeds(group),
        }
        for group in grouped(summaries)
    ]
    paper = {"Test pool": "999 captions, 999 images", "Best epoch chosen on": protocol("test")}
    return _below_the_papers(rows, paper, summaries)


def table2_records(summaries: list[RunSummary]) -> list[Row]:
    """Table 2 for programs: shares from 0 to 1; mean, sample standard deviation, bounds of one seed's interval."""
    rows = []
    for group in grouped(summaries):
        one = (group.finished or group.runs)[0]
        rows.append(
            {
                "source": f"ours, {group.label}",
                "dataset": one.corpus,
                "transfer_learning": "No",
                "image_encoder": one.experiment.model.image.title,
                **{
                    f"{measure}_{kind}": getattr(group.spread(measure), kind, None)
                    for measure in R_AT_10.values()
                    for kind in ("mean", "deviation", "low", "high")
                },
                "num_test_captions": one.num_test_captions,
                "num_test_images": one.num_test_images,
                "selected_on": one.selected_on,
                "seeds_finished": len(group.finished),
                "seeds": len(group.runs),
            }
        )
    paper = {"num_test_captions": 999, "num_test_images": 999, "selected_on": "test"}
    return _below_the_papers(rows, paper, summaries)


def _below_the_papers(ours: list[Row], known: Row, summaries: list[RunSummary]) -> list[Row]:
    """The paper's rows come first where a run was trained on its corpus: with no other do recalls compare."""
    papers = []
    for pair in PAIRS if any(run.corpus == CORPUS for run in summaries) else ():
        cells = dict(zip(ours[0], (f"{PAPER}, {pair}", "P205 (400k)", "No", "DenseNet"), strict=False))
        papers.append({**dict.fromkeys(ours[0], UNKNOWN), **cells, **known})
    return papers + ours


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


def results_table(summaries: list[RunSummary]) -> list[Row]:
    """What came of every run, finished or not."""
    return [
        {
            "Run": run.name,
            "Settings": group.told,
            "Seed": run.seed,
            "State": run.state,
            **{f"R@{k}": both_directions(run.test, f"R_at_{k}") for k in (1, 5, 10)},
            "Median rank": both_directions(run.test, "median_rank"),
            "R@10 trained": both_directions(run.epoch_rows[-1] if run.epoch_rows else {}, "R_at_10", "train/"),
        }
        for group in grouped(summaries)
        for run in group.runs
    ]


def course_table(summaries: list[RunSummary]) -> list[Row]:
    """How every run came to it: a second table, for one of both is wider than a page."""
    return [
        {
            "Run": run.name,
            "Best epoch": NONE_YET if run.best_epoch is None else run.best_epoch,
            "Chosen on": protocol(run.selected_on),
            "Stage": NONE_YET if run.best_stage is None else run.best_stage,
            "Epochs": f"{run.epochs_trained} of {sum(stage.epochs for stage in run.configuration.stages)}",
            "Stage restarts": ", ".join(f"{one.after_epoch} (from {one.from_epoch})" for one in run.stages_begun)
            or "none",
            "Wall time": duration(run.seconds),
            "Commit": run.commit[:8] or NONE_YET,
        }
        for group in grouped(summaries)
        for run in group.runs
    ]


def runs_records(summaries: list[RunSummary]) -> list[Row]:
    """Every run for programs: shares from 0 to 1, seconds, whole commits."""
    of_run = ("state", "pair", "seed", "speech_parameters", "image_parameters", "corpus", "corpus_identity")
    of_course = ("best_epoch", "best_stage", "epochs_trained", "selected_on")
    return [
        {
            "run": run.name,
            **{name: getattr(run, name) for name in (*of_run, *of_course)},
            "restarts_after_epochs": " ".join(str(restart.after_epoch) for restart in run.restarts),
            "seconds": run.seconds,
            "commit": run.commit,
            **{f"test/{measure}": run.test.get(measure) for measure in RECORDED},
            "num_test_captions": run.num_test_captions,
            "num_test_images": run.num_test_images,
        }
        for group in grouped(summaries)
        for run in group.runs
    ]


def narrowed(rows: list[Row]) -> tuple[list[Row], str]:
    """A table without the columns that are the same in all rows, and these in words; what a row is of, and R@K stay."""
    stay = {next(iter(rows[0])), *(key for key in rows[0] if key.startswith("R@"))}
    kept = [key for key in rows[0] if key in stay or len({row[key] for row in rows}) > 1]
    if len(kept) == 1:
        return rows, ""
    common = ", ".join(f"{key} {value}" for key, value in rows[0].items() if key not in kept and value != "")
    return [{key: row[key] for key in kept} for row in rows], f"In every row: {common}." if common else ""


def numeric(rows: list[Row]) -> set[str]:
    """The columns of numbers alone, which stand on the right."""
    return {key for key in rows[0] if all(NUMBERS.fullmatch(str(row[key])) for row in rows)}


def both_directions(measures: Row, measure: str, prefix: str = "") -> str:
    """'48.2 / 46.0' in percent, speech to image first; ranks as they are."""
    values = [measures.get(f"{prefix}{direction}/{measure}") for direction in DIRECTIONS]
    scale = 1 if measure == "median_rank" else 100
    return " / ".join(f"{value * scale:.1f}" for value in values if value is not None) or NONE_YET


def percent(spread: Spread | None) -> str:
    """'48.2 ± 0.9' of several seeds, '48.2 [45.1, 51.4]' of one."""
    if spread is None:
        return NONE_YET
    if spread.low is not None and spread.high is not None:
        return f"{spread.mean * 100:.1f} [{spread.low * 100:.1f}, {spread.high * 100:.1f}]"
    deviation = "" if spread.deviation is None else f" ± {spread.deviation * 100:.1f}"
    return f"{spread.mean * 100:.1f}{deviation}"


def duration(seconds: float) -> str:
    """'2:05:09', hours first."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def markdown(rows: list[Row]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(map(str, row.values())) for row in rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def csv_text(rows: list[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()
