//! The configuration: what is accepted, what is refused and how, and that everything printed about it is true.
//!
//! `UPDATE_EXPECTED=1 cargo test -p tempalias --test config` writes `docs/config.md` and the `expected.txt` files anew.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempalias_server::config::{self, Environment, Loaded};

const SMALLEST: &str = "domains = [\"alias.test\"]\nhostname = \"mx.alias.test\"\nadmin = \"me@real.test\"\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
}

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
    config::parse(text, Path::new("config.toml"), &environment(variables)).map_err(|error| error.to_string())
}

/// Compares a file with what it should hold, or writes it if UPDATE_EXPECTED is set.
fn compare(path: &Path, now: &str) {
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(path, now).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        stored,
        now,
        "{} is out of date; look at the difference, then run: UPDATE_EXPECTED=1 cargo test -p tempalias --test config",
        path.display()
    );
}

#[test]
fn three_keys_are_enough() {
    let config = parse(SMALLEST, &[]).unwrap().config;
    assert_eq!(config.http.public_url.as_str(), "https://alias.test");
    assert_eq!(config.smtp.listen.len(), 2);
    assert_eq!(config.smtp.max_message_size.bytes(), 25 << 20);
    assert_eq!(config.smtp.body_memory.bytes(), 256 << 20);
    assert_eq!(config.delivery.dot_timeout, Duration::from_secs(570));
    assert_eq!(config.delivery.smarthost, None);
    assert_eq!(config.store.url.file(), Some(Path::new("/var/lib/tempalias/aliases.db")));
    assert!(!config.privacy.log_addresses);
}

#[test]
fn each_bad_configuration_gets_its_messages() {
    let mut folders: Vec<_> = std::fs::read_dir(root().join("tests/configs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(folders.len() >= 10, "the bad configurations are gone");
    for folder in folders {
        let text = std::fs::read_to_string(folder.join("config.toml")).unwrap();
        let error = parse(&text, &[]).expect_err(&format!("{} is accepted", folder.display()));
        compare(&folder.join("expected.txt"), &format!("{error}\n"));
    }
}

#[test]
fn the_reference_is_up_to_date() {
    compare(&root().join("docs/config.md"), &config::reference());
}

#[test]
fn the_example_is_accepted_and_shows_the_defaults() {
    let example = config::example();
    let loaded = parse(&example, &[]).unwrap();
    assert_eq!(loaded.warnings.len(), 1, "only that anybody may make aliases: {:?}", loaded.warnings);
    let is_optional = |setting: &str| {
        ["smarthost", "password_file", "ca_file"].iter().any(|name| setting.starts_with(name))
    };
    // With every `# key = value` line in force the values must be the same, but for what may be left out.
    let all: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(setting) if setting.contains(" = ") && !is_optional(setting) => setting,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let all = all.replace("<first domain>", "alias.example");
    let strip = |loaded: &Loaded| -> Vec<String> {
        loaded.show().lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect()
    };
    assert_eq!(strip(&parse(&all, &[]).unwrap()), strip(&loaded));
}

#[test]
fn what_is_shown_can_be_read_back_and_names_its_origin() {
    let text = format!("{SMALLEST}[smtp]\nmax_mails = 0x10\n[delivery]\nsmarthost = \"h.test:25\"\n");
    let variables =
        [("TEMPALIAS_STORE_URL", "sqlite:/tmp/x.db"), ("TEMPALIAS_SMTP_LISTEN", "127.0.0.1:25, [::1]:25")];
    let loaded = parse(&text, &variables).unwrap();
    let shown = loaded.show();
    assert!(shown.contains("max_mails = 16  # line 5\n"), "{shown}");
    assert!(shown.contains("url = \"sqlite:/tmp/x.db\"  # TEMPALIAS_STORE_URL\n"), "{shown}");
    assert!(
        shown.contains("listen = [\"127.0.0.1:25\", \"[::1]:25\"]  # TEMPALIAS_SMTP_LISTEN\n"),
        "{shown}"
    );
    assert!(shown.contains("mx_port = 25  # default\n"), "{shown}");
    let json = loaded.show_json();
    assert_eq!(json["smtp"]["max_mails"], serde_json::json!({ "value": 16, "from": "line 5" }));
    assert_eq!(json["domains"]["value"], serde_json::json!(["alias.test"]));
    let values = |loaded: &Loaded| format!("{:?}", loaded.config);
    assert_eq!(values(&parse(&shown, &[]).unwrap()), values(&loaded));
}

#[test]
fn a_variable_beats_the_file_and_is_named_when_it_is_wrong() {
    let text = format!("{SMALLEST}[limits]\nmax_days = 7\n");
    let loaded = parse(&text, &[("TEMPALIAS_LIMITS_MAX_DAYS", "14")]).unwrap();
    assert_eq!(loaded.config.limits.max_days, 14);
    let error = parse(&text, &[("TEMPALIAS_LIMITS_MAX_DAYS", "x")]).unwrap_err();
    assert!(
        error.starts_with("environment variable TEMPALIAS_LIMITS_MAX_DAYS: limits.max_days: must be"),
        "{error}"
    );
    let error = parse(&text, &[("TEMPALIAS_LIMITS_MAX_DAYS", "0")]).unwrap_err();
    assert!(error.starts_with("environment variable TEMPALIAS_LIMITS_MAX_DAYS: "), "{error}");
}

#[test]
fn a_variable_may_name_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, "sqlite:/tmp/from-a-file.db\n").unwrap();
    let path = path.to_str().unwrap();
    let config = parse(SMALLEST, &[("TEMPALIAS_STORE_URL_FILE", path)]).unwrap().config;
    assert_eq!(config.store.url.file(), Some(Path::new("/tmp/from-a-file.db")));
    let both = [("TEMPALIAS_STORE_URL_FILE", path), ("TEMPALIAS_STORE_URL", "sqlite:/tmp/x.db")];
    assert!(parse(SMALLEST, &both).unwrap_err().contains("TEMPALIAS_STORE_URL_FILE is set too"));
    let error = parse(SMALLEST, &[("TEMPALIAS_STORE_URL_FILE", "/nowhere/url")]).unwrap_err();
    assert!(error.contains("cannot read /nowhere/url"), "{error}");
}

