"""A FastCGI client: what a web server is to PHP-FPM, without the web.

`records` is the protocol and `form` what a script reads as `$_POST`; both know no socket.
`connection` is the socket.
"""

from guerrilla.fcgi.connection import Connection, LostError
from guerrilla.fcgi.records import Answer, ProtocolError

__all__ = ["Answer", "Connection", "LostError", "ProtocolError"]
