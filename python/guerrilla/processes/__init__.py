"""More than one process, and what passes from one to the next.

| file | what it holds |
|---|---|
| `wire` | lines of JSON between two processes, and descriptors that come with them |
| `channel` | requests of a parent to its child, and the answers |
| `child` | what runs in a child, and answers there |
| `place` | where a daemon runs among others: what it is given rather than opens itself |
| `activation` | sockets that systemd has bound |
| `binding` | one listening socket: bound, or handed over |
| `sockets` | those of several processes |
"""
