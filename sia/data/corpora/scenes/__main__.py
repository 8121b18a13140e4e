"""Makes one block in a fresh process: `python -m sia.data.corpora.scenes FOLDER`, the pickled block on standard input.

Its pictures are PNG, its utterances FLAC of 16 kHz, 16 bits, one channel.
"""

import pickle
import sys
from pathlib import Path
from random import Random

import soundfile

from sia.data.corpora.scenes.plan import Block
from sia.data.corpora.scenes.rendering import render
from sia.data.corpora.scenes.speech import SAMPLE_RATE, Speaker


def make_block(folder: Path, block: Block) -> None:
    speaker = Speaker()
    for planned in block.scenes:
        render(planned.scene, block.image_side, Random(planned.image_id)).save(folder / planned.file_name)
        for utterance in planned.utterances:
            soundfile.write(folder / utterance.file_name, speaker.speak(utterance), SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    make_block(Path(sys.argv[1]), pickle.load(sys.stdin.buffer))
