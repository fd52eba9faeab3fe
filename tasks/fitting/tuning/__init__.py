"""A search for better settings: trials, what they are tried on, and how they are chosen."""
