"""Speed beside peers and beside another checkout, in turns on one machine, and how often gates are wrong."""
