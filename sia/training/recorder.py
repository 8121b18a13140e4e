"""What a job writes into its run folder: rows of metrics, checkpoints, and the markers of the state machine."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from sia.checkpoint.background import Background, KeptCopy, on_one_thread
from sia.checkpoint.state import TrainingState, without_moments, write_checkpoint
from sia.data.prepared_corpus import PreparedCorpus, check_identity
from sia.errors import UserError
from sia.run.folder import RunFolder
from sia.run.mended import rows_of
from sia.run.records import StageDone, TrainedOn
from sia.run.row_files import append_row, write_rows
from sia.run.selection import selected_on, selecting_recalls, selection_value
from sia.run.steps import StepRow, StepWriter


class Recorder:
    """The one writer of a stage; on ranks other than the first it writes nothing.

    An epoch's end is written in the background, of a copy. What is written next waits for it, and so does the end of a
    `with` statement, however it ends. An error of it is raised at the next write.
    confirm: called before each write; it does not return where another job has taken the run over.
    """

    def __init__(
        self,
        run: RunFolder,
        number: int,
        first_epoch: int,
        is_first: bool,
        confirm: Callable[[], None] = lambda: None,
    ) -> None:
        self.run, self.number, self.first_epoch, self.is_first = run, number, first_epoch, is_first
        self.confirm = confirm
        self.stage = run.stage(number)
        self.keep_every = run.experiment().runtime.keep_every_epochs
        self._last_is_whole = True
        self._background, self._copy = Background(), KeptCopy()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """The lock is let go after this: nothing may be under way then."""
        try:
            self._background.wait()
        except Exception as fault:
            if error is None:
                raise
            print(f"warning: {self.stage.path}: the last epoch was not saved: {fault}", file=sys.stderr, flush=True)

    def check_corpus(self, corpus: PreparedCorpus) -> None:
        """Raises UserError where the run was begun on another corpus; the first job records it."""
        known = TrainedOn.read(self.run.corpus)
        check_identity(corpus.folder, corpus.description, known, self.run.path)
        if known is None and self.is_first:
            # Where it lies for everybody, not the copy on this node.
            folder = str(self.run.experiment().data.path.absolute())
            described = corpus.description.model_dump(exclude={"checksums"})
            TrainedOn(**described, folder=folder).write(self.run.corpus)

    def agree_with(self, state: TrainingState, restored: Path | None) -> None:
        """After a restore, make all files those of the checkpoint `restored`, whenever the job before died.

        These are the rows, best.pt and the last epoch's kept weights; parts of files are cleared away.
        """
        if not self.is_first:
            return
        self._last_is_whole = restored in (self.stage.last, self.stage.partial)
        self._write_rows(state.progress.rows)
        for unfinished in self.stage.last.parent.glob(".*.tmp"):
            unfinished.unlink(missing_ok=True)
        if state.progress.rows and state.sampler.next_batch == 0 and restored == self.stage.last:
            self._keep(state.content(), state.progress.rows[-1]["epoch"])
        self.steps = StepWriter(self.run.steps, self.first_epoch * len(state.sampler) + state.progress.step)

    def steps_done(self, row: StepRow) -> None:
        """Record how training goes on within an epoch, and print it where no line on the epoch follows at once."""
        if self.is_first:
            self._background.look()
            self.confirm()
            self.steps.add(row)
            if row.batch < row.batches:
                print(row, flush=True)

    def _write_rows(self, rows: list[dict[str, Any]]) -> None:
        """Make metrics.jsonl what the checkpoint says of this stage, between the rows of other stages."""
        known = rows_of(self.run)
        earlier = [row for row in known if row["stage"] < self.number]
        later = [row for row in known if row["stage"] > self.number]
        write_rows(self.run.metrics, [*earlier, *rows, *later])

    def epoch_done(self, state: TrainingState, epoch: int, measures: dict[str, float]) -> None:
        """Record an epoch: first in the checkpoint, then in metrics.jsonl, which a restart can mend from it."""
        self._background.wait()
        progress = state.progress
        place = {"stage": self.number, "epoch": epoch, "stage_epoch": progress.epochs_done, "time": time.time()}
        row = {**place, **measures}
        progress.rows.append(row)
        value = selection_value(row)
        if value > progress.best_value:
            progress.best_value, progress.best_epoch = value, epoch
        if self.is_first:
            with on_one_thread():
                content = self._copy.of(state.content())
            self._background.begin(lambda: self._save_epoch(content, epoch))

    def _save_epoch(self, content: dict[str, Any], epoch: int) -> None:
        self.confirm()
        write_checkpoint(self.stage.last, content, self._make_way)
        self._last_is_whole = True
        self.stage.partial.unlink(missing_ok=True)
        self._keep(content, epoch)
        self.confirm()
        rows = content["progress"]["rows"]
        self._add_row(rows)
        print(_line(rows[-1]), flush=True)

    def _make_way(self) -> None:
        """The epoch before stays as previous.pt, once the file that takes its place is whole."""
        self.confirm()
        if self.stage.last.exists() and self._last_is_whole:
            _link(self.stage.last, self.stage.previous)

    def _add_row(self, rows: list[dict[str, Any]]) -> None:
        try:
            append_row(self.run.metrics, rows[-1])
        except UserError:  # the rows before it were damaged meanwhile
            self._write_rows(rows)

    def _keep(self, content: dict[str, Any], epoch: int) -> None:
        """What else is kept of an epoch whose end last.pt holds."""
        if content["progress"]["best_epoch"] == epoch:
            _link(self.stage.last, self.stage.best)
        if self.keep_every and epoch % self.keep_every == 0:
            write_checkpoint(self.stage.weights_of_epoch(epoch), without_moments(content), self.confirm)

    def save_partial(self, state: TrainingState) -> None:
        """Within an epoch; last.pt stays what the last row tells of."""
        self._background.wait()
        if self.is_first:
            self.confirm()
            state.save(self.stage.partial)

    def stage_done(self, state: TrainingState) -> None:
        self._background.wait()
        progress = state.progress
        if self.is_first:
            self.confirm()
            # Once more: a job that lived on while its node was cut off may have added a row after the last restore.
            self._write_rows(progress.rows)
            self.stage.previous.unlink(missing_ok=True)
            StageDone(
                best_epoch=progress.best_epoch,
                best_value=progress.best_value,
                seconds=progress.seconds,
                epochs=progress.epochs_done,
                rows=progress.rows,
            ).write(self.stage.done)


def _link(source: Path, target: Path) -> None:
    """Make `target` another name of `source`: an epoch that is the best is not written twice."""
    unfinished = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    try:
        os.link(source, unfinished)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, unfinished)
    os.replace(unfinished, target)
    # Two names of one file are left as they are by a rename.
    unfinished.unlink(missing_ok=True)


def _line(row: dict[str, Any]) -> str:
    speech_to_image, image_to_speech = (f"{share * 100:.1f}" for share in selecting_recalls(row))
    return (
        f"stage {row['stage']} epoch {row['epoch']}: loss {row['train/loss']:.4f}, "
        f"{selected_on(row)} R@10 in percent: speech->image {speech_to_image}, image->speech {image_to_speech}, "
        f"{row['train/seconds']:.1f} s"
    )
