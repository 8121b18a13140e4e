"""The names of the speech encoder's layers. It loads no torch."""

from sia.errors import UsageError


def layer_names(gru_layers: int) -> list[str]:
    """conv, gru1, ..., gruN."""
    return ["conv", *(f"gru{number}" for number in range(1, gru_layers + 1))]


def depth_of(layer: str, gru_layers: int) -> int:
    """How many GRU layers stand before the layer's output: 0 for conv. Raises UsageError that lists the layers."""
    names = layer_names(gru_layers)
    if layer not in names:
        raise UsageError(f"--layer {layer}: this pair has no such layer; use one of {', '.join(names)}")
    return names.index(layer)
