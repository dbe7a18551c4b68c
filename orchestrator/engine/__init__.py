"""Jobs on Ray: which runs next, on what share of a device, and what became of it."""
