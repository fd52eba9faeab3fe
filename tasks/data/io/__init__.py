"""Files of users: found, and read with bounded memory, for training and for prediction alike."""
