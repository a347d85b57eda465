"""Figures, tables and text of a report. Imports no torch."""
