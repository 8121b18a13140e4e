"""The page that searches, on a port of this machine: who may ask it, what it refuses, and how it ends."""

import http.client
import io
import re
import signal
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import soundfile
from desk import Desk, wait_until
from PIL import Image

from sia.errors import UserError
from sia.gallery import serve
from sia.gallery.page import rendered
from sia.gallery.searched import is_of_embedded_corpus, offers_of
from sia.inference.search import collections_of
from sia.inference.trained_pair import TrainedPair
from sia.run.folder import RunFolder

SECRET = "secret"  # of the page of conftest.py
Answer = tuple[int, str, dict[str, str]]


def ask(port: int, path: str, body: bytes | None = None, **headers: str) -> Answer:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())


def test_the_page_asks_for_both_and_runs_its_own_script_alone(port: int) -> None:
    status, page, headers = ask(port, f"/{SECRET}/")
    assert status == 200 and "&lt;b&gt;pair" in page and "Record" in page and "Try a recording" in page
    policy = headers["content-security-policy"]
    nonce = re.findall(r"script-src 'nonce-([\w-]+)'", policy)[0]
    assert policy.startswith("default-src 'none'") and page.count("<script") == page.count(f'nonce="{nonce}"') == 2
    assert "http:" not in page and "https:" not in page and nonce not in ask(port, f"/{SECRET}/")[1]


def test_a_recording_finds_images_and_an_image_recordings(
    port: int, pair: TrainedPair, raw: Path, corpus: Path
) -> None:
    for kind, file in (("speech", raw / "test-1-2-0.wav"), ("image", raw / "test-1-2.png")):
        status, found, _ = ask(port, f"/{SECRET}/{kind}", file.read_bytes(), X_Name="%3Ci%3Emine")
        assert status == 200 and "&lt;i&gt;mine" in found and "<script>" not in found
        collection = collections_of(pair, corpus, corpus, "test")[kind]
        embedded = pair.embed_speech(file) if kind == "speech" else pair.embed_image(file)
        expected = [hit.name for hit in collection.nearest(embedded, 3)]
        assert re.findall(r'class="name">([^<]+)<', found) == expected
        assert found.count("data:image/webp" if kind == "speech" else "data:audio/mpeg") == 3


def test_an_example_is_a_query_of_the_corpus_whose_right_answer_is_framed(
    port: int, pair: TrainedPair, raw: Path
) -> None:
    page = ask(port, f"/{SECRET}/")[1]
    framed = 0
    for kind in ("speech", "image"):
        examples = re.findall(rf'data-path="({kind}/\d)" data-name="([^"]+)"', page)
        assert [path for path, _ in examples] == [f"{kind}/{number}" for number in range(4)]
        for path, name in examples:
            status, found, _ = ask(port, f"/{SECRET}/{path}", b"")
            assert status == 200 and f'<h2 tabindex="-1">{name}<' in found
            answers = re.findall(r'<li( class="right")?>.*?class="name">([^<]+)<', found, re.DOTALL)
            of_one_image = ["-".join(one.split("-")[:3]) == "-".join(name.split("-")[:3]) for _, one in answers]
            assert [bool(right) for right, _ in answers] == of_one_image
            framed += any(of_one_image)
    assert framed, "none of these pairs finds anything"
    assert ask(port, f"/{SECRET}/speech/4", b"")[:2] == (404, "there is no example 4; load the page anew")
    assert ask(port, f"/{SECRET}/speech/1", b"", Origin="null")[0] == 403


