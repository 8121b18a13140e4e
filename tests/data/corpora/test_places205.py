"""Places' readers, on files laid out as its releases lay them out."""

from pathlib import Path
from typing import Any

import pytest
from corpus_files import dropped, refused, touch, write_json, write_lines

from sia.data.corpora import read
from sia.data.manifest import Reading, SpokenCaption

NAMES_OF_2020 = ("train", "dev_seen", "dev_unseen", "test_seen", "test_unseen")


def record(number: int, **more: Any) -> dict[str, Any]:
    names = {"uttid": f"SPEAKER-{number}", "speaker": "SPEAKER", "asr_text": "a quiet abbey"}
    return {**names, "wav": f"wavs/{number}.wav", "image": f"a/abbey/{number}.jpg", **more}


def write(root: Path, name: str, records: Any, **base: str) -> None:
    data = [record(number) for number in records] if isinstance(records, range) else records
    write_json(root / "metadata" / f"{name}.json", {**base, "data": data})


def write_val(root: Path, *records: Any, **base: str) -> None:
    """A first release of these records."""
    write(root, "train", range(0))
    write(root, "val", list(records), **base)


def write_lists(root: Path, numbers: range, held: range) -> None:
    """The older release, whose images begin with a slash."""
    write_lines(root / "metadata/utt2wav", [f"S-{n} wavs/{n}/utterance_{n}.wav" for n in numbers])
    write_lines(root / "metadata/utt2image", [f"S-{n} /a/abbey/{n}.jpg" for n in numbers])
    write_lines(root / "metadata/utt2spk", [f"S-{n} S" for n in numbers])
    write_lines(root / "metadata/utt2ASR", [f"S-{n} a quiet abbey" if n else f"S-{n}" for n in numbers])
    write_lines(root / "lists/acl_2017_val_uttids", [f"S-{n}" for n in held])


def places(root: Path) -> Reading:
    return read("places205", root)


def alone(root: Path) -> SpokenCaption:
    (caption,) = places(root).captions
    return caption


def test_the_first_release_tests_on_val_and_holds_images_out_of_train(tmp_path: Path) -> None:
    refused("places205", tmp_path, r"no train\.json, val\.json")
    write(tmp_path, "train", range(2000))
    refused("places205", tmp_path, r"metadata: no val\.json; .*--root")
    write(tmp_path, "val", [*map(record, range(2000, 2100)), record(2100, image=record(0)["image"])])
    reading = places(tmp_path)
    splits = {split: [c for c in reading.captions if c.split == split] for split in ("train", "validation", "test")}
    assert [c.utterance_id for c in splits["test"]] == [f"SPEAKER-{number}" for number in range(2000, 2101)]
    assert 50 <= len(splits["validation"]) <= 150, "five in a hundred images"
    assert len(reading.captions) == 2100
    assert dropped(reading) == {"SPEAKER-0": "its image is in a held-out split too"}
    number = len(splits["validation"])
    assert reading.notes == (f"val is the test split; {number} images held out of train are validation",)


def test_the_release_of_2020_brings_all_splits_for_the_recordings_of_the_first(tmp_path: Path) -> None:
    write(tmp_path, "train", range(100, 110))  # the first release beside it
    for place, name in enumerate(NAMES_OF_2020):
        write(tmp_path, f"{name}_2020", range(10 * place, 10 * place + 10))
        touch(tmp_path / "PlacesAudio_400k_distro" / "wavs" / f"{10 * place}.wav")
    (tmp_path / "metadata").rename(tmp_path / "placesaudio_2020_splits")
    reading = places(tmp_path)
    assert [c.split for c in reading.captions] == ["train"] * 10 + ["validation"] * 20 + ["test"] * 20
    assert all(Path(c.speech_path).is_file() for c in reading.captions[::10])
    assert "dev_seen" in reading.notes[0]
    (tmp_path / "placesaudio_2020_splits" / "test_seen_2020.json").unlink()
    refused("places205", tmp_path, r"placesaudio_2020_splits: no test_seen_2020\.json; .*--root")


def test_a_record_becomes_a_caption(tmp_path: Path) -> None:
    write_val(tmp_path, record(0))
    files = (str(tmp_path / "wavs/0.wav"), str(tmp_path / "a/abbey/0.jpg"))
    told = ("test", "SPEAKER", "en", "a quiet abbey")
    assert alone(tmp_path) == SpokenCaption("SPEAKER-0", "a/abbey/0.jpg", *files, *told)


def test_words_are_taken_off_the_alignment_where_there_is_no_transcript(tmp_path: Path) -> None:
    aligned = "0.1__A__0.3 0.3__QUIET__0.7 0.7__<SPOKEN_NOISE>__0.8 broken 0.8__ABBEY__1.2"
    bare = {key: value for key, value in record(2).items() if key not in ("asr_text", "speaker")}
    write_val(
        tmp_path,
        record(0, text_alignment=aligned),
        record(1, asr_text="", text_alignment=aligned),
        {**bare, "text_alignment": aligned},
        {**bare, "uttid": "u", "asr_text": None},
    )
    captions = places(tmp_path).captions
    assert [c.text for c in captions] == ["a quiet abbey", "A QUIET ABBEY", "A QUIET ABBEY", ""]
    assert captions[2].speaker == ""


