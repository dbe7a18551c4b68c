"""Attacks, and the sources of their gradients."""

from signsym_core.attacks.apgd import APGD
from signsym_core.attacks.autoattack import AutoAttack
from signsym_core.attacks.base import Attack as Attack
from signsym_core.attacks.bim import BIM
from signsym_core.attacks.boundary import Boundary
from signsym_core.attacks.fab import FAB
from signsym_core.attacks.fgsm import FGSM
from signsym_core.attacks.foolbox import member as attack_of_foolbox
from signsym_core.attacks.geometry import Geometry
from signsym_core.attacks.gradients import GRADIENTS as GRADIENTS
from signsym_core.attacks.hag import HAG, HAGSAAT
from signsym_core.attacks.hopskipjump import HopSkipJump
from signsym_core.attacks.mim import MIM
from signsym_core.attacks.noise import Noise
from signsym_core.attacks.none import NoAttack
from signsym_core.attacks.pgd import PGD
from signsym_core.attacks.sdha import SDHA, SDHASAAT
from signsym_core.attacks.smoothing import Smoothing
from signsym_core.attacks.square import Square
from signsym_core.registry import Registry

#: Every attack, in the order of tables and figures; those of Foolbox by the name `foolbox:CLASS`.
ATTACKS: Registry[Attack] = Registry(
    "attack",
    [
        *(NoAttack, Noise, FGSM, BIM, MIM, PGD, APGD, FAB, AutoAttack, Square, HopSkipJump, Boundary),
        *(HAG, SDHA, HAGSAAT, SDHASAAT),
        *(Geometry, Smoothing),
    ],
    libraries={"foolbox": attack_of_foolbox},
)
