"""Messages in Redis.

Layout:
    place.py      where a Redis is, and what it stores: the options of processors
    messages.py   a kept connection, and a batch of commands in one go
"""
