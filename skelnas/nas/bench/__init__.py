"""`skelnas bench`: a table of what genotypes are worth on a data set, and what it says."""
