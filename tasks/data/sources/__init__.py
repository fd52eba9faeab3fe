"""Where raw files can be had, and how they are kept."""
