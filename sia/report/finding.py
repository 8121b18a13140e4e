"""What a study found, in sentences made of its numbers: the best configuration, and which leads are settled."""

from dataclasses import dataclass, field
from itertools import pairwise
from math import hypot, inf, sqrt
from statistics import mean, variance

from sia.report.chance import Chances
from sia.report.differences import telling, text
from sia.report.groups import Group, grouped, size_of
from sia.report.summary import RunSummary
from sia.run.selection import DIRECTIONS

R_AT_10 = [f"{direction}/R_at_10" for direction in DIRECTIONS]
# Student's t, 97.5 %, by degrees of freedom from 1; 1.96 without end.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)
NORMAL = 1.96
MOST_NAMES = 4
LARGEST = ("", "second ", "third ", "fourth ", "fifth ")
KINDS = {
    "loss.name": "losses",
    "training.batch_size": "batch sizes",
    "model.image.blocks": "image encoders",
    "optimizer.learning_rate": "learning rates",
    "stages": "plans of restarts",
    "stages.1.schedule.name": "schedules",
}


@dataclass(frozen=True)
class Finding:
    """The answer in a sentence, what limits it, and the configuration that it is of, if any has finished."""

    answer: str
    notes: list[str] = field(default_factory=list)
    best: Group | None = None

    def __str__(self) -> str:
        return " ".join([self.answer, *self.notes])


def finding(summaries: list[RunSummary], chances: Chances | None = None) -> Finding:
    """The best configuration with its uncertainty, and which of the others it leads by more than that."""
    every = grouped(summaries)
    groups = best_first(every)
    if not groups:
        return Finding("No run has finished yet, so nothing is found.")
    if (sets := len({_tested_on(run) for group in groups for run in group.finished})) > 1:
        return Finding(f"The runs were tested on {sets} different sets, so that their recalls do not compare.")
    best, others = groups[0], groups[1:]
    of_all = f"Of {len(groups)} {_kind(groups)}, {best.label} does best: it" if others else best.label
    answer = f"{of_all} finds the right image among ten for {_told(best, 0)} of the captions it hears"
    answer += f", and the right caption among ten for {_told(best, 1)} of the images{_by_chance(best, chances)}."
    notes = [note for note in (_by_size(groups), _by_number(groups)) if note]
    notes += _order(best, others) if others else []
    if "test" in {run.selected_on for group in groups for run in group.finished}:
        notes.append("Where epochs were chosen on test, as in the paper, a recall is a little too high.")
    if (left := sum(not run.finished for run in summaries)) > 0:
        notes.append(f"{left} of {len(summaries)} runs have not finished: this may change.")
    return Finding(answer, notes, best)


def best_first(groups: list[Group]) -> list[Group]:
    """Those with a finished run, by the mean of both directions' R@10 on test."""
    return sorted((one for one in groups if one.finished), key=_value, reverse=True)


def _kind(groups: list[Group]) -> str:
    """What the configurations are, in the words of a question."""
    if (pairs := len({group.runs[0].pair for group in groups})) == len(groups):
        return "pairs"
    keys = {key for one in telling([group.settings for group in groups]) for key in one}
    return KINDS.get(keys.pop(), "configurations") if pairs == len(keys) == 1 else "configurations"


def _by_size(groups: list[Group]) -> str:
    """Where the best one stands by size, and what the smallest one reaches."""
    branch, sizes = size_of(groups)
    order = sorted(groups, key=lambda group: -sizes[group.label])
    if len({*sizes.values()}) < max(2, len(groups)):
        return ""
    place, smallest = order.index(groups[0]), order[-1]
    if smallest is groups[0]:
        return f"By {branch} parameters it is the smallest of {len(order)}."
    where = f"the {LARGEST[place]}largest" if place < len(LARGEST) else f"number {place + 1}"
    reached = " and ".join(f"{spread.mean * 100:.1f}" for key in R_AT_10 if (spread := smallest.spread(key)))
    told = f"By {branch} parameters it is {where} of {len(order)}"
    return f"{told}; the smallest, {smallest.label}, reaches {reached} %."


