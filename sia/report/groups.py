"""Runs of one configuration that differ in their seed alone, and what to call them."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from statistics import mean, stdev
from typing import Any

from sia.report.differences import differing, in_words, telling
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
    """Runs that differ in their seed alone, and the settings that tell them from other groups of the same pair.

    label: what no other group of the study is called: its pair, those settings in words, or in brackets both.
    """

    settings: dict[str, Any]  # by dotted key; none where the pair's name tells enough
    told: str  # as few of them as tell it apart, in words
    label: str
    runs: tuple[RunSummary, ...]

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
    by_pair = [list(same) for _, same in itertools.groupby(alike.items(), key=lambda one: one[1][0].pair)]
    found = []
    for same in by_pair:
        corpora = [{"corpus": identity} for (_, identity), _ in same]
        of_pair = [runs for _, runs in same]
        settings = differing([runs[0].configuration for runs in of_pair])
        if len({*map(str, corpora)}) > 1:
            settings = [{**one, **corpus} for one, corpus in zip(settings, corpora, strict=True)]
        few = telling(settings)
        told = in_words(few)
        # Chains of several lengths are told in short, without a schedule's own settings: such a run's hash tells more.
        words_of = [
            words if told.count(words) == 1 else f"{words} {runs[0].name.rpartition('-')[2]}".strip()
            for words, runs in zip(told, of_pair, strict=True)
        ]
        rows = sorted(zip(few, words_of, settings, of_pair, strict=True), key=lambda row: _by_value(row[0]))
        for _, words, own, runs in rows:
            pair = runs[0].pair
            label = words if words and len(by_pair) == 1 else pair + f" ({words})" * bool(words)
            found.append(Group(own, words, label, tuple(sorted(runs, key=lambda run: run.seed))))
    return found


def _by_value(settings: Mapping[str, Any]) -> list[tuple[float, str]]:
    """Numbers in their order, which is not that of their text, before words."""
    return [(value, "") if isinstance(value, (int, float)) else (inf, str(value)) for value in settings.values()]


def size_of(groups: list[Group]) -> tuple[str, dict[str, int]]:
    """The branch whose size differs, speech before image, and its trainable parameters by the groups' labels."""
    sizes = {
        "speech": {group.label: group.runs[0].speech_parameters for group in groups},
        "image": {group.label: group.runs[0].image_parameters for group in groups},
    }
    branch = "image" if len({*sizes["speech"].values()}) < 2 else "speech"
    return branch, sizes[branch]


def _order(run: RunSummary) -> tuple[int, int, str]:
    return -run.experiment.model.gru_layers, -run.experiment.model.latent_size, run.name
