"""Analysis of tables: estimates, comparisons, correlations, claims. Imports no torch."""
