"""The classes of Foolbox that are attacks here, and the properties of them that Foolbox does not state."""

from __future__ import annotations

import functools
import inspect
import math
import os
import warnings
from types import ModuleType
from typing import Any

from signsym_core.attacks.ball import Norm

#: Prefix of the names of Foolbox's attacks.
PREFIX = "foolbox:"

#: Classes that use gradients.
BY_GRADIENT = frozenset(
    {
        "L2FastGradientAttack",
        "LinfFastGradientAttack",
        "L2ProjectedGradientDescentAttack",
        "LinfProjectedGradientDescentAttack",
        "L2AdamProjectedGradientDescentAttack",
        "LinfAdamProjectedGradientDescentAttack",
        "L2BasicIterativeAttack",
        "LinfBasicIterativeAttack",
        "L2AdamBasicIterativeAttack",
        "LinfAdamBasicIterativeAttack",
        "L2MomentumIterativeFastGradientMethod",
        "LinfMomentumIterativeFastGradientMethod",
        "L2DeepFoolAttack",
        "LinfDeepFoolAttack",
        "L2CarliniWagnerAttack",
        "EADAttack",
        "DDNAttack",
        "NewtonFoolAttack",
        "L2BrendelBethgeAttack",
        "LinfinityBrendelBethgeAttack",
        "L2FMNAttack",
        "LInfFMNAttack",
        "VirtualAdversarialAttack",
    }
)
#: Classes that use only outputs.
BY_OUTPUTS = frozenset(
    {
        "L2AdditiveGaussianNoiseAttack",
        "L2RepeatedAdditiveGaussianNoiseAttack",
        "L2AdditiveUniformNoiseAttack",
        "L2RepeatedAdditiveUniformNoiseAttack",
        "L2ClippingAwareAdditiveGaussianNoiseAttack",
        "L2ClippingAwareRepeatedAdditiveGaussianNoiseAttack",
        "L2ClippingAwareAdditiveUniformNoiseAttack",
        "L2ClippingAwareRepeatedAdditiveUniformNoiseAttack",
        "LinfAdditiveUniformNoiseAttack",
        "LinfRepeatedAdditiveUniformNoiseAttack",
        "SaltAndPepperNoiseAttack",
        "LinearSearchBlendedUniformNoiseAttack",
        "BoundaryAttack",
        "HopSkipJumpAttack",
        "PointwiseAttack",
        "InversionAttack",
        "GaussianBlurAttack",
        "L2ContrastReductionAttack",
        "BinarySearchContrastReductionAttack",
        "LinearSearchContrastReductionAttack",
    }
)
#: Classes that never draw a random number themselves; the others do, with some of their parameters at least.
DETERMINISTIC = frozenset(
    {
        "L2FMNAttack",
        "LInfFMNAttack",
        "L2DeepFoolAttack",
        "LinfDeepFoolAttack",
        "L2CarliniWagnerAttack",
        "EADAttack",
        "NewtonFoolAttack",
        "InversionAttack",
        "L2ContrastReductionAttack",
        "BinarySearchContrastReductionAttack",
        "LinearSearchContrastReductionAttack",
        "GaussianBlurAttack",
    }
)
#: Classes that start from images which are lost already, with Foolbox's default attack for these starts; None: by
#: default they start from the clean image.
STARTS: dict[str, tuple[str, dict[str, Any]] | None] = {
    "BoundaryAttack": ("LinearSearchBlendedUniformNoiseAttack", {"steps": 50}),
    "HopSkipJumpAttack": ("LinearSearchBlendedUniformNoiseAttack", {"steps": 50}),
    "L2BrendelBethgeAttack": ("LinearSearchBlendedUniformNoiseAttack", {}),
    "LinfinityBrendelBethgeAttack": ("LinearSearchBlendedUniformNoiseAttack", {}),
    "PointwiseAttack": ("SaltAndPepperNoiseAttack", {}),
    "L2FMNAttack": None,
    "LInfFMNAttack": None,
}
_REFUSED = {
    "DatasetAttack": "it needs images of other classes, which an attack is not given",
    "BinarizationRefinementAttack": "it needs adversarial images to refine, and a model that binarises its input",
    "GenAttack": "it needs a class to aim at for each image, and attacks here lead away from the label",
    "SpatialAttack": "it turns and shifts images, so it has no norm and no epsilon",
}


@functools.cache
def library() -> ModuleType:
    """Foolbox, imported when it is first needed."""
    # It imports GitPython, which would refuse to be imported where there is no git.
    quiet = {"GIT_PYTHON_REFRESH": os.environ.get("GIT_PYTHON_REFRESH")}
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        with warnings.catch_warnings():
            # It imports a module of SciPy by a deprecated name.
            warnings.simplefilter("ignore", DeprecationWarning)
            import foolbox
    finally:
        if quiet["GIT_PYTHON_REFRESH"] is None:
            del os.environ["GIT_PYTHON_REFRESH"]
    return foolbox


@functools.cache
def classes() -> dict[str, Any]:
    """The attacks that Foolbox exports, by each of their names."""
    attacks = library().attacks
    exported = {name: value for name, value in vars(attacks).items() if inspect.isclass(value)}
    return {
        name: cls for name, cls in exported.items() if issubclass(cls, attacks.Attack) and cls is not attacks.Attack
    }


def refusal(cls: Any) -> str | None:
    """Why an attack of Foolbox cannot be run here, or None."""
    name = cls.__name__
    if name.startswith(("L0", "L1", "SparseL1")):
        return "its budget is one in L0 or L1, and epsilons here are radii in L∞ or L2"
    if name not in BY_GRADIENT | BY_OUTPUTS:
        return _REFUSED.get(
            name, "it is not registered here whether it uses gradients, and in which norm it is bounded"
        )
    return None


def minimises(cls: Any) -> bool:
    """Whether an attack of Foolbox minimises each image's perturbation, independently of epsilon."""
    return issubclass(cls, library().attacks.base.MinimizationAttack)


def norm_of(cls: Any) -> Norm | None:
    """The norm that an attack of Foolbox is bounded in or minimises; None where it can be chosen.

    EAD minimises ‖δ‖₂² + β ‖δ‖₁; Foolbox bounds the result in L1, and here its radii are those of the first term.
    """
    parameters = inspect.signature(cls).parameters
    if "constraint" in parameters or "distance" in parameters or cls.__name__ == "PointwiseAttack":
        return None
    if cls.__name__ == "EADAttack":
        return "l2"
    powers: dict[float, Norm] = {2: "l2", math.inf: "linf"}
    # The norm of a noise attack is only in its name.
    return powers.get(getattr(cls.distance, "p", 0)) or ("linf" if cls.__name__.startswith("Linf") else "l2")
