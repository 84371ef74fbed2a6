//! Every fixed reply, so that one page shows what goes on the wire.

use super::reply::Reply;

pub(super) const MAIL_OK: Reply = Reply::fixed(250, (2, 1, 0), "OK");
pub(super) const RCPT_OK: Reply = Reply::fixed(250, (2, 1, 5), "OK");
pub(super) const OK: Reply = Reply::fixed(250, (2, 0, 0), "OK");
pub(super) const CANNOT_VERIFY: Reply = Reply::fixed(252, (2, 5, 0), "Cannot verify user");
pub(super) const START_TLS: Reply = Reply::fixed(220, (2, 0, 0), "Ready to start TLS");
pub(super) const BYE: Reply = Reply::fixed(221, (2, 0, 0), "Bye");
pub(super) const HELP: Reply =
    Reply::fixed(214, (2, 0, 0), "Commands: HELO EHLO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT");
/// 3xx carries no enhanced code (RFC 2034 §4).
pub(super) const START_MAIL: &[u8] = b"354 Enter message, ending with '.' on a line by itself\r\n";

pub(super) const UNRECOGNIZED: Reply = Reply::fixed(500, (5, 5, 1), "Unrecognized command");
pub(super) const LINE_TOO_LONG: Reply = Reply::fixed(500, (5, 5, 2), "Line too long");
pub(super) const CONTROLS: Reply = Reply::fixed(
    500,
    (5, 5, 2),
    "Control characters in the command, or a line end that is not CRLF",
);
pub(super) const TOO_MANY_ERRORS: Reply =
    Reply::fixed(421, (4, 7, 0), "Too many unrecognized commands");
pub(super) const TOO_MANY_IDLE: Reply =
    Reply::fixed(421, (4, 7, 0), "Too many commands without a mail");
pub(super) const NO_ARGUMENT: Reply =
    Reply::fixed(501, (5, 5, 4), "Syntax: the command takes no argument");
pub(super) const NEEDS_ARGUMENT: Reply =
    Reply::fixed(501, (5, 5, 4), "Syntax: an argument is missing");
pub(super) const BAD_HELO: Reply =
    Reply::fixed(501, (5, 5, 4), "Syntax: a domain or address literal is needed");
pub(super) const MAIL_SYNTAX: Reply =
    Reply::fixed(501, (5, 5, 4), "Syntax: MAIL FROM:<reverse-path>");
pub(super) const RCPT_SYNTAX: Reply =
    Reply::fixed(501, (5, 5, 4), "Syntax: RCPT TO:<forward-path>");
pub(super) const XCLIENT_SYNTAX: Reply =
    Reply::fixed(501, (5, 5, 4), "Syntax: XCLIENT attribute=value...");
pub(super) const INVALID_ADDRESS: Reply = Reply::fixed(501, (5, 5, 4), "Invalid address");
pub(super) const BAD_PARAMETER: Reply = Reply::fixed(501, (5, 5, 4), "Invalid parameter");
pub(super) const PATH_TOO_LONG: Reply = Reply::fixed(550, (5, 5, 4), "Path too long");
pub(super) const LOCAL_TOO_LONG: Reply =
    Reply::fixed(550, (5, 5, 4), "Local part too long, cannot exceed 128 octets");
pub(super) const DOMAIN_TOO_LONG: Reply =
    Reply::fixed(550, (5, 5, 4), "Domain cannot exceed 255 characters");
pub(super) const NON_ASCII: Reply =
    Reply::fixed(553, (5, 6, 7), "Address is not ASCII and SMTPUTF8 is not offered");
pub(super) const NEEDS_SMTPUTF8: Reply =
    Reply::fixed(553, (5, 6, 7), "Address is not ASCII, which needs MAIL with SMTPUTF8");
