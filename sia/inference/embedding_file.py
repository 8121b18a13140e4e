"""The embeddings of a split in one HDF5 file, and a layer's states over time where they are asked for.

speech          float32 [N, D]   unit embeddings of the captions
utterance_ids   str     [N]
images          float32 [M, D]   unit embeddings of the images that they choose among
image_ids       str     [M]
image_of_speech int64   [N]      the row of `images` that caption n describes
states          float32 [S, W]   with --layer: the states of all captions, one after the other
state_offsets   int64   [N + 1]  caption n owns states[state_offsets[n] : state_offsets[n + 1]]

Attributes: run, study, signature, checkpoint, stage, epoch, corpus, corpus_identity, split; with --layer also layer
and, where the features tell, seconds_a_state and first_state_centre_seconds.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from sia.atomic import write_atomically
from sia.data.loader import pad
from sia.inference.pair_settings import depth_of
from sia.inference.prepared import PreparedPool
from sia.inference.trained_pair import BATCH_SIZE, TrainedPair, full_precision
from sia.models.sizes import CONV_CHANNELS, CONV_KERNEL
from sia.models.speech_encoder import CONV_STRIDE, steps_of
from sia.progress import tracked

PROVENANCE = ("run", "study", "signature", "checkpoint", "stage", "epoch")


def write_embeddings(
    pair: TrainedPair, folder: Path, split: str, out: Path, layer: str | None = None
) -> dict[str, int]:
    """Embed a split of the prepared corpus in `folder` into the file `out`, piece by piece; how many rows of each.

    Raises UsageError for a layer that is not there, UserError for a corpus that does not fit or lacks the split.
    """
    depth = None if layer is None else depth_of(layer, pair.settings.model.gru_layers)
    pool = PreparedPool(pair, folder)
    pool.embedder.label = split
    indices = pool.corpus.split(split)

    def fill(stream: Any) -> None:
        with h5py.File(stream, "w") as file:
            file.attrs.update({key: pair.settings.provenance[key] for key in PROVENANCE})
            file.attrs.update({"corpus": pool.corpus.description.name, "corpus_identity": pool.identity})
            file.attrs["split"] = split
            _write_pool(file, pool, indices, pair.latent_size)
            if depth is not None:
                file.attrs.update({"layer": str(layer), **step_timing(pair.settings.features)})
                _write_states(file, pair, pool, indices, depth)

    write_atomically(out, fill)
    states = {} if depth is None else {"states": int(_state_offsets(pool, indices)[-1])}
    return {"speech": len(indices), "images": len(pool.corpus.image_pool(indices)), **states}


def _write_pool(file: h5py.File, pool: PreparedPool, indices: list[int], width: int) -> None:
    captions, shown = pool.corpus.captions, pool.corpus.image_pool(indices)
    row_of = {captions[index].image_id: row for row, index in enumerate(shown)}
    names = {"utterance_ids": [captions[index].utterance_id for index in indices], "image_ids": list(row_of)}
    for name, values in names.items():
        file.create_dataset(name, data=values, dtype=h5py.string_dtype(), shape=len(values))
    file["image_of_speech"] = np.array([row_of[captions[index].image_id] for index in indices], dtype=np.int64)
    for name, rows, images in (("speech", indices, False), ("images", shown, True)):
        dataset = file.create_dataset(name, (len(rows), width), np.float32)
        for start, piece in pool.embedded(rows, images):
            dataset[start : start + len(piece)] = piece.numpy()


def _write_states(file: h5py.File, pair: TrainedPair, pool: PreparedPool, indices: list[int], depth: int) -> None:
    offsets = _state_offsets(pool, indices)
    file["state_offsets"] = offsets
    width = pair.latent_size if depth else CONV_CHANNELS
    dataset = file.create_dataset("states", (int(offsets[-1]), width), np.float32)
    for start in tracked(range(0, len(indices), BATCH_SIZE), "states", ceil(len(indices) / BATCH_SIZE)):
        some = indices[start : start + BATCH_SIZE]
        rows = torch.cat(caption_states(pair, [torch.from_numpy(pool.corpus.frames(index)) for index in some], depth))
        dataset[offsets[start] : offsets[start + len(some)]] = rows.numpy()


def caption_states(pair: TrainedPair, frames: Sequence[Tensor], depth: int) -> list[Tensor]:
    """Frames [T_n, F] of captions, not yet standardised -> their states [S_n, W] after `depth` GRU layers."""
    padded, num_frames = pad([pair.standardised(one) for one in frames])
    with full_precision():
        states, num_steps = pair.network.speech.states(padded.to(pair.device), num_frames, depth)
    return [row[:length].float().cpu() for row, length in zip(states, num_steps.tolist(), strict=True)]


def _state_offsets(pool: PreparedPool, indices: list[int]) -> np.ndarray:
    num_frames = torch.tensor([pool.corpus.captions[index].num_frames for index in indices])
    return np.concatenate([[0], steps_of(num_frames).numpy().cumsum()]).astype(np.int64)


def step_timing(features: dict[str, Any]) -> dict[str, float]:
    """A state sees six frames and the next begins two frames later; frame t is centred at t hops."""
    if "hop_length" not in features or "sample_rate" not in features:
        return {}
    hop_seconds = features["hop_length"] / features["sample_rate"]
    centre = (CONV_KERNEL - 1) / 2 * hop_seconds
    return {"seconds_a_state": CONV_STRIDE * hop_seconds, "first_state_centre_seconds": centre}
