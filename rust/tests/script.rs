//! A conversation file, read: `tests/conversations/README.md` has the format.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use guerrilla::smtp::{BareNewline, HostList, Protocol, Reply, Settings, Verdict};
use regex_lite::Regex;

/// What is wrong, behind the number of the line.
pub(crate) type Problem = String;

pub(crate) fn problem(line: usize, text: impl std::fmt::Display) -> Problem {
    format!("{line}: {text}")
}

pub(crate) struct Script {
    pub(crate) settings: Settings,
    pub(crate) max_memory: u64,
    pub(crate) spill_size: u64,
    pub(crate) intake_open: bool,
    /// Whether the client is a trusted proxy.
    pub(crate) trusted: bool,
    pub(crate) blocks: Vec<Block>,
    /// One a question, in order; `None` where the file has no verdicts at all.
    pub(crate) verdicts: Option<VecDeque<Option<Verdict>>>,
    pub(crate) delivered: Vec<(usize, String)>,
    pub(crate) end: Option<(usize, End)>,
    pub(crate) twins: Vec<PathBuf>,
}

/// What the client says, and then the replies to it.
#[derive(Default)]
pub(crate) struct Block {
    pub(crate) line: usize,
    pub(crate) sent: Vec<u8>,
    pub(crate) replies: Vec<Expected>,
    /// Whether the handshake follows.
    pub(crate) tls: bool,
}

pub(crate) struct Expected {
    pub(crate) line: usize,
    pub(crate) pattern: Pattern,
    /// Lines before it that do not match are passed over.
    pub(crate) skip: bool,
}

pub(crate) enum Pattern {
    Exactly(String),
    Matches(Regex),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The client goes away.
    Disconnect,
    /// The server has closed.
    Closed,
}

impl Script {
    pub(crate) fn read(path: &Path) -> Result<Self, Problem> {
        let text = std::fs::read_to_string(path).map_err(|error| problem(0, error))?;
        let mut script = Self {
            settings: Settings { host_name: "mx.example.com".into(), ..Settings::default() },
            max_memory: 256 << 20,
            spill_size: 0,
            intake_open: true,
            trusted: false,
            blocks: vec![Block::default()],
            verdicts: None,
            delivered: Vec::new(),
            end: None,
            twins: twins(path),
        };
        if !text.starts_with("# ") {
            return Err(problem(1, "the first line says why the file is there, behind '# '"));
        }
        let mut skip = false;
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            script.line(number, line, &mut skip).map_err(|text| problem(number, text))?;
        }
        if script.blocks.last().is_some_and(|block| block.replies.is_empty() && block.line > 0)
            && script.end.is_none()
        {
            return Err(problem(text.lines().count(), "ends without a reply or an '=='"));
        }
        Ok(script)
    }

    fn line(&mut self, number: usize, line: &str, skip: &mut bool) -> Result<(), String> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let (mark, rest) = line.split_at_checked(2).ok_or("no mark of two characters")?;
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        if self.end.is_some() {
            return Err("nothing may stand behind '== disconnect' or '== closed'".to_owned());
        }
        match mark {
            "! " => return self.setting(rest),
            "C:" => self.say(number, &[rest.as_bytes(), b"\r\n"].concat()),
            "C|" => self.say(number, &unescape(rest)?),
            "C*" => {
                let (count, text) = rest.split_once(' ').ok_or("C* needs a count and a text")?;
                let count = count.parse().map_err(|_| "C* needs a number")?;
                self.say(number, &unescape(text)?.repeat(count));
            }
            "S:" => self.expect(number, Pattern::Exactly(rest.to_owned()), skip),
            "S~" => {
                let regex = Regex::new(rest).map_err(|error| error.to_string())?;
                self.expect(number, Pattern::Matches(regex), skip);
            }
            "S." if rest == ".." => *skip = true,
            "V:" => self.verdicts.get_or_insert_default().push_back(verdict(rest)?),
            "==" => self.mark(number, rest)?,
            _ => return Err(format!("unknown mark {mark:?}")),
        }
        Ok(())
    }

    fn say(&mut self, line: usize, octets: &[u8]) {
        if self.blocks.last().is_none_or(|block| !block.replies.is_empty() || block.tls) {
            self.blocks.push(Block::default());
        }
        if let Some(block) = self.blocks.last_mut() {
            block.line = line;
            block.sent.extend_from_slice(octets);
        }
    }

    fn expect(&mut self, line: usize, pattern: Pattern, skip: &mut bool) {
        if let Some(block) = self.blocks.last_mut() {
            block.replies.push(Expected { line, pattern, skip: std::mem::take(skip) });
        }
    }

    fn mark(&mut self, number: usize, text: &str) -> Result<(), String> {
        match text.split_once(' ') {
            None if text == "tls" => {
                self.blocks.last_mut().ok_or("nothing is said yet")?.tls = true;
            }
            None if text == "disconnect" => self.end = Some((number, End::Disconnect)),
            None if text == "closed" => self.end = Some((number, End::Closed)),
            Some(("delivered", envelope)) => self.delivered.push((number, envelope.to_owned())),
            _ => return Err(format!("unknown '== {text}'")),
        }
        Ok(())
    }

    fn setting(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = text.split_once(' ').ok_or("a setting is '! name value'")?;
        let number = || value.parse::<u64>().map_err(|_| format!("{name}: not a number"));
        let count = || value.parse::<u32>().map_err(|_| format!("{name}: not a number"));
        let flag = || value.parse::<bool>().map_err(|_| format!("{name}: not true or false"));
        let settings = &mut self.settings;
        match name {
            "host_name" => settings.host_name = value.into(),
            "max_size" => settings.max_size = number()?,
            "max_memory" => self.max_memory = number()?,
            "spill_size" => self.spill_size = number()?,
            "max_recipients" => settings.max_recipients = count()? as usize,
            "max_received_hops" => settings.max_received_hops = count()? as usize,
            "max_messages" => settings.max_messages = count()?,
            "max_errors" => settings.max_errors = count()?,
            "max_idle_commands" => settings.max_idle_commands = count()?,
            "helo_required" => settings.helo_required = flag()?,
            "start_tls" => settings.start_tls = flag()?,
            "tls_required" => settings.tls_required = flag()?,
            "xclient" => settings.xclient = flag()?,
            "trusted" => self.trusted = flag()?,
            "check_recipients" => settings.check_recipients = flag()?,
            "intake_open" => self.intake_open = flag()?,
            "protocol" => {
                settings.protocol = Protocol::parse(value).ok_or("protocol: smtp or lmtp")?;
            }
            "without" => {
                for keyword in value.split_whitespace() {
                    if !settings.extensions.set(keyword, false) {
                        return Err(format!("without: no extension {keyword}"));
                    }
                }
            }
            "auth" => {
                settings.auth.offered = true;
                for name in value.split_whitespace() {
                    match name {
                        "offered" => {}
                        "required" => settings.auth.required = true,
                        "relay" => settings.auth.relay = true,
                        "allow_plaintext" => settings.auth.allow_plaintext = true,
                        _ => return Err(format!("auth: unknown: {name}")),
                    }
                }
            }
            "bare_newline" => {
                settings.bare_newline =
                    BareNewline::parse(value).ok_or("bare_newline: fix, keep or reject")?;
            }
            "allowed_hosts" => {
                settings.allowed_hosts = HostList::new(value.split_whitespace())
                    .map_err(|error| format!("allowed_hosts: {error}"))?;
            }
            _ => return Err(format!("unknown setting {name:?}")),
        }
        Ok(())
    }
}