def _by_number(groups: list[Group]) -> str:
    """Whether recall rises or falls throughout with the one number that was varied, of one pair."""
    settings = telling([group.settings for group in groups])
    keys = {key for one in settings for key in one}
    values = [value for one in settings for value in one.values()]
    is_one_number = len(keys) == len({group.runs[0].pair for group in groups}) == 1
    if len(groups) < 3 or not is_one_number or not all(isinstance(value, (int, float)) for value in values):
        return ""
    recalls = [_value(group) for _, group in sorted(zip(values, groups, strict=True), key=lambda one: one[0])]
    steps = [later - sooner for sooner, later in pairwise(recalls)]
    way = "rises" if min(steps) > 0 else "falls" if max(steps) < 0 else "neither rises nor falls"
    what = keys.pop().rpartition(".")[2].replace("_", " ")
    return f"R@10 {way} with the {what} throughout, from {text(min(values))} to {text(max(values))}."


def _tested_on(run: RunSummary) -> tuple[str, int | None, int | None]:
    return run.corpus_identity or run.corpus, run.num_test_captions, run.num_test_images


def _value(group: Group) -> float:
    """The mean of both directions, over the finished seeds."""
    return mean(recall_of(run) for run in group.finished)


def recall_of(run: RunSummary) -> float:
    """The mean of both directions' R@10 on test."""
    return mean(run.test[measure] for measure in R_AT_10)


def _told(group: Group, direction: int) -> str:
    """'89.8 % (86.5 to 92.8)' of one seed, '89.8 % (± 1.2 over 3 seeds)' of several."""
    spread = group.spread(R_AT_10[direction])
    if spread is None:
        return "an unknown share"
    value = f"{spread.mean * 100:.1f} %"
    if spread.deviation is not None:
        return f"{value} (± {spread.deviation * 100:.1f} over {len(group.finished)} seeds)"
    if spread.low is None or spread.high is None:
        return value
    return f"{value} ({spread.low * 100:.1f} to {spread.high * 100:.1f})"


def _by_chance(best: Group, chances: Chances | None) -> str:
    if chances is None:
        return ""
    guesses = mean(chances.values())
    guessed = _sampling(best) < inf and _value(best) - guesses <= _sampling(best)
    return f"; {'that is no more than chance, which' if guessed else 'chance'} is {guesses * 100:.3g} %"


def _order(best: Group, others: list[Group]) -> list[str]:
    """Which of the others the best one leads by more than the uncertainty of the difference."""
    behind = [one for one in others if _value(best) - _value(one) > uncertainty(best, one)]
    open_yet = [one for one in others if one not in behind]
    seeds = all(len(one.finished) > 1 for one in (best, *others))
    what = "what seeds and the test set's sampling explain" if seeds else "what the test set's sampling explains"
    told = [f"It leads {_names(behind)} by more than {what}."] if behind else []
    if open_yet:
        told.append(f"Its lead over {_names(open_yet)} is not settled.")
    if not seeds:
        told.append("With one seed a configuration, another seed may still change this order.")
    return told


def uncertainty(one: Group, other: Group) -> float:
    """Half the 95 % interval of the difference of two configurations' means.

    The larger of what the sampling of the test set and what seeds make of it; seeds by Welch's t-test, where both have
    several. Pairs are not compared caption by caption, so that the first errs on the careful side.
    """
    return max(hypot(_sampling(one), _sampling(other)), _of_seeds(one, other))


def _sampling(group: Group) -> float:
    """Half the mean width of the finished runs' intervals; without end where they have none."""
    bounds = [
        (run.test.get(f"{measure}_high", inf) - run.test.get(f"{measure}_low", 0.0)) / 2
        for run in group.finished
        for measure in R_AT_10
    ]
    return mean(bounds)


def _of_seeds(one: Group, other: Group) -> float:
    values = [[recall_of(run) for run in group.finished] for group in (one, other)]
    if min(map(len, values)) < 2:
        return 0.0
    parts = [variance(found) / len(found) for found in values]
    if not sum(parts):
        return 0.0
    freedom = sum(parts) ** 2 / sum(part**2 / (len(found) - 1) for part, found in zip(parts, values, strict=True))
    return (STUDENT[int(freedom) - 1] if freedom < len(STUDENT) else NORMAL) * sqrt(sum(parts))


def _names(groups: list[Group]) -> str:
    labels = [group.label for group in groups]
    rest = len(labels) - MOST_NAMES
    if rest > 1:
        labels = [*labels[:MOST_NAMES], f"{rest} others"]
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"
