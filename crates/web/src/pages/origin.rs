//! Whether a form was sent from a page of ours.
//!
//! There is no cookie and no login that another site could ride on; what it could do is to have aliases made from
//! its visitors' addresses. Paths under `/a/` and `/m/` hold a secret that no other site knows.

use axum::http::{HeaderMap, header};
use tempalias_service::PublicUrl;

use crate::problem::Problem;

/// Whether the request may come from a page whose origin the browser hid (`Origin: null`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HiddenOrigin {
    /// The path holds a secret, and our own `no-referrer` makes older browsers hide the origin there.
    Fine,
    /// Somebody else's sandboxed frame hides its origin too.
    Refused,
}

/// Lets requests of our own pages pass, and those of programs, which send neither header.
pub(super) fn check(headers: &HeaderMap, ours: &PublicUrl, hidden: HiddenOrigin) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap_or_default());
    let is_ours = match (text(header::HeaderName::from_static("sec-fetch-site")), text(header::ORIGIN)) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some("null")) => hidden == HiddenOrigin::Fine,
        (None, Some(origin)) => {
            let host = origin.split_once("://").map(|(_, host)| host);
            origin.eq_ignore_ascii_case(ours.as_str()) || (host.is_some() && host == text(header::HOST))
        }
        (None, None) => true,
    };
    if is_ours { Ok(()) } else { Err(Problem::cross_site()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(headers: &[(&'static str, &str)], hidden: HiddenOrigin) -> bool {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        check(&headers, &"https://alias.example".parse().unwrap(), hidden).is_ok()
    }

    #[test]
    fn the_browser_s_own_word_decides() {
        for (site, ok) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false), ("", false)]
        {
            assert_eq!(passes(&[("sec-fetch-site", site)], HiddenOrigin::Fine), ok, "{site}");
        }
        let lie = [("sec-fetch-site", "cross-site"), ("origin", "https://alias.example")];
        assert!(!passes(&lie, HiddenOrigin::Fine));
    }

    #[test]
    fn else_the_origin_must_be_ours() {
        let of =
            |origin| passes(&[("origin", origin), ("host", "alias.internal:8080")], HiddenOrigin::Refused);
        assert!(of("https://alias.example") && of("http://alias.internal:8080"));
        for other in [
            "https://evil.example",
            "https://alias.example.evil.example",
            "null",
            "",
            "https://",
            "alias.internal:8080",
        ] {
            assert!(!of(other), "{other}");
        }
        assert!(passes(&[("origin", "null")], HiddenOrigin::Fine));
        assert!(passes(&[], HiddenOrigin::Refused));
    }
}
