import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sia.data.images import (
    centre_view,
    encode,
    normalise,
    pixels,
    random_view,
    read_image,
    resize_short_side,
)
from sia.errors import UserError

ORIENTATION = 0x0112


def saved(image: Image.Image, format: str = "PNG", **options: object) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    buffer.seek(0)
    return buffer


def read_pixels(image: Image.Image, format: str = "PNG", **options: object) -> np.ndarray:
    read = read_image(saved(image, format, **options))
    assert read.mode == "RGB"
    return pixels(read)


def numbered(height: int, width: int) -> np.ndarray:
    """[H, W, 3] in which every pixel tells its row and column, and its channel."""
    rows, columns = np.indices((height, width))
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=-1).astype(np.uint8)


def test_rgb_is_left_as_it_is() -> None:
    array = numbered(5, 9)
    assert np.array_equal(read_pixels(Image.fromarray(array)), array)


def test_transparency_lies_over_white() -> None:
    image = Image.new("RGBA", (3, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    assert read_pixels(image).tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]


def test_grey_with_transparency() -> None:
    image = Image.new("LA", (2, 1), (10, 255))
    image.putpixel((1, 0), (10, 0))
    assert read_pixels(image).tolist() == [[[10] * 3, [255] * 3]]


def test_palette_with_and_without_a_transparent_entry() -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 200, 0, 1, 2, 3])
    image.putpixel((1, 0), 1)
    assert read_pixels(image).tolist() == [[[0, 200, 0], [1, 2, 3]]]
    assert read_pixels(image, transparency=1).tolist() == [[[0, 200, 0], [255, 255, 255]]]


@pytest.mark.parametrize(("mode", "value", "expected"), [("L", 77, 77), ("1", 1, 255)])
def test_grey_and_black_and_white(mode: str, value: int, expected: int) -> None:
    assert read_pixels(Image.new(mode, (2, 2), value)).tolist() == [[[expected] * 3] * 2] * 2


def test_16_bit_values_are_scaled_not_clipped() -> None:
    image = Image.fromarray(np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16))
    assert read_pixels(image)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_cmyk() -> None:
    array = read_pixels(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    assert np.abs(array.astype(int) - [255, 0, 0]).max() < 12


def test_upright_by_its_exif_orientation() -> None:
    image = Image.fromarray(numbered(4, 9))
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees clockwise
    read = read_pixels(image, "PNG", exif=exif)
    assert np.array_equal(read, np.rot90(numbered(4, 9), k=-1))


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_a_missing_and_a_truncated_image_are_named(tmp_path: Path) -> None:
    whole = saved(Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8))).getvalue()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    for name in ("half.png", "missing.png"):
        with pytest.raises(UserError, match=name):
            read_image(tmp_path / name)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40))
def test_the_short_side_is_exact_and_the_shape_kept(width: int, height: int, side: int) -> None:
    resized = resize_short_side(Image.new("RGB", (width, height)), side)
    assert min(resized.size) == side
    assert max(resized.size) == pytest.approx(side * max(width, height) / min(width, height), abs=0.5)


def test_lossless_encoding_and_jpeg() -> None:
    array = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(array)
    assert np.array_equal(pixels(read_image(io.BytesIO(encode(image, lossless=True)))), array)
    with Image.open(io.BytesIO(encode(image, lossless=False))) as read:
        assert read.format == "JPEG"


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 20), st.integers(0, 15), st.integers(0, 15), st.floats(0, 1), st.text(max_size=20))
def test_random_view_is_a_window_of_the_image(size: int, high: int, wide: int, flip: float, key: str) -> None:
    array = numbered(size + high, size + wide)
    view = random_view(array, size, flip, key)
    assert view.shape == (3, size, size) and view.dtype == torch.uint8
    top, left = int(view[0].min()), int(view[1].min())
    window = torch.from_numpy(array[top : top + size, left : left + size].transpose(2, 0, 1).copy())
    assert torch.equal(view, window) or torch.equal(view, window.flip(-1))
    assert torch.equal(view, random_view(array, size, flip, key))


def test_random_view_depends_on_its_key_alone() -> None:
    array = numbered(40, 40)
    torch.manual_seed(0)
    first = random_view(array, 24, 0.5, "0/1/a")
    torch.manual_seed(1)
    np.random.default_rng(1)
    assert torch.equal(random_view(array, 24, 0.5, "0/1/a"), first)
    others = [random_view(array, 24, 0.5, f"0/{epoch}/a") for epoch in range(50)]
    assert len({view.numpy().tobytes() for view in others}) > 40


def test_flips_happen_as_often_as_asked() -> None:
    array = numbered(8, 8)

    def flips(probability: float) -> int:
        views = [random_view(array, 8, probability, str(key)) for key in range(400)]
        return sum(int(view[1, 0, 0]) > int(view[1, 0, -1]) for view in views)

    assert flips(0.0) == 0 and flips(1.0) == 400
    assert abs(flips(0.5) - 200) < 4 * 10  # ten: the deviation of 400 even throws


def test_random_view_reaches_every_corner() -> None:
    array = numbered(6, 7)
    views = [random_view(array, 5, 0.0, str(key)) for key in range(200)]
    assert {(int(view[0, 0, 0]), int(view[1, 0, 0])) for view in views} == {
        (top, left) for top in range(2) for left in range(3)
    }


def test_centre_view() -> None:
    view = centre_view(numbered(8, 11), 4)
    assert view.shape == (3, 4, 4)
    assert view[0, :, 0].tolist() == [2, 3, 4, 5]
    assert view[1, 0].tolist() == [3, 4, 5, 6]


def test_normalise() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1)
    normal = normalise(images, torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.25, 0.1]))
    torch.testing.assert_close(normal.flatten(), torch.tensor([-1.0, 2.0, 2.0]))
