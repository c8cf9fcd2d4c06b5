//! Keys, names and claims that are made of small numbers.

use tempalias_alias::{Attempt, ClaimRequest, ClientTag, Fingerprint, RowKey, SenderTag};
use tempalias_store::Store;

pub(crate) fn key(number: u8) -> RowKey {
    RowKey([number; 16])
}

pub(crate) fn tag(number: u8) -> ClientTag {
    ClientTag([number; 16])
}

pub(crate) fn request(store: &Store, row: RowKey, message: u8, number: u64) -> ClaimRequest {
    ClaimRequest {
        row,
        fingerprint: Fingerprint([message; 16]),
        identified: true,
        sender: SenderTag([message; 8]),
        attempt: Attempt { owner: store.owner(), number },
        was_counted: true,
    }
}
