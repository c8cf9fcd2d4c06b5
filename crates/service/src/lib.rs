//! What can be done with an alias: create, look, change, free what is held, remove, list.
//!
//! Owns the operator's policy ([`Policy`]), who may do what ([`Proof`]), and the promise that a repeated request
//! makes one alias ([`Once`]). Takes the store, the keys, the policy and randomness; time is the store's. Never
//! knows HTTP, SMTP or the words of an answer: its errors are values, its front doors turn them into text.

mod access;
mod aliases;
mod create;
mod legacy;
mod once;
mod plan;
mod policy;
mod view;

pub use access::{AccessError, Changes, Proof};
pub use aliases::{Aliases, Random};
pub use create::{CreateError, Made, Requester};
pub use legacy::{Import, ImportReport};
pub use once::{IdempotencyKey, IdempotencyKeyError, Once};
pub use plan::{Draft, Fault, Field, FieldError};
pub use policy::{Policy, PublicUrl, PublicUrlError};
pub use tempalias_store::{Listed, StoreError};
pub use view::{Standing, View};
