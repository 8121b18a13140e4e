"""The contact sheet of a query, as the command writes it."""

import re
from pathlib import Path

from desk import Desk

from sia.inference.search import captions_of, images_of
from sia.inference.trained_pair import TrainedPair
from sia.run.folder import RunFolder


def test_a_spoken_query_and_the_images_that_it_finds_in_one_file(
    run: RunFolder, pair: TrainedPair, raw: Path, tmp_path: Path
) -> None:
    desk = Desk(tmp_path / "desk")
    query = raw / "test-0-1-0.wav"
    flags = ("--images", raw, "--top", "4", "--html", "found.html")
    done = desk.call("search.py", run.path, "--speech", query, *flags)
    assert done.returncode == 0 and done.stdout == "found.html\n", done.stderr
    page = (desk.folder / "found.html").read_text()
    expected = images_of(pair, raw).nearest(pair.embed_speech(query), 4)
    assert re.findall(r'class="name">([^<]+)<', page) == [hit.name for hit in expected]
    assert page.count("data:image/webp") == 4 and page.count("data:audio/mpeg") == 1
    assert 'class="attention"' in page and "&lt;i&gt;low" in page and "http" not in page


def test_an_image_finds_the_recordings_of_a_corpus_with_what_they_say(
    run: RunFolder, pair: TrainedPair, raw: Path, corpus: Path, tmp_path: Path
) -> None:
    desk = Desk(tmp_path / "desk")
    query = raw / "test-2-3.png"
    flags = ("--captions", corpus, "--split", "test", "--html", "found.html")
    assert desk.call("search.py", run.path, "--image", query, *flags).returncode == 0
    page = (desk.folder / "found.html").read_text()
    expected = captions_of(pair, corpus, "test").nearest(pair.embed_image(query), 10)
    assert re.findall(r"<q>([^<]+)</q>", page) == [
        hit.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for hit in expected
    ]
    assert page.count("<audio") == 10 and "<script>alert" not in page
