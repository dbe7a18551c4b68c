"""Whether measured robustness is real: the probes and checks of a model, and the verdict on it."""
