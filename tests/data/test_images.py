import io
import re
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sia.data.images import (
    MAX_ASPECT,
    centre_view,
    encode,
    is_jpeg,
    normalise,
    pixels,
    random_view,
    read_file,
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


def test_16_bits_a_colour() -> None:
    """[1, 2, 3] of 16 bits, which Pillow cannot write: the high byte is the colour."""
    row = struct.pack(">7H", 0, 0xFF00, 0x8000, 0x1234, 0xFFFF, 0, 0x0100)[1:]
    read = read_image(io.BytesIO(png(2, 1, bit_depth=16, colour_type=2, rows=row)))
    assert pixels(read).tolist() == [[[255, 128, 18], [255, 0, 1]]]


def test_16_bit_grey_with_transparency_and_orientation() -> None:
    grey = png(2, 1, bit_depth=16, colour_type=4, rows=struct.pack(">B4H", 0, 0x4000, 0xFFFF, 0x4000, 0))
    assert pixels(read_image(io.BytesIO(grey))).tolist() == [[[64] * 3, [255] * 3]]


def test_palette_of_a_gif_and_of_transparent_bytes() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([9, 9, 9, 0, 0, 0, 255, 0, 0])
    for place in range(3):
        image.putpixel((place, 0), place)
    assert read_pixels(image, "GIF").tolist() == [[[9, 9, 9], [0, 0, 0], [255, 0, 0]]]
    half = read_pixels(image, "PNG", transparency=bytes([255, 128, 0]))
    assert half.tolist() == [[[9, 9, 9], [127, 127, 127], [255, 255, 255]]]


def without_adobes_marker(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big") :]


@pytest.mark.parametrize(
    ("inks", "expected"), [((0, 255, 255, 0), [255, 0, 0]), ((0, 0, 0, 255), [0, 0, 0]), ((0, 0, 0, 0), [255] * 3)]
)
def test_cmyk_with_inverted_inks_as_adobe_writes_them_and_without(
    inks: tuple[int, int, int, int], expected: list[int]
) -> None:
    adobe = saved(Image.new("CMYK", (8, 8), inks), "JPEG", quality=95).getvalue()
    assert np.abs(pixels(read_image(io.BytesIO(adobe))).astype(int) - expected).max() < 12
    # The same numbers without the marker are the inks themselves.
    inverted = saved(Image.new("CMYK", (8, 8), tuple(255 - ink for ink in inks)), "JPEG", quality=95).getvalue()
    plain = without_adobes_marker(inverted)
    assert b"Adobe" in inverted and b"Adobe" not in plain
    assert np.abs(pixels(read_image(io.BytesIO(plain))).astype(int) - expected).max() < 12


# Where the rows and columns of an upright image lie in one of each orientation (EXIF 2.3, tag 0x0112).
STORED = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, k=1),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, k=-1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF"])
def test_upright_by_its_exif_orientation(orientation: int, format: str) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:8, :8], upright[:8, 8:], upright[8:, :8] = 250, 160, 70
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    read = read_pixels(Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))), format, exif=exif)
    assert read.shape == upright.shape and np.abs(read.astype(int) - upright).max() < 30


def png(width: int, height: int, bit_depth: int, colour_type: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


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
    aspect = min(MAX_ASPECT, max(width, height) / min(width, height))
    assert max(resized.size) == pytest.approx(side * aspect, abs=0.5)


@pytest.mark.parametrize("size", [(10_000, 2), (2, 10_000), (3000, 1)])
def test_of_an_extreme_shape_the_middle_is_taken(tmp_path: Path, size: tuple[int, int]) -> None:
    array = np.zeros((size[1], size[0], 3), np.uint8)
    array[size[1] // 2, size[0] // 2] = 255
    Image.fromarray(array).save(tmp_path / "line.png")
    resized = resize_short_side(read_image(tmp_path / "line.png"), 64)
    assert sorted(resized.size) == [64, 640]
    assert pixels(resized).max() > 100, "the middle is there"
    assert pixels(resized)[:64, :64].max() == 0, "at its place"


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 0.7, 0.95])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, format: str, share: float) -> None:
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    whole = saved(noisy, format).getvalue()
    (tmp_path / "whole").write_bytes(whole)
    assert read_image(tmp_path / "whole").size == (64, 64)
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match="cut") as caught:
        read_image(tmp_path / "cut")
    assert "\n" not in str(caught.value)


def test_an_image_may_lie_in_an_hdf5_file(tmp_path: Path) -> None:
    files = [saved(Image.new("RGB", (4, 5), shade), "PNG").getvalue() for shade in ("red", "blue")]
    with h5py.File(tmp_path / "all.h5", "w") as file:
        stored = file.create_dataset("image", (2,), dtype=h5py.special_dtype(vlen=np.dtype("uint8")))
        stored[0], stored[1] = (np.frombuffer(content, np.uint8) for content in files)
    assert read_file(f"{tmp_path}/all.h5::image[1]") == files[1]
    (tmp_path / "plain.png").write_bytes(files[0])
    assert read_file(str(tmp_path / "plain.png")) == files[0]
    for missing in (f"{tmp_path}/all.h5::image[2]", f"{tmp_path}/nowhere.png"):
        with pytest.raises(UserError, match=re.escape(missing)):
            read_file(missing)


def test_a_jpeg_is_told_by_its_bytes() -> None:
    assert is_jpeg(saved(Image.new("RGB", (2, 2)), "JPEG").getvalue())
    assert not is_jpeg(saved(Image.new("RGB", (2, 2)), "PNG").getvalue()) and not is_jpeg(b"")


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
