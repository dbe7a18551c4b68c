"""Attacks, and the sources of their gradients."""

from signsym_core.attacks.base import Attack as Attack
from signsym_core.attacks.fgsm import FGSM
from signsym_core.attacks.gradients import GRADIENTS as GRADIENTS
from signsym_core.attacks.hag import HAG, HAGSAAT
from signsym_core.attacks.none import NoAttack
from signsym_core.attacks.pgd import PGD
from signsym_core.attacks.sdha import SDHA, SDHASAAT
from signsym_core.registry import Registry

#: Every attack, in the order of tables and figures.
ATTACKS: Registry[Attack] = Registry("attack", [NoAttack, FGSM, PGD, HAG, SDHA, HAGSAAT, SDHASAAT])
