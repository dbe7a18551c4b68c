"""Direct feedback alignment: the error of the outputs reaches every point by a fixed random matrix of its own."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from signsym_core.rules.point_rule import PointRule


@dataclasses.dataclass(frozen=True, kw_only=True)
class DFA(PointRule):
    """DFA, signal e B at every point, B [k, c] fixed and random; [n, c, h, w] gets e B / hw at every position.

    With a value for each channel and not for each position, B is no wider than the layer learns to use; tokens
    [n, tokens, c] are treated as positions. e is that of the same pass, in training and in attacks.
    """

    name = "dfa"
    label = "DFA"
    citation = "Nøkland 2016, Direct feedback alignment provides learning in deep neural networks, arXiv 1609.01596"

    def signal(self, error: Tensor, delta: Tensor, matrix: Tensor) -> Tensor:
        sent = error @ matrix
        if delta.ndim == 4:
            return (sent / delta[0, 0].numel()).view(*sent.shape, 1, 1).expand_as(delta)
        if delta.ndim == 3:
            return (sent / delta.shape[1]).unsqueeze(1).expand_as(delta)
        return sent
