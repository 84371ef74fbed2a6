"""Mails posted to a web server: what comes there, and what its answers mean."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
import time
from typing import Any

import pytest

from guerrilla._core import Address, Envelope, TLSInfo
from guerrilla.reply import Replies, Reply
from guerrilla.webhook.fields import envelope_fields
from tests.services.webhook import OK, Request, Scripted, answer, answer_json
from tests.webhook.helpers import a_mail, codes, opened, post, told


def signed(request: Request, secret: str) -> str:
    """The signature that a request should have, by the words of the page."""
    pieces = [request.headers["X-Guerrilla-Timestamp"].encode()]
    if "X-Guerrilla-Envelope" in request.headers:
        pieces.append(request.headers["X-Guerrilla-Envelope"].encode())
    text = b".".join([*pieces, request.body])
    return "v1=" + hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def test_a_mail_of_any_script_is_posted_as_it_is() -> None:
    mail = Envelope.create(
        "From: Jörg <jörg@bücher.example>\r\nSubject: Grüße an 用户 😀\r\n\r\nü\r\n".encode(),
        mail_from="jörg@bücher.example",
        rcpt_to=("用户@例え.jp", '"ü ü"@bücher.example'),
        parameters={"SMTPUTF8": None},
        protocol="LMTP",
    )
    with Scripted(OK) as server:
        assert codes(post(server.url, mail)) == [250]
    (request,) = server.requests
    found = json.loads(request.body)
    assert found["mail_from"] == "jörg@bücher.example"
    assert found["rcpt_to"] == ["用户@例え.jp", '"ü ü"@bücher.example']
    assert (found["subject"], found["text"]) == ("Grüße an 用户 😀", "ü\r\n")
    assert {"name": "From", "value": "Jörg <jörg@bücher.example>"} in found["headers"]
    assert (found["protocol"], found["parameters"]) == ("UTF8LMTP", {"SMTPUTF8": None})


@pytest.mark.parametrize(
    ("protocol", "utf8", "tls", "auth", "named"),
    [
        ("SMTP", False, False, "alice", "SMTP"),
        ("ESMTP", False, True, None, "ESMTPS"),
        ("ESMTP", True, True, "alice", "UTF8SMTPSA"),
        ("LMTP", False, False, "alice", "LMTPA"),
        ("LMTP", True, True, None, "UTF8LMTPS"),
    ],
)
def test_the_protocol_is_named_as_received_does(
    protocol: Any, utf8: bool, tls: bool, auth: str | None, named: str
) -> None:
    mail = Envelope.create(
        b"",
        mail_from="a@example.org",
        rcpt_to=("to@example.com",),
        protocol=protocol,
        parameters={"SMTPUTF8": None} if utf8 else {},
        tls=TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256") if tls else None,
        auth=auth,
    )
    mail.make_delivery_header("mx.example")
    assert f" with {named} id ".encode() in mail.delivery_header
    assert envelope_fields(mail)["protocol"] == named


def test_a_mail_is_posted_as_json() -> None:
    mail = Envelope.create(
        b"Subject: =?utf-8?q?h=C3=A9?=\r\nX-A: 1\r\nx-a: =?utf-8?q?=E2=82=AC?=\r\n\r\nbody\r\n",
        mail_from="from@example.org",
        rcpt_to=("to@example.com", "two@example.com"),
        helo="client.example",
        remote_ip="192.0.2.1",
        remote_port=2_000,
        host_name="mx.example",
        tls=TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256"),
        auth="alice",
        parameters={"BODY": "8BITMIME"},
    )
    with Scripted(OK) as server:
        assert codes(post(server.url, mail)) == [250]
    [request] = server.requests
    assert request.line == "POST /hook HTTP/1.1"
    assert request.headers.get_content_type() == "application/json"
    assert request.headers["X-Guerrilla-Id"] == mail.queued_id
    assert "X-Guerrilla-Signature" not in request.headers
    found = request.json()
    assert found["queued_id"] == mail.queued_id
    assert found["received_at"] == mail.received_at
    assert (found["mail_from"], found["rcpt_to"]) == (
        "from@example.org",
        ["to@example.com", "two@example.com"],
    )
    assert (found["helo"], found["remote_ip"]) == ("client.example", "192.0.2.1")
    assert (found["protocol"], found["auth"]) == ("ESMTPSA", "alice")
    assert found["tls"]["version"] == "TLSv1.3"
    assert found["parameters"] == {"BODY": "8BITMIME"}
    assert (found["subject"], found["text"], found["html"]) == ("hé", "body\r\n", None)
    names = [field["name"] for field in found["headers"]]
    assert names == ["Received", "Subject", "X-A", "x-a"]
    assert [field["value"] for field in found["headers"]][1:] == ["hé", "1", "€"]
    assert (found["attachments"], found["truncated"], found["raw"]) == ([], False, None)


@pytest.mark.parametrize("keys", [{}, {"http_format": "raw"}])
def test_what_lmtp_smtputf8_and_dsn_say_is_there(keys: dict[str, str]) -> None:
    asked: dict[str, str | None] = {"NOTIFY": "SUCCESS,DELAY", "ORCPT": "rfc822;a+2Bb@example.com"}
    mail = Envelope.create(
        "Subject: Grüße\r\n\r\n".encode(),
        mail_from="jörg@bücher.example",
        rcpt_to=[Address("用户", "例え.jp"), Address("to", "example.com", asked)],
        protocol="LMTP",
        parameters={"SMTPUTF8": None, "RET": "HDRS", "ENVID": "QQ+2B1"},
    )
    with Scripted(OK) as server:
        post(server.url, mail, a_mail(), **keys)
    requests = {request.headers["X-Guerrilla-Id"]: request for request in server.requests}
    told = [
        request.json() if not keys else json.loads(request.headers["X-Guerrilla-Envelope"])
        for request in (requests.pop(mail.queued_id), *requests.values())
    ]
    assert (told[0]["protocol"], told[1]["protocol"]) == ("UTF8LMTP", "ESMTP")
    assert (told[0]["smtputf8"], told[1]["smtputf8"]) == (True, False)
    assert (told[0]["mail_from"], told[0]["rcpt_to"][0]) == ("jörg@bücher.example", "用户@例え.jp")
    assert told[1]["dsn"] is None
    assert told[0]["dsn"] == {
        "return": "HDRS",
        "envelope_id": "QQ+1",
        "recipients": [
            {"notify": None, "original_recipient": None},
            {"notify": ["SUCCESS", "DELAY"], "original_recipient": "rfc822;a+b@example.com"},
        ],
    }


def test_a_bounce_has_an_empty_sender() -> None:
    mail = Envelope.create(b"Subject: x\r\n\r\n", mail_from=None, rcpt_to=["to@example.com"])
    with Scripted(OK) as server:
        post(server.url, mail)
    assert server.requests[0].json()["mail_from"] == ""


@pytest.mark.parametrize("size", [0, 100, 5 << 20])
def test_a_mail_is_posted_as_it_came(size: int) -> None:
    mail = a_mail(body=b"x" * size + b"\r\n\xff\x00")
    with Scripted(OK) as server:
        keys = {"http_format": "raw", "http_secret": "s"}
        assert codes(post(server.url, mail, **keys)) == [250]
    [request] = server.requests
    assert request.body == bytes(mail)
    assert request.body.startswith(b"Received: ")
    assert request.headers.get_content_type() == "message/rfc822"
    envelope = json.loads(request.headers["X-Guerrilla-Envelope"])
    assert envelope["rcpt_to"] == ["to@example.com"]
    assert envelope["queued_id"] == request.headers["X-Guerrilla-Id"] == mail.queued_id
    assert request.headers["X-Guerrilla-Signature"] == signed(request, "s")


@pytest.mark.parametrize("keys", [{}, {"http_format": "raw"}, {"http_batch": "batch"}])
def test_it_is_signed_with_each_secret(keys: dict[str, str]) -> None:
    before = int(time.time())
    with Scripted(OK) as server:
        assert codes(post(server.url, a_mail(), http_secret=["new", "old"], **keys)) == [250]
    [request] = server.requests
    assert before <= int(request.headers["X-Guerrilla-Timestamp"]) <= time.time()
    wanted = [signed(request, "new"), signed(request, "old")]
    assert request.headers["X-Guerrilla-Signature"].split(",") == wanted


def test_own_header_fields_and_the_user_of_the_url_are_sent() -> None:
    with Scripted(OK) as server:
        url = server.url.replace("//", "//us%40er:p%3Aw@") + "?to=a"
        assert codes(post(url, a_mail(), http_headers={"X-Api-Key": "k", "Host": "h"})) == [250]
        headers = {"authorization": "Bearer x"}
        assert codes(post(url, a_mail(), http_headers=headers)) == [250]
    first, second = server.requests
    assert first.line == "POST /hook?to=a HTTP/1.1"
    assert first.headers["Authorization"] == "Basic dXNAZXI6cDp3"  # us@er:p:w
    assert (first.headers["X-Api-Key"], first.headers.get_all("Host")) == ("k", ["h"])
    assert second.headers.get_all("Authorization") == ["Bearer x"]


@pytest.mark.parametrize("batch", ["single", "batch"])
@pytest.mark.parametrize(
    ("status", "refused", "passing"),
    [
        *((status, 250, 250) for status in (200, 201, 202, 204)),
        *((status, 550, 451) for status in (400, 403, 404, 410, 422, 499)),
        (413, 552, 451),
        *((status, 451, 451) for status in (401, 407, 408, 425, 429)),
        *((status, 451, 451) for status in (301, 302, 304, 307, 308, 500, 502, 503, 599)),
    ],
)
def test_what_a_status_means(batch: str, status: int, refused: int, passing: int) -> None:
    head = f"HTTP/1.1 {status} Whatever\r\n"
    body = b"\r\n" if status in {204, 304} else b"Content-Length: 3\r\n\r\nyes"
    with Scripted(head.encode() + body) as server:
        keys = {"http_batch": batch}
        assert codes(post(server.url, a_mail(), http_client_error="550", **keys)) == [refused]
        assert codes(post(server.url, a_mail(), http_client_error=550, **keys)) == [refused]
        assert codes(post(server.url, a_mail(), http_client_error=451, **keys)) == [passing]
        assert codes(post(server.url, a_mail(), **keys)) == [passing]


def test_a_redirect_is_not_followed(caplog: pytest.LogCaptureFixture) -> None:
    with Scripted(OK) as other:
        where = f"Location: {other.url.replace('//', '//u:hidden@')}?token=hidden"
        with Scripted(answer(307, b"", where)) as server:
            assert codes(post(server.url, a_mail())) == [451]
        assert other.connections == 0
    [line] = [one.getMessage() for one in caplog.records if one.levelno == logging.ERROR]
    assert "status 307 to http://u:***@127.0.0.1" in line
    assert line.startswith(f"{server.origin}: ")
    assert "hidden" not in caplog.text


def test_a_connection_is_kept() -> None:
    with Scripted(OK) as server, opened(server, http_concurrency=1) as chain:
        assert [told(chain, a_mail()) for _ in range(5)] == [250] * 5
        mails = [a_mail() for _ in range(5)]
        chain.run(mails)
        assert {mail.answered for mail in mails} == {None}
        # The first was only to see that the server is there.
        assert {request.connection for request in server.requests} == {2}
        assert server.connections == 2


def test_so_many_requests_are_under_way() -> None:
    under_way = most = 0
    lock = threading.Lock()
    barrier = threading.Barrier(4)

    def say(_: Request) -> bytes:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        barrier.wait(20)  # It comes on only when four of them are here.
        with lock:
            under_way -= 1
        return OK

    with Scripted(say) as server:
        mails = [a_mail() for _ in range(16)]
        assert codes(post(server.url, *mails, http_concurrency=4, http_timeout=20)) == [250] * 16
    assert most <= 4
    assert {request.json()["queued_id"] for request in server.requests} == {
        mail.queued_id for mail in mails
    }


def test_no_cookie_is_kept() -> None:
    with Scripted(answer(200, b"", "Set-Cookie: a=b; Path=/")) as server, opened(server) as chain:
        assert [told(chain, a_mail()), told(chain, a_mail())] == [250, 250]
    assert [request.headers["Cookie"] for request in server.requests] == [None, None]


def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Scripted(OK) as server:
        assert codes(post(server.url, a_mail())) == [250]


# --- Replies for single mails and recipients -----------------------------------------------------

NO = {"code": 550, "enhanced": "5.7.1", "text": "no invoices"}
FULL = {"code": 452, "enhanced": "4.2.2", "text": "Mailbox full"}


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ({"replies": [{"code": 250}]}, None),
        ({"replies": [{"code": 299}]}, None),
        ({"replies": [NO]}, Reply(550, "5.7.1", "no invoices")),
        ({"replies": [{"code": 421}]}, Reply(421, "4.0.0", "Not saved")),
        ({"replies": [{"code": 550, "text": "é\r\n\0"}]}, Reply(550, "5.0.0", "? ?")),
        ({"replies": [NO | {"enhanced": "4.7.1"}]}, Reply.retry()),
        ({"replies": [{"code": 354}]}, Reply.retry()),
        ({"replies": [{"code": 10**30}]}, Reply.retry()),
        ({"replies": [{"code": "250"}]}, Reply.retry()),
        ({"replies": [{}]}, Reply.retry()),
        ({"replies": []}, Reply.retry()),
        ({"replies": [{"id": "another", "code": 250}]}, Reply.retry()),
        ({"replies": {"code": 250}}, Reply.retry()),
        ({"replies": ["250"]}, Reply.retry()),
        ({"replies": None}, Reply.retry()),
        ({"saved": True}, None),
        ([], None),
        ("saved", None),
    ],
)
def test_a_reply_of_its_own(said: object, reply: Reply | None) -> None:
    mail = a_mail()
    with Scripted(answer_json(said)) as server, opened(server) as chain:
        chain.run([mail])
    assert mail.answered == reply


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([{"rcpt_to": "a@example.com", **FULL}, {"code": 250}], [452, 250]),
        ([{"rcpt_to": "b@example.com", **NO}, {"code": 250}], [250, 550]),
        ([{"rcpt_to": "a@example.com", "code": 250}], [250, 451]),
        ([{"rcpt_to": "a@EXAMPLE.com", **FULL}, {"code": 250}], [451, 451]),
        ([{"rcpt_to": "a@example.com", **NO}, {"rcpt_to": "c", **NO}, {"code": 250}], [550, 451]),
        ([{"rcpt_to": f"{user}@example.com", "code": 250} for user in "ab"], None),
    ],
)
def test_a_reply_for_a_recipient(given: list[dict[str, Any]], wanted: list[int] | None) -> None:
    mail = a_mail("x", "a@example.com", "b@example.com")
    with Scripted(answer_json({"replies": given})) as server, opened(server) as chain:
        chain.run([mail])
    verdict = mail.answered
    if wanted is None:
        assert verdict is None
    else:
        assert isinstance(verdict, tuple)
        assert [reply.code for reply in verdict] == wanted
        assert Replies(verdict)


# --- Batches -------------------------------------------------------------------------------------


def test_a_batch_is_one_request() -> None:
    mails = [a_mail(str(number)) for number in range(10)]
    with Scripted(OK) as server:
        assert codes(post(server.url, *mails, http_batch="batch")) == [250] * 10
    [request] = server.requests
    assert [one["queued_id"] for one in request.json()] == [mail.queued_id for mail in mails]
    assert "X-Guerrilla-Id" not in request.headers


def test_a_batch_of_one_is_an_array() -> None:
    with Scripted(OK) as server:
        assert codes(post(server.url, a_mail(), http_batch="batch")) == [250]
    assert len(server.requests[0].json()) == 1


def test_each_mail_of_a_batch_has_its_reply() -> None:
    mails = [a_mail(str(number)) for number in range(4)]

    def say(request: Request) -> bytes:
        first, second, third, _ = (one["queued_id"] for one in request.json())
        given = [{"id": first, "code": 250}, {"id": second, **NO}, {"id": third, **FULL}]
        return answer_json({"replies": [*given, {"code": 250}]})

    with Scripted(say) as server:
        assert codes(post(server.url, *mails, http_batch="batch")) == [250, 550, 452, 451]


@pytest.mark.parametrize("client_error", [451, 550])
def test_a_mail_that_is_refused_takes_no_other_with_it(client_error: int) -> None:
    mails = [a_mail(subject) for subject in ("good", "bad", "fine", "busy", "gone")]

    def say(request: Request) -> bytes | None:
        subjects = [one["subject"] for one in request.json()]
        if subjects == ["gone"]:
            return None
        return answer(422 if "bad" in subjects else 503 if subjects == ["busy"] else 200)

    with Scripted(say) as server:
        keys = {"http_batch": "batch", "http_client_error": client_error}
        assert codes(post(server.url, *mails, **keys)) == [250, client_error, 250, 451, 451]
    assert [len(request.json()) for request in server.requests] == [5, 1, 1, 1, 1, 1]


def test_a_batch_is_split_by_its_size() -> None:
    mails = [a_mail(body=b"x" * size) for size in (10, 10, 50_000, 10)]
    with Scripted(OK) as server:
        keys = {"http_batch": "batch", "http_batch_size": "10 KiB"}
        assert codes(post(server.url, *mails, **keys)) == [250] * 4
    assert [len(request.json()) for request in server.requests] == [2, 1, 1]
    sent = [one["queued_id"] for request in server.requests for one in request.json()]
    assert sent == [mail.queued_id for mail in mails]


def test_what_was_saved_before_the_server_went_stays_saved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mails = [a_mail(str(number), body=b"x" * 5_000) for number in range(3)]

    def say(request: Request) -> bytes | None:
        return OK if request.json()[0]["subject"] == "0" else None

    with Scripted(say) as server:
        keys = {"http_batch": "batch", "http_batch_size": 1}
        assert codes(post(server.url, *mails, **keys)) == [250, 451, 451]
    assert len(server.requests) == 2  # What comes behind is not tried.
    assert f"answered 451: {mails[1].queued_id}, {mails[2].queued_id}" in caplog.text
