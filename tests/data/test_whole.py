"""Recordings that are cut off, or longer than any caption."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sia.data.caption_files import Unusable, caption_frames
from sia.data.manifest import SpokenCaption

RATE = 16_000
FORMATS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III", "aiff": "PCM_16"}
FORMATS |= {"w64": "PCM_16", "rf64": "PCM_16", "au": "PCM_16"}


def recording(folder: Path, kind: str, seconds: float = 2.0) -> Path:
    wave = np.random.default_rng(0).normal(0, 0.1, int(seconds * RATE)).astype(np.float32)
    soundfile.write(folder / f"a.{kind}", wave, RATE, format=kind.upper(), subtype=FORMATS[kind])
    return folder / f"a.{kind}"


def frames(path: Path) -> int:
    return len(caption_frames(SpokenCaption("a", "a", str(path), "a.png", "train")))


def dropped(path: Path) -> Unusable:
    with pytest.raises(Unusable) as caught:
        frames(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("kind", FORMATS)
def test_a_whole_recording_is_kept(tmp_path: Path, kind: str) -> None:
    assert abs(frames(recording(tmp_path, kind)) - 161) <= 1


@pytest.mark.parametrize("share", [0.3, 0.61, 0.95])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_recording_that_is_cut_off_is_dropped(tmp_path: Path, kind: str, share: float) -> None:
    path = recording(tmp_path, kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert dropped(path).reason == "unreadable speech"


@pytest.mark.parametrize("riff_size", [0, 8, 64_036])
@pytest.mark.parametrize("data_size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_whose_writer_never_told_its_length_is_dropped(tmp_path: Path, riff_size: int, data_size: int) -> None:
    """Nothing tells whether all of it is there: the program that wrote it may have been killed."""
    path = recording(tmp_path, "wav")
    content = bytearray(path.read_bytes())
    content[4:8], content[40:44] = struct.pack("<I", riff_size), struct.pack("<I", data_size)
    assert content[36:40] == b"data"
    path.write_bytes(content)
    assert dropped(path).reason == "unreadable speech"


def test_other_chunks_and_tags_after_the_samples_are_no_harm(tmp_path: Path) -> None:
    for kind, more in (("wav", b"LIST\x04\x00\x00\x00INFO"), ("mp3", b"TAG" + bytes(125)), ("ogg", b"")):
        path = recording(tmp_path, kind)
        path.write_bytes(path.read_bytes() + more)
        assert abs(frames(path) - 161) <= 1


def test_an_mp3_without_a_header_frame(tmp_path: Path) -> None:
    """Of one that is cut, the last frame tells; libsndfile guesses its length."""
    path = recording(tmp_path, "mp3")
    content = path.read_bytes()
    header = content.index(b"Xing")
    content = content[content.index(content[:2], header) :]  # from the next frame's first bytes
    path.write_bytes(content[:-100])
    assert "last frame" in dropped(path).detail
    path.write_bytes(content)
    assert "samples can be read" in dropped(path).detail, "of bit rates that vary, libsndfile reads half"


def test_a_recording_of_two_days_is_not_unpacked(tmp_path: Path) -> None:
    """A flac of silence: a file of a megabyte whose samples would take gigabytes."""
    import resource

    with soundfile.SoundFile(tmp_path / "a.flac", "w", RATE, 1, "PCM_16") as file:
        for _ in range(30):
            file.write(np.zeros(60 * RATE, np.float32))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert dropped(tmp_path / "a.flac").reason == "more than 8192 frames"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000
