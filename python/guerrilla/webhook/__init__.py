"""What `HTTP` posts to a web server, and what it makes of the answer.

`content` is the body of a request, of the fields of `fields` and the parts of `parts`; `signature`
signs it; `answers` says what a response means for a mail. None of these knows a socket. `client`
is the connection, and the only one that imports httpx.
"""
