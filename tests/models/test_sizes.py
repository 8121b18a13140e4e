"""Table 1 of the paper, and the closed form against the modules that it counts."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import resnet18, resnet34

from sia.config import Model
from sia.data.mfcc import MFCC_COEFFICIENTS, MIN_FRAMES
from sia.models.backbones import Backbone, DenseNet, ResNet
from sia.models.dual_encoder import DualEncoder
from sia.models.sizes import CONV_KERNEL, image_parameters, speech_parameters

SPEECH = {
    "DG4A2048": 63_898_816,
    "DG4A1024": 16_228_544,
    "DG3A1024": 11_503_808,
    "DG2A2048": 26_125_504,
    "DG2A1024": 6_779_072,
}
IMAGE = {2048: 36_155_776, 1024: 33_402_240}


def built(model: Model) -> DualEncoder:
    """The real modules, without memory for their weights."""
    with torch.device("meta"):
        return DualEncoder.from_config(model)


def trainable(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def test_frames_are_what_the_speech_encoder_reads() -> None:
    assert (Model().frame_features, CONV_KERNEL) == (MFCC_COEFFICIENTS, MIN_FRAMES)


@pytest.mark.parametrize("name", SPEECH)
def test_table_1(name: str) -> None:
    layers, latent = name.removeprefix("DG").split("A")
    model = Model(gru_layers=int(layers), latent_size=int(latent))
    pair = built(model)
    assert model.pair_name == name
    assert speech_parameters(model) == trainable(pair.speech) == SPEECH[name]
    assert image_parameters(model) == trainable(pair.image) == IMAGE[model.latent_size]


counts = partial(st.lists, st.integers(1, 4))
DENSENETS = st.builds(
    DenseNet,
    blocks=counts(min_size=1, max_size=4),
    growth_rate=st.integers(1, 12),
    initial_features=st.integers(8, 32),
)
RESNETS = st.builds(ResNet, blocks=counts(min_size=4, max_size=4))


@settings(deadline=None, max_examples=40)
@given(latent=st.integers(1, 40).map(lambda half: 2 * half), layers=st.integers(1, 4), image=DENSENETS | RESNETS)
def test_closed_form_counts_the_modules(latent: int, layers: int, image: Backbone) -> None:
    model = Model(latent_size=latent, gru_layers=layers, image=image)
    pair = built(model)
    assert speech_parameters(model) == trainable(pair.speech)
    assert image_parameters(model) == trainable(pair.image)


def test_resnets_as_torchvision_names_them() -> None:
    for blocks, network in (([2, 2, 2, 2], resnet18), ([3, 4, 6, 3], resnet34)):
        with torch.device("meta"):
            assert ResNet(blocks=blocks).parameters(256) == trainable(network(num_classes=256))
