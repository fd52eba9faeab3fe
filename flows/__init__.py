"""WHEN things happen: which stages run, in which order, and the command line over them."""
