from typing import ClassVar, Literal

import pytest
import torch

from sia.config import Model, resolve
from sia.models.backbones import Backbone, DenseNet, ResNet
from sia.models.dual_encoder import DualEncoder
from sia.models.image_encoder import ImageEncoder
from sia.models.sizes import image_parameters

torch.set_num_threads(1)
SMALL = Model(latent_size=12, gru_layers=1, image=DenseNet(blocks=[1, 2], growth_rate=4, initial_features=8))


def images(count: int, side: int = 32, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.fixture
def image_encoder() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(12, SMALL.image)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 64)])
def test_image_embeddings_have_unit_norm(image_encoder: ImageEncoder, height: int, width: int) -> None:
    embedded = image_encoder(torch.randn(3, 3, height, width))
    assert embedded.shape == (3, 12)
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(3))


def test_image_embeddings_have_unit_norm_under_bf16(image_encoder: ImageEncoder) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        embedded = image_encoder(images(3))
    torch.testing.assert_close(embedded.float().norm(dim=-1), torch.ones(3), rtol=0, atol=1e-6)


def test_an_image_alone_and_in_a_batch(image_encoder: ImageEncoder) -> None:
    """In evaluation mode; in training, batch norm's statistics are the batch's by design."""
    encoder, batch = image_encoder.double().eval(), images(5, dtype=torch.float64)
    alone = torch.cat([encoder(image[None]) for image in batch])
    torch.testing.assert_close(encoder(batch), alone, rtol=0, atol=1e-12)


def test_channels_last_change_no_embedding_and_no_weights_layout(image_encoder: ImageEncoder) -> None:
    encoder, batch = image_encoder.double(), images(5, dtype=torch.float64)
    plain = torch.nn.functional.normalize(encoder.get_submodule("densenet")(batch), dim=-1)
    expected = torch.autograd.grad(plain.square().sum() + plain[:, 0].sum(), list(encoder.parameters()))
    embedded = encoder(batch)
    found = torch.autograd.grad(embedded.square().sum() + embedded[:, 0].sum(), list(encoder.parameters()))
    torch.testing.assert_close([embedded, *found], [plain, *expected], rtol=0, atol=1e-10)
    assert all(weight.is_contiguous() for weight in encoder.state_dict().values())


def test_the_pair_is_its_two_branches() -> None:
    torch.manual_seed(0)
    pair = DualEncoder.from_config(SMALL).eval()
    frames, num_frames, pictures = torch.randn(4, 20, 40), torch.tensor([20, 6, 9, 15]), images(4)
    speech, image = pair(frames, num_frames, pictures)
    assert speech.shape == image.shape == (4, SMALL.latent_size)
    assert torch.equal(speech, pair.speech(frames, num_frames))
    assert torch.equal(image, pair.image(pictures))


def test_every_weight_of_the_pair_learns() -> None:
    torch.manual_seed(0)
    pair = DualEncoder.from_config(SMALL)
    speech, image = pair(torch.randn(4, 20, 40), torch.tensor([20, 6, 9, 15]), images(4))
    (speech @ image.T).square().sum().backward()
    still = [name for name, weight in pair.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert not still


def test_the_weights_of_a_branch_carry_its_kinds_name() -> None:
    pair = DualEncoder.from_config(SMALL)
    assert {name.split(".")[1] for name in pair.state_dict() if name.startswith("image.")} == {"densenet"}


def test_a_resnet_is_an_image_encoder_like_any() -> None:
    torch.manual_seed(0)
    model = Model(latent_size=12, gru_layers=1, image=ResNet(blocks=[1, 1, 1, 1]))
    embedded = DualEncoder.from_config(model).image(images(3, 64))
    assert model.pair_name == "RG1A12"
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(3))


class Mean(Backbone):
    """The mean colour, scaled: an image encoder that is known by being defined."""

    letter: ClassVar[str] = "M"
    name: Literal["mean_of_a_test"] = "mean_of_a_test"
    bias: bool = True

    def parameters(self, latent_size: int) -> int:
        return (3 + self.bias) * latent_size

    def build(self, latent_size: int) -> torch.nn.Module:
        pooled = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
        return torch.nn.Sequential(*pooled, torch.nn.Linear(3, latent_size, self.bias))


def test_a_new_image_encoder_is_one_class() -> None:
    values = {"model": {"latent_size": 8, "gru_layers": 1}, "model.image": {"name": "mean_of_a_test", "bias": False}}
    found = resolve(values, source="test")
    pair = DualEncoder.from_config(found.model)
    assert found.run_name.startswith("MG1A8-")
    assert image_parameters(found.model) == sum(weight.numel() for weight in pair.image.parameters()) == 24
    assert pair.image(images(3)).shape == (3, 8)
    assert Model.model_validate(found.model.model_dump()) == found.model, "as checkpoints keep it"
