"""What people look at: curves, gaps and tables made from a store, never from Ray."""
