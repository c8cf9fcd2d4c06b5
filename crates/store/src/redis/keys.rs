//! Names of keys. All keys of one alias share a hash tag, so that one script may touch them in a Cluster.

use tempalias_alias::{Attempt, ClientTag, Owner, RowKey};

/// Buckets of aliases: enough for every master of a large Cluster to have some, few enough to look at all markers
/// whenever a connection is made.
pub(super) const BUCKETS: u16 = 1024;

/// The keys of one store among others on the same server.
#[derive(Debug, Clone)]
pub(super) struct Names {
    namespace: String,
}

impl Names {
    pub(super) fn new(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned() }
    }

    /// Says which store this bucket belongs to. Every script reads it: where it is missing nothing is known.
    pub(super) fn marker(&self, bucket: u16) -> String {
        self.in_bucket(bucket, "marker")
    }

    /// The row keys of a bucket in order.
    pub(super) fn index(&self, bucket: u16) -> String {
        self.in_bucket(bucket, "index")
    }

    /// Written to see whether this bucket's server takes writes.
    pub(super) fn probe(&self, bucket: u16) -> String {
        self.in_bucket(bucket, "probe")
    }

    pub(super) fn row(&self, row: RowKey) -> String {
        self.in_bucket(bucket_of(row), &format!("row:{row}"))
    }

    pub(super) fn claims(&self, row: RowKey) -> String {
        self.in_bucket(bucket_of(row), &format!("claims:{row}"))
    }

    /// What is remembered of an attempt that was judged.
    pub(super) fn judged(&self, row: RowKey, attempt: Attempt) -> String {
        let Attempt { owner, number } = attempt;
        self.in_bucket(bucket_of(row), &format!("judged:{row}:{}:{number:x}", OwnerText(owner)))
    }

    /// A rate limit. Each in a slot of its own: losing one only fills a bucket.
    pub(super) fn rate(&self, tag: ClientTag) -> String {
        format!("{}:{{rate:{}}}", self.namespace, Hex(&tag.0))
    }

    /// What stands under an Idempotency-Key.
    pub(super) fn once(&self, name: ClientTag) -> String {
        format!("{}:{{once:{}}}", self.namespace, Hex(&name.0))
    }

    /// While it is there, its node counts as alive. It stands in a bucket: where there is no marker nobody can tell
    /// whether a lease has run out or was lost.
    pub(super) fn lease(&self, owner: Owner) -> String {
        self.in_bucket(bucket_of_lease(owner), &format!("lease:{}", OwnerText(owner)))
    }

    /// Every lease, for SCAN. (A namespace has no character that SCAN takes for a wildcard.)
    pub(super) fn leases(&self) -> String {
        format!("{}:{{b???}}:lease:*", self.namespace)
    }

    /// Every row, for SCAN.
    pub(super) fn rows(&self) -> String {
        format!("{}:{{b???}}:row:*", self.namespace)
    }

    /// Which server keys are needed, and until when.
    pub(super) fn server_keys(&self) -> String {
        format!("{}:{{server-keys}}", self.namespace)
    }

    /// Every key of a kind that is in no bucket, for SCAN.
    pub(super) fn pattern(&self, kind: &str) -> String {
        format!("{}:{{{kind}:*}}", self.namespace)
    }

    /// The marker of a store that is just beginning, until all buckets have it.
    pub(super) fn beginning(&self) -> String {
        format!("{}:{{beginning}}", self.namespace)
    }

    /// How far a copy into this store has come.
    pub(super) fn copying(&self) -> String {
        format!("{}:{{copying}}", self.namespace)
    }

    fn in_bucket(&self, bucket: u16, rest: &str) -> String {
        format!("{}:{{b{bucket:03x}}}:{rest}", self.namespace)
    }
}

/// The bucket of a row: its first ten bits, so that buckets in order hold rows in order.
pub(super) fn bucket_of(row: RowKey) -> u16 {
    let [first, second, ..] = row.0;
    u16::from_be_bytes([first, second]) >> 6
}

/// The bucket of a lease: another name of the same node is most likely in another, on another master of a Cluster.
pub(super) fn bucket_of_lease(owner: Owner) -> u16 {
    // Fibonacci hashing: the top ten bits depend on all others.
    let mixed = owner.node.wrapping_add(owner.boot).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u16::try_from(mixed >> 54).unwrap_or_default()
}

/// Bytes in hexadecimal.
pub(super) struct Hex<'a>(pub(super) &'a [u8]);

impl std::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An owner as scripts and lease keys have it.
pub(super) struct OwnerText(pub(super) Owner);

impl std::fmt::Display for OwnerText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}:{:x}", self.0.node, self.0.boot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_spread_over_all_buckets() {
        let bucket = |boot| bucket_of_lease(Owner { node: 7, boot });
        let seen: std::collections::BTreeSet<u16> = (0..20_000).map(bucket).collect();
        assert_eq!(seen.len(), usize::from(BUCKETS));
        assert!(seen.iter().all(|&bucket| bucket < BUCKETS));
        let lease = Names::new("tempalias").lease(Owner { node: 7, boot: 10 });
        assert_eq!(lease, format!("tempalias:{{b{:03x}}}:lease:7:a", bucket(10)));
    }

    #[test]
    fn buckets_are_ranges_of_rows_and_spread_over_a_cluster() {
        assert_eq!(bucket_of(RowKey([0xff; 16])), BUCKETS - 1);
        let mut row = [0; 16];
        row[1] = 0x40;
        assert_eq!((bucket_of(RowKey([0; 16])), bucket_of(RowKey(row))), (0, 1));
        let names = Names::new("tempalias");
        assert_eq!(names.marker(0x3ff), "tempalias:{b3ff}:marker");
        assert!(names.row(RowKey([0xff; 16])).starts_with("tempalias:{b3ff}:row:ffff"));
    }
}
