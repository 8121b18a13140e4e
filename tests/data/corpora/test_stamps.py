import shutil
import tarfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from sia.data import corpora
from sia.data.corpora.stamps import PACKAGED, read
from sia.data.deb import AR_MAGIC, unpack
from sia.data.manifest import Reading, validate_captions
from sia.errors import UserError

LANGUAGES = ("be", "bg", "ca", "fr", "ru")


def record(path: Path, seed: int, gain: float = 0.2) -> None:
    noise = np.random.default_rng(seed).uniform(-gain, gain, 4000)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise.astype("float32"), 8000)


def draw(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", (5, 4), (200, 10, 10, 128)).save(path)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """Forty animals in five languages, each recording its own, laid out as the package lays them out."""
    for number in range(40):
        name = tmp_path / "package" / PACKAGED / "animals" / f"animal{number}"
        draw(name.with_suffix(".png"))
        for place, language in enumerate(LANGUAGES):
            record(name.with_name(f"{name.name}_desc_{language}.ogg"), seed=number * 10 + place)
    return tmp_path / "package"


@pytest.fixture
def frog(tmp_path: Path) -> Path:
    """The path, without suffix, of an image whose recordings the test adds."""
    name = tmp_path / "frogs" / PACKAGED / "animals" / "frog"
    draw(name.with_suffix(".png"))
    return name


def splits_of(reading: Reading, key: str) -> dict[str, list[str]]:
    splits = defaultdict(list)
    for caption in reading.captions:
        splits[getattr(caption, key)].append(caption.split)
    return splits


def test_ids_languages_and_texts(tmp_path: Path, frog: Path) -> None:
    for seed, ending in enumerate(("_desc.ogg", "_desc_fr.ogg", "_desc_pt_BR.wav", "_desc_lt.ogg", ".ogg")):
        record(frog.with_name(frog.name + ending), seed)
    frog.with_suffix(".txt").write_bytes(b"A frog.\nfr.utf8=Une grenouille.\npt_BR.utf8=Um sapo = \nxx\xff\n")
    captions = {caption.utterance_id: caption for caption in read(tmp_path / "frogs").captions}
    texts = {name: (caption.language, caption.text) for name, caption in captions.items()}
    assert texts == {
        "animals/frog_en": ("en", "A frog."),
        "animals/frog_fr": ("fr", "Une grenouille."),
        "animals/frog_pt_BR": ("pt_BR", "Um sapo ="),
        "animals/frog_lt": ("lt", ""),
    }
    assert {(caption.image_id, caption.speaker) for caption in captions.values()} == {("animals/frog", "")}
    assert all(Path(c.speech_path).is_file() and Path(c.image_path).is_file() for c in captions.values())


def test_what_is_left_out_has_a_reason(tmp_path: Path, frog: Path) -> None:
    for seed, name in enumerate(
        ("frog_desc.ogg", "frog_desc_en.ogg", "frog_desc_da.ogg.ogg", "toad_desc_fr.ogg", "newt_desc_fr.ogg")
    ):
        record(frog.with_name(name), seed)
    frog.with_name("toad.svg").write_text("<svg/>")
    reading = read(tmp_path / "frogs")
    assert [caption.utterance_id for caption in reading.captions] == ["animals/frog_en"]
    assert {entry.utterance_id: entry.reason for entry in reading.dropped} == {
        "animals/frog_desc_en.ogg": "a second recording in that language",
        "animals/frog_desc_da.ogg.ogg": "its name is not NAME_desc_LANGUAGE.ogg",
        "animals/toad_desc_fr.ogg": "its image is an SVG",
        "animals/newt_desc_fr.ogg": "no image of that name",
    }


def test_every_image_is_trained_on_and_lends_a_split_one_caption_at_most(package: Path) -> None:
    reading = corpora.read("stamps", package)
    for splits in splits_of(reading, "image_id").values():
        assert splits.count("train") >= 3
        assert splits.count("validation") <= 1 and splits.count("test") <= 1
    totals = [caption.split for caption in reading.captions]
    assert totals.count("validation") > 20 and totals.count("test") > 20


def test_an_image_of_three_captions_lends_one_and_of_two_none(tmp_path: Path) -> None:
    animals = tmp_path / PACKAGED
    for number in range(40):
        draw(animals / f"animal{number}.png")
        for place in range(2 + number % 2):
            record(animals / f"animal{number}_desc_{LANGUAGES[place]}.ogg", seed=number * 10 + place)
    lent: dict[int, set[int]] = defaultdict(set)
    for splits in splits_of(read(tmp_path), "image_id").values():
        lent[len(splits)].add(len(splits) - splits.count("train"))
    assert lent == {2: {0}, 3: {1}}


def test_a_shared_recording_stays_in_training(package: Path) -> None:
    animals = package / PACKAGED / "animals"
    for number in range(0, 40, 2):
        for language in LANGUAGES[:4]:
            copy = animals / f"animal{number}_desc_{language}.ogg"
            shutil.copy(copy, animals / f"animal{number + 1}_desc_{language}.ogg")
    reading = read(package)
    splits = defaultdict(set)
    for caption in reading.captions:
        splits[Path(caption.speech_path).read_bytes()].add(caption.split)
    assert all(len(found) == 1 for found in splits.values())
    assert {caption.language for caption in reading.captions if caption.split != "train"} == {"ru"}


def test_a_take_that_was_encoded_twice_is_shared_too(package: Path) -> None:
    animals = package / PACKAGED / "animals"
    for number in range(0, 40, 2):
        for place, language in enumerate(LANGUAGES):
            record(animals / f"animal{number + 1}_desc_{language}.ogg", seed=number * 10 + place, gain=0.1)
    assert {caption.split for caption in read(package).captions} == {"train"}


def test_an_unreadable_recording_is_never_held_out(package: Path) -> None:
    """It is left for the preparation to drop."""
    for path in package.rglob("*_desc_*.ogg"):
        path.write_bytes(b"")
    reading = read(package)
    assert len(reading.captions) == 200
    assert {caption.split for caption in reading.captions} == {"train"}


def test_splits_do_not_depend_on_the_other_images(package: Path) -> None:
    before = {caption.utterance_id: caption.split for caption in read(package).captions}
    for path in package.rglob("animal1[0-9]*"):
        path.unlink()
    after = {caption.utterance_id: caption.split for caption in read(package).captions}
    assert len(after) == 150 and after.items() <= before.items()


def test_the_stamps_folder_itself_is_a_root(package: Path) -> None:
    assert read(package / PACKAGED) == read(package)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb builds the package")
def test_a_deb_is_unpacked_beside_itself(tmp_path: Path, package: Path) -> None:
    deb = tmp_path / "stamps_1-1_all.deb"
    build_deb(package, deb)
    reading = read(deb)
    assert len(reading.captions) == 200
    assert all(
        caption.speech_path.startswith(str(tmp_path / "stamps_1-1_all" / PACKAGED)) for caption in reading.captions
    )
    assert [caption.split for caption in reading.captions] == [caption.split for caption in read(package).captions]
    assert not list(tmp_path.glob(".*"))


def test_a_deb_is_unpacked_without_dpkg(tmp_path: Path, package: Path) -> None:
    deb = tmp_path / "stamps.deb"
    build_deb(package, deb)
    unpack_with_python(deb, tmp_path / "unpacked")
    assert len(read(tmp_path / "unpacked").captions) == 200


def build_deb(package: Path, deb: Path) -> None:
    """An ar archive of the three members of a .deb, written by hand."""
    data, control = deb.with_suffix(".data"), deb.with_suffix(".control")
    with tarfile.open(data, "w:xz") as archive:
        archive.add(package, ".")
    with tarfile.open(control, "w:xz"):
        pass
    members = {"debian-binary": b"2.0\n", "control.tar.xz": control.read_bytes(), "data.tar.xz": data.read_bytes()}
    content = AR_MAGIC
    for name, held in members.items():
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(held):<10}`\n".encode() + held + b"\n" * (len(held) % 2)
        )
    deb.write_bytes(content)


def test_a_member_that_climbs_out_of_the_folder_is_not_written(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("climbed")
    data = tmp_path / "data.tar"
    with tarfile.open(data, "w") as archive:
        archive.add(outside, "usr/inside")
        archive.add(outside, "../escaped")
    held = data.read_bytes()
    deb = tmp_path / "climbing.deb"
    deb.write_bytes(AR_MAGIC + f"{'data.tar':<48}{len(held):<10}`\n".encode() + held)
    unpack_with_python(deb, tmp_path / "unpacked")
    assert (tmp_path / "unpacked/usr/inside").read_text() == "climbed"
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize(
    "content", [b"no package", AR_MAGIC, AR_MAGIC + b"data.tar.xz" + b" " * 37 + b"9         `\nxx"]
)
def test_a_broken_deb_is_one_line_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    deb = tmp_path / "broken.deb"
    deb.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.deb: .*") as caught:
        unpack(deb, tmp_path / "unpacked")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [deb]
    if content.startswith(AR_MAGIC):
        with pytest.raises(UserError, match="dpkg -x"):
            unpack_with_python(deb, tmp_path / "unpacked")


def test_a_wrong_root_names_the_cure(tmp_path: Path) -> None:
    (tmp_path / "stamps.zip").write_bytes(b"PK")
    for root in (tmp_path / "absent", tmp_path, tmp_path / "stamps.zip"):
        with pytest.raises(UserError, match=r"make stamps.*--root") as caught:
            read(root)
        assert "\n" not in str(caught.value)


def test_only_held_out_captions_may_share_an_image_over_splits(package: Path) -> None:
    captions = read(package).captions
    validate_captions(captions, "stamps", held_out="captions")
    with pytest.raises(UserError, match="two splits"):
        validate_captions(captions, "stamps")


def ar(*members: tuple[str, int, bytes]) -> bytes:
    """An ar archive whose members may tell a size that is not theirs."""
    return AR_MAGIC + b"".join(
        f"{name:<48}{told:<10}`\n".encode() + held + b"\n" * (len(held) % 2) for name, told, held in members
    )


def header(name: str, size: int) -> bytes:
    """Of a file in a tar archive."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("unpacking", [unpack, unpack_with_python])
@pytest.mark.parametrize(
    "content",
    [
        ar(("debian-binary", -60, b"")),
        ar(("debian-binary", 4, b"2.0\n"), ("control.tar", -4, b""), ("data.tar", 0, b"")),
        ar(("debian-binary", 4, b"2.0\n"), ("control.tar", 0, b""), ("data.tar", 512, header("./a", 1 << 50))),
    ],
    ids=["backwards", "backwards to a member", "a petabyte"],
)
def test_a_crafted_deb_ends_in_a_line(tmp_path: Path, content: bytes, unpacking: Callable[[Path, Path], None]) -> None:
    (tmp_path / "crafted.deb").write_bytes(content)
    with pytest.raises(UserError, match=r"crafted\.deb: cannot unpack it") as caught:
        unpacking(tmp_path / "crafted.deb", tmp_path / "unpacked")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb reads the package")
def test_links_of_a_deb_are_not_made(tmp_path: Path, package: Path) -> None:
    (package / "usr").mkdir(parents=True, exist_ok=True)
    (package / "usr" / "out").symlink_to("/etc")
    build_deb(package, tmp_path / "stamps.deb")
    unpack(tmp_path / "stamps.deb", tmp_path / "unpacked")
    assert (tmp_path / "unpacked" / "usr").is_dir() and not (tmp_path / "unpacked" / "usr" / "out").is_symlink()
