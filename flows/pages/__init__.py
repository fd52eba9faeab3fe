"""The output of runs: reports, pages in the Prefect UI, and the overview of each name."""
