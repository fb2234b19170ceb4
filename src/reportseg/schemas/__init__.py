"""Every JSON and CSV file that reportseg writes, as code, each kind in its module.

All scores are fractions, never percent. A score that could not be computed is null; NaN and infinity are refused.
"""
