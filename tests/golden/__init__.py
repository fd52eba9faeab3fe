"""The golden corpus: small inputs made from seeds, what was typed, and what c692a25 answered."""
