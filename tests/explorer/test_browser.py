"""The explorer in a real browser: what people see, click, type and hear."""

from __future__ import annotations

import csv

import pytest
from browser import look, opened, served
from stores import GRID, fill, keep_grid

from orchestrator.results.view import PAGES
from orchestrator.store import Store
from orchestrator.store.notes import Notes

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = fill(tmp_path_factory.mktemp("browser") / "store")
    keep_grid(found, GRID)
    return found


@pytest.fixture(scope="module")
def place(folder):
    with served(folder) as (address, _):
        yield address


@pytest.fixture(scope="module")
def tab(chromium):
    with opened(chromium) as page:
        yield page


def names(tab):
    """The accessible names of all controls that can be reached, and those that have none."""
    return tab.evaluate(
        """() => [...document.querySelectorAll('input, button, select, a[href], summary')]
            .filter(e => e.offsetParent !== null && !e.closest('.ag-root-wrapper') && !e.closest('.modebar'))
            .map(e => [e.outerHTML.slice(0, 160),
                (e.getAttribute('aria-label') || e.innerText || (e.labels && [...e.labels].map(l => l.innerText).join())
                 || (e.getAttribute('aria-labelledby') || '').split(' ').filter(Boolean)
                      .map(i => (document.getElementById(i) || {}).innerText).join() || '').trim()])"""
    )


def test_no_page_asks_another_host_and_every_graph_and_control_has_a_name(tab, place):
    for name in PAGES:
        look(tab, f"{place}?p={name}")
        assert [html for html, found in names(tab) if not found] == []
        graphs = tab.locator(".js-plotly-plot").count()
        assert tab.locator('[role="img"][aria-label]').count() == graphs
        assert graphs == (name in ("curves", "gap"))
        assert tab.locator("text=Share chart").count() == 0
        # On a telephone only figures and tables are moved sideways, not the page.
        usual = tab.viewport_size
        tab.set_viewport_size({"width": 390, "height": 800})
        tab.wait_for_function("document.documentElement.scrollWidth <= window.innerWidth")
        # On a small laptop the header is one line, and all checks of a model are seen at once.
        tab.set_viewport_size({"width": 1024, "height": 800})
        tab.wait_for_function("document.querySelector('header').offsetHeight < 60")
        if name == "flags":
            seen = tab.evaluate("(e => [e.scrollWidth, e.clientWidth])(document.querySelector('.flags').parentElement)")
            assert seen[0] == seen[1]
        tab.set_viewport_size(usual)
    assert {url.split("/")[2] for url in tab.seen if url.startswith("http")} == {place.split("/")[2]}
    assert tab.wrong == []


def test_the_question_is_answered_in_three_clicks(tab, place):
    look(tab, place)
    tab.click("#page-gap")
    tab.wait_for_selector("text=Is a rule more robust than BP at ε = 0.1?")
    assert "In the worst case over all attacks in the store" in tab.inner_text(".finding")
    row = tab.locator(".matrix.answers tr", has_text="uSF")
    assert "pgd (exact)" in row.inner_text()
    assert "masked gradient" in row.inner_text()
    row.locator("a").nth(1).click()
    tab.wait_for_url("**over=worst**")
    tab.wait_for_selector("text=in the worst case over all attacks in the store")


def test_controls_write_the_address_and_the_address_sets_the_controls(tab, place):
    look(tab, f"{place}?r=usf&x=log")
    assert tab.locator("#filter-rule-box").inner_text().count("uSF") >= 1
    assert tab.locator("#filter-x input[value=log]").is_checked()
    tab.locator("#filter-x label", has_text="linear").click()
    tab.wait_for_url("**x=linear**")
    assert "r=usf" in tab.url
    tab.go_back()
    tab.wait_for_function("document.querySelector('#filter-x input[value=log]').checked")


def test_filters_are_reached_by_keyboard(tab, place):
    look(tab, place)
    tab.focus("#filter-gradient")
    for key in ("Enter", "ArrowDown", "Enter", "Escape"):
        tab.keyboard.press(key)
    tab.wait_for_url("**g=feedback**")


