"""What clients say, legal and illegal: strategies for hypothesis. `dialogues()` is what they make.

Words are Latin-1, so that any octet can stand in a text.
"""

from __future__ import annotations

from hypothesis import strategies as st

Octets = st.SearchStrategy[bytes]
Text = st.SearchStrategy[str]


def line(text: str) -> bytes:
    """A command."""
    return text.encode("latin-1") + b"\r\n"


def one_of(*texts: str) -> Text:
    """One of the words of all the texts."""
    return st.sampled_from([word for text in texts for word in text.split()])


def one_line_of(*texts: str) -> Text:
    """One of the lines of all the texts; their spaces count."""
    return st.sampled_from([word for text in texts for word in text.split("\n")])


@st.composite
def mostly(draw: st.DrawFn, usual: Octets, unusual: Octets) -> bytes:
    """`|` would give each of the many branches of both the same chance."""
    return draw(unusual if draw(st.integers(0, 7)) == 7 else usual)


# --- Paths and parameters -------------------------------------------------------------------------

address_noise = st.text(st.sampled_from('ab.@"\\<> :,[]1-é'), max_size=9)
hosts = one_of(
    "example.com EXAMPLE.com a.example.net example.net elsewhere.example my_host.example.net",
    "[127.0.0.1] [IPv6:::1] [127.0.0.256] a..b -a",
    "x" * 63 + ".example.net",
    "x" * 64 + ".example.net",
    "x." * 123 + "example.net",
    "x" * 256,
    "\xc3\xa9.example.net",  # é in UTF-8
)
# Latin-1 is what an octet is written as: these are UTF-8.
E_ACUTE, HAN, GRIN, C1 = (one.encode().decode("latin-1") for one in ("é", "例", "😀", "\x85"))
locals_ = one_of(
    f'{E_ACUTE} {HAN}.{GRIN} "{HAN}" ' + HAN * 42,
    "a Bob a.b+c !#$%&'*+-/=?^_`{|}~ postmaster .a a. a..b é",
    r'''"a" "a\"b" "@" ""''',
    "u" * 128,
    "u" * 129,
) | st.sampled_from(['"a b"', "", C1])
paths = st.one_of(
    st.builds("<{}@{}>".format, locals_, hosts),
    st.builds("<@{},@b.example:{}@{}>".format, hosts, locals_, hosts),
    st.builds("<{}>".format, address_noise),
    one_line_of("<>\n<Postmaster>\n<postmasters>\na@example.com\n< a@example.com>\n"),
)
parameters = st.lists(
    one_of(
        "SIZE=100 size=301 SIZE=99999 SIZE SIZE=-1 SIZE=000000000000000000000",
        "BODY=7BIT body=8bitmime BODY=BINARYMIME BODY=BINARY = X=é X=a=b -a",
        "SMTPUTF8 smtputf8 SMTPUTF8=1",
        "NOTIFY=NEVER notify=Success,DELAY NOTIFY=NEVER,DELAY ORCPT=rfc822;a+2Bb@c ORCPT=a@b",
        f"RET=FULL ret=hdrs RET=x ENVID=a+20b ENVID=a+b ORCPT=utf-8;{E_ACUTE} X={HAN}",
    ),
    max_size=3,
).map(lambda words: "".join(f" {word}" for word in words))

# --- Commands -------------------------------------------------------------------------------------

