//! Which extensions a server offers: `servers[].extensions`.

/// The extensions that can be turned on and off. STARTTLS, AUTH and XCLIENT have settings of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // One an extension.
pub struct Extensions {
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870).
    pub size: bool,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// HELP (RFC 5321 §4.1.1.8).
    pub help: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// BINARYMIME (RFC 3030), which needs CHUNKING.
    pub binary_mime: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// LIMITS (RFC 9422).
    pub limits: bool,
}

impl Default for Extensions {
    /// All.
    fn default() -> Self {
        Self {
            pipelining: true,
            size: true,
            eight_bit_mime: true,
            enhanced_status_codes: true,
            help: true,
            smtputf8: true,
            chunking: true,
            binary_mime: true,
            dsn: true,
            limits: true,
        }
    }
}

impl Extensions {
    /// Whether BINARYMIME is offered: it needs BDAT (RFC 3030 §3).
    pub fn binary_mime(&self) -> bool {
        self.binary_mime && self.chunking
    }

    /// Whether SMTPUTF8 is offered: RFC 6531 §3.1 wants 8BITMIME beside it.
    pub fn offers_smtputf8(&self) -> bool {
        self.smtputf8 && self.eight_bit_mime
    }

    /// Turns one on or off, by its EHLO keyword in upper case; whether there is such a one.
    pub fn set(&mut self, keyword: &str, on: bool) -> bool {
        let extension = match keyword {
            "PIPELINING" => &mut self.pipelining,
            "SIZE" => &mut self.size,
            "8BITMIME" => &mut self.eight_bit_mime,
            "ENHANCEDSTATUSCODES" => &mut self.enhanced_status_codes,
            "HELP" => &mut self.help,
            "SMTPUTF8" => &mut self.smtputf8,
            "CHUNKING" => &mut self.chunking,
            "BINARYMIME" => &mut self.binary_mime,
            "DSN" => &mut self.dsn,
            "LIMITS" => &mut self.limits,
            _ => return false,
        };
        *extension = on;
        true
    }
}
