"""The report as a browser shows it, on a phone and on a desk."""

from pathlib import Path

import browser
import pytest
from markupsafe import Markup
from written_runs import experiment, finish_run

from sia.gallery.finds import gallery_of
from sia.gallery.page import section_of
from sia.report.write import write_report
from sia.run.folder import RunFolder


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium is installed")
def test_a_report_fits_its_window_and_asks_for_nothing(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    for margin in range(9):
        config = experiment(**{"loss.margin": margin / 10, "model.gru_layers": 1 + margin % 3})
        finish_run(tmp_path / "runs", "a-study-of-a-long-name" * 3, config)
    page = write_report("a-study-of-a-long-name" * 3, gallery=Markup(section_of(gallery_of(run))))
    assert "<audio" in page.read_text()
    with browser.chromium(tmp_path / "profile") as opened:
        for width in (390, 1280):
            assert opened.open(page, width) == (0, [], []), width
        # What it would have told.
        page.write_text(
            '<p style="width: 2000px">x<script>nothing.at.all()</script><img src="http://127.0.0.1:65000/x">'
        )
        overflow, faults, requests = opened.open(page, 390)
        assert overflow > 0 and "nothing" in "".join(faults) and requests == ["http://127.0.0.1:65000/x"]
