"""Private servers for tests: each on a free port of its own or a unix socket, in its own folder.

A module a server; `base` is what they share. None of them is a service of the machine: each is
started by a test session, ready when its fixture gives it, and ended with the session.
"""
