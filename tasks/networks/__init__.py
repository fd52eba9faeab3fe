"""HOW the networks learn: chapter 3 of Dive into Deep Learning, without Prefect, files or configuration.

Sections are numbered as in the edition of d2l 0.17 (the Chinese second edition); today's d2l.ai has other numbers.
"""

SIGMA = 0.01  # the deviation of the weights that the book's networks start with
HUBER_BETA = 0.5  # where the squared part of the loss ends, in target deviations; for the book's data in its units