def test_the_page_says_what_was_measured_and_what_the_embedded_corpus_is_good_for(
    pair: TrainedPair, raw: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = " ".join(ask(port, f"/{SECRET}/")[1].split())
    recall = pair.settings.provenance["test"]["speech_to_image/R_at_10"]
    assert f"finds images</b>, among 16 of tiny. Test R@10 among 16: {100 * recall:.0f} %, chance 62.5 %." in page
    assert "espeak" not in page
    monkeypatch.setitem(pair.settings.corpus, "name", "scenes")
    assert is_of_embedded_corpus(pair)
    folders = collections_of(pair, raw, raw, served=True)
    own = {offer.kind: offer for offer in offers_of(pair, folders)}
    assert own["speech"].examples[0].name.endswith(".wav") and own["image"].pictures[0].source.startswith("data:image")
    facts = {"pair": "it", "embedded": True, "endings": {"speech": [], "image": []}, "nonce": "1"}
    assert "Your own voice finds no more than chance" in " ".join(
        rendered("search.html", offers=[own["speech"]], **facts).split()
    )


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (f"/{SECRET}/", {"Host": "attacker.example"}, 400),
        ("/", {}, 404),
        ("/wrong/", {}, 404),
        (f"/{SECRET}/../../etc/passwd", {}, 404),
        (f"/{SECRET}/%2e%2e%2fcaptions.jsonl", {}, 404),
        ("/docs", {}, 404),
        ("/openapi.json", {}, 404),
    ],
)
def test_another_address_is_refused(port: int, path: str, headers: dict[str, str], status: int) -> None:
    assert ask(port, path, **headers)[0] == status


@pytest.mark.parametrize(
    "header", [{"Origin": "http://attacker.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}]
)
def test_another_sites_page_may_not_ask(port: int, raw: Path, header: dict[str, str]) -> None:
    content = (raw / "test-1-2-0.wav").read_bytes()
    status, said, _ = ask(port, f"/{SECRET}/speech", content, **header)
    assert (status, said) == (403, "another site's page may not search here")
    assert (
        ask(port, f"/{SECRET}/speech", content, Origin=f"http://127.0.0.1:{port}", Sec_Fetch_Site="same-origin")[0]
        == 200
    )


def too_short() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(300), 16000, format="WAV")
    return file.getvalue()


def too_long() -> bytes:
    """Two minutes of silence, which take some kilobytes."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(120 * 16000), 16000, format="FLAC")
    return file.getvalue()


def cut_off() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "PNG")
    return file.getvalue()[:60]


@pytest.mark.parametrize(
    ("kind", "content", "status", "said"),
    [
        ("speech", b"no sound", 422, "mine: unreadable speech ("),
        ("speech", b"", 422, "an empty file: send another"),
        ("speech", too_short(), 422, "mine: "),
        ("speech", too_long(), 422, "mine: longer than 102.4 s; cut it into captions"),
        ("image", b"no image", 422, "mine: unreadable image (it is none that can be read); mend or remove it"),
        ("image", cut_off(), 422, "mine: unreadable image ("),
        ("video", b"some", 404, "nothing here is searched by video; start it with --images DIR"),
    ],
)
def test_what_cannot_be_read_is_one_line(port: int, kind: str, content: bytes, status: int, said: str) -> None:
    answered, line, _ = ask(port, f"/{SECRET}/{kind}", content, X_Name="mine")
    assert answered == status and line.startswith(said) and "\n" not in line and "/tmp" not in line


def test_an_upload_has_a_largest_size(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "LARGEST_UPLOAD", 2_000_000)
    assert ask(port, f"/{SECRET}/speech", bytes(2_000_001))[:2] == (413, "larger than 2 MB: send a shorter recording")


def test_a_busy_port_is_one_line_with_the_cure() -> None:
    with closing(serve.listening(0)) as bound:
        port = bound.getsockname()[1]
        with pytest.raises(UserError, match=rf"port {port}: .*in use; give another with --port N"):
            serve.listening(port)
    with pytest.raises(UserError, match="port 70000: no port; give another"):
        serve.listening(70000)


@pytest.mark.slow
def test_the_command_tells_its_address_and_a_ctrl_c_ends_it(run: RunFolder, corpus: Path, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "desk")
    process = desk.start("search.py", run.path, "--serve", "--images", corpus, "--port", "0")
    found = wait_until(lambda: re.search(r"open http://127\.0\.0\.1:(\d+)(/\S+/) ", desk.log), 60, "the address")
    assert ask(int(found[1]), found[2])[0] == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0 and desk.log.endswith("ended\n") and "Traceback" not in desk.log
