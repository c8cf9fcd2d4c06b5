//! A checksum over what a row says: bytes that the disk changed are noticed before anybody acts on them.
//!
//! Guards against accidents, not against people: who can write to the file can also compute this.

/// What has been summed up so far.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum(u64);

impl Sum {
    /// The digits of pi, so that a row of zeros does not have a sum of zero.
    pub(super) fn new() -> Self {
        Self(0x243f_6a88_85a3_08d3)
    }

    /// Each step can be undone, so two rows that differ in one word never have the same sum.
    pub(super) fn word(self, word: u64) -> Self {
        let mixed = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self(mixed ^ (mixed >> 29))
    }

    pub(super) fn number(self, number: i64) -> Self {
        self.word(number.cast_unsigned())
    }

    pub(super) fn maybe(self, number: Option<i64>) -> Self {
        match number {
            None => self.word(0),
            Some(number) => self.word(1).number(number),
        }
    }

    pub(super) fn octets(self, octets: &[u8]) -> Self {
        let (words, rest) = octets.as_chunks::<8>();
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let sum = self.word(u64::try_from(octets.len()).unwrap_or(u64::MAX));
        let sum = words.iter().fold(sum, |sum, &word| sum.word(u64::from_le_bytes(word)));
        if rest.is_empty() { sum } else { sum.word(u64::from_le_bytes(last)) }
    }

    /// As a column has it.
    pub(super) fn column(self) -> i64 {
        self.0.cast_signed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_bit_changes_it() {
        let row: Vec<u8> = (0..163).collect();
        let sum = Sum::new().octets(&row).column();
        for bit in 0..row.len() * 8 {
            let mut damaged = row.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Sum::new().octets(&damaged).column(), sum, "{bit}");
        }
        let shorter = Sum::new().octets(&row[..162]).column();
        assert_ne!(shorter, sum);
        assert_ne!(Sum::new().maybe(None).column(), Sum::new().maybe(Some(0)).column());
    }
}
