"""Whether a recording's file is cut off: libsndfile reads what is left of some formats as a shorter recording.

It reports a WAV, AIFF, AU, W64 or RF64 that is shorter than its header says; of MP3 and Ogg, the last frame or page
tells.
"""

import re
from pathlib import Path

import soundfile

CURE = "fetch it again or, if all of it is there, write it anew (such as with `sox`)"
LONGEST_PAGE = 27 + 255 + 255 * 255  # bytes of Ogg: header, its table, and what that can tell of

# What libsndfile says of a shorter file, without which the pattern need not be looked for: that takes its time.
_MARKS = ("(should be", "Calculated frame count", "Frame count read", "wasn't closed properly")
_SHORTER = re.compile(
    r"^\s*(?:data|SSND|riff|Data Size)\s*:.*\(should be.*|.*(?:Calculated frame count|Frame count read).*|"
    r".*wasn't closed properly.*",
    re.MULTILINE,
)

# Of MPEG version 1 and of 2 and 2.5: kbit/s by the header's index, samples a frame of layer III.
_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_SAMPLES = {True: 1152, False: 576}
_RATES = (44_100, 48_000, 32_000)
_RATE_DIVISOR = {3: 1, 2: 2, 0: 4}  # by the header's version
_SPARE_SAMPLES = 5 * 1152  # an encoder's delay and padding, which decoders leave out, and the frame that tells them


def why_cut(path: Path | str, file: soundfile.SoundFile, num_samples: int) -> str:
    """What shows that an opened file, of which so many samples could be read, is not whole; "" where nothing does."""
    if file.format == "MP3":
        return _why_cut_mp3(Path(path).read_bytes(), file.frames, num_samples)
    if file.format == "OGG":
        return _why_cut_ogg(path)
    told = file.extra_info
    said = any(mark in told for mark in _MARKS) and _SHORTER.search(told)
    return f"its header does not fit its length: {' '.join(said[0].split())}" if said else ""


def _why_cut_ogg(path: Path | str) -> str:
    with open(path, "rb") as stream:
        stream.seek(max(0, stream.seek(0, 2) - LONGEST_PAGE))
        tail = stream.read()
    page = tail[tail.rfind(b"OggS") :]
    ends = 27 + page[26] + sum(page[27 : 27 + page[26]]) if len(page) > 26 else LONGEST_PAGE
    return "its last page is cut off" if ends > len(page) else ""


def _why_cut_mp3(content: bytes, promised: int, num_samples: int) -> str:
    """Follow the headers of the frames, as far as there are any; promised: the samples of the file's own header."""
    place, held = _after_tag(content), 0
    while frame := _mp3_frame(content[place : place + 4]):
        place, held = place + frame[0], held + frame[1]
    if place > len(content):
        return "its last frame is cut off"
    samples = max(promised, held)
    return f"{num_samples} of {samples} samples can be read" if samples - num_samples > _SPARE_SAMPLES else ""


def _after_tag(content: bytes) -> int:
    """Where the frames begin, after an ID3v2 tag."""
    if content[:3] != b"ID3" or len(content) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0), strict=True))


def _mp3_frame(header: bytes) -> tuple[int, int] | None:
    """The bytes and samples of the frame of layer III with this header; None for what is no such header."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE6 != 0xE2:
        return None
    version, kbits, rate = header[1] >> 3 & 3, header[2] >> 4, header[2] >> 2 & 3
    if version not in _RATE_DIVISOR or kbits in (0, 15) or rate == 3:
        return None
    first = version == 3
    bits, hertz = 1000 * _KBITS[first][kbits], _RATES[rate] // _RATE_DIVISOR[version]
    return _SAMPLES[first] // 8 * bits // hertz + (header[2] >> 1 & 1), _SAMPLES[first]