def test_the_csv_is_the_rows_that_are_shown(tab, place):
    look(tab, f"{place}?r=usf&g=exact")
    tab.click("summary")
    tab.wait_for_selector(".ag-center-cols-container .ag-row")
    with tab.expect_download() as download:
        tab.click("text=CSV of the rows shown")
    with open(download.value.path(), encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    shown = tab.locator(".ag-center-cols-container .ag-row").count()
    assert len(rows) == shown == 2
    assert {(row["rule"], row["gradient"]) for row in rows} == {("uSF", "exact")}


def test_a_click_on_a_marker_opens_its_cell_with_images_and_the_way_to_run_it_again(tab, place):
    look(tab, f"{place}?r=usf&g=exact")
    tab.evaluate(
        """() => { const g = document.querySelector('.js-plotly-plot');
            const t = g.data.find(d => d.customdata);
            g.emit('plotly_click', {points: [{customdata: t.customdata[1], curveNumber: 1, pointNumber: 1, data: t,
              fullData: t, x: 1, y: 0}], event: new MouseEvent('click')}); }"""
    )
    tab.wait_for_url("**p=cell**")
    tab.wait_for_selector("text=Where it comes from")
    tab.wait_for_function("[...document.querySelectorAll('.triple img')].every(i => i.naturalWidth > 0)")
    assert tab.locator(".triples figure").count() == 12
    assert "no stored grid" in tab.inner_text("#results")


def test_new_results_keep_the_zoom(tmp_path, chromium):
    store = fill(tmp_path / "store", seeds=(0,))
    with served(store) as (address, _), opened(chromium) as tab:
        look(tab, f"{address}?live=1")
        plot = tab.locator(".js-plotly-plot .nsewdrag").first.bounding_box()
        left, top = plot["x"] + plot["width"] * 0.3, plot["y"] + plot["height"] * 0.3
        tab.mouse.move(left, top)
        tab.mouse.down()
        tab.mouse.move(left + 120, top + 60, steps=4)
        tab.mouse.up()
        ranges = "document.querySelector('.js-plotly-plot').layout.xaxis.range.map(x => Math.round(1000 * x))"
        tab.wait_for_function("document.querySelector('.js-plotly-plot').layout.xaxis.autorange === false")
        zoomed = tab.evaluate(ranges)
        fill(store, seeds=(1,), draw=1)
        tab.wait_for_selector("text=2 seeds")
        assert tab.evaluate(ranges) == zoomed
        # A note alone is shown too; where the page is not live, after a click.
        Notes(Store(str(store))).write("only 60 images", "view", "?p=curves&task=classification")
        tab.wait_for_selector("text=only 60 images")
        tab.locator("#filter-live").evaluate("e => e.click()")
        tab.wait_for_function("!location.search.includes('live')")
        Notes(Store(str(store))).write("run it again", "view", "?p=curves&task=classification")
        tab.click("text=New notes: show them")
        tab.wait_for_selector("text=run it again")


def contrasts(tab):
    """The lowest contrast of text with what it stands on, over the page's own elements, and where that is."""
    return tab.evaluate(
        """() => { const lum = c => { const v = c.slice(0, 3).map(x => { x /= 255;
                return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4; });
              return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
            const rgb = s => (s.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
            const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
              if (c.length < 4 || c[3] > 0.5) return c; } return [255, 255, 255]; };
            let worst = [99, ''];
            for (const e of document.querySelectorAll(
                'h1, h2, p, th, td span, dt, dd, a, summary, label, text, .page')) {
              if (!e.textContent.trim() || !(e.offsetParent || e.ownerSVGElement)) continue;
              const svg = e.tagName === 'text', s = getComputedStyle(e);
              const [a, b] = [lum(rgb(svg ? s.fill : s.color)), lum(ground(svg ? e.closest('.graph') : e))];
              const c = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
              if (c < worst[0]) worst = [c, e.outerHTML.slice(0, 200)];
            } return worst; }"""
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_a_contrast_of_three_to_one_in_both_schemes(place, chromium, scheme):
    with opened(chromium, color_scheme=scheme) as tab:
        for name in PAGES:
            look(tab, f"{place}?p={name}")
            lowest, where = contrasts(tab)
            assert lowest >= 3, where


def test_names_with_html_do_not_run(tmp_path, chromium):
    store = fill(tmp_path / "store", dataset=HOSTILE, backbone=HOSTILE, versions=HOSTILE, git=HOSTILE)
    (store / "grids").mkdir()
    (store / "grids" / "<img src=x onerror=alert(3)>.yaml").write_text("name: [")
    with served(store) as (address, data), opened(chromium) as tab:
        cell = data.snapshot.index.value("cell", 0)
        for search in [*(f"?p={name}" for name in PAGES), f"?p=cell&c={cell}", "?b=<script>alert(4)</script>"]:
            look(tab, address + search)
            tab.hover("#results h1")
        assert tab.wrong == []
        assert tab.locator("img[src=x]").count() == 0
        assert not [url for url in tab.seen if url.endswith("/x")]
