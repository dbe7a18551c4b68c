"""Test images under natural corruptions: noise, blur, weather and the like, in five severities.

Training images stay as they are, so that one fine-tune serves all corruptions. Source: Hendrycks and Dietterich 2019
(1903.12261), Benchmarking Neural Network Robustness to Common Corruptions and Perturbations.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from signsym_core.datasets.base import Data, DataSource
from signsym_core.datasets.splits import Progress, Split
from signsym_core.registry import neutral, require

#: The kinds of the benchmark, in its order, and those that it keeps to choose hyperparameters by. Literals, since pages
#: read them as text.
STANDARD = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur",
    "snow", "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corruptible(DataSource, ABC):
    """A data set whose test images exist under corruptions; a member writes `corrupted`, and calls `tested` at the end
    of its `load`.
    """

    #: The kinds that it has.
    kinds: ClassVar[tuple[str, ...]]

    #: Corruption of the test images by this kind; null: none. In a grid a list of kinds too, or "all": those of the
    #: benchmark that the data set has. No training depends on it.
    corruption: str | None = neutral(None)
    #: How strong it is, from 1 to 5; null without a corruption. In a grid a list, or "all".
    severity: int | None = neutral(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.corruption is None or self.corruption in self.kinds
        require(known, "corruption", f"null, or one of {', '.join(self.kinds)}", self.corruption)
        within = self.severity is None or self.severity in SEVERITIES
        require(within, "severity", "null, or a whole number from 1 to 5", self.severity)
        expected = "null without the parameter 'corruption'" if self.corruption is None else "1 to 5 with a corruption"
        require((self.corruption is None) == (self.severity is None), "severity", expected, self.severity)
        needs = f"null with split {self.split}, which also tests on images that exist without corruptions only"
        require(self.corruption is None or self.split is None, "corruption", needs, self.corruption)

    def tested(self, data: Data, root: Path, progress: Progress | None = None) -> Data:
        if self.corruption is None:
            return data
        return dataclasses.replace(data, test=self.corrupted(data.test, root, progress))

    @abstractmethod
    def corrupted(self, test: Split, root: Path, progress: Progress | None = None) -> Split:
        """The test images `test` under `corruption` at `severity`, in their order.

        Raises DataNotFoundError where they are in files that are missing, and ValueError where these do not fit.
        """
