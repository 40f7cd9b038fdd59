"""`python -m relic.doctor`: what works on this machine, and the command that repairs what does not.

Only the standard library is imported here; what may be broken is tried in a process of its own.
"""
