"""Tux Paint's stamps: photographs and drawings that volunteers named aloud in some twelve languages.

The Debian package tuxpaint-stamps-default (GPL-2) holds them. Beside NAME.png lie NAME_desc_LANGUAGE.ogg (a few are
.wav; NAME_desc.ogg is English) and NAME.txt. Captions are held out, not images: every image is trained on.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from sia.data.corpora.held_out import draw
from sia.data.deb import unpack
from sia.data.manifest import Dropped, Reading, SpokenCaption
from sia.errors import UserError

PACKAGED = "usr/share/tuxpaint/stamps"
CURE = "run `make stamps`, or give the package's .deb or its unpacked folder with --root"

# Of the 619 images that have a recording of their own, about 500 lend one to each of validation and test.
LENDING_SHARE = 0.8
FEWEST_TO_LEND_ONE = 3
FEWEST_TO_LEND_TWO = 4

# Copies of one take that went through the encoder twice correlate by 0.98 and more, two takes by less than 0.65.
SAME_TAKE = 0.9

_RECORDING = re.compile(r"(.+)_desc(?:_([a-z]{2,3}(?:_[A-Z]{2})?(?:@[a-z]+)?))?\.(?:ogg|wav)")

Recordings = dict[str, Path]  # by language


def read(root: Path) -> Reading:
    """The captions below `root`: a .deb file, the folder it was unpacked into, or the stamps folder itself.

    A .deb is unpacked into a folder beside it. Raises UserError where there are no stamps.
    """
    folder = _stamps_folder(root)
    images, dropped = _find(folder)
    if not images and not dropped:
        raise UserError(f"{root}: no stamps there; {CURE}")
    shared = _shared_recordings(path for recordings in images.values() for path in recordings.values())
    captions = []
    for image_id, recordings in images.items():
        texts = _texts(folder / f"{image_id}.txt")
        lent = _lent(image_id, recordings, set(recordings.values()) - shared)
        captions += [
            SpokenCaption(
                utterance_id=f"{image_id}_{language}",
                image_id=image_id,
                speech_path=str(path),
                image_path=str(folder / f"{image_id}.png"),
                split=lent.get(language, "train"),
                language=language,
                text=texts.get(language, ""),
            )
            for language, path in recordings.items()
        ]
    return Reading(captions, dropped, held_out="captions")


def _stamps_folder(root: Path) -> Path:
    folder = root.with_suffix("") if root.suffix == ".deb" and root.is_file() else root
    if folder != root and not folder.exists():
        unpack(root, folder)
    if not folder.is_dir():
        raise UserError(f"{root}: neither a folder nor a .deb; {CURE}")
    return folder / PACKAGED if (folder / PACKAGED).is_dir() else folder


def _find(folder: Path) -> tuple[dict[str, Recordings], list[Dropped]]:
    """The recordings of each image, by language, and those left out; the order is that of the names."""
    images: dict[str, Recordings] = defaultdict(dict)
    dropped = []
    for path in sorted(path for path in folder.rglob("*_desc*") if path.suffix in (".ogg", ".wav")):
        name = path.relative_to(folder).as_posix()
        match = _RECORDING.fullmatch(name)
        image_id, language = (match[1], match[2] or "en") if match else ("", "")
        if reason := _why_dropped(folder, image_id, language in images.get(image_id, {})):
            dropped.append(Dropped(name, reason))
        else:
            images[image_id][language] = path
    return images, dropped


def _why_dropped(folder: Path, image_id: str, heard: bool) -> str:
    """Why a recording is left out, or "" where it is not; `heard`: the image has one in that language already."""
    if not image_id:
        return "its name is not NAME_desc_LANGUAGE.ogg"
    if not (folder / f"{image_id}.png").is_file():
        return "its image is an SVG" if (folder / f"{image_id}.svg").is_file() else "no image of that name"
    return "a second recording in that language" if heard else ""


def _lent(image_id: str, recordings: Recordings, unshared: set[Path]) -> dict[str, str]:
    """The languages whose captions the image lends, and to which split: it keeps at least two for training.

    A recording that several images share stays in training: elsewhere it would be heard in two splits.
    """
    languages = [language for language, path in recordings.items() if path in unshared]
    languages.sort(key=lambda language: draw(f"{image_id}_{language}"))
    if not languages or len(recordings) < FEWEST_TO_LEND_ONE:
        return {}
    drawn = draw(image_id)
    splits = [split for split, chance in (("test", drawn), ("validation", 1 - drawn)) if chance < LENDING_SHARE]
    if len(splits) == 2 and (len(languages) < 2 or len(recordings) < FEWEST_TO_LEND_TWO):
        splits = ["test" if drawn < 0.5 else "validation"]
    return dict(zip(languages, splits, strict=False))


def _texts(path: Path) -> dict[str, str]:
    """The image's description by language; none where the file is missing."""
    if not path.is_file():
        return {}
    first, *others = path.read_bytes().decode("utf-8-sig", "replace").split("\n")
    pairs = (line.partition("=") for line in others)
    return {**{key.strip().removesuffix(".utf8"): text.strip() for key, _, text in pairs}, "en": first.strip()}


def _shared_recordings(paths: Iterable[Path]) -> set[Path]:
    """The recordings whose take lies in another of `paths` too, and those that cannot be read.

    Equal bytes would miss a take that was encoded twice; takes are compared as waveforms of equal length.
    """
    shared: set[Path] = set()
    of_length: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            of_length[soundfile.info(path).frames].append(path)
        except soundfile.LibsndfileError:
            shared.add(path)
    for alike in of_length.values():
        if len(alike) > 1:
            shared |= _same_takes(alike)
    return shared


def _same_takes(paths: list[Path]) -> set[Path]:
    """The paths whose waveform correlates with another one's; all are equally long."""
    waves = {path: wave for path in paths if (wave := _normalised(path)) is not None}
    stacked = np.stack([*waves.values()]) if waves else np.zeros((0, 1))  # [N, samples]
    correlation = np.abs(stacked @ stacked.T) - np.eye(len(waves))  # [N, N]
    same = {path for path, row in zip(waves, correlation, strict=True) if row.max() > SAME_TAKE}
    return same | (set(paths) - set(waves))


def _normalised(path: Path) -> np.ndarray | None:
    """The channels' mean with mean 0 and norm 1 [samples], or None where it cannot be decoded or is silent."""
    try:
        wave = soundfile.read(path, dtype="float32", always_2d=True)[0].mean(axis=1)
    except soundfile.LibsndfileError:
        return None
    wave = wave - wave.mean() if wave.size else wave
    norm = float(np.linalg.norm(wave))
    return wave / norm if norm > 0 else None