/// `NAME.eml`, else `NAME.1.eml`, `NAME.2.eml`, …
fn twins(path: &Path) -> Vec<PathBuf> {
    let one = path.with_extension("eml");
    if one.exists() {
        return vec![one];
    }
    let numbered = |number: u32| path.with_extension(format!("{number}.eml"));
    (1..100).map(numbered).take_while(|path| path.exists()).collect()
}

/// `\r`, `\n`, `\t`, `\\` and `\xHH`.
fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match (octet, octet == b'\\') {
            (_, false) => octet,
            _ => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digits: String = rest.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&digits, 16)
                        .map_err(|_| format!("bad escape \\x{digits}"))?
                }
                _ => return Err("unknown escape".to_owned()),
            },
        });
    }
    Ok(octets)
}

/// `ok` (what is said when nobody objects), one reply, or one a recipient behind ` | `.
fn verdict(text: &str) -> Result<Option<Verdict>, String> {
    if text == "ok" {
        return Ok(None);
    }
    let mut replies = text.split(" | ").map(reply).collect::<Result<Vec<Reply>, String>>()?;
    match replies.len() {
        1 => Ok(replies.pop().map(Verdict::All)),
        _ => Ok(Some(Verdict::Each(replies))),
    }
}

fn reply(text: &str) -> Result<Reply, String> {
    let (code, text) = text.split_once(' ').unwrap_or((text, ""));
    let code = code.parse().map_err(|_| "a reply begins with its code")?;
    let (enhanced, text) = match text.split_once(' ').unwrap_or((text, "")) {
        (word, rest) if word.split('.').count() == 3 => (Some(word), rest),
        _ => (None, text),
    };
    Reply::new(code, enhanced, text).map_err(|error| error.to_string())
}
