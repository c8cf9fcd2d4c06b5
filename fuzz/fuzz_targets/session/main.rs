//! A whole session: the input is what the sender says and what befalls everybody else. After every step the
//! promises of one mail are checked: the list is in `oracle.rs`.
#![no_main]

mod oracle;
mod script;
mod world;

use libfuzzer_sys::fuzz_target;
use script::Script;
use world::World;

/// Sessions that share one store: retries after a lost verdict or an unread 250 need more than one.
const SESSIONS: u64 = 4;

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let mut world = World::new(script.next());
    for number in 0..SESSIONS {
        world.play(number, &mut script);
        if script.is_over() {
            return;
        }
    }
});
