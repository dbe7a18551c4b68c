"""Jobs and their keys: plain values that plan, engine and work share."""
