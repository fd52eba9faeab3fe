"""A user's own images: a folder of pictures for each class, and what else comes to the same."""
