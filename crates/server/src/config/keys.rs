//! Every key, once: its name, type, default and meaning. Everything else about keys is made from this file.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use tempalias_address::{Domain, Mailbox};
use tempalias_service::PublicUrl;

use super::read::Reader;
use super::types::{HostPort, Level, NameServer, Namespace, Size, StoreUrl};
use super::value::Value;

/// One `[section]`; the first has no name and stands at the top of the file.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) name: &'static str,
    pub(super) docs: &'static [&'static str],
    pub(super) keys: &'static [Key],
}

/// One key, as an operator sees it.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) docs: &'static [&'static str],
    pub(super) kind: fn() -> String,
    pub(super) fallback: Fallback,
}

/// What holds when nobody sets a key; the texts are TOML.
#[derive(Debug)]
pub(super) enum Fallback {
    /// It must be set; a sample of how.
    Required(&'static str),
    /// It may be left out; a sample of how to set it.
    Optional(&'static str),
    /// This.
    Default(&'static str),
}

impl Section {
    pub(super) fn has(&self, key: &str) -> bool {
        self.names().any(|name| name == key)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.keys.iter().map(|key| key.name)
    }
}

impl Key {
    pub(super) fn is_required(&self) -> bool {
        matches!(self.fallback, Fallback::Required(_))
    }
}

/// The value of one key, to be shown: section, key, and the TOML that sets it.
pub(super) type Shown = (&'static str, &'static str, Option<String>);

macro_rules! keys {
    (
        $(#[doc = $top_doc:literal])*
        {
            $( $(#[doc = $top_key_doc:literal])* $top_key:ident: $top_type:ty = $top_how:ident($top_text:literal), )*
        }
        $(
            $(#[doc = $doc:literal])*
            $section:ident: $name:ident {
                $( $(#[doc = $key_doc:literal])* $key:ident: $type:ty = $how:ident($text:literal), )*
            }
        )*
    ) => {
        $(#[doc = $top_doc])*
        #[derive(Debug, Clone)]
        pub struct Config {
            $( $(#[doc = $top_key_doc])* pub $top_key: $top_type, )*
            $( $(#[doc = $doc])* pub $section: $name, )*
        }

        $(
            $(#[doc = $doc])*
            #[derive(Debug, Clone)]
            pub struct $name {
                $( $(#[doc = $key_doc])* pub $key: $type, )*
            }
        )*

        pub(super) static SECTIONS: &[Section] = &[
            Section {
                name: "",
                docs: &[$($top_doc),*],
                keys: &[$(Key {
                    name: stringify!($top_key),
                    docs: &[$($top_key_doc),*],
                    kind: <$top_type as Value>::kind,
                    fallback: Fallback::$top_how($top_text),
                }),*],
            },
            $(Section {
                name: stringify!($section),
                docs: &[$($doc),*],
                keys: &[$(Key {
                    name: stringify!($key),
                    docs: &[$($key_doc),*],
                    kind: <$type as Value>::kind,
                    fallback: Fallback::$how($text),
                }),*],
            }),*
        ];

        impl Config {
            /// Every key is read before the first missing one is missed, so that all problems are found.
            pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
                $( let $top_key = reader.take("", stringify!($top_key), &Fallback::$top_how($top_text)); )*
                $( let $section = $name::read(reader); )*
                Some(Self { $($top_key: $top_key?,)* $($section: $section?,)* })
            }

            /// Every key with its value, in order.
            pub(super) fn shown(&self) -> Vec<Shown> {
                vec![
                    $( ("", stringify!($top_key), self.$top_key.to_toml()), )*
                    $( $( (stringify!($section), stringify!($key), self.$section.$key.to_toml()), )* )*
                ]
            }
        }

        $(
            impl $name {
                fn read(reader: &mut Reader<'_>) -> Option<Self> {
                    $(
                        let $key = reader.take(
                            stringify!($section), stringify!($key), &Fallback::$how($text)
                        );
                    )*
                    Some(Self { $($key: $key?,)* })
                }
            }
        )*
    };
}

keys! {
    /// The three keys that every instance needs. They stand at the top, before the first section.
    {
        /// The domains whose addresses are aliases. New aliases are made under the first unless another is asked
        /// for. Their MX record leads here.
        domains: Vec<Domain> = Required(r#"["alias.example"]"#),
        /// The name of this machine, in the banner and in EHLO. It should resolve to this machine, and the machine's
        /// address back to it.
        hostname: Domain = Required(r#""mx.alias.example""#),
        /// Who gets mail to postmaster@ and abuse@ of the domains: an address outside of them.
        admin: Mailbox = Required(r#""me@real.example""#),
    }

    /// Mail coming in.
    smtp: Smtp {
        /// Where to listen. Port 25 needs a privilege: redirect it to 2525, or grant `CAP_NET_BIND_SERVICE`.
        listen: Vec<SocketAddr> = Default(r#"["0.0.0.0:2525", "[::]:2525"]"#),
        /// The largest message, told to senders in EHLO.
        max_message_size: Size = Default(r#""25MiB""#),
        /// Memory for the bodies of all messages being received at one time. When it is used up, senders wait a
        /// while and are then asked to come again.
        body_memory: Size = Default(r#""256MiB""#),
        /// Connections at one time. More are told to come again.
        max_connections: u32 = Default("1000"),
        /// Connections at one time from one IPv4 address or one IPv6 /64.
        max_connections_per_address: u32 = Default("20"),
        /// Recipients of one message.
        max_recipients: u32 = Default("100"),
        /// Received header lines after which a message is taken to be in a loop.
        max_received: u32 = Default("50"),
        /// Commands that do not exist after which the connection is closed.
        max_unknown_commands: u32 = Default("3"),
        /// Refused recipients of one connection after which each answer is delayed.
        slow_after_refused: u32 = Default("10"),
        /// Refused recipients of one connection after which it is closed.
        max_refused_recipients: u32 = Default("50"),
        /// How long a sender may be silent between two commands.
        command_timeout: Duration = Default(r#""5m""#),
        /// The slowest that a message may arrive, in bytes a second, once `data_grace` is over. 0: any.
        min_data_rate: u32 = Default("500"),
        /// How long a message may arrive as slowly as it likes.
        data_grace: Duration = Default(r#""60s""#),
        /// The longest that one connection may last.
        session_timeout: Duration = Default(r#""30m""#),
        /// Messages in one connection.
        max_mails: u32 = Default("100"),
    }

    /// The page and the API.
    http: Http {
        /// Where to listen, for a reverse proxy that speaks TLS.
        listen: Vec<SocketAddr> = Default(r#"["127.0.0.1:8080"]"#),
        /// Where people reach the page: in links, and the only origin whose forms are taken.
        public_url: PublicUrl = Default(r#""https://<first domain>""#),
        /// Networks whose `X-Forwarded-For` is believed.
        trusted_proxies: Vec<IpNet> = Default(r#"["127.0.0.1/32", "::1/128"]"#),
    }

    /// Health for those who run the server: /livez and /readyz. Never to be reached from outside.
    admin_http: AdminHttp {
        /// Where to listen.
        listen: Vec<SocketAddr> = Default(r#"["127.0.0.1:9090"]"#),
    }

    /// How the commands reach the running server.
    admin_socket: AdminSocket {
        /// The socket's path. Whoever may write to it (its owner and group) may do everything; its folder must
        /// exist.
        path: PathBuf = Default(r#""/run/tempalias/admin.sock""#),
    }

    /// Mail going out to the real addresses.
    delivery: Delivery {
        /// Send everything through this host. Leave it out to send to the MX of each target's domain.
        smarthost: Option<HostPort> = Optional(r#""smtp.example:587""#),
        /// Networks that a target's MX may be in although they are private. A smarthost may be anywhere.
        allow_private: Vec<IpNet> = Default("[]"),
        /// The port of a target's MX.
        mx_port: u16 = Default("25"),
        /// How long finding and asking the next hop may take while the sender waits at RCPT.
        envelope_timeout: Duration = Default(r#""120s""#),
        /// How long delivering may take from the end of the message on. Senders give up after 10 minutes; if we
        /// answered later, they would send the message again.
        dot_timeout: Duration = Default(r#""9m30s""#),
        /// How long the next hop's transaction is kept open while the message arrives, before its connection is
        /// given back.
        hold_upstream: Duration = Default(r#""5s""#),
    }

    /// Looking up names.
    dns: Dns {
        /// The resolvers to ask. Empty: those of the system.
        servers: Vec<NameServer> = Default("[]"),
    }

    /// Where aliases are kept.
    store: StoreConfig {
        /// The store. "sqlite:" and a path is a file of this machine; its folder must exist. For several nodes:
        /// `redis://host:6379/0`, `rediss://…` for TLS, `unix:/path`, or `redis+cluster://host:6379,host:6379`. Valkey
        /// is addressed alike. Prefer `password_file` to a password in the address.
        url: StoreUrl = Default(r#""sqlite:/var/lib/tempalias/aliases.db""#),
        /// The server's keys. The first seals what is new, all find; it is made on the first start. Without its key
        /// a store is worth nothing: keep a copy elsewhere than the store's.
        key_files: Vec<PathBuf> = Default(r#"["/var/lib/tempalias/server.key"]"#),
        /// Redis: a file that holds the password, and nothing else.
        password_file: Option<PathBuf> = Optional(r#""/etc/tempalias/redis.password""#),
        /// Redis over TLS: the certificates to trust, in PEM, in place of the system's.
        ca_file: Option<PathBuf> = Optional(r#""/etc/tempalias/redis-ca.pem""#),
        /// Redis: what its keys begin with, where several stores share a server.
        namespace: Namespace = Default(r#""tempalias""#),
        /// Redis: how many replicas must have a claim before a message is sent, and an alias or a change of one before
        /// it is confirmed. It costs a round trip more; 0 waits for none, and what a failover loses may then be
        /// delivered beyond an alias's number.
        wait_replicas: u32 = Default("0"),
    }

    /// Which real addresses may have aliases.
    targets: Targets {
        /// Only addresses of these domains. Empty: any.
        allow_domains: Vec<Domain> = Default("[]"),
    }

    /// What strangers may ask for.
    limits: Limits {
        /// The longest life of an alias, in days.
        max_days: u32 = Default("60"),
        /// The most messages that one alias may pass on.
        max_usage: u32 = Default("100"),
        /// New aliases at once for one IPv4 address or one IPv6 /64 …
        create_burst: u32 = Default("5"),
        /// … and then one per this time.
        create_every: Duration = Default(r#""30s""#),
    }

    /// What is remembered about people.
    privacy: Privacy {
        /// Write the addresses of sending hosts into the log. Mail addresses are never written.
        log_addresses: bool = Default("false"),
    }

    /// The log, on standard error.
    log: Log {
        /// How much is logged.
        level: Level = Default(r#""info""#),
    }
}
