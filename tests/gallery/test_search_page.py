"""The page that searches, in a browser: what a person clicks, chooses and records."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest

SECRET = "secret"  # of the page of conftest.py
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="there is no Chromium here; apt-get install chromium"),
]
SAID = "document.getElementById('state').textContent"
TITLE = "document.querySelector('#answer h2')?.textContent"
CLICK = "document.querySelector('{}').click()"
MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    with browser.chromium(tmp_path_factory.mktemp("chromium") / "profile", *MICROPHONE) as one:
        yield one


@pytest.fixture
def page(chromium: browser.Browser, port: int) -> browser.Browser:
    """On a phone it is no wider than that."""
    opened = chromium.open(f"http://127.0.0.1:{port}/{SECRET}/", 390)
    assert opened.overflow == 0 and not opened.faults
    return chromium


def test_an_example_is_found_and_read_from_there(page: browser.Browser) -> None:
    page.run(CLICK.format('[data-path="speech/1"]'))
    page.until(f"{TITLE} == document.querySelector('[data-path=\"speech/1\"]').dataset.name")
    assert page.run("document.activeElement == document.querySelector('#answer h2')")
    assert page.run("document.querySelectorAll('#answer .found img').length") == 3
    assert page.run(SAID) == "" and not page.run("document.body.classList.contains('busy')")


def test_an_answer_that_comes_too_late_is_not_shown(page: browser.Browser) -> None:
    """The first one is held back, whatever becomes of its request."""
    page.run("""window.kept = fetch; window.late = null; window.fetch = (path, how) => {
        const sent = kept(path, {...how, signal: undefined});
        if (late) return sent;
        return window.late = sent.then((got) => new Promise((go) => setTimeout(() => go(got), 2000)));
    }; undefined""")
    page.run(CLICK.format('[data-path="speech/0"]'))
    assert page.run("document.body.classList.contains('busy')") and page.run(SAID).startswith("Searching by")
    page.run(CLICK.format('[data-path="image/2"]'))
    second = page.run("document.querySelector('[data-path=\"image/2\"]').dataset.name")
    page.until(f"{TITLE} == '{second}'")
    page.run("late.then(() => new Promise((go) => setTimeout(go, 300))).then(() => 0)")
    assert page.run(TITLE) == second


def test_a_sound_that_the_server_cannot_read_is_decoded_here(page: browser.Browser, raw: Path, tmp_path: Path) -> None:
    """A recorder's name stands for its format: what is sent is a WAV, not these bytes."""
    page.run(
        "window.kept = fetch; window.fetch = (path, how) => (window.sent = how.body.type, kept(path, how)); undefined"
    )
    page.choose("#file", shutil.copy(raw / "test-0-1-0.wav", tmp_path / "memo.m4a"))
    page.until(f"{TITLE} == 'memo.m4a'")
    assert page.run("sent") == "audio/wav"
    (tmp_path / "noise.m4a").write_bytes(b"no sound" * 50)
    page.choose("#file", tmp_path / "noise.m4a")
    page.until(f"{SAID}.startsWith('noise.m4a: no sound that this browser can decode; give')")
    page.choose("#file", shutil.copy(raw / "test-1-2.png", tmp_path / "photo.PNG"))
    page.until(f"{TITLE} == 'photo.PNG'")


def test_a_recording_has_a_clock_and_ends_by_itself(page: browser.Browser) -> None:
    page.run(CLICK.format("#record"))
    page.until("document.getElementById('clock').textContent.startsWith('0:01 of 1:40')")
    page.run("window.now = Date.now; Date.now = () => now() + 100000; undefined")
    page.until(f"{TITLE} == 'Your recording'")
    assert page.run("document.getElementById('record').textContent") == "Record"
    assert page.run("document.getElementById('clock').textContent") == ""


def test_who_records_is_not_led_away_by_an_answer(page: browser.Browser) -> None:
    page.run("""window.kept = fetch; window.late = null; window.fetch = (path, how) =>
        window.late = kept(path, {...how, signal: undefined}).then(
            (got) => new Promise((go) => window.answer_it = () => go(got)));
    undefined""")
    page.run(CLICK.format('[data-path="speech/0"]'))
    page.until("window.answer_it")
    page.run(CLICK.format("#record"))
    page.until(f"{SAID} == 'Recording ...'")
    page.run("answer_it(); late.then(() => new Promise((go) => setTimeout(go, 300))).then(() => 0)")
    assert page.run(SAID) == "Recording ..." and page.run(TITLE) is None


def test_a_recorder_that_refuses_lets_the_microphone_go(page: browser.Browser) -> None:
    page.run("""window.tracks = []; const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        navigator.mediaDevices.getUserMedia = (what) =>
            given(what).then((one) => (tracks.push(...one.getTracks()), one));
        MediaRecorder.prototype.start = () => { throw new Error('it refuses'); }; undefined""")
    for _ in range(2):
        page.run("document.getElementById('state').textContent = ''")
        page.run(CLICK.format("#record"))
        page.until(f"{SAID} == 'No recording: it refuses.'")
    assert page.run("tracks.map((one) => one.readyState).join()") == "ended,ended"


def test_where_there_is_no_microphone_a_sentence_says_so(page: browser.Browser) -> None:
    page.run("Object.defineProperty(navigator, 'mediaDevices', {value: undefined, configurable: true}); undefined")
    page.run(CLICK.format("#record"))
    page.until(f"{SAID}.startsWith('No recording: browsers give the microphone only to pages of https, 127.0.0.1')")
