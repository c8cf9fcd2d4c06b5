//! From the text of a dialogue to its steps.

use std::time::Duration;

use super::{
    Action, CONFIG_KEYS, Change, Count, DEFAULT_OFFERS, Dialogue, Fault, HopBreaks, HopConnects, HopFailure,
    HopLeft, Lane, Memory, Seed, Step, Unreadable, duration, size,
};
use crate::text::unescape;

/// Dialogues that take longer are for virtual time.
const LONGEST_OVER_TCP: Duration = Duration::from_secs(3);

pub(super) fn parse(name: &str, text: &str) -> Result<Dialogue, Unreadable> {
    let lines: Vec<(usize, &str)> = text.lines().enumerate().map(|(at, line)| (at + 1, line)).collect();
    let at = |line| move |why| Unreadable { line, why };
    let purpose = lines.first().and_then(|(_, line)| line.strip_prefix("# ")).unwrap_or_default();
    if !purpose.ends_with('.') {
        return Err(at(1)("the first line must say, after \"# \", in a sentence, why this exists".into()));
    }
    let mut dialogue = Dialogue {
        name: name.into(),
        purpose: purpose.into(),
        machine_only: None,
        config: vec![],
        steps: vec![],
        never: vec![],
    };
    for (line, text) in repeated(&lines).map_err(|(line, why)| at(line)(why))? {
        dialogue.take(line, &text).map_err(at(line))?;
    }
    let waits = dialogue.steps.iter().map(|step| match step.action {
        Action::Wait(time) => time,
        _ => Duration::ZERO,
    });
    if dialogue.machine_only.is_none() && waits.sum::<Duration>() > LONGEST_OVER_TCP {
        return Err(at(1)("waits for more than 3 s in all: give a reason with \"only: machine — \"".into()));
    }
    Ok(dialogue)
}

/// The lines with `repeat N` … `end` written out, comments and blank lines gone. `{i}` inside counts from 1.
fn repeated(lines: &[(usize, &str)]) -> Result<Vec<(usize, String)>, (usize, String)> {
    let mut out = vec![];
    let mut rest = lines;
    while let Some(((line, text), behind)) = rest.split_first() {
        rest = behind;
        let text = text.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let Some(count) = text.strip_prefix("repeat ") else {
            out.push((*line, text.to_owned()));
            continue;
        };
        let count: usize = count.trim().parse().map_err(|_| (*line, "repeat takes a number".to_owned()))?;
        let end = rest.iter().position(|(_, text)| text.trim() == "end");
        let end = end.ok_or((*line, "repeat without end".to_owned()))?;
        for i in 1..=count {
            let inside = rest[..end].iter().filter(|(_, text)| !text.trim().is_empty());
            out.extend(inside.map(|(at, text)| (*at, text.trim_start().replace("{i}", &i.to_string()))));
        }
        rest = &rest[end + 1..];
    }
    Ok(out)
}

impl Dialogue {
    fn take(&mut self, line: usize, text: &str) -> Result<(), String> {
        if let Some(reason) = text.strip_prefix("only: machine") {
            let reason = reason.trim().trim_start_matches('—').trim();
            self.machine_only = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
            return self.machine_only.as_ref().map(|_| ()).ok_or("say why, behind a dash".into());
        }
        if let Some(setting) = text.strip_prefix("config:") {
            let (key, value) = setting.trim().split_once(' ').ok_or("config: KEY VALUE")?;
            if !CONFIG_KEYS.iter().any(|(known, _)| *known == key) {
                return Err(format!("no config key {key}"));
            }
            self.config.push((key.into(), value.trim().into()));
            return Ok(());
        }
        let (head, rest) = text.split_at_checked(2).ok_or("not a step")?;
        if head == "C|" || head == "D|" {
            return self.write_more(line, lane(head)?, value(rest));
        }
        if let Some(never) = text.strip_prefix("C<! ") {
            self.never.push(never.into());
            return Ok(());
        }
        let action = match head.as_bytes() {
            [b'C' | b'D', _] => sender(head, rest)?,
            [b'U' | b'V', _] => next_hop(head, rest)?,
            _ => other(text)?,
        };
        self.steps.push(Step { line, action });
        Ok(())
    }

    /// One more line of the write before, or a write of its own.
    fn write_more(&mut self, line: usize, lane: Lane, text: &str) -> Result<(), String> {
        let more = written(text)?;
        let last = self.steps.last_mut().map(|step| &mut step.action);
        if let Some(Action::Write(of, pieces)) = last
            && *of == lane
        {
            let mut more = more.into_iter();
            if let (Some(last), Some(first)) = (pieces.last_mut(), more.next()) {
                last.extend(first);
            }
            pieces.extend(more);
        } else {
            self.steps.push(Step { line, action: Action::Write(lane, more) });
        }
        Ok(())
    }
}

