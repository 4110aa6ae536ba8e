"""One-channel recordings over time, read from CSV files."""
