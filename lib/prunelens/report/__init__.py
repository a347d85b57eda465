"""Figures, tables and text of a report. Imports no torch."""

from prunelens.report.report import Report

__all__ = ["Report"]
