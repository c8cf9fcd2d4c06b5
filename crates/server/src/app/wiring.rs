//! From the configuration's words to each crate's.

use std::net::SocketAddr;
use std::sync::Arc;

use tempalias_alias::Keys;
use tempalias_mail::{DoorLimits, MOST_UNSETTLED};
use tempalias_outside::dial::Timeouts;
use tempalias_outside::dns::Settings;
use tempalias_outside::pool::MAX_IDLE;
use tempalias_outside::{self as outside, DialConfig, Smarthost};
use tempalias_relay::{DeliveryPolicy, Limits, Policy};

use crate::config::{Config, Host, HostPort};

/// Files that are open beside the sessions', HTTP's and the pool's: store, listeners, log, admin socket.
const OTHER_FILES: u64 = 64;
/// Files of one session: its sender's connection and its next hop's.
const FILES_PER_SESSION: u64 = 2;

pub(super) fn relay_policy(config: &Config, keys: Arc<Keys>) -> Policy {
    let smarthost = config.delivery.smarthost.is_some();
    Policy {
        hostname: config.hostname.clone(),
        domains: config.domains.clone(),
        operator: config.admin.clone(),
        delivery: if smarthost { DeliveryPolicy::Smarthost } else { DeliveryPolicy::Mx },
        public_url: config.http.public_url.as_str().to_owned(),
        keys,
        limits: Limits {
            max_message_size: config.smtp.max_message_size.bytes() as u64,
            max_recipients: config.smtp.max_recipients as usize,
            max_received: config.smtp.max_received as usize,
            max_unknown_commands: config.smtp.max_unknown_commands,
            slow_after_refused: config.smtp.slow_after_refused,
            max_refused_recipients: config.smtp.max_refused_recipients,
            command_timeout: config.smtp.command_timeout,
            data_grace: config.smtp.data_grace,
            min_data_rate: config.smtp.min_data_rate,
            session_timeout: config.smtp.session_timeout,
            max_mails: config.smtp.max_mails,
            envelope_timeout: config.delivery.envelope_timeout,
            dot_timeout: config.delivery.dot_timeout,
            hold_upstream: config.delivery.hold_upstream,
        },
    }
}

pub(super) fn door_limits(config: &Config, open_files: Option<u64>) -> DoorLimits {
    let wanted = config.smtp.max_connections as usize;
    // However many pages are asked for, mail keeps its share.
    let others = OTHER_FILES + (super::http::MAX_CONNECTIONS + MAX_IDLE) as u64;
    let possible = open_files.map_or(u64::MAX, |files| files.saturating_sub(others) / FILES_PER_SESSION);
    let possible = usize::try_from(possible).unwrap_or(usize::MAX).max(1);
    if possible < wanted {
        tracing::warn!(
            wanted,
            possible,
            "smtp.max_connections is lowered to what the limit of open files allows"
        );
    }
    DoorLimits {
        body_memory: config.smtp.body_memory.bytes() as u64,
        max_connections: wanted.min(possible),
        max_connections_per_address: config.smtp.max_connections_per_address as usize,
        max_unsettled: MOST_UNSETTLED,
    }
}

pub(super) fn smarthost(configured: &HostPort) -> Smarthost {
    let host = match &configured.host {
        Host::Name(name) => outside::Host::Name(name.clone()),
        Host::Address(address) => outside::Host::Address(*address),
    };
    Smarthost { host, port: configured.port }
}

pub(super) fn dns_settings(config: &Config) -> Settings {
    Settings { servers: config.dns.servers.iter().map(|server| server.0).collect(), ..Settings::default() }
}

pub(super) fn dial_config(config: &Config, own: &[SocketAddr]) -> DialConfig {
    DialConfig {
        hostname: config.hostname.clone(),
        mx_port: config.delivery.mx_port,
        allow_private: config.delivery.allow_private.clone(),
        own: own.to_vec(),
        timeouts: Timeouts::default(),
    }
}
