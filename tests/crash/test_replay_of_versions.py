"""Several versions serve one after the other: the oracle says what may be stored and recommended then, and no more.

The evidence is what the real step makes of random interactions while versions change.
"""
