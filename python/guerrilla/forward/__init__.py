"""An SMTP and LMTP client that relays: what it hears is what our own client is to be told.

`replies`, `extensions`, `commands`, `client` and `body` are pieces of the protocol; `opening` and
`transaction` are what is said in which order, as generators that know neither a socket nor a clock
(`steps`). `link` is the socket, and `connection` takes a conversation over it.
"""

from guerrilla.forward.connection import Connection, Peer
from guerrilla.forward.steps import LoginRefusedError, LostError, ProtocolError, RefusedError
from guerrilla.forward.transaction import Mail, Result

__all__ = [
    "Connection",
    "LoginRefusedError",
    "LostError",
    "Mail",
    "Peer",
    "ProtocolError",
    "RefusedError",
    "Result",
]
