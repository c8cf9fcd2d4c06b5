//! A stream of bytes is cut into lines, and a line into a command, without ever taking a CR, LF or other control
//! character along: what is written from the parts cannot smuggle anything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tempalias_address::ReversePath;
use tempalias_smtp::line::{MAX_COMMAND_LINE, Scan, scan};
use tempalias_smtp::{Command, ForwardPath};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    while let Scan::Line { text } = scan(rest) {
        let line = &rest[..text];
        assert!(text + 2 <= MAX_COMMAND_LINE);
        assert_eq!(&rest[text..text + 2], b"\r\n");
        assert!(!line.contains(&b'\n'));
        rest = &rest[text + 2..];
        if let Ok(command) = Command::parse(line) {
            check(&command);
        }
    }
});

fn check(command: &Command) {
    match command {
        Command::Helo(name) | Command::Ehlo(name) => {
            assert!(name.as_str().bytes().all(|b| b.is_ascii_graphic() && !b"<>()\"\\;,".contains(&b)));
        }
        Command::Mail(path, parameters) => {
            let mut line = format!("MAIL FROM:{path}");
            line.extend(parameters.size.map(|size| format!(" SIZE={size}")));
            line.push_str(if parameters.eight_bit { " BODY=8BITMIME" } else { "" });
            line.push_str(if parameters.smtputf8 { " SMTPUTF8" } else { "" });
            same(&line, command);
            if let ReversePath::Mailbox(mailbox) = path {
                assert!(parameters.smtputf8 || mailbox.to_string().is_ascii());
            }
        }
        Command::Rcpt(ForwardPath::Mailbox(mailbox)) => same(&format!("RCPT TO:<{mailbox}>"), command),
        _ => {}
    }
}

/// What is written anew from a command's parts is the same command.
fn same(line: &str, command: &Command) {
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert_eq!(Command::parse(line.as_bytes()).as_ref(), Ok(command), "{line:?}");
}
