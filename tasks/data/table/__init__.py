"""Own tables: which columns become features and how, which rows are whose, and what is wrong with them."""