any_case = st.sampled_from([str.upper, str.lower, str.title])
hellos = st.builds(
    lambda verb, argument: line(f"{verb} {argument}"),
    one_of("HELO EHLO ehlo"),
    one_of(
        "client.example [127.0.0.1] [IPv6:2001:db8::1] 127.0.0.1 a. -a [1.2.3] a..b é", "x" * 256
    )
    | one_line_of("\na b")
    | address_noise,
)
mails = st.builds(
    lambda case, path, more: line(case("mail from:") + path + more),
    any_case,
    one_of("<from@example.org> <>") | paths,
    st.sampled_from(["", " SMTPUTF8"]) | parameters,
)
rcpts = st.builds(
    lambda case, path, more: line(case("rcpt to:") + path + more),
    any_case,
    paths,
    st.just("") | parameters,
)
likely_rcpts = one_line_of(
    "<a@example.com>\n<b@x.example.net>\n<Postmaster>\n<a@[127.0.0.1]>",
    '<"c d"@example.com>\n<a@elsewhere.example>',
    f"<{HAN}@example.com>\n<{GRIN}@a.{E_ACUTE}.example.net>\n<a@{HAN}.example>",
).map(lambda path: line(f"RCPT TO:{path}"))
simple = one_line_of(
    "RSET\nRSET now\nNOOP\nnoop  \nNOOP é\nVRFY\nVRFY bob\nHELP\nhelp me\nDATA\nDATA \nDATA x",
    "QUIT x\nEXPN a\nSTARTTLS x\nBDAT 1\nAUTH PLAIN\nXCLIENT ADDR=::1\nPROXY UNKNOWN",
    "\n \n NOOP\nNOOPS\nMAIL\nMAIL FROM\nMAIL  FROM:<>\nRCPT FROM:<a@example.com>",
    "GET / HTTP/1.1\nNOOP\0\nNOOP\t\n\rNOOP\nN\x7fOP\né",
).map(line) | st.just(b"NOOP\n\r\n")
long_lines = st.builds(
    lambda verb, length: line(verb + " " + "x" * (length - len(verb) - 3)),
    one_line_of("NOOP\nRCPT TO:<a@example.com>\nx"),
    st.sampled_from([2_047, 2_048, 2_049, 5_000]),
)
line_noise = st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=12)
noise = st.one_of(line_noise.map(line), st.binary(max_size=20), long_lines)
xclients = st.lists(
    one_of(
        "NAME=client.example NAME=[UNAVAILABLE] name=a.example. NAME=-a NAME=[192.0.2.1] NAME=",
        "ADDR=192.0.2.1 ADDR=IPv6:2001:db8::1 ADDR=2001:db8::1 ADDR=192.0.2.256 ADDR=[TEMPUNAVAIL]",
        "PORT=25 PORT=00025 PORT=65536 PORT=-1 PROTO=ESMTP PROTO=smtp PROTO=LMTP LOGIN=a+40b+",
        "HELO=proxied.example HELO=[unavailable] HELO=caf+E9 HELO=a+2Db HELO=a+0Ab X=y = é",
    ),
    max_size=3,
).map(lambda words: line(" ".join(["XCLIENT", *words])))
chunk_noise = one_line_of(
    "BDAT\nBDAT 1x\nbdat 1 LAST LAST\nBDAT 1\t\nBDAT 99999999999999999999\nBDAT -1\nBDATA 1",
).map(line) | st.just(b"BDAT 3\nabc\r\n")
stray_chunks = st.builds(
    lambda verb, size, end: line(f"{verb} {size}{end}"),
    one_of("BDAT bdat"),
    st.sampled_from([0, 0, 1, 2, 9, 20, 300, 11_000]),
    one_line_of("\n LAST\n  last "),
)
commands = st.one_of(
    hellos, mails, rcpts, simple, simple, noise, xclients, stray_chunks, chunk_noise
)

# --- Messages -------------------------------------------------------------------------------------

dots = b"\r\n|.|..|\r|\n|\r\n.|\r\n.\n|\n.\n|\r.\r\n|\r\n.\r|\r.\n".split(b"|")
words = b"Subject: x|text|\0|\xff| |RSET\r\n|QUIT\r\n".split(b"|")
bodies = st.one_of(
    st.lists(st.sampled_from([*dots, *words, b"x" * 200, b"y" * 2_100]), max_size=12).map(b"".join),
    st.lists(st.sampled_from(b"a\r\n|\r\n|..\r\n|.x\r\n".split(b"|")), max_size=6).map(b"".join),
    st.binary(max_size=300),
)

# --- The whole ------------------------------------------------------------------------------------


@st.composite
def transactions(draw: st.DrawFn) -> bytes:
    """A mail as it should be, most often."""
    hellos = ["EHLO client.example", "HELO [127.0.0.1]", "XCLIENT HELO=proxied.example"]
    said = draw(st.sampled_from([*map(line, hellos), b""]))
    said += draw(mostly(st.just(line("MAIL FROM:<from@example.org>")), mails))
    some = st.lists(mostly(likely_rcpts, rcpts | commands), min_size=1, max_size=5)
    said += b"".join(draw(some))
    if draw(st.booleans()):
        return said + draw(chunked())
    said += line("DATA") + draw(bodies)
    return said + draw(mostly(st.just(b"\r\n.\r\n"), st.sampled_from([b".\r\n", b""])))


@st.composite
def chunked(draw: st.DrawFn) -> bytes:
    """A message in chunks; now and then there is a command between them, or no last one."""
    said = b""
    for octets in draw(st.lists(bodies, max_size=4)):
        said += line(f"BDAT {len(octets)}") + octets
        said += draw(mostly(st.just(b""), commands))
    return said + draw(mostly(st.just(line("BDAT 0 LAST")), stray_chunks))


@st.composite
def dialogues(draw: st.DrawFn) -> bytes:
    """What a client says until it says no more."""
    parts = st.lists(st.booleans(), max_size=8)
    return b"".join(draw(transactions() if good else commands) for good in draw(parts))


cuts = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=6)
"""Where the octets are split, as parts of the whole; whether the replies are waited for there."""
endings = st.sampled_from(["QUIT", "QUIT", "finish sending", "close", "reset"])
