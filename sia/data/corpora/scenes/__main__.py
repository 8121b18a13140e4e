"""Makes one block: `python -m sia.data.corpora.scenes FOLDER`, the block as JSON on standard input."""

import sys
from pathlib import Path
from random import Random

import soundfile

from sia.data.corpora.scenes.plan import Block, block_from_json, image_name, speech_name
from sia.data.corpora.scenes.rendering import render
from sia.data.corpora.scenes.speech import SAMPLE_RATE, Speaker


def make_block(folder: Path, block: Block) -> None:
    """Writes the block's pictures (PNG) and utterances (FLAC: 16 kHz, 16 bits, mono) into `folder`."""
    speaker = Speaker()
    for planned in block.scenes:
        picture = render(planned.scene, block.image_side, Random(planned.image_id))
        picture.save(folder / image_name(planned))
        for utterance in planned.utterances:
            waveform = speaker.speak(utterance)
            soundfile.write(folder / speech_name(utterance), waveform, SAMPLE_RATE, subtype="PCM_16")


if __name__ == "__main__":
    make_block(Path(sys.argv[1]), block_from_json(sys.stdin.read()))
