"""Evaluation: cases in simulated worlds, scores with intervals, reports, self-tests and timing.

In: cases, engines or bundles.
Out: scores, report.json and report.html.
May import: agent and everything that it may import.
"""
