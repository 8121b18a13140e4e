"""Waveform to MFCC frames, as the paper computes them (section 5.1)."""

import math
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from sia.data.cut_recordings import CURE, why_cut
from sia.errors import UserError, one_line

SAMPLE_RATE = 16_000
N_FFT = 400
HOP_LENGTH = 200
MEL_BANDS = 128
MAX_FRAMES = 8192
MFCC_COEFFICIENTS = 40
MIN_FRAMES = 6  # the kernel of the speech encoder's convolution
LONGEST_SECONDS = MAX_FRAMES * HOP_LENGTH / SAMPLE_RATE
BLOCK = 1 << 16  # samples of a file that are decoded at a time
BLOCK_OF_PCM = 1 << 19  # most captions at once; an MP3 gives other samples where a block ends elsewhere
RATES = (4_000, 384_000)  # in Hz
LARGEST_FILTER = 1 << 22  # rate/d times 16000/d, d their largest common divisor: 44.1 kHz takes 70,560

# What a shard's frames are; a pair trained on one kind of features refuses another.
FEATURES: dict[str, Any] = {
    "kind": "mfcc",
    "coefficients": MFCC_COEFFICIENTS,
    "sample_rate": SAMPLE_RATE,
    "n_fft": N_FFT,
    "hop_length": HOP_LENGTH,
    "mel_bands": MEL_BANDS,
    "top_db": 80,
}


def mfcc(waveform: Tensor | np.ndarray, sample_rate: int) -> Tensor:
    """Waveform [samples] -> MFCC frames [T, 40]: 25 ms windows every 12.5 ms, torchaudio's defaults.

    Another sample rate is resampled to 16 kHz. The 80 dB floor lies below the maximum of this clip alone.
    Raises ValueError for a waveform that is not one-dimensional, or too short for one window, UnusableRate for a rate
    that no recorder has.
    """
    wave = torch.as_tensor(waveform, dtype=torch.float32)
    if wave.ndim != 1:
        raise ValueError(f"waveform must be [samples], not {list(wave.shape)}; mix channels first")
    wave = resampled(wave, sample_rate)
    if len(wave) <= N_FFT // 2:
        raise ValueError(f"waveform has {len(wave)} samples at 16 kHz; MFCC needs at least {N_FFT // 2 + 1}")
    return _transform()(wave).T.contiguous()


def resampled(wave: Tensor, sample_rate: int) -> Tensor:
    """A waveform [samples] at 16 kHz. Raises UnusableRate for a rate that no recorder has."""
    if sample_rate == SAMPLE_RATE:
        return wave
    check_rate(sample_rate)
    resample: Tensor = _resampler(int(sample_rate))(wave)
    return resample


def read_speech(path: Path | str, longest_seconds: float = math.inf) -> tuple[np.ndarray, int]:
    """The samples [samples] of a wav, flac, ogg or mp3 file, mixed to one channel, and their rate in Hz.

    Raises UserError that names the file where it is missing, empty, cut off or no audio, and TooLong where it is longer
    than so many seconds, of which no more are read: a small file may unpack to gigabytes.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            blocks, num_samples = [], 0
            wanted = BLOCK_OF_PCM if file.subtype.startswith("PCM") else BLOCK
            while num_samples < file.frames and len(block := file.read(wanted, dtype="float32")):
                blocks.append(block.mean(axis=1) if block.ndim > 1 else block)
                num_samples += len(block)
                if num_samples > longest_seconds * file.samplerate:
                    raise TooLong(f"{path}: longer than {longest_seconds:.1f} s; cut it into captions")
            cut = why_cut(path, file, num_samples)
            rate = file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(f"{path}: unreadable speech ({one_line(str(error))}); mend or remove the file") from None
    if cut:
        raise UserError(f"{path}: cut off, {cut}; {CURE}")
    if not blocks:
        raise UserError(f"{path}: speech of no samples; mend or remove the file")
    return np.concatenate(blocks) if len(blocks) > 1 else blocks[0], rate


class TooLong(UserError):
    """A recording of more samples than are wanted."""


class UnusableRate(ValueError):
    """A sample rate that cannot be resampled to 16 kHz."""


def check_rate(rate: float) -> None:
    """Raises UnusableRate for a rate outside RATES, or one that shares no large divisor with 16 kHz.

    It is that of a damaged header: resampling it exactly would take a filter of gigabytes.
    """
    lowest, highest = RATES
    if not (rate == int(rate) and lowest <= rate <= highest):
        raise UnusableRate(f"a sample rate of {rate:g} Hz; give a whole one from {lowest:,} to {highest:,}")
    divisor = math.gcd(int(rate), SAMPLE_RATE)
    if (rate // divisor) * (SAMPLE_RATE // divisor) > LARGEST_FILTER:
        raise UnusableRate(f"a sample rate of {rate:g} Hz, which no recorder has; resample it to 16000")


@cache
def _transform() -> torch.nn.Module:
    from torchaudio.transforms import MFCC

    mel = {"n_fft": N_FFT, "hop_length": HOP_LENGTH, "n_mels": MEL_BANDS}
    with warnings.catch_warnings():
        # 128 mel bands of 201 frequencies leave one empty; the paper's features are these defaults all the same.
        warnings.filterwarnings("ignore", message="At least one mel filterbank")
        return MFCC(SAMPLE_RATE, n_mfcc=MFCC_COEFFICIENTS, melkwargs=mel)


@cache
def _resampler(rate: int) -> torch.nn.Module:
    from torchaudio.transforms import Resample

    return Resample(rate, SAMPLE_RATE)
