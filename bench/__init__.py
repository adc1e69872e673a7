"""How fast, beside whom: commands that print Markdown. No test imports a figure from here, and none is timed in
tests.
"""
