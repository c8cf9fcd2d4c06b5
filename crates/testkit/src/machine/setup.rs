//! What a world begins with: the operator's decisions, and aliases.

use std::sync::Arc;
use std::time::Duration;

use tempalias_alias::{
    AliasId, Keys, Ledger, Limits as AliasLimits, ManageHash, Owner, Private, RowKey, State,
};
use tempalias_relay::{DeliveryPolicy, Limits, Policy};

use super::world::World;
use crate::dialogue::{DOMAINS, Dialogue, HOSTNAME, OPERATOR, Seed, duration, size};

pub(super) fn owner(boot: u64) -> Owner {
    Owner { node: 1, boot }
}

pub(super) fn policy(dialogue: &Dialogue, keys: &Arc<Keys>) -> Result<Policy, String> {
    let number = |key: &str| size(dialogue.config(key));
    let small =
        |key: &str| number(key).and_then(|n| u32::try_from(n).map_err(|_| format!("{key}: too large")));
    let time = |key: &str| duration(dialogue.config(key));
    let limits = Limits {
        max_message_size: number("max_message_size")?,
        max_recipients: small("max_recipients")? as usize,
        max_received: small("max_received")? as usize,
        max_unknown_commands: small("max_unknown_commands")?,
        slow_after_refused: small("slow_after_refused")?,
        max_refused_recipients: small("max_refused_recipients")?,
        command_timeout: time("command_timeout")?,
        data_grace: time("data_grace")?,
        min_data_rate: small("min_data_rate")?,
        session_timeout: time("session_timeout")?,
        max_mails: small("max_mails")?,
        envelope_timeout: time("envelope_timeout")?,
        dot_timeout: time("dot_timeout")?,
        hold_upstream: time("hold_upstream")?,
    };
    Ok(Policy {
        hostname: HOSTNAME.parse().map_err(|_| "hostname")?,
        domains: DOMAINS.iter().filter_map(|domain| domain.parse().ok()).collect(),
        operator: OPERATOR.parse().map_err(|_| "operator")?,
        delivery: match dialogue.config("delivery") {
            "mx" => DeliveryPolicy::Mx,
            "smarthost" => DeliveryPolicy::Smarthost,
            other => return Err(format!("delivery is mx or smarthost, not {other}")),
        },
        public_url: "https://alias.test".into(),
        keys: keys.clone(),
        limits,
    })
}

impl World {
    /// The row of an alias, whichever key made it.
    pub(crate) fn row(&self, alias: &str) -> Result<RowKey, String> {
        let id: AliasId = alias.parse().map_err(|_| format!("{alias} is no alias"))?;
        let row = self.keys.row_keys(&id).into_iter().find(|key| self.store.ledger(*key).is_some());
        row.ok_or(format!("nobody made {alias}"))
    }

    pub(crate) fn seed(&mut self, seed: &Seed) -> Result<(), String> {
        let id: AliasId = seed.alias.parse().map_err(|_| format!("{} is no alias", seed.alias))?;
        let key =
            self.keys.all().find(|key| (key.id() == self.old_key) == seed.old_key).ok_or("no such key")?;
        let private = Private {
            target: seed.target.parse().map_err(|_| format!("{} is no mailbox", seed.target))?,
            domain: seed.domain.as_deref().unwrap_or(DOMAINS[0]).parse().map_err(|_| "no such domain")?,
            manage: ManageHash([7; 16]),
        };
        let start = seed.from.map(|from| self.unix().plus(from));
        let days = |days: u32| start.unwrap_or(self.unix()).plus(Duration::from_hours(24) * days);
        let limits = AliasLimits {
            valid_from: start,
            valid_until: seed.days.map(days),
            max_usage: seed.uses.and_then(std::num::NonZeroU32::new),
        };
        let ledger = Ledger { limits, state: State::Active, used: 0, kept: vec![] };
        let (row, sealed) = (key.row_key(&id), key.seal(&id, &private, [9; 12]));
        self.store.insert(row, ledger, sealed);
        self.targets.push(seed.target.clone());
        Ok(())
    }
}
