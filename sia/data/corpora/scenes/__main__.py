"""Makes one block in a fresh process: `python -m sia.data.corpora.scenes FOLDER`, the pickled block on standard input.

Its pictures are PNG, its utterances FLAC of 16 kHz, 16 bits, one channel, with the times of their words beside them.
"""

import pickle
import sys
from pathlib import Path
from random import Random

import soundfile

from sia.data.corpora.scenes.plan import Block
from sia.data.corpora.scenes.rendering import render
from sia.data.corpora.scenes.speech import SAMPLE_RATE, Speaker
from sia.data.words import WORDS, lines_of


def make_block(folder: Path, block: Block) -> None:
    speaker, times = Speaker(), ""
    for planned in block.scenes:
        render(planned.scene, block.image_side, Random(planned.image_id)).save(folder / planned.file_name)
        for utterance in planned.utterances:
            spoken = speaker.speak(utterance)
            soundfile.write(folder / utterance.file_name, spoken.waveform, SAMPLE_RATE, subtype="PCM_16")
            times += lines_of(utterance.utterance_id, spoken.words)
    (folder / WORDS).write_text(times, "utf-8")


if __name__ == "__main__":
    make_block(Path(sys.argv[1]), pickle.load(sys.stdin.buffer))
