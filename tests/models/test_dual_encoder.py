import pytest
import torch

from sia.config import Model
from sia.models.dual_encoder import DualEncoder
from sia.models.image_encoder import ImageEncoder

torch.set_num_threads(1)
SMALL = Model(latent_size=12, gru_layers=1, image_blocks=[1, 2], growth_rate=4, initial_features=8)


def images(count: int, side: int = 32, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.fixture
def image_encoder() -> ImageEncoder:
    torch.manual_seed(0)
    return ImageEncoder(12, [1, 2], 4, 8)


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
