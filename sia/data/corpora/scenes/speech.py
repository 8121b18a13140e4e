"""Text -> waveform, by the espeak-ng library that the espeakng-loader wheel carries.

espeak keeps state from sentence to sentence: only a fresh process that speaks the same sentences in the same order
gives the same samples.
"""

import ctypes
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import espeakng_loader
import numpy as np

from sia.data.corpora.scenes.plan import Utterance
from sia.data.words import Word
from sia.errors import UserError

SAMPLE_RATE = 16000
SILENCE = 0.01  # of the utterance's peak; what is softer at either end is cut
MARGIN_SECONDS = 0.05
HEADROOM = 0.8  # some voices, once resampled, would go beyond full scale

# Values of espeak-ng's speak_lib.h.
_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH = 1, 3
_WORD, _END = 1, 5  # kinds of events: a word begins, a clause has ended
_LONGEST_DATA_PATH = 120  # bytes; espeak cuts its data path at 160, with file names below it


class _Event(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int) for name in ("kind", "identifier", "text_position", "length", "milliseconds", "sample")),
        *(("user_data", ctypes.c_void_p), ("name", ctypes.c_char * 8)),
    )


_OnSamples = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Spoken(NamedTuple):
    waveform: np.ndarray  # [samples], float in -1 to 1, 16 kHz, without the silence around it
    words: list[Word]


class Speaker:
    """espeak-ng in this process. Raises UserError where the library does not load or finds no data."""

    def __init__(self) -> None:
        self._chunks: list[np.ndarray] = []
        self._events: list[tuple[int, int, int]] = []  # kind, place in the text, sample
        try:
            self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        except OSError as error:
            raise UserError(f"espeak-ng: {error}; install the package espeakng-loader again") from None
        self._on_samples = _OnSamples(self._keep)  # kept, or Python would free what espeak calls
        self._folder = TemporaryDirectory()
        self._rate = _initialise(self._library, Path(self._folder.name))
        self._library.espeak_SetSynthCallback(self._on_samples)
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # breathy voices draw noise, else seeded by the clock

    def speak(self, utterance: Utterance) -> Spoken:
        if self._library.espeak_SetVoiceByName(utterance.speaker.encode()) != 0:
            raise UserError(f"espeak-ng: unknown voice {utterance.speaker!r}; use another in the recipe's speakers")
        self._library.espeak_SetParameter(_RATE, utterance.words_per_minute, 0)
        self._library.espeak_SetParameter(_PITCH, utterance.pitch, 0)
        self._chunks, self._events = [], []
        text = utterance.text.encode()
        self._library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 0, 0, _UTF8, None, None)
        if not self._chunks:
            raise UserError(f"espeak-ng: no sound for {utterance.text!r}; install espeakng-loader again")
        waveform = resample(HEADROOM * np.concatenate(self._chunks) / 32768, self._rate, SAMPLE_RATE)
        heard = audible(waveform)
        return Spoken(waveform[heard], self._words(utterance.text, heard.start / SAMPLE_RATE))

    def _keep(self, samples: "ctypes._Pointer[ctypes.c_short]", number: int, events: "ctypes._Pointer[_Event]") -> int:
        if samples and number:
            self._chunks.append(np.ctypeslib.as_array(samples, shape=(number,)).copy())
        place = 0
        while (event := events[place]).kind:  # the last one is of no kind
            if event.kind in (_WORD, _END):
                self._events.append((event.kind, event.text_position - 1, event.sample))
            place += 1
        return 0  # go on

    def _words(self, text: str, cut: float) -> list[Word]:
        """The words in seconds after the cut; each ends where the next begins. What espeak says in one breath, such as
        "in the", is shared out by its letters.
        """
        words: list[Word] = []
        end_of_text = (_END, len(text), self._events[-1][2])  # espeak's own place is one too early
        for (kind, start, sample), (_, end, next_sample) in pairwise([*self._events[:-1], end_of_text]):
            said, seconds = text[start:end].replace(",", " ").split(), sample / self._rate - cut
            a_letter = (next_sample - sample) / self._rate / max(1, len("".join(said)))
            for word in said if kind == _WORD else ():
                words.append(Word(word, max(0.0, seconds), seconds := seconds + len(word) * a_letter))
        return words


def resample(waveform: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """The band-limited waveform at `new_rate`, by cutting the spectrum of the whole."""
    step = rate // np.gcd(rate, new_rate)
    # With silence, so that the end does not leak into the start.
    padded = np.pad(waveform, (0, -len(waveform) % step + step))
    length = len(padded) * new_rate // rate
    spectrum = np.fft.rfft(padded)[: length // 2 + 1]
    return np.fft.irfft(spectrum, length) * new_rate / rate


def audible(waveform: np.ndarray) -> slice:
    """From the first to the last audible sample, with a short margin."""
    loud = np.flatnonzero(np.abs(waveform) > SILENCE * np.abs(waveform).max())
    margin = int(MARGIN_SECONDS * SAMPLE_RATE)
    return slice(max(0, int(loud[0]) - margin), int(loud[-1]) + margin)


def _initialise(library: ctypes.CDLL, folder: Path) -> int:
    """Returns espeak's sample rate. A link in `folder` leads to its data where their path is too long for espeak."""
    data = Path(espeakng_loader.get_data_path())
    if len(bytes(data)) > _LONGEST_DATA_PATH:
        link = folder / data.name
        link.symlink_to(data)
        data = link
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, bytes(data), _DO_NOT_EXIT)
    if rate <= 0:
        raise UserError(f"espeak-ng: no voice data in {data}; install the package espeakng-loader again")
    return rate
