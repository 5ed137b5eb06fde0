"""Where the vectors of reference libraries lie, and how the nearest are found among many."""
