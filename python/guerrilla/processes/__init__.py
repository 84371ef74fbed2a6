"""More than one process, and what passes from one to the next.

| file | what it holds |
|---|---|
| `wire` | lines of JSON between two processes, and descriptors that come with them |
| `channel` | requests of a parent to its child, and the answers |
| `parent` | what `guerrillad serve` runs where there are several |
| `belongings` | what of it is no socket and no child: log, pid file, control socket |
| `family`, `children`, `lives` | its children: all, the place of each, one process of it |
| `child`, `childdaemon` | what runs in a child, and answers there |
| `agreement` | a reload of all |
| `merging` | figures of several as those of one |
| `spools` | spools of several, asked as one |
| `place` | where a daemon runs among others: what it is given rather than opens itself |
| `activation` | sockets that systemd has bound |
| `binding` | one listening socket: bound, or handed over |
| `sockets` | those of several processes |
"""
