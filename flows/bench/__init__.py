"""``gradmill bench``: speed as ratios between things run side by side, in rounds, on one machine."""
