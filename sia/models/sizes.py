"""How many trainable parameters a pair has, in closed form, so that a login node can tell without torch (Table 1)."""

from sia.config import Model

CONV_CHANNELS = 64
CONV_KERNEL = 6
ATTENTION_SIZE = 128


def speech_parameters(model: Model) -> int:
    """Conv1d, bidirectional GRU layers of hidden size D/2, attention (paper, section 4.1)."""
    latent, hidden = model.latent_size, model.latent_size // 2
    conv = CONV_CHANNELS * (model.frame_features * CONV_KERNEL + 1)
    widths = [CONV_CHANNELS] + [latent] * (model.gru_layers - 1)
    gru = sum(2 * 3 * hidden * (width + hidden + 2) for width in widths)
    attention = ATTENTION_SIZE * (latent + 1) + latent * (ATTENTION_SIZE + 1)
    return conv + gru + attention


def image_parameters(model: Model) -> int:
    """Of the image encoder's own kind (paper, section 4.2)."""
    return model.image.parameters(model.latent_size)
