//! How a value is written: in TOML, in a variable, and when it is shown.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tempalias_address::{Domain, Mailbox};
use toml::de::DeValue;

/// A type that a key can have. Errors say what is wrong and show how it is written; they are put behind the name
/// of the key.
pub(super) trait Value: Sized {
    /// What it is, to be read after "must be".
    fn kind() -> String;

    /// From a string of the file, or from a variable.
    fn from_text(text: &str) -> Result<Self, String>;

    /// As it is written in the file; none if it is left out.
    fn to_toml(&self) -> Option<String>;

    /// From the file.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map_or_else(|| Err(wrong_type::<Self>(value)), Self::from_text)
    }

    /// The value of a key that may be left out.
    fn absent() -> Option<Self> {
        None
    }
}

/// `text` as a TOML string of one line.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => {
                let _infallible = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The refusal of a text that is not of this type.
pub(super) fn refused<V: Value>(text: &str) -> String {
    format!("must be {}, not {}", V::kind(), quoted(text))
}

fn wrong_type<V: Value>(value: &DeValue<'_>) -> String {
    let found = match value {
        DeValue::String(_) => "text in quotes",
        DeValue::Integer(_) | DeValue::Float(_) => "a number without quotes",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    };
    format!("must be {}, not {found}", V::kind())
}

impl<V: Value> Value for Vec<V> {
    fn kind() -> String {
        format!("a list; each item is {}", V::kind())
    }

    /// A variable separates the items by commas.
    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(V::from_text).collect()
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let items = value.as_array().ok_or_else(|| wrong_type::<Self>(value))?;
        let read = |(i, item): (usize, &toml::Spanned<DeValue<'_>>)| {
            V::from_toml(item.get_ref()).map_err(|text| format!("item {} {text}", i + 1))
        };
        items.iter().enumerate().map(read).collect()
    }

    fn to_toml(&self) -> Option<String> {
        let items: Vec<_> = self.iter().filter_map(V::to_toml).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

impl<V: Value> Value for Option<V> {
    fn kind() -> String {
        V::kind()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        V::from_text(text).map(Some)
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        V::from_toml(value).map(Some)
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(V::to_toml)
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

macro_rules! number {
    ($type:ty) => {
        impl Value for $type {
            fn kind() -> String {
                "a whole number".to_owned()
            }

            fn from_text(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| refused::<Self>(text))
            }

            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                let number = value.as_integer().ok_or_else(|| wrong_type::<Self>(value))?;
                Self::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| format!("must be a whole number from 0 to {}, not {number}", Self::MAX))
            }

            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    };
}

number!(u16);
number!(u32);

impl Value for bool {
    fn kind() -> String {
        "true or false".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| refused::<Self>(text))
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| wrong_type::<Self>(value))
    }

    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// Types whose text form is that of `FromStr` and `Display`, and whose errors say less than their kind does.
macro_rules! plain {
    ($type:ty, $kind:literal) => {
        impl Value for $type {
            fn kind() -> String {
                $kind.to_owned()
            }

            fn from_text(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| refused::<Self>(text))
            }

            fn to_toml(&self) -> Option<String> {
                Some(quoted(&self.to_string()))
            }
        }
    };
}

plain!(SocketAddr, "an IP address and a port such as \"127.0.0.1:8080\" or \"[::]:8080\"");

/// Types whose errors say what is wrong.
macro_rules! explained {
    ($type:ty, $kind:literal) => {
        impl Value for $type {
            fn kind() -> String {
                $kind.to_owned()
            }

            fn from_text(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|why| format!("{}: {why}", refused::<Self>(text)))
            }

            fn to_toml(&self) -> Option<String> {
                Some(quoted(&self.to_string()))
            }
        }
    };
}

explained!(Domain, "a domain such as \"alias.example\"");
explained!(Mailbox, "a mail address such as \"me@real.example\"");

impl Value for PathBuf {
    fn kind() -> String {
        "the path of a file".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err(refused::<Self>(text)) } else { Ok(text.into()) }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Value for IpNet {
    fn kind() -> String {
        "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or one address".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let one = || text.parse::<IpAddr>().map(Self::from);
        let net: Self = text.parse().or_else(|_| one()).map_err(|_| refused::<Self>(text))?;
        // 10.1.2.3/8 is as likely meant to be one address as the whole network: ask.
        if net.trunc() == net {
            Ok(net)
        } else {
            let (whole, one) = (net.trunc(), net.addr());
            Err(format!("must be a network: write \"{whole}\" or, for one address, \"{one}\", not \"{net}\""))
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// The units of a duration, largest first.
const UNITS: [(&str, u128); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Value for Duration {
    fn kind() -> String {
        "a duration such as \"30s\", \"9m30s\" or \"7d\" (units: ms, s, m, h, d)".to_owned()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        parse_duration(text.trim()).ok_or_else(|| refused::<Self>(text))
    }

    fn to_toml(&self) -> Option<String> {
        let mut rest = self.as_millis();
        let mut text = String::new();
        for (unit, millis) in UNITS {
            if rest >= millis {
                let _infallible = write!(text, "{}{unit}", rest / millis);
                rest %= millis;
            }
        }
        Some(quoted(if text.is_empty() { "0s" } else { &text }))
    }
}

fn parse_duration(mut text: &str) -> Option<Duration> {
    let mut total: u64 = 0;
    let mut largest = u128::MAX;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let digits = text.find(|c: char| !c.is_ascii_digit())?;
        let (number, rest) = text.split_at(digits);
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(letters);
        let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
        // Each unit once, the larger before the smaller: "30s9m" is a slip.
        if *millis >= largest {
            return None;
        }
        largest = *millis;
        let part = u64::try_from(*millis).ok()?.checked_mul(number.parse().ok()?)?;
        total = total.checked_add(part)?;
        text = rest;
    }
    Some(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis, written) in [
            ("30s", 30_000, "30s"),
            ("9m30s", 570_000, "9m30s"),
            ("7d", 604_800_000, "7d"),
            ("90s", 90_000, "1m30s"),
            ("500ms", 500, "500ms"),
            ("0s", 0, "0s"),
            ("1h", 3_600_000, "1h"),
        ] {
            let duration = Duration::from_text(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(duration.to_toml().unwrap(), format!("\"{written}\""), "{text}");
        }
        for bad in ["", "30", "s", "30 s", "-1s", "1.5h", "30s9m", "5s5s", "1y", "99999999999999999d", "١s"]
        {
            assert!(Duration::from_text(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_network_has_no_bits_beyond_its_prefix() {
        assert_eq!(IpNet::from_text("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(IpNet::from_text("::1").unwrap().to_string(), "::1/128");
        let why = IpNet::from_text("10.1.2.3/8").unwrap_err();
        assert!(why.contains("10.0.0.0/8") && why.contains("\"10.1.2.3\""), "{why}");
        for bad in ["", "10.0.0.0/33", "fd00::/129", "localhost", "10.0.0/8"] {
            assert!(IpNet::from_text(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn lists_come_from_variables_too() {
        assert_eq!(Vec::<u32>::from_text("1, 2,3").unwrap(), [1, 2, 3]);
        assert_eq!(Vec::<u32>::from_text("").unwrap(), [] as [u32; 0]);
        assert!(Vec::<u32>::from_text("1,x").is_err());
    }
}
