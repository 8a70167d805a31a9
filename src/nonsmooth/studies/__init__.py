"""Studies: one file per figure or table of the literature, or per demonstration, reproduced from data."""
