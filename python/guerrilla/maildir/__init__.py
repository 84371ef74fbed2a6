"""Maildir folders: the format of `maildir(5)`, with sizes in names as Dovecot and Courier do it.

`users` reads who has one and where it is, `folder` makes and writes one, `quota` counts what is in
it, `delivery` takes a batch into many.
"""
