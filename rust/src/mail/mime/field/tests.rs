//! Values with their parameters, as they are sent.

use super::*;

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn parse(text: &str) -> (String, Vec<(String, String)>) {
    let value = Value::parse(text.as_bytes());
    let parameters = value.parameters(&|label, _| Some(format!("[{label}]")));
    (value.value, parameters)
}

#[test]
fn reads_values_and_parameters() {
    let table: [(&str, &str, Pairs<'_>); 20] = [
        ("", "", &[]),
        (" Text/Plain ", "text/plain", &[]),
        ("text / plain", "text/plain", &[]),
        ("text/(a (nested \\) comment))plain; a=b", "text/plain", &[("a", "b")]),
        ("text/plain; (unclosed; a=b", "text/plain", &[]),
        (
            "text/plain; charset=UTF-8; Format=flowed",
            "text/plain",
            &[("charset", "UTF-8"), ("format", "flowed")],
        ),
        (
            "text/plain;a=b;;c = d ; e=\"f;g\"",
            "text/plain",
            &[("a", "b"), ("c", "d"), ("e", "f;g")],
        ),
        ("text/plain charset=utf-8", "text/plain", &[("charset", "utf-8")]),
        ("text/plain; a=b c=d", "text/plain", &[("a", "b"), ("c", "d")]),
        ("text/plain; a=us-ascii (Plain text)", "text/plain", &[("a", "us-ascii")]),
        ("a/b; name=my file (1).txt ; c=d", "a/b", &[("c", "d"), ("name", "my file (1).txt")]),
        ("x; filename=\"C:\\dir\\a \\\"b\\\\.txt\"", "x", &[("filename", "C:\\dir\\a \"b\\.txt")]),
        ("x; a=\"unclosed; b=c", "x", &[("a", "unclosed; b=c")]),
        ("x; a=\"b\\", "x", &[("a", "b\\")]),
        ("x; a=\"b\"c; d=e", "x", &[("a", "b"), ("d", "e")]),
        ("x; flag; a; b=", "x", &[("b", "")]),
        ("x; =b; a=c", "x", &[("a", "c")]),
        ("x; a=1; A=2", "x", &[("a", "1")]),
        ("; a=b", "", &[("a", "b")]),
        ("x; a==b", "x", &[("a", "=b")]),
    ];
    for (text, value, parameters) in table {
        let parameters =
            parameters.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text), (value.to_owned(), parameters.collect()), "{text}");
    }
}

#[test]
fn decodes_parameters() {
    let table: [(&str, &str); 21] = [
        ("a*=utf-8''caf%C3%A9", "caf\u{e9}"),
        ("a*=UTF-8'fr'caf%c3%a9", "caf\u{e9}"),
        ("a*=iso-8859-1''caf%E9", "caf\u{e9}"),
        ("a*=odd''caf%E9", "[odd]"),
        ("a*=''caf%C3%A9", "caf\u{e9}"),
        ("a*=caf%C3%A9", "caf\u{e9}"),
        ("a*=utf-8''100%; b=c", "100%"),
        ("a*=utf-8''it's", "it's"),
        ("a*0=one; a*1=\" two\"", "one two"),
        ("a*1=two; a*0=one", "onetwo"),
        ("a*0*=utf-8''caf%C3; a*1*=%A9%20; a*2=%41", "caf\u{e9} %41"),
        ("a*0=one; a*0=more; a*2=three", "onethree"),
        ("a=plain; a*=utf-8''extended", "extended"),
        ("a*=utf-8''extended; a=plain", "extended"),
        ("a=plain; a*0=one", "one"),
        ("a*0=one; a*=utf-8''extended", "extended"),
        ("a=\"=?utf-8?q?caf=C3=A9?=\"", "caf\u{e9}"),
        ("a*0=\"=?utf-8?q?caf=C3\"; a*1=\"=A9?=\"", "caf\u{e9}"),
        ("a*=utf-8''%3D%3Fx%3F=", "=?x?="),
        ("a*=utf-8''a%0D%0Ab%00c", "a  b c"),
        ("a=\"a\r\nb\0\"", "a  b "),
    ];
    for (text, expected) in table {
        let value = Value::parse(format!("x; {text}").as_bytes());
        let found = value.get("a", &|label, _| Some(format!("[{label}]")));
        assert_eq!(found.as_deref(), Some(expected), "{text}");
    }
    let unknown = Value::parse(b"x; a*=odd''caf%E9");
    assert_eq!(unknown.get("a", &|_, _| None).as_deref(), Some("caf\u{e9}"));
    assert_eq!(
        Value::parse(b"x; a=\xe9\xff").get("a", &|_, _| None).as_deref(),
        Some("\u{e9}\u{ff}")
    );
    assert_eq!(Value::parse(b"x; a*x=1; a*0x*=2").get("a", &|_, _| None), None);
}

#[test]
fn gives_a_plain_parameter_as_sent() {
    let value = Value::parse(b"x; a*0=1; a*=''2; a=\"\xe9 \"; a=4");
    assert_eq!(value.octets("a"), Some(&b"\xe9 "[..]));
    assert_eq!(value.octets("b"), None);
}

#[test]
fn reads_so_many_parameters() {
    let many = format!("x{}; last=1", "; a=b".repeat(MAX_PARAMETERS - 1));
    assert_eq!(Value::parse(many.as_bytes()).octets("last"), Some(&b"1"[..]));
    let more = format!("x{}; last=1", "; a=b".repeat(MAX_PARAMETERS));
    assert_eq!(Value::parse(more.as_bytes()).octets("last"), None);
}
