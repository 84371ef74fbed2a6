"""Messages that a store has to keep as they are, strange as they may be."""

BAD = {
    "NUL": b"Subject: a\0b\r\n\r\nx\0y\r\n",
    "no UTF-8": b"Subject: \xff\xfe\r\nX-\xe9: \x80\r\n\r\n\xff\r\n",
    "headers": b"".join(b"X-Header-%d: value\r\n" % n for n in range(10_000)) + b"\r\nbody\r\n",
    "big": b"Subject: big\r\n\r\n" + b"x" * 76 * 1024 + b"\r\n" + (b"y" * 998 + b"\r\n") * 52_000,
    "no header": b"\r\nbody\r\n",
    "no body": b"Subject: none\r\n\r\n",
    "empty": b"",
    "dots and Froms": b"Subject: a\r\n\r\nFrom here\r\n.\r\n..\r\n",
}
