import io
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sia.data.images import (
    MAX_ASPECT,
    batched,
    centre_view,
    decode,
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


def palette(*colours: int) -> Image.Image:
    """A pixel for each of its three colours."""
    image = Image.new("P", (3, 1))
    image.putpalette(colours)
    for place in range(3):
        image.putpixel((place, 0), place)
    return image


def dotted(mode: str, first: tuple[int, ...], second: tuple[int, ...]) -> Image.Image:
    image = Image.new(mode, (2, 1), first)
    image.putpixel((1, 0), second)
    return image


COLOURS = palette(9, 9, 9, 0, 0, 0, 255, 0, 0)
WHITE = [255] * 3


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.fromarray(numbered(5, 9)), {}, numbered(5, 9).tolist()),
        (Image.new("L", (2, 1), 77), {}, [[[77] * 3] * 2]),
        (Image.new("1", (2, 1), 1), {}, [[WHITE] * 2]),
        (dotted("RGBA", (0, 0, 0, 128), (255, 0, 0, 0)), {}, [[[127] * 3, WHITE]]),
        (dotted("LA", (10, 255), (10, 0)), {}, [[[10] * 3, WHITE]]),
        (COLOURS, {}, [[[9, 9, 9], [0, 0, 0], [255, 0, 0]]]),
        (COLOURS, {"format": "GIF"}, [[[9, 9, 9], [0, 0, 0], [255, 0, 0]]]),
        (COLOURS, {"transparency": 1}, [[[9, 9, 9], WHITE, [255, 0, 0]]]),
        (COLOURS, {"transparency": bytes([255, 128, 0])}, [[[9, 9, 9], [127] * 3, WHITE]]),
        # Values of 16 bits and floats are scaled, not clipped.
        (Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16)), {}, [[[0] * 3, [128] * 3, WHITE]]),
        (Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32)), {"format": "TIFF"}, [[[0] * 3, [127] * 3, WHITE]]),
    ],
)
def test_any_mode_is_read_as_rgb(image: Image.Image, options: dict[str, Any], expected: object) -> None:
    """Transparency lies over white."""
    assert read_pixels(image, **options).tolist() == expected


def test_16_bits_a_colour_which_pillow_cannot_write() -> None:
    """Of a colour the high byte is taken; of grey also its transparency."""
    row = struct.pack(">7H", 0, 0xFF00, 0x8000, 0x1234, 0xFFFF, 0, 0x0100)[1:]
    read = read_image(io.BytesIO(png(2, 1, bit_depth=16, colour_type=2, rows=row)))
    assert pixels(read).tolist() == [[[255, 128, 18], [255, 0, 1]]]
    grey = png(2, 1, bit_depth=16, colour_type=4, rows=struct.pack(">B4H", 0, 0x4000, 0xFFFF, 0x4000, 0))
    assert pixels(read_image(io.BytesIO(grey))).tolist() == [[[64] * 3, WHITE]]


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
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.95])
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


@pytest.mark.parametrize("content", [b"no image", b"\x89PNG\r\n\x1a\n broken", None])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "picture.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"^{path}: unreadable image") as caught:
        read_image(path)
    assert "\n" not in str(caught.value) and str(caught.value).count("unreadable") == 1


def test_lossless_encoding_and_jpeg() -> None:
    """In a JPEG, colours are stored at full size: halved, those of sharp edges would be off by a third."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (255, 0, 0), (0, 0, 255)
    png_file, jpeg = (encode(Image.fromarray(stripes), lossless) for lossless in (True, False))
    assert np.array_equal(pixels(read_image(io.BytesIO(png_file))), stripes)
    assert np.abs(pixels(read_image(io.BytesIO(jpeg))).astype(int) - stripes).max() < 40
    assert is_jpeg(jpeg) and not is_jpeg(png_file) and not is_jpeg(b"")


@pytest.mark.parametrize(("width", "height"), [(72, 72), (1, 3), (300, 200)])
def test_stored_files_are_decoded_as_by_pillow(width: int, height: int) -> None:
    """A PNG of RGB by the chunks of its pixels, of which a large one has several."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
    noise.info["icc_profile"] = b"a chunk before the pixels"
    files = [encode(noise, lossless) for lossless in (True, False)]
    assert b"iCCP" in files[0] and (files[0].count(b"IDAT") > 1) == (width == 300)
    files += [saved(noise.convert(mode)).getvalue() for mode in ("L", "RGBA")]
    for file in files:
        assert np.array_equal(pixels(decode(file)), pixels(Image.open(io.BytesIO(file))))
    with pytest.raises(ValueError):
        decode(files[0][: len(files[0]) // 2])


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 20), st.integers(0, 15), st.integers(0, 15), st.floats(0, 1), st.text(max_size=20))
def test_random_view_is_a_window_of_the_image(size: int, high: int, wide: int, flip: float, key: str) -> None:
    array = numbered(size + high, size + wide)
    view = random_view(array, size, flip, key)
    assert view.shape == (size, size, 3) and view.dtype == np.uint8
    top, left = int(view[..., 0].min()), int(view[..., 1].min())
    window = array[top : top + size, left : left + size]
    assert np.array_equal(view, window) or np.array_equal(view, window[:, ::-1])
    assert np.array_equal(view, random_view(array, size, flip, key))


def test_random_view_depends_on_its_key_alone_and_reaches_every_corner_flipped_as_often_as_asked() -> None:
    array = numbered(6, 7)

    def views(flip: float) -> list[np.ndarray]:
        return [random_view(array, 5, flip, str(key)) for key in range(400)]

    torch.manual_seed(0)
    first = views(0.5)
    torch.manual_seed(1)
    assert all(map(np.array_equal, first, views(0.5)))
    corners = {(int(view[0, 0, 0]), int(view[0, :, 1].min())) for view in first}
    assert corners == {(top, left) for top in range(2) for left in range(3)}
    flips = [sum(int(view[0, 0, 1] > view[0, -1, 1]) for view in views(share)) for share in (0.0, 0.5, 1.0)]
    assert flips[0] == 0 and flips[2] == 400
    assert abs(flips[1] - 200) < 4 * 10  # ten: the deviation of 400 even throws


def test_centre_view() -> None:
    view = centre_view(numbered(8, 11), 4)
    assert view[:, 0, 0].tolist() == [2, 3, 4, 5]
    assert view[0, :, 1].tolist() == [3, 4, 5, 6]
    batch = batched([view, view + 1])
    assert batch.shape == (2, 3, 4, 4) and batch[1, 1, 0].tolist() == [4, 5, 6, 7]


def test_normalise() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).reshape(1, 3, 1, 1)
    normal = normalise(images, torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.5, 0.25, 0.1]))
    torch.testing.assert_close(normal.flatten(), torch.tensor([-1.0, 2.0, 2.0]))
