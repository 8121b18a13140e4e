"""The page and the LaTeX tables: they hold all they need, and what comes from data stays text."""

import re
import shutil
from pathlib import Path

import pytest
from desk import Desk
from test_tables import summary
from written_runs import experiment, finish_run

from sia.data.corpus_record import Description
from sia.report.groups import grouped
from sia.report.page import held, latex, latex_escaped, varied
from sia.report.write import write_report
from sia.run.folder import study_file
from sia.run.records import Study, TrainedOn


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("SIA_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_the_page_needs_no_other_file_and_asks_the_studys_question(runs):
    finish_run(runs, "size", experiment())
    Study(question="Is <b>it</b> so?", grid="sweeps/size.yaml", changes=["margin=0.5"]).write(study_file("size"))
    page = write_report("size").read_text()
    assert "<h1>Is &lt;b&gt;it&lt;/b&gt; so?</h1>" in page and "margin=0.5" in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"|@import|url\((?!#)|https?:', page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert ids and len(ids) == len(set(ids))
    assert 'src="http' not in page and "{{" not in page


def test_the_page_shows_the_corpus_and_what_guessing_reaches(runs, tmp_path, corpus):
    corpus = shutil.copytree(corpus, tmp_path / "corpus")
    run = finish_run(runs, "size", experiment(**{"data.folder": str(corpus)}))
    described = Description.read(corpus / "corpus.json").model_dump(exclude={"checksums"})
    TrainedOn(**described, folder=str(corpus)).write(run.corpus)
    page = write_report("size").read_text()
    assert page.count("data:image/jpeg;base64,") == 4 and " minutes of speech" in page
    assert (
        "Guessing reaches 25 % and" in page
        and "tested on 200 captions and 40 images" in page
        and "not at hand" not in page
    )
    corpus.rename(tmp_path / "gone")
    gone = write_report("size").read_text()
    assert " minutes of speech" in gone and "not at hand" in gone and "data:image" not in gone


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50 % & a_b #1 {x} $", r"50 \% \& a\_b \#1 \{x\} \$"),
        ("a\\b~c^d", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"),
        ("speech→image 1 ± 2 –", r"speech$\to$image 1 $\pm$ 2 --"),
    ],
)
def test_latex_is_escaped(text, escaped):
    assert latex_escaped(text) == escaped


def test_a_latex_table_needs_booktabs_alone_and_is_cut_where_a_page_ends():
    rows = [{"Run": f"a_{number}", "R@10": "50.0 ± 1"} for number in range(90)]
    text = latex(rows)
    assert text.count(r"\begin{tabular}{@{}lr@{}}") == text.count(r"\bottomrule") == 4
    assert r"a\_89 & 50.0 $\pm$ 1 \\" in text and text.isascii()


def test_what_was_varied_is_told_in_order_and_what_was_held_beside_it():
    rates = [
        summary(layers=2 + number % 2, **{"optimizer.learning_rate": 1e-3 * (20 - number)}) for number in range(20)
    ]
    groups = grouped([*rates, summary(seed=1, **{"optimizer.learning_rate": 0.02})])
    told = {
        "model.gru_layers": "2 · 3",
        "optimizer.learning_rate": "20 values, 0.001 to 0.02",
        "training.seed": "0 · 1",
    }
    assert varied(groups) == told
    assert held(groups)["loss.margin"] == "0.2" and not held(groups).keys() & told.keys()


def test_every_template_is_installed():
    declared = (Path(__file__).parents[2] / "setup.cfg").read_text()
    assert "sia.report = templates/*" in declared and summary().pair == "DG3A1024"


def test_a_gallery_that_cannot_be_had_is_told_and_left_out(runs, tmp_path):
    finish_run(runs, "size", experiment())
    done = Desk(tmp_path).call("report.py", "size")
    assert done.returncode == 0 and done.stderr.startswith("no gallery: "), "its checkpoint was never written"
    assert "<audio" not in Path(done.stdout.strip()).read_text()
    assert Desk(tmp_path).call("report.py", "size", "--no-gallery").stderr == ""
