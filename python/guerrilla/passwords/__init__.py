"""Passwords: their hashes, and the file that has them by user.

Layout:
    hashes.py   which hashes are taken, how one is made and how a password is checked against it
    lines.py    a line `USER:HASH`, and what is wrong with one
    file.py     a file of them, read again when it has changed
"""
