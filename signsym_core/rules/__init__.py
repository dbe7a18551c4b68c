"""Learning rules: which matrix takes the place of W in the backward pass."""

from signsym_core.rules.base import RULES as RULES
from signsym_core.rules.base import Rule as Rule
from signsym_core.rules.base import ScaledRule as ScaledRule
from signsym_core.rules.bp import BP
from signsym_core.rules.brsf import BRSF
from signsym_core.rules.dfa import DFA
from signsym_core.rules.fa import FA
from signsym_core.rules.frsf import FRSF
from signsym_core.rules.kp import KP
from signsym_core.rules.learned import LearnedRule as LearnedRule
from signsym_core.rules.learned import Lesson as Lesson
from signsym_core.rules.local import Local
from signsym_core.rules.lowrank import LowRank
from signsym_core.rules.lra import LRA
from signsym_core.rules.mixed import Layers as Layers
from signsym_core.rules.mixed import Mixed
from signsym_core.rules.pepita import Pepita
from signsym_core.rules.point_rule import PointRule as PointRule
from signsym_core.rules.sym import SymmetricAlignment
from signsym_core.rules.usf import USF
from signsym_core.rules.whole import StepRule as StepRule
from signsym_core.rules.wm import WeightMirror

# In the order of tables and legends.
SHIPPED = (BP, FA, USF, FRSF, BRSF, KP, WeightMirror, LowRank, SymmetricAlignment, DFA, Local, Pepita, LRA, Mixed)
for _rule in SHIPPED:
    RULES.register(_rule)
