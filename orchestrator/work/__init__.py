"""What one job does: fine-tune a model or attack it, and leave its tables in the store."""
