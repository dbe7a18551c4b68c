"""`signsym explore` as people start it: from its first words to Ctrl-C."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from stores import fill, keep_grid

from orchestrator import explorer
from orchestrator.commands.cli import main
from orchestrator.explorer import mantine

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "orchestrator.commands.cli", "explore"]


def test_it_says_where_it_is_serves_there_alone_and_ends_by_ctrl_c(tmp_path):
    folder = fill(tmp_path / "store")
    keep_grid(folder)
    with subprocess.Popen([*COMMAND, str(folder), "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            words = [process.stdout.readline(), process.stdout.readline()]
            assert "24 results read in" in words[0]
            (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", words[1])
            with urllib.request.urlopen(address, timeout=30) as answer:
                assert "signsym explorer" in answer.read().decode()
            with urllib.request.urlopen(f"{address}table/curves.csv?r=usf", timeout=30) as answer:
                assert answer.read().decode().count("\n") == 5
            port = int(address.rpartition(":")[2].strip("/"))
            outside = next((found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None)), "127.0.0.2")
            if not outside.startswith("127."):
                with pytest.raises(OSError, match="refused"), socket.create_connection((outside, port), timeout=5):
                    pass
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def test_a_taken_port_is_said_in_one_line_before_anything_is_read(tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["explore", str(tmp_path / "none"), "--port", str(port)]) == 2
    said = capsys.readouterr().err.strip()
    assert said == f"signsym explore: port {port} of 127.0.0.1 is taken; choose another: --port {port + 1}"


def test_pages_come_up_without_what_nothing_needs(tmp_path):
    folder = fill(tmp_path / "store")
    code = f"""
import sys
from orchestrator import pages
from orchestrator.explorer.app import make_app
from orchestrator.pages.context import context_of
from orchestrator.results.live_store import LiveStore
data = LiveStore({str(folder)!r}, at_once=True)
make_app(data)
for name in ("curves", "gap", "tables", "flags", "cell"):
    assert len(pages.build(context_of(data, f"?p={{name}}")).blocks) > 0
import plotly
heavy = ("torch", "ray", "dash_mantine_components.DatePicker")
# Plotly imports it itself before version 7.
heavy += ("pandas",) * (int(plotly.__version__.split(".")[0]) >= 7)
print([name for name in heavy if name in sys.modules])
from orchestrator.explorer.mantine import dmc
assert dmc.DatePicker is dmc.DatePicker
assert dmc.DatePicker(id="day").id == "day", "any other component is imported when it is used"
assert not hasattr(dmc, "Nothing")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_components_that_are_imported_at_once_are_those_that_are_used():
    source = "".join(path.read_text() for path in Path(explorer.__file__).parent.glob("*.py"))
    assert set(re.findall(r"\bdmc\.(\w+)", source)) == set(mantine.NAMES)
