"""Backbones: networks that are fine-tuned."""

from signsym_core.backbones.alexnet import AlexNet
from signsym_core.backbones.base import Backbone as Backbone
from signsym_core.backbones.base import Model as Model
from signsym_core.backbones.resnet18 import ResNet18
from signsym_core.backbones.smallcnn import SmallCNN
from signsym_core.backbones.vgg16 import VGG16
from signsym_core.registry import Registry

#: Every backbone, in the order of the paper's tables; the small one last.
BACKBONES: Registry[Backbone] = Registry("backbone", [AlexNet, VGG16, ResNet18, SmallCNN])
