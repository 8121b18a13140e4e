"""Runs of one configuration that differ in their seed alone, and what to call them."""

import itertools
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from sia.report.settings import differing, text
from sia.report.summary import RunSummary


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, their sample standard deviation where there is more than one, the interval of the only one."""

    mean: float
    deviation: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, and the settings that tell them from other groups of the same pair."""

    settings: dict[str, Any]  # by dotted key; none where the pair's name tells enough
    runs: tuple[RunSummary, ...]

    @property
    def label(self) -> str:
        """The pair's name, and in brackets those settings."""
        return self.runs[0].pair + (f" ({self.told})" if self.settings else "")

    @property
    def told(self) -> str:
        return ", ".join(f"{key}={text(value)}" for key, value in self.settings.items())

    @property
    def finished(self) -> list[RunSummary]:
        return [run for run in self.runs if run.finished]

    def spread(self, measure: str) -> Spread | None:
        """Over the finished runs, of a test measure such as `speech_to_image/R_at_10`; None if no run has it."""
        found = [run.test for run in self.finished if measure in run.test]
        values = [test[measure] for test in found]
        if len(found) > 1:
            return Spread(mean(values), stdev(values))
        bounds = {bound: found[0].get(f"{measure}_{bound}") for bound in ("low", "high")} if found else {}
        return Spread(values[0], **bounds) if found else None


def grouped(summaries: list[RunSummary]) -> list[Group]:
    """The study's configurations in the order of the paper's tables (most layers first, then widest)."""
    # A run that has not begun does not know yet which copy of its corpus it will be trained on.
    known = {run.corpus: run.corpus_identity for run in summaries if run.corpus_identity}
    alike: dict[tuple[str, str], list[RunSummary]] = {}
    for run in sorted(summaries, key=_order):
        identity = run.corpus_identity or known.get(run.corpus, "")
        alike.setdefault((run.configuration.run_name, identity), []).append(run)
    found = []
    for _, of_pair in itertools.groupby(alike.items(), key=lambda one: one[1][0].pair):
        same = list(of_pair)
        told = differing([runs[0].configuration for _, runs in same])
        corpora = {identity for (_, identity), _ in same}
        for ((_, identity), runs), settings in zip(same, told, strict=True):
            corpus = {"corpus": identity} if len(corpora) > 1 else {}
            found.append(Group({**settings, **corpus}, tuple(sorted(runs, key=lambda run: run.seed))))
    return found


def _order(run: RunSummary) -> tuple[int, int, str]:
    return -run.experiment.model.gru_layers, -run.experiment.model.latent_size, run.name
