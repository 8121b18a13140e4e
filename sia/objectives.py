"""The losses of `loss:`, each with its own settings, what it learns besides the pair, and its value on a batch.

A new loss is a class here: `name` is its key in `loss.name`, its fields are its settings, `value` is its formula (that
of those which stand here is the function of their name in sia/losses.py), and `learned` and `measures` are there for
one that learns. This module loads no torch, so that a login node can check a grid.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from sia.section import Kind

if TYPE_CHECKING:
    from torch import Generator, Tensor

LARGEST_SCALE = 100.0  # as in CLIP: a temperature that falls further makes training unstable


class Learned(NamedTuple):
    """A parameter trained beside the pair: where it starts, a number or nested lists of them, and its bounds."""

    start: Any
    low: float = -math.inf
    high: float = math.inf


class Loss(Kind):
    """What is minimised. The paper's (equation 3) is `hinge`."""

    default: ClassVar[str] = "hinge"
    normaliser: Literal["mean", "sum"] = Field("mean", description="mean over the B anchors, or the plain sum")

    def learned(self) -> dict[str, Learned]:
        """What is trained beside the pair, by name."""
        return {}

    def measures(self, learned: "Mapping[str, Tensor]") -> dict[str, float]:
        """What it has learnt, for a row of metrics.jsonl."""
        return {}

    def value(
        self, similarities: "Tensor", same_image: "Tensor", learned: "Mapping[str, Tensor]", generator: "Generator"
    ) -> "Tensor":
        """Similarities [B, B] and the mask [B, B] of pairs that share an image -> scalar, the mean over the B anchors.

        generator: where draws come from; the same on all ranks, and in a resume.
        """
        from sia import losses

        loss: Tensor = getattr(losses, self.name)(similarities, same_image, **self._settings(learned, generator))
        return loss

    def _settings(self, learned: "Mapping[str, Tensor]", generator: "Generator") -> dict[str, Any]:
        """What the function of its name takes besides: its own keys."""
        return self.model_dump(exclude={"name", "normaliser"})


class OfMargin(Loss):
    margin: Annotated[float, Field(ge=0)] = 0.2


class Hinge(OfMargin):
    """Each aligned pair against every negative."""

    name: Literal["hinge"] = "hinge"


class HingeHardest(OfMargin):
    """Each aligned pair against its most similar negative."""

    name: Literal["hinge_hardest"] = "hinge_hardest"


class HingeSemihard(OfMargin):
    """Each aligned pair against the most similar negative that is less similar than the pair."""

    name: Literal["hinge_semihard"] = "hinge_semihard"


class HingeSampled(OfMargin):
    """Each aligned pair against one negative, drawn anew at each step."""

    name: Literal["hinge_sampled"] = "hinge_sampled"

    def _settings(self, learned: "Mapping[str, Tensor]", generator: "Generator") -> dict[str, Any]:
        return {"margin": self.margin, "generator": generator}


class MaskedMarginSoftmax(OfMargin):
    """A softmax over the negatives with a margin (Ilharco et al. 2019)."""

    name: Literal["masked_margin_softmax"] = "masked_margin_softmax"
    scale: Annotated[float, Field(gt=0)] = Field(20.0, description="factor of the similarities")


class InfoNce(Loss):
    """A softmax over the negatives, at a temperature that may be learnt."""

    name: Literal["info_nce"] = "info_nce"
    temperature: Annotated[float, Field(gt=0)] = Field(0.07, description="divisor of the similarities")
    learn_temperature: bool = Field(True, description="the temperature above is where it starts")

    def learned(self) -> dict[str, Learned]:
        start = Learned(-math.log(self.temperature), high=math.log(LARGEST_SCALE))
        return {"log_scale": start} if self.learn_temperature else {}

    def measures(self, learned: "Mapping[str, Tensor]") -> dict[str, float]:
        return {"temperature": float((-learned["log_scale"]).exp())} if learned else {}

    def _settings(self, learned: "Mapping[str, Tensor]", generator: "Generator") -> dict[str, Any]:
        return {"temperature": (-learned["log_scale"]).exp() if learned else self.temperature}
