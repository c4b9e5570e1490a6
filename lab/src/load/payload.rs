//! What records carry: lines like those of a log, in which words repeat and numbers do not, so that they compress as such
//! lines do. A length comes in, bytes go out; the same ones in every run.

/// Different payloads; each record carries one of them.
const PAYLOADS: usize = 64;
/// Fewer of them where they are large.
const POOL: usize = 16 << 20;

const WORDS: [&str; 8] =
    ["level=info ", "request served ", "path=/api/v1/items ", "status=200 ", "user=", "took_us=", "bytes=", "trace="];

/// Payloads up to a length.
pub(crate) struct Payloads(Vec<Vec<u8>>);

impl Payloads {
    /// None of them has more than `most` bytes.
    pub(crate) fn new(most: usize) -> Self {
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut payload = || {
            let mut line = Vec::with_capacity(most + 32);
            while line.len() < most {
                let n = random();
                line.extend_from_slice(WORDS[usize::from(n.to_le_bytes()[0] & 7)].as_bytes());
                line.extend_from_slice(format!("{:x} ", n >> 40).as_bytes());
            }
            line.truncate(most);
            line
        };
        let count = (POOL / most.max(1)).clamp(1, PAYLOADS);
        Self((0..count).map(|_| payload()).collect())
    }

    /// That of record `number`, `length` bytes long.
    pub(crate) fn of(&self, number: u64, length: usize) -> &[u8] {
        let index = usize::try_from(number % self.0.len() as u64).unwrap_or(0);
        let payload = &self.0[index];
        &payload[..length.min(payload.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_have_their_length_and_few_large_ones_do() {
        let payloads = Payloads::new(500);
        assert_eq!((payloads.0.len(), payloads.of(65, 500).len(), payloads.of(3, 7).len()), (64, 500, 7));
        assert_ne!(payloads.of(0, 500), payloads.of(1, 500));
        assert_eq!(payloads.of(0, 500), payloads.of(64, 500));
        assert_eq!(Payloads::new(4 << 20).0.len(), 4);
        assert!(Payloads::new(0).of(9, 0).is_empty());
    }
}
