//! The scripts that run inside the server: the rules of `alias`, atomic where the data is.

use std::sync::LazyLock;

use redis::{Cmd, cmd};

/// A script and the name under which a server remembers it.
pub(super) struct Script {
    text: String,
    sha: String,
    is_waited_for: bool,
}

/// Whether a script may write, whether it may when memory is full, and whether replicas must have what it wrote where
/// that is configured.
enum Writes {
    Never,
    IfThereIsRoom,
    /// It frees memory or needs none to speak of: a settlement is a fact, however full the server is.
    Always,
    IfThereIsRoomWaitedFor,
    AlwaysWaitedFor,
}

impl Script {
    fn new(writes: &Writes, parts: &[&str]) -> Self {
        let flags = match writes {
            Writes::Never => "#!lua flags=no-writes\n",
            Writes::IfThereIsRoom | Writes::IfThereIsRoomWaitedFor => "#!lua\n",
            Writes::Always | Writes::AlwaysWaitedFor => "#!lua flags=allow-oom\n",
        };
        let is_waited_for = matches!(writes, Writes::IfThereIsRoomWaitedFor | Writes::AlwaysWaitedFor);
        let text = format!("{flags}{}", parts.concat());
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Self { text, sha, is_waited_for }
    }

    /// Teaches it to a server.
    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(&self.text);
        load
    }

    /// Whether replicas must have what it wrote, where that is configured.
    pub(super) fn is_waited_for(&self) -> bool {
        self.is_waited_for
    }

    /// Runs it by its name.
    pub(super) fn by_name(&self, keys: &[String], args: &[&[u8]]) -> Cmd {
        Self::call("EVALSHA", &self.sha, keys, args)
    }

    /// Runs it by its text; the server remembers it from then on. For a server that has forgotten it.
    pub(super) fn by_text(&self, keys: &[String], args: &[&[u8]]) -> Cmd {
        Self::call("EVAL", &self.text, keys, args)
    }

    fn call(verb: &str, script: &str, keys: &[String], args: &[&[u8]]) -> Cmd {
        let mut call = cmd(verb);
        call.arg(script).arg(keys.len()).arg(keys);
        for arg in args {
            call.arg(*arg);
        }
        call
    }
}

const CLOCK: &str = include_str!("lua/clock.lua");
const PRELUDE: &str = concat!(include_str!("lua/clock.lua"), include_str!("lua/prelude.lua"));
const WRITE_CLAIMS: &str = include_str!("lua/write_claims.lua");

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $writes:ident $parts:expr;)*) => {
        /// All of them.
        pub(super) fn all() -> Vec<&'static Script> {
            vec![$(&$name),*]
        }

        $($(#[$doc])* pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(&Writes::$writes, &$parts));)*
    };
}

scripts! {
    NOW = Never [CLOCK, include_str!("lua/now.lua")];
    FIND = Never [PRELUDE, include_str!("lua/find.lua")];
    PAGE = Never [PRELUDE, include_str!("lua/page.lua")];
    CREATE = IfThereIsRoomWaitedFor [PRELUDE, include_str!("lua/create.lua")];
    CLAIM = IfThereIsRoomWaitedFor [PRELUDE, WRITE_CLAIMS, include_str!("lua/claim.lua")];
    SETTLE = Always [PRELUDE, WRITE_CLAIMS, include_str!("lua/settle.lua")];
    ACKNOWLEDGE = Always [PRELUDE, include_str!("lua/acknowledge.lua")];
    CHANGE = AlwaysWaitedFor [PRELUDE, include_str!("lua/change.lua")];
    SWEEP = Always [PRELUDE, include_str!("lua/sweep.lua")];
    TAKE = IfThereIsRoom [CLOCK, include_str!("lua/take.lua")];
    RESERVE = IfThereIsRoom [CLOCK, include_str!("lua/reserve.lua")];
    CONFIRM = Always [include_str!("lua/confirm.lua")];
    RENEW = Always [PRELUDE, include_str!("lua/renew.lua")];
    ALIVE = Never [PRELUDE, include_str!("lua/alive.lua")];
    MARK = IfThereIsRoom [include_str!("lua/mark.lua")];
    TIDY = Always [include_str!("lua/tidy.lua")];
    WHOLE = Never [PRELUDE, include_str!("lua/whole.lua")];
    BRING = IfThereIsRoom [PRELUDE, include_str!("lua/bring.lua")];
    BRING_REPLY = IfThereIsRoom [include_str!("lua/bring_reply.lua")];
    NEED = IfThereIsRoom [include_str!("lua/need.lua")];
    OVER = Always [include_str!("lua/over.lua")];
    REMARK = IfThereIsRoom [include_str!("lua/remark.lua")];
    COPYING_CLAIM = IfThereIsRoom [include_str!("lua/copying_claim.lua")];
    COPYING_NOTE = IfThereIsRoom [include_str!("lua/copying_note.lua")];
    UNMARK = Always [include_str!("lua/unmark.lua")];
    JOIN = Always [CLOCK, include_str!("lua/join.lua")];
}
