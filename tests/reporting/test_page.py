"""The report as a browser and a reader see it."""

import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from afrcnn.cli import main
from afrcnn.commands.report import report
from afrcnn.core.errors import UserError
from afrcnn.reporting.page import _read_log


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    return report(list(runs.values()), out=tmp_path_factory.mktemp("report") / "report.html")


class Addresses(HTMLParser):
    """All that a page could load or lead to."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [
            value for name, value in attrs if name in {"src", "href", "srcset", "action", "data", "poster"}
        ]


SORT = """
const table = document.querySelectorAll("table")[%d];
const read = () => [...table.tBodies[0].rows].map((row) => row.cells[%d].dataset.value ?? row.cells[%d].textContent);
const button = table.tHead.rows[0].cells[%d].querySelector("button");
const written = read();
button.click();
const once = [read(), table.tHead.rows[0].cells[%d].getAttribute("aria-sort")];
button.click();
return [written, once, [read(), table.tHead.rows[0].cells[%d].getAttribute("aria-sort")]];
"""


def test_it_loads_without_a_word_on_the_console_or_a_request(page, browser):
    seen = browser(page, "return performance.getEntriesByType('resource').map((resource) => resource.name)")
    assert seen.console == []
    assert seen.value == []


def test_the_console_is_seen_at_all(page, browser):
    assert browser(page, "console.error('seen'); return null").console != []


def test_the_browser_keeps_it_from_loading_anything(page, browser):
    script = """
    const image = new Image();
    const refused = new Promise((resolve) => addEventListener("securitypolicyviolation", (e) => resolve(e.blockedURI)));
    image.src = "file:///elsewhere.png";
    return await refused;
    """
    assert browser(page, script).value.startswith("file")


def test_every_address_is_inside_the_file(page):
    parser = Addresses()
    parser.feed(page.read_text(encoding="utf-8"))
    assert len(parser.addresses) > 10
    assert all(address.startswith(("data:image/", "#section-")) for address in parser.addresses)


def test_numbers_sort_the_best_first_and_then_last(page, browser):
    written, (once, first), (twice, second) = browser(page, SORT % (1, 3, 3, 3, 3, 3)).value
    numbers = [float(number) for number in written]
    assert len(set(numbers)) > 1
    assert [float(number) for number in once] == sorted(numbers, reverse=True)
    assert [float(number) for number in twice] == sorted(numbers)
    assert (first, second) == ("descending", "ascending")


def test_names_sort_from_a_to_z_and_back(page, browser):
    written, (once, _), (twice, _) = browser(page, SORT % (1, 0, 0, 0, 0, 0)).value
    assert once == sorted(written)
    assert twice == sorted(written, reverse=True)


def test_rows_without_a_number_stay_last(page, browser):
    script = """
    const table = document.querySelectorAll("table")[0];
    const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.startsWith("change"));
    const read = () => [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.value === undefined);
    const button = table.tHead.rows[0].cells[column].querySelector("button");
    button.click();
    const once = read();
    button.click();
    return [once, read()];
    """
    assert browser(page, script).value == [[False, True], [False, True]]


def test_pictures_have_sizes_and_words(page, browser):
    script = """
    return Promise.all([...document.images].map(async (image) => {
      await image.decode();
      return [image.naturalWidth, image.naturalHeight, image.width, image.height, image.alt];
    }));
    """
    pictures = browser(page, script).value
    assert len(pictures) >= 1 + 3 + 3 + 2  # bars, masks, false positives, training curves
    for natural_width, natural_height, width, height, words in pictures:
        assert min(natural_width, natural_height, width, height) > 20
        assert width / height == pytest.approx(natural_width / natural_height, rel=0.03)
        assert re.search(r"\d", words)


def test_nothing_but_tables_and_wide_figures_is_wider_than_a_phone(page, browser):
    # A window can be no narrower than some 500 pixels, a frame can.
    script = """
    const halves = { head: document.head.innerHTML, body: document.body.innerHTML };
    const frame = document.createElement("iframe");
    frame.width = 390;
    frame.style.border = 0;
    document.body.append(frame);
    const copy = frame.contentDocument;
    for (const half in halves) copy[half].innerHTML = halves[half];
    await new Promise((resolve) => setTimeout(resolve, 500));
    const scrolling = [...copy.querySelectorAll(".scrolls")].some((box) => box.scrollWidth > box.clientWidth);
    return [copy.documentElement.clientWidth, copy.documentElement.scrollWidth, scrolling];
    """
    shown, needed, scrolling = browser(page, script).value
    assert shown == 390
    assert needed <= shown
    assert scrolling


def test_without_javascript_everything_is_there_but_the_buttons(page, browser):
    script = "return ['button', 'table', 'tbody tr', 'img'].map((name) => document.querySelectorAll(name).length)"
    buttons, *elements = browser(page, script, javascript=False).value
    assert buttons == 0
    assert elements == browser(page, script).value[1:]
    assert min(elements) > 0


def test_the_same_runs_give_the_same_bytes(page, runs, tmp_path):
    assert report(list(runs.values()), out=tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_images_are_named_by_their_files(page):
    text = page.read_text(encoding="utf-8")
    assert "<figcaption>test_0.jpg</figcaption>" in text
    assert "; image test_0" not in text


def test_it_says_what_was_measured_and_what_differs(page):
    text = page.read_text(encoding="utf-8")
    assert (
        "2 methods in 4 runs, tested on the split test (3 images, 3 objects of 2 classes), compared with frcn" in text
    )
    (cells,) = re.findall(r'<th scope="row">adversaries</th>(.*?)</tr>', text, flags=re.DOTALL)
    assert re.findall("<td[^>]*>(.*?)</td>", cells) == ["none", "asdn, astn"]
    assert '<th scope="row">detector.backbone</th>' not in text  # both have the same


def test_what_is_missing_is_named_with_the_command_that_makes_it(runs, tmp_path, rectangles):
    lone = tmp_path / "a run"
    lone.mkdir()
    (lone / "recipe.yaml").write_bytes((runs["frcn-seed0"] / "recipe.yaml").read_bytes())
    text = report([lone, runs["full-seed0"]], out=tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<code>afrcnn evaluate &#39;" in text
    assert "log.csv is missing" in text
    text = report([lone], out=tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Not shown</h2>" in text
    assert "What the adversaries do" not in text  # there is none
    assert "Change by class" not in text  # there is one method
    gone = ["--data.root", str(tmp_path / "nowhere")]
    text = report([runs["full-seed0"]], out=tmp_path / "report.html", overrides=gone).read_text(encoding="utf-8")
    assert "no such folder" in text


def test_the_command_writes_it_and_refuses_what_is_not_a_run(runs, tmp_path, capsys):
    out = tmp_path / "made" / "report.html"
    words = [str(runs["full-seed0"]), str(runs["frcn-seed0"]), "--baseline", str(runs["frcn-seed0"])]
    assert main(["report", *words, "--out", str(out), "--data.workers", "0"]) == 0
    assert capsys.readouterr().out == f"report: {out}\n"
    assert "compared with frcn" in out.read_text(encoding="utf-8")
    out.unlink()
    assert main(["report", str(tmp_path), "--out", str(out)]) == 2
    assert "is not a run folder" in capsys.readouterr().err
    assert not out.exists()


def test_a_damaged_file_of_results_is_refused_by_name(runs, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes((runs["frcn-seed0"] / "recipe.yaml").read_bytes())
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results\.json"):
        report([tmp_path], out=tmp_path / "report.html")


def test_numbers_are_read_by_iteration_and_gaps_texts_and_broken_rows_left_out(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text(
        "iteration,stage,loss,adversary/asdn\n10,pretraining,90,90\n20,joint,1.5,\n40,joint,nan,2\n60,joint,0.5,3\n80,jo"
    )
    assert _read_log(log) == {
        "loss, pre-training": [(10, 90)],
        "adversary/asdn, pre-training": [(10, 90)],
        "loss": [(20, 1.5), (60, 0.5)],
        "adversary/asdn": [(40, 2), (60, 3)],
    }
    log.write_text("")
    assert _read_log(log) == {}
    with pytest.raises(UserError, match="cannot be read"):
        _read_log(tmp_path / "none.csv")


def test_a_strangers_adversary_is_refused_and_none_of_its_code_runs(runs, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(
        "import pathlib\n"
        f"pathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from afrcnn.adversaries.dropout import HardDropout\n"
        "class Mine(HardDropout):\n"
        "    def __init__(self, spec):\n"
        "        super().__init__(spec)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    fields = ["--adversaries", "[stranger:Mine]"]
    file = report([runs["frcn-seed0"]], out=tmp_path / "report.html", overrides=fields)
    text = file.read_text(encoding="utf-8")
    assert "<h2>Not shown</h2>" in text
    assert "--trust stranger" in text
    assert not (tmp_path / "ran").exists()
    text = report([runs["frcn-seed0"]], out=file, overrides=fields, trust=["stranger"]).read_text(encoding="utf-8")
    assert "--trust stranger" not in text
    assert (tmp_path / "ran").exists()
    assert "Mine occludes" in text


def test_the_command_is_imported_without_torch():
    code = "import sys, afrcnn.commands.report; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
