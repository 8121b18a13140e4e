"""How far a wait has come: lines where no terminal is, nothing where a program reads them."""

import pytest

from sia.progress import tracked, waiting


def test_lines_tell_what_was_taken_and_what_is_news(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked("ab", "shards", 3, every_seconds=0, done=1)) == ["a", "b"]
    with waiting("pair 1 of 2", every_seconds=0) as tell:
        for text in ("step 1", "step 1", "step 2"):
            tell(text)
    told = ["shards: 2 of 3", "shards: 3 of 3", "pair 1 of 2: step 1", "pair 1 of 2: step 2"]
    assert capsys.readouterr().out.splitlines() == told


def test_a_short_wait_says_nothing_and_neither_does_a_quiet_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(tracked("ab", "shards", 2)) == list(tracked("ab", "shards", 2, every_seconds=0, quiet=True))
    with waiting("pair", every_seconds=0, quiet=True) as tell:
        tell("step 1")
    assert capsys.readouterr().out == ""


def test_a_terminal_shows_one_line_that_goes_in_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    assert list(tracked("ab", "shards", 2)) == ["a", "b"]
    with waiting("pair 1 of 2") as tell:
        tell("step 1 of 7, 2.7 GB")
    shown = capsys.readouterr().out
    assert "shards" in shown and "2/2" in shown and "step 1 of 7, 2.7 GB" in shown and "\x1b[2K" in shown
