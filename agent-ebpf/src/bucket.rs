//! Buckets of the log-linear histograms; `agent::aggregate::histogram` holds the inverse.

/// Bucket of `value`: a power of two is cut into 2^`sub_bits` equal parts; the last of `buckets` takes what is above.
#[inline(always)]
pub fn bucket(value: u64, sub_bits: u32, buckets: usize) -> usize {
    let subs = 1_u64 << sub_bits;
    if value < subs {
        return value as usize;
    }
    let top = log2(value);
    let shift = (top - sub_bits) & 63;
    let index = ((u64::from(shift) + 1) << sub_bits) + ((value >> shift) - subs);
    if index as usize >= buckets { buckets - 1 } else { index as usize }
}

/// Position of the highest bit, by halving: the target has no instruction for it. Without branches, which would double
/// the verifier's work five times over.
#[inline(always)]
fn log2(value: u64) -> u32 {
    let mut value = value;
    let mut top = 0;
    let mut half = 32;
    while half > 0 {
        let shift = u64::from(value >> half != 0) * half;
        value >>= shift;
        top += shift as u32;
        half /= 2;
    }
    top
}
