"""Jobs, their keys, and the setting of a fine-tuned model: values that plan, engine and work share."""
