"""The explorer: pages in a browser, made from a store and never from Ray."""

from pathlib import Path

#: The style sheet of the explorer and of the report.
ASSETS = Path(__file__).with_name("assets")
