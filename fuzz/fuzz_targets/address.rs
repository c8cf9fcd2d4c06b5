//! Whatever parses as an address is written so that it parses to the same again, fits on one line, and shows
//! itself in no debug output.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tempalias_address::{Domain, LocalPart, Mailbox};
use tempalias_alias::AliasId;

fuzz_target!(|text: &str| {
    if let Ok(domain) = text.parse::<Domain>() {
        assert!(domain.as_str().is_ascii() && domain.as_str().len() <= 255);
        assert_eq!(domain.to_string().parse(), Ok(domain.clone()));
        let unicode = domain.to_unicode();
        if let Ok(again) = unicode.parse::<Domain>() {
            assert_eq!(again, domain, "{unicode} is read as another name");
        }
    }
    if let Ok(local_part) = text.parse::<LocalPart>() {
        assert_eq!(local_part.to_string().parse(), Ok(local_part.clone()));
        if let Ok(id) = AliasId::try_from(&local_part) {
            assert_eq!(id.as_str().parse(), Ok(id.clone()));
            assert_eq!(format!("{id:?}"), "***");
        }
    }
    let Ok(mailbox) = text.parse::<Mailbox>() else { return };
    let written = mailbox.to_string();
    assert!(!written.chars().any(char::is_control), "{written:?}");
    assert!(written.len() <= 254, "{} octets", written.len());
    assert_eq!(format!("{mailbox:?}"), "***@***");
    assert_eq!(written.parse(), Ok(mailbox));
});
