"""What `guerrillad bench` is made of: what to send and where to, and how it is told.

The load itself is the core's (`_core.Load`).
"""
