"""Data sets: images decoded once, kept as uint8, turned into inputs in batches on the device."""

from signsym_core.datasets.base import DataSource as DataSource
from signsym_core.datasets.batches import augmented as augmented
from signsym_core.datasets.batches import inputs as inputs
from signsym_core.datasets.cifar10 import CIFAR10
from signsym_core.datasets.coco import COCO
from signsym_core.datasets.digits import Digits
from signsym_core.datasets.files import BrokenImagesError as BrokenImagesError
from signsym_core.datasets.files import BrokenImageWarning as BrokenImageWarning
from signsym_core.datasets.imagefolder import ImageFolder
from signsym_core.datasets.imagenet import ImageNet
from signsym_core.datasets.imagenet100 import ImageNet100
from signsym_core.datasets.lists import Lists
from signsym_core.datasets.nuswide import NUSWIDE
from signsym_core.datasets.permutation import Permutation
from signsym_core.datasets.recall import Recall
from signsym_core.datasets.splits import Data as Data
from signsym_core.datasets.splits import DataNotFoundError as DataNotFoundError
from signsym_core.datasets.splits import DataWarning as DataWarning
from signsym_core.datasets.splits import Split as Split
from signsym_core.datasets.temporal_order import TemporalOrder
from signsym_core.datasets.temporal_order_3bit import TemporalOrder3Bit
from signsym_core.registry import Registry

#: Every data set; the one that needs no files first, generated sequences last.
DATASETS: Registry[DataSource] = Registry(
    "data set",
    [
        *(Digits, CIFAR10, COCO, NUSWIDE, ImageNet, ImageNet100, ImageFolder, Lists),
        *(TemporalOrder, TemporalOrder3Bit, Permutation, Recall),
    ],
)
