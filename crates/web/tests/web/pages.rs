//! The pages, as a browser without JavaScript sees them.

use std::time::Duration;

use axum::body::Body;
use tempalias_alias::{ServerKey, UnixTime};

use crate::site::{Answer, BODY_2010, START, Site, text};

const FORM: &str = "target=t%40example.com&days=3&max-usage=5&domain=alias.example";

/// Makes an alias with the form and returns the path of its page.
async fn made(site: &Site) -> String {
    let answer = site.submit("/", FORM).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    answer.header("location").split('?').next().unwrap().to_owned()
}

/// The path under which a reader of the alias's mail finds it.
fn mail_path(owner_path: &str, days: u64) -> String {
    let id = owner_path.strip_prefix("/a/").unwrap().split('.').next().unwrap();
    let ends = UnixTime::from_millis(START).plus(Duration::from_hours(24 * days));
    let mac = ServerKey::new([1; 32]).mail_mac(&id.parse().unwrap(), Some(ends));
    format!("/m/{id}.{}", mac.as_str())
}

fn assert_page(answer: &Answer, status: u16, words: &str) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    assert!(answer.text().contains(words), "{words:?} is missing in {}", answer.text());
}

#[tokio::test]
async fn the_form_makes_an_alias_and_leads_to_its_page() {
    let site = Site::new();
    let form = site.get("/").await;
    assert_page(&form, 200, r#"name="target""#);
    assert!(form.text().contains(r#"<option value="other.example">"#));
    let answer = site.submit("/", FORM).await;
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (303, "no-store"));
    let page = site.get(answer.header("location")).await;
    assert_page(&page, 200, "@alias.example</output>");
    for words in
        ["t<wbr>@example.com", "5 of 5 messages", "in 3 days", r#"datetime="2026-11-25T12:00:00.000Z""#]
    {
        assert!(page.text().contains(words), "{words}");
    }
    for hurts in ["Replying shows your real address", "dead address is lost", "X-Tempalias-Manage"] {
        assert!(page.text().contains(hurts), "{hurts}");
    }
    site.get(answer.header("location")).await;
    assert_eq!(site.count().await, 1, "a reload makes nothing");
}

#[tokio::test]
async fn one_domain_is_no_choice() {
    let site = Site::with(|policy| policy.more_domains.clear());
    assert!(!site.get("/").await.text().contains("<select"));
}

#[tokio::test]
async fn a_form_with_faults_keeps_what_was_typed_and_says_what_is_wrong() {
    let site = Site::new();
    let answer = site.submit("/", "target=nobody&days=soon&max-usage=7&domain=other.example").await;
    assert_page(&answer, 400, r#"role="alert""#);
    for words in [
        r#"value="nobody""#,
        r#"value="soon""#,
        r#"value="7""#,
        r#"<option value="other.example" selected>"#,
        r##"<a href="#target">"##,
        r##"<a href="#days">"##,
        r#"aria-describedby="target-hint target-fault" aria-invalid="true""#,
        r#"id="target-fault""#,
        "autofocus",
    ] {
        assert!(answer.text().contains(words), "{words} is missing in {}", answer.text());
    }
    assert_page(
        &site.submit("/", "target=t%40example.com&days=&max-usage=").await,
        400,
        "at least one limit",
    );
    assert_eq!(site.count().await, 0);
}

#[tokio::test]
async fn too_many_are_told_when_to_come_again_and_keep_their_form() {
    let site = Site::with(|policy| policy.create_rate.burst = 1);
    made(&site).await;
    let answer = site.submit("/", FORM).await;
    assert_page(&answer, 429, "Try again in 30 seconds");
    assert_eq!(answer.header("retry-after"), "30");
    assert!(answer.text().contains(r#"value="t@example.com""#));
}

#[tokio::test]
async fn hostile_input_stays_text() {
    let site = Site::with(|policy| policy.create_rate.burst = 99);
    let hostile = r#""><script>alert(1)</script><img src=x onerror=alert(1)>'&amp;"#;
    let encoded: String = hostile.bytes().map(|byte| format!("%{byte:02x}")).collect();
    for field in ["target", "days", "max-usage", "domain"] {
        let answer = site.submit("/", &format!("{field}={encoded}")).await;
        assert_page(&answer, 400, r#"role="alert""#);
        assert!(!answer.text().contains("<script>") && !answer.text().contains("<img"), "{field}");
    }
    // A quoted local part may hold nearly anything, and is a good address.
    let target = "%22%3Cscript%3Ealert(1)%3C/script%3E%22%40example.com";
    let answer = site.submit("/", &format!("target={target}&days=1")).await;
    assert_eq!(answer.status, 303, "{}", answer.text());
    let page = site.get(answer.header("location")).await;
    assert_page(&page, 200, "alert(1)");
    assert!(!page.text().contains("<script>"), "{}", page.text());
    let path = answer.header("location").split('?').next().unwrap().to_owned();
    let page = site.submit(&path, &format!("action=change&days={encoded}")).await;
    assert_page(&page, 400, r#"role="alert""#);
    assert!(!page.text().contains("<script>"));
    let page = site.get(&format!("{path}?done=%3Cscript%3E")).await;
    assert!(!page.text().contains("<script>"));
    let page = site.get("/a/%3Cscript%3Ealert(1)%3C%2Fscript%3E.x").await;
    assert_page(&page, 404, "no alias");
    assert!(!page.text().contains("alert(1)"));
}

#[tokio::test]
async fn the_owner_pauses_resumes_extends_and_deletes() {
    let site = Site::new();
    let path = made(&site).await;
    let act = async |form: &str| {
        let answer = site.submit(&path, form).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        site.get(answer.header("location")).await
    };
    assert_page(&act("action=pause").await, 200, "Your address is paused");
    assert_page(&site.get(&format!("{path}?done=resumed")).await, 200, r#"value="resume""#);
    assert!(!site.get(&format!("{path}?done=resumed")).await.text().contains("Resumed."), "it is not so");
    assert_page(&act("action=resume").await, 200, "Your address is active");
    let page = act("action=change&days=10&max-usage=20").await;
    assert_page(&page, 200, "20 of 20 messages");
    assert!(page.text().contains("in 10 days"));
    assert_page(&site.submit(&path, "action=change&days=x").await, 400, "whole number");
    assert_page(&site.submit(&path, "action=destroy").await, 400, "form could not be read");
    assert_page(&act("action=delete").await, 200, "The address is gone");
    assert_page(&site.get(&path).await, 404, "no alias");
    assert_page(&site.submit(&path, "action=resume").await, 404, "no alias");
}

#[tokio::test]
async fn the_owner_sees_what_is_held_and_frees_it() {
    let site = Site::new();
    let path = made(&site).await;
    assert!(!site.get(&path).await.text().contains(r#"value="free""#));
    let id = path.strip_prefix("/a/").unwrap().split('.').next().unwrap().to_owned();
    site.hold_one(&id).await;
    let page = site.get(&path).await;
    assert_page(&page, 200, r#"value="free""#);
    assert!(page.text().contains("4 of 5 messages") && page.text().contains("<dd>1 message</dd>"));
    let freed = site.submit(&path, "action=free").await;
    let page = site.get(freed.header("location")).await;
    assert_page(&page, 200, "5 of 5 messages");
    assert!(!page.text().contains(r#"value="free""#));
}

#[tokio::test]
async fn a_reader_of_the_mail_sees_no_target_and_cannot_extend() {
    let site = Site::new();
    let owner = made(&site).await;
    let path = mail_path(&owner, 3);
    let page = site.get(&path).await;
    assert_page(&page, 200, "5 of 5 messages");
    for hidden in ["example.com", ">t<wbr>", r#"value="change""#, r#"value="free""#, "updatekey", "/a/"] {
        assert!(!page.text().contains(hidden), "{hidden}");
    }
    assert_page(&site.submit(&path, "action=change&days=60").await, 403, "does not allow");
    assert_page(&site.submit(&path, "action=free").await, 403, "does not allow");
    assert!(site.get(&owner).await.text().contains("in 3 days"));
    assert_eq!(site.submit(&path, "action=pause").await.header("location"), format!("{path}?done=paused"));
    assert_page(&site.get(&path).await, 200, "Your address is paused");
    assert_eq!(site.submit(&path, "action=resume").await.status, 303);
    // Neither proof opens the other door.
    assert_page(&site.get(&path.replacen("/m/", "/a/", 1)).await, 404, "no alias");
    assert_page(&site.get(&owner.replacen("/a/", "/m/", 1)).await, 404, "no alias");
    assert_eq!(site.submit(&path, "action=delete").await.header("location"), "/gone");
    assert_page(&site.get(&owner).await, 404, "no alias");
}

#[tokio::test]
async fn forms_of_other_sites_do_nothing() {
    let site = Site::new();
    let owner = made(&site).await;
    let form = ("content-type", "application/x-www-form-urlencoded");
    for header in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example"),
    ] {
        assert_page(&site.send("POST", "/", &[form, header], FORM).await, 403, "another site");
        assert_page(&site.send("POST", &owner, &[form, header], "action=delete").await, 403, "another site");
    }
    assert_page(&site.send("POST", "/", &[form, ("origin", "null")], FORM).await, 403, "another site");
    assert_eq!(site.count().await, 1);
    assert_eq!(site.get(&owner).await.status, 200);
    // Ours, as an older browser sends it, and a program.
    assert_eq!(site.send("POST", "/", &[form, ("origin", "https://alias.example")], FORM).await.status, 303);
    assert_eq!(site.send("POST", &owner, &[form, ("origin", "null")], "action=pause").await.status, 303);
    assert_eq!(site.send("POST", "/", &[form], FORM).await.status, 303);
}

#[tokio::test]
async fn no_get_changes_anything() {
    let site = Site::new();
    let path = made(&site).await;
    let before = site.get(&path).await;
    for query in ["?action=delete", "?action=pause", "?days=60", "?done=paused"] {
        site.get(&format!("{path}{query}")).await;
    }
    site.get(&format!("/?{FORM}")).await;
    assert_eq!(site.get(&path).await.bytes, before.bytes);
    assert_eq!(site.count().await, 1);
}

#[tokio::test]
async fn secret_pages_are_kept_nowhere_and_told_to_nobody() {
    let site = Site::new();
    let owner = made(&site).await;
    for path in [owner.as_str(), &mail_path(&owner, 3), "/a/unknown.secret"] {
        let page = site.get(path).await;
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert_eq!(page.header("referrer-policy"), "no-referrer", "{path}");
        assert_eq!(page.header("x-robots-tag"), "noindex", "{path}");
    }
    assert!(site.get("/robots.txt").await.text().contains("Disallow: /a/"));
}

#[tokio::test]
async fn every_answer_is_locked_down() {
    let site = Site::new();
    let owner = made(&site).await;
    let style = asset_of(&site, "/assets/style.").await;
    for path in ["/", &owner, "/gone", "/nothing", &style, "/aliases", "/openapi.json"] {
        let answer = site.get(path).await;
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{path}");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("set-cookie"), "", "{path}");
        let body = answer.text();
        for inline in [" style=", " onclick=", "<style", "src=\"http", "href=\"http", "url("] {
            assert!(!body.contains(inline), "{inline} in {path}");
        }
    }
}

/// The path of the asset whose name begins so, from the start page.
async fn asset_of(site: &Site, start: &str) -> String {
    let page = site.get("/").await;
    let from = page.text().find(start).unwrap();
    page.text()[from..].split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn assets_are_kept_for_ever_under_a_name_of_their_content() {
    let site = Site::new();
    for (start, content_type) in [
        ("/assets/style.", "text/css; charset=utf-8"),
        ("/assets/page.", "text/javascript; charset=utf-8"),
        ("/assets/icon.", "image/svg+xml"),
    ] {
        let path = asset_of(&site, start).await;
        let answer = site.get(&path).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, content_type));
        assert!(answer.header("cache-control").contains("immutable"));
        let tag = answer.header("etag").to_owned();
        let again = site.send("GET", &path, &[("if-none-match", &tag)], Body::empty()).await;
        assert_eq!((again.status.as_u16(), again.bytes.len()), (304, 0));
        assert_eq!(again.header("etag"), tag);
        let other = site.send("GET", &path, &[("if-none-match", "\"0\"")], Body::empty()).await;
        assert_eq!(other.status, 200);
    }
    assert_page(&site.get("/assets/style.0000000000000000.css").await, 404, "nothing at this address");
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_done_have_pages_too() {
    let site = Site::new();
    for path in ["/nothing", "/a/", "/a/abc", "/a/abc.def", "/m/abc.def", "/a/%ff", "/a/postmaster.x"] {
        assert_page(&site.get(path).await, 404, "</html>");
    }
    let answer = site.send("PUT", "/", &[], "").await;
    assert_page(&answer, 405, "does not take requests of this kind");
    for method in ["GET", "POST"] {
        assert!(answer.header("allow").contains(method));
    }
    assert_page(&site.send("POST", "/", &[("content-type", "multipart/form-data")], "x").await, 400, "form");
    assert_eq!(site.send("HEAD", "/", &[], "").await.status, 200);
}

#[tokio::test]
async fn the_manage_url_of_the_api_opens_the_page() {
    let site = Site::new();
    let alias = site.post(BODY_2010).await.json();
    let path = text(&alias, "manage_url").strip_prefix("https://alias.example").unwrap();
    assert_page(&site.get(path).await, 200, "5 of 5 messages");
    assert_page(&site.get(&path.to_uppercase().replacen("/A/", "/a/", 1)).await, 200, "5 of 5 messages");
}
