//! The pages in English.

use std::time::Duration;

use tempalias_service::Standing;

use super::{Done, Texts};

/// English.
pub(crate) static ENGLISH: Texts = Texts {
    lang: "en",
    skip: "Skip to the content",
    tagline: "E-mail addresses that destroy themselves",
    footer: "No account. No inbox. Mail passes through and is never stored.",
    form_title: "Get an address that destroys itself",
    form_intro: "Mail to it reaches your real mailbox until the limit is met. After that, senders are told that there \
                 is no such address.",
    target: "Your real e-mail address",
    target_hint: "It is stored encrypted, and shown to nobody who writes to you.",
    valid_for: "Valid for",
    valid_hint: "Whichever is met first ends it. Leave one empty to do without it.",
    days: "days",
    or: "or",
    messages: "messages",
    days_label: "Days",
    messages_label: "Messages",
    domain: "Address at",
    create: "Make my address",
    errors_title: "Please look at this again",
    how_title: "How it works",
    how: [
        ("Give it away", "Use the new address in a form, a shop or a forum instead of your own."),
        ("Read your mail", "What is sent to it arrives in your own mailbox, unchanged."),
        ("Forget it", "When its days or messages are over, it is gone. Spam to it bounces."),
    ],
    address_label: "Your temporary address",
    copy: "Copy",
    copied: "Copied.",
    goes_to: "Delivers to",
    left: "What is left",
    starts: "Starts",
    ends: "Ends",
    ended: "Ended",
    no_end: "No last day",
    no_count: "any number of messages",
    held: "Held",
    held_why: "A delivery broke off and it is not known whether the message arrived. Its use is held for the \
               sender's next try. If you need it now, free it; should the sender try again, that counts anew.",
    free: "Free what is held",
    change_title: "Give it more",
    change_days: "Days from now",
    change_usage: "Messages in total",
    change: "Change",
    pause: "Pause",
    resume: "Resume",
    delete: "Delete …",
    delete_warning: "The address will refuse all mail, for ever. This cannot be undone.",
    delete_confirm: "Delete it for ever",
    hurts_title: "Good to know",
    hurts: [
        ("Replying shows your real address.", "Only the way to you is hidden, not the way back."),
        (
            "Mail to a dead address is lost for you.",
            "Do not use it for an account whose password you may have to reset later.",
        ),
        (
            "You may lose this page’s link.",
            "Every mail that is passed on carries one in its header (X-Tempalias-Manage), to pause or delete the \
             address.",
        ),
    ],
    keep_link: "Keep this page’s link, in a bookmark for example: it is the only key to your address. Whoever has \
                it can change the address and see where it delivers to.",
    mail_page: "You came here with the link of a mail. It lets you pause or delete the address. To extend it, use \
                the link that you got when you made it.",
    another: "Make another address",
    gone_title: "The address is gone",
    gone: "It refuses all mail from now on. Whom it belonged to has been wiped.",
    home: "Go to the start page",
    title,
    explanation,
    done,
    at_most,
    in_time,
    days_hint,
    usage_hint,
    messages_left,
    messages_held,
};

fn title(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "Your address is active",
        Standing::Held => "Your address is waiting",
        Standing::NotYet => "Your address has not started yet",
        Standing::Paused => "Your address is paused",
        Standing::UsedUp => "Your address is used up",
        Standing::Expired => "Your address has expired",
    }
}

fn explanation(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "Mail to it is passed on to you.",
        Standing::Held => "All messages that are left are held. New senders are asked to try again later.",
        Standing::NotYet => "Mail to it is refused until it starts.",
        Standing::Paused => "Mail to it is refused until you resume it.",
        Standing::UsedUp => "All its messages have come. Further mail is refused.",
        Standing::Expired => "Its last day is over. Mail to it is refused.",
    }
}

fn done(done: Done) -> &'static str {
    match done {
        Done::Made => "Your new address is ready. Use it right away.",
        Done::Paused => "Paused. Mail to the address is refused until you resume it.",
        Done::Resumed => "Resumed.",
        Done::Changed => "Changed.",
        Done::Freed => "What was held and could be freed is free again.",
    }
}

fn at_most(days: u32, messages: u32) -> String {
    format!("At most {days} days and {messages} messages.")
}

fn in_time(time: Duration) -> String {
    format!("in {}", span(time))
}

fn days_hint(max: u32) -> String {
    format!("At most {max}. Leave empty to keep the last day.")
}

fn messages_left(remaining: u32, max: u32) -> String {
    let unit = if max == 1 { "message" } else { "messages" };
    format!("{remaining} of {max} {unit}")
}

fn messages_held(held: u32) -> String {
    let unit = if held == 1 { "message" } else { "messages" };
    format!("{held} {unit}")
}

fn usage_hint(max: u32, used: u32) -> String {
    format!("At most {max}. Used so far: {used}.")
}

/// The two largest units of a time span: `2 days 23 hours`.
fn span(time: Duration) -> String {
    // Rounded up, so that a new address of three days says three days.
    let minutes = time.as_secs().div_ceil(60);
    let parts = [(minutes / 1440, "day"), (minutes / 60 % 24, "hour"), (minutes % 60, "minute")];
    let mut shown = parts.into_iter().skip_while(|&(n, _)| n == 0).take(2).filter(|&(n, _)| n > 0);
    let unit = |(n, unit): (u64, &str)| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
    match (shown.next(), shown.next()) {
        (Some(large), Some(small)) => format!("{} {}", unit(large), unit(small)),
        (Some(only), None) => unit(only),
        _ => "no time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_its_two_largest_units() {
        let told = |minutes: u64| span(Duration::from_secs((minutes * 60).saturating_sub(5)));
        assert_eq!(told(3 * 1440), "3 days");
        assert_eq!(told(2 * 1440 + 23 * 60 + 59), "2 days 23 hours");
        assert_eq!(told(1440 + 5), "1 day");
        assert_eq!(told(61), "1 hour 1 minute");
        assert_eq!(told(1), "1 minute");
        assert_eq!(told(0), "no time");
    }
}