pub(super) const NOT_UTF8: Reply = Reply::fixed(501, (5, 5, 4), "Address is not UTF-8");
pub(super) const HELO_FIRST: Reply = Reply::fixed(503, (5, 5, 1), "Error: HELO or EHLO first");
/// RFC 3207 §4.
pub(super) const TLS_FIRST: Reply =
    Reply::fixed(530, (5, 7, 0), "Must issue a STARTTLS command first");
pub(super) const TLS_ALREADY: Reply = Reply::fixed(503, (5, 5, 1), "Error: TLS is active already");
pub(super) const NOT_A_PROXY: Reply =
    Reply::fixed(550, (5, 7, 0), "Error: XCLIENT is for trusted proxies only");
pub(super) const XCLIENT_IN_MAIL: Reply =
    Reply::fixed(503, (5, 5, 1), "Error: MAIL transaction in progress");
pub(super) const NESTED_MAIL: Reply = Reply::fixed(503, (5, 5, 1), "Error: nested MAIL command");
pub(super) const NO_SENDER: Reply = Reply::fixed(503, (5, 5, 1), "Error: No sender");
pub(super) const NO_CHUNKS: Reply =
    Reply::fixed(503, (5, 5, 1), "Error: BDAT without MAIL, or behind a chunk that was refused");
pub(super) const BETWEEN_CHUNKS: Reply =
    Reply::fixed(503, (5, 5, 1), "Error: only BDAT or RSET may follow BDAT");
pub(super) const BINARY_IN_DATA: Reply =
    Reply::fixed(503, (5, 5, 1), "Error: BODY=BINARYMIME needs BDAT");
/// Not 501: the session ends, and that is only done behind a 421 (RFC 5321 §3.8).
pub(super) const CHUNK_SYNTAX: Reply =
    Reply::fixed(421, (4, 5, 4), "Syntax: BDAT size [LAST]; closing the connection");
pub(super) const CHUNKS_NOT_OFFERED: Reply =
    Reply::fixed(421, (4, 5, 1), "BDAT is not offered, closing the connection");
pub(super) const NO_RECIPIENTS: Reply = Reply::fixed(503, (5, 5, 1), "Error: No recipients");
pub(super) const NO_VALID_RECIPIENTS: Reply = Reply::fixed(554, (5, 5, 1), "No valid recipients");
pub(super) const TOO_MANY_RECIPIENTS: Reply = Reply::fixed(452, (4, 5, 3), "Too many recipients");
pub(super) const BARE_NEWLINE: Reply =
    Reply::fixed(554, (5, 6, 0), "Error: the message has a CR or LF that is not part of a CRLF");
pub(super) const TOO_MANY_HOPS: Reply = Reply::fixed(554, (5, 4, 6), "Error: too many hops");
pub(super) const NO_MEMORY: Reply =
    Reply::fixed(452, (4, 3, 1), "Insufficient memory, please try again later");
pub(super) const NO_STORAGE: Reply =
    Reply::fixed(452, (4, 3, 1), "Insufficient storage, please try again later");
pub(super) const INTAKE_CLOSED: Reply =
    Reply::fixed(451, (4, 3, 2), "Not accepting mail now, please try again later");
pub(super) const SAVE_FAILED: Reply =
    Reply::fixed(451, (4, 3, 0), "Error: could not save, please try again later");
pub(super) const BACKEND_DOWN: Reply =
    Reply::fixed(451, (4, 3, 0), "Error: storage is not available, please try again later");
pub(super) const SAVE_TIMEOUT: Reply =
    Reply::fixed(451, (4, 3, 0), "Error: saving takes too long, please try again later");
pub(super) const CHECK_TIMEOUT: Reply = Reply::fixed(
    451,
    (4, 4, 3),
    "Error: checking the recipient takes too long, please try again later",
);
pub(super) const AUTH_OK: Reply = Reply::fixed(235, (2, 7, 0), "Authentication successful");
pub(super) const AUTH_FAILED: Reply =
    Reply::fixed(454, (4, 7, 0), "Temporary authentication failure");
