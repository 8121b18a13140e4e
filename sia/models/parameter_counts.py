"""How many trainable parameters a pair has, in closed form, so that a login node can tell without torch (Table 1)."""

from sia.config import Model

CONV_CHANNELS = 64
CONV_KERNEL = 6
ATTENTION_SIZE = 128
BOTTLENECK = 4  # torchvision's DenseNet: a layer's 1x1 convolution makes so many times growth_rate features


def speech_parameters(model: Model) -> int:
    """Conv1d, bidirectional GRU layers of hidden size D/2, attention (paper, section 4.1)."""
    latent, hidden = model.latent_size, model.latent_size // 2
    conv = CONV_CHANNELS * (model.frame_features * CONV_KERNEL + 1)
    widths = [CONV_CHANNELS] + [latent] * (model.gru_layers - 1)
    gru = sum(2 * 3 * hidden * (width + hidden + 2) for width in widths)
    attention = ATTENTION_SIZE * (latent + 1) + latent * (ATTENTION_SIZE + 1)
    return conv + gru + attention


def image_parameters(model: Model) -> int:
    """DenseNet with a last linear layer of size D (paper, section 4.2)."""
    width, growth = model.initial_features, model.growth_rate
    total = 3 * width * 7 * 7 + 2 * width
    for number, layers in enumerate(model.image_blocks, start=1):
        for _ in range(layers):
            middle = BOTTLENECK * growth
            total += 2 * width + width * middle + 2 * middle + middle * growth * 3 * 3
            width += growth
        if number < len(model.image_blocks):
            total += 2 * width + width * (width // 2)
            width //= 2
    return total + 2 * width + (width + 1) * model.latent_size