/// What stands behind a head of two characters: one space is the separator, the rest counts.
fn value(rest: &str) -> &str {
    rest.strip_prefix(' ').unwrap_or(rest)
}

fn lane(head: &str) -> Result<Lane, String> {
    match head.as_bytes().first() {
        Some(b'C' | b'U') => Ok(Lane::First),
        Some(b'D' | b'V') => Ok(Lane::Second),
        _ => Err(format!("no such speaker: {head}")),
    }
}

/// A line to be written: with CRLF unless a backslash ends it.
fn written(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let trailing = text.len() - text.trim_end_matches('\\').len();
    if trailing % 2 == 1 {
        return unescape(&text[..text.len() - 1]);
    }
    let mut pieces = unescape(text)?;
    if let Some(last) = pieces.last_mut() {
        last.extend_from_slice(b"\r\n");
    }
    Ok(pieces)
}

fn sender(head: &str, rest: &str) -> Result<Action, String> {
    let (lane, text) = (lane(head)?, value(rest));
    match (&head[1..], text) {
        (">", _) => Ok(Action::Write(lane, written(text)?)),
        ("<", "(closed)") => Ok(Action::Closed(lane)),
        ("<", _) if text.starts_with("(pause ") => {
            let time = text.trim_start_matches("(pause ").trim_end_matches(')');
            Ok(Action::Pause(lane, duration(time)?))
        }
        ("<", _) => Ok(Action::Hears(lane, text.into())),
        ("+", "greets") => Ok(Action::Greet(lane)),
        ("+", "connects") => Ok(Action::Connect(lane, vec![])),
        ("+", "closes") => Ok(Action::Close(lane)),
        ("+", _) => {
            let early = text.strip_prefix("connects saying ").ok_or("C+ connects, greets or closes")?;
            Ok(Action::Connect(lane, written(early)?.concat()))
        }
        _ => Err(format!("no such step: {head}")),
    }
}

fn next_hop(head: &str, rest: &str) -> Result<Action, String> {
    let (lane, text) = (lane(head)?, value(rest));
    if head.ends_with('>') && rest == "> message" {
        return Ok(Action::HopHearsMessage(lane));
    }
    match (&head[1..], text) {
        (">", _) => Ok(Action::HopHears(lane, text.into())),
        ("<", _) => Ok(Action::HopSays(lane, written(text)?.concat())),
        ("+", "closes") => Ok(Action::HopCloses(lane)),
        ("+", _) => Ok(Action::HopConnects(lane, hop_connects(text)?)),
        ("-", "released") => Ok(Action::HopLeft(lane, HopLeft::Released)),
        ("-", "dropped") => Ok(Action::HopLeft(lane, HopLeft::Dropped)),
        ("-", "nothing") => Ok(Action::HopQuiet(lane)),
        ("!", "no connection") => Ok(Action::HopFails(lane, HopFailure::NoConnection)),
        ("!", "no dns") => Ok(Action::HopFails(lane, HopFailure::NoDnsAnswer)),
        ("!", "no domain") => Ok(Action::HopFails(lane, HopFailure::NoSuchDomain)),
        ("!", "null mx") => Ok(Action::HopFails(lane, HopFailure::NullMx)),
        ("!", "bad route") => Ok(Action::HopFails(lane, HopFailure::BadRoute)),
        ("!", _) => {
            let (when, saying) = text.split_once(" saying ").unwrap_or((text, ""));
            let saying = if saying.is_empty() { vec![] } else { written(saying)?.concat() };
            match when {
                "breaks before the dot" => Ok(Action::HopBreaks(lane, HopBreaks { at_dot: false, saying })),
                "breaks at the dot" => Ok(Action::HopBreaks(lane, HopBreaks { at_dot: true, saying })),
                _ => Err(format!("no such failure: {text}")),
            }
        }
        _ => Err(format!("no such step: {head}")),
    }
}

fn hop_connects(text: &str) -> Result<HopConnects, String> {
    let (how, offers) = match text.split_once(" offering ") {
        Some((how, offers)) => (how, offers.split(", ").map(str::to_owned).collect()),
        None => (text, DEFAULT_OFFERS.map(str::to_owned).to_vec()),
    };
    let offers: Vec<String> = offers.into_iter().filter(|offer| offer != "nothing").collect();
    match how {
        "connects" => Ok(HopConnects { offers, anew: false }),
        "connects anew" => Ok(HopConnects { offers, anew: true }),
        _ => Err(format!("U+ connects [anew] [offering A, B], or closes; not {text:?}")),
    }
}

