"""The registry that every family uses, and parameters as the fields of a dataclass."""

from signsym_core.registry.bounds import Bound as Bound
from signsym_core.registry.bounds import Count as Count
from signsym_core.registry.bounds import NonNegative as NonNegative
from signsym_core.registry.bounds import Positive as Positive
from signsym_core.registry.bounds import above as above
from signsym_core.registry.bounds import check_bounds as check_bounds
from signsym_core.registry.bounds import integer as integer
from signsym_core.registry.bounds import within as within
from signsym_core.registry.family import Member as Member
from signsym_core.registry.family import Registry as Registry
from signsym_core.registry.parameters import ParameterError as ParameterError
from signsym_core.registry.parameters import UnknownNameError as UnknownNameError
from signsym_core.registry.parameters import build as build
from signsym_core.registry.parameters import changed as changed
from signsym_core.registry.parameters import coerce as coerce
from signsym_core.registry.parameters import describe as describe
from signsym_core.registry.parameters import identity as identity
from signsym_core.registry.parameters import neutral as neutral
from signsym_core.registry.parameters import not_default as not_default
from signsym_core.registry.parameters import rebuild as rebuild
from signsym_core.registry.parameters import require as require
from signsym_core.registry.parameters import shown as shown
from signsym_core.registry.parameters import takes_lists as takes_lists
from signsym_core.registry.parameters import unknown as unknown