#[test]
fn an_unknown_variable_is_told_and_forgiven() {
    // Kubernetes sets variables of this form for a service called tempalias: they must not stop the program.
    let variables =
        [("TEMPALIAS_PORT_25_TCP", "tcp://10.0.0.1:25"), ("TEMPALIAS_STORE_ULR", "x"), ("HOME", "/")];
    let warnings = parse(SMALLEST, &variables).unwrap().warnings;
    assert_eq!(warnings.iter().filter(|w| w.contains("TEMPALIAS_")).count(), 2, "{warnings:?}");
    assert!(warnings.iter().any(|w| w.contains("did you mean TEMPALIAS_STORE_URL?")), "{warnings:?}");
}

#[test]
fn the_environment_alone_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.toml");
    let missing = config::load(&path, &environment(&[])).unwrap_err().to_string();
    assert!(missing.contains("tempalias config example"), "{missing}");
    let variables = [
        ("TEMPALIAS_DOMAINS", "alias.test,b.test"),
        ("TEMPALIAS_HOSTNAME", "mx.alias.test"),
        ("TEMPALIAS_ADMIN", "me@real.test"),
    ];
    assert_eq!(config::load(&path, &environment(&variables)).unwrap().config.domains.len(), 2);
    std::fs::write(&path, [0xff]).unwrap();
    assert!(config::load(&path, &environment(&[])).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn an_instance_open_to_the_world_draws_a_warning() {
    let inside = "[smtp]\nlisten = [\"127.0.0.1:2525\"]\n";
    assert_eq!(parse(SMALLEST, &[]).unwrap().warnings.len(), 1, "SMTP from anywhere");
    assert_eq!(parse(&format!("{SMALLEST}{inside}"), &[]).unwrap().warnings.len(), 0);
    let page = format!("{SMALLEST}{inside}[http]\nlisten = [\"0.0.0.0:80\"]\n");
    assert_eq!(parse(&page, &[]).unwrap().warnings.len(), 1, "the page from anywhere");
    let closed = format!("{page}[targets]\nallow_domains = [\"real.test\"]\n");
    assert_eq!(parse(&closed, &[]).unwrap().warnings.len(), 0);
}

#[test]
fn no_text_breaks_the_reader() {
    for text in [
        "",
        "=",
        "[",
        "[[smtp]]\n",
        "smtp = 1",
        "a.b.c = 1\n[a]\n",
        "\u{feff}",
        "domains",
        "[smtp.listen]\nx=1",
    ] {
        let error = parse(text, &[]).unwrap_err();
        assert!(!error.is_empty(), "{text:?}");
    }
}
