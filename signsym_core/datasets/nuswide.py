"""NUS-WIDE with its 21 most frequent concepts, from list files."""

from __future__ import annotations

import dataclasses

from signsym_core.datasets.base import Origin
from signsym_core.datasets.lists import Lists


@dataclasses.dataclass(frozen=True, kw_only=True)
class NUSWIDE(Lists):
    """Flickr photographs with any of 21 concepts: HashNet-style lists of 10,500 training images and 2,100 queries.

    The database is LISTS/database.txt: 193,734 images in the usual lists. The paper had 148,332 photographs that could
    still be downloaded, and published no list of them. To use a list of all images that you have, name it in all three
    files and let `split: 500/100/rest` draw the paper's splits from it. Lists do not name the concepts, so classes are
    the numbers of their columns.
    """

    name = "nuswide"
    label = "NUS-WIDE"
    citation = "Chua, Tang, Hong, Li, Luo, Zheng 2009, NUS-WIDE: a real-world web image database"
    stated = (10_500, 2_100)
    origin = Origin(
        url="https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html; list files: HashNet",
        licence="labels for research; photographs belong to their Flickr authors and are fetched from their addresses",
        size="269,648 photographs, of which the lists name some 195,000",
    )
    width = 21
    several = True

    size: int | None = 224
    path: str = "nuswide"
