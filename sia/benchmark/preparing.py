"""Preparing a corpus: ours against decoding, MFCC and image work alone, of which nothing is checked or written."""

import io
import json
import tempfile
import warnings
from functools import cache, partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
import torch
from PIL import Image
from torchaudio.transforms import MFCC

from sia.benchmark.harness import Action, Comparison, in_turn
from sia.benchmark.made_up_corpus import blurred
from sia.cluster.corpus_jobs import prepare_corpus
from sia.data.mfcc import HOP_LENGTH, MEL_BANDS, MFCC_COEFFICIENTS, N_FFT, SAMPLE_RATE
from sia.data.prepare import finish, plan, write_shard
from sia.orphans import pool, usable_cores

CAPTIONS_AN_IMAGE = 5
SECONDS = (2.0, 7.0)
SIDE = 256


def compare(num_captions: int, all_cores: bool, turns: int) -> Comparison:
    """In this process; or in one a core, whose start counts on both sides."""
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder), num_captions)
        if all_cores:
            sides = {"ours": partial(ours_by_all, Path(folder)), "alone": partial(alone_by_all, Path(folder))}
        else:
            sides = {"ours": partial(ours, Path(folder)), "alone": partial(alone, Path(folder))}
        where = f"{usable_cores()} processes, with their start" if all_cores else "one process"
        return in_turn(f"{num_captions:,} captions of 2 to 7 s, JPEGs of 500 x 375 px, {where}", sides, turns)


def ours(folder: Path) -> Action:
    def prepare() -> None:
        out = new_folder(folder)
        for number in range(plan("table", folder, out, None, SIDE)):
            write_shard(out, number)
        finish(out)

    return prepare


def ours_by_all(folder: Path) -> Action:
    def prepare() -> None:
        prepare_corpus("table", folder, new_folder(folder), short_side=SIDE)

    return prepare


def new_folder(folder: Path) -> Path:
    """For each turn: deleting the last one's is no part of preparing."""
    return Path(tempfile.mkdtemp(dir=folder)) / "out"


def alone(folder: Path) -> Action:
    return partial(convert, folder, rows_of(folder))


def alone_by_all(folder: Path) -> Action:
    cores = usable_cores()
    images = len(rows_of(folder)) // CAPTIONS_AN_IMAGE
    ends = [images * number // cores * CAPTIONS_AN_IMAGE for number in range(cores + 1)]
    parts = [rows_of(folder)[first:end] for first, end in pairwise(ends)]

    def share() -> None:
        with pool(cores) as workers:
            sum(workers.map(partial(number_converted, folder), parts))

    return share


def number_converted(folder: Path, rows: list[dict[str, str]]) -> int:
    return len(convert(folder, rows))  # frames would have to be sent


def convert(folder: Path, rows: list[dict[str, str]]) -> list[np.ndarray]:
    """The frames of all recordings; each image is resized and encoded once."""
    torch.set_num_threads(1)
    seen, frames = "", []
    for row in rows:
        wave, _ = soundfile.read(folder / row["speech_path"], dtype="float32")
        frames.append(transform()(torch.from_numpy(wave)).T.contiguous().numpy())
        if row["image_path"] != seen:
            seen = row["image_path"]
            with Image.open(folder / seen) as image:
                size = [round(length * SIDE / min(image.size)) for length in image.size]
                resized = image.convert("RGB").resize((size[0], size[1]), Image.Resampling.BICUBIC)
            resized.save(io.BytesIO(), "JPEG", quality=95, subsampling=0)
    return frames


@cache
def transform() -> torch.nn.Module:
    mel = {"n_fft": N_FFT, "hop_length": HOP_LENGTH, "n_mels": MEL_BANDS}
    warnings.filterwarnings("ignore", message="At least one mel filterbank")
    return MFCC(SAMPLE_RATE, n_mfcc=MFCC_COEFFICIENTS, melkwargs=mel)


def rows_of(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]


def write_table(folder: Path, num_captions: int) -> None:
    """Noise as speech, soft spots as images."""
    chance, lines = np.random.default_rng(0), []
    for number in range(num_captions):
        image = f"image-{number // CAPTIONS_AN_IMAGE}"
        if number % CAPTIONS_AN_IMAGE == 0:
            blurred(chance, 500, 375).save(folder / f"{image}.jpg", quality=90)
        wave = 0.1 * chance.standard_normal(int(SAMPLE_RATE * chance.uniform(*SECONDS)), np.float32)
        soundfile.write(folder / f"{number}.wav", wave, SAMPLE_RATE, subtype="PCM_16")
        names = {"utterance_id": f"caption-{number}", "image_id": image, "split": "train"}
        lines.append(json.dumps({**names, "speech_path": f"{number}.wav", "image_path": f"{image}.jpg"}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")


CASES = {"one-core": partial(compare, 500, False), "all-cores": partial(compare, 1200, True)}
