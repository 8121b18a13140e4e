from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torchaudio.transforms import MFCC, Resample

from sia.data.mfcc import UnusableRate, check_rate, mfcc, read_speech
from sia.errors import UserError

torch.set_num_threads(1)


def noise(samples: int, seed: int = 0, gain: float = 0.1) -> torch.Tensor:
    return gain * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("samples", [201, 399, 400, 16_000, 23_456, 160_000])
@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_is_torchaudios_mfcc_of_the_clip_alone_a_frame_every_12_and_a_half_ms(samples: int) -> None:
    wave = noise(samples)
    expected = MFCC(16_000, n_mfcc=40, melkwargs={"n_fft": 400, "hop_length": 200, "n_mels": 128})(wave).T
    assert torch.equal(expected, MFCC(16_000)(wave).T), "the paper took torchaudio's defaults"
    frames = mfcc(wave, 16_000)
    assert torch.equal(frames, expected) and torch.equal(mfcc(wave.numpy(), 16_000), expected)
    assert frames.shape == (1 + samples // 200, 40) and frames.is_contiguous() and frames.isfinite().all()


@pytest.mark.parametrize(("rate", "samples"), [(16_000, 200), (16_000, 0), (8_000, 100), (48_000, 600)])
def test_too_short_a_clip_is_refused(rate: int, samples: int) -> None:
    with pytest.raises(ValueError, match="at least 201"):
        mfcc(noise(samples), rate)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100])
def test_other_rates_are_resampled(rate: int) -> None:
    wave = noise(2 * rate)
    frames = mfcc(wave, rate)
    assert frames.shape == (161, 40)
    assert torch.equal(frames, mfcc(Resample(rate, 16_000)(wave), 16_000))


def test_a_tone_has_the_same_frames_at_another_rate() -> None:
    """The loudest bands: what is quiet is the resampling filter's."""

    def tone(rate: int) -> torch.Tensor:
        return mfcc(0.5 * torch.sin(2 * torch.pi * 440 * torch.arange(rate) / rate), rate)

    assert (tone(48_000)[5:-5, :13] - tone(16_000)[5:-5, :13]).abs().max() < 0.15 * tone(16_000).abs().max()


def test_rates_of_recorders_are_taken_and_those_of_damaged_headers_refused() -> None:
    for rate in (8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000):
        check_rate(rate)
    for wrong in (0, -5, 1, 3_999, 16_001, 44_099, 1_000_003, 2_000_000_011, 44_100.5):
        with pytest.raises(UnusableRate, match="sample rate"):
            check_rate(wrong)


def test_channels_must_be_mixed_first() -> None:
    with pytest.raises(ValueError, match="mix channels"):
        mfcc(torch.zeros(2, 4000), 16_000)


@pytest.mark.parametrize(("ending", "tolerance"), [("wav", 1e-4), ("flac", 1e-4), ("ogg", 0.1)])
def test_stereo_files_are_mixed(tmp_path: Path, ending: str, tolerance: float) -> None:
    channels = np.stack([0.5 * np.sin(np.arange(8000) / 20), np.zeros(8000)], axis=1)
    soundfile.write(tmp_path / f"stereo.{ending}", channels, 8000)
    samples, rate = read_speech(tmp_path / f"stereo.{ending}")
    assert (samples.shape, samples.dtype, rate) == ((8000,), np.float32, 8000)
    assert np.abs(samples - channels.mean(axis=1)).max() < tolerance


def test_files_that_are_no_speech_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "nothing.wav").touch()
    soundfile.write(tmp_path / "silent.wav", np.zeros(0), 16_000)
    (tmp_path / "folder.wav").mkdir()
    for name in ("text.wav", "nothing.wav", "silent.wav", "folder.wav", "missing.wav"):
        with pytest.raises(UserError, match=str(tmp_path / name)) as caught:
            read_speech(tmp_path / name)
        assert "\n" not in str(caught.value)
