"""A copy is what the state was, and a thread's errors are not lost."""

import errno
import fcntl
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sia.checkpoint.background import BLOCK, PIECE, Background, KeptCopy, PastTheCache


def content(fill: float, width: int = 3) -> dict[str, Any]:
    weights = OrderedDict(w=torch.full((2, width), fill), c=torch.full((1, 2, 4, 4), fill))
    weights["c"] = weights["c"].to(memory_format=torch.channels_last)
    weights._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    moments = {0: {"step": torch.tensor(fill), "m": torch.full((2, width), fill, dtype=torch.bfloat16)}}
    return {"model": weights, "optimizer": {"state": moments}, "rows": [{"a": [fill]}], "random": (1, (2, 3))}


def tensors(part: dict[str, Any]) -> list[Tensor]:
    return [*part["model"].values(), *part["optimizer"]["state"][0].values()]


def test_a_copy_is_apart_from_what_it_was_taken_of() -> None:
    one = content(1.0)
    copied = KeptCopy().of(one)
    for tensor in tensors(one):
        tensor.fill_(9)
    one["rows"][0]["a"].append(9)
    expected = content(1.0)
    assert all(map(torch.equal, tensors(copied), tensors(expected)))
    assert [t.stride() for t in tensors(copied)] == [t.stride() for t in tensors(expected)]
    assert [t.dtype for t in tensors(copied)] == [t.dtype for t in tensors(expected)]
    assert (copied["rows"], copied["random"]) == (expected["rows"], expected["random"])
    assert copied["model"]._metadata == expected["model"]._metadata


def test_the_next_copy_takes_the_same_memory_where_it_fits() -> None:
    kept = KeptCopy()
    first = [tensor.data_ptr() for tensor in tensors(kept.of(content(1.0)))]
    again = kept.of(content(2.0))
    assert [tensor.data_ptr() for tensor in tensors(again)] == first
    assert all(map(torch.equal, tensors(again), tensors(content(2.0))))
    wider = kept.of(content(3.0, width=5))
    assert all(map(torch.equal, tensors(wider), tensors(content(3.0, width=5))))


def test_one_task_at_a_time_whose_error_the_next_to_come_raises() -> None:
    background, go, done = Background(), threading.Event(), []

    def fail() -> None:
        go.wait(60)
        raise ValueError("of the task")

    background.begin(fail)
    background.look()
    go.set()
    with pytest.raises(ValueError, match="of the task"):
        background.begin(lambda: done.append(1))
    background.begin(lambda: done.append(2))
    background.wait()
    background.wait()
    assert done == [2]


@pytest.mark.parametrize("refusal", [None, errno.EINVAL, errno.EOPNOTSUPP])
@pytest.mark.parametrize("sizes", [(3,), (BLOCK,), (5, PIECE, 7), (PIECE - 1, 1, 2 * PIECE + BLOCK + 9)])
def test_what_goes_past_the_cache_is_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...], refusal: int | None
) -> None:
    """Also where the file system takes the mode and then no write of it, and what follows a flush."""
    write = os.write

    def refuse(descriptor: int, data: bytes) -> int:
        if refusal and fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(refusal, os.strerror(refusal))
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", refuse)
    given = [os.urandom(size) for size in sizes]
    with open(tmp_path / "file", "wb") as stream:
        out = PastTheCache(stream.fileno())
        assert [out.write(memoryview(one)) for one in given] == list(sizes)
        out.flush()
        out.write(b"more")
        out.flush()
    assert (tmp_path / "file").read_bytes() == b"".join([*given, b"more"])
