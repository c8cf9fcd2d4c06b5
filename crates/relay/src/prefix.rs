//! The header lines that we put on top of a message; nothing below them is ever touched.

use std::net::IpAddr;

use tempalias_address::ReversePath;
use tempalias_alias::{AliasId, Limits, ServerKey, UnixTime};
use tempalias_smtp::HelloName;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::Policy;

pub(crate) const DELIVERED_TO: &str = "Delivered-To";
pub(crate) const LOOP: &str = "X-Tempalias-Loop";

/// Who handed the message over, for `Received`.
#[derive(Debug, Clone)]
pub(crate) struct Trace<'a> {
    pub(crate) hello: &'a HelloName,
    pub(crate) extended: bool,
    pub(crate) smtputf8: bool,
    pub(crate) peer: IpAddr,
}

/// One recipient, as the header lines name it.
#[derive(Debug)]
pub(crate) struct Addressee<'a> {
    /// The whole alias, or the operator's address at our domain.
    pub(crate) address: &'a str,
    /// None for the operator.
    pub(crate) alias: Option<AliasState<'a>>,
}

/// What an alias's owner is told about it.
#[derive(Debug)]
pub(crate) struct AliasState<'a> {
    pub(crate) id: &'a AliasId,
    pub(crate) key: &'a ServerKey,
    pub(crate) limits: Limits,
    pub(crate) used: u32,
}

/// The lines for one message to these recipients, in their fixed order.
pub(crate) fn prefix(
    policy: &Policy,
    trace: &Trace<'_>,
    sender: &ReversePath,
    addressees: &[Addressee<'_>],
    now: UnixTime,
) -> Vec<u8> {
    let mut lines = String::new();
    if let [only] = addressees {
        push(&mut lines, DELIVERED_TO, only.address);
        if let Some(alias) = &only.alias {
            alias.push_lines(&mut lines, policy);
        }
    } else {
        // One owner's alias is not another's business: nobody can read whose these are.
        for addressee in addressees {
            push(&mut lines, LOOP, &loop_mark(policy, addressee.address));
        }
    }
    push(&mut lines, "Received", &received(policy, trace, sender, addressees, now));
    lines.into_bytes()
}

/// The value of `X-Tempalias-Loop` for a recipient.
fn loop_mark(policy: &Policy, address: &str) -> String {
    policy.keys.first().loop_mac(address)
}

/// Every value of `X-Tempalias-Loop` that we may have given it: an older server key made older ones.
pub(crate) fn loop_marks(policy: &Policy, address: &str) -> Vec<String> {
    policy.keys.all().map(|key| key.loop_mac(address)).collect()
}

impl AliasState<'_> {
    fn push_lines(&self, lines: &mut String, policy: &Policy) {
        if let Some(max) = self.limits.max_usage {
            push(lines, "X-Tempalias-Remaining", &max.get().saturating_sub(self.used).to_string());
        }
        if let Some(until) = self.limits.valid_until {
            push(lines, "X-Tempalias-Expires", &date(until));
        }
        let mac = self.key.mail_mac(self.id, self.limits.valid_until);
        push(lines, "X-Tempalias-Manage", &format!("<{}/m/{}.{}>", policy.public_url, self.id, mac.as_str()));
    }
}

/// RFC 5321 §4.4, without `for`: the target is hidden, and the alias stands above.
fn received(
    policy: &Policy,
    trace: &Trace<'_>,
    sender: &ReversePath,
    addressees: &[Addressee<'_>],
    now: UnixTime,
) -> String {
    let aliases: Vec<_> =
        addressees.iter().filter_map(|to| to.alias.as_ref().map(|alias| alias.id)).collect();
    let id = policy.keys.first().received_id(&aliases, sender, now);
    // RFC 3848 and RFC 6531 §4.3.
    let with = match (trace.extended, trace.smtputf8) {
        (_, true) => "UTF8SMTP",
        (true, false) => "ESMTP",
        (false, false) => "SMTP",
    };
    let peer = match trace.peer.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("IPv6:{v6}"),
    };
    format!(
        "from {} ([{peer}])\r\n\tby {} with {with} id {id};\r\n\t{}",
        trace.hello.as_str(),
        policy.hostname,
        date(now)
    )
}

fn push(lines: &mut String, name: &str, value: &str) {
    lines.extend([name, ": ", value, "\r\n"]);
}

/// RFC 5322 §3.3, in UTC.
fn date(at: UnixTime) -> String {
    i64::try_from(at.secs())
        .ok()
        .and_then(|secs| OffsetDateTime::from_unix_timestamp(secs).ok())
        .and_then(|date| date.format(&Rfc2822).ok())
        .unwrap_or_else(|| "Thu, 01 Jan 1970 00:00:00 +0000".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_rfc_5322() {
        assert_eq!(date(UnixTime::from_secs(1_290_427_200)), "Mon, 22 Nov 2010 12:00:00 +0000");
        assert_eq!(date(UnixTime::from_secs(u64::MAX / 1000)), "Thu, 01 Jan 1970 00:00:00 +0000");
    }
}
