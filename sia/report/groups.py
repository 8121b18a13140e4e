"""Runs of one configuration that differ in their seed alone, and what to call them."""

from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from sia.report.summary import RunSummary

LONGEST_VALUE = 60


@dataclass(frozen=True)
class Spread:
    """A mean over seeds, their sample standard deviation where there is more than one, the interval of the only one."""

    mean: float
    deviation: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone, and the settings that tell them from other groups of the same pair."""

    settings: tuple[str, ...]  # each as key=value; none where the pair's name tells enough
    runs: tuple[RunSummary, ...]

    @property
    def label(self) -> str:
        """The pair's name, and in brackets those settings."""
        pair = self.runs[0].pair
        return f"{pair} ({', '.join(self.settings)})" if self.settings else pair

    @property
    def finished(self) -> list[RunSummary]:
        return [run for run in self.runs if run.finished]

    def spread(self, measure: str) -> Spread | None:
        """Over the finished runs, of a test measure such as `speech_to_image/R_at_10`; None if no run has it."""
        found = [run.test for run in self.finished if measure in run.test]
        values = [test[measure] for test in found]
        if len(found) > 1:
            return Spread(mean(values), stdev(values))
        return Spread(values[0], None, _interval(found[0], measure)) if found else None


def _interval(test: dict[str, float], measure: str) -> tuple[float, float] | None:
    bounds = (f"{measure}_low", f"{measure}_high")
    return (test[bounds[0]], test[bounds[1]]) if all(bound in test for bound in bounds) else None


def grouped(summaries: list[RunSummary]) -> list[Group]:
    """The study's configurations in the order of the paper's tables (most layers first, then widest)."""
    groups: dict[str, list[RunSummary]] = {}
    for run in sorted(summaries, key=_order):
        groups.setdefault(repr(sorted(_settings(run, summaries).items())), []).append(run)
    firsts = [_settings(runs[0], summaries) for runs in groups.values()]
    differences = [_differing(_settings(runs[0], summaries), firsts) for runs in groups.values()]
    by_seed = [tuple(sorted(runs, key=lambda run: run.seed)) for runs in groups.values()]
    return [Group(settings, runs) for settings, runs in zip(differences, by_seed, strict=True)]


def _order(run: RunSummary) -> tuple[int, int, str]:
    return -run.experiment.model.gru_layers, -run.experiment.model.latent_size, run.name


def _settings(run: RunSummary, summaries: list[RunSummary]) -> dict[str, Any]:
    # A run that has not begun does not know yet which copy of its corpus it will be trained on.
    known = [other.corpus_identity for other in summaries if other.corpus == run.corpus and other.corpus_identity]
    return {**run.settings, "pair": run.pair, "corpus": run.corpus_identity or next(iter(known), "")}


def _differing(own: dict[str, Any], firsts: list[dict[str, Any]]) -> tuple[str, ...]:
    """The settings in which a configuration differs from another one of the same pair."""
    same_pair = [settings for settings in firsts if settings["pair"] == own["pair"]]
    differing = [key for key in own if any(settings.get(key, own[key]) != own[key] for settings in same_pair)]
    if "stages" in differing:
        # It tells the chain in short.
        differing = [key for key in differing if not key.startswith("stages.")]
    return tuple(f"{key}={str(own[key])[:LONGEST_VALUE]}" for key in differing)
