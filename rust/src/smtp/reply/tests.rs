//! What goes on the wire, in each form, and what must not.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use super::*;

fn wire(reply: &Reply) -> String {
    let mut out = Vec::new();
    reply.write_to(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_short_reply_is_one_line() {
    assert_eq!(wire(&fixed::MAIL_OK), "250 2.1.0 OK\r\n");
    assert_eq!(wire(&Reply::new(250, None, "").unwrap()), "250 \r\n");
    assert_eq!(wire(&Reply::new(550, Some("5.710.21"), "no").unwrap()), "550 5.710.21 no\r\n");
}

#[test]
fn a_long_text_wraps_within_512_octets_and_loses_no_word() {
    let words = vec!["word"; 400].join(" ");
    let reply = Reply::new(550, Some("5.7.1"), words.clone()).unwrap();
    let text = wire(&reply);
    let lines: Vec<&str> = text.split_terminator("\r\n").collect();
    assert!(lines.len() > 1);
    assert!(lines.iter().all(|line| line.len() <= MAX_LINE));
    assert!(lines.iter().rev().skip(1).all(|line| line.starts_with("550-5.7.1 ")));
    assert!(lines.last().unwrap().starts_with("550 5.7.1 "));
    let joined: Vec<&str> = lines.iter().map(|line| line.get(10..).unwrap()).collect();
    assert_eq!(joined.join(" "), words);
}

#[test]
fn a_text_without_spaces_is_cut_and_eleven_lines_are_refused() {
    assert!(Reply::new(250, None, "x".repeat(5_060)).is_ok());
    assert_eq!(Reply::new(250, None, "x".repeat(5_061)), Err(ReplyError::TooLong));
}

#[test]
fn what_must_not_go_on_the_wire_is_refused() {
    for code in [0, 199, 300, 354, 600, 999] {
        assert_eq!(Reply::new(code, None, "x"), Err(ReplyError::Code(code)));
    }
    for enhanced in ["4.3.0", "5", "5.1", "5.1.1.1", "5.1.1000", "5.01.1", "5.x.1", "6.1.1", ""] {
        assert_eq!(Reply::new(550, Some(enhanced), "x"), Err(ReplyError::Enhanced), "{enhanced}");
    }
    for text in ["a\r\nb", "a\0", "tab\t", "caf\u{85}", "\u{7f}", "\u{2028}"] {
        assert_eq!(Reply::new(250, None, text), Err(ReplyError::Text), "{text:?}");
    }
}

#[test]
fn a_text_beyond_ascii_is_embedded_where_utf_8_is_not_allowed() {
    let reply = Reply::new(550, Some("5.1.1"), "j\u{f6}rg \u{4f8b} \u{1f600}?").unwrap();
    assert_eq!(wire(&reply), "550 5.1.1 j\\x{F6}rg \\x{4F8B} \\x{1F600}?\r\n");
}

#[test]
fn utf_8_is_for_the_mailbox_in_251_and_551_alone() {
    let told = |code, text: &str, utf8| {
        let mut out = Vec::new();
        let form = Form { enhanced: false, utf8 };
        Reply::new(code, None, text).unwrap().write_as(form, &mut out);
        String::from_utf8(out).unwrap()
    };
    for (code, utf8, expected) in [
        (551, true, "551 try <j\u{f6}rg@b>\r\n"),
        (251, true, "251 try <j\u{f6}rg@b>\r\n"),
        (551, false, "550 try <j\\x{F6}rg@b>\r\n"),
        (251, false, "250 try <j\\x{F6}rg@b>\r\n"),
        (550, true, "550 try <j\\x{F6}rg@b>\r\n"),
        (250, true, "250 try <j\\x{F6}rg@b>\r\n"),
        (451, true, "451 try <j\\x{F6}rg@b>\r\n"),
    ] {
        assert_eq!(told(code, "try <j\u{f6}rg@b>", utf8), expected);
    }
    assert_eq!(told(551, "try <joerg@b>", false), "551 try <joerg@b>\r\n");
    assert_eq!(told(251, "try <joerg@b>", true), "251 try <joerg@b>\r\n");
}

#[test]
fn no_character_is_cut_and_none_is_lost() {
    for character in ["\u{f6}", "\u{4f8b}", "\u{1f600}", "\u{10fffd}"] {
        for padding in 0..12 {
            let text = "x".repeat(padding) + &character.repeat(300);
            for (utf8, enhanced) in [(true, true), (true, false), (false, true)] {
                let form = Form { enhanced, utf8 };
                let reply = Reply::new(551, Some("5.1.1"), text.clone()).unwrap();
                let mut out = Vec::new();
                reply.write_as(form, &mut out);
                let out = String::from_utf8(out).unwrap();
                assert!(out.split_terminator("\r\n").all(|line| line.len() <= MAX_LINE));
                let prefix = if enhanced { 10 } else { 4 };
                let joined: String =
                    out.split_terminator("\r\n").map(|line| line.get(prefix..).unwrap()).collect();
                let mut whole = Vec::new();
                push_text(&mut whole, &text, form);
                assert_eq!(joined.as_bytes(), whole);
                // Whole characters: a brace is open at no line end.
                for line in out.split_terminator("\r\n") {
                    assert_eq!(line.matches('{').count(), line.matches('}').count(), "{line}");
                }
            }
        }
    }
}

#[test]
fn folding_is_250_only_when_all_are() {
    let ok = fixed::OK;
    let gone = Reply::new(550, Some("5.1.1"), "gone").unwrap();
    let full = Reply::new(452, Some("4.2.2"), "full").unwrap();
    let each =
        |replies: &[&Reply]| Verdict::Each(replies.iter().map(|&r| r.clone()).collect()).fold();
    assert_eq!(each(&[&ok, &ok]), ok);
    assert_eq!(each(&[&ok, &gone]), gone);
    assert_eq!(each(&[&gone, &full, &ok]), full);
    assert_eq!(each(&[]), fixed::SAVE_FAILED);
}