@pytest.mark.parametrize("relative", [True, False])
def test_base_paths_count_where_they_are_there(tmp_path: Path, relative: bool) -> None:
    (tmp_path / "sounds").mkdir()
    sounds = "sounds" if relative else str(tmp_path / "sounds")
    write_val(tmp_path, record(0), audio_base_path=sounds, image_base_path="/data/of/another/machine")
    caption = alone(tmp_path)
    assert caption.speech_path == str(tmp_path / "sounds/wavs/0.wav")
    assert caption.image_path == str(tmp_path / "a/abbey/0.jpg")
    wav = touch(tmp_path / "wavs/0.wav")
    assert alone(tmp_path).speech_path == str(wav), "where the files are comes first"


@pytest.mark.parametrize("images", ["", "images256", "data/vision/torralba/deeplearning/images256"])
@pytest.mark.parametrize("given", [".", "..", "metadata"])
def test_the_root_is_the_corpus_its_parent_or_its_metadata(tmp_path: Path, given: str, images: str) -> None:
    corpus = tmp_path / "PlacesAudio_400k_distro"
    write_val(corpus, record(0))
    wav = touch(corpus / "wavs" / "0.wav")
    image = touch((corpus if given == "metadata" else corpus / given).resolve() / images / "a/abbey/0.jpg")
    caption = alone((corpus / given).resolve())
    assert (Path(caption.speech_path), Path(caption.image_path)) == (wav, image)


def test_a_wav_may_climb_over_a_folder_that_is_not_there(tmp_path: Path) -> None:
    write_val(tmp_path, record(0, wav="wavs/../x.wav"))
    touch(tmp_path / "x.wav")
    assert Path(alone(tmp_path).speech_path).is_file()


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        ([record(5), {**record(6), "uttid": None}], r"val\.json: record 1 of `data` is missing 'uttid'; mend"),
        ([record(5), "text"], r"val\.json: record 1 of `data` is no record but a str; mend"),
        ([record(5, wav=["a.wav"])], r"val\.json: record 0 of `data` has a list at 'wav'; make it a text"),
        ([record(5), record(6), record(5)], r"val\.json: record 2 of `data`: utterance 'SPEAKER-5' is there twice"),
        ([record(0)], r"val\.json: record 0 of `data`: utterance 'SPEAKER-0' is there twice"),
        ({"a": 1}, r"val\.json: not Places' metadata \(no list `data`\); fetch"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, records: Any, fault: str) -> None:
    write(tmp_path, "train", range(2))
    write(tmp_path, "val", records)
    refused("places205", tmp_path, fault)


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff\xfe", b""])
def test_a_file_of_something_else_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "train", range(2))
    (tmp_path / "metadata" / "val.json").write_bytes(content)
    refused("places205", tmp_path, r"val\.json: not .*; (fetch|save)")


def test_the_lists_of_the_older_release(tmp_path: Path) -> None:
    write_lists(tmp_path, range(60), range(50, 60))
    touch(tmp_path / "images256" / "a/abbey/0.jpg")
    reading = places(tmp_path)
    first, second = reading.captions[:2]
    assert (first.image_id, first.speaker, first.text, second.text) == ("a/abbey/0.jpg", "S", "", "a quiet abbey")
    assert first.image_path == str(tmp_path / "images256/a/abbey/0.jpg")
    assert first.speech_path == str(tmp_path / "wavs/0/utterance_0.wav")
    assert "val is the test split" in reading.notes[0] and not reading.dropped
    paths = [f"S-{n} wavs/{n}/utterance_{n}.wav\n\r" for n in range(50, 60)]
    write_lines(tmp_path / "lists/acl_2017_val_uttids", paths)
    assert places(tmp_path) == reading, "the list of val may bring paths"
    assert [c.utterance_id for c in reading.captions if c.split == "test"] == [f"S-{n}" for n in range(50, 60)]


def test_an_utterance_of_one_list_alone_is_dropped(tmp_path: Path) -> None:
    write_lists(tmp_path, range(6), range(5, 8))
    with open(tmp_path / "metadata" / "utt2wav", "a") as stream:
        stream.write("S-20 wavs/20.wav\n")
    reading = places(tmp_path)
    assert dropped(reading) == {
        "S-20": "no line in utt2image",
        "S-6": "no line in utt2wav",
        "S-7": "no line in utt2wav",
    }
    assert len(reading.captions) == 6


@pytest.mark.parametrize(
    ("name", "lines", "fault"),
    [
        ("metadata/utt2wav", ["S-0 a.wav", "S-1"], r"utt2wav, line 2: 'S-1' has no second word; mend"),
        ("metadata/utt2wav", ["S-0 a", "", "S-0 b"], r"utt2wav, line 3: 'S-0' is there twice, with 'a' before; remove"),
        ("metadata/utt2image", None, r"metadata: no utt2image, .*; fetch it"),
        ("lists/acl_2017_val_uttids", None, r"no lists/acl_2017_val_uttids, .*; fetch it"),
    ],
)
def test_a_broken_list_names_its_line(tmp_path: Path, name: str, lines: list[str] | None, fault: str) -> None:
    write_lists(tmp_path, range(6), range(5, 6))
    if lines is None:
        (tmp_path / name).unlink()
    else:
        write_lines(tmp_path / name, lines)
    refused("places205", tmp_path, fault)
