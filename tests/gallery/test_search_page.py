"""The page that searches, in a browser: what a person clicks, chooses and records."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import browser
import pytest
from conftest import SECRET

pytestmark = pytest.mark.slow
SAID = "document.getElementById('state').textContent"
TITLE = "document.querySelector('#answer h2')?.textContent"
CLICK = "document.querySelector('{}').click()"
MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Page]:
    with browser.page(tmp_path_factory.mktemp("profile"), *MICROPHONE) as page:
        yield page


@pytest.fixture
def page(chromium: browser.Page, port: int) -> browser.Page:
    chromium.open(f"http://127.0.0.1:{port}/{SECRET}/")
    return chromium


def test_an_example_is_found_and_read_from_there(page: browser.Page) -> None:
    page.js(CLICK.format('[data-path="speech/1"]'))
    page.until(f"{TITLE} == document.querySelector('[data-path=\"speech/1\"]').dataset.name")
    assert page.js("document.activeElement == document.querySelector('#answer h2')")
    assert page.js("document.querySelectorAll('#answer .found img').length") == 3
    assert page.js(SAID) == "" and not page.js("document.body.classList.contains('busy')")


def test_an_answer_that_comes_too_late_is_not_shown(page: browser.Page) -> None:
    """The first one is held back, whatever becomes of its request."""
    page.js("""window.kept = fetch; window.late = null; window.fetch = (path, how) => {
        const sent = kept(path, {...how, signal: undefined});
        if (late) return sent;
        return window.late = sent.then((got) => new Promise((go) => setTimeout(() => go(got), 2000)));
    }; undefined""")
    page.js(CLICK.format('[data-path="speech/0"]'))
    assert page.js("document.body.classList.contains('busy')") and page.js(SAID).startswith("Searching by")
    page.js(CLICK.format('[data-path="image/2"]'))
    second = page.js("document.querySelector('[data-path=\"image/2\"]').dataset.name")
    page.until(f"{TITLE} == '{second}'")
    page.js("late.then(() => new Promise((go) => setTimeout(go, 300))).then(() => 0)")
    assert page.js(TITLE) == second


def test_a_sound_that_the_server_cannot_read_is_decoded_here(page: browser.Page, raw: Path, tmp_path: Path) -> None:
    """A recorder's name stands for its format: what is sent is a WAV, not these bytes."""
    page.js(
        "window.kept = fetch; window.fetch = (path, how) => (window.sent = how.body.type, kept(path, how)); undefined"
    )
    page.choose("#file", shutil.copy(raw / "test-0-1-0.wav", tmp_path / "memo.m4a"))
    page.until(f"{TITLE} == 'memo.m4a'")
    assert page.js("sent") == "audio/wav"
    (tmp_path / "noise.m4a").write_bytes(b"no sound" * 50)
    page.choose("#file", tmp_path / "noise.m4a")
    page.until(f"{SAID}.startsWith('noise.m4a: no sound that this browser can decode; give')")
    page.choose("#file", shutil.copy(raw / "test-1-2.png", tmp_path / "photo.PNG"))
    page.until(f"{TITLE} == 'photo.PNG'")


def test_a_recording_has_a_clock_and_ends_by_itself(page: browser.Page) -> None:
    page.js(CLICK.format("#record"))
    page.until("document.getElementById('clock').textContent.startsWith('0:01 of 1:40')")
    page.js("window.now = Date.now; Date.now = () => now() + 100000; undefined")
    page.until(f"{TITLE} == 'Your recording'")
    assert page.js("document.getElementById('record').textContent") == "Record"
    assert page.js("document.getElementById('clock').textContent") == ""


def test_where_there_is_no_microphone_a_sentence_says_so(page: browser.Page) -> None:
    page.js("Object.defineProperty(navigator, 'mediaDevices', {value: undefined, configurable: true}); undefined")
    page.js(CLICK.format("#record"))
    page.until(f"{SAID}.startsWith('No recording: browsers give the microphone only to pages of https, 127.0.0.1')")
