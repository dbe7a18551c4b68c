"""Binary codes of a network, and the score of a ranking by their Hamming distance."""
