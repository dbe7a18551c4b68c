"""What a job is, and its key: plain values that everything above shares."""
