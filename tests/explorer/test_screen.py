"""Figures as they look on screen: a browser draws them, reaches no other host, and one line says that it is missing."""

from __future__ import annotations

import json
import sys
from xml.etree import ElementTree

import pytest
from browser import browser_or_skip
from stores import fill, keep_grid

from orchestrator.commands.cli import main

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>alert(1)</script>$x_{y}$"
FIND = "choreographer.browsers.chromium.Chromium.find_browser"


@pytest.fixture
def report(tmp_path):
    """Run `report` on a small store with further words: its exit status."""
    keep_grid(fill(tmp_path / "store", seeds=(0,)))
    return lambda *words: main(["report", str(tmp_path / "store"), "--out", str(tmp_path / "out"), *words])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A report with such figures, and NET, what its browser did on the network."""
    folder = tmp_path_factory.mktemp("screen")
    keep_grid(fill(folder / "store", seeds=(0,), dataset=HOSTILE))
    watched = folder / "watched"
    watched.write_text(f'#!/bin/sh\nexec "{browser_or_skip()}" --log-net-log="{folder / "NET"}" "$@"\n')
    watched.chmod(0o700)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROWSER_PATH", str(watched))
        assert main(["report", str(folder / "store"), "--out", str(folder / "out"), "--screen-figures"]) == 0
    return folder


def test_without_kaleido_one_line_says_what_to_install_and_nothing_is_written(report, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "kaleido", None)
    assert report("--screen-figures") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Kaleido 1.5 or newer is missing" in line
    assert "pip install 'signsym[screen]'" in line
    assert not (tmp_path / "out").exists()


def test_an_older_kaleido_is_told_which_it_must_be(report, tmp_path, monkeypatch, capsys):
    def older(**_):
        raise RuntimeError("received invalid args: dict_keys(['proxy_server'])")

    monkeypatch.setattr("kaleido.Kaleido", older)
    assert report("--screen-figures") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Kaleido 1.5 or newer is missing" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("named", ["", "/nowhere/chromium"])
def test_without_a_browser_one_line_says_how_to_get_one(report, named, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FIND, lambda **_: None)
    monkeypatch.setenv("BROWSER_PATH", named)
    assert report("--screen-figures") == 2
    (line,) = capsys.readouterr().err.splitlines()
    for words in (
        "Chrome or Chromium",
        named,
        "BROWSER_PATH",
        "`apt-get install chromium`",
        "without --screen-figures",
    ):
        assert words in line
    assert not (tmp_path / "out").exists()


def test_without_a_browser_the_plain_report_has_its_pdf(report, tmp_path, monkeypatch):
    monkeypatch.setattr(FIND, lambda **_: None)
    assert report() == 0
    assert list((tmp_path / "out/figures").glob("*.pdf"))
    assert not (tmp_path / "out/figures/screen").exists()


@pytest.mark.parametrize("does", ["exit 1", "exec sleep 600"])
def test_a_browser_that_does_not_start_is_named(report, does, tmp_path, monkeypatch, capsys):
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\n{does}\n")
    browser.chmod(0o700)
    monkeypatch.setenv("BROWSER_PATH", str(browser))
    monkeypatch.setattr("orchestrator.drawing.screen.START", 5)
    assert report("--screen-figures") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot start {browser}" in line
    assert not (tmp_path / "out").exists()


def test_every_figure_is_svg_and_pdf_and_its_page_links_to_both(drawn):
    linked = 0
    for page in (drawn / "out").rglob("*.html"):
        text = page.read_text()
        assert text.count("SVG as on screen") == text.count("PDF as on screen") == text.count('class="graph"')
        linked += text.count('class="graph"')
    files = sorted((drawn / "out/figures/screen").iterdir())
    assert len(files) == 2 * linked > 0
    assert all(path.read_bytes().startswith(b"%PDF") for path in files if path.suffix == ".pdf")
    text = (drawn / "out/curves-classification.html").read_text()
    for kind in ("svg", "pdf"):
        assert f'href="figures/screen/curves-classification-curves.{kind}"' in text
    assert "--screen-figures" in json.loads((drawn / "out/provenance.json").read_text())["command"]


def test_the_svg_has_the_rules_in_the_light_scheme_and_hostile_names_as_text(drawn):
    tree = ElementTree.parse(drawn / "out/figures/screen/curves-classification-curves.svg")
    texts = ["".join(element.itertext()) for element in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert {"BP", "uSF"} <= set(texts)
    assert any(HOSTILE in text for text in texts)
    assert not [element for element in tree.iter() if element.tag.endswith(("script", "foreignObject"))]
    ground = next(tree.iter("{http://www.w3.org/2000/svg}rect"))
    assert "fill: rgb(255, 255, 255)" in ground.get("style")


def test_the_browser_reaches_no_other_host(drawn):
    log = json.loads((drawn / "NET").read_text())
    kinds = {number: name for name, number in log["constants"]["logEventTypes"].items()}
    seen = [(kinds[event["type"]], event.get("params", {})) for event in log["events"]]
    reached = {params["address"] for kind, params in seen if kind == "TCP_CONNECT_ATTEMPT" and "address" in params}
    assert reached <= {"127.0.0.1:1"}
    assert seen
    assert not {kind for kind, _ in seen} & {"HOST_RESOLVER_DNS_TASK", "HOST_RESOLVER_SYSTEM_TASK", "UDP_BYTES_SENT"}
