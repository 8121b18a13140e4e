"""Damage and oddities that a corpus on a disk really has: each is dropped or named, none stops the rest."""

import io
import json
import os
import shutil
import signal
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_corpus
from desk import Desk, wait_until
from PIL import Image

from sia.atomic import read_json, write_json
from sia.data.caption_files import Unusable, caption_frames
from sia.data.images import encode, read_image
from sia.data.manifest import SpokenCaption
from sia.data.mfcc import UnusableRate, check_rate
from sia.data.prepared_corpus import PreparedCorpus
from sia.data.verify import verify_corpus
from sia.errors import UserError


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_rates_of_recorders_are_taken(rate: int) -> None:
    check_rate(rate)


@pytest.mark.parametrize("rate", [0, -5, 1, 3_999, 16_001, 44_099, 1_000_003, 2_000_000_011, 44_100.5])
def test_rates_of_damaged_headers_are_refused(rate: float) -> None:
    with pytest.raises(UnusableRate, match="sample rate"):
        check_rate(rate)


def test_a_wav_whose_header_names_an_absurd_rate_is_dropped(tmp_path: Path) -> None:
    tiny_corpus.speak(tmp_path / "a.wav", 0, 0, seed=1)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = struct.pack("<I", 2_000_000_011)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(Unusable) as caught:
        caption_frames(SpokenCaption("a", "a", str(tmp_path / "a.wav"), "a.png", "train"))
    assert caught.value.reason == "unreadable speech"
    assert "sample rate" in caught.value.detail or "a.wav" in caught.value.detail


def described(folder: Path) -> dict[str, Any]:
    return read_json(folder / "corpus.json") or {}


def faults(folder: Path) -> list[str]:
    told: list[str] = []
    with pytest.raises(UserError):
        verify_corpus(folder, lambda line: told.append(str(line)), processes=0)
    return told


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    shutil.copytree(corpus, tmp_path / "corpus")
    return tmp_path / "corpus"


@pytest.mark.parametrize(
    ("key", "value"),
    [("frame_mean", [0.0] * 40), ("pixel_std", [1.0] * 3), ("hours", 1.0), ("held_out", "captions"), ("name", "other")],
)
def test_a_description_that_was_edited_is_named(copy: Path, key: str, value: object) -> None:
    """The statistics normalise every input: nobody would notice them otherwise."""
    description = described(copy)
    write_json(copy / "corpus.json", {**description, key: value})
    assert [f"its {key} is not that of the shards" in line for line in faults(copy)] == [True]


def test_an_edited_record_is_named(copy: Path) -> None:
    """As long as it was, so that the index of the lines still fits."""
    lines = (copy / "captions.jsonl").read_text()
    assert '"speaker": ""' in lines and '"language": ""' in lines
    edited = lines.replace('"speaker": ""', '"speaker": "x"', 1).replace('"language": ""', '"language":"" ', 1)
    shorter = edited.replace('"text": ""', '"text":""', 1)
    assert len(shorter) == len(lines)
    (copy / "captions.jsonl").write_text(shorter)
    first = json.loads(lines.split("\n")[0])["utterance_id"]
    index, record = faults(copy)
    assert "captions.npy" in index and f"the record of {first!r}" in record


def test_a_list_of_dropped_captions_that_is_gone_is_named(copy: Path) -> None:
    (copy / "dropped.jsonl").unlink()
    assert ["dropped.jsonl" in line for line in faults(copy)] == [True]


@pytest.mark.parametrize("name", ["corpus.json", "plan.json"])
def test_a_damaged_record_is_named_in_one_line(copy: Path, name: str) -> None:
    (copy / name).write_text("{")
    with pytest.raises(UserError) as caught:
        verify_corpus(copy, processes=0)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_key_that_is_missing_is_named(copy: Path) -> None:
    description = described(copy)
    del description["frame_mean"]
    write_json(copy / "corpus.json", description)
    with pytest.raises(UserError, match=r"corpus\.json: no frame_mean"):
        PreparedCorpus.open(copy)


def test_a_float_image_to_one_is_scaled_as_such(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5], [1.0, 0.25]], np.float32)).save(tmp_path / "a.tiff")
    assert np.asarray(read_image(tmp_path / "a.tiff"))[..., 0].tolist() == [[0, 127], [255, 63]]


def test_sharp_colours_survive_a_resized_jpeg() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2], stripes[:, 1::2] = (255, 0, 0), (0, 0, 255)
    again = np.asarray(Image.open(io.BytesIO(encode(Image.fromarray(stripes), lossless=False))))
    assert np.abs(again.astype(int) - stripes).max() < 40


@pytest.mark.slow
def test_workers_do_not_outlive_a_killed_command(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    started = desk.start(
        "prepare.py", "--corpus", "scenes", "--out", "scenes", "--image-short-side", 72, "--limit", 900
    )

    def workers() -> list[int]:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(place.name)) == started.pid and "spawn_main" in (place / "cmdline").read_text():
                    found.append(int(place.name))
            except OSError:
                continue
        return found

    wait_until(lambda: list((tmp_path / "scenes").glob("plan.json")) and workers(), 120, "the workers of the shards")
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    wait_until(lambda: not workers(), 20, "the workers' end")
