"""Fine-tuning a model: its steps, its checkpoints, and what is measured after each epoch."""