fn other(text: &str) -> Result<Action, String> {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    match (verb, rest) {
        ("wait", time) => duration(time).map(Action::Wait),
        ("crash", "") => Ok(Action::Crash),
        ("drain", "") => Ok(Action::Drain),
        ("store:", seed) => self::seed(seed).map(Action::Seed),
        ("store=", change) => self::change(change),
        ("store?", look) => self::look(look),
        ("store!", "up") => Ok(Action::Store(Fault::Up)),
        ("store!", "down") => Ok(Action::Store(Fault::Down)),
        ("store!", "hangs") => Ok(Action::Store(Fault::Hangs)),
        ("store!", "mute") => Ok(Action::Store(Fault::Mute)),
        ("memory!", "free") => Ok(Action::Memory(Memory::Free)),
        ("memory!", "full") => Ok(Action::Memory(Memory::Full)),
        ("memory!", "tight") => Ok(Action::Memory(Memory::Tight)),
        _ => Err(format!("no such step: {text}")),
    }
}

fn seed(text: &str) -> Result<Seed, String> {
    let (names, attributes) = text.split_once(", ").unwrap_or((text, ""));
    let (alias, target) = names.split_once(" -> ").ok_or("store: ALIAS -> TARGET, …")?;
    let mut seed = Seed {
        alias: alias.trim().into(),
        target: target.trim().into(),
        domain: None,
        uses: None,
        days: None,
        from: None,
        old_key: false,
    };
    for attribute in attributes.split(", ").filter(|attribute| !attribute.is_empty()) {
        match attribute.split_once(' ') {
            Some(("uses", n)) => seed.uses = Some(number(n)?),
            Some(("days", n)) => seed.days = Some(number(n)?),
            Some(("from", time)) => seed.from = Some(duration(time)?),
            Some(("domain", domain)) => seed.domain = Some(domain.into()),
            Some(("key", "old")) => seed.old_key = true,
            _ => return Err(format!("no such attribute: {attribute}")),
        }
    }
    Ok(seed)
}

fn change(text: &str) -> Result<Action, String> {
    let (alias, change) = text.split_once(' ').ok_or("store= ALIAS CHANGE")?;
    let change = match change.split_once(' ').unwrap_or((change, "")) {
        ("paused", "") => Change::Pause,
        ("resumed", "") => Change::Resume,
        ("removed", "") => Change::Remove,
        ("expired", "") => Change::Expire,
        ("freed", "") => Change::FreeHeld,
        ("uses", n) => Change::Uses(number(n)?),
        _ => return Err(format!("no such change: {change}")),
    };
    Ok(Action::Change(alias.into(), change))
}

fn look(text: &str) -> Result<Action, String> {
    let mut words = text.split(' ');
    let alias = words.next().unwrap_or_default();
    let mut counts = vec![];
    while let Some(word) = words.next() {
        let count = match word {
            "used" => Count::Used,
            "left" => Count::Left,
            "held" => Count::Held,
            "kept" => Count::Kept,
            _ => return Err(format!("no such count: {word}")),
        };
        counts.push((count, number(words.next().unwrap_or_default())?));
    }
    Ok(Action::Look(alias.into(), counts))
}

fn number(text: &str) -> Result<u32, String> {
    size(text).ok().and_then(|n| u32::try_from(n).ok()).ok_or(format!("{text:?} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(text: &str) -> Vec<Action> {
        let dialogue = Dialogue::parse("x", &format!("# Why.\n{text}")).unwrap();
        dialogue.steps.into_iter().map(|step| step.action).collect()
    }

    #[test]
    fn lines_become_writes_and_bars_join_them() {
        let write = |pieces: &[&str]| {
            Action::Write(Lane::First, pieces.iter().map(|piece| piece.as_bytes().to_vec()).collect())
        };
        assert_eq!(steps("C> a\nC| b\nC> c"), [write(&["a\r\nb\r\n"]), write(&["c\r\n"])]);
        assert_eq!(steps("C> a\\|b\nC| c\\"), [write(&["a", "b\r\nc"])]);
        assert_eq!(steps("C>\nC| "), [write(&["\r\n\r\n"])]);
        assert_eq!(steps("repeat 2\nC> {i}\nend"), [write(&["1\r\n"]), write(&["2\r\n"])]);
    }

    #[test]
    fn what_cannot_be_read_says_where() {
        for bad in
            ["X", "C? a", "U! falls asleep", "config: nonsense 1", "wait 1 h", "only: machine", "repeat 2"]
        {
            assert_eq!(Dialogue::parse("x", &format!("# Why.\n\n{bad}")).unwrap_err().line, 3, "{bad}");
        }
        assert_eq!(Dialogue::parse("x", "C> a").unwrap_err().line, 1);
        assert_eq!(Dialogue::parse("x", "# Why.\nwait 1h").unwrap_err().line, 1);
    }
}
