"""The report in its three forms: terminal, document and page."""

import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from experiments.cli.tables import as_markdown
from experiments.report import __main__ as report
from experiments.report.answers import columns_of
from experiments.report.claims import claims
from experiments.report.matches import shown_matches
from experiments.report.paired import TEST_ERROR
from experiments.report.planned_contrasts import Contrast, cells_of, outcomes
from experiments.report.runs_table import table_of
from experiments.report.study_tables import error_table
from experiments.report.summary import sentences
from experiments.runner.finished_runs import find_runs
from tests.experiments.written_runs import only_study, write_run, write_study

PICTURES = 9  # differences, error by gradients, by epochs and by updates, loss, two norms, cosine, batch size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_study(tmp_path)


class Page(HTMLParser):
    """The text of a page, and the resources that it would request."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.asked: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.asked += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("data:", "#"))]
        assert tag not in ("script", "link", "iframe")

    def handle_data(self, data: str) -> None:
        if self._inside in ("th", "td"):
            self.cells.append(data)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["report", *arguments])
    report.main()


@pytest.mark.usefixtures("drawn_pictures")
def test_the_report_is_a_table_a_document_and_a_self_contained_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, str(folder))
    printed = capsys.readouterr().out
    assert "5.40 ± 0.62" in printed
    assert (
        "a growing batch compared with the paper's constant batch, at equal epochs: lower with SGD (−1.00 points, "
        in printed
    )
    page = Page((folder / "report" / "report.html").read_text(encoding="utf-8"))
    assert page.asked == []
    assert "5.40 ± 0.62" in page.cells
    assert len(page.images) == PICTURES
    for image in page.images:
        assert str(image["src"]).startswith("data:image/svg+xml;base64,")
        assert image["alt"]
    document = (folder / "report" / "report.md").read_text(encoding="utf-8")
    study = only_study(folder)
    (match,) = shown_matches(study)
    assert as_markdown(error_table(match, study).rows) in document
    pictures = re.findall(r"!\[.*\]\((.*)\)", document)
    assert len(pictures) == PICTURES
    for picture in pictures:
        drawn = (folder / "report" / picture).read_bytes()
        assert drawn.startswith(b"\x89PNG")
        assert len(drawn) < 60_000


def test_the_same_runs_give_the_same_report(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = []
    for _ in range(2):
        output = tmp_path_factory.mktemp("report")
        call(monkeypatch, str(folder), "--output", str(output))
        pages.append((output / "report.html").read_text(encoding="utf-8").partition("<footer>")[0])
    assert pages[0] == pages[1]


def test_the_page_begins_with_the_findings_and_their_limits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, str(folder))
    text = (folder / "report" / "report.html").read_text(encoding="utf-8")
    order = ["<h1", 'class="headline"', "Differences in test error", "What this does not show", "<figure>", "<details>"]
    places = [text.index(word) for word in [*order, "How this report was made"]]
    assert places == sorted(places)
    for word in ("12 runs of SGD and GSAM; 3 seeds: 0 to 2.", "python -m experiments.report", "training time", "jax"):
        assert word in text


def test_a_report_is_rebuilt_from_its_table_and_keeps_the_curves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, str(folder))
    output, pictures = folder / "report", folder / "report" / "pictures" / "small_resnet-on-digits"
    before = (output / "report.md").read_text(encoding="utf-8")
    curve = (pictures / "test_error.png").read_bytes()
    for run in folder.glob("*-*-*"):
        shutil.rmtree(run)
    (pictures / "differences.png").unlink()
    call(monkeypatch, "--again", str(output / "runs.csv"))
    after = (output / "report.md").read_text(encoding="utf-8")
    parts = [text.partition("## How this report was made")[0].splitlines() for text in (before, after)]
    rows = [[line for line in part if line.startswith(("| ", "A growing"))] for part in parts]
    assert rows[0] == rows[1]
    assert len(rows[0]) > 30
    assert (pictures / "test_error.png").read_bytes() == curve
    assert (pictures / "differences.png").exists()
    assert re.search(r"Drawn with commit \S+\.\n\n!\[Test error over epochs", after)
    assert after.index("![Test error over epochs") < after.index("## Details")
    assert "| tables made again |" in after


def test_planned_contrasts_are_the_primary_outcome(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "contrasts.toml"
    path.write_text(
        '[[contrast]]\nquestion = "Does growth help GSAM?"\ncell = "gsam-increasing"\ncontrols = ["gsam-constant"]\n'
    )
    call(monkeypatch, str(folder), "--contrasts", str(path))
    text = (folder / "report" / "report.md").read_text(encoding="utf-8")
    words = "Planned: Does growth help GSAM? Lower error, −2.83 points ("
    assert text.index(words) < text.index("## Planned contrasts: the primary outcome")
    assert ": GSAM, increasing (+B) − GSAM, constant.\n" in text
    assert "| Does growth help GSAM? | GSAM, increasing (+B) | GSAM, constant |" in text
    assert "\n\nExploratory: test error, a growing batch compared with the paper's constant batch" in text
    assert "Inconclusive: planned" not in text
    assert "## Differences in test error (exploratory)" in text
    assert "\nPlanned comparisons are repeated here, without the adjustment.\n\n| method |" in text
    path.unlink()
    call(monkeypatch, "--again", str(folder / "report" / "runs.csv"))
    assert words in (folder / "report" / "report.md").read_text(encoding="utf-8")


def test_an_inconclusive_contrast_is_explained_by_its_adjusted_p_value(tmp_path: Path) -> None:
    contrasts = [Contrast("Does growth help?", "sam-increasing", ("sam-constant",))] * 4
    for seed, gain in enumerate((0.02, 0.03, 0.045)):
        write_run(tmp_path / f"sam-constant-{seed}", 0.3, method="sam", batch_plan="4x128", seed=seed)
        write_run(tmp_path / f"sam-increasing-{seed}", 0.3 - gain, method="sam", batch_plan="2x64,2x256", seed=seed)
    study = only_study(tmp_path)
    one, four = (outcomes(contrasts[:count], cells_of(table_of(find_runs([tmp_path])))) for count in (1, 4))
    assert [each[0].verdict for each in (one, four)] == ["lower error", "inconclusive"]
    assert one[0].found is not None
    assert one[0].found.high < 0  # the interval is not adjusted
    columns = columns_of(claims(study))
    said = [" ".join(sentences(study, columns, [TEST_ERROR], planned)) for planned in (one, four)]
    assert ["Inconclusive: planned, the adjusted p-value is 0.05 or more;" in each for each in said] == [False, True]


def test_contrasts_are_shown_in_the_part_that_has_their_cells(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed, noise in enumerate((0.0, 0.01, 0.005)):
        for name, plan, error in (("constant", "4x128", 0.3), ("increasing", "2x64,2x256", 0.2)):
            settings: dict[str, Any] = {"method": "sam", "batch_plan": plan, "seed": seed, "label_noise": 0.2}
            write_run(folder / f"sam-{name}-{seed}", error + noise * (name == "increasing"), **settings)
    path = folder / "contrasts.toml"
    path.write_text('[[contrast]]\nquestion = "Why?"\ncell = "sam-increasing"\ncontrols = ["sam-constant"]\n')
    call(monkeypatch, str(folder), "--contrasts", str(path))
    first, second = (folder / "report" / "report.md").read_text(encoding="utf-8").split(": label noise 0.2\n")
    assert "Planned: Why?" in second
    assert "Planned" not in first
    assert "No comparison was planned before the first run." in first


@pytest.mark.parametrize("option", ["output", "chosen", "contrasts"])
def test_options_that_a_rebuilt_report_ignores_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit):
        call(monkeypatch, "--again", str(folder / "runs.csv"), f"--{option}", "rho")
    assert f"{option} is" in (said := capsys.readouterr().err)
    assert "omit it with again" in said


def test_a_report_from_a_coloured_terminal_is_plain_and_names_are_escaped(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = folder.rename(folder.with_name("a [bold]name | b"))
    monkeypatch.setenv("FORCE_COLOR", "1")
    call(monkeypatch, str(strange), "--output", str(folder.with_name("report of it")))
    document = (folder.with_name("report of it") / "report.md").read_text(encoding="utf-8")
    assert "\x1b" not in document
    columns = {line.count(" | ") for line in document.splitlines() if line.startswith("| SGD")}
    assert columns == {1, 2, 4, 7}  # the tables whose first column is a method
    assert "| sgd-constant-0 |" in document


def test_a_report_that_cannot_be_written_ends_in_an_error_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "report" / "report.md").mkdir(parents=True)
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, str(folder))
    assert stop.value.code == 2
    assert "report.md cannot be written" in capsys.readouterr().err


def test_a_diverged_run_and_single_seeds_are_reported_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "sgd", 0.9, loss=None, method="sgd", batch_plan="4x128")
    call(monkeypatch, str(tmp_path))
    printed = capsys.readouterr().out
    assert "diverged: 1" in printed
    assert "An answer needs at least 3 seeds, and this study has 1." in printed


def damage(folder: Path, name: str, content: str = '{"half') -> Path:
    (folder / "sgd-constant-0" / name).write_text(content)
    return folder


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (lambda folder: folder / "nowhere", "is not a folder"),
        (lambda folder: folder / "report.md", "is not a folder"),
        (lambda folder: write_run(folder / "x.unfinished", 0.1), "no finished run"),
        (lambda folder: damage(folder, "config.json"), "damaged"),
        (lambda folder: damage(folder, "result.json"), "damaged"),
        (lambda folder: damage(folder, "metrics.jsonl"), "damaged"),
        (lambda folder: damage(folder, "result.json", '{"updates": 16}'), "damaged"),
        (lambda folder: write_run(folder / "twin", 0.07, method="sgd", batch_plan="4x128").parent, "different results"),
    ],
)
def test_unreadable_runs_end_in_an_error_message(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: Any, word: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, str(given(folder)))
    assert stop.value.code == 2
    assert word in capsys.readouterr().err
    assert not (folder / "report").exists()


def test_a_call_without_a_folder_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch)
    assert stop.value.code == 2
    assert "runs is empty" in capsys.readouterr().err
