"""A grid file in, a Grid out: models to fine-tune, and the attacks on each."""
