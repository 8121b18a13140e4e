"""The gallery of a small run: what it tells is recall's and the encoder's, and its page holds all that it shows."""

import re
import shutil
from pathlib import Path

import pytest
import torch

from sia.data.prepared_corpus import PreparedCorpus
from sia.embedding import image_of_caption
from sia.errors import UserError
from sia.gallery.clips import Clip, Picture
from sia.gallery.finds import Gallery, gallery_of
from sia.gallery.page import section_of
from sia.gallery.strip import HEIGHT, WIDTH, attention_of
from sia.inference.trained_pair import TrainedPair
from sia.recall import ranks
from sia.run.folder import RunFolder


@pytest.fixture(scope="module")
def prepared(corpus: Path) -> PreparedCorpus:
    return PreparedCorpus.open(corpus)


@pytest.fixture(scope="module")
def gallery(run: RunFolder) -> Gallery:
    return gallery_of(run)


def test_ranks_are_those_of_recall(gallery: Gallery, prepared: PreparedCorpus, pair: TrainedPair, raw: Path) -> None:
    spoken = prepared.split("test")
    shown = prepared.image_pool(spoken)
    names = [prepared.captions[index].utterance_id for index in spoken]
    images = [prepared.captions[index].image_id for index in shown]
    speech = pair.embed_speeches([raw / f"{name}.wav" for name in names])
    pictures = pair.embed_images([raw / f"{name}.png" for name in images])
    ranked = ranks(speech, pictures, image_of_caption(prepared, spoken, shown))
    for examples, rank_of, known in (
        (gallery.speech_to_image, ranked.of_images, names),
        (gallery.image_to_speech, ranked.of_captions, images),
    ):
        assert [one.which for one in examples] == ["best", "median", "worst"]
        told = [one.rank for one in examples]
        assert told == [int(rank_of[known.index(one.query.name)]) for one in examples]
        assert told == [
            int(value) for value in (rank_of.min(), rank_of.sort().values[(len(known) - 1) // 2], rank_of.max())
        ]
        assert told == [next(found.rank for found in one.found if found.right) for one in examples]
    assert (gallery.num_captions, gallery.num_images) == (32, 16)


def test_a_query_is_drawn_over_the_encoders_own_attention(
    gallery: Gallery, pair: TrainedPair, prepared: PreparedCorpus
) -> None:
    query = gallery.speech_to_image[0].query
    assert isinstance(query, Clip) and query.strip is not None
    index = next(i for i, one in enumerate(prepared.captions) if one.utterance_id == query.name)
    frames = torch.from_numpy(prepared.frames(index))
    weights = pair.attention(frames)  # [S, D]
    states, _ = pair.network.speech.states(pair.standardised(frames)[None], torch.tensor([len(frames)]), 1)
    summed = (weights * states[0]).sum(dim=0)
    torch.testing.assert_close(summed / summed.norm(), pair.embed_frames(frames), rtol=0, atol=1e-6)
    attention = attention_of(pair, frames)
    assert attention.weights.sum() == pytest.approx(1.0, abs=1e-5)
    assert attention.centres[:2].tolist() == pytest.approx([0.03125, 0.05625]), "of frames 0 to 5, and 2 to 7"
    heights = [float(y) for _, y in re.findall(r"([\d.]+) ([\d.]+)", query.strip.attention)][1:-1]
    expected = HEIGHT * (1 - attention.weights / max(attention.weights.max(), 2 / len(attention.weights)))
    assert heights == pytest.approx(expected.tolist(), abs=0.06)
    low, high = query.strip.words
    within = attention.centres < 0.06
    assert (low.text, low.start, low.share) == ("<i>low", 0.0, pytest.approx(attention.weights[within].sum()))
    assert high.start == pytest.approx(low.width) == pytest.approx(100 * 0.06 / query.strip.seconds, abs=0.01)
    assert max(float(x) for x in re.findall(r"([\d.]+) ", query.strip.wave)) <= WIDTH


def test_the_page_escapes_what_comes_from_data_and_names_no_other_place(gallery: Gallery) -> None:
    page = section_of(gallery)
    assert "<script>alert" not in page and "<i>low" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; test-" in page and "&lt;i&gt;low" in page
    assert "http" not in page and "url(" not in page and "@import" not in page
    assert set(re.findall(r'(?:src|href)="([a-z]+:[a-z]+/[a-z]+);', page)) == {"data:audio/mpeg", "data:image/webp"}
    assert page.count("<audio") == 3 + sum(len(one.found) for one in gallery.image_to_speech)
    assert page.count('<li class="right">') == sum(one.right for e in all_of(gallery) for one in e.found)
    assert not re.search(r"<img(?![^>]* alt=\"[^\"]+\")", page)


def all_of(gallery: Gallery) -> list:
    return [*gallery.speech_to_image, *gallery.image_to_speech]


def test_media_stay_within_their_size(run: RunFolder) -> None:
    small = gallery_of(run, limit_mb=0.02)
    media = [one for example in all_of(small) for one in (example.query, *(found.shown for found in example.found))]
    assert 0 < sum(len(one.source) for one in media) <= 20_000
    left_out = [one for one in media if not one.source]
    assert left_out and all(one.missing == "left out: the media of a page may have 0.02 MB in all" for one in left_out)
    assert len(section_of(small)) < len(section_of(gallery_of(run)))


def test_where_no_recording_is_left_the_page_says_so(run: RunFolder, corpus: Path, raw: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    raw.rename(moved)
    try:
        gone = gallery_of(run)
    finally:
        moved.rename(raw)
    query = gone.speech_to_image[0].query
    assert isinstance(query, Clip) and not query.source and query.missing.endswith(".wav: no such file any more")
    assert query.strip is not None and not query.strip.wave and query.strip.attention
    assert all(isinstance(one.shown, Picture) and one.shown.source for one in gone.speech_to_image[0].found)
    assert "No sound: " in section_of(gone)


def test_another_corpus_in_its_place_is_refused(run: RunFolder, corpus: Path, tmp_path: Path) -> None:
    other = RunFolder(Path(shutil.copytree(run.path, tmp_path / "study" / run.name)))
    other.corpus.write_text(run.corpus.read_text().replace('"identity": "', '"identity": "0'))
    with pytest.raises(UserError):
        gallery_of(other)
