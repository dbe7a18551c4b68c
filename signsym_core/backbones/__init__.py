"""Backbones: networks that are fine-tuned."""

from signsym_core.backbones.alexnet import AlexNet
from signsym_core.backbones.base import Backbone as Backbone
from signsym_core.backbones.base import Model as Model
from signsym_core.backbones.convnext_tiny import ConvNeXtTiny
from signsym_core.backbones.lstm import LSTM
from signsym_core.backbones.mlp import MLP
from signsym_core.backbones.mnm import MNM
from signsym_core.backbones.resnet18 import ResNet18
from signsym_core.backbones.resnet50 import ResNet50
from signsym_core.backbones.rnn import RNN
from signsym_core.backbones.smallcnn import SmallCNN
from signsym_core.backbones.snn import SNN
from signsym_core.backbones.vgg16 import VGG16
from signsym_core.backbones.vit_b_16 import ViTB16
from signsym_core.registry import Registry

#: Every backbone: those of the paper in the order of its tables, then others, small ones last.
BACKBONES: Registry[Backbone] = Registry(
    "backbone", [AlexNet, VGG16, ResNet18, ResNet50, ConvNeXtTiny, ViTB16, SmallCNN, MLP, SNN, RNN, LSTM, MNM]
)
