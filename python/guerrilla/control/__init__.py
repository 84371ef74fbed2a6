"""The control socket: how a daemon that runs is asked and told.

Layout:
    server.py     the daemon's side
    client.py     the side of the commands
    requests.py   what a line asks for
    spool.py      what the spool is asked for and told
    sockets.py    unix sockets that only their owner may use
"""