pub(super) const AUTH_REFUSED: Reply =
    Reply::fixed(421, (4, 7, 0), "Too many authentication failures");
pub(super) const AUTH_SYNTAX: Reply =
    Reply::fixed(501, (5, 5, 4), "Syntax: AUTH mechanism [initial-response]");
pub(super) const AUTH_CANCELLED: Reply = Reply::fixed(501, (5, 7, 0), "Authentication cancelled");
pub(super) const NOT_BASE64: Reply = Reply::fixed(501, (5, 5, 2), "Cannot decode the response");
pub(super) const NO_CREDENTIALS: Reply =
    Reply::fixed(501, (5, 5, 2), "The response has no proper name and password");
pub(super) const AUTH_TOO_LONG: Reply =
    Reply::fixed(500, (5, 5, 6), "Authentication exchange line is too long");
pub(super) const UNKNOWN_MECHANISM: Reply =
    Reply::fixed(504, (5, 5, 4), "Unrecognized authentication mechanism");
pub(super) const AUTH_REQUIRED: Reply = Reply::fixed(530, (5, 7, 0), "Authentication required");
/// RFC 4954 §6, and Postfix's for `smtpd_tls_auth_only`: a client that did not look at what is offered.
pub(super) const AUTH_NEEDS_TLS: Reply =
    Reply::fixed(538, (5, 7, 11), "Encryption required for requested authentication mechanism");
pub(super) const EHLO_FIRST: Reply = Reply::fixed(503, (5, 5, 1), "Error: EHLO or LHLO first");
pub(super) const AUTH_IN_MAIL: Reply =
    Reply::fixed(503, (5, 5, 1), "Error: MAIL transaction in progress");
pub(super) const AUTH_ALREADY: Reply = Reply::fixed(503, (5, 5, 1), "Error: already authenticated");
pub(super) const LHLO_ONLY: Reply =
    Reply::fixed(500, (5, 5, 1), "Unrecognized command: this is LMTP, say LHLO");
pub(super) const LHLO_FIRST: Reply = Reply::fixed(503, (5, 5, 1), "Error: LHLO first");
pub(super) const LMTP_HELP: Reply =
    Reply::fixed(214, (2, 0, 0), "Commands: LHLO MAIL RCPT DATA RSET NOOP VRFY HELP QUIT");
pub(super) const IDLE_TIMEOUT: Reply =
    Reply::fixed(421, (4, 4, 2), "Timeout, closing the connection");
pub(super) const SHUTDOWN: Reply =
    Reply::fixed(421, (4, 3, 0), "Server is shutting down. Please try again later");
pub(super) const SERVER_GONE: Reply =
    Reply::fixed(421, (4, 3, 2), "Not accepting mail here any more, please connect again");
pub(super) const TOO_MANY_CLIENTS: Reply =
    Reply::fixed(421, (4, 7, 0), "Too many connections, please try again later");
pub(super) const TOO_MANY_FROM_ADDRESS: Reply =
    Reply::fixed(421, (4, 7, 0), "Too many connections from your address, please try again later");
pub(super) const TOO_FAST_FROM_ADDRESS: Reply = Reply::fixed(
    421,
    (4, 7, 0),
    "Too many new connections from your address, please try again later",
);
pub(super) const TOO_MANY_MESSAGES: Reply =
    Reply::fixed(421, (4, 7, 0), "Too many messages on this connection, please open another one");
pub(super) const PROXY_ONLY: Reply =
    Reply::fixed(421, (4, 7, 0), "This port takes connections from its proxies only");
pub(super) const EARLY_TALKER: Reply =
    Reply::fixed(554, (5, 5, 1), "Error: you spoke before the greeting");
pub(super) const INTERNAL_ERROR: Reply =
    Reply::fixed(421, (4, 3, 0), "Internal error, closing the connection");
